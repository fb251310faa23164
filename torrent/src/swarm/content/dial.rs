//! Finding peers, connecting, and the handshakes of both kinds of connections.

use super::super::engine::Engine;
use super::super::limits::{
    CONNECT_TIME, DIALS_MAX, EMPTY_TIME, HANDSHAKE_TIME, PEERS_MAX, SOURCES_EVERY,
};
use super::super::ports::Stream;
use super::super::scheduler::PeerKey;
use super::super::wire::{HANDSHAKE_BYTES, Handshake, PeerId};
use super::{Command, Content, PeerState};
use bytes::BytesMut;
use delugefs_core::ids::InfoHash;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// A connection whose handshakes are done.
pub(crate) struct Established {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) handshake: Handshake,
    /// What was received after the handshake.
    pub(crate) rest: BytesMut,
    /// Where the peer listens, if we know.
    pub(crate) address: Option<SocketAddr>,
    /// We began it.
    pub(crate) ours: bool,
    /// Its place among the connections that came to us.
    pub(crate) permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Late,
    /// Whoever is there speaks another protocol, or of another content.
    #[error("not a peer of this content")]
    Stranger,
    /// Whoever is there is us.
    #[error("our own address")]
    Ourselves,
}

impl Content {
    /// Asks the sources when it is time, and dials what is due.
    pub(super) fn seek_peers(&mut self, now: Instant) {
        if !self.scheduler.wants() {
            return;
        }
        let due = |asked: Instant| now.saturating_duration_since(asked) >= SOURCES_EVERY;
        if self.sources_asked.is_none_or(due) {
            self.ask_sources(now);
        }
        self.drop_empty(now);
        self.dial(now);
    }

    /// While nobody has what is wanted, peers that we dialled and that have nothing at all are dialled anew
    /// now and then: some clients (Transmission 3) forget to tell of what they find when they check their
    /// files while we are connected.
    fn drop_empty(&mut self, now: Instant) {
        if !self.scheduler.starving() {
            return;
        }
        let empty = |peer: &PeerState| {
            let time = now.saturating_duration_since(peer.since);
            peer.ours && peer.has.count() == 0 && time >= EMPTY_TIME
        };
        let empty = self.peers.iter().filter(|(_, peer)| empty(peer));
        let keys: Vec<PeerKey> = empty.map(|(key, _)| *key).collect();
        for key in keys {
            self.drop_peer(key);
        }
    }

    /// Whether the sources name somebody that they did not name before.
    pub(super) fn ask_sources(&mut self, now: Instant) -> bool {
        self.sources_asked = Some(now);
        let named = self.engine.source.peers(&self.info_hash);
        self.addresses.update(&named, now)
    }

    pub(super) fn dial(&mut self, now: Instant) {
        let connecting = self.addresses.connecting();
        let room = PEERS_MAX.saturating_sub(self.peers.len() + connecting);
        let most = DIALS_MAX.saturating_sub(connecting).min(room);
        for address in self.addresses.take_due(most, now) {
            let (engine, info_hash) = (self.engine.clone(), self.info_hash);
            let commands = self.commands.clone();
            self.engine.runtime.spawn(async move {
                let result = reach(&engine, info_hash, address).await;
                let _ = commands.send(Command::Dialed(address, result));
            });
        }
    }

    pub(super) fn dialed(&mut self, address: SocketAddr, result: Result<Established, DialError>) {
        match result {
            Ok(established) => self.established(established),
            Err(DialError::Ourselves) => self.addresses.bar(address),
            Err(error) => {
                tracing::debug!(content = %self.info_hash, %address, %error, "cannot connect");
                self.addresses.failed(address, Instant::now());
            }
        }
    }
}

async fn reach(
    engine: &Engine,
    info_hash: InfoHash,
    address: SocketAddr,
) -> Result<Established, DialError> {
    let connecting = engine.connector.connect(address);
    let stream = timeout(CONNECT_TIME, connecting)
        .await
        .map_err(|_| DialError::Late)??;
    let shaking = shake_outgoing(stream, info_hash, engine.peer_id);
    let mut established = timeout(HANDSHAKE_TIME, shaking)
        .await
        .map_err(|_| DialError::Late)??;
    established.address = Some(address);
    Ok(established)
}

async fn shake_outgoing(
    mut stream: Box<dyn Stream>,
    info_hash: InfoHash,
    peer_id: PeerId,
) -> Result<Established, DialError> {
    send_handshake(&mut stream, info_hash, peer_id).await?;
    let mut rest = BytesMut::new();
    let handshake = receive_handshake(&mut stream, &mut rest).await?;
    if handshake.info_hash != info_hash {
        return Err(DialError::Stranger);
    }
    if handshake.peer_id == peer_id {
        return Err(DialError::Ourselves);
    }
    Ok(Established {
        stream,
        handshake,
        rest,
        address: None,
        ours: true,
        permit: None,
    })
}

/// The handshakes of a connection that came to us. `prefix`: what was read of it already.
pub(crate) async fn shake_incoming(
    engine: &Arc<Engine>,
    mut stream: Box<dyn Stream>,
    prefix: BytesMut,
) -> Result<Established, DialError> {
    let mut rest = prefix;
    let receiving = receive_handshake(&mut stream, &mut rest);
    let handshake = timeout(HANDSHAKE_TIME, receiving)
        .await
        .map_err(|_| DialError::Late)??;
    if handshake.peer_id == engine.peer_id {
        // The answer tells the dialling side, which is us, whom it has reached.
        send_handshake(&mut stream, handshake.info_hash, engine.peer_id).await?;
        return Err(DialError::Ourselves);
    }
    let loaded = engine.activate_for_peer(handshake.info_hash).await;
    if !loaded {
        return Err(DialError::Stranger);
    }
    let answering = send_handshake(&mut stream, handshake.info_hash, engine.peer_id);
    timeout(HANDSHAKE_TIME, answering)
        .await
        .map_err(|_| DialError::Late)??;
    Ok(Established {
        stream,
        handshake,
        rest,
        address: None,
        ours: false,
        permit: None,
    })
}

async fn send_handshake(
    stream: &mut Box<dyn Stream>,
    info_hash: InfoHash,
    peer_id: PeerId,
) -> io::Result<()> {
    let handshake = Handshake {
        info_hash,
        peer_id,
        extensions: true,
    };
    stream.write_all(&handshake.encode()).await?;
    stream.flush().await
}

/// Leaves in `buffer` what follows the handshake.
async fn receive_handshake(
    stream: &mut Box<dyn Stream>,
    buffer: &mut BytesMut,
) -> Result<Handshake, DialError> {
    while buffer.len() < HANDSHAKE_BYTES {
        buffer.reserve(HANDSHAKE_BYTES);
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    let bytes = buffer.split_to(HANDSHAKE_BYTES);
    let bytes = bytes[..].try_into().map_err(|_| DialError::Stranger)?;
    Handshake::decode(bytes).ok_or(DialError::Stranger)
}
