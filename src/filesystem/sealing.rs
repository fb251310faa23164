//! From the last close to committed bytes.
//!
//! A small file goes into its descriptor at once. A larger one waits to be hashed; the store is given a link
//! of its own to the staging file, and the staging file's name stays until the journal knows the content, so
//! that a crash at any moment leaves either the one or the other.

use super::staging::Phase;
use super::state::{Plan, State};
use super::sync::make_durable;
use super::{Filesystem, FsError, Inode, SealJob, Sealed};
use delugefs_core::entry::{Content, Entry, Kind};
use delugefs_core::ids::InfoHash;
use delugefs_core::limits::{INLINE_BYTES_MAX, PREVIOUS_MAX};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

impl Filesystem {
    /// A closed file to be hashed, if any.
    pub fn next_unsealed(&self) -> Option<SealJob> {
        let mut state = self.lock();
        for _ in 0..state.unsealed.len() {
            let inode = state.unsealed.pop_front()?;
            match state.begin_seal(inode) {
                Ok(Some(job)) => return Some(job),
                Ok(None) => {}
                Err(error) => {
                    let path = state.describe(inode);
                    tracing::warn!(%error, path, "cannot prepare a closed file to be hashed");
                    state.unsealed.push_back(inode);
                }
            }
        }
        None
    }

    /// The outcome of a seal. After an error the file waits again, without a new event.
    ///
    /// Where something would be lost with the content's bytes (they were synced, or there is an older version), the
    /// journal names it only when it survives a power cut: that may be durable at any moment from then on. A new file
    /// waits for nothing.
    #[expect(clippy::needless_pass_by_value, reason = "the job ends here")]
    pub fn sealed(&self, job: SealJob, outcome: Result<Sealed, FsError>) -> Result<(), FsError> {
        let (is_precious, contents) = {
            let state = self.lock();
            let contents = Arc::clone(&state.ports.contents);
            (state.is_precious(job.inode), contents)
        };
        let durable =
            |sealed: Sealed| make_durable(&*contents, &[sealed.content.info_hash]).map(|()| sealed);
        let outcome = match is_precious {
            true => outcome.and_then(durable),
            false => outcome,
        };
        let mut state = self.lock();
        // it was synced or renamed just now, which is rare
        let outcome = match !is_precious && state.is_precious(job.inode) {
            true => outcome.and_then(durable),
            false => outcome,
        };
        let ended = state.end_seal(job.inode, outcome);
        drop(state);
        self.0.sealed.notify_waiters();
        ended
    }
}

impl State {
    /// With what its staging file has, something would be lost that survives a power cut now.
    fn is_precious(&self, inode: Inode) -> bool {
        let Ok(node) = self.names.node(inode) else {
            return false;
        };
        let is_older = node.content().is_some_and(|older| older.length() > 0);
        node.staged()
            .is_some_and(|staged| staged.synced || is_older || !staged.replaces.is_empty())
    }

    /// The last writer has gone.
    pub(super) fn closed(&mut self, inode: Inode) {
        if let Err(error) = self.try_close(inode) {
            let path = self.describe(inode);
            tracing::warn!(%error, path, "a closed file waits");
            self.wait_for_seal(inode);
        }
    }

    fn try_close(&mut self, inode: Inode) -> Result<(), FsError> {
        let node = self.names.node(inode)?;
        let Some(staged) = node.staged() else {
            return Ok(());
        };
        if node.place.is_none() {
            return Ok(());
        }
        if !staged.unborn && !staged.written && staged.written_at()?.is_none() {
            return self.drop_staged(inode);
        }
        if !self.finish_small(inode)? {
            self.wait_for_seal(inode);
        }
        Ok(())
    }

    pub(super) fn wait_for_seal(&mut self, inode: Inode) {
        if let Ok(node) = self.names.node_mut(inode)
            && let Some(staged) = node.staged_mut()
        {
            staged.phase = Phase::Unsealed;
            self.unsealed.push_back(inode);
            self.ports.events.unsealed();
        }
    }

    /// Nothing has been written: the committed bytes are the bytes.
    fn drop_staged(&mut self, inode: Inode) -> Result<(), FsError> {
        let target = self.target(inode)?;
        let plan = Plan {
            targets: vec![target],
            unstaged: Some(inode),
            ..Plan::default()
        };
        self.apply(plan)?;
        self.unstage(inode);
        Ok(())
    }

