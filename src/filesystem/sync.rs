//! What makes acknowledged things survive a power cut: one sync of the journal serves all who wait for it.

use super::inode::Node;
use super::journal::Record;
use super::pending::content;
use super::ports::Contents;
use super::staging::Staging;
use super::state::State;
use super::{Filesystem, FsError, HandleId, Inode};
use crate::sync_ext::lock;
use delugefs_core::ids::InfoHash;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A staging file to be synced.
struct Unsynced {
    inode: Inode,
    file: Arc<File>,
    turn: Arc<Mutex<()>>,
}

/// Syncs of one thing, each of which serves all who asked before it began.
#[derive(Debug, Default)]
pub(super) struct SharedSync {
    begun: AtomicU64,
    /// The last that succeeded. Held while one goes on.
    done: Mutex<u64>,
}

impl SharedSync {
    /// The first sync that will do for what there is now.
    fn ask(&self) -> u64 {
        self.begun.load(Ordering::SeqCst) + 1
    }

    /// Syncs, unless that one or a later one has been done meanwhile.
    fn serve<E>(&self, asked: u64, sync: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut done = lock(&self.done);
        if *done < asked {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            sync()?;
            *done = number;
        }
        Ok(())
    }
}

impl Filesystem {
    /// `fsync`: bytes and names survive a power cut on this disk. Blocks.
    pub fn sync(&self, handle: HandleId) -> Result<(), FsError> {
        let inode = self.lock().handle_inode(handle)?;
        self.sync_bytes(inode)?;
        self.sync_names()
    }

    /// `fsync` of a directory: its names, and the files that are closed in it, survive a power cut on this disk. Blocks.
    pub fn sync_directory(&self, inode: Inode) -> Result<(), FsError> {
        let children: Vec<Inode> = {
            let state = self.lock();
            let names = state.names.loaded(inode);
            names.map_or_else(Vec::new, |names| names.values().copied().collect())
        };
        self.sync_files(children)
    }

    /// Makes all that was acknowledged survive a power cut. Blocks.
    pub fn sync_all(&self) -> Result<(), FsError> {
        let all = self.lock().names.iter().map(|(inode, _)| inode).collect();
        self.sync_files(all)
    }

    /// Makes the names survive a power cut as they are, with the view that they are based on. Blocks.
    pub fn sync_names(&self) -> Result<(), FsError> {
        self.sync_journal()?;
        self.check_disk()
    }

    /// Lets go of staging files that only wait for the journal to be on the disk. Blocks, when there are any.
    pub fn sync_leaving(&self) -> Result<(), FsError> {
        let none = self.lock().leaving.is_empty();
        if none { Ok(()) } else { self.sync_journal() }
    }

    fn sync_files(&self, mut inodes: Vec<Inode>) -> Result<(), FsError> {
        inodes.sort_unstable();
        self.sync_staged(&inodes)?;
        // what was hashed already, or meanwhile
        self.sync_contents(&inodes)?;
        self.sync_names()
    }

    /// What was synced is not to be trusted where the disk takes no changes any more.
    fn check_disk(&self) -> Result<(), FsError> {
        let staging = self.lock().staging.clone();
        match staging.touch_folder() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
            touched => self.or_stop(touched, || "the disk".into()),
        }
    }

    /// Makes a file's bytes durable, wherever they are. Blocks.
    pub(super) fn sync_bytes(&self, inode: Inode) -> Result<(), FsError> {
        match self.sync_staged(&[inode])? {
            0 => self.sync_contents(&[inode]),
            _ => Ok(()),
        }
    }

    /// Makes what has left its staging file durable.
    fn sync_contents(&self, inodes: &[Inode]) -> Result<(), FsError> {
        let (contents, wanted) = {
            let state = self.lock();
            let contents = Arc::clone(&state.ports.contents);
            (contents, state.fragile_contents(inodes))
        };
        make_durable(&*contents, &wanted)
    }

    /// Makes staging files durable: bytes, names, and that the journal says so when it is synced. How many files still
    /// have theirs: the bytes of the others are contents.
    fn sync_staged(&self, inodes: &[Inode]) -> Result<usize, FsError> {
        let (files, folder) = self.lock().staged_files(inodes);
        let asked = self.0.folder.ask();
        for file in &files {
            self.sync_file(file)?;
        }
        if let Some(staging) = folder {
            let sync = || self.or_stop(staging.sync_folder(), || "the staging folder".into());
            self.0.folder.serve(asked, sync)?;
        }
        self.lock().note_synced(&files)
    }

    /// One at a time: of those who sync a file at once the kernel tells only one that it could not write it.
    fn sync_file(&self, unsynced: &Unsynced) -> Result<(), FsError> {
        let _turn = lock(&unsynced.turn);
        self.lock().check_publishing()?;
        self.or_stop(unsynced.file.sync_data(), || {
            self.lock().describe(unsynced.inode)
        })
    }

    /// A sync after one that failed says nothing: the kernel has forgotten what it could not write.
    fn or_stop(
        &self,
        synced: io::Result<()>,
        what: impl FnOnce() -> String,
    ) -> Result<(), FsError> {
        synced.map_err(|error| {
            let publishing = self.lock().ports.publishing.clone();
            publishing.stop(format!("{} cannot be synced: {error}", what()));
            error.into()
        })
    }

    pub(super) fn sync_journal(&self) -> Result<(), FsError> {
        let wanted = self.lock().journal.sequence();
        let mut durable = lock(&self.0.durable);
        if *durable >= wanted {
            return Ok(());
        }
        let (file, sequence) = {
            let state = self.lock();
            state.check_publishing()?;
            (state.journal.file(), state.journal.sequence())
        };
        self.or_stop(file.sync_data(), || "the journal of this disk".into())?;
        *durable = sequence;
        self.lock().is_durable_to(sequence);
        Ok(())
    }
}

