//! Puts a pack that has passed all checks into the repository: its index, both synced, then visible.

use super::super::pack_reader::{Received, Stored, TEMPORARY_PREFIX};
use super::super::{ExchangeError, refs};
use gix::ObjectId;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// Offsets from here on stand in a table of their own (gitformat-pack, "pack-*.idx").
const LARGE_OFFSET: u64 = 1 << 31;

/// Makes the pack part of the repository, durably. The pack comes before its index: without an index nobody
/// looks at it.
pub(super) fn install(
    repository: &gix::Repository,
    received: Received,
) -> Result<(), ExchangeError> {
    if received.objects.is_empty() {
        return Ok(());
    }
    place(repository, received).map_err(ExchangeError::repository)
}

fn place(repository: &gix::Repository, received: Received) -> io::Result<()> {
    let objects = repository.objects.store_ref().path().to_owned();
    let directory = objects.join("pack");
    std::fs::create_dir_all(&directory)?;
    let index = write_index(&objects, &received)?;
    let name = directory.join(format!("pack-{}.pack", received.trailer));
    received.file.as_file().sync_all()?;
    index.as_file().sync_all()?;
    persist(received.file, &name)?;
    persist(index, &name.with_extension("idx"))?;
    refs::sync_directory(&directory)
}

/// Gives a file its name, readable as other packs are.
fn persist(file: NamedTempFile, name: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o444))?;
    file.persist(name).map(drop).map_err(|error| error.error)
}

fn write_index(objects: &Path, received: &Received) -> io::Result<NamedTempFile> {
    let file = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .tempfile_in(objects)?;
    let mut sorted: Vec<_> = received.objects.iter().collect();
    sorted.sort_unstable_by_key(|(id, _)| **id);
    let mut out = Hashed {
        out: BufWriter::new(file.as_file()),
        hasher: gix::hash::hasher(gix::hash::Kind::Sha1),
    };
    write_tables(&mut out, &sorted)?;
    out.write_all(received.trailer.as_bytes())?;
    let checksum = out
        .hasher
        .clone()
        .try_finalize()
        .map_err(io::Error::other)?;
    out.write_all(checksum.as_bytes())?;
    out.flush()?;
    drop(out);
    Ok(file)
}

/// Version 2: fan-out, ids, CRCs, offsets, large offsets.
fn write_tables(out: &mut dyn Write, sorted: &[(&ObjectId, &Stored)]) -> io::Result<()> {
    out.write_all(b"\xfftOc\0\0\0\x02")?;
    let mut upto = 0;
    for first in 0..=u8::MAX {
        upto += sorted[upto..].partition_point(|(id, _)| id.as_bytes()[0] <= first);
        out.write_all(&(upto as u32).to_be_bytes())?;
    }
    for (id, _) in sorted {
        out.write_all(id.as_bytes())?;
    }
    for (_, stored) in sorted {
        out.write_all(&stored.crc.to_be_bytes())?;
    }
    let mut large = Vec::new();
    for (_, stored) in sorted {
        let offset = if stored.offset < LARGE_OFFSET {
            stored.offset
        } else {
            large.push(stored.offset);
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