    /// The staging file is not needed any more; open handles go on reading what it was.
    fn unstage(&mut self, inode: Inode) {
        let Ok(node) = self.names.node_mut(inode) else {
            return;
        };
        let is_open = node.handles > 0;
        if let Some(body) = node.file_mut()
            && let Some(staged) = body.staged.take()
        {
            body.backing = is_open.then(|| Arc::clone(&staged.file));
            self.dismiss(&staged);
        }
    }

    /// Puts a small file's bytes into its descriptor; whether it was one.
    fn finish_small(&mut self, inode: Inode) -> Result<bool, FsError> {
        let node = self.names.node(inode)?;
        let staged = node.staged().ok_or(FsError::Invalid)?;
        let length = staged.file.metadata()?.len();
        let most = (self.config.inline_max as usize).min(INLINE_BYTES_MAX) as u64;
        if length > most {
            return Ok(false);
        }
        let mut bytes = vec![0; length as usize];
        staged.file.read_exact_at(&mut bytes, 0)?;
        self.finish(inode, Content::Inline(bytes), None)?;
        Ok(true)
    }

    /// The staged bytes are this content: journals that, then lets the staging file go.
    fn finish(
        &mut self,
        inode: Inode,
        content: Content,
        info: Option<(InfoHash, Vec<u8>)>,
    ) -> Result<(), FsError> {
        let node = self.names.node(inode)?;
        let unborn = node.is_unborn();
        let mut target = self.target(inode)?;
        target.entry = node.settled_entry()?;
        self.give_bytes(&mut target.entry, content, unborn);
        let attached = target.place.is_some();
        let plan = Plan {
            targets: vec![target],
            born: (unborn && attached).then_some(inode),
            unstaged: attached.then_some(inode),
            info: info.filter(|_| attached),
            ..Plan::default()
        };
        self.apply(plan)?;
        self.unstage(inode);
        Ok(())
    }

    fn give_bytes(&self, entry: &mut Entry, content: Content, unborn: bool) {
        let now = self.now();
        let Kind::File(file) = &mut entry.kind else {
            return;
        };
        if !unborn && file.content == content {
            return;
        }
        let old = std::mem::replace(&mut file.content, content);
        if let Content::Swarm(old) = old {
            file.previous.retain(|hash| *hash != old.info_hash);
            file.previous.insert(0, old.info_hash);
            file.previous.truncate(PREVIOUS_MAX);
        }
        entry.written.edits = entry.written.edits.saturating_add(1);
        entry.written.at = now;
        entry.written.by.clone_from(&self.config.label);
    }

    fn begin_seal(&mut self, inode: Inode) -> Result<Option<SealJob>, FsError> {
        let Ok(node) = self.names.node(inode) else {
            return Ok(None);
        };
        let Some(staged) = node
            .staged()
            .filter(|staged| staged.phase == Phase::Unsealed)
        else {
            return Ok(None);
        };
        if node.place.is_none() {
            self.let_go(inode);
            return Ok(None);
        }
        let nonce = staged.nonce;
        if self.finish_small(inode)? {
            return Ok(None);
        }
        let path = self.staging.link_for_seal(&nonce)?;
        if let Some(staged) = self.names.node_mut(inode)?.staged_mut() {
            staged.phase = Phase::Sealing;
        }
        Ok(Some(SealJob { path, inode }))
    }

    fn end_seal(&mut self, inode: Inode, outcome: Result<Sealed, FsError>) -> Result<(), FsError> {
        let node = self.names.node(inode)?;
        let removed = node.place.is_none();
        let Some(staged) = node.staged() else {
            return Ok(());
        };
        let (nonce, length) = (staged.nonce, staged.file.metadata()?.len());
        let ended = outcome.and_then(|sealed| {
            if sealed.content.length != length {
                return Err(FsError::Damaged("sealed with another length".into()));
            }
            let info = (sealed.content.info_hash, sealed.info);
            self.finish(inode, Content::Swarm(sealed.content), Some(info))
        });
        if ended.is_err() {
            let _ = std::fs::remove_file(self.staging.seal_path(&nonce));
            self.seal_failed(inode)?;
        }
        self.let_go(inode);
        // what nobody can find any more need not be shared
        if removed { Ok(()) } else { ended }
    }

    /// It waits again. If the store has taken its link all the same, nobody may write to the file.
    fn seal_failed(&mut self, inode: Inode) -> Result<(), FsError> {
        if let Some(staged) = self.names.node_mut(inode)?.staged_mut() {
            staged.phase = Phase::Unsealed;
            staged.shared = staged.file.metadata()?.nlink() > 1;
            self.unsealed.push_back(inode);
        }
        Ok(())
    }
}
