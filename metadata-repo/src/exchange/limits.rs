//! Limits on what a peer may ask for or send, each with its unit and reason.

use delugefs_core::limits::INCARNATIONS_MAX;
use std::time::Duration;

/// Limits of one served connection.
#[derive(Debug, Clone)]
pub struct ServeLimits {
    /// Most lines in one request: a client's haves come in batches, ours send one for each author.
    pub request_lines_max: usize,
    /// Most requests on one connection: a stock client that finds nothing in common stops after 256 haves.
    pub requests_max: usize,
    /// Most commits looked at for one request, in the history that is served.
    pub commits_max: usize,
    /// Most objects in one pack; its list takes 20 bytes of memory for each.
    pub objects_max: usize,
    /// Longest time in which the client hears nothing while objects are listed: well under the 30 s that a
    /// node waits.
    pub silence_max: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            request_lines_max: 32_768,
            requests_max: 1024,
            commits_max: 4_000_000,
            objects_max: 32_000_000,
            silence_max: Duration::from_secs(5),
        }
    }
}

/// Limits of one pull.
#[derive(Debug, Clone)]
pub struct PullLimits {
    /// Most author chains: one for each life of each node that ever was in the volume.
    pub refs_max: usize,
    /// Most objects in one pack; about 60 bytes of memory for each while it is checked.
    pub objects_max: u32,
    /// Most bytes of one pack: what a hostile peer can make this disk hold before it is found out.
    pub pack_bytes_max: u64,
    /// Most bytes of a commit: a message with trailers, a signature, one line for each parent.
    pub commit_bytes_max: u64,
    /// Most bytes of a tree: a million entries in one folder that is not fanned out.
    pub tree_bytes_max: u64,
    /// Most bytes of a blob: a descriptor with 131,072 pieces (2.6 MB), inline bytes and attributes.
    pub blob_bytes_max: u64,
    /// Most commits looked at while checking.
    pub commits_max: usize,
}

impl Default for PullLimits {
    fn default() -> Self {
        Self {
            refs_max: INCARNATIONS_MAX,
            objects_max: 32_000_000,
            pack_bytes_max: 64 << 30,
            commit_bytes_max: 1 << 20,
            tree_bytes_max: 64 << 20,
            blob_bytes_max: 8 << 20,
            commits_max: 4_000_000,
        }
    }
}
