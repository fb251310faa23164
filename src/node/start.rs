//! From a command line to a node whose parts are open, before anything is mounted or heard.

use super::error::NodeError;
use super::inbox::{INBOX_INPUTS_MAX, Input};
use super::join;
use super::links::Links;
use super::members::Members;
use super::moving::{self, CommittedNames};
use super::pins::PinFile;
use super::recovered;
use super::rests::{self, RestFile};
use super::sealing::Bell;
use super::shared::{Shared, unix_time, wall_clock};
use super::story::{Complaints, Troubles};
use crate::bytes::ports::{Bytewise, Holders, LocalTcp, Noticing};
use crate::bytes::replica::Replica;
use crate::bytes::torn::Checked;
use crate::cli::{Options, background};
use crate::filesystem::{self as fs, Filesystem, Ports};
use crate::fuse::{self, MountError};
use crate::link::{Credentials, Identity, Psk};
use crate::net::{Gate, Limits, Listener};
use crate::publishing::Publishing;
use crate::root::{
    Layout, NodeFile, Renewal, RootError, RootLock, Standing, is_held_by_a_dead, random,
};
use delugefs_core::budget::Budget;
use delugefs_core::limits::LABEL_BYTES_MAX;
use delugefs_core::settings::Settings;
use delugefs_core::time::Timestamp;
use delugefs_metadata_repo::Repository;
use delugefs_torrent::store::ContentStore;
use delugefs_torrent::swarm::{Swarm, SwarmConfig};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// A content that nobody reads or fetches keeps its file and connections for so long: a tree of small files is
/// copied at some hundred contents a second, and descriptors are few.
const CONTENT_IDLE: Duration = Duration::from_secs(2);

/// Complaints of damage by one peer that are looked into at once, each by reading one piece, and then one each
/// [`DOUBT_EACH`]; what is beyond is left to the scrub.
const DOUBTS_AT_ONCE: u32 = 64;

/// See [`DOUBTS_AT_ONCE`].
const DOUBT_EACH: Duration = Duration::from_secs(1);

/// A node that is open, and what its loops will need.
pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    pub(super) listener: Listener,
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) bell: Arc<Bell>,
    pub(super) peers: Vec<SocketAddr>,
    pub(super) lock: RootLock,
}

/// Opens a node, making or joining its volume first if its root is new.
pub(super) async fn open(options: Options) -> Result<Opened, NodeError> {
    let layout = Layout::new(&options.root);
    let peers = join::resolve(&options.peers).await;
    let gate = Arc::new(Gate::new(
        peers.iter().map(std::net::SocketAddr::ip).collect(),
    ));
    let (lock, mut file) = take_root(&options, &layout, &gate, &peers).await?;
    let repository = open_names(&layout, &file)?;
    // before it listens: a copy must not take the port of the disk it was copied from
    renew(&mut file, &options)?;
    let listener = listen(&options, &mut file, &gate)?;
    take_options(&mut file, &options);
    file.store(&layout)?;

    let began = Instant::now();
    let parts = Parts::open(&options, &layout, &file, &repository)?;
    let (inbox, inputs) = mpsc::channel(INBOX_INPUTS_MAX);
    let bell = Arc::new(Bell::default());
    let pending = Arc::new(Notify::new());
    let events = Arc::new(Wake {
        pending: Arc::clone(&pending),
        bell: Arc::clone(&bell),
    });
    let publishing = Publishing::default();
    let ports = Ports {
        names: Arc::new(CommittedNames(repository.clone())),
        contents: Arc::new(Bytewise(Arc::clone(&parts.replica))),
        source: Arc::new(System),
        events,
        publishing: publishing.clone(),
    };
    let filesystem = open_filesystem(&layout, &file, &repository, ports)?;
    parts.replica.join(swarm(&parts, &gate)?);
    let learned = parts.replica.learn(filesystem.base().tree, unix_time());
    learned.map_err(|source| names_error(&layout, source))?;
    let checked = check_torn(&parts.replica, &filesystem).await?;
    let took = began.elapsed();
    if let Some(sentence) = recovered::sentence(filesystem.recovered(), checked, took) {
        tracing::info!("{sentence}");
    }

    let rests = open_rests(&layout, &file, &repository)?;
    let shared = Shared {
        credentials: credentials(&file)?,
        listen: listener.address(),
        repository,
        filesystem,
        replica: parts.replica,
        members: parts.members,
        members_changed: Notify::new(),
        names_moving: Mutex::default(),
        settings: parts.settings,
        pins: PinFile::open(&layout.holdings())
            .map_err(NodeError::io("cannot read the peers' keys"))?,
        rests,
        links: Links::default(),
        gate,
        inbox,
        invalidate: Mutex::default(),
        pending,
        told_to_stop: CancellationToken::new(),
        stop: CancellationToken::new(),
        ended: CancellationToken::new(),
        no_names: CancellationToken::new(),
        stopped_by: Mutex::default(),
        troubles: Troubles::default(),
        publishing,
        witnessed: Mutex::default(),
        asked_for_proof: Arc::default(),
        doubts: Mutex::new(Budget::new(DOUBTS_AT_ONCE, DOUBT_EACH)),
        complaints: Complaints::new(Instant::now()),
        heard: watch::Sender::new(0),
        damaged_names: Mutex::default(),
        started: Instant::now(),
        options,
        layout,
        file,
    };
    Ok(Opened {
        shared: Arc::new(shared),
        listener,
        inputs,
        bell,
        peers,
        lock,
    })
}

