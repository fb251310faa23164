//! Reading and writing open files.

use super::handles::{Handle, HandleKind};
use super::open::touch;
use super::state::State;
use super::{Allocation, Answer, ContentReader, Filesystem, FsError, HandleId, Inode, Whence};
use bytes::{Bytes, BytesMut};
use delugefs_core::entry::{Content, ContentRef};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Most bytes that one read answers: the kernel asks for at most 1 MiB.
const READ_BYTES_MAX: usize = 4 << 20;

/// Largest file: what a file offset can say.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Where a handle's bytes are at this moment.
enum Backing {
    File(Arc<File>),
    /// The file of a complete content.
    Content(Arc<File>, ContentRef),
    Inline(Bytes),
    Reader(Arc<dyn ContentReader>, u64),
}

impl Filesystem {
    /// `pread`: fewer bytes than asked for only at the end of the file.
    pub fn read(
        &self,
        handle: HandleId,
        offset: u64,
        length: usize,
    ) -> Result<Answer<Bytes>, FsError> {
        let length = length.min(READ_BYTES_MAX);
        let backing = self.lock().readable(handle)?;
        match backing {
            Backing::File(file) => Ok(Answer::Ready(read_file(&file, offset, length)?)),
            Backing::Content(file, content) => {
                Ok(self.read_content(&file, content, offset, length))
            }
            Backing::Inline(bytes) => Ok(Answer::Ready(slice(&bytes, offset, length))),
            Backing::Reader(reader, size) => {
                let length = size.saturating_sub(offset).min(length as u64) as usize;
                if length == 0 {
                    return Ok(Answer::Ready(Bytes::new()));
                }
                Ok(Answer::Later(Box::pin(read_whole(reader, offset, length))))
            }
        }
    }

    /// What the disk cannot give is fetched from elsewhere.
    fn read_content(
        &self,
        file: &File,
        content: ContentRef,
        offset: u64,
        length: usize,
    ) -> Answer<Bytes> {
        let length = content.length.saturating_sub(offset).min(length as u64) as usize;
        match read_file(file, offset, length) {
            Ok(bytes) if bytes.len() == length => return Answer::Ready(bytes),
            Ok(_) => tracing::warn!("content {} ends too early on this disk", content.info_hash),
            Err(error) => tracing::warn!("reading {} has failed: {error}", content.info_hash),
        }
        let contents = Arc::clone(&self.lock().ports.contents);
        Answer::Later(Box::pin(async move {
            let bytes = offset..offset + length as u64;
            contents.reread(content, bytes).await;
            let reader = contents.reader(content);
            // looking up again is of no use to who has it open
            let reader = reader.map_err(|_| FsError::Unavailable)?;
            read_whole(reader, offset, length).await
        }))
    }

    /// `pwrite`; with `O_APPEND` at the end, wherever `offset` is. All or nothing but for a full disk.
    pub fn write(&self, handle: HandleId, offset: u64, data: &[u8]) -> Result<usize, FsError> {
        let (file, append) = {
            let state = self.lock();
            let writable = state.writable(handle)?;
            state.take_room(data.len() as u64)?;
            writable
        };
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(FsError::FileTooBig);
        }
        if append {
            append_all(&file, data)?;
        } else {
            file.write_all_at(data, offset)?;
        }
        Ok(data.len())
    }

    /// `close` of one descriptor: nothing to do, errors have been told.
    pub fn flush(&self, handle: HandleId) -> Result<(), FsError> {
        self.lock().handles.get(handle).map(|_| ())
    }

    /// The last descriptor and mapping of a handle is gone. Files and directories.
    pub fn release(&self, handle: HandleId) {
        self.lock().release(handle);
    }

    /// `fallocate`
    pub fn allocate(
        &self,
        handle: HandleId,
        what: Allocation,
        offset: u64,
        length: u64,
    ) -> Result<(), FsError> {
        let (file, _) = self.lock().writable(handle)?;
        if length == 0 {
            return Err(FsError::Invalid);
        }
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(FsError::FileTooBig)?;
        let grows = end.saturating_sub(file.metadata()?.len());
        let flags = match what {
            Allocation::Grow => FallocateFlags::empty(),
            Allocation::KeepSize => FallocateFlags::KEEP_SIZE,
            Allocation::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            Allocation::Zero => FallocateFlags::ZERO_RANGE,
            Allocation::ZeroKeepSize => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        };
        if what != Allocation::PunchHole {
            self.lock().take_room(grows)?;
        }
        match rustix::fs::fallocate(&*file, flags, offset, length) {
            Err(Errno::OPNOTSUPP) => Err(FsError::NotSupported),
            done => Ok(done?),
        }
    }

    /// `lseek` for data or holes.
    pub fn seek(&self, handle: HandleId, offset: u64, whence: Whence) -> Result<u64, FsError> {
        let (inode, backing) = {
            let mut state = self.lock();
            let inode = state.handles.get(handle)?.inode;
            (inode, state.backing(inode)?)
        };
        let size = self.stat(inode)?.size;
        if offset >= size {
            return Err(FsError::NoData);
        }
        let (Backing::File(file) | Backing::Content(file, _)) = backing else {
            return Ok(if whence == Whence::Data { offset } else { size });
        };
        let from = match whence {
            Whence::Data => SeekFrom::Data(offset),
            Whence::Hole => SeekFrom::Hole(offset),
        };
        match rustix::fs::seek(&*file, from) {
            Err(Errno::NXIO) => Err(FsError::NoData),
            found => Ok(found?),
        }
    }

    /// `ftruncate`
    pub(super) fn set_length(&self, handle: HandleId, size: u64) -> Result<(), FsError> {
        let (file, now) = {
            let state = self.lock();
            (state.writable(handle)?.0, state.now())
        };
        if size > FILE_BYTES_MAX {
            return Err(FsError::FileTooBig);
        }
        // A hole costs nothing, so growing asks for no room.
        file.set_len(size)?;
        touch(&file, now)
    }
}

