//! One node: the real machine, names, filesystem and content store, on a folder of its own, with a clock of its own.

use crate::backups::Backup;
use crate::ports::{Archive, Faults, SimContents, SimEvents, SimSource};
use crate::random::Random;
use delugefs::bytes::ports::Bytewise;
use delugefs::bytes::replica::Replica;
use delugefs::bytes::torn::Boot;
use delugefs::filesystem::{
    Answer, Config as FsConfig, Contents, Filesystem, FsError, HandleId, Inode, Invalidation,
    Ports, SealJob, Sealed, Source as _,
};
use delugefs::node::moving::{self, CommittedNames, Mover};
use delugefs::node::rests::{self, RestFile};
use delugefs::publishing::Publishing;
use delugefs_core::holdings::Operation;
use delugefs_core::ids::{IncarnationId, NodeId, TreeId, VolumeId};
use delugefs_core::settings::Settings;
use delugefs_core::sync::{Config, Event, Outcome, Sync};
use delugefs_core::time::Timestamp;
use delugefs_metadata_repo::signature::Signer;
use delugefs_metadata_repo::{Repository, RepositoryError, ViewDiff};
use delugefs_torrent::store::ContentStore;
use ed25519_dalek::SigningKey;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::runtime::Builder;

/// Files up to so many bytes go into their descriptors.
pub(crate) const INLINE_MAX: usize = 64;

/// The first node's clock at the start, in seconds since 1970: long before any real clock.
const EPOCH: u64 = 1_000_000_000;

pub(crate) fn node_id(number: usize) -> NodeId {
    NodeId::new([number as u8 + 1; 16])
}

pub(crate) fn number_of(node: NodeId) -> usize {
    usize::from(node.as_bytes()[0]) - 1
}

pub(crate) fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number as u8 + 1], 4000))
}

pub(crate) fn number_at(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(v4) => usize::from(v4.ip().octets()[3]) - 1,
        SocketAddr::V6(_) => unreachable!("only IPv4 here"),
    }
}

pub(crate) fn volume() -> Settings {
    Settings::new(VolumeId::new([9; 16]), "sim".to_owned())
}

/// What a process has open.
pub(crate) struct Open {
    pub(crate) handle: HandleId,
    pub(crate) inode: Inode,
    pub(crate) backing: Option<Arc<std::fs::File>>,
}

/// A process.
pub(crate) struct Running {
    pub(crate) sync: Sync,
    pub(crate) parts: Parts,
    pub(crate) open: Vec<Open>,
    /// A file that is being hashed.
    pub(crate) sealing: Option<SealJob>,
    /// The wake-up that is arranged.
    pub(crate) wake: Option<Duration>,
}

/// The parts that are not the machine.
pub(crate) struct Parts {
    pub(crate) repository: Repository,
    pub(crate) filesystem: Filesystem,
    pub(crate) replica: Arc<Replica>,
    pub(crate) events: Arc<SimEvents>,
    contents: Arc<SimContents>,
    moving: Mutex<()>,
    /// Where history is cut in this run.
    pub(crate) rests: Option<RestFile>,
    pub(crate) key: SigningKey,
    label: String,
    pub(crate) source: Arc<SimSource>,
    /// The settings of the view that they were asked for last.
    settings: Mutex<Option<(TreeId, Settings)>>,
}

impl Mover for Parts {
    fn repository(&self) -> &Repository {
        &self.repository
    }

    fn filesystem(&self) -> &Filesystem {
        &self.filesystem
    }

    fn names_moving(&self) -> &Mutex<()> {
        &self.moving
    }

