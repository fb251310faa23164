//! What was promised to outlive a power cut, and what a mount shows after one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// The bytes of a path at some time; `None`: there was nothing.
pub type Version = Option<Arc<Vec<u8>>>;

#[derive(Default)]
struct Claim {
    /// All that the path has been, or may be.
    versions: Vec<Version>,
    /// The last that was promised: no earlier one may be there any more.
    promised: Option<usize>,
    /// It only grows: beyond what was promised there may be any of the bytes written since, and zeros. So there may
    /// be where nothing was promised at all, as on any filesystem.
    grows: bool,
}

#[derive(Default)]
struct Inside {
    claims: BTreeMap<String, Claim>,
    /// The power is failing: what is answered from now on is no promise.
    is_closed: bool,
}

/// For each path its versions since ever, and which was the last that is promised.
#[derive(Default)]
pub struct Ledger(Mutex<Inside>);

impl Ledger {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    /// An operation begins after which `path` is this.
    pub fn begin(&self, path: &str, after: &Version) {
        let mut inside = self.inside();
        let claim = inside.claims.entry(path.to_owned()).or_default();
        claim.versions.push(after.clone());
    }

    /// As [`Ledger::begin`], of a file that is appended to.
    pub fn grow(&self, path: &str, after: &Version) {
        self.begin(path, after);
        self.inside().claims.get_mut(path).unwrap().grows = true;
    }

    /// The last that was begun of this path is on the disk: so a sync was answered.
    pub fn promise(&self, path: &str) {
        let mut inside = self.inside();
        if !inside.is_closed {
            let claim = inside.claims.get_mut(path).unwrap();
            claim.promised = Some(claim.versions.len() - 1);
        }
    }

    /// Nothing is promised until [`Ledger::open`].
    pub fn close(&self) {
        self.inside().is_closed = true;
    }

    /// Promises count again.
    pub fn open(&self) {
        self.inside().is_closed = false;
    }

    /// Compares with what a mount shows. The number of paths, and of those with a promise.
    #[track_caller]
    pub fn check(&self, mount: &Path, when: &str) -> (usize, usize) {
        let inside = self.inside();
        let judge = |(path, claim): (&String, &Claim)| claim.judge(path, mount);
        let wrong: Vec<String> = inside.claims.iter().filter_map(judge).collect();
        assert!(wrong.is_empty(), "{when}: {wrong:#?}");
        let is_promised = |claim: &&Claim| claim.promised.is_some();
        let promised = inside.claims.values().filter(is_promised).count();
        (inside.claims.len(), promised)
    }
}

impl Claim {
    /// What is wrong with it.
    fn judge(&self, path: &str, mount: &Path) -> Option<String> {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        let found = match fs::read(mount.join(path)) {
            Ok(bytes) => Some(bytes),
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => None,
            Err(_) if self.promised.is_none() => return None,
            Err(error) => return Some(format!("{path}: {error}")),
        };
        let first = self.promised.unwrap_or(0);
        let possible = &self.versions[first..];
        let same = |version: &Version| version.as_ref().map(|b| &b[..]) == found.as_deref();
        if possible.iter().any(same) || (self.promised.is_none() && found.is_none()) {
            return None;
        }
        if let Some(found) = &found
            && (self.grows || self.promised.is_none())
            && self.is_grown(found)
        {
            return None;
        }
        let at = self.versions.iter().position(same);
        let length = found.as_ref().map(Vec::len);
        let zeros = found.map(|bytes| bytes.iter().all(|&byte| byte == 0));
        Some(format!(
            "{path}: {length:?} bytes, only zeros: {zeros:?}, which is version {at:?} of {}, promised {:?}",
            self.versions.len(),
            self.promised
        ))
    }

    fn is_grown(&self, found: &[u8]) -> bool {
        let promised = self.promised.and_then(|at| self.versions[at].as_ref());
        let longest = self.versions.iter().flatten().max_by_key(|v| v.len());
        let Some(longest) = longest.filter(|longest| longest.len() >= found.len()) else {
            return false;
        };
        let must = promised.map_or(0, |bytes| bytes.len());
        let is_right = |(at, &byte): (usize, &u8)| byte == longest[at] || (at >= must && byte == 0);
        found.len() >= must && found.iter().enumerate().all(is_right)
    }
}
