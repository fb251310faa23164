//! A pack on its way in: unpacked once while it arrives, every object checked by itself, and kept in a
//! temporary file that vanishes unless it is installed.
//!
//! Nodes send whole objects, so deltas are refused: no object can be larger than its own header says, and the
//! header is checked first.

use super::store::Objects;
use super::{ExchangeError, Foreign, PullLimits, PullOptions, tree};
use delugefs_core::ids::BlobId;
use gix::ObjectId;
use gix::objs::{CommitRef, Kind, WriteTo as _};
use gix::oid;
use gix::zlib::{Decompress, FlushDecompress, Status};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes read from the stream or the file at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes that a kind and size take in a pack at most: sizes are below 2^60.
const SIZE_BYTES_MAX: usize = 9;

/// How temporary files begin; whoever opens a repository removes those that a crash has left in `objects/`.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-pull-";

/// Where an object is in a pack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub(super) kind: Kind,
    /// Of the entry, in bytes from the pack's start.
    pub(super) offset: u64,
    /// Of its compressed bytes.
    data: u64,
    /// Uncompressed, in bytes.
    size: u64,
    /// CRC-32 of the entry as it is in the pack.
    pub(super) crc: u32,
}

/// A whole pack, each object well-formed by itself; whether it is complete is another question.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) file: tempfile::NamedTempFile,
    pub(super) objects: HashMap<ObjectId, Stored>,
    /// SHA-1 of the pack, which ends it and names it.
    pub(super) trailer: ObjectId,
}

/// Where a pack comes from: some bytes more, 0 at its end.
pub(super) type Source<'a> = dyn FnMut(&mut [u8]) -> Result<usize, ExchangeError> + 'a;

/// Reads a pack to its end.
pub(super) fn receive(
    source: &mut Source<'_>,
    directory: &Path,
    options: &PullOptions<'_>,
) -> Result<Received, ExchangeError> {
    let limits = &options.limits;
    let file = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .tempfile_in(directory)
        .map_err(ExchangeError::repository)?;
    let mut input = Input::new(source, file.as_file(), limits.pack_bytes_max);
    let count = read_header(&mut input, limits)?;
    let mut objects = HashMap::with_capacity(count.min(100_000) as usize);
    let mut inflate = Decompress::new();
    let mut buffer = Vec::new();
    for _ in 0..count {
        let stored = read_entry(&mut input, &mut inflate, &mut buffer, limits)?;
        let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, stored.kind, &buffer)
            .map_err(|e| ExchangeError::Pack(e.to_string()))?;
        check_object(&id, stored.kind, &buffer, options.foreign)?;
        match objects.entry(id) {
            Entry::Vacant(place) => place.insert(stored),
            Entry::Occupied(_) => return Err(ExchangeError::Pack(format!("object {id} twice"))),
        };
    }
    let trailer = input.finish()?;
    Ok(Received {
        file,
        objects,
        trailer,
    })
}

fn read_header(input: &mut Input<'_, '_>, limits: &PullLimits) -> Result<u32, ExchangeError> {
    let mut header = [0; 12];
    for byte in &mut header {
        *byte = input.byte()?;
    }
    let (start, count) = header.split_at(8);
    if start != b"PACK\0\0\0\x02" {
        return Err(ExchangeError::Pack("not a pack of version 2".into()));
    }
    let count = u32::from_be_bytes([count[0], count[1], count[2], count[3]]);
    if count > limits.objects_max {
        return Err(ExchangeError::Limit {
            what: "objects in one pack",
            limit: u64::from(limits.objects_max),
        });
    }
    Ok(count)
}

/// Reads one object into `buffer`.
fn read_entry(
    input: &mut Input<'_, '_>,
    inflate: &mut Decompress,
    buffer: &mut Vec<u8>,
    limits: &PullLimits,
) -> Result<Stored, ExchangeError> {
    input.crc = crc32fast::Hasher::new();
    let offset = input.offset;
    let (kind, size) = read_size(input, limits)?;
    let data = input.offset;
    inflate.reset();
    buffer.clear();
    // one byte more than announced: what fills it is too long
    buffer.resize(size as usize + 1, 0);
    loop {
        let (taken, made) = (inflate.total_in(), inflate.total_out());
        let status = inflate
            .decompress(
                input.peek()?,
                &mut buffer[made as usize..],
                FlushDecompress::None,
            )
            .map_err(|e| ExchangeError::Pack(e.to_string()))?;
        let taken = (inflate.total_in() - taken) as usize;
        input.consume(taken)?;
        let done = inflate.total_out();
        if done > size || (status == Status::StreamEnd && done < size) {
            return Err(ExchangeError::Pack(
                "an object that is not as long as announced".into(),
            ));
        }
        if status == Status::StreamEnd {
            break;
        }
        if taken == 0 && done == made {
            return Err(ExchangeError::Pack(
                "an object whose bytes have no end".into(),
            ));
        }
    }
    buffer.truncate(size as usize);
    let crc = input.crc.clone().finalize();
    Ok(Stored {
        kind,
        offset,
        data,
        size,
        crc,
    })
}