    fn signer(&self) -> &dyn Signer {
        &self.key
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn now(&self) -> Timestamp {
        self.source.now()
    }

    fn follow(&self, diff: &ViewDiff) {
        let now = self.source.seconds();
        self.replica.follow(&diff.changes, &diff.blobs, now);
    }

    fn invalidate(&self, _: Vec<Invalidation>) {}

    fn brought(&self, _: TreeId, _: &ViewDiff) -> Result<(), RepositoryError> {
        Ok(())
    }

    fn learn_settings(&self) -> Result<(), RepositoryError> {
        self.replica.look_at_all();
        Ok(())
    }
}

impl Parts {
    /// The volume's, as the present view has them.
    pub(crate) fn settings(&self) -> Settings {
        let tree = self.repository.view().tree;
        let mut known = self.settings.lock().unwrap();
        if known.as_ref().is_none_or(|(at, _)| *at != tree) {
            *known = Some((tree, self.repository.settings().unwrap()));
        }
        known.as_ref().unwrap().1.clone()
    }

    /// The heads, as the machine's loop reads them.
    pub(crate) fn outcome(&self, is_done: bool) -> Outcome {
        match is_done {
            true => Outcome::Done(self.repository.authors().unwrap()),
            false => Outcome::Failed,
        }
    }

    /// Makes complete contents durable; whether there is something new to say of what is held here.
    pub(crate) fn sync_contents(&self) -> bool {
        let replica = &self.replica;
        let synced = replica.store.sync();
        assert!(synced.failed.is_empty(), "{:?}", synced.failed);
        let arrived = replica.take_completed().into_iter();
        let arrived = arrived.filter(|content| replica.store.is_durable(content));
        let durable = synced.durable.into_iter().chain(replica.take_durable());
        let mut fresh: Vec<_> = durable.chain(arrived).collect();
        fresh.retain(|content| !replica.holders(content).contains(&self.key.incarnation()));
        fresh.sort_unstable();
        fresh.dedup();
        replica.declare(Operation::Held, &fresh);
        !fresh.is_empty()
    }

    /// Lets go of what has expired, as one who knows the present incarnations of the others; how many contents.
    pub(crate) fn reap(&self, others: &BTreeSet<IncarnationId>) -> usize {
        let keep = self.settings().keep;
        let expired = self.replica.expired(self.source.seconds(), keep);
        if expired.is_empty() {
            return 0;
        }
        let in_use = self.filesystem.contents_in_use();
        self.replica.reap(&expired, &in_use, others).0
    }

    pub(crate) fn is_complete(&self, content: &delugefs_core::ids::InfoHash) -> bool {
        self.replica.store.state(content) == delugefs_torrent::store::State::Complete
    }
}

/// What `node.toml` says.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) serial: u8,
    pub(crate) continues: Option<u8>,
    /// The disk was put back to a copy of it since: others may have seen more of it.
    pub(crate) is_restored: bool,
}

pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) root: PathBuf,
    /// How often it was started.
    pub(crate) life: u32,
    /// Which of its incarnations it is; each has a key of its own.
    pub(crate) identity: Identity,
    /// How many it has had.
    pub(crate) identities: u8,
    /// Their keys.
    keys: RefCell<BTreeMap<u8, SigningKey>>,
    /// A copy of its disk.
    pub(crate) backup: Option<Backup>,
    pub(crate) running: Option<Running>,
    pub(crate) source: Arc<SimSource>,
    pub(crate) faults: Arc<Faults>,
    /// It came to its end in the middle of something, or by a power cut: what its mount shows at the next start is
    /// not known beforehand.
    pub(crate) is_adrift: bool,
    /// Then also what was acknowledged, and not synced, may be gone.
    pub(crate) has_lost_power: bool,
    /// Whether history is cut in this run.
    pub(crate) cuts: bool,
    /// The wall clock's error, in seconds.
    pub(crate) skew: i64,
    /// The monotonic clock: an offset, and thousandths that it gains.
    offset: Duration,
    rate: u32,
}

