//! The scrub's state, shared by whoever finds damage, and its file `scrub` in the root.
//!
//! What is lost of the file in a crash only makes a pass begin earlier; what was found damaged is incomplete in the
//! content store, whatever the file says.

use crate::sync_ext::lock;
use delugefs_core::ids::{InfoHash, NodeId};
use delugefs_core::scrub::codec::{self, ScrubTextError};
use delugefs_core::scrub::{Scrub, Suspect};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Complaints about other nodes that wait to be sent; more are dropped, as those nodes check the rest by themselves.
const COMPLAINTS_MAX: usize = 1024;

/// A piece that another node has sent, and that was wrong.
pub type Complaint = (NodeId, InfoHash, u32);

/// The scrub's state and what is to be told of it.
pub struct Scrubber {
    path: PathBuf,
    scrub: Mutex<Scrub>,
    rung: Mutex<bool>,
    bell: Condvar,
    news: Mutex<BTreeSet<InfoHash>>,
    complaints: Mutex<Vec<Complaint>>,
    /// There is something in [`Scrubber::take_news`] or [`Scrubber::take_complaints`].
    pub told: Notify,
}

impl Scrubber {
    /// Reads the file of a root. A damaged one is as good as none; one of another version is refused.
    pub fn open(root: &Path) -> io::Result<Self> {
        let path = root.join("scrub");
        let scrub = match std::fs::read(&path) {
            Ok(bytes) => read(&path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Scrub::default(),
            Err(error) => return Err(error),
        };
        let news = scrub.damaged().keys().copied().collect();
        Ok(Self {
            path,
            scrub: Mutex::new(scrub),
            rung: Mutex::default(),
            bell: Condvar::new(),
            news: Mutex::new(news),
            complaints: Mutex::default(),
            told: Notify::new(),
        })
    }

    /// Looks at the state, or changes it.
    pub fn with<T>(&self, work: impl FnOnce(&mut Scrub) -> T) -> T {
        work(&mut lock(&self.scrub))
    }

    /// Somebody doubts a content: it is checked before anything else.
    pub fn suspect(&self, content: InfoHash, piece: Option<u32>) {
        if !self.with(|scrub| scrub.suspect(Suspect { content, piece })) {
            tracing::debug!(
                "too many contents wait to be checked; {content} is left to the next pass"
            );
        }
        self.ring();
    }

    /// A content is damaged on this disk.
    pub fn found(&self, content: InfoHash, pieces: u32, now: u64) {
        self.with(|scrub| scrub.found(content, pieces, now));
        self.store();
        lock(&self.news).insert(content);
        self.told.notify_one();
    }

    /// Takes what was found damaged.
    pub fn take_news(&self) -> BTreeSet<InfoHash> {
        std::mem::take(&mut lock(&self.news))
    }

    /// Another node has sent a wrong piece.
    pub fn complain(&self, complaint: Complaint) {
        let mut complaints = lock(&self.complaints);
        if complaints.len() < COMPLAINTS_MAX {
            complaints.push(complaint);
            self.told.notify_one();
        }
    }

    /// Takes the complaints that are to be sent.
    pub fn take_complaints(&self) -> Vec<Complaint> {
        std::mem::take(&mut lock(&self.complaints))
    }

    /// There is something to do for who waits.
    pub fn ring(&self) {
        *lock(&self.rung) = true;
        self.bell.notify_all();
    }

    /// Waits until it is rung, at most so long.
    pub fn wait(&self, most: Duration) {
        let rung = lock(&self.rung);
        let waited = self.bell.wait_timeout_while(rung, most, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }

    /// Writes the file. Blocks.
    pub fn store(&self) {
        // one at a time: the lock is held, which nobody needs for longer than the disk takes
        let scrub = lock(&self.scrub);
        let text = codec::encode(&scrub);
        if let Err(error) = crate::durable::replace(&self.path, text.as_bytes()) {
            tracing::warn!("cannot write down how far the scrub is: {error}");
        }
    }
}

fn read(path: &Path, bytes: &[u8]) -> io::Result<Scrub> {
    match codec::decode(&String::from_utf8_lossy(bytes)) {
        Ok(scrub) => Ok(scrub),
        Err(error @ ScrubTextError::Version(_)) => {
            let text = format!(
                "{} was made by another version of this program: {error}",
                path.display()
            );
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        }
        Err(ScrubTextError::Damaged) => {
            tracing::warn!("{} is damaged; the scrub begins anew", path.display());
            Ok(Scrub::default())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn damage_survives_a_restart_and_is_told_of_again() {
        let root = tempfile::tempdir().unwrap();
        let content = InfoHash::new([7; 20]);
        Scrubber::open(root.path()).unwrap().found(content, 2, 100);
        let scrubber = Scrubber::open(root.path()).unwrap();
        assert_eq!(scrubber.take_news(), [content].into());
        assert_eq!(scrubber.with(|scrub| scrub.damaged()[&content].pieces), 2);
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none_and_another_version_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("scrub");
        std::fs::write(&path, "delugefs scrub draft-1\npass").unwrap();
        assert_eq!(
            Scrubber::open(root.path())
                .unwrap()
                .with(|scrub| scrub.pass().number),
            0
        );
        std::fs::write(&path, "delugefs scrub draft-9\n").unwrap();
        let error = Scrubber::open(root.path()).err().unwrap().to_string();
        assert!(error.contains("draft-9") || error.contains('9'), "{error}");
    }

    #[test]
    fn who_waits_is_woken() {
        let root = tempfile::tempdir().unwrap();
        let scrubber = Scrubber::open(root.path()).unwrap();
        scrubber.suspect(InfoHash::new([1; 20]), None);
        // would take an hour if the ring before it were lost
        scrubber.wait(Duration::from_hours(1));
    }
}