fn read_size(input: &mut Input<'_, '_>, limits: &PullLimits) -> Result<(Kind, u64), ExchangeError> {
    let mut byte = input.byte()?;
    let (kind, what, limit) = match byte >> 4 & 7 {
        1 => (Kind::Commit, "bytes in a commit", limits.commit_bytes_max),
        2 => (Kind::Tree, "bytes in a tree", limits.tree_bytes_max),
        3 => (Kind::Blob, "bytes in a blob", limits.blob_bytes_max),
        6 | 7 => {
            return Err(ExchangeError::Pack(
                "a delta, which nodes do not send".into(),
            ));
        }
        _ => return Err(ExchangeError::Pack("an object of no known kind".into())),
    };
    let mut size = u64::from(byte & 15);
    let mut length = 1;
    while byte & 0x80 != 0 {
        if length == SIZE_BYTES_MAX {
            return Err(ExchangeError::Pack("a size without end".into()));
        }
        byte = input.byte()?;
        size |= u64::from(byte & 0x7f) << (7 * length - 3);
        length += 1;
    }
    if size > limit {
        return Err(ExchangeError::Limit { what, limit });
    }
    Ok((kind, size))
}

/// What an object can be checked for by itself.
fn check_object(
    id: &oid,
    kind: Kind,
    data: &[u8],
    foreign: &dyn Foreign,
) -> Result<(), ExchangeError> {
    let checked = match (kind, BlobId::from_slice(id.as_bytes())) {
        (Kind::Commit, _) => check_commit(data).map_err(str::to_owned),
        (Kind::Tree, _) => tree::check(data).map_err(str::to_owned),
        (_, Some(blob)) => foreign.check_blob(blob, data),
        (_, None) => Err("an id of another length".to_owned()),
    };
    checked.map_err(|why| ExchangeError::object(id, why))
}

/// A commit must be written exactly as Git writes it.
fn check_commit(data: &[u8]) -> Result<(), &'static str> {
    let bad = "a commit that git would not write";
    let commit = CommitRef::from_bytes(data, gix::hash::Kind::Sha1).map_err(|_| bad)?;
    let same_name = |a: gix::actor::SignatureRef<'_>| !a.name.is_empty() || !a.email.is_empty();
    if !same_name(commit.author().map_err(|_| bad)?)
        || !same_name(commit.committer().map_err(|_| bad)?)
    {
        return Err("a commit without author");
    }
    let mut again = Vec::with_capacity(data.len());
    commit.write_to(&mut again).map_err(|_| bad)?;
    if again != data || data.contains(&0) {
        return Err(bad);
    }
    let parents: Vec<_> = commit.parents().collect();
    let distinct: std::collections::HashSet<_> = parents.iter().collect();
    if distinct.len() == parents.len() {
        Ok(())
    } else {
        Err("a commit with one parent twice")
    }
}

/// The bytes that come in: counted, hashed and kept.
struct Input<'a, 'b> {
    source: &'a mut Source<'b>,
    chunk: Vec<u8>,
    /// What of `chunk` is yet to be used.
    start: usize,
    end: usize,
    /// Bytes used, which is the place in the pack.
    offset: u64,
    limit: u64,
    hasher: gix::hash::Hasher,
    crc: crc32fast::Hasher,
    file: BufWriter<&'a File>,
}

impl<'a, 'b> Input<'a, 'b> {
    fn new(source: &'a mut Source<'b>, file: &'a File, limit: u64) -> Self {
        Self {
            source,
            chunk: vec![0; CHUNK_BYTES],
            start: 0,
            end: 0,
            offset: 0,
            limit,
            hasher: gix::hash::hasher(gix::hash::Kind::Sha1),
            crc: crc32fast::Hasher::new(),
            file: BufWriter::with_capacity(CHUNK_BYTES, file),
        }
    }

