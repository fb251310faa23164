//! Packs that this node writes (gitformat-pack, version 2): whole objects, no deltas, with their index.

use crate::error::{Result, git, io};
use gix::ObjectId;
use gix::hash::Hasher;
use gix::objs::Kind;
use gix::zlib::stream::deflate::{Compress, FlushCompress};
use gix::zlib::{Compression, Status};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Offsets from here on would need a table of their own; a pack of ours ends before.
pub(super) const PACK_BYTES_MAX: u64 = 1 << 30;

/// Bytes that deflate hands over at once.
const CHUNK_BYTES: usize = 32 * 1024;

/// A pack being written to a temporary file; nothing is left of it when it is dropped.
pub(super) struct PackWriter {
    directory: PathBuf,
    out: BufWriter<NamedTempFile>,
    entries: Vec<Entry>,
    offset: u64,
    deflate: Compress,
    chunk: Vec<u8>,
}

struct Entry {
    id: ObjectId,
    offset: u64,
    crc: u32,
}

impl PackWriter {
    /// `objects` is the repository's directory of objects.
    pub(super) fn new(objects: &Path) -> Result<Self> {
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
            deflate: Compress::new(Compression::BEST_SPEED),
            chunk: vec![0; CHUNK_BYTES],
        })
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.offset
    }

    /// Adds an object; each once.
    pub(super) fn add(&mut self, id: ObjectId, kind: Kind, mut data: &[u8]) -> Result<()> {
        let mut crc = crc32fast::Hasher::new();
        let start = self.offset;
        self.put(&entry_header(kind, data.len() as u64), &mut crc)?;
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
        self.entries.push(Entry {
            id,
            offset: start,
            crc: crc.finalize(),
        });
        Ok(())
    }

    fn put(&mut self, bytes: &[u8], crc: &mut crc32fast::Hasher) -> Result<()> {
        crc.update(bytes);
        self.offset += bytes.len() as u64;
        self.out.write_all(bytes).map_err(io("write a pack"))
    }

    /// Ends the pack and makes it part of the repository, durably. The index comes last: without it nobody
    /// looks at a pack. Gives the pack's path.
    pub(super) fn finish(mut self) -> Result<PathBuf> {
        self.entries.sort_unstable_by_key(|entry| entry.id);
        let doing = || io("write a pack");
        self.out.flush().map_err(doing())?;
        let mut pack = self
            .out
            .into_inner()
            .map_err(|error| doing()(error.into_error()))?;
        let trailer = end_pack(&mut pack, self.entries.len() as u32)?;
        let mut index = temporary(&self.directory)?;
        write_index(&mut index, &self.entries, trailer)?;
        let name = self.directory.join(format!("pack-{trailer}.pack"));
        for (file, name) in [(pack, name.clone()), (index, name.with_extension("idx"))] {
            let readable = std::fs::Permissions::from_mode(0o444);
            file.as_file().set_permissions(readable).map_err(doing())?;
            file.as_file().sync_all().map_err(doing())?;
            file.persist(&name).map_err(|error| doing()(error.error))?;
        }
        super::files::sync_file(&self.directory)?;
        Ok(name)
    }
}

fn temporary(directory: &Path) -> Result<NamedTempFile> {
    let file = tempfile::Builder::new()
        .prefix(".tmp-pack-")
        .tempfile_in(directory);
    file.map_err(io("make a temporary file"))
}

/// Kind and size: four bits of size in the first byte, seven in each that follows.
fn entry_header(kind: Kind, mut size: u64) -> Vec<u8> {
    let kind = match kind {
        Kind::Commit => 1,
        Kind::Tree => 2,
        Kind::Blob => 3,
        Kind::Tag => 4,
    };
    let mut byte = (kind << 4) | (size & 0xf) as u8;
    size >>= 4;
    let mut header = Vec::with_capacity(10);
    while size > 0 {
        header.push(byte | 0x80);
        byte = (size & 0x7f) as u8;
        size >>= 7;
    }
    header.push(byte);
    header
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

struct Hashed<W> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Hashed<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes).map_err(io("write an index"))
    }
}

/// Version 2: fan-out, ids, CRCs, offsets.
fn write_index(index: &mut NamedTempFile, entries: &[Entry], trailer: ObjectId) -> Result<()> {
    let hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    let mut out = Hashed {
        out: BufWriter::new(index),
        hasher,
    };
    out.put(b"\xfftOc\0\0\0\x02")?;
    for first in 0..=u8::MAX {
        let upto = entries.partition_point(|entry| entry.id.as_slice()[0] <= first);
        out.put(&(upto as u32).to_be_bytes())?;
    }
    for entry in entries {
        out.put(entry.id.as_slice())?;
    }
    for entry in entries {
        out.put(&entry.crc.to_be_bytes())?;
    }
    for entry in entries {
        out.put(&(entry.offset as u32).to_be_bytes())?;
    }
    out.put(trailer.as_slice())?;
    let checksum = out
        .hasher
        .clone()
        .try_finalize()
        .map_err(git("hash an index"))?;
    out.out
        .write_all(checksum.as_slice())
        .map_err(io("write an index"))?;
    out.out.flush().map_err(io("write an index"))
}
