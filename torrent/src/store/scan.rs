//! What is on the disk when the store is opened, and what a crash left over.

use super::StoreError;
use super::disk::Disk;
use super::have::{HAVE_BYTES_MAX, Have, HaveError, SUFFIX};
use super::index::{Index, PartialSlot, Slot};
use super::shards::{self, Shards};
use delugefs_core::ids::InfoHash;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Weak;

/// Ends the name of a `.have` file that is being made, and of a content that has no `.have` while it arrives.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Something odd in `ROOT/data`. None of them needs an answer; they are for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A crash left it; removed.
    Leftover(PathBuf),
    /// An empty file where a content should be, as a power cut leaves it; removed, the content is absent.
    Empty(PathBuf),
    /// A damaged `.have`; the content counts as incomplete and is fetched from the start.
    DamagedHave(PathBuf),
    /// Not ours; left alone.
    Unknown(PathBuf),
    /// The filesystem could not be synced, says the system: something written before may be lost. No content is durable
    /// before it is read again.
    SyncFailed(String),
}

/// Where a `.have` file, or a content of one piece, is made before it is renamed.
pub(crate) fn temporary(place: &Path) -> PathBuf {
    place.with_extension(&TEMPORARY_SUFFIX[1..])
}

pub(crate) struct Scanned {
    pub(crate) index: Index,
    pub(crate) shards: Shards,
    pub(crate) findings: Vec<Finding>,
}

pub(crate) fn scan(data: &Path, disk: &dyn Disk) -> Result<Scanned, StoreError> {
    let mut scan = Scan {
        disk,
        index: Index::default(),
        findings: Vec::new(),
    };
    fs::create_dir_all(data).map_err(StoreError::disk("create", data))?;
    let shards = Shards::default();
    for shard in scan.folders(data)? {
        shards.found(shard);
        scan.directory(&data.join(shards::name(shard)))?;
    }
    match disk.sync_filesystem(data) {
        Ok(()) => shards.are_durable(),
        Err(error) => {
            scan.findings.push(Finding::SyncFailed(error.to_string()));
            scan.index.doubt_all();
        }
    }
    Ok(Scanned {
        index: scan.index,
        shards,
        findings: scan.findings,
    })
}

/// `None` if it is missing or damaged.
pub(crate) fn read_have(path: &Path, disk: &dyn Disk) -> Result<Option<Have>, StoreError> {
    let bytes = match read_limited(path, disk) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::disk("read", path)(error)),
    };
    match Have::parse(&bytes) {
        Ok(have) => Ok(Some(have)),
        Err(HaveError::Damaged) => Ok(None),
        Err(HaveError::Version(version)) => Err(StoreError::NewerFormat {
            path: path.into(),
            version,
        }),
    }
}

/// The whole file, or nothing when it is too long to be one of ours.
fn read_limited(path: &Path, disk: &dyn Disk) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let length = file.metadata()?.len();
    if length > HAVE_BYTES_MAX as u64 {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; length as usize];
    disk.read_at(&file, &mut bytes, 0)?;
    Ok(bytes)
}

struct Scan<'a> {
    disk: &'a dyn Disk,
    index: Index,
    findings: Vec<Finding>,
}

enum Found {
    Data(InfoHash),
    Have(InfoHash),
    Temporary,
    Unknown,
}

fn classify(directory: &Path, entry: &DirEntry) -> Found {
    let name = entry.file_name();
    let Some(name) = name.to_str() else {
        return Found::Unknown;
    };
    let (hash, extension) = name
        .split_at_checked(2 * InfoHash::LEN)
        .unwrap_or((name, ""));
    let shard = directory.file_name().and_then(|shard| shard.to_str());
    let regular = entry.file_type().is_ok_and(|kind| kind.is_file());
    match hash.parse::<InfoHash>() {
        Ok(id) if id.to_string() == hash && shard == hash.get(..2) && regular => match extension {
            "" => Found::Data(id),
            SUFFIX => Found::Have(id),
            TEMPORARY_SUFFIX => Found::Temporary,
            _ => Found::Unknown,
        },
        _ => Found::Unknown,
    }
}

impl Scan<'_> {
    /// The folders that contents have come into, in order.
    fn folders(&mut self, data: &Path) -> Result<Vec<u8>, StoreError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(data).map_err(StoreError::disk("list", data))? {
            let entry = entry.map_err(StoreError::disk("list", data))?;
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match entry.file_name().to_str().and_then(shards::parse) {
                Some(shard) if is_folder => found.push(shard),
                _ => self.findings.push(Finding::Unknown(entry.path())),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn directory(&mut self, directory: &Path) -> Result<(), StoreError> {
        let (mut data, mut haves) = (Vec::new(), Vec::new());
        let entries = fs::read_dir(directory).map_err(StoreError::disk("list", directory))?;
        for entry in entries {
            let entry = entry.map_err(StoreError::disk("list", directory))?;
            match classify(directory, &entry) {
                Found::Data(content) => data.push((content, entry)),
                Found::Have(content) => haves.push((content, entry.path())),
                Found::Temporary => self.remove(entry.path(), Finding::Leftover)?,
                Found::Unknown => self.findings.push(Finding::Unknown(entry.path())),
            }
        }
        // Incomplete ones first: what has a `.have` is not complete.
        haves.sort();
        for (content, path) in &haves {
            self.have(*content, path, &data)?;
        }
        for (content, entry) in data {
            if haves
                .binary_search_by(|(have, _)| have.cmp(&content))
                .is_err()
            {
                self.complete(content, &entry)?;
            }
        }
        Ok(())
    }

    fn have(
        &mut self,
        content: InfoHash,
        path: &Path,
        data: &[(InfoHash, DirEntry)],
    ) -> Result<(), StoreError> {
        let Some((_, file)) = data.iter().find(|(other, _)| *other == content) else {
            return self.remove(path.into(), Finding::Leftover);
        };
        let have = read_have(path, self.disk)?.filter(|have| have.info.info_hash() == content);
        let length = if let Some(have) = have {
            have.info.length()
        } else {
            self.findings.push(Finding::DamagedHave(path.into()));
            length_of(file)?
        };
        let live = Weak::new();
        let loose = false;
        let slot = Slot::Partial(Box::new(PartialSlot {
            length,
            live,
            loose,
        }));
        self.index.insert(content, slot);
        Ok(())
    }

    fn complete(&mut self, content: InfoHash, entry: &DirEntry) -> Result<(), StoreError> {
        match length_of(entry)? {
            0 => self.remove(entry.path(), Finding::Empty)?,
            length => self.index.insert(content, Slot::Complete(length)),
        }
        Ok(())
    }

    fn remove(&mut self, path: PathBuf, finding: fn(PathBuf) -> Finding) -> Result<(), StoreError> {
        let removed = self.disk.remove(&path);
        removed.map_err(StoreError::disk("remove", &path))?;
        self.findings.push(finding(path));
        Ok(())
    }
}

fn length_of(entry: &DirEntry) -> Result<u64, StoreError> {
    let metadata = entry.metadata();
    Ok(metadata
        .map_err(StoreError::disk("stat", entry.path()))?
        .len())
}
