//! `node.toml`: who this node is.

use super::{FORMAT, Layout, RootError};
use crate::sync_ext::lock;
use delugefs_core::ids::{IncarnationId, NodeId, ParseIdError, VolumeId};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;

/// The keys of one incarnation.
#[derive(Clone)]
pub struct IncarnationKeys {
    /// Signs the handshake (and commits): its public half's hash is the incarnation's id.
    pub signing: SigningKey,
    /// Static key of the encrypted link (X25519).
    pub link: [u8; 32],
}

impl IncarnationKeys {
    /// The incarnation that these keys are.
    pub fn incarnation(&self) -> IncarnationId {
        IncarnationId::of_key(self.signing.verifying_key().as_bytes())
    }

    fn random() -> io::Result<Self> {
        Ok(Self {
            signing: SigningKey::from_bytes(&random()?),
            link: random()?,
        })
    }
}

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Which disk a root is on, so that a copied or restored root is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The filesystem's id (`statvfs` `f_fsid`, derived from its UUID).
    filesystem: String,
    /// Inode of the folder `data` in the root.
    inode: u64,
}

impl Disk {
    /// The disk that a root is on. Makes the root's `data` if it is missing.
    pub fn of(root: &Path) -> Result<Self, RootError> {
        let data = root.join("data");
        std::fs::create_dir_all(&data).map_err(RootError::io(&data))?;
        let space = rustix::fs::statvfs(&data).map_err(|e| RootError::io(&data)(e.into()))?;
        let inode = data.metadata().map_err(RootError::io(&data))?.ino();
        let filesystem = format!("{:016x}", space.f_fsid);
        Ok(Self { filesystem, inode })
    }
}

/// What can be relied on of a root. Goes one way only, until a start makes a new identity of what cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// `--create` has not come to its end: the same command goes on with it.
    Creating,
    /// A disk of its volume.
    InUse,
    /// Others have seen more of this disk than is on it: it continues as a new incarnation of the same node.
    Behind,
    /// Another disk goes on as this node: this one continues as another node.
    Double,
}

/// Held while the standing on disk changes: of two changes at once, one would be lost.
static MARKING: Mutex<()> = Mutex::new(());

/// A volume's name and identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeName {
    /// The UUID that `--create` minted.
    pub id: VolumeId,
    /// What `--id` says.
    pub name: String,
}

/// Why a root's identity was made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The root is where it was, and as far as anybody has seen it.
    None,
    /// The root was restored, or may have been: the same node continues, with a chain and a log of its own.
    Incarnation,
    /// The root was copied to another place, or another disk goes on as this node: it continues as another node.
    Node,
}

/// Who a node is.
#[derive(Clone)]
pub struct Identity {
    /// The node, which is a disk.
    pub node: NodeId,
    /// The keys of its present incarnation.
    pub keys: IncarnationKeys,
    /// The volume it is part of.
    pub volume: VolumeName,
}

/// `node.toml` in our words.
#[derive(Clone)]
pub struct NodeFile {
    /// Who the node is.
    pub identity: Identity,
    /// How people call it; appears in conflict copies.
    pub label: String,
    /// Where it is, for spreading copies.
    pub site: String,
    /// The port it listens on, chosen once.
    pub port: u16,
    /// Most bytes to use, if the owner set a limit.
    pub capacity: Option<u64>,
    /// The incarnation that this disk was before: where there is no chain of the present one, its chain says how far
    /// the journal is committed, and is what goes on.
    pub continues: Option<IncarnationId>,
    /// What can be relied on.
    pub standing: Standing,
    disk: Disk,
}

/// The fixed part of the file, read before anything else of it is believed.
#[derive(Deserialize)]
struct FormatOnly {
    format: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: String,
    standing: Standing,
    node: String,
    label: String,
    site: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    continues: Option<String>,
    signing_key: String,
    link_key: String,
    volume: StoredVolume,
    disk: Disk,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredVolume {
    id: String,
    name: String,
}

impl NodeFile {
    /// A new node of a volume, which is in use as soon as it is stored.
    pub fn create(root: &Path, volume: VolumeName, label: String) -> Result<Self, RootError> {
        let random_failed = RootError::io(root);
        let (node, keys) = (|| Ok((NodeId::new(random()?), IncarnationKeys::random()?)))()
            .map_err(random_failed)?;
        Ok(Self {
            identity: Identity { node, keys, volume },
            label,
            site: String::new(),
            port: 0,
            capacity: None,
            continues: None,
            standing: Standing::InUse,
            disk: Disk::of(root)?,
        })
    }

