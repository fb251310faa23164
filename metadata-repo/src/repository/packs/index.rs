//! Indexes of packs (gitformat-pack, "pack-*.idx", version 2).

use gix::ObjectId;
use std::io::{self, BufWriter, Write};

/// Offsets from here on stand in a table of their own.
const LARGE_OFFSET: u64 = 1 << 31;

/// What an index says of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) id: ObjectId,
    /// Where it begins in the pack, in bytes.
    pub(crate) offset: u64,
    /// CRC-32 of its bytes in the pack.
    pub(crate) crc: u32,
}

/// Writes the index of the pack that ends with the hash `trailer`. The entries are in order of their ids.
pub(crate) fn write(out: impl Write, entries: &[Entry], trailer: ObjectId) -> io::Result<()> {
    let mut out = Hashed {
        out: BufWriter::new(out),
        hasher: gix::hash::hasher(gix::hash::Kind::Sha1),
    };
    write_tables(&mut out, entries)?;
    out.write_all(trailer.as_bytes())?;
    let checksum = out.hasher.clone().try_finalize();
    out.write_all(checksum.map_err(io::Error::other)?.as_bytes())?;
    out.flush()
}

/// Fan-out, ids, CRCs, offsets, large offsets.
fn write_tables(out: &mut dyn Write, entries: &[Entry]) -> io::Result<()> {
    out.write_all(b"\xfftOc\0\0\0\x02")?;
    for first in 0..=u8::MAX {
        let upto = entries.partition_point(|entry| entry.id.as_bytes()[0] <= first);
        out.write_all(&(upto as u32).to_be_bytes())?;
    }
    for entry in entries {
        out.write_all(entry.id.as_bytes())?;
    }
    for entry in entries {
        out.write_all(&entry.crc.to_be_bytes())?;
    }
    let mut large = Vec::new();
    for entry in entries {
        let offset = if entry.offset < LARGE_OFFSET {
            entry.offset
        } else {
            large.push(entry.offset);
            LARGE_OFFSET | (large.len() as u64 - 1)
        };
        out.write_all(&(offset as u32).to_be_bytes())?;
    }
    large
        .iter()
        .try_for_each(|offset| out.write_all(&offset.to_be_bytes()))
}

struct Hashed<W> {
    out: W,
    hasher: gix::hash::Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn others_read_it_also_beyond_two_gigabytes() {
        let entries: Vec<_> = (0..1000u64)
            .map(|number| {
                let mut id = [(number / 4) as u8; 20];
                id[19] = (number % 4) as u8;
                Entry {
                    id: ObjectId::Sha1(id),
                    offset: 12 + number * 10_000_000,
                    crc: number as u32 * 77,
                }
            })
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        write(file.as_file(), &entries, ObjectId::Sha1([9; 20])).unwrap();
        let index = gix_pack::index::File::at(file.path(), gix::hash::Kind::Sha1).unwrap();
        assert_eq!(index.num_objects() as usize, entries.len());
        assert_eq!(index.pack_checksum(), ObjectId::Sha1([9; 20]));
        for (read, written) in index.iter().zip(&entries) {
            assert_eq!((read.oid, read.pack_offset), (written.id, written.offset));
            assert_eq!(read.crc32, Some(written.crc));
        }
    }
}
