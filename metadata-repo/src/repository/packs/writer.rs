//! Packs that this node writes (gitformat-pack, version 2), with their index.

use super::super::files::sync_file;
use super::index::{self, Entry};
use crate::error::{RepositoryError, Result, git, io};
use gix::ObjectId;
use gix::objs::Kind;
use gix::zlib::stream::deflate::{Compress, FlushCompress};
use gix::zlib::{Compression, Status};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Offsets from here on would need a table of their own; a pack of ours ends before.
pub(crate) const PACK_BYTES_MAX: u64 = 1 << 30;

/// Bytes that deflate hands over at once.
const CHUNK_BYTES: usize = 32 * 1024;

/// A pack being written to a temporary file; nothing is left of it when it is dropped.
pub(crate) struct PackWriter {
    directory: PathBuf,
    out: BufWriter<NamedTempFile>,
    entries: Vec<Entry>,
    offset: u64,
    deflate: Compress,
    chunk: Vec<u8>,
}

/// What an entry of a pack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object's own bytes.
    Whole(Kind),
    /// A delta on the entry that begins at this offset of the same pack.
    DeltaOn(u64),
}

impl PackWriter {
    /// `objects` is the repository's directory of objects.
    pub(crate) fn new(objects: &Path, compression: Compression) -> Result<Self> {
        let directory = objects.join("pack");
        let mut out = BufWriter::new(temporary(&directory)?);
        // The number of objects is filled in at the end.
        out.write_all(b"PACK\0\0\0\x02\0\0\0\0")
            .map_err(io("write a pack"))?;
        Ok(Self {
            directory,
            out,
            entries: Vec::new(),
            offset: 12,
            deflate: Compress::new(compression),
            chunk: vec![0; CHUNK_BYTES],
        })
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.offset
    }

    /// Adds an object or a delta; each object once. Gives the offset where it begins.
    pub(crate) fn add(&mut self, id: ObjectId, form: Form, mut data: &[u8]) -> Result<u64> {
        let mut crc = crc32fast::Hasher::new();
        let start = self.offset;
        self.put(&entry_header(form, data.len() as u64, start), &mut crc)?;
        self.deflate.reset();
        loop {
            let (taken, made) = (self.deflate.total_in(), self.deflate.total_out());
            let status = self
                .deflate
                .compress(data, &mut self.chunk, FlushCompress::Finish);
            let status = status.map_err(git("compress an object"))?;
            data = &data[(self.deflate.total_in() - taken) as usize..];
            let made = (self.deflate.total_out() - made) as usize;
            let chunk = std::mem::take(&mut self.chunk);
            let put = self.put(&chunk[..made], &mut crc);
            self.chunk = chunk;
            put?;
            if status == Status::StreamEnd {
                break;
            }
        }
        Ok(self.end_entry(id, start, crc))
    }

    /// Adds an entry whose `size` bytes another pack has compressed already.
    pub(crate) fn add_compressed(
        &mut self,
        id: ObjectId,
        form: Form,
        (size, compressed): (u64, &[u8]),
    ) -> Result<u64> {
        let mut crc = crc32fast::Hasher::new();
        let start = self.offset;
        self.put(&entry_header(form, size, start), &mut crc)?;
        self.put(compressed, &mut crc)?;
        Ok(self.end_entry(id, start, crc))
    }

    fn end_entry(&mut self, id: ObjectId, offset: u64, crc: crc32fast::Hasher) -> u64 {
        let crc = crc.finalize();
        self.entries.push(Entry { id, offset, crc });
        offset
    }

    fn put(&mut self, bytes: &[u8], crc: &mut crc32fast::Hasher) -> Result<()> {
        crc.update(bytes);
        self.offset += bytes.len() as u64;
        self.out.write_all(bytes).map_err(io("write a pack"))
    }

    /// Ends the pack and makes it part of the repository, durably. The index comes last: without it nobody
    /// looks at a pack. Gives the pack's path.
    pub(crate) fn finish(self) -> Result<PathBuf> {
        self.finish_with(|_, _| Ok(None))
    }

