//! Opening files: which bytes a handle reads, and how a file gets its staging file.

use super::handles::{Handle, HandleKind};
use super::inode::Node;
use super::namespace::is_file;
use super::staging::{Nonce, Phase, Staged, mark_unwritten};
use super::state::{Plan, State, Target};
use super::{
    Answer, Caller, ContentReader, Filesystem, FsError, HandleId, Inode, Invalidation, OpenFlags,
    Opened, Stat,
};
use delugefs_core::entry::{Content, ContentRef, File as FileEntry, Kind};
use delugefs_core::ids::InfoHash;
use delugefs_core::time::Timestamp;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Up to this many bytes are copied while the caller waits; more, by a thread that may block.
const COPY_AT_ONCE_BYTES: u64 = 1 << 20;

/// Bytes asked for at once when a content is fetched whole.
const FETCH_BYTES: usize = 1 << 20;

/// How often a content may change under an open for writing before that gives up.
const ROUNDS_MAX: usize = 64;

/// A copy of a content, for an inode that still has that content.
struct Copied {
    content: ContentRef,
    nonce: Nonce,
    file: File,
}

/// What opening came to.
enum Attempt {
    Opened(Opened),
    /// The file is being hashed.
    AwaitSeal,
    /// A copy of this content is needed first.
    Copy(ContentRef),
}

/// Where a content's bytes are.
enum Bytes {
    Here(File),
    Elsewhere(Arc<dyn ContentReader>),
}

impl Filesystem {
    /// `open(O_CREAT | O_EXCL)`: a new file, open.
    pub fn create(
        &self,
        parent: Inode,
        name: &[u8],
        mode: u16,
        flags: OpenFlags,
        caller: Caller,
    ) -> Result<(Stat, Opened), FsError> {
        let mut state = self.lock();
        let place = state.free_place(parent, name)?;
        state.check_room()?;
        let inode = state.create(parent, place, mode, caller)?;
        let opened = state.open_staged(inode, flags)?;
        Ok((state.answer_entry(inode)?, opened))
    }

    /// `open`. `Later` where the bytes must be fetched, or a seal must end, before the file can be written.
    pub fn open(&self, inode: Inode, flags: OpenFlags) -> Result<Answer<Opened>, FsError> {
        let mut copied = None;
        for _ in 0..ROUNDS_MAX {
            let notified = self.0.sealed.notified();
            let attempt = self.lock().open(inode, flags, copied.take())?;
            match attempt {
                Attempt::Opened(opened) => return Ok(Answer::Ready(opened)),
                Attempt::Copy(content) if content.length <= COPY_AT_ONCE_BYTES => {
                    match self.bytes(content)? {
                        Bytes::Here(from) => copied = Some(self.copy(content, &from)?),
                        Bytes::Elsewhere(_) => break,
                    }
                }
                Attempt::Copy(_) | Attempt::AwaitSeal => break,
            }
            drop(notified);
        }
        let filesystem = self.clone();
        let opening = async move { filesystem.open_later(inode, flags).await };
        Ok(Answer::Later(Box::pin(opening)))
    }

    async fn open_later(self, inode: Inode, flags: OpenFlags) -> Result<Opened, FsError> {
        let mut copied = None;
        let mut rounds = 0;
        while rounds < ROUNDS_MAX {
            let shared = Arc::clone(&self.0);
            let notified = shared.sealed.notified();
            let attempt = self.lock().open(inode, flags, copied.take())?;
            match attempt {
                Attempt::Opened(opened) => return Ok(opened),
                Attempt::AwaitSeal => notified.await,
                Attempt::Copy(content) => {
                    copied = Some(self.copy_later(content).await?);
                    rounds += 1;
                }
            }
        }
        Err(FsError::Stale)
    }

    async fn copy_later(&self, content: ContentRef) -> Result<Copied, FsError> {
        match self.bytes(content)? {
            Bytes::Here(from) => {
                let filesystem = self.clone();
                let copy = move || filesystem.copy(content, &from);
                let copied = tokio::task::spawn_blocking(copy).await;
                copied.map_err(|error| FsError::Damaged(error.to_string()))?
            }
            Bytes::Elsewhere(reader) => self.fetch(content, &*reader).await,
        }
    }

    fn bytes(&self, content: ContentRef) -> Result<Bytes, FsError> {
        let contents = Arc::clone(&self.lock().ports.contents);
        match contents.local(&content)? {
            Some(file) => Ok(Bytes::Here(file)),
            None => Ok(Bytes::Elsewhere(contents.reader(content)?)),
        }
    }