    /// At least one byte that is not used yet.
    fn peek(&mut self) -> Result<&[u8], ExchangeError> {
        if self.start == self.end {
            self.start = 0;
            self.end = (self.source)(&mut self.chunk)?;
            if self.end == 0 {
                return Err(ExchangeError::Truncated("a pack"));
            }
        }
        Ok(&self.chunk[self.start..self.end])
    }

    fn consume(&mut self, count: usize) -> Result<(), ExchangeError> {
        let used = &self.chunk[self.start..self.start + count];
        self.hasher.update(used);
        self.crc.update(used);
        self.file
            .write_all(used)
            .map_err(ExchangeError::repository)?;
        self.start += count;
        self.offset += count as u64;
        if self.offset > self.limit {
            return Err(ExchangeError::Limit {
                what: "bytes in one pack",
                limit: self.limit,
            });
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, ExchangeError> {
        let byte = self.peek()?[0];
        self.consume(1)?;
        Ok(byte)
    }

    /// Reads the trailer and the end of the stream.
    fn finish(mut self) -> Result<ObjectId, ExchangeError> {
        let expected = self.hasher.clone().try_finalize();
        let expected = expected.map_err(|e| ExchangeError::Pack(e.to_string()))?;
        for byte in expected.as_bytes() {
            if self.byte()? != *byte {
                return Err(ExchangeError::Pack("its checksum does not match".into()));
            }
        }
        if self.start != self.end || (self.source)(&mut self.chunk)? != 0 {
            return Err(ExchangeError::Pack("bytes after its end".into()));
        }
        self.file.flush().map_err(ExchangeError::repository)?;
        Ok(expected)
    }
}

impl Received {
    /// An object's bytes, from the temporary file.
    fn inflate(&self, stored: &Stored, buffer: &mut Vec<u8>) -> Result<(), ExchangeError> {
        let mut inflate = Decompress::new();
        let mut chunk = vec![0; CHUNK_BYTES.min(stored.size as usize + 256)];
        let mut at = stored.data;
        buffer.clear();
        buffer.resize(stored.size as usize, 0);
        loop {
            let count = self.file.as_file().read_at(&mut chunk, at);
            let count = count.map_err(ExchangeError::repository)?;
            let (taken, made) = (inflate.total_in(), inflate.total_out());
            let status = inflate
                .decompress(
                    &chunk[..count],
                    &mut buffer[made as usize..],
                    FlushDecompress::None,
                )
                .map_err(ExchangeError::repository)?;
            let taken = inflate.total_in() - taken;
            at += taken;
            let whole = inflate.total_out() == stored.size;
            if status == Status::StreamEnd || whole {
                return Ok(());
            }
            if taken == 0 && inflate.total_out() == made {
                return Err(ExchangeError::repository(
                    "a temporary file changed while it was read",
                ));
            }
        }
    }
}

/// A received pack with the repository behind it.
pub(super) struct Quarantine<'a> {
    pub(super) received: &'a Received,
    pub(super) repository: gix::Repository,
}

impl Objects for Quarantine<'_> {
    fn read<'a>(
        &mut self,
        id: &oid,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Option<(Kind, &'a [u8])>, ExchangeError> {
        match self.received.objects.get(id) {
            Some(stored) => {
                self.received.inflate(stored, buffer)?;
                Ok(Some((stored.kind, buffer)))
            }
            None => self.repository.read(id, buffer),
        }
    }

    fn kind_of(&mut self, id: &oid) -> Result<Option<Kind>, ExchangeError> {
        match self.received.objects.get(id) {
            Some(stored) => Ok(Some(stored.kind)),
            None => self.repository.kind_of(id),
        }
    }
}

/// Any bytes as a pack, with small limits: no panic, and what is accepted can be read again.
pub fn fuzz_pack(bytes: &[u8]) {
    let limits = PullLimits {
        objects_max: 1000,
        pack_bytes_max: 1 << 20,
        commit_bytes_max: 10_000,
        tree_bytes_max: 10_000,
        blob_bytes_max: 10_000,
        ..PullLimits::default()
    };
    let options = PullOptions {
        limits,
        ..PullOptions::default()
    };
    let mut rest = bytes;
    let mut source = |buffer: &mut [u8]| {
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        rest = &rest[count..];
        Ok(count)
    };
    if let Ok(received) = receive(&mut source, &std::env::temp_dir(), &options) {
        let mut buffer = Vec::new();
        for (id, stored) in &received.objects {
            assert!(received.inflate(stored, &mut buffer).is_ok(), "{id}");
        }
    }
}