/// Syncs all contents: afterwards these survive a power cut, or it fails. Another sync may have failed on them, and a
/// later one says nothing of that.
pub(super) fn make_durable(contents: &dyn Contents, wanted: &[InfoHash]) -> Result<(), FsError> {
    contents.sync()?;
    let lost = wanted.iter().find(|content| !contents.is_durable(content));
    lost.map_or(Ok(()), |content| {
        let reason = format!("a sync of the content {content} has failed");
        Err(FsError::Damaged(reason))
    })
}

impl State {
    /// The contents of these that a power cut might take.
    fn fragile_contents(&self, inodes: &[Inode]) -> Vec<InfoHash> {
        let nodes = inodes
            .iter()
            .filter_map(|&inode| self.names.node(inode).ok());
        let contents = nodes.filter_map(|node| content(&node.entry));
        contents
            .filter(|content| !self.ports.contents.is_durable(content))
            .collect()
    }

    /// Those of some files that have a staging file, and its folder unless all these are known to be in it durably.
    fn staged_files(&self, inodes: &[Inode]) -> (Vec<Unsynced>, Option<Staging>) {
        let staged = |inode: &Inode| Some((*inode, self.names.node(*inode).ok()?.staged()?));
        let all: Vec<_> = inodes.iter().filter_map(staged).collect();
        let is_new = all.iter().any(|(_, staged)| !staged.synced);
        let files = all.into_iter();
        let files = files.map(|(inode, staged)| Unsynced {
            inode,
            file: Arc::clone(&staged.file),
            turn: Arc::clone(&staged.syncing),
        });
        (files.collect(), is_new.then(|| self.staging.clone()))
    }

    /// These are on the disk. How many still are what their files' bytes are in.
    fn note_synced(&mut self, files: &[Unsynced]) -> Result<usize, FsError> {
        let mut record = Record::default();
        let mut fresh = Vec::new();
        let mut count = 0;
        for Unsynced { inode, file, .. } in files {
            if let Ok(node) = self.names.node(*inode)
                && let Some(staged) = node.staged().filter(|s| Arc::ptr_eq(&s.file, file))
            {
                count += 1;
                if !staged.synced && node.place.is_some() {
                    record.synced.push(node.entry.id);
                    fresh.push(*inode);
                }
            }
        }
        self.append(record)?;
        for inode in fresh {
            if let Some(staged) = self.names.node_mut(inode).ok().and_then(Node::staged_mut) {
                staged.synced = true;
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn a_hundred_who_ask_while_one_goes_on_cost_one_more() {
        let (shared, count) = (SharedSync::default(), AtomicU64::new(0));
        let (begun, asked) = (Barrier::new(2), Barrier::new(101));
        let sync = || {
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, ()>(())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                shared.serve(shared.ask(), || {
                    begun.wait();
                    asked.wait();
                    sync()
                })
            });
            begun.wait();
            for _ in 0..100 {
                scope.spawn(|| {
                    let number = shared.ask();
                    asked.wait();
                    shared.serve(number, sync)
                });
            }
        });
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_sync_that_failed_serves_nobody() {
        let shared = SharedSync::default();
        let asked = shared.ask();
        assert_eq!(shared.serve(asked, || Err(1)), Err(1));
        assert_eq!(shared.serve(asked, || Err(2)), Err(2));
        assert_eq!(shared.serve(asked, || Ok::<_, u32>(())), Ok(()));
        assert_eq!(shared.serve(asked, || Err(3)), Ok(()));
    }
}
