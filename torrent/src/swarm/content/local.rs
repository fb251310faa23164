//! What this node itself wants of a content: reads, read-ahead, replication.

use super::super::connection::Ended;
use super::super::engine::Engine;
use super::super::fetch::{FetchEnd, Progress};
use super::super::layout::Layout;
use super::super::limits::{FLUSH_EVERY, FORGIVEN_MAX, REPAIRS_MAX};
use super::super::piece_set::PieceSet;
use super::super::ports::{Standing, StoredContent};
use super::super::scheduler::{Event, NeedId, PeerKey, ReaderId, Scheduler};
use super::super::status::ContentStatus;
use super::super::uploads::on_disk;
use super::dial::{DialError, Established};
use super::pieces::Written;
use super::{Content, Inbox, ReadError};
use crate::metainfo::Info;
use delugefs_core::ids::InfoHash;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};

/// One replication that somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FetchId(pub(crate) u64);

/// Why a content becomes active.
#[derive(Clone)]
pub(crate) enum Origin {
    /// It is wanted here.
    Local(Info),
    /// A peer has asked for it, and something of it is here.
    Found(Loaded),
}

/// A content that is open on disk.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) content: Arc<dyn StoredContent>,
    pub(crate) layout: Layout,
    /// The bencoded `info`, if it is at hand.
    pub(crate) metadata: Option<bytes::Bytes>,
}

/// What a content's task is told.
pub(crate) enum Command {
    Need {
        id: NeedId,
        pieces: Range<u32>,
        reply: oneshot::Sender<Result<(), ReadError>>,
    },
    NeedGone(NeedId),
    Ahead(ReaderId, Range<u32>),
    ReaderGone(ReaderId),
    Fetch(FetchId, watch::Sender<Progress>),
    FetchGone(FetchId),
    PeersChanged,
    Established(Established),
    Dialed(SocketAddr, Result<Established, DialError>),
    Ended(PeerKey, Ended),
    Written(io::Result<Vec<Written>>),
    Finished(io::Result<()>),
    Flushed(io::Result<()>),
    /// End at once: the content's files are to be let go.
    Stop,
}

/// A replication's reporting end.
pub(crate) struct FetchState {
    progress: watch::Sender<Progress>,
}

