//! What a mount has acknowledged, and whether it is still so.

use crate::programs;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A state of a path: its bytes, or that there is nothing.
#[derive(Clone, PartialEq, Eq)]
pub enum Fact {
    /// Exactly these bytes.
    Bytes(Arc<Vec<u8>>),
    /// These bytes, or only the first of them: what a writer leaves who is cut off.
    UpTo(Arc<Vec<u8>>),
    Nothing,
}

impl Fact {
    fn holds(&self, found: Option<&[u8]>) -> bool {
        match (self, found) {
            (Self::Bytes(bytes), Some(found)) => bytes[..] == *found,
            (Self::UpTo(bytes), Some(found)) => bytes.starts_with(found),
            (Self::Nothing, None) => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::UpTo(bytes) => write!(f, "up to {} bytes", bytes.len()),
            Self::Nothing => write!(f, "nothing"),
        }
    }
}

/// For each path what was acknowledged last, and what was begun since and never answered; and the clones that were
/// answered since the last check.
#[derive(Default)]
pub struct Ledger(Mutex<BTreeMap<String, Claim>>, Mutex<Vec<String>>);

#[derive(Default)]
struct Claim {
    known: Option<Fact>,
    begun: Vec<Fact>,
}

impl Ledger {
    /// An operation begins after which `path` is this, and which may leave any of `between`.
    pub fn begin(&self, path: &str, after: Fact, between: &[Fact]) {
        let mut claims = self.0.lock().unwrap();
        let claim = claims.entry(path.to_owned()).or_default();
        claim.begun.push(after);
        claim.begun.extend_from_slice(between);
    }

    /// It was acknowledged.
    pub fn done(&self, path: &str, after: Fact) {
        let mut claims = self.0.lock().unwrap();
        let claim = claims.entry(path.to_owned()).or_default();
        *claim = Claim {
            known: Some(after),
            begun: Vec::new(),
        };
    }

    /// A clone of a repository is whole.
    pub fn cloned(&self, path: &str) {
        self.1.lock().unwrap().push(path.to_owned());
    }

    /// Compares with what a mount shows. What was begun and not answered is now known.
    #[track_caller]
    pub fn check(&self, mount: &Path, when: &str) {
        let mut claims = self.0.lock().unwrap();
        let mut wrong = Vec::new();
        for (path, claim) in claims.iter_mut() {
            let found = match fs::read(mount.join(path)) {
                Ok(bytes) => Some(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => {
                    wrong.push(format!("{path}: {error}"));
                    continue;
                }
            };
            let known = claim.known.clone().unwrap_or(Fact::Nothing);
            let holds = |fact: &Fact| fact.holds(found.as_deref());
            if !claim.begun.iter().any(holds) && !holds(&known) {
                let length = found.as_ref().map(Vec::len);
                wrong.push(format!(
                    "{path}: {length:?} bytes instead of {known} (begun: {})",
                    claim.begun.len()
                ));
            }
            let fact = found.map_or(Fact::Nothing, |bytes| Fact::Bytes(Arc::new(bytes)));
            *claim = Claim {
                known: Some(fact),
                begun: Vec::new(),
            };
        }
        let number = claims.len();
        assert!(wrong.is_empty(), "{when}, {number} paths: {wrong:#?}");
        for clone in std::mem::take(&mut *self.1.lock().unwrap()) {
            assert!(
                programs::is_sound(&mount.join(&clone)),
                "{when}: {clone} is not sound"
            );
        }
    }

    /// Paths with a claim.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// All paths below a mount.
pub fn listing(mount: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![mount.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
            found.insert(entry.path().strip_prefix(mount).unwrap().to_owned());
        }
    }
    found
}
