//! Which contents are active, and what they share.

use super::SwarmConfig;
use super::connection::Resources;
use super::content::{Command, Content, Loaded, Origin, shake_incoming};
use super::layout::Layout;
use super::limits::{
    ASSEMBLY_BYTES_ALL, ASSEMBLY_BYTES_MAX, BAN_TOLD_AGAIN, CONTENTS_AT_EASE, DISK_OPERATIONS_MAX,
    IDLE_CROWDED, INCOMING_MAX, UNAVAILABLE_MAX,
};
use super::ports::{Connector, PeerSource, Storage, StoredContent, Stream};
use super::rate::RateLimit;
use super::reader::ReadError;
use super::status::{ContentStatus, SwarmStatus};
use super::uploads::on_disk;
use super::wire::PeerId;
use crate::metainfo::Info;
use bytes::{Bytes, BytesMut};
use delugefs_core::budget::Budget;
use delugefs_core::ids::InfoHash;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, watch};

/// What all contents share.
pub(crate) struct Engine {
    pub(crate) config: SwarmConfig,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) source: Arc<dyn PeerSource>,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) resources: Arc<Resources>,
    pub(crate) peer_id: PeerId,
    pub(crate) seed: u32,
    pub(crate) unavailable: Unavailable,
    wait: Mutex<Duration>,
    contents: Mutex<BTreeMap<InfoHash, Handle>>,
    incoming: Arc<Semaphore>,
    fresh: AtomicU64,
    started: Instant,
    /// Lines about peers that were banned.
    bans_told: Mutex<Budget<PeerId>>,
}

/// An active content, from outside its task.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    loaded: watch::Receiver<Option<Result<Loaded, ReadError>>>,
    status: Arc<Mutex<ContentStatus>>,
}

impl Handle {
    /// Tells the content's task. If that has ended, whoever waits for a reply sees it dropped.
    pub(crate) fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Both are of the same task.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.status, &other.status)
    }

    /// Waits until the content is open on disk.
    pub(crate) async fn loaded(&self) -> Result<Loaded, ReadError> {
        let mut loaded = self.loaded.clone();
        let loaded = loaded.wait_for(Option::is_some).await;
        let loaded = loaded.ok().and_then(|loaded| loaded.clone());
        loaded.unwrap_or_else(|| Err(io::Error::other("the content could not be opened").into()))
    }
}

impl Loaded {
    fn new(content: Arc<dyn StoredContent>) -> io::Result<Self> {
        let layout = Layout::new(content.length(), content.piece_length());
        let layout = layout.ok_or_else(|| io::Error::other("a content with impossible pieces"))?;
        let metadata = content.info().map(Bytes::from);
        Ok(Self {
            content,
            layout,
            metadata,
        })
    }
}

