//! The link between two nodes of a volume: an authenticated, encrypted stream, and the messages on it.
//!
//! Invariants: nothing of a peer is believed before its handshake, its static key's pin and the
//! signature of its incarnation are checked; every length that a peer names has a limit; a stream
//! ends cleanly only where the other side said so.

pub mod blocking;
pub mod codec;
pub mod connection;
pub mod handshake;
pub mod keys;
pub mod message;
pub mod stream;

pub use connection::{Connection, Receiver, Sender};
pub use handshake::{Credentials, Established, Purpose, Remote, accept, dial};
pub use keys::{Identity, PinError, Pins, Psk};
pub use message::Message;
pub use stream::SecureStream;

use delugefs_core::ids::NodeId;
use std::io;

/// Why a link could not be made, or ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection broke.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The other side knows another pre-shared key.
    #[error("another volume or wrong key")]
    WrongKey,
    /// Not a peer link at all, or of a version or suite that is not spoken here.
    #[error("the peer speaks another link version: {0}")]
    Version(String),
    /// Bytes that no honest peer sends.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// The other side did not answer in time.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// We dialled ourselves.
    #[error("this address is our own")]
    Itself,
    /// Another process has our node id, and its key.
    #[error("another process runs with the identity of this node, {node}")]
    Duplicate {
        /// The node.
        node: NodeId,
        /// Whether it is for us to become another node: so on one side exactly.
        yields: bool,
    },
    /// The node's static key is not the one it had.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The connection was closed on our side.
    #[error("the connection is closed")]
    Closed,
}

impl LinkError {
    pub(crate) fn protocol(text: impl Into<String>) -> Self {
        Self::Protocol(text.into())
    }
}