/// Reads what a power cut may have torn, on a thread that may wait.
async fn check_torn(replica: &Arc<Replica>, filesystem: &Filesystem) -> Result<Checked, NodeError> {
    let (replica, infos) = (Arc::clone(replica), filesystem.uncommitted_infos());
    let check = move || replica.check_torn(&infos, unix_time());
    let checked = tokio::task::spawn_blocking(check).await;
    let checked = checked.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
    checked.map_err(NodeError::io(
        "cannot check what the last power cut may have damaged",
    ))
}

async fn take_root(
    options: &Options,
    layout: &Layout,
    gate: &Gate,
    peers: &[SocketAddr],
) -> Result<(RootLock, NodeFile), NodeError> {
    let root = layout.root();
    crate::root::check_folder(root)?;
    let made = std::fs::create_dir_all(root);
    made.map_err(NodeError::io(format!("cannot make {}", root.display())))?;
    let lock = match RootLock::acquire(root) {
        Err(RootError::InUse(_)) if is_held_by_a_dead(root) => {
            fuse::let_go_of_the_dead(root);
            RootLock::acquire(root)
        }
        taken => taken,
    }?;
    if let Some(mount) = &options.mount {
        // before a volume is made: a command that fails for its mount point can simply be repeated
        fuse::prepare(mount, root, options.allow_other).map_err(MountError::from)?;
    }
    if let Some(file) = NodeFile::load(layout)? {
        check_volume(options, root, &file)?;
        if options.create {
            join::refuse_a_second(options, Some(file.identity.volume.id)).await?;
            say_volume(&file);
        }
        return Ok((lock, file));
    }
    let volume = match options.create {
        true => join::create(options).await?,
        false => join::find(options, gate, peers).await?,
    };
    let mut file = NodeFile::create(root, volume, label(options))?;
    if options.create {
        file.standing = Standing::Creating;
    }
    rests::begin(&layout.holdings(), file.identity.keys.incarnation())
        .map_err(NodeError::io("cannot write down who rests on what"))?;
    file.store(layout)?;
    say_volume(&file);
    Ok((lock, file))
}

fn say_volume(file: &NodeFile) {
    let volume = &file.identity.volume;
    let (name, id) = (&volume.name, volume.id);
    if file.standing == Standing::Creating {
        tracing::info!("made volume {name} ({id})");
        let open = format!(
            "volume {name} is open: whoever is on this network can join it, and read and change everything"
        );
        tracing::warn!("{open}");
        background::note(&open);
    } else {
        tracing::info!("joined volume {name} ({id})");
    }
}

