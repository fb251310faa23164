//! Our own `BitTorrent` engine, wire-compatible with every client (BEP 3, 9, 10).
//!
//! A content costs nothing until somebody asks for it: an incoming handshake or a local read makes it active,
//! and it is let go when nobody has used it for a while. Each active content is one task; its decisions are
//! pure (`scheduler`, `choker`, `addresses`). Invariants: bytes are given to readers and peers only from
//! pieces that were verified and written; one slow or lying peer neither stalls nor spoils a read; all queues
//! and buffers are bounded (see `limits`). Nothing here survives a crash: what was written is the store's.

mod addresses;
mod choker;
mod chunks;
mod connection;
mod content;
mod engine;
mod fetch;
mod layout;
mod limits;
mod piece_set;
mod ports;
mod rate;
mod reader;
mod scheduler;
mod status;
mod stored;
#[cfg(test)]
mod tests;
mod uploads;
pub(crate) mod wire;

pub use fetch::{Fetch, FetchEnd, Progress};
pub use ports::{
    BoxFuture, Connector, PeerSource, PieceWritten, Standing, Storage, StoredContent, Stream,
    TcpConnector,
};
pub use reader::{ReadError, Reader};
pub use status::{ContentStatus, SwarmStatus};

use crate::metainfo::Info;
use bytes::{Bytes, BytesMut};
use content::Command;
use delugefs_core::ids::InfoHash;
use engine::Engine;
use std::sync::Arc;
use std::time::Duration;

/// How long [`Swarm::shutdown`] waits for the disk.
pub const SHUTDOWN_TIME: Duration = Duration::from_secs(10);

/// How an engine behaves.
#[derive(Debug, Clone)]
pub struct SwarmConfig {
    /// Our name among peers for this run: see [`SwarmConfig::new`].
    pub peer_id: [u8; 20],
    /// How long a read waits while nobody who has its bytes sends any.
    pub wait: Duration,
    /// How long an unused content stays active.
    pub idle: Duration,
    /// Most bytes per second to peers; `None`: unlimited.
    pub up: Option<u64>,
    /// Most bytes per second from peers; `None`: unlimited.
    pub down: Option<u64>,
}

impl SwarmConfig {
    /// Defaults, with a peer id made of `random` bytes.
    pub fn new(random: [u8; 12]) -> Self {
        let mut peer_id = *b"-DF0010-............";
        peer_id[8..].copy_from_slice(&random);
        Self {
            peer_id,
            wait: Duration::from_mins(5),
            idle: Duration::from_secs(30),
            up: None,
            down: None,
        }
    }
}

/// What a connection does with bytes from outside before it decides anything.
pub(crate) fn parse_messages(bytes: &[u8]) {
    /// Any number that makes all kinds of bitfields possible.
    const PIECES: u32 = 1000;
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(message)) = wire::decode(&mut buffer, PIECES) {
        match message {
            wire::Message::Bitfield(bits) => drop(piece_set::PieceSet::from_wire(&bits, PIECES)),
            wire::Message::Extended(_, payload) => {
                let _ = wire::ExtendedHandshake::decode(&payload);
                let _ = wire::MetadataMessage::decode(&payload);
            }
            _ => {}
        }
    }
}

/// The engine. Clones are the same engine.
#[derive(Clone)]
pub struct Swarm(Arc<Engine>);

impl Swarm {
    /// An engine over a store, with a way to learn of peers and a way to reach them. Its tasks run on `runtime`.
    pub fn new(
        storage: Arc<dyn Storage>,
        source: Arc<dyn PeerSource>,
        connector: Arc<dyn Connector>,
        config: SwarmConfig,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let engine = Engine::new(storage, source, connector, config, runtime);
        Self(Arc::new(engine))
    }

    /// Takes an incoming connection of which `prefix` was already read.
    pub fn accept(&self, stream: impl Stream + 'static, prefix: Bytes) {
        self.0.accept(Box::new(stream), BytesMut::from(prefix));
    }

    /// Somebody is going to read the content.
    pub fn reader(&self, info: &Info) -> Reader {
        Reader::new(self.0.clone(), info.clone())
    }

    /// Replicates the whole content to here.
    pub fn fetch(&self, info: &Info) -> Fetch {
        Fetch::new(self.0.clone(), info.clone())
    }

    /// The source has news of who has the content: it is asked anew, and back-off ends.
    pub fn peers_changed(&self, info_hash: &InfoHash) {
        self.0.peers_changed(info_hash);
    }

    /// The source has news about any content, also about those that were waited for in vain.
    pub fn all_peers_changed(&self) {
        self.0.all_peers_changed();
    }

    /// Lets go of the content at once, as its bytes are to be removed: connections end, waiting reads start
    /// over, fetches end.
    pub fn release(&self, info_hash: &InfoHash) {
        self.0.tell(info_hash, Command::Stop);
    }

    /// Like [`Swarm::release`], and returns when nothing reads or serves what was here by then.
    pub async fn let_go(&self, info_hash: &InfoHash) {
        let Some(active) = self.0.active(info_hash) else {
            return;
        };
        active.send(Command::Stop);
        let same = |now: &engine::Handle| now.is_same(&active);
        while self.0.active(info_hash).as_ref().is_some_and(same) {
            tokio::time::sleep(limits::SHUTDOWN_POLL).await;
        }
    }

    /// Lets go of all contents, and returns when what was received is on disk, or after
    /// [`SHUTDOWN_TIME`].
    pub async fn shutdown(&self) {
        let ended = async {
            while self.0.stop_all() {
                tokio::time::sleep(limits::SHUTDOWN_POLL).await;
            }
        };
        let _ = tokio::time::timeout(SHUTDOWN_TIME, ended).await;
    }

    /// From now on reads wait so long.
    pub fn set_wait(&self, wait: Duration) {
        self.0.set_wait(wait);
    }

    /// Limits in bytes per second, to and from peers; `None`: unlimited.
    pub fn set_limits(&self, up: Option<u64>, down: Option<u64>) {
        self.0.resources.up.set(up);
        self.0.resources.down.set(down);
    }

    /// What the engine is doing.
    pub fn status(&self) -> SwarmStatus {
        self.0.status()
    }
}