impl State {
    fn readable(&mut self, handle: HandleId) -> Result<Backing, FsError> {
        let Handle { inode, kind } = self.handles.get(handle)?;
        let inode = *inode;
        match kind {
            HandleKind::File { read: true, .. } => self.backing(inode),
            HandleKind::File { .. } => Err(FsError::BadHandle),
            HandleKind::Directory(_) => Err(FsError::IsDirectory),
        }
    }

    fn backing(&mut self, inode: Inode) -> Result<Backing, FsError> {
        self.resolve(inode)?;
        let node = self.names.node(inode)?;
        let body = node.file().ok_or(FsError::Invalid)?;
        if let Some(file) = &body.backing {
            let file = Arc::clone(file);
            return Ok(match (node.content(), &body.staged) {
                (Some(Content::Swarm(content)), None) => Backing::Content(file, *content),
                _ => Backing::File(file),
            });
        }
        match (node.content(), &body.reader) {
            (Some(Content::Inline(bytes)), _) => Ok(Backing::Inline(Bytes::copy_from_slice(bytes))),
            (Some(Content::Swarm(content)), Some(reader)) => {
                Ok(Backing::Reader(Arc::clone(reader), content.length))
            }
            _ => Err(FsError::Damaged("a file without bytes".into())),
        }
    }

    fn writable(&self, handle: HandleId) -> Result<(Arc<File>, bool), FsError> {
        self.check_publishing()?;
        let Handle { inode, kind } = self.handles.get(handle)?;
        let HandleKind::File {
            write: true,
            append,
            ..
        } = kind
        else {
            return Err(FsError::BadHandle);
        };
        let staged = self.names.node(*inode)?.staged();
        let staged = staged.ok_or_else(|| FsError::Damaged("a writer without a file".into()))?;
        Ok((Arc::clone(&staged.file), *append))
    }

    fn release(&mut self, handle: HandleId) {
        let Some(Handle { inode, kind }) = self.handles.remove(handle) else {
            return;
        };
        let Ok(node) = self.names.node_mut(inode) else {
            return;
        };
        node.handles -= 1;
        let idle = node.handles == 0;
        let mut closed = false;
        if let (Some(body), HandleKind::File { execute: true, .. }) = (node.file_mut(), &kind) {
            body.running -= 1;
        }
        if let (Some(staged), HandleKind::File { write: true, .. }) = (node.staged_mut(), kind) {
            staged.writers -= 1;
            closed = staged.writers == 0;
        }
        if closed {
            self.closed(inode);
        }
        if idle {
            self.let_go(inode);
        }
    }

    /// Nobody has it open, or it has lost its name: gives up what is not needed any more.
    pub(super) fn let_go(&mut self, inode: Inode) {
        let Ok(node) = self.names.node_mut(inode) else {
            return;
        };
        let unlinked = node.place.is_none();
        let mut left = None;
        if node.handles == 0
            && let Some(body) = node.file_mut()
        {
            body.backing = None;
            body.reader = None;
            if unlinked
                && body
                    .staged
                    .as_ref()
                    .is_some_and(super::staging::Staged::is_idle)
            {
                left = body.staged.take();
            }
        }
        if let Some(staged) = left {
            self.dismiss(&staged);
        }
        self.names.drop_unused(inode);
    }

    /// The number of an open handle's inode.
    pub(super) fn handle_inode(&self, handle: HandleId) -> Result<Inode, FsError> {
        Ok(self.handles.get(handle)?.inode)
    }
}

fn read_file(file: &File, offset: u64, length: usize) -> Result<Bytes, FsError> {
    let mut bytes = BytesMut::zeroed(length);
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.freeze())
}

fn slice(bytes: &Bytes, offset: u64, length: usize) -> Bytes {
    let from = bytes
        .len()
        .min(usize::try_from(offset).unwrap_or(usize::MAX));
    bytes.slice(from..bytes.len().min(from.saturating_add(length)))
}

async fn read_whole(
    reader: Arc<dyn ContentReader>,
    offset: u64,
    length: usize,
) -> Result<Bytes, FsError> {
    let first = reader.read(offset, length).await?;
    if first.len() >= length {
        return Ok(first.slice(..length));
    }
    let mut bytes = BytesMut::with_capacity(length);
    bytes.extend_from_slice(&first);
    let mut last = first.len();
    while last > 0 && bytes.len() < length {
        let more = reader
            .read(offset + bytes.len() as u64, length - bytes.len())
            .await?;
        last = more.len();
        bytes.extend_from_slice(&more);
    }
    if bytes.len() < length {
        return Err(FsError::Damaged("a content ends too early".into()));
    }
    bytes.truncate(length);
    Ok(bytes.freeze())
}

/// Appends as the kernel does: at the end at that moment, whoever else appends.
fn append_all(file: &File, mut data: &[u8]) -> Result<(), FsError> {
    while !data.is_empty() {
        let slices = [IoSlice::new(data)];
        match rustix::io::pwritev2(file, &slices, 0, ReadWriteFlags::APPEND) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Ok(count) => data = &data[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