impl Node {
    pub(crate) fn new(number: usize, top: &Path, random: &mut Random) -> Self {
        Self {
            number,
            root: top.join(number.to_string()),
            life: 0,
            identity: Identity::default(),
            identities: 0,
            keys: RefCell::default(),
            backup: None,
            running: None,
            source: Arc::new(SimSource::new(number as u8 + 1)),
            faults: Arc::default(),
            is_adrift: false,
            has_lost_power: false,
            cuts: false,
            skew: 0,
            offset: random.ms(0, 1_000_000),
            rate: random.within(950, 1050) as u32,
        }
    }

    pub(crate) fn incarnation(&self) -> IncarnationId {
        self.key().incarnation()
    }

    fn key(&self) -> SigningKey {
        self.key_of(self.identity.serial)
    }

    /// The incarnation that this one goes on from.
    pub(crate) fn before(&self) -> Option<IncarnationId> {
        let before = self.identity.continues?;
        Some(self.key_of(before).incarnation())
    }

    fn key_of(&self, serial: u8) -> SigningKey {
        let make = || {
            let mut seed = [self.number as u8 + 1; 32];
            seed[31] = serial;
            SigningKey::from_bytes(&seed)
        };
        let mut keys = self.keys.borrow_mut();
        keys.entry(serial).or_insert_with(make).clone()
    }

    pub(crate) fn clock(&self, now: Duration) -> Duration {
        self.offset + now * self.rate / 1000
    }

    /// When this node's clock shows `at`, rounded up.
    pub(crate) fn time_of(&self, at: Duration) -> Duration {
        at.saturating_sub(self.offset) * 1000 / self.rate + Duration::from_nanos(10)
    }

    /// Sets the wall clock.
    pub(crate) fn set_clock(&self, now: Duration) {
        let seconds = (EPOCH.cast_signed() + self.skew) * 1_000_000_000;
        let clock = seconds + now.as_nanos() as i64;
        self.source.clock.store(clock, Ordering::Relaxed);
    }

    /// Starts the process on what is on disk.
    pub(crate) fn start(&mut self, archive: &Arc<Archive>) -> Result<(), String> {
        assert!(self.running.is_none());
        self.life += 1;
        let parts = self.open(archive).map_err(|error| error.to_string())?;
        let sync = self.machine(0, &parts);
        self.running = Some(Running {
            sync,
            parts,
            open: Vec::new(),
            sealing: None,
            wake: None,
        });
        Ok(())
    }

    /// Shows all that is here; the machine's first events.
    pub(crate) fn boot(&mut self, seed: u64) -> Vec<Event> {
        moving::catch_up(self.parts(), self.before()).unwrap();
        let sync = self.machine(seed, self.parts());
        let mut first = vec![Event::Wake];
        if self.filesystem().status().uncommitted > 0 {
            first.push(Event::LocalChanges);
        }
        self.running.as_mut().expect("running").sync = sync;
        first
    }

    fn machine(&self, seed: u64, parts: &Parts) -> Sync {
        Sync::new(Config {
            node: node_id(self.number),
            incarnation: self.incarnation(),
            seed,
            authors: parts.repository.authors().unwrap(),
            positions: parts.replica.positions(),
        })
    }

    /// What tells one start from another: the boot, and a random number.
    fn life(&self) -> (Boot, u64) {
        let serial = u128::from_be_bytes(self.source.random());
        (self.source.boot(), Random::new(serial as u64).next())
    }