    /// A staging file with the bytes of a content that is here.
    fn copy(&self, content: ContentRef, from: &File) -> Result<Copied, FsError> {
        self.copy_with(content, |to| {
            if rustix::fs::ioctl_ficlone(to, from).is_err() {
                std::io::copy(&mut &*from, &mut &*to)?;
            }
            Ok(())
        })
    }

    fn copy_with(
        &self,
        content: ContentRef,
        write: impl FnOnce(&File) -> Result<(), FsError>,
    ) -> Result<Copied, FsError> {
        let (staging, nonce) = self.new_copy(content)?;
        let file = staging.create(&nonce)?;
        let copied = write(&file).and_then(|()| finish_copy(&file, content));
        if let Err(error) = copied {
            staging.remove(&nonce);
            return Err(error);
        }
        Ok(Copied {
            content,
            nonce,
            file,
        })
    }

    fn new_copy(&self, content: ContentRef) -> Result<(super::staging::Staging, Nonce), FsError> {
        let state = self.lock();
        state.take_room(content.length)?;
        Ok((state.staging.clone(), state.new_nonce()))
    }

    /// A staging file with the bytes of a content that has to arrive first.
    async fn fetch(
        &self,
        content: ContentRef,
        reader: &dyn ContentReader,
    ) -> Result<Copied, FsError> {
        let mut copied = self.copy_with(content, |file| Ok(file.set_len(content.length)?))?;
        let mut offset = 0;
        while offset < content.length {
            let length = (content.length - offset).min(FETCH_BYTES as u64) as usize;
            let bytes = match reader.read(offset, length).await {
                Ok(bytes) if bytes.is_empty() => Err(FsError::Unavailable),
                bytes => bytes,
            };
            let written = bytes.and_then(|bytes| {
                copied.file.write_all_at(&bytes, offset)?;
                Ok(bytes.len() as u64)
            });
            match written {
                Ok(length) => offset += length,
                Err(error) => {
                    self.lock().staging.remove(&copied.nonce);
                    return Err(error);
                }
            }
        }
        finish_copy(&copied.file, content)?;
        copied.content = content;
        Ok(copied)
    }

    /// The file of a content is not to be read any more: it is damaged. Names of it get new inodes, whose bytes come from
    /// wherever they are right; what the kernel reads past us through handles that are open now, it goes on reading.
    /// Answers what the kernel is to forget.
    pub fn forget_file(&self, info_hash: &InfoHash) -> Vec<Invalidation> {
        let mut state = self.lock();
        let of_content = |node: &Node| match node.content() {
            Some(Content::Swarm(content)) => content.info_hash == *info_hash,
            _ => false,
        };
        let shown = |node: &Node| node.staged().is_none() && (node.handles > 0 || node.lookups > 0);
        let all = state.names.iter();
        let inodes: Vec<Inode> = all
            .filter(|(_, node)| of_content(node) && shown(node))
            .map(|(inode, _)| inode)
            .collect();
        let mut invalid = Vec::new();
        for inode in inodes {
            if let Ok(node) = state.names.node_mut(inode) {
                let place = node.place.clone();
                if let Some(body) = node.file_mut() {
                    body.backing = None;
                }
                invalid.extend(place.map(|(parent, name)| Invalidation::Entry {
                    parent,
                    name: name.as_bytes().to_vec(),
                }));
            }
            state.renumber(inode);
        }
        invalid
    }

    /// Gives the entry of an inode a new inode number; open handles keep the old inode and its bytes. For
    /// when an open for writing meets readers whose backing the kernel has got: answer `ESTALE` after it,
    /// and the kernel looks up again and opens the new inode.
    pub fn detach_readers(&self, inode: Inode) -> Result<(), FsError> {
        let mut state = self.lock();
        let node = state.names.node(inode)?;
        if node.staged().is_some() || !is_file(&node.entry.kind) {
            return Err(FsError::Invalid);
        }
        state.renumber(inode);
        Ok(())
    }
}

/// What is written from here on shows.
fn finish_copy(file: &File, content: ContentRef) -> Result<(), FsError> {
    if file.metadata()?.len() != content.length {
        return Err(FsError::Damaged(format!(
            "content {} is not {} bytes long",
            content.info_hash, content.length
        )));
    }
    mark_unwritten(file)
}