    /// The same, with another file of that extension beside the pack, made from the ids in the index' order and
    /// the pack's hash.
    pub(crate) fn finish_with(
        mut self,
        beside: impl FnOnce(&[ObjectId], ObjectId) -> Result<Option<(&'static str, Vec<u8>)>>,
    ) -> Result<PathBuf> {
        self.entries.sort_unstable_by_key(|entry| entry.id);
        let doing = || io("write a pack");
        self.out.flush().map_err(doing())?;
        let mut pack = self
            .out
            .into_inner()
            .map_err(|error| doing()(error.into_error()))?;
        let trailer = end_pack(&mut pack, self.entries.len() as u32)?;
        let name = self.directory.join(format!("pack-{trailer}.pack"));
        let mut files = vec![(pack, name.clone())];
        let ids: Vec<_> = self.entries.iter().map(|entry| entry.id).collect();
        if let Some((extension, bytes)) = beside(&ids, trailer)? {
            let mut file = temporary(&self.directory)?;
            file.write_all(&bytes).map_err(doing())?;
            files.push((file, name.with_extension(extension)));
        }
        let mut index = temporary(&self.directory)?;
        index::write(&mut index, &self.entries, trailer).map_err(io("write an index"))?;
        files.push((index, name.with_extension("idx")));
        for (file, name) in files {
            let readable = std::fs::Permissions::from_mode(0o444);
            file.as_file().set_permissions(readable).map_err(doing())?;
            sync(file.path())?;
            file.persist(&name).map_err(|error| doing()(error.error))?;
        }
        sync(&self.directory)?;
        Ok(name)
    }
}

/// No sync after one that failed says anything of what was written before.
fn sync(path: &Path) -> Result<()> {
    sync_file(path).map_err(|error| RepositoryError::NotDurable(error.to_string()))
}

fn temporary(directory: &Path) -> Result<NamedTempFile> {
    let file = tempfile::Builder::new()
        .prefix(".tmp-pack-")
        .tempfile_in(directory);
    file.map_err(io("make a temporary file"))
}

/// What comes before the compressed bytes of an entry that begins `at` there. Kind and size: four bits of size in
/// the first byte, seven in each that follows. A delta's base comes after.
pub(crate) fn entry_header(form: Form, mut size: u64, at: u64) -> Vec<u8> {
    let kind = match form {
        Form::Whole(Kind::Commit) => 1,
        Form::Whole(Kind::Tree) => 2,
        Form::Whole(Kind::Blob) => 3,
        Form::Whole(Kind::Tag) => 4,
        Form::DeltaOn(_) => 6,
    };
    let mut byte = (kind << 4) | (size & 0xf) as u8;
    size >>= 4;
    let mut header = Vec::with_capacity(20);
    while size > 0 {
        header.push(byte | 0x80);
        byte = (size & 0x7f) as u8;
        size >>= 7;
    }
    header.push(byte);
    if let Form::DeltaOn(base) = form {
        put_distance(at - base, &mut header);
    }
    header
}

/// Seven bits in each byte, the highest first; each byte but the last adds one, so that no two forms mean the
/// same.
fn put_distance(mut distance: u64, header: &mut Vec<u8>) {
    let mut bytes = [0; 10];
    let mut first = bytes.len() - 1;
    bytes[first] = (distance & 0x7f) as u8;
    while distance > 0x7f {
        distance = (distance >> 7) - 1;
        first -= 1;
        bytes[first] = (distance & 0x7f) as u8 | 0x80;
    }
    header.extend_from_slice(&bytes[first..]);
}

/// Fills in the number of objects, and appends the hash of it all.
fn end_pack(pack: &mut NamedTempFile, objects: u32) -> Result<ObjectId> {
    use std::os::unix::fs::FileExt as _;
    let doing = || io("end a pack");
    let file = pack.as_file();
    file.write_all_at(&objects.to_be_bytes(), 8)
        .map_err(doing())?;
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    let (mut chunk, mut offset) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let read = file.read_at(&mut chunk, offset).map_err(doing())?;
        if read == 0 {
            break;
        }
        hasher.update(&chunk[..read]);
        offset += read as u64;
    }
    let trailer = hasher.try_finalize().map_err(git("hash a pack"))?;
    file.write_all_at(trailer.as_slice(), offset)
        .map_err(doing())?;
    Ok(trailer)
}