impl Engine {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        source: Arc<dyn PeerSource>,
        connector: Arc<dyn Connector>,
        config: SwarmConfig,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let resources = Resources {
            up: RateLimit::default(),
            down: RateLimit::default(),
            disk: Arc::new(Semaphore::new(DISK_OPERATIONS_MAX)),
        };
        resources.up.set(config.up);
        resources.down.set(config.down);
        Self {
            wait: Mutex::new(config.wait),
            peer_id: PeerId(config.peer_id),
            seed: u32::from_le_bytes(config.peer_id[16..].try_into().unwrap_or_default()),
            config,
            storage,
            source,
            connector,
            runtime,
            resources: Arc::new(resources),
            unavailable: Unavailable::default(),
            contents: Mutex::default(),
            incoming: Arc::new(Semaphore::new(INCOMING_MAX)),
            fresh: AtomicU64::new(0),
            started: Instant::now(),
            bans_told: Mutex::new(Budget::new(1, BAN_TOLD_AGAIN)),
        }
    }

    /// Whether the owner has not been told of this peer's ban lately: it may lie about each of its contents.
    pub(crate) fn is_news(&self, peer: PeerId) -> bool {
        let mut told = self
            .bans_told
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        told.take(peer, self.started.elapsed())
    }

    /// Whether there are so many active contents that those without work are let go at once.
    pub(crate) fn is_crowded(&self) -> bool {
        self.contents().len() > CONTENTS_AT_EASE
    }

    /// How long a content without work stays active: each has an open file, and often a connection.
    pub(crate) fn idle(&self) -> Duration {
        match self.is_crowded() {
            true => IDLE_CROWDED.min(self.config.idle),
            false => self.config.idle,
        }
    }

    /// A number not given before.
    pub(crate) fn fresh(&self) -> u64 {
        self.fresh.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn wait(&self) -> Duration {
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_wait(&self, wait: Duration) {
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner) = wait;
    }

    fn contents(&self) -> MutexGuard<'_, BTreeMap<InfoHash, Handle>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content's task, started if there is none.
    pub(crate) fn activate(self: &Arc<Self>, info_hash: InfoHash, origin: &Origin) -> Handle {
        let mut contents = self.contents();
        let start = || self.start(info_hash, origin.clone());
        contents.entry(info_hash).or_insert_with(start).clone()
    }

    /// Has a command reach the content's task: it cannot end in between.
    pub(crate) fn activate_with(self: &Arc<Self>, info: &Info, command: Command) {
        let mut contents = self.contents();
        let start = || self.start(info.info_hash(), Origin::Local(info.clone()));
        contents
            .entry(info.info_hash())
            .or_insert_with(start)
            .send(command);
    }

    fn start(self: &Arc<Self>, info_hash: InfoHash, origin: Origin) -> Handle {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (loading, loaded) = watch::channel(None);
        let status = ContentStatus {
            info_hash,
            length: 0,
            pieces: 0,
            missing_pieces: 0,
            peers: 0,
            up: 0,
            down: 0,
            waiting_reads: 0,
            fetching: false,
        };
        let status = Arc::new(Mutex::new(status));
        let handle = Handle {
            commands: commands.clone(),
            loaded,
            status: status.clone(),
        };
        let engine = self.clone();
        self.runtime.spawn(async move {
            let result = engine.clone().load(origin).await;
            match &result {
                Ok(loaded) => note_layout(&status, &loaded.layout),
                // Before whoever waits is told: so that a new attempt is a new load.
                Err(_) => drop(engine.contents().remove(&info_hash)),
            }
            loading.send_replace(Some(result.clone()));
            if let Ok(loaded) = result {
                let channel = (commands, receiver);
                let (content, inbox) = Content::new(engine, info_hash, loaded, status, channel);
                content.run(inbox).await;
            }
        });
        handle
    }

    async fn load(self: Arc<Self>, origin: Origin) -> Result<Loaded, ReadError> {
        match origin {
            Origin::Found(loaded) => Ok(loaded),
            Origin::Local(info) => {
                let disk = self.resources.disk.clone();
                let begin = move || Loaded::new(self.storage.begin(&info)?);
                Ok(on_disk(&disk, begin).await?)
            }
        }
    }

    fn find_for_peer(&self, info_hash: &InfoHash) -> io::Result<Loaded> {
        let found = self.storage.find(info_hash)?;
        let mut loaded = Loaded::new(found.ok_or(io::ErrorKind::NotFound)?)?;
        if loaded.metadata.is_none() {
            let info = self.source.info(info_hash);
            loaded.metadata = info.map(|info| info.encode().into());
        }
        Ok(loaded)
    }

    /// Whether there is something of the content that a peer can have. It is looked for first: what a peer
    /// asks for in vain must not stand in the way of a local wish that comes at the same time.
    pub(crate) async fn activate_for_peer(self: &Arc<Self>, info_hash: InfoHash) -> bool {
        let known = self.contents().get(&info_hash).cloned();
        if let Some(handle) = known {
            return handle.loaded().await.is_ok();
        }
        let engine = self.clone();
        let find = move || engine.find_for_peer(&info_hash);
        match on_disk(&self.resources.disk, find).await {
            Ok(found) => {
                let handle = self.activate(info_hash, &Origin::Found(found));
                handle.loaded().await.is_ok()
            }
            Err(error) => {
                tracing::debug!(content = %info_hash, %error, "not here for a peer");
                false
            }
        }
    }

    /// Has all contents end; whether there are any left.
    pub(crate) fn stop_all(&self) -> bool {
        let contents = self.contents();
        for handle in contents.values() {
            handle.send(Command::Stop);
        }
        !contents.is_empty()
    }

    /// Bytes of begun pieces that each active content may hold.
    pub(crate) fn memory_share(&self) -> u64 {
        let active = self.contents().len().max(1) as u64;
        (ASSEMBLY_BYTES_ALL / active).min(ASSEMBLY_BYTES_MAX)
    }

    /// A content's task, if it is active.
    pub(crate) fn active(&self, info_hash: &InfoHash) -> Option<Handle> {
        self.contents().get(info_hash).cloned()
    }

    /// Tells a content's task, if it is active.
    pub(crate) fn tell(&self, info_hash: &InfoHash, command: Command) {
        if let Some(handle) = self.active(info_hash) {
            handle.send(command);
        }
    }

    /// The content's task ends now.
    pub(crate) fn forget(&self, info_hash: &InfoHash) {
        self.contents().remove(info_hash);
    }

    /// Ends a content's activity, unless something has come in for it meanwhile.
    pub(crate) fn let_go(&self, info_hash: &InfoHash, inbox: &mut super::content::Inbox) -> bool {
        let mut contents = self.contents();
        let quiet = inbox.commands.is_empty();
        if quiet {
            contents.remove(info_hash);
        }
        quiet
    }

    pub(crate) fn peers_changed(&self, info_hash: &InfoHash) {
        let holders = || self.source.holders(info_hash);
        self.unavailable.remove_if_found(info_hash, holders);
        self.tell(info_hash, Command::PeersChanged);
    }

    /// Reads of the content fail at once, until a holder other than those who have not answered appears.
    pub(crate) fn waited_in_vain(&self, info_hash: InfoHash) {
        let holders = self.source.holders(&info_hash).into_iter().collect();
        if self.unavailable.insert(info_hash, holders) {
            self.source.waited_in_vain(&info_hash);
        }
    }

    /// Any content may have other peers now.
    pub(crate) fn all_peers_changed(&self) {
        let active = self.contents().keys().copied().collect::<BTreeSet<_>>();
        for info_hash in active.union(&self.unavailable.all()) {
            self.peers_changed(info_hash);
        }
    }

    pub(crate) fn accept(self: &Arc<Self>, stream: Box<dyn Stream>, prefix: BytesMut) {
        let Ok(permit) = self.incoming.clone().try_acquire_owned() else {
            tracing::warn!("too many incoming connections: one was closed");
            return;
        };
        let engine = self.clone();
        self.runtime.spawn(async move {
            match shake_incoming(&engine, stream, prefix).await {
                Ok(mut established) => {
                    established.permit = Some(permit);
                    let info_hash = established.handshake.info_hash;
                    engine.tell(&info_hash, Command::Established(established));
                }
                Err(error) => tracing::debug!(%error, "incoming connection closed"),
            }
        });
    }

    pub(crate) fn status(&self) -> SwarmStatus {
        let handles: Vec<Handle> = self.contents().values().cloned().collect();
        let status = |handle: Handle| {
            handle
                .status
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        };
        SwarmStatus {
            contents: handles.into_iter().map(status).collect(),
        }
    }
}

