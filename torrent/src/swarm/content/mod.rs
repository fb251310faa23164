//! One active content: its connections, its scheduler, its place on disk. One task with one inbox decides;
//! connections, dials and disk work run beside it and report to it.

mod dial;
mod local;
mod pieces;

pub(crate) use dial::{Established, shake_incoming};
pub(crate) use local::{Command, FetchId, Loaded, Origin};

use super::ReadError;
use super::addresses::Addresses;
use super::choker::Choker;
use super::connection::{Connection, Ended, Said, Traffic};
use super::engine::Engine;
use super::layout::Layout;
use super::limits::{
    INBOX_BATCHES_MAX, INTEREST_TIME, OUTBOX_MESSAGES_MAX, PEERS_MAX, TICK, TICK_IDLE,
};
use super::piece_set::PieceSet;
use super::scheduler::{Effect, Event, NeedId, PeerKey, Scheduler};
use super::status::ContentStatus;
use super::uploads::on_disk;
use super::wire::{BlockRequest, Message, PeerId};
use bytes::{Bytes, BytesMut};
use delugefs_core::ids::InfoHash;
use local::FetchState;
use pieces::Assembly;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// A connected peer, as the content's task sees it.
struct PeerState {
    id: PeerId,
    outbox: mpsc::Sender<Message>,
    connection: tokio::task::AbortHandle,
    has: PieceSet,
    address: Option<SocketAddr>,
    ours: bool,
    since: Instant,
    /// It has sent a block.
    useful: bool,
    _permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// The task's state.
pub(crate) struct Content {
    engine: Arc<Engine>,
    info_hash: InfoHash,
    loaded: Loaded,
    layout: Layout,
    metadata: Option<Bytes>,
    have: PieceSet,
    scheduler: Scheduler,
    choker: Choker,
    addresses: Addresses,
    peers: BTreeMap<PeerKey, PeerState>,
    /// Peer ids and addresses of who lied about this content.
    banned: BTreeSet<PeerId>,
    assembly: Assembly,
    needs: BTreeMap<NeedId, oneshot::Sender<Result<(), ReadError>>>,
    fetches: BTreeMap<FetchId, FetchState>,
    finishing: bool,
    finished: bool,
    stopped: bool,
    repaired: u32,
    /// How often bans have ended.
    forgiven: u32,
    /// When a failing disk was last told of.
    disk_warned: Option<Instant>,
    /// Since when pieces are written that a restart would lose.
    unflushed: Option<Instant>,
    sources_asked: Option<Instant>,
    last_use: Instant,
    last_tick: Instant,
    next_key: u64,
    traffic: Arc<Traffic>,
    counted: (u64, u64),
    status: Arc<Mutex<ContentStatus>>,
    commands: mpsc::UnboundedSender<Command>,
    said: mpsc::Sender<(PeerKey, Vec<Said>)>,
}

/// Where a content's task hears of everything.
pub(crate) struct Inbox {
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    said: mpsc::Receiver<(PeerKey, Vec<Said>)>,
}

impl Content {
    /// Runs until nobody has wanted anything for a while.
    pub(crate) async fn run(mut self, mut inbox: Inbox) {
        loop {
            let is_quick = self.busy() || self.engine.is_crowded();
            let pause = if is_quick { TICK } else { TICK_IDLE };
            let tick = tokio::time::Instant::from_std(self.last_tick + pause);
            tokio::select! {
                Some(command) = inbox.commands.recv() => self.command(command),
                Some((key, batch)) = inbox.said.recv() => self.said(key, batch),
                () = tokio::time::sleep_until(tick) => self.tick(),
            }
            if self.stopped {
                let (engine, info_hash) = (self.engine.clone(), self.info_hash);
                self.close().await;
                // Only now: whoever waits for the end finds everything on disk.
                engine.forget(&info_hash);
                return;
            }
            if self.idle() && self.engine.let_go(&self.info_hash, &mut inbox) {
                tracing::debug!(content = %self.info_hash, "let go");
                break;
            }
        }
        self.close().await;
    }

