//! Packs as they are sent (gitformat-pack, version 2): whole objects, no deltas.

use super::ExchangeError;
use super::store::Objects;
use gix::ObjectId;
use gix::objs::Kind;
use gix::zlib::stream::deflate::{Compress, FlushCompress};
use gix::zlib::{Compression, Status};
use std::io::Write;

/// Bytes that deflate hands over at once.
const CHUNK_BYTES: usize = 32 * 1024;

/// Writes and hashes.
struct Hashed<'a> {
    out: &'a mut dyn Write,
    hasher: gix::hash::Hasher,
}

impl Hashed<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), ExchangeError> {
        self.hasher.update(bytes);
        self.out.write_all(bytes).map_err(ExchangeError::Connection)
    }
}

/// Writes the pack of `ids`, which are all there, in that order.
pub(super) fn write(
    objects: &mut dyn Objects,
    ids: &[ObjectId],
    out: &mut dyn Write,
) -> Result<(), ExchangeError> {
    let hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    let mut out = Hashed { out, hasher };
    let count = u32::try_from(ids.len()).map_err(|_| ExchangeError::Limit {
        what: "objects in one pack",
        limit: u64::from(u32::MAX),
    })?;
    out.put(b"PACK\0\0\0\x02")?;
    out.put(&count.to_be_bytes())?;
    let mut deflate = Compress::new(Compression::BEST_SPEED);
    let (mut buffer, mut chunk) = (Vec::new(), vec![0; CHUNK_BYTES]);
    for id in ids {
        let object = objects.read(id, &mut buffer)?;
        let (kind, data) =
            object.ok_or_else(|| ExchangeError::repository(format!("no object {id}")))?;
        out.put(&entry_header(kind, data.len() as u64))?;
        deflate.reset();
        compress(&mut deflate, data, &mut chunk, &mut out)?;
    }
    let trailer = out
        .hasher
        .try_finalize()
        .map_err(ExchangeError::repository)?;
    out.out
        .write_all(trailer.as_bytes())
        .map_err(ExchangeError::Connection)
}

fn compress(
    deflate: &mut Compress,
    mut data: &[u8],
    chunk: &mut [u8],
    out: &mut Hashed<'_>,
) -> Result<(), ExchangeError> {
    loop {
        let (taken, made) = (deflate.total_in(), deflate.total_out());
        let status = deflate
            .compress(data, chunk, FlushCompress::Finish)
            .map_err(ExchangeError::repository)?;
        data = &data[(deflate.total_in() - taken) as usize..];
        out.put(&chunk[..(deflate.total_out() - made) as usize])?;
        if status == Status::StreamEnd {
            return Ok(());
        }
    }
}

/// Kind and size: four bits of size in the first byte, seven in each that follows.
pub(super) fn entry_header(kind: Kind, mut size: u64) -> Vec<u8> {
    let kind = match kind {
        Kind::Commit => 1,
        Kind::Tree => 2,
        Kind::Blob => 3,
        Kind::Tag => 4,
    };
    let mut header = vec![kind << 4 | (size & 15) as u8];
    size >>= 4;
    while size > 0 {
        if let Some(last) = header.last_mut() {
            *last |= 0x80;
        }
        header.push((size & 0x7f) as u8);
        size >>= 7;
    }
    header
}