fn check_volume(options: &Options, root: &Path, file: &NodeFile) -> Result<(), NodeError> {
    let (root, volume) = (root.to_owned(), &file.identity.volume);
    // a creation that was cut off goes on
    if options.create && file.standing != Standing::Creating {
        return Err(RootError::AlreadyCreated {
            root,
            volume: volume.name.clone(),
        }
        .into());
    }
    let id = volume.id.to_string();
    let prefix = options.volume_prefix.as_deref().unwrap_or("");
    if volume.name != options.volume || !id.starts_with(prefix) {
        return Err(RootError::OtherVolume {
            root,
            found: format!("{}#{}", volume.name, &id[..8]),
            wanted: options.volume.clone(),
        }
        .into());
    }
    Ok(())
}

fn label(options: &Options) -> String {
    if let Some(label) = &options.label {
        return label.clone();
    }
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let mut label = format!("{host}:{}", options.root.display());
    label.retain(|c| !c.is_control());
    while label.len() > LABEL_BYTES_MAX {
        label.pop();
    }
    label
}

/// Whether nobody has chosen it: HOST:ROOT, which is another one in another place.
fn is_default_label(label: &str) -> bool {
    label.contains(":/")
}

/// The port that was chosen first is kept, as long as it is free.
fn listen(options: &Options, file: &mut NodeFile, gate: &Arc<Gate>) -> Result<Listener, NodeError> {
    let wanted = options
        .listen
        .unwrap_or(SocketAddr::from(([0, 0, 0, 0], file.port)));
    let bound = match options.listen {
        Some(address) => Listener::bind(address, Arc::clone(gate), Limits::default()),
        None => {
            Listener::bind_all(file.port, Arc::clone(gate), Limits::default()).or_else(|error| {
                if file.port == 0 {
                    return Err(error);
                }
                tracing::warn!(
                    "port {} is taken ({error}); another is used from now on",
                    file.port
                );
                Listener::bind_all(0, Arc::clone(gate), Limits::default())
            })
        }
    };
    let listener = bound.map_err(|source| NodeError::Listen {
        address: wanted,
        source,
    })?;
    file.port = listener.address().port();
    Ok(listener)
}

fn open_names(layout: &Layout, file: &NodeFile) -> Result<Repository, NodeError> {
    let path = layout.metadata();
    let volume = &file.identity.volume;
    let settings = Settings::new(volume.id, volume.name.clone());
    let opened = match path.exists() {
        true => Repository::open(&path),
        false => Repository::create(&path, &settings),
    };
    opened.map_err(|source| names_error(layout, source))
}

fn open_rests(
    layout: &Layout,
    file: &NodeFile,
    repository: &Repository,
) -> Result<RestFile, NodeError> {
    let identity = &file.identity;
    let who = (identity.keys.incarnation(), identity.volume.id);
    RestFile::open(&layout.holdings(), who, rests::seen_now(repository))
        .map_err(NodeError::io("cannot read who rests on what"))
}

fn names_error(layout: &Layout, source: delugefs_metadata_repo::RepositoryError) -> NodeError {
    let path = layout.metadata();
    NodeError::Names { path, source }
}

/// A root that was copied, restored or doubled goes on under another identity.
fn renew(file: &mut NodeFile, options: &Options) -> Result<(), NodeError> {
    let (root, volume) = (options.root.display(), &file.identity.volume.name);
    let sentence = match file.standing {
        Standing::Double => format!("{root} continues as a new disk of volume {volume}"),
        Standing::Behind => format!("{root} continues with what others have seen of it since"),
        Standing::Creating | Standing::InUse => format!(
            "{root} was copied or moved here: it continues as a new disk of volume {volume}; the one it was copied from is not affected"
        ),
    };
    let renewal = file.renew(&options.root)?;
    if renewal == Renewal::None {
        return Ok(());
    }
    tracing::warn!("{sentence}");
    background::note(&sentence);
    if renewal == Renewal::Node && is_default_label(&file.label) {
        file.label = label(options);
    }
    Ok(())
}