fn note_layout(status: &Mutex<ContentStatus>, layout: &Layout) {
    let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
    status.length = layout.length();
    status.pieces = layout.pieces();
}

/// Contents for which a read has waited in vain, with the addresses of the holders that did not answer.
#[derive(Default)]
pub(crate) struct Unavailable(Mutex<Vain>);

#[derive(Default)]
struct Vain {
    contents: BTreeMap<InfoHash, BTreeSet<SocketAddr>>,
    order: VecDeque<InfoHash>,
}

impl Vain {
    fn remove(&mut self, info_hash: &InfoHash) {
        if self.contents.remove(info_hash).is_some() {
            self.order.retain(|other| other != info_hash);
        }
    }
}

impl Unavailable {
    pub(crate) fn contains(&self, info_hash: &InfoHash) -> bool {
        self.lock().contents.contains_key(info_hash)
    }

    fn all(&self) -> BTreeSet<InfoHash> {
        self.lock().contents.keys().copied().collect()
    }

    /// Whether it was not yet among them.
    fn insert(&self, info_hash: InfoHash, holders: BTreeSet<SocketAddr>) -> bool {
        let vain = &mut *self.lock();
        let new = vain.contents.insert(info_hash, holders).is_none();
        if new {
            vain.order.push_back(info_hash);
        }
        if vain.order.len() > UNAVAILABLE_MAX
            && let Some(oldest) = vain.order.pop_front()
        {
            vain.contents.remove(&oldest);
        }
        new
    }

    pub(crate) fn remove(&self, info_hash: &InfoHash) {
        self.lock().remove(info_hash);
    }

    /// Takes it out if there is a holder that was not there when it was waited for, or was away since.
    fn remove_if_found(&self, info_hash: &InfoHash, holders: impl FnOnce() -> Vec<SocketAddr>) {
        if !self.contains(info_hash) {
            return;
        }
        // asked for outside the lock
        let holders: BTreeSet<SocketAddr> = holders().into_iter().collect();
        let vain = &mut *self.lock();
        let Some(silent) = vain.contents.get_mut(info_hash) else {
            return;
        };
        silent.retain(|address| holders.contains(address));
        if *silent != holders {
            vain.remove(info_hash);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vain> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_holder_ends_it_and_so_does_one_that_was_away() {
        const CONTENT: InfoHash = InfoHash::new([1; 20]);
        let [silent, other] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let unavailable = Unavailable::default();
        let after = |vain: &[SocketAddr], news: &[&[SocketAddr]]| {
            unavailable.insert(CONTENT, vain.iter().copied().collect());
            for holders in news {
                unavailable.remove_if_found(&CONTENT, || holders.to_vec());
            }
            unavailable.contains(&CONTENT)
        };
        assert!(after(&[silent], &[&[silent], &[]]));
        assert!(!after(&[silent], &[&[silent, other]]));
        assert!(!after(&[silent], &[&[], &[silent]]));
        assert!(after(&[], &[&[], &[]]));
        assert!(!after(&[], &[&[other]]));
        assert!(unavailable.lock().order.is_empty());
    }
}
