//! The catalogue of some tree, kept so that a start reads only what has changed since.
//!
//! `ROOT/catalogue` says of which tree it is, and a tree's name says all that is in it: so it is right whatever has
//! happened since, and what it lacks is a difference of trees. It is derived and not synced: one that is torn, of another
//! format or of a tree that is gone is as good as none, and then the whole tree is read.

use super::catalogue::{Catalogue, Known};
use delugefs_core::ids::{BlobId, InfoHash, TreeId};
use delugefs_metadata_repo::{Repository, RepositoryError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the file starts with: a name and the format's version (a draft).
const MAGIC: &[u8; 16] = b"delugefs-ctlg-01";

/// First bytes of BLAKE3 of all before them, at the end.
const CHECK_BYTES: usize = 16;

/// Info-hash, length, blob, number of names.
const RECORD_BYTES: usize = 20 + 8 + 20 + 4;

/// When more than this part of all contents has changed, it is written anew: what is written stays in proportion to what
/// changes, and a start reads at most this part, and what has changed in the last moments.
const CHANGES_DIVISOR: usize = 8;

/// The file.
pub(super) struct CatalogueFile {
    path: PathBuf,
    /// Changes since it was written, as far as this process has heard.
    changes: AtomicUsize,
}

impl CatalogueFile {
    pub(super) fn new(root: &Path) -> Self {
        let path = root.join("catalogue");
        let changes = AtomicUsize::new(0);
        Self { path, changes }
    }

    /// The catalogue of a tree, which the file has afterwards or is near to. Blocks.
    pub(super) fn of(
        &self,
        repository: &Repository,
        tree: TreeId,
    ) -> Result<Catalogue, RepositoryError> {
        // whatever comes of it, not again before as much has changed
        self.changes.store(0, Ordering::Relaxed);
        let (catalogue, changes) = match self.followed(repository, tree) {
            Some(followed) => followed,
            None => read_whole(repository, tree)?,
        };
        if !is_far(changes, catalogue.len()) {
            self.moved(changes);
        } else if let Err(error) = self.store(tree, &catalogue) {
            tracing::warn!("the next start takes longer: {error}");
        }
        Ok(catalogue)
    }

    /// So many entries have changed.
    pub(super) fn moved(&self, changes: usize) {
        self.changes.fetch_add(changes, Ordering::Relaxed);
    }

    /// Whether the file is far from what there is, which are so many contents.
    pub(super) fn is_far(&self, contents: usize) -> bool {
        is_far(self.changes.load(Ordering::Relaxed), contents)
    }

    /// What the file has, brought to a tree, and the number of changes that took.
    fn followed(&self, repository: &Repository, tree: TreeId) -> Option<(Catalogue, usize)> {
        let (from, mut catalogue) = decode(&std::fs::read(&self.path).ok()?)?;
        let diff = repository.diff(from, tree).ok()?;
        catalogue.apply(&diff.changes, &diff.blobs);
        Some((catalogue, diff.changes.len()))
    }

    fn store(&self, tree: TreeId, catalogue: &Catalogue) -> io::Result<()> {
        let new = self.path.with_extension("new");
        std::fs::write(&new, encode(tree, catalogue))?;
        std::fs::rename(&new, &self.path)
    }
}

fn is_far(changes: usize, contents: usize) -> bool {
    changes > contents / CHANGES_DIVISOR
}

/// What the names of a tree say, and how many contents that are.
fn read_whole(
    repository: &Repository,
    tree: TreeId,
) -> Result<(Catalogue, usize), RepositoryError> {
    let mut catalogue = Catalogue::default();
    repository.contents(tree, &mut |content, blob| {
        catalogue.add(content, blob);
    })?;
    let all = catalogue.len();
    Ok((catalogue, all))
}

fn encode(tree: TreeId, catalogue: &Catalogue) -> Vec<u8> {
    let room = MAGIC.len() + 20 + catalogue.len() * RECORD_BYTES + CHECK_BYTES;
    let mut bytes = Vec::with_capacity(room);
    bytes.extend(MAGIC);
    bytes.extend(tree.as_bytes());
    for (info_hash, known) in catalogue.all() {
        bytes.extend(info_hash.as_bytes());
        bytes.extend(known.length.to_le_bytes());
        bytes.extend(known.blob.as_bytes());
        bytes.extend(known.names.to_le_bytes());
    }
    let check = blake3::hash(&bytes);
    bytes.extend(&check.as_bytes()[..CHECK_BYTES]);
    bytes
}

fn decode(bytes: &[u8]) -> Option<(TreeId, Catalogue)> {
    let (said, check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
    if blake3::hash(said).as_bytes()[..CHECK_BYTES] != check[..] {
        return None;
    }
    let (tree, records) = said.strip_prefix(MAGIC)?.split_first_chunk::<20>()?;
    let records = records.chunks_exact(RECORD_BYTES);
    let known: Option<Vec<_>> = records.map(record).collect();
    Some((TreeId::new(*tree), known?.into_iter().collect()))
}

fn record(bytes: &[u8]) -> Option<(InfoHash, Known)> {
    let (info_hash, rest) = bytes.split_first_chunk::<20>()?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let (blob, names) = rest.split_first_chunk::<20>()?;
    let known = Known {
        length: u64::from_le_bytes(*length),
        blob: BlobId::new(*blob),
        names: u32::from_le_bytes(names.try_into().ok()?),
    };
    Some((InfoHash::new(*info_hash), known))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn catalogue() -> Catalogue {
        let known = |names| Known {
            length: 70_000,
            blob: BlobId::new([3; 20]),
            names,
        };
        [
            (InfoHash::new([1; 20]), known(1)),
            (InfoHash::new([2; 20]), known(2)),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn golden() {
        let all = catalogue();
        let one: Catalogue = all.all().filter(|(_, known)| known.names == 2).collect();
        let mut expected = b"delugefs-ctlg-01".to_vec();
        expected.extend([9; 20]);
        expected.extend([2; 20]);
        expected.extend([0x70, 0x11, 1, 0, 0, 0, 0, 0]);
        expected.extend([3; 20]);
        expected.extend([2, 0, 0, 0]);
        let check = blake3::hash(&expected);
        expected.extend(&check.as_bytes()[..16]);
        assert_eq!(encode(TreeId::new([9; 20]), &one), expected);
    }

    #[test]
    fn what_is_written_is_read_and_what_is_torn_is_not() {
        let bytes = encode(TreeId::new([9; 20]), &catalogue());
        let (tree, read) = decode(&bytes).unwrap();
        assert_eq!(tree, TreeId::new([9; 20]));
        let sorted = |catalogue: Catalogue| catalogue.all().collect::<BTreeMap<_, _>>();
        assert_eq!(sorted(read), sorted(catalogue()));
        for at in 0..bytes.len() {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            assert!(decode(&torn).is_none(), "byte {at}");
            assert!(decode(&bytes[..at]).is_none(), "up to byte {at}");
        }
    }
}