    /// Syncing would hold up this thread if the store's handle had to do it when it is dropped.
    async fn close(self) {
        for peer in self.peers.values() {
            peer.connection.abort();
        }
        let content = self.loaded.content.clone();
        let flushed = on_disk(&self.engine.resources.disk, move || content.flush()).await;
        if let Err(error) = flushed {
            tracing::warn!(content = %self.info_hash, %error, "what was received may have to be fetched again");
        }
    }

    /// Something is to be done soon.
    fn busy(&self) -> bool {
        self.scheduler.wants() || self.choker.busy() || !self.fetches.is_empty() || self.finishing
    }

    fn idle(&self) -> bool {
        let quiet = self.last_use.elapsed() >= self.engine.idle();
        let nothing_waits = self.needs.is_empty() && self.assembly.is_empty();
        quiet && !self.busy() && nothing_waits && !self.may_be_asked()
    }

    /// Somebody has come for what is here, and has not had the time to say so.
    fn may_be_asked(&self) -> bool {
        let comes = |peer: &PeerState| {
            !peer.ours
                && peer.since.elapsed() < INTEREST_TIME
                && peer.has.count() < self.have.count()
        };
        self.peers.values().any(comes)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.busy() {
            self.last_use = now;
        }
        self.scheduler.set_wait(self.engine.wait());
        self.scheduler.set_memory(self.engine.memory_share());
        self.event(Event::Tick);
        let changes = self.choker.tick(now);
        self.choke(changes);
        self.watch_store();
        self.flush(now);
        self.seek_peers(now);
        self.show_progress();
        self.report(now);
        self.last_tick = now;
    }

    /// Lets the scheduler decide, and does what it says.
    fn event(&mut self, event: Event) {
        for effect in self.scheduler.handle(event, Instant::now()) {
            self.apply(effect, None);
        }
    }

    fn apply(&mut self, effect: Effect, data: Option<&Bytes>) {
        match effect {
            Effect::Request(key, block) => {
                self.tell(key, Message::Request(self.request(block)));
            }
            Effect::Cancel(key, block) => self.tell(key, Message::Cancel(self.request(block))),
            Effect::Keep(block) => self.assembly.keep(&self.layout, block, data),
            Effect::Verify(piece) => self.verify(piece),
            Effect::Forget(piece) => self.assembly.forget(piece),
            Effect::Interested(key, true) => self.tell(key, Message::Interested),
            Effect::Interested(key, false) => self.tell(key, Message::NotInterested),
            Effect::Ban(key, piece) => self.accuse(key, piece),
            Effect::NeedMet(id) => self.end_need(id, Ok(())),
            Effect::NeedExpired(id) => self.expired(id),
            Effect::Holder => self.engine.unavailable.remove(&self.info_hash),
            Effect::Complete => self.finish(),
        }
    }

    fn request(&self, block: super::layout::Block) -> BlockRequest {
        BlockRequest {
            piece: block.piece,
            begin: block.index * super::limits::BLOCK_BYTES,
            length: self.layout.block_size(block),
        }
    }

    /// Queues a message. A peer that lets too many gather is dropped.
    fn tell(&mut self, key: PeerKey, message: Message) {
        let Some(peer) = self.peers.get(&key) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(_)) = peer.outbox.try_send(message) {
            let _ = self.commands.send(Command::Ended(key, Ended::Stuck));
        }
    }

