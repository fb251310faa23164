//! What the engine is doing, for people.

use delugefs_core::ids::InfoHash;

/// One active content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentStatus {
    /// Which.
    pub info_hash: InfoHash,
    /// Bytes.
    pub length: u64,
    /// All its pieces.
    pub pieces: u32,
    /// Pieces that are not here.
    pub missing_pieces: u32,
    /// Connected peers.
    pub peers: usize,
    /// Bytes per second to peers, lately.
    pub up: u64,
    /// Bytes per second from peers, lately.
    pub down: u64,
    /// Reads that wait for pieces.
    pub waiting_reads: usize,
    /// The whole is being replicated to here.
    pub fetching: bool,
}

/// All active contents, in order of their info-hashes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SwarmStatus {
    /// Contents that somebody here or elsewhere uses.
    pub contents: Vec<ContentStatus>,
}