    /// Reads the file of a root, `None` if there is none.
    pub fn load(layout: &Layout) -> Result<Option<Self>, RootError> {
        let path = layout.node_file();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RootError::io(&path)(error)),
        };
        let damaged = |reason: String| RootError::Damaged {
            path: path.clone(),
            reason,
        };
        let head: FormatOnly = toml::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        if head.format != FORMAT {
            return Err(RootError::OtherFormat {
                root: layout.root().to_owned(),
                found: head.format,
            });
        }
        let stored: Stored = toml::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        Self::from_stored(stored).map(Some).map_err(damaged)
    }

    fn from_stored(stored: Stored) -> Result<Self, String> {
        let key = |text: &str, what: &str| {
            let id: [u8; 32] = hex(text).ok_or(format!("{what} is not 64 hex digits"))?;
            Ok::<_, String>(id)
        };
        let keys = IncarnationKeys {
            signing: SigningKey::from_bytes(&key(&stored.signing_key, "signing_key")?),
            link: key(&stored.link_key, "link_key")?,
        };
        let volume = VolumeName {
            id: stored
                .volume
                .id
                .parse()
                .map_err(|e: ParseIdError| e.to_string())?,
            name: stored.volume.name,
        };
        let node = stored.node.parse();
        let continues = stored.continues.map(|before| before.parse());
        let continues = continues.transpose();
        let continues = continues.map_err(|e: ParseIdError| e.to_string())?;
        Ok(Self {
            identity: Identity {
                node: node.map_err(|e: ParseIdError| e.to_string())?,
                keys,
                volume,
            },
            label: stored.label,
            site: stored.site,
            port: stored.port,
            capacity: stored.capacity,
            continues,
            standing: stored.standing,
            disk: stored.disk,
        })
    }

    /// Replaces the file of a root, durably.
    pub fn store(&self, layout: &Layout) -> Result<(), RootError> {
        let path = layout.node_file();
        self.write(layout).map_err(RootError::io(&path))
    }

    fn write(&self, layout: &Layout) -> io::Result<()> {
        let text = toml::to_string(&self.to_stored()).map_err(io::Error::other)?;
        let new = layout.root().join("node.toml.new");
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, layout.node_file())?;
        File::open(layout.root())?.sync_all()
    }

    fn to_stored(&self) -> Stored {
        let keys = &self.identity.keys;
        Stored {
            format: FORMAT.to_owned(),
            standing: self.standing,
            node: self.identity.node.to_string(),
            label: self.label.clone(),
            site: self.site.clone(),
            port: self.port,
            capacity: self.capacity,
            continues: self.continues.map(|before| before.to_string()),
            signing_key: to_hex(&keys.signing.to_bytes()),
            link_key: to_hex(&keys.link),
            volume: StoredVolume {
                id: self.identity.volume.id.to_string(),
                name: self.identity.volume.name.clone(),
            },
            disk: self.disk.clone(),
        }
    }

    /// Notes durably how a root stands from now on, unless it is further on its way already.
    pub fn mark(layout: &Layout, standing: Standing) -> Result<(), RootError> {
        let _marking = lock(&MARKING);
        match Self::load(layout)? {
            Some(mut file) if file.standing < standing => {
                file.standing = standing;
                file.store(layout)
            }
            _ => Ok(()),
        }
    }

    /// Takes a new identity where the present one cannot go on, so that no two nodes ever write one author's chain.
    pub fn renew(&mut self, root: &Path) -> Result<Renewal, RootError> {
        let renewal = self.renewal(root)?;
        if renewal == Renewal::None {
            return Ok(renewal);
        }
        let before = self.identity.keys.incarnation();
        let fresh = Self::create(root, self.identity.volume.clone(), self.label.clone())?;
        match renewal {
            Renewal::Node => {
                self.identity = fresh.identity;
                self.port = 0;
            }
            _ => self.identity.keys.signing = fresh.identity.keys.signing,
        }
        self.disk = fresh.disk;
        self.standing = Standing::InUse;
        self.continues = Some(before);
        Ok(renewal)
    }

    fn renewal(&self, root: &Path) -> Result<Renewal, RootError> {
        if Disk::of(root)? != self.disk {
            return Ok(Renewal::Node);
        }
        Ok(match self.standing {
            Standing::Creating | Standing::InUse => Renewal::None,
            Standing::Behind => Renewal::Incarnation,
            Standing::Double => Renewal::Node,
        })
    }
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // writing to a String cannot fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sample(root: &Path) -> NodeFile {
        let volume = VolumeName {
            id: VolumeId::new([7; 16]),
            name: "bigstore".to_owned(),
        };
        NodeFile::create(root, volume, "server1:/mnt/disk1".to_owned()).unwrap()
    }

    #[test]
    fn comes_back_as_it_was_stored() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        assert!(NodeFile::load(&layout).unwrap().is_none());
        let stored = sample(folder.path());
        stored.store(&layout).unwrap();
        let loaded = NodeFile::load(&layout).unwrap().unwrap();
        assert_eq!(loaded.identity.node, stored.identity.node);
        assert_eq!(
            loaded.identity.keys.incarnation(),
            stored.identity.keys.incarnation()
        );
        assert_eq!(loaded.identity.volume, stored.identity.volume);
        let mode = layout.node_file().metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "keys are for the owner only");
    }

    #[test]
    fn golden() {
        let text = "\
format = \"draft-4\"
standing = \"creating\"
node = \"01010101010101010101010101010101\"
label = \"server1:/mnt/disk1\"
site = \"attic\"
port = 4242
capacity = 500000000000
continues = \"09090909090909090909090909090909\"
signing_key = \"0202020202020202020202020202020202020202020202020202020202020202\"
link_key = \"0303030303030303030303030303030303030303030303030303030303030303\"

[volume]
id = \"07070707070707070707070707070707\"
name = \"bigstore\"

[disk]
filesystem = \"00000000000000aa\"
inode = 12
";
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        std::fs::write(layout.node_file(), text).unwrap();
        let file = NodeFile::load(&layout).unwrap().unwrap();
        assert_eq!(file.identity.node, NodeId::new([1; 16]));
        assert_eq!(file.identity.keys.signing.to_bytes(), [2; 32]);
        assert_eq!(file.identity.keys.link, [3; 32]);
        assert_eq!(file.identity.volume.id, VolumeId::new([7; 16]));
        assert_eq!((file.standing, file.port), (Standing::Creating, 4242));
        assert_eq!(file.capacity, Some(500_000_000_000));
        assert_eq!(file.continues, Some(IncarnationId::new([9; 16])));
        let incarnation = file.identity.keys.incarnation();
        assert_eq!(incarnation.to_string(), "1eed29b1654fbca94617004d7969dfc4");
        file.store(&layout).unwrap();
        assert_eq!(std::fs::read_to_string(layout.node_file()).unwrap(), text);
    }

    #[test]
    fn a_standing_goes_one_way() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let mut file = sample(folder.path());
        file.standing = Standing::Creating;
        file.store(&layout).unwrap();
        let standing = || NodeFile::load(&layout).unwrap().unwrap().standing;
        NodeFile::mark(&layout, Standing::InUse).unwrap();
        assert_eq!(standing(), Standing::InUse);
        NodeFile::mark(&layout, Standing::Creating).unwrap();
        assert_eq!(standing(), Standing::InUse);
    }

    #[test]
    fn another_format_is_refused_before_anything_of_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        std::fs::write(layout.node_file(), "format = \"7\"\nwhatever = 1\n").unwrap();
        assert!(matches!(
            NodeFile::load(&layout),
            Err(RootError::OtherFormat { found, .. }) if found == "7"
        ));
    }

    #[test]
    fn a_copied_root_becomes_another_node() {
        let (original, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut file = sample(original.path());
        assert_eq!(file.renew(original.path()).unwrap(), Renewal::None);
        let before = file.identity.clone();
        assert_eq!(file.renew(copy.path()).unwrap(), Renewal::Node);
        assert_ne!(file.identity.node, before.node);
        assert_ne!(file.identity.keys.link, before.keys.link);
        assert_ne!(file.identity.keys.incarnation(), before.keys.incarnation());
        assert_eq!(file.identity.volume, before.volume);
        assert_eq!(file.continues, Some(before.keys.incarnation()));
    }

    #[test]
    fn what_others_know_more_of_becomes_a_new_incarnation_and_a_double_another_node() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        for (standing, renewal) in [
            (Standing::Behind, Renewal::Incarnation),
            (Standing::Double, Renewal::Node),
        ] {
            let before = sample(folder.path());
            before.store(&layout).unwrap();
            NodeFile::mark(&layout, standing).unwrap();
            NodeFile::mark(&layout, Standing::InUse).unwrap();
            let mut file = NodeFile::load(&layout).unwrap().unwrap();
            assert_eq!(file.renew(folder.path()).unwrap(), renewal);
            let (old, new) = (&before.identity, &file.identity);
            let stays = renewal == Renewal::Incarnation;
            assert_eq!(new.node == old.node, stays);
            assert_eq!(new.keys.link == old.keys.link, stays);
            assert_ne!(new.keys.incarnation(), old.keys.incarnation());
            assert_eq!(file.continues, Some(old.keys.incarnation()));
            assert_eq!(file.renew(folder.path()).unwrap(), Renewal::None);
        }
    }
}