    fn said(&mut self, key: PeerKey, batch: Vec<Said>) {
        if !self.peers.contains_key(&key) {
            return;
        }
        for said in batch {
            let (event, data) = match said {
                Said::Choked => (Event::Choked(key), None),
                Said::Unchoked => (Event::Unchoked(key), None),
                Said::Queue(requests) => (Event::Queue(key, requests), None),
                Said::Block(block, data) => (Event::Block(key, block), Some(data)),
                Said::Interested(on) => {
                    let changes = self.choker.interest(key, on, Instant::now());
                    self.choke(changes);
                    continue;
                }
                Said::Has(pieces) => {
                    self.note_has(key, |has| *has = pieces.clone());
                    (Event::Has(key, pieces), None)
                }
                Said::HasPiece(piece) => {
                    self.note_has(key, |has| {
                        has.insert(piece);
                    });
                    (Event::HasPiece(key, piece), None)
                }
            };
            if data.is_some() {
                self.note_useful(key);
            }
            for effect in self.scheduler.handle(event, Instant::now()) {
                self.apply(effect, data.as_ref());
            }
        }
        self.part_if_both_full(key);
    }

    fn note_has(&mut self, key: PeerKey, change: impl FnOnce(&mut PieceSet)) {
        if let Some(peer) = self.peers.get_mut(&key) {
            change(&mut peer.has);
        }
    }

