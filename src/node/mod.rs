//! One running node: what [`run`] opens, wires together and, at the end, closes in order.
//!
//! - `start`, `join`: from the command line to open parts; nothing is mounted or heard before all of them are.
//! - `inbox`: the one loop that takes decisions. `names`, `moving`, `links`: carry them out.
//! - `rests`, `past`: who rests on what, and the cutting of history.
//! - `sealing`, `copies`, `upkeep`, `scrub`, `repair`: loops over bytes. `serve`: what comes in at the port.
//!   `control`: the commands.
//!
//! Ends, for whatever reason, in this order: the mount goes first, so that no new work comes; closed files are
//! sealed and committed, as long as that takes little; then the links. What is cut short is in the journal.

mod control;
mod copies;
mod error;
mod gossip;
mod inbox;
mod join;
mod links;
pub mod members;
pub mod moving;
mod names;
pub mod past;
mod pins;
mod places;
mod recovered;
mod repair;
pub mod rests;
mod scrub;
mod sealing;
mod serve;
mod shared;
mod start;
mod story;
mod upkeep;

pub use error::NodeError;
pub(crate) use shared::unix_time;

use crate::cli::Options;
use crate::control::ControlServer;
use crate::filesystem::{Inode, SetAttributes, SetTime};
use crate::fuse::{Mount, MountOptions, Owners};
use crate::root::{NodeFile, RootLock, Standing};
use crate::sync_ext::lock;
use control::Control;
use delugefs_core::sync::{Config, Event, Origin, Sync};
use delugefs_discovery::{Announcement, Discovery, Event as Seen};
use inbox::Input;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shared::Shared;
use start::Opened;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep};

/// Threads for work that blocks: reads of contents, Git. Idle ones cost little.
const BLOCKING_THREADS_MAX: usize = 256;

/// How long a node that joins waits for the volume's names before it mounts, so that the first look shows them.
const FIRST_NAMES_WAIT: Duration = Duration::from_secs(5);

/// How long a node that is told to stop goes on sealing and committing; the rest is in the journal.
const FINISH_WAIT: Duration = Duration::from_mins(1);

/// How long it does so when it did not work before: on a full disk there is nothing to wait for.
const TROUBLED_WAIT: Duration = Duration::from_secs(2);

/// Also where another version has taken the place of its file.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// How often a wait looks whether it is over.
const POLL: Duration = Duration::from_millis(10);

/// Runs a node until it is told to stop. `ready` is called once it is up and mounted.
pub fn run(options: Options, ready: impl FnOnce()) -> Result<(), NodeError> {
    allow_many_files();
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(NodeError::io("cannot start threads"))?;
    let mut root_lock = None;
    let outcome = runtime.block_on(live(options, ready, &mut root_lock));
    runtime.shutdown_timeout(Duration::from_secs(2));
    // not before: what still runs may write to the root
    drop(root_lock);
    outcome
}

/// Files that are being written or read and connections all take descriptors: as many as the system allows, which is
/// usually far more than a process begins with.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(
            "only {:?} files can be open at once: {error}",
            limit.current
        );
    }
}