    fn open(&self, archive: &Arc<Archive>) -> Result<Parts, Box<dyn std::error::Error>> {
        std::fs::create_dir_all(&self.root)?;
        let names = self.root.join("metadata.git");
        if !names.join("HEAD").exists() {
            // as the node does with what a start that was cut off has left
            let _ = std::fs::remove_dir_all(&names);
            Repository::create(&names, &volume())?;
            if self.cuts {
                rests::begin(&self.root.join("holdings"), self.incarnation())?;
            }
        }
        let boots = self.source.boots.load(Ordering::Relaxed);
        let repository = Repository::open_in(&names, &format!("boot-{boots}"))?;
        let store = ContentStore::open(&self.root)?;
        let incarnation = self.incarnation();
        let life = self.life();
        let replica = Replica::open(&self.root, store, repository.clone(), self.key(), life)?;
        let replica = Arc::new(replica);
        let contents = Arc::new(SimContents {
            inner: Bytewise(Arc::clone(&replica)),
            faults: Arc::clone(&self.faults),
            archive: Arc::clone(archive),
        });
        let events = Arc::new(SimEvents::default());
        let label = format!("disk{}", self.number);
        let committed = moving::committed(&repository, (incarnation, self.before()))?;
        let config = FsConfig {
            root: self.root.clone(),
            label: label.clone(),
            base: committed.base,
            sequence: committed.sequence,
            inline_max: INLINE_MAX as u32,
        };
        let ports = Ports {
            names: Arc::new(CommittedNames(repository.clone())),
            contents: contents.clone(),
            source: self.source.clone(),
            events: events.clone(),
            publishing: Publishing::default(),
        };
        let filesystem = Filesystem::start(config, ports)?;
        replica.learn(filesystem.base().tree, self.source.seconds())?;
        let infos = filesystem.uncommitted_infos();
        replica.check_torn(&infos, self.source.seconds())?;
        let who = (self.incarnation(), volume().volume);
        let now = self.source.seconds().cast_signed();
        let rests = match self.cuts {
            true => Some(RestFile::open(&self.root.join("holdings"), who, now)?),
            false => None,
        };
        Ok(Parts {
            rests,
            repository,
            filesystem,
            replica,
            events,
            contents,
            moving: Mutex::default(),
            settings: Mutex::default(),
            key: self.key(),
            label,
            source: self.source.clone(),
        })
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.running.as_ref().expect("running").parts
    }

    pub(crate) fn filesystem(&self) -> &Filesystem {
        &self.parts().filesystem
    }
}

impl Running {
    /// Hashes the file that is being hashed.
    pub(crate) fn seal_end(&mut self) {
        if let Some(job) = self.sealing.take() {
            let sealed: Result<Sealed, FsError> = self.parts.contents.seal(&job.path);
            let content = sealed.as_ref().ok().map(|sealed| sealed.content.info_hash);
            match self.parts.filesystem.sealed(job, sealed) {
                Ok(()) | Err(FsError::Busy | FsError::NoSpace | FsError::Unavailable) => {}
                Err(error) => panic!("cannot seal: {error}"),
            }
            if let Some(content) = content {
                let now = self.parts.source.seconds();
                self.parts.replica.sealed(&content, now);
            }
        }
    }

    /// Begins to hash the next closed file; whether there was one.
    pub(crate) fn seal_begin(&mut self) -> bool {
        if self.sealing.is_none() {
            self.sealing = self.parts.filesystem.next_unsealed();
        }
        self.sealing.is_some()
    }

    /// Waits for an answer; what it waits for happens now.
    pub(crate) fn finish<T>(&mut self, answer: Answer<T>) -> Result<T, FsError> {
        let mut future = match answer {
            Answer::Ready(value) => return Ok(value),
            Answer::Later(future) => future,
        };
        let runtime = Builder::new_current_thread().build().unwrap();
        let _context = runtime.enter();
        let mut noop = Context::from_waker(Waker::noop());
        if let Poll::Ready(value) = pin!(&mut future).poll(&mut noop) {
            return value;
        }
        self.seal_all();
        match self.parts.filesystem.status().unsealed {
            0 => runtime.block_on(future),
            _ => Err(FsError::TimedOut),
        }
    }

    /// Hashes all that waits for it, as far as there is room.
    fn seal_all(&mut self) {
        self.seal_end();
        while self.seal_begin() {
            let before = self.parts.filesystem.status().unsealed;
            self.seal_end();
            if self.parts.filesystem.status().unsealed == before {
                break;
            }
        }
    }
}
