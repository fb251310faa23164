//! Asking and telling a running node, over a Unix socket in its root: one JSON request and one JSON reply, each a line.
//!
//! Who may use it is decided by the socket's file mode: the node's owner.

mod client;
mod mounts;
mod reports;
mod scrubs;
mod server;

pub use client::{ControlError, ask, mount_of, root_of_mount};
pub use mounts::{Mounted, find_mount};
pub use reports::{
    ContentReport, FetchReport, HolderReport, NodeReport, PeerReport, SettingsReport, SignerReport,
    SignersReport, SpaceReport, StatusReport, VolumeReport, WhereReport,
};
pub use scrubs::{DamageReport, RepairReport, ScrubReport};
pub use server::{Answer, ControlServer, Handle};

use serde::{Deserialize, Serialize};

/// Longest request or reply, in bytes: a status of a thousand peers fits well.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// What can be asked of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How the node is.
    Status,
    /// Where a file's bytes are; the path is relative to the volume's root.
    Where {
        /// Bytes of the path, components joined by `/`.
        path: Vec<u8>,
    },
    /// The keys that sign the volume's commits.
    Signers,
    /// The volume's settings.
    Settings,
    /// A new value of a setting.
    Set {
        /// Its name.
        key: String,
        /// The value, with unit.
        value: String,
    },
    /// Read everything on the disk again now, at full speed.
    Scrub,
    /// How far that is.
    ScrubProgress,
    /// Finish what is under way, unmount, end.
    Stop,
}

/// What comes back: a report, or a sentence about what is wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The report that belongs to the request.
    Done(serde_json::Value),
    /// Why it cannot be done.
    Failed(String),
}