impl Content {
    /// Puts together the state of a content that was just opened. `seed`: for choices among equals.
    pub(crate) fn new(
        engine: Arc<Engine>,
        info_hash: InfoHash,
        loaded: Loaded,
        status: Arc<Mutex<ContentStatus>>,
        commands: (
            mpsc::UnboundedSender<Command>,
            mpsc::UnboundedReceiver<Command>,
        ),
    ) -> (Self, Inbox) {
        let (said, inbox) = Inbox::new(commands.1);
        let layout = loaded.layout;
        let have = PieceSet::from_fn(layout.pieces(), |piece| loaded.content.has(piece));
        let now = Instant::now();
        let content = Self {
            scheduler: Scheduler::new(layout, &have, engine.seed),
            metadata: loaded.metadata.clone(),
            finished: loaded.content.standing() == Standing::Complete,
            engine,
            info_hash,
            loaded,
            layout,
            have,
            choker: super::Choker::default(),
            addresses: super::Addresses::default(),
            peers: BTreeMap::new(),
            banned: std::collections::BTreeSet::new(),
            assembly: super::Assembly::default(),
            needs: BTreeMap::new(),
            fetches: BTreeMap::new(),
            finishing: false,
            stopped: false,
            repaired: 0,
            forgiven: 0,
            disk_warned: None,
            unflushed: None,
            sources_asked: None,
            last_use: now,
            last_tick: now,
            next_key: 0,
            traffic: Arc::default(),
            counted: (0, 0),
            status,
            commands: commands.0,
            said,
        };
        (content, inbox)
    }

    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Need { id, pieces, reply } => self.need(id, pieces, reply),
            Command::NeedGone(id) => {
                self.needs.remove(&id);
                self.event(Event::NeedGone(id));
            }
            Command::Ahead(reader, pieces) => self.ahead(reader, pieces),
            Command::ReaderGone(reader) => self.event(Event::ReaderGone(reader)),
            Command::Fetch(id, progress) => self.fetch(id, progress),
            Command::FetchGone(id) => {
                self.fetches.remove(&id);
                self.event(Event::Fetch(!self.fetches.is_empty()));
            }
            Command::PeersChanged => self.peers_changed(),
            Command::Established(established) => self.established(established),
            Command::Dialed(address, result) => self.dialed(address, result),
            Command::Ended(key, ended) => self.ended(key, &ended),
            Command::Written(written) => self.written(written),
            Command::Finished(result) => self.finish_ended(result),
            Command::Flushed(result) => self.flushed(result),
            Command::Stop => self.stopped = true,
        }
    }

    fn need(
        &mut self,
        id: NeedId,
        pieces: Range<u32>,
        reply: oneshot::Sender<Result<(), ReadError>>,
    ) {
        let now = Instant::now();
        self.last_use = now;
        let is_answered = self.scheduler.answered(pieces.clone());
        if self.engine.unavailable.contains(&self.info_hash) && !is_answered {
            let _ = reply.send(Err(ReadError::Unavailable));
            self.probe(now);
            return;
        }
        self.needs.insert(id, reply);
        self.event(Event::Need(id, pieces));
        self.seek_peers(now);
    }

    /// Looks whether a holder is back, at the pace of back-off, although nobody waits for it.
    fn probe(&mut self, now: Instant) {
        let asked = self.sources_asked;
        if asked.is_none_or(|asked| now - asked >= super::super::limits::SOURCES_EVERY) {
            self.ask_sources(now);
        }
        self.dial(now);
    }

    fn ahead(&mut self, reader: ReaderId, pieces: Range<u32>) {
        self.last_use = Instant::now();
        self.event(Event::Ahead(reader, pieces));
        self.seek_peers(Instant::now());
    }

    fn peers_changed(&mut self) {
        let now = Instant::now();
        self.ask_sources(now);
        self.forgive(now);
        self.addresses.reset(now);
        self.seek_peers(now);
    }

    /// Who sent wrong pieces may have repaired them: that is news, too.
    fn forgive(&mut self, now: Instant) {
        if !self.banned.is_empty() && self.forgiven < FORGIVEN_MAX {
            self.forgiven += 1;
            self.banned.clear();
            self.addresses.forgive(now);
        }
    }

    pub(super) fn end_need(&mut self, id: NeedId, result: Result<(), ReadError>) {
        if let Some(reply) = self.needs.remove(&id) {
            // Nobody listens when the read was given up meanwhile.
            let _ = reply.send(result);
        }
    }

    pub(super) fn expired(&mut self, id: NeedId) {
        self.engine.waited_in_vain(self.info_hash);
        self.end_need(id, Err(ReadError::TimedOut));
    }

    fn fetch(&mut self, id: FetchId, progress: watch::Sender<Progress>) {
        self.last_use = Instant::now();
        self.fetches.insert(id, FetchState { progress });
        self.show_progress();
        if self.scheduler.missing() == 0 {
            self.finish();
            return;
        }
        self.event(Event::Fetch(true));
        self.seek_peers(Instant::now());
    }

    pub(super) fn show_progress(&mut self) {
        let missing = self.scheduler.missing();
        let stalled = self.scheduler.starving();
        for fetch in self.fetches.values() {
            fetch.progress.send_if_modified(|progress| {
                let known = (progress.missing_pieces, progress.stalled);
                (progress.missing_pieces, progress.stalled) = (missing, stalled);
                known != (missing, stalled)
            });
        }
    }

    /// All pieces are here: has the store check and keep the whole.
    pub(super) fn finish(&mut self) {
        if self.finished {
            self.end_fetches(&FetchEnd::Complete);
            return;
        }
        if std::mem::replace(&mut self.finishing, true) {
            return;
        }
        let content = self.loaded.content.clone();
        let disk = self.engine.resources.disk.clone();
        let commands = self.commands.clone();
        self.engine.runtime.spawn(async move {
            let result = on_disk(&disk, move || content.finish()).await;
            let _ = commands.send(Command::Finished(result));
        });
    }

    fn finish_ended(&mut self, result: io::Result<()>) {
        self.finishing = false;
        match result {
            Ok(()) => {
                self.finished = true;
                self.engine.unavailable.remove(&self.info_hash);
                tracing::debug!(content = %self.info_hash, "complete");
                self.end_fetches(&FetchEnd::Complete);
                let all: Vec<PeerKey> = self.peers.keys().copied().collect();
                for key in all {
                    self.part_if_both_full(key);
                }
            }
            Err(error) => {
                tracing::warn!(content = %self.info_hash, %error, "cannot complete");
                self.unfinished(&error);
            }
        }
    }

    /// The whole was not what it should be. Damaged pieces are fetched again, a few times.
    fn unfinished(&mut self, error: &io::Error) {
        let damaged = !(0..self.layout.pieces()).all(|piece| self.loaded.content.has(piece));
        if !damaged || self.repaired >= REPAIRS_MAX {
            self.fail_fetches(error);
            return;
        }
        self.repaired += 1;
        let peers: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in peers {
            self.drop_peer(key);
        }
        let content = self.loaded.content.clone();
        self.have = PieceSet::from_fn(self.layout.pieces(), |piece| content.has(piece));
        self.scheduler = Scheduler::new(self.layout, &self.have, self.engine.seed);
        self.event(Event::Fetch(!self.fetches.is_empty()));
        self.seek_peers(Instant::now());
    }

    /// Notices what others did with the content: it may be complete by another way, or gone.
    pub(super) fn watch_store(&mut self) {
        match self.loaded.content.standing() {
            Standing::Gone => {
                tracing::debug!(content = %self.info_hash, "the store no longer keeps it");
                self.fail_fetches(&io::ErrorKind::NotFound.into());
                self.stopped = true;
            }
            Standing::Complete if !self.finished && !self.finishing => {
                for piece in (0..self.layout.pieces())
                    .filter(|piece| !self.have.contains(*piece))
                    .collect::<Vec<_>>()
                {
                    self.stored(piece);
                }
            }
            Standing::Complete | Standing::Partial => {}
        }
    }

    /// What a restart would lose is bounded in time.
    pub(super) fn flush(&mut self, now: Instant) {
        let due = |since: Instant| now.saturating_duration_since(since) >= FLUSH_EVERY;
        if self.finished || !self.unflushed.is_some_and(due) {
            return;
        }
        self.unflushed = None;
        let content = self.loaded.content.clone();
        let disk = self.engine.resources.disk.clone();
        let commands = self.commands.clone();
        self.engine.runtime.spawn(async move {
            let result = on_disk(&disk, move || content.flush()).await;
            let _ = commands.send(Command::Flushed(result));
        });
    }

    fn flushed(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.disk_failed(&error);
        }
    }

    pub(super) fn fail_fetches(&mut self, error: &io::Error) {
        self.end_fetches(&FetchEnd::Failed(error.kind(), error.to_string()));
        self.event(Event::Fetch(false));
    }

    fn end_fetches(&mut self, end: &FetchEnd) {
        let missing = self.scheduler.missing();
        for fetch in std::mem::take(&mut self.fetches).into_values() {
            fetch.progress.send_modify(|progress| {
                progress.missing_pieces = missing;
                progress.end = Some(end.clone());
            });
        }
    }
}