impl State {
    /// Whether anything may be added to this disk.
    pub(super) fn check_room(&self) -> Result<(), FsError> {
        let free = self.ports.contents.space().free;
        (free > 0).then_some(()).ok_or(FsError::NoSpace)
    }

    /// Takes room for bytes that are about to be written.
    pub(super) fn take_room(&self, bytes: u64) -> Result<(), FsError> {
        match self.ports.contents.take_room(bytes) {
            true => Ok(()),
            false => Err(FsError::NoSpace),
        }
    }

    fn create(
        &mut self,
        parent: Inode,
        place: super::inode::Place,
        mode: u16,
        caller: Caller,
    ) -> Result<Inode, FsError> {
        // before the disk is asked, which may have failed
        self.check_publishing()?;
        let kind = Kind::File(FileEntry {
            content: Content::Inline(Vec::new()),
            previous: Vec::new(),
        });
        let mut entry = self.new_entry(parent, kind, mode, caller)?;
        entry.written.edits = 0;
        let nonce = self.new_nonce();
        let file = self.staging.create(&nonce)?;
        mark_unwritten(&file)?;
        let mut staged = Staged::new(file, nonce);
        staged.unborn = true;
        let mut node = Node::new(None, entry.clone(), None);
        if let Some(body) = node.file_mut() {
            body.staged = Some(staged);
        }
        let inode = self.names.insert(node);
        let child = Target {
            inode,
            place: Some(place),
            entry,
        };
        let plan = Plan::of(vec![child, self.touched(parent)?]);
        if let Err(error) = self.apply(plan) {
            self.names.drop_unused(inode);
            self.staging.remove(&nonce);
            return Err(error);
        }
        Ok(inode)
    }

    fn open(
        &mut self,
        inode: Inode,
        flags: OpenFlags,
        copied: Option<Copied>,
    ) -> Result<Attempt, FsError> {
        let allowed = match flags.write || flags.truncate {
            true => self.check_publishing(),
            false => Ok(()),
        };
        let attempt = allowed.and_then(|()| self.try_open(inode, flags, copied.as_ref()));
        let used = matches!(attempt, Ok(Attempt::Opened(_)))
            && copied
                .as_ref()
                .is_some_and(|copied| self.is_staged_as(inode, &copied.nonce));
        if let Some(copied) = copied
            && !used
        {
            self.staging.remove(&copied.nonce);
        }
        attempt
    }

    fn is_staged_as(&self, inode: Inode, nonce: &Nonce) -> bool {
        let node = self.names.node(inode).ok();
        node.and_then(Node::staged)
            .is_some_and(|staged| staged.nonce == *nonce)
    }

    fn try_open(
        &mut self,
        inode: Inode,
        flags: OpenFlags,
        copied: Option<&Copied>,
    ) -> Result<Attempt, FsError> {
        let node = self.names.node(inode)?;
        if node.is_directory() {
            return Err(FsError::IsDirectory);
        }
        let content = node.content().cloned().ok_or(FsError::Invalid)?;
        if !flags.write && !flags.truncate {
            return self.open_reading(inode, flags).map(Attempt::Opened);
        }
        self.check_room()?;
        let body = self.names.node(inode)?.file();
        if !flags.write && body.is_some_and(|body| body.running > 0) {
            // `O_RDONLY | O_TRUNC`: the kernel has it done before it looks; whoever writes it refuses by itself
            return Err(FsError::Running);
        }
        if let Some(staged) = self.names.node(inode)?.staged() {
            if !staged.is_writable() {
                return Ok(Attempt::AwaitSeal);
            }
            return self.open_staged(inode, flags).map(Attempt::Opened);
        }
        if self.names.node(inode)?.place.is_none() {
            // another version has taken its name since it was looked up: nobody would see what is written here
            return Err(FsError::Stale);
        }
        let (file, nonce) = match (content, copied) {
            (Content::Swarm(content), Some(copied)) if copied.content == content => {
                (copied.file.try_clone()?, copied.nonce)
            }
            (Content::Swarm(content), _) if !flags.truncate => {
                return Ok(Attempt::Copy(content));
            }
            (content, _) => self.small_copy(&content, flags)?,
        };
        self.install(inode, file, nonce)?;
        self.open_staged(inode, flags).map(Attempt::Opened)
    }

