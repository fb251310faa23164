//! What the engine needs from outside: bytes on disk, who may have them, and how to reach those.

use crate::metainfo::Info;
use bytes::Bytes;
use delugefs_core::ids::InfoHash;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// A future on the heap, as the `futures` crates name it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection's byte stream: plain TCP, or something encrypted above it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Who may have a content.
pub trait PeerSource: Send + Sync {
    /// Addresses of those who hold it, all or in part, as far as known now. Is called on async threads: must
    /// not block.
    fn peers(&self, info_hash: &InfoHash) -> Vec<SocketAddr>;

    /// Addresses of those who hold all of it and can be reached, as far as known now: when a new one appears, reads
    /// of a content that had waited in vain wait again. Must not block.
    fn holders(&self, info_hash: &InfoHash) -> Vec<SocketAddr> {
        self.peers(info_hash)
    }

    /// A read has waited in vain for bytes that nobody sends. Told once until a holder appears. Must not block.
    fn waited_in_vain(&self, info_hash: &InfoHash) {
        tracing::warn!(content = %info_hash, "a read has waited in vain: nobody who has its pieces answers");
    }

    /// Bytes that should be here could not be read for a peer: the disk may have lost them. Must not block.
    fn read_failed(&self, _info_hash: &InfoHash) {}

    /// Whoever listens at this address has sent a piece that is wrong. Must not block.
    fn sent_wrong(&self, _info_hash: &InfoHash, _piece: u32, _address: SocketAddr) {}

    /// The content's `info`, if it is at hand: lets a complete content be served to peers who have only its
    /// info-hash (BEP 9). May block, but makes the peer wait.
    fn info(&self, _info_hash: &InfoHash) -> Option<Info> {
        None
    }
}

/// How to reach an address.
pub trait Connector: Send + Sync {
    /// A fresh connection; the engine gives up on it after a few seconds.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;
}

/// Connects with plain TCP, without Nagle's delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Contents on disk. All calls may block.
pub trait Storage: Send + Sync {
    /// Opens a content of which all or something is here.
    fn find(&self, info_hash: &InfoHash) -> io::Result<Option<Arc<dyn StoredContent>>>;

    /// Opens a content, or goes on with it, or begins it.
    fn begin(&self, info: &Info) -> io::Result<Arc<dyn StoredContent>>;
}

/// What became of a piece that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceWritten {
    /// It is right, and on disk.
    Stored,
    /// Its hash is wrong; nothing was written.
    Wrong,
}

/// Where a content on disk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Pieces are missing, or [`StoredContent::finish`] has not succeeded.
    Partial,
    /// Everything is here.
    Complete,
    /// Removed, discarded or given up: to be opened anew.
    Gone,
}

/// One content on disk, complete or not. Calls may block, except those for sizes, [`StoredContent::has`] and
/// [`StoredContent::standing`].
pub trait StoredContent: Send + Sync {
    /// Bytes.
    fn length(&self) -> u64;

    /// Bytes of a piece, except the last.
    fn piece_length(&self) -> u32;

    /// The piece is verified and on disk.
    fn has(&self, piece: u32) -> bool;

    /// Where it stands; may change by what others do with the store.
    fn standing(&self) -> Standing;

    /// Checks a whole piece and writes it.
    fn write(&self, piece: u32, bytes: &[u8]) -> io::Result<PieceWritten>;

    /// Bytes of pieces that are here.
    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes>;

    /// Makes what was written survive a restart.
    fn flush(&self) -> io::Result<()>;

    /// All pieces are here: checks the whole and makes it a complete content. Pieces that turn out to be
    /// damaged are no longer here afterwards.
    fn finish(&self) -> io::Result<()>;

    /// The bencoded `info`, if it is at hand, to be sent to peers who have only the info-hash (BEP 9).
    fn info(&self) -> Option<Vec<u8>>;
}
