//! The volume's settings: the same on every node, kept in the root's `%volume`.

use crate::ids::VolumeId;
use crate::past::Boundary;
use std::time::Duration;

/// What holds for the whole volume. Changed with `delugefs set`; travels and merges as names do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Minted by `--create`, never changed.
    pub volume: VolumeId,
    /// The volume's name (`--id`), never changed.
    pub name: String,
    /// On how many nodes each content shall be, at least 1.
    pub copies: u32,
    /// How long a node may be away and still count as a holder.
    pub grace: Duration,
    /// How long the bytes of removed or replaced versions are kept.
    pub keep: Duration,
    /// How long a read waits for bytes that no connected node has.
    pub wait: Duration,
    /// Files up to this many bytes travel inside their descriptor.
    pub inline_max: u32,
    /// How long history is kept at least.
    pub history: Duration,
    /// A node of which nobody has had a sign of life for so long is not waited for any more.
    pub retire: Duration,
    /// Where history is to be cut; nobody sets it by hand, and it never goes back.
    pub boundary: Option<Boundary>,
}

impl Settings {
    /// A new volume's settings.
    pub fn new(volume: VolumeId, name: String) -> Self {
        Self {
            volume,
            name,
            copies: 2,
            grace: Duration::from_hours(24),
            keep: Duration::from_hours(7 * 24),
            wait: Duration::from_mins(5),
            inline_max: 4096,
            history: Duration::from_hours(90 * 24),
            retire: Duration::from_hours(180 * 24),
            boundary: None,
        }
    }
}
