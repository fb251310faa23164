//! What a node tells about itself: printed for people, or as JSON with `--json`.

use super::scrubs::{DamageReport, ScrubReport};
use crate::cli::units::show_size;
use serde::{Deserialize, Serialize};
use std::fmt;

/// `delugefs status`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusReport {
    /// This node.
    pub node: NodeReport,
    /// Its volume.
    pub volume: VolumeReport,
    /// Nodes it knows.
    pub peers: Vec<PeerReport>,
    /// The disk.
    pub space: SpaceReport,
    /// What is under way.
    pub contents: ContentReport,
    /// What was read again, and what is damaged.
    pub scrub: ScrubReport,
    /// Why this node is read-only until it is started again, if it is.
    #[serde(default)]
    pub read_only: Option<String>,
}

/// `delugefs signers`: what git's `gpg.ssh.allowedSignersFile` names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignersReport {
    /// One for each author of the volume.
    pub signers: Vec<SignerReport>,
}

/// Who signs commits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignerReport {
    /// The author's incarnation, hex.
    pub incarnation: String,
    /// Its public key: `ssh-ed25519 …`
    pub key: String,
    /// The label of the disk whose present incarnation it is, if it is one's.
    pub label: Option<String>,
}

impl fmt::Display for SignersReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for signer in &self.signers {
            let SignerReport {
                incarnation,
                key,
                label,
            } = signer;
            if let Some(label) = label {
                writeln!(f, "# {label}")?;
            }
            writeln!(f, "{incarnation}@delugefs.invalid namespaces=\"git\" {key}")?;
        }
        Ok(())
    }
}

/// Who the node is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeReport {
    /// The node's id, hex.
    pub id: String,
    /// Its incarnation, hex.
    pub incarnation: String,
    /// Its label.
    pub label: String,
    /// Its site.
    pub site: String,
    /// Where it listens.
    pub listen: String,
    /// Where it is mounted.
    pub mount: Option<String>,
    /// Process id.
    pub pid: u32,
}

/// What the volume is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeReport {
    /// Its name.
    pub name: String,
    /// Its UUID, hex.
    pub id: String,
    /// The commit that `refs/heads/main` is at.
    pub head: Option<String>,
}

/// Another node of the volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its id, hex.
    pub id: String,
    /// Its label.
    pub label: String,
    /// Where it was reached.
    pub address: Option<String>,
    /// A link to it is up.
    pub connected: bool,
}

/// Space of this disk, in bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SpaceReport {
    /// What this node may use at most.
    pub capacity: u64,
    /// What it can still take.
    pub free: u64,
}

/// Bytes and names that are on their way, in numbers of files unless said otherwise.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContentReport {
    /// Contents that are complete on this disk.
    pub held: u64,
    /// Contents of the volume.
    pub total: u64,
    /// Closed here, not yet hashed.
    pub unsealed: u64,
    /// Changed here, not yet committed.
    pub uncommitted: u64,
    /// On fewer nodes than the volume's settings ask.
    pub short_of_copies: u64,
    /// Being fetched to this disk now.
    pub fetching: Vec<FetchReport>,
}

/// One content being fetched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FetchReport {
    /// Its info-hash.
    pub info_hash: String,
    /// Bytes that are here.
    pub have: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// `delugefs where PATH`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WhereReport {
    /// Path within the volume.
    pub path: String,
    /// Length in bytes.
    pub length: u64,
    /// Info-hash; none where the bytes travel with the name.
    pub info_hash: Option<String>,
    /// Bytes that are on this disk.
    pub here: u64,
    /// What is damaged of it on this disk.
    pub damage: Option<DamageReport>,
    /// The nodes that hold it whole.
    pub holders: Vec<HolderReport>,
}

/// A node that holds a content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HolderReport {
    /// Its id, hex.
    pub id: String,
    /// Its label.
    pub label: String,
    /// It is connected now, or is this node.
    pub connected: bool,
}

/// `delugefs set`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SettingsReport {
    /// Name and value of each setting, as `set` takes them.
    pub settings: Vec<(String, String)>,
}

impl fmt::Display for StatusReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, volume) = (&self.node, &self.volume);
        writeln!(f, "node      {} ({})", node.label, node.id)?;
        writeln!(f, "volume    {} ({})", volume.name, volume.id)?;
        if let Some(reason) = &self.read_only {
            writeln!(f, "READ-ONLY until it is started again: {reason}")?;
        }
        writeln!(
            f,
            "head      {}",
            volume.head.as_deref().unwrap_or("none yet")
        )?;
        writeln!(f, "listening {}", node.listen)?;
        writeln!(
            f,
            "mounted   {}",
            node.mount.as_deref().unwrap_or("no (storage node)")
        )?;
        let (free, capacity) = (show_size(self.space.free), show_size(self.space.capacity));
        writeln!(f, "space     {free} free of {capacity}")?;
        let contents = &self.contents;
        let (held, total) = (contents.held, contents.total);
        writeln!(
            f,
            "contents  {held} of {total} here, {} short of copies",
            contents.short_of_copies
        )?;
        let (unsealed, uncommitted) = (contents.unsealed, contents.uncommitted);
        writeln!(f, "under way {unsealed} to hash, {uncommitted} to commit")?;
        for fetch in &contents.fetching {
            let (have, length) = (show_size(fetch.have), show_size(fetch.length));
            writeln!(f, "fetching  {} ({have} of {length})", fetch.info_hash)?;
        }
        write!(f, "{}", self.scrub)?;
        for peer in &self.peers {
            let state = if peer.connected {
                "connected"
            } else {
                "not connected"
            };
            let address = peer.address.as_deref().unwrap_or("-");
            writeln!(f, "peer      {} at {address}: {state}", peer.label)?;
        }
        Ok(())
    }
}

impl fmt::Display for WhereReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.path, show_size(self.length))?;
        match &self.info_hash {
            None => writeln!(
                f,
                "the bytes travel with the name: on every disk of the volume"
            ),
            Some(info_hash) => {
                writeln!(f, "info-hash {info_hash}")?;
                writeln!(
                    f,
                    "here      {} of {}",
                    show_size(self.here),
                    show_size(self.length)
                )?;
                if let Some(damage) = &self.damage {
                    writeln!(f, "damaged   {damage}")?;
                }
                for holder in &self.holders {
                    let state = if holder.connected {
                        "connected"
                    } else {
                        "not connected"
                    };
                    writeln!(f, "held by   {} ({state})", holder.label)?;
                }
                if self.holders.is_empty() {
                    writeln!(f, "held by   no disk that this node has heard of")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for SettingsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.settings.iter();
        lines.try_for_each(|(key, value)| writeln!(f, "{key:<10} {value}"))
    }
}