    fn note_useful(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key)
            && !std::mem::replace(&mut peer.useful, true)
        {
            self.addresses.useful(key);
        }
    }

    fn choke(&mut self, changes: Vec<(PeerKey, bool)>) {
        for (key, unchoked) in changes {
            let message = if unchoked {
                Message::Unchoke
            } else {
                Message::Choke
            };
            self.tell(key, message);
        }
    }

    /// Two who have everything have nothing to say to each other.
    fn part_if_both_full(&mut self, key: PeerKey) {
        let full = self.peers.get(&key).is_some_and(|peer| peer.has.is_full());
        if full && self.scheduler.missing() == 0 {
            self.drop_peer(key);
        }
    }

    /// A new connection, its handshakes done.
    fn established(&mut self, established: Established) {
        let now = Instant::now();
        if !self.admit(&established) {
            return;
        }
        let key = PeerKey(self.next_key);
        self.next_key += 1;
        if let Some(address) = established.address {
            self.addresses.connected(address, key);
        }
        let (outbox, messages) = mpsc::channel(OUTBOX_MESSAGES_MAX);
        let peer = PeerState {
            id: established.handshake.peer_id,
            outbox,
            address: established.address,
            ours: established.ours,
            connection: self.spawn(
                key,
                &established.handshake,
                established.stream,
                established.rest,
                messages,
            ),
            has: PieceSet::empty(self.layout.pieces()),
            since: now,
            useful: false,
            _permit: established.permit,
        };
        self.peers.insert(key, peer);
        self.last_use = now;
        if self.have.count() > 0 {
            self.tell(key, Message::Bitfield(self.have.to_wire().into()));
        }
        self.event(Event::Joined(key));
        let changes = self.choker.join(key, now);
        self.choke(changes);
    }

    fn spawn(
        &self,
        key: PeerKey,
        handshake: &super::wire::Handshake,
        stream: Box<dyn super::ports::Stream>,
        rest: BytesMut,
        messages: mpsc::Receiver<Message>,
    ) -> tokio::task::AbortHandle {
        let connection = Connection {
            key,
            content: self.loaded.content.clone(),
            layout: self.layout,
            metadata: self.metadata.clone(),
            extensions: handshake.extensions,
            said: self.said.clone(),
            resources: self.engine.resources.clone(),
            traffic: self.traffic.clone(),
        };
        let commands = self.commands.clone();
        let task = self.engine.runtime.spawn(async move {
            let ended = connection.run(stream, rest, messages).await;
            // The content may have been let go meanwhile; then nobody needs to know.
            let _ = commands.send(Command::Ended(key, ended));
        });
        task.abort_handle()
    }

    /// Whether to keep a new connection. When two nodes dial each other at once, both keep the one that the
    /// node with the larger peer id began.
    fn admit(&mut self, new: &Established) -> bool {
        let id = new.handshake.peer_id;
        if self.peers.len() >= PEERS_MAX || self.banned.contains(&id) {
            self.dial_ended(new.address);
            return false;
        }
        let known = self.peers.iter().find(|(_, peer)| peer.id == id);
        let Some((key, peer)) = known.map(|(key, peer)| (*key, peer)) else {
            return true;
        };
        let we_decide = self.engine.peer_id > id;
        // Of two that the same side began, the older one has probably been lost.
        if peer.ours == new.ours || new.ours == we_decide {
            self.drop_peer(key);
            return true;
        }
        if let Some(address) = new.address {
            self.addresses.connected(address, key);
        }
        false
    }

    fn dial_ended(&mut self, address: Option<SocketAddr>) {
        if let Some(address) = address {
            self.addresses.failed(address, Instant::now());
        }
    }

    fn ended(&mut self, key: PeerKey, ended: &Ended) {
        match ended {
            Ended::Violation(what) => self.ban(key, what),
            Ended::Disk(error) => {
                tracing::warn!(content = %self.info_hash, %error, "cannot read to serve a peer");
                self.engine.source.read_failed(&self.info_hash);
                self.drop_peer(key);
            }
            other => {
                tracing::debug!(content = %self.info_hash, reason = %other, "peer gone");
                self.drop_peer(key);
            }
        }
    }

    /// A peer alone has sent a wrong piece. It may be damaged where it is, and whoever is there wants to know.
    fn accuse(&mut self, key: PeerKey, piece: u32) {
        if let Some(address) = self.peers.get(&key).and_then(|peer| peer.address) {
            let source = &self.engine.source;
            source.sent_wrong(&self.info_hash, piece, address);
        }
        self.ban(key, "sent a wrong piece");
    }

    /// Closes the connection, and refuses this peer from now on.
    fn ban(&mut self, key: PeerKey, why: &str) {
        let Some(peer) = self.peers.get(&key) else {
            return;
        };
        let address = peer
            .address
            .map_or("incoming".to_owned(), |address| address.to_string());
        let content = self.info_hash;
        if self.engine.is_news(peer.id) {
            tracing::warn!(%content, peer = ?peer.id, address, "peer banned: {why}");
        } else {
            tracing::debug!(%content, peer = ?peer.id, address, "peer banned: {why}");
        }
        if self.banned.len() < PEERS_MAX * 4 {
            self.banned.insert(peer.id);
        }
        if let Some(address) = peer.address {
            self.addresses.bar(address);
        }
        self.drop_peer(key);
    }

    fn drop_peer(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.remove(&key) else {
            return;
        };
        // The connection ends with its outbox; whoever is stuck in a write ends now.
        peer.connection.abort();
        let now = Instant::now();
        self.addresses.left(key, now);
        self.event(Event::Left(key));
        let changes = self.choker.leave(key, now);
        self.choke(changes);
    }

    fn report(&mut self, now: Instant) {
        let time = now.saturating_duration_since(self.last_tick);
        let total = (
            self.traffic.up.load(std::sync::atomic::Ordering::Relaxed),
            self.traffic.down.load(std::sync::atomic::Ordering::Relaxed),
        );
        let mut status = self
            .status
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let rate = |new: u64, old: u64, rate: u64| {
            let current = (new - old) * 1000 / time.as_millis().max(1) as u64;
            (4 * rate + current) / 5
        };
        status.up = rate(total.0, self.counted.0, status.up);
        status.down = rate(total.1, self.counted.1, status.down);
        self.counted = total;
        status.missing_pieces = self.scheduler.missing();
        status.peers = self.peers.len();
        status.waiting_reads = self.needs.len();
        status.fetching = !self.fetches.is_empty();
    }
}

impl Inbox {
    /// The two ends of a content's inbox.
    #[allow(clippy::type_complexity)]
    pub(crate) fn new(
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> (mpsc::Sender<(PeerKey, Vec<Said>)>, Self) {
        let (sender, said) = mpsc::channel(INBOX_BATCHES_MAX);
        (sender, Self { commands, said })
    }
}
