//! A pack on its way in: unpacked once while it arrives, every object checked by itself, and kept in a
//! temporary file that vanishes unless it is installed.
//!
//! What is whole is checked as it arrives, and what is a delta once all is here ([`deltas`]). No object can be larger
//! than its own header, or its delta's, says, and these are checked first. A delta's base is in the same pack: what
//! is stored here is complete in itself, and what a peer sends cannot depend on what it guesses to be here.

mod deltas;

use super::object::Checker;
use super::quarantine::Received;
use super::{ExchangeError, PullLimits, PullOptions, PullProgress};
use gix::ObjectId;
use gix::objs::Kind;
use gix::zlib::{Decompress, FlushDecompress, Status};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Bytes read from the stream or the file at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes that a kind and size take in a pack at most: sizes are below 2^60.
const SIZE_BYTES_MAX: usize = 9;

/// How temporary files begin; whoever opens a repository removes those that a crash has left in `objects/`.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-pull-";

/// What an entry of a pack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The object's own bytes.
    Whole(Kind),
    /// A delta on an earlier entry, by its number.
    OnEntry(u32),
    /// A delta on an object that may be anywhere in the pack.
    OnId(ObjectId),
}

/// One entry of a pack on its way in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Null as long as the object's bytes are not known.
    pub(super) id: ObjectId,
    /// `None` as long as the object's bytes are not known.
    pub(super) kind: Option<Kind>,
    /// Where it begins, in bytes from the pack's start.
    pub(super) offset: u64,
    /// CRC-32 of the entry as it is in the pack.
    pub(super) crc: u32,
}

/// A delta that has yet to be applied: on an entry or on an object, and the entry that it makes.
#[derive(Debug, Default)]
struct Deltas {
    on_entry: Vec<(u32, u32)>,
    on_id: Vec<(ObjectId, u32)>,
}

/// Where a pack comes from: some bytes more, 0 at its end.
pub(super) type Source<'a> = dyn FnMut(&mut [u8]) -> Result<usize, ExchangeError> + 'a;

/// Reads a pack to its end.
pub(super) fn receive(
    source: &mut Source<'_>,
    directory: &Path,
    options: &PullOptions<'_>,
) -> Result<Received, ExchangeError> {
    let file = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .tempfile_in(directory)
        .map_err(ExchangeError::repository)?;
    let mut input = Input::new(source, file.as_file(), options.limits.pack_bytes_max);
    let limits = &options.limits;
    let count = read_header(&mut input, limits)?;
    let mut checker = Checker::new(options.foreign, count);
    let (mut entries, deltas) = read_entries(&mut input, count, &mut checker, options)?;
    let bytes = input.offset;
    let trailer = input.finish()?;
    let pack = (file.path(), bytes);
    deltas::resolve(&mut entries, deltas, pack, (&mut checker, options))?;
    Received::new((file, trailer), (entries, &checker), directory)
}

/// Reads all entries; those that are whole are checked.
fn read_entries(
    input: &mut Input<'_, '_>,
    count: u32,
    checker: &mut Checker<'_>,
    options: &PullOptions<'_>,
) -> Result<(Vec<Entry>, Deltas), ExchangeError> {
    let mut entries: Vec<Entry> = Vec::with_capacity(count.min(100_000) as usize);
    let mut deltas = Deltas::default();
    let mut inflate = Decompress::new();
    let mut buffer = Vec::new();
    for number in 0..count {
        input.crc = crc32fast::Hasher::new();
        let offset = input.offset;
        let (form, size) = read_form(input, &entries, &options.limits)?;
        inflate_into(input, &mut inflate, (&mut buffer, size))?;
        let mut entry = Entry {
            id: ObjectId::null(gix::hash::Kind::Sha1),
            kind: None,
            offset,
            crc: input.crc.clone().finalize(),
        };
        match form {
            Form::Whole(kind) => {
                entry.id = checker.check(kind, &buffer)?;
                entry.kind = Some(kind);
            }
            Form::OnEntry(base) => deltas.on_entry.push((base, number)),
            Form::OnId(base) => deltas.on_id.push((base, number)),
        }
        entries.push(entry);
        (options.progress)(PullProgress::Arriving {
            objects: number + 1,
            of: count,
            bytes: input.offset,
        });
    }
    Ok((entries, deltas))
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

/// Reads the compressed bytes of an entry: `size` of them when they are inflated.
fn inflate_into(
    input: &mut Input<'_, '_>,
    inflate: &mut Decompress,
    (buffer, size): (&mut Vec<u8>, u64),
) -> Result<(), ExchangeError> {
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
    Ok(())
}

/// Reads what comes before an entry's compressed bytes, and how many they are when inflated.
fn read_form(
    input: &mut Input<'_, '_>,
    before: &[Entry],
    limits: &PullLimits,
) -> Result<(Form, u64), ExchangeError> {
    let offset = input.offset;
    let first = input.byte()?;
    let size = read_size(input, first)?;
    let form = match first >> 4 & 7 {
        1 => Form::Whole(Kind::Commit),
        2 => Form::Whole(Kind::Tree),
        3 => Form::Whole(Kind::Blob),
        6 => Form::OnEntry(read_base(input, offset, before)?),
        7 => {
            let mut id = [0; 20];
            for byte in &mut id {
                *byte = input.byte()?;
            }
            Form::OnId(ObjectId::Sha1(id))
        }
        _ => return Err(ExchangeError::Pack("an object of no known kind".into())),
    };
    let kind = match form {
        Form::Whole(kind) => Some(kind),
        Form::OnEntry(_) | Form::OnId(_) => None,
    };
    limits.check_size(kind, size)?;
    Ok((form, size))
}

fn read_size(input: &mut Input<'_, '_>, mut byte: u8) -> Result<u64, ExchangeError> {
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
    Ok(size)
}

/// Reads how far back a delta's base begins, and finds it: seven bits in each byte, the highest first, and each
/// byte but the last adds one.
fn read_base(
    input: &mut Input<'_, '_>,
    offset: u64,
    before: &[Entry],
) -> Result<u32, ExchangeError> {
    let mut byte = input.byte()?;
    let mut distance = u64::from(byte & 0x7f);
    for _ in 1..SIZE_BYTES_MAX {
        if byte & 0x80 == 0 {
            break;
        }
        byte = input.byte()?;
        distance = (distance + 1) << 7 | u64::from(byte & 0x7f);
    }
    let base = offset
        .checked_sub(distance)
        .filter(|_| byte & 0x80 == 0)
        .and_then(|base| {
            before
                .binary_search_by_key(&base, |entry| entry.offset)
                .ok()
        });
    match base {
        Some(number) => Ok(number as u32),
        None => Err(ExchangeError::Pack(
            "a delta on what is no object before it".into(),
        )),
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

/// Any bytes as a pack, with small limits: no panic, and what is accepted can be read again. Tried also with the
/// checksum put right, so that a fuzzer gets beyond it.
pub fn fuzz_pack(bytes: &[u8]) {
    fuzz_pack_as_it_is(bytes);
    if let Some((pack, _)) = bytes.split_last_chunk::<20>() {
        let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
        hasher.update(pack);
        if let Ok(trailer) = hasher.try_finalize() {
            fuzz_pack_as_it_is(&[pack, trailer.as_bytes()].concat());
        }
    }
}

fn fuzz_pack_as_it_is(bytes: &[u8]) {
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
        received.assert_readable();
    }
}
