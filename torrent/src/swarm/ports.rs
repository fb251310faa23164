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

    /// The content's `info`, if known: lets a partial content that nobody reads here be served to others.
    /// May block.
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

/// What the store has of a content.
pub enum Found {
    /// All of it.
    Complete(Arc<dyn StoredContent>),
    /// Some pieces; to go on needs its `info`.
    Partial,
    /// Nothing.
    Absent,
}

/// Contents on disk. All calls may block.
pub trait Storage: Send + Sync {
    /// What is here.
    fn find(&self, info_hash: &InfoHash) -> io::Result<Found>;

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

/// One content on disk, complete or not. Calls may block, except [`StoredContent::has`], `is_complete` and those for sizes.
pub trait StoredContent: Send + Sync {
    /// Bytes.
    fn length(&self) -> u64;

    /// Bytes of a piece, except the last.
    fn piece_length(&self) -> u32;

    /// The piece is verified and on disk.
    fn has(&self, piece: u32) -> bool;

    /// All pieces were here and [`StoredContent::finish`] has succeeded, now or in an earlier run.
    fn is_complete(&self) -> bool;

    /// Checks a whole piece and writes it.
    fn write(&self, piece: u32, bytes: &[u8]) -> io::Result<PieceWritten>;

    /// Bytes of pieces that are here.
    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes>;

    /// All pieces are here: checks the whole and makes it a complete content.
    fn finish(&self) -> io::Result<()>;

    /// The bencoded `info`, if it is at hand, to be sent to peers who have only the info-hash (BEP 9).
    fn info(&self) -> Option<Vec<u8>>;
}