async fn live(
    options: Options,
    ready: impl FnOnce(),
    root_lock: &mut Option<RootLock>,
) -> Result<(), NodeError> {
    let stop = Stop::install()?;
    let opened = tokio::select! {
        opened = start::open(options) => opened?,
        () = stop.told() => return Ok(()),
    };
    let Opened {
        shared,
        listener,
        inputs,
        bell,
        peers,
        lock: held,
    } = opened;
    *root_lock = Some(held);
    catch_up(&shared).await?;
    let sealers = sealing::start(&shared, &bell).map_err(NodeError::io("cannot start threads"))?;
    let discovery = discover(&shared, peers)?;
    let machine = machine(&shared)?;
    let inbox = tokio::spawn(inbox::run(Arc::clone(&shared), machine, inputs));
    tokio::spawn(serve::run(Arc::clone(&shared), listener));
    tokio::spawn(copies::run(Arc::clone(&shared)));
    tokio::spawn(repair::run(Arc::clone(&shared)));
    let scrubber = scrub::start(&shared).map_err(NodeError::io("cannot start threads"))?;
    tokio::spawn(upkeep::sync_contents(Arc::clone(&shared)));
    tokio::spawn(upkeep::tidy(Arc::clone(&shared)));
    tokio::spawn(upkeep::tell_of_vain_waits(Arc::clone(&shared)));
    tokio::spawn(upkeep::keep_members(Arc::clone(&shared)));
    tokio::spawn(upkeep::stay_ahead(Arc::clone(&shared)));
    tokio::spawn(rests::keep_saying(Arc::clone(&shared)));
    let tending = tokio::spawn(past::keep_tending(Arc::clone(&shared)));
    let packing = tokio::spawn(upkeep::pack_names(Arc::clone(&shared)));
    match shared.file.standing {
        Standing::Creating => own_the_root(&shared)?,
        _ => first_names(&shared, &stop).await,
    }
    let mount = mount(&shared)?;
    let control = Arc::new(Control(Arc::clone(&shared)));
    let control =
        ControlServer::start(&shared.layout.control(), control).map_err(NodeError::io(format!(
            "cannot listen at {}",
            shared.layout.control().display()
        )))?;
    say_hello(&shared);
    ready();
    creation_is_over(&shared);

    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = shared.told_to_stop.cancelled() => {}
        () = stop.told() => {}
        () = unmounted(mount.as_ref()) => tracing::info!("unmounted from outside"),
    }
    tracing::info!("stopping");
    lock(&shared.invalidate).take();
    if let Some(mount) = mount {
        match tokio::task::spawn_blocking(move || mount.unmount()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("{error}"),
            Err(panic) => tracing::error!("unmounting broke: {panic}"),
        }
    }
    finish(&shared).await;
    bell.end();
    shared.stop.cancel();
    shared.replica.scrub.ring();
    if let Some(swarm) = shared.replica.swarm() {
        swarm.shutdown().await;
    }
    let _ = tokio::join!(inbox, packing, tending);
    let _ = tokio::task::spawn_blocking(move || {
        discovery.stop();
        for thread in sealers.into_iter().chain([scrubber]) {
            // one that panicked has told so
            let _ = thread.join();
        }
    })
    .await;
    upkeep::store_members(&shared);
    let ended = lock(&shared.stopped_by).take();
    shared.ended.cancel();
    // the reply to `delugefs stop` leaves before the socket goes
    sleep(POLL).await;
    drop(control);
    tracing::info!("stopped");
    ended.map_or(Ok(()), |sentence| Err(NodeError::Stopped(sentence)))
}

/// SIGTERM and Ctrl-C.
struct Stop(tokio_util::sync::CancellationToken);

impl Stop {
    fn install() -> Result<Self, NodeError> {
        let token = tokio_util::sync::CancellationToken::new();
        for kind in [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ] {
            let mut signal = signal(kind).map_err(NodeError::io("cannot wait for signals"))?;
            let token = token.clone();
            tokio::spawn(async move {
                signal.recv().await;
                token.cancel();
            });
        }
        Ok(Self(token))
    }

    async fn told(&self) {
        self.0.cancelled().await;
    }
}

fn machine(shared: &Shared) -> Result<Sync, NodeError> {
    let authors = shared
        .repository
        .authors()
        .map_err(|source| NodeError::Names {
            path: shared.layout.metadata(),
            source,
        })?;
    let seed = crate::root::random().map_err(NodeError::io("cannot get random bytes"))?;
    Ok(Sync::new(Config {
        node: shared.node(),
        incarnation: shared.incarnation(),
        seed: u64::from_le_bytes(seed),
        authors,
        positions: shared.replica.positions(),
    }))
}

/// Announces this node and passes on who is found.
fn discover(shared: &Arc<Shared>, peers: Vec<SocketAddr>) -> Result<Discovery, NodeError> {
    let announcement = Announcement {
        volume: shared.volume().id,
        volume_name: shared.volume().name.clone(),
        node: shared.node(),
        listen: shared.listen,
    };
    let (discovery, seen) = Discovery::start(&announcement, &join::sources(&shared.options))?;
    tokio::spawn(pass_on(Arc::clone(shared), seen, peers));
    Ok(discovery)
}

async fn pass_on(shared: Arc<Shared>, mut seen: Receiver<Seen>, peers: Vec<SocketAddr>) {
    if !peers.is_empty() {
        let named = Event::Found {
            node: None,
            addresses: peers,
            origin: Origin::Owner,
        };
        shared.tell(Input::Event(named)).await;
    }
    while let Some(event) = seen.recv().await {
        match event {
            Seen::Found(peer) if peer.volume == shared.volume().id => {
                let found = Event::Found {
                    node: Some(peer.node),
                    addresses: peer.addresses,
                    origin: Origin::Discovered,
                };
                shared.tell(Input::Event(found)).await;
            }
            // a dial tells whether it is ourselves or a copy of this disk
            Seen::Ourselves(peer) if peer.volume == shared.volume().id => {
                let found = Event::Found {
                    node: None,
                    addresses: peer.addresses,
                    origin: Origin::Discovered,
                };
                shared.tell(Input::Event(found)).await;
            }
            Seen::Warning(text) => tracing::warn!("{text}"),
            Seen::Found(_) | Seen::Ourselves(_) | Seen::Lost(_) => {}
        }
    }
}