    /// A staging file that starts empty, or with the bytes of a descriptor.
    fn small_copy(&self, content: &Content, flags: OpenFlags) -> Result<(File, Nonce), FsError> {
        let nonce = self.new_nonce();
        let file = self.staging.create(&nonce)?;
        let mut filled = Ok(());
        if let Content::Inline(bytes) = content
            && !flags.truncate
        {
            filled = file.write_all_at(bytes, 0).map_err(FsError::from);
        }
        let marked = filled.and_then(|()| mark_unwritten(&file));
        if let Err(error) = marked {
            self.staging.remove(&nonce);
            return Err(error);
        }
        Ok((file, nonce))
    }

    /// A committed file gets a staging file.
    fn install(&mut self, inode: Inode, file: File, nonce: Nonce) -> Result<(), FsError> {
        let target = self.target(inode)?;
        let attached = target.place.is_some();
        if let Some(body) = self.names.node_mut(inode)?.file_mut() {
            body.staged = Some(Staged::new(file, nonce));
        }
        let plan = Plan {
            targets: vec![target],
            staged: attached.then_some(inode),
            ..Plan::default()
        };
        if let Err(error) = self.apply(plan) {
            if let Some(body) = self.names.node_mut(inode)?.file_mut() {
                body.staged = None;
            }
            self.staging.remove(&nonce);
            return Err(error);
        }
        Ok(())
    }

    fn open_staged(&mut self, inode: Inode, flags: OpenFlags) -> Result<Opened, FsError> {
        let now = self.now();
        let body = self.names.node_mut(inode)?.file_mut();
        let body = body.ok_or(FsError::Invalid)?;
        let staged = body.staged.as_mut().ok_or(FsError::Invalid)?;
        if flags.truncate {
            staged.file.set_len(0)?;
            touch(&staged.file, now)?;
        }
        staged.writers += 1;
        staged.phase = Phase::Writing;
        staged.privileged &= flags.privileged;
        let backing = Some(Arc::clone(&staged.file));
        body.backing.clone_from(&backing);
        body.reader = None;
        let handle = self.new_handle(inode, flags)?;
        Ok(Opened { handle, backing })
    }

    fn open_reading(&mut self, inode: Inode, flags: OpenFlags) -> Result<Opened, FsError> {
        self.resolve(inode)?;
        let backing = self
            .names
            .node(inode)?
            .file()
            .and_then(|body| body.backing.clone());
        let handle = self.new_handle(inode, flags)?;
        Ok(Opened { handle, backing })
    }

    /// Decides where an inode's handles read, unless that is decided.
    pub(super) fn resolve(&mut self, inode: Inode) -> Result<(), FsError> {
        let node = self.names.node(inode)?;
        let content = node.content().cloned().ok_or(FsError::Invalid)?;
        let body = node.file().ok_or(FsError::Invalid)?;
        let (mut backing, mut reader) = (body.backing.clone(), body.reader.clone());
        if let Some(staged) = &body.staged {
            backing = Some(Arc::clone(&staged.file));
        } else if let Content::Swarm(content) = content
            && backing.is_none()
            && reader.is_none()
        {
            backing = self.ports.contents.local(&content)?.map(Arc::new);
            if backing.is_none() {
                reader = Some(self.ports.contents.reader(content)?);
            }
        }
        if let Some(body) = self.names.node_mut(inode)?.file_mut() {
            body.backing = backing;
            body.reader = reader;
        }
        Ok(())
    }

    fn new_handle(&mut self, inode: Inode, flags: OpenFlags) -> Result<HandleId, FsError> {
        let node = self.names.node_mut(inode)?;
        node.handles += 1;
        if let Some(body) = node.file_mut() {
            body.running += u32::from(flags.execute);
        }
        Ok(self.handles.insert(Handle {
            inode,
            kind: HandleKind::File {
                read: flags.read,
                write: flags.write || flags.truncate,
                append: flags.append,
                execute: flags.execute,
            },
        }))
    }

    /// An entry goes on under a new inode number; the old one is left to those who have it open.
    pub(super) fn renumber(&mut self, inode: Inode) -> Option<Inode> {
        let node = self.names.node(inode).ok()?;
        let place = node.place.clone()?;
        let entry = node.entry.clone();
        self.names.detach(inode);
        let new = self.names.insert(Node::new(None, entry, None));
        self.names.attach(new, place);
        self.names.drop_unused(inode);
        Some(new)
    }
}

/// A truncation is a write, even of an empty file.
pub(super) fn touch(file: &File, now: Timestamp) -> Result<(), FsError> {
    super::staging::set_modified(file, now)
}