fn take_options(file: &mut NodeFile, options: &Options) {
    if let Some(label) = &options.label {
        file.label.clone_from(label);
    }
    if let Some(site) = &options.site {
        file.site.clone_from(site);
    }
    file.capacity = options.capacity.or(file.capacity);
}

fn credentials(file: &NodeFile) -> Result<Credentials, NodeError> {
    let identity = &file.identity;
    let process = random().map_err(NodeError::io("cannot get random bytes"))?;
    let signing = identity.keys.signing.to_bytes();
    Ok(Credentials {
        identity: Identity::new(identity.node, &identity.keys.link, &signing, process),
        psk: Psk::open_volume(identity.volume.id),
    })
}

/// Bytes, members and settings.
struct Parts {
    replica: Arc<Replica>,
    members: Arc<Mutex<Members>>,
    settings: Arc<Mutex<Settings>>,
}

impl Parts {
    fn open(
        options: &Options,
        layout: &Layout,
        file: &NodeFile,
        repository: &Repository,
    ) -> Result<Self, NodeError> {
        let store = ContentStore::open(&options.root)?;
        store.set_capacity(file.capacity);
        for finding in store.findings() {
            tracing::warn!("{finding:?}");
        }
        let key = file.identity.keys.signing.clone();
        let random = random().map_err(NodeError::io("cannot get random bytes"))?;
        let life = (fs::Source::boot(&System), u64::from_le_bytes(random));
        let failed = || NodeError::io(format!("cannot use {}", layout.holdings().display()));
        let replica =
            Replica::open(&options.root, store, repository.clone(), key, life).map_err(failed())?;
        let members = Members::open(&layout.holdings()).map_err(failed())?;
        let settings = repository
            .settings()
            .map_err(|source| names_error(layout, source))?;
        Ok(Self {
            replica: Arc::new(replica),
            members: Arc::new(Mutex::new(members)),
            settings: Arc::new(Mutex::new(settings)),
        })
    }
}

fn swarm(parts: &Parts, gate: &Arc<Gate>) -> Result<Swarm, NodeError> {
    let mut config = SwarmConfig::new(random().map_err(NodeError::io("cannot get random bytes"))?);
    config.idle = CONTENT_IDLE;
    config.wait = crate::sync_ext::lock(&parts.settings).wait;
    let holders = Holders {
        replica: Arc::clone(&parts.replica),
        members: Arc::clone(&parts.members),
    };
    let storage = Arc::new(Noticing(Arc::clone(&parts.replica)));
    let connector = Arc::new(LocalTcp(Arc::clone(gate)));
    Ok(Swarm::new(
        storage,
        Arc::new(holders),
        connector,
        config,
        Handle::current(),
    ))
}

fn open_filesystem(
    layout: &Layout,
    file: &NodeFile,
    repository: &Repository,
    ports: Ports,
) -> Result<Filesystem, NodeError> {
    let names = |source| names_error(layout, source);
    let settings = repository.settings().map_err(names)?;
    let chain = (file.identity.keys.incarnation(), file.continues);
    let committed = moving::committed(repository, chain).map_err(names)?;
    let config = fs::Config {
        root: layout.root().to_owned(),
        label: file.label.clone(),
        base: committed.base,
        sequence: committed.sequence,
        inline_max: settings.inline_max,
    };
    Filesystem::start(config, ports).map_err(|source| NodeError::Journal {
        root: layout.root().to_owned(),
        source,
    })
}

/// The system's clock and randomness.
struct System;

impl fs::Source for System {
    fn now(&self) -> Timestamp {
        wall_clock()
    }

    fn random(&self) -> [u8; 16] {
        random().unwrap_or_else(|error| panic!("the system gives no random bytes: {error}"))
    }
}

/// Tells the loops of work in the filesystem.
struct Wake {
    pending: Arc<Notify>,
    bell: Arc<Bell>,
}

impl fs::Events for Wake {
    fn unsealed(&self) {
        self.bell.ring();
    }

    fn pending(&self) {
        self.pending.notify_one();
    }
}