/// Shows what the heads show, also where the last run ended before it could.
async fn catch_up(shared: &Arc<Shared>) -> Result<(), NodeError> {
    let worker = Arc::clone(shared);
    let caught_up = tokio::task::spawn_blocking(move || names::catch_up(&worker)).await;
    match caught_up {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(NodeError::Stopped(format!(
            "the names cannot be shown: {error}"
        ))),
        Err(panic) => {
            let reason = format!("a broken invariant of the names: {panic}");
            shared.stop_publishing(reason);
            Ok(())
        }
    }
}

/// The volume's first change: its root directory belongs to who made it. Nodes that join see by it that they know
/// the volume.
fn own_the_root(shared: &Shared) -> Result<(), NodeError> {
    let is_owned =
        !shared.repository.view().heads.is_empty() || shared.filesystem.status().uncommitted > 0;
    if is_owned {
        // by an attempt that was cut off later than here
        return Ok(());
    }
    let owner = SetAttributes {
        mode: Some(0o755),
        uid: Some(rustix::process::geteuid().as_raw()),
        gid: Some(rustix::process::getegid().as_raw()),
        accessed: Some(SetTime::Now),
        modified: Some(SetTime::Now),
        ..SetAttributes::default()
    };
    let set = shared.filesystem.set_attributes(Inode::ROOT, owner);
    set.map(drop).map_err(|source| NodeError::Journal {
        root: shared.layout.root().to_owned(),
        source,
    })
}

/// Only once whoever started this node has heard that it is up: until then, the same command must work again.
fn creation_is_over(shared: &Shared) {
    if let Err(error) = NodeFile::mark(&shared.layout, Standing::InUse) {
        tracing::warn!("--create will not be refused for this root, though it is in use: {error}");
    }
}

/// A node that has just joined waits a little for the names.
async fn first_names(shared: &Arc<Shared>, stop: &Stop) {
    let is_new = shared.repository.view().heads.is_empty();
    if is_new {
        let until = Instant::now() + FIRST_NAMES_WAIT;
        let arrived = async {
            while shared.repository.view().heads.is_empty() && Instant::now() < until {
                sleep(POLL).await;
            }
        };
        tokio::select! {
            () = arrived => {}
            () = shared.no_names.cancelled() => {}
            () = stop.told() => {}
        }
    }
}

fn mount(shared: &Arc<Shared>) -> Result<Option<Mount>, NodeError> {
    let Some(path) = &shared.options.mount else {
        return Ok(None);
    };
    let options = MountOptions {
        point: path.clone(),
        root: shared.layout.root().to_owned(),
        allow_other: shared.options.allow_other,
        read_only: false,
        owners: Owners::for_this_process(),
        watcher: Some(THIS_PROGRAM.into()),
    };
    let mount = Mount::start(shared.filesystem.clone(), options, Handle::current())?;
    let invalidator = mount.invalidator();
    *lock(&shared.invalidate) = Some(Box::new(move |invalidations| {
        invalidator.send(invalidations);
    }));
    Ok(Some(mount))
}

async fn unmounted(mount: Option<&Mount>) {
    match mount {
        Some(mount) => mount.unmounted().await,
        None => std::future::pending().await,
    }
}

fn say_hello(shared: &Shared) {
    let place = match &shared.options.mount {
        Some(mount) => format!("mounted at {}", mount.display()),
        None => "storage only".to_owned(),
    };
    let (volume, label) = (&shared.volume().name, &shared.file.label);
    tracing::info!(
        "started: disk {label} of volume {volume}, {place}, listening at {}",
        shared.listen
    );
}

/// Lets what is under way come to its end: closed files are sealed, changes committed.
async fn finish(shared: &Shared) {
    let start = Instant::now();
    let patience = || match shared.troubles.any() {
        true => TROUBLED_WAIT,
        false => FINISH_WAIT,
    };
    let busy = || {
        let status = shared.filesystem.status();
        status.unsealed + status.uncommitted > 0
    };
    let goes_on = || shared.publishing.goes_on() && lock(&shared.stopped_by).is_none();
    while busy() && start.elapsed() < patience() && goes_on() {
        sleep(POLL).await;
    }
    if busy() {
        tracing::warn!(
            "not everything could be committed; it is in the journal and goes on at the next start"
        );
    }
}
