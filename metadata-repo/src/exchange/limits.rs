//! Limits on what a peer may ask for or send, each with its unit and reason.

use super::ExchangeError;
use delugefs_core::limits::INCARNATIONS_MAX;
use gix::objs::Kind;
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
    /// Most objects in one pack; about 80 bytes of memory for each while it is read.
    pub objects_max: u32,
    /// Most bytes of one pack: what a hostile peer can make this disk hold before it is found out.
    pub pack_bytes_max: u64,
    /// Most bytes of a commit: a message with trailers, a signature, one line for each parent.
    pub commit_bytes_max: u64,
    /// Most bytes of a tree: a million entries in one folder that is not fanned out.
    pub tree_bytes_max: u64,
    /// Most bytes of a blob: a descriptor with 131,072 pieces (2.6 MB), inline bytes and attributes.
    pub blob_bytes_max: u64,
    /// Most bytes that deltas make of each byte of a pack: no more than deflate alone could (zlib's technical
    /// notes, 1032). Ours make some hundred, since at most 50 rest on a whole object.
    pub made_per_byte_max: u64,
    /// Most bytes of objects that are kept at once since deltas rest on them: one, where each rests on the next.
    pub bases_bytes_max: u64,
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
            made_per_byte_max: 1032,
            bases_bytes_max: 256 << 20,
            commits_max: 4_000_000,
        }
    }
}

impl PullLimits {
    /// Whether an object of that kind, or a delta where there is none, may have so many bytes.
    pub(super) fn check_size(&self, kind: Option<Kind>, size: u64) -> Result<(), ExchangeError> {
        let (what, limit) = match kind {
            Some(Kind::Commit) => ("bytes in a commit", self.commit_bytes_max),
            Some(Kind::Tree) => ("bytes in a tree", self.tree_bytes_max),
            Some(Kind::Blob | Kind::Tag) => ("bytes in a blob", self.blob_bytes_max),
            None => ("bytes in a delta", self.tree_bytes_max),
        };
        match size > limit {
            true => Err(ExchangeError::Limit { what, limit }),
            false => Ok(()),
        }
    }
}
