//! Makes a pull visible, after all checks: the pack with its index, then the refs.

use super::super::pack_reader::{Received, Stored, TEMPORARY_PREFIX};
use super::super::refs::Locked;
use super::super::{ExchangeError, GitStore};
use gix::ObjectId;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// Offsets from here on stand in a table of their own (gitformat-pack, "pack-*.idx").
const LARGE_OFFSET: u64 = 1 << 31;

/// Most threads that sync at once: the filesystem makes one journal commit of them.
const SYNC_THREADS_MAX: usize = 4;

/// Makes the pack part of the repository, then moves the refs, each durably before the next. The pack comes
/// before its index: without an index nobody looks at it.
pub(super) fn install(
    store: &dyn GitStore,
    received: Option<Received>,
    refs: Vec<Locked>,
) -> Result<(), ExchangeError> {
    let received = received.filter(|received| !received.objects.is_empty());
    store.sync()?;
    place(store, received, refs).map_err(ExchangeError::repository)
}

fn place(store: &dyn GitStore, received: Option<Received>, refs: Vec<Locked>) -> io::Result<()> {
    let repository = store.git();
    let objects = repository.objects.store_ref().path().to_owned();
    let pack = match received {
        None => None,
        Some(received) => Some((write_index(&objects, &received)?, received)),
    };
    let mut files: Vec<_> = refs.iter().map(Locked::file).collect();
    if let Some((index, received)) = &pack {
        files.extend([index.path(), received.file.path()]);
    }
    sync_files(&files)?;
    if let Some((index, received)) = pack {
        let directory = objects.join("pack");
        std::fs::create_dir_all(&directory)?;
        let name = directory.join(format!("pack-{}.pack", received.trailer));
        persist(received.file, &name)?;
        persist(index, &name.with_extension("idx"))?;
        super::super::refs::sync_directory(&directory)?;
        // whoever sees a ref has to find what it points to
        store.refresh();
    }
    refs.into_iter().try_for_each(Locked::commit)?;
    super::super::refs::sync(&repository)
}

fn sync_files(files: &[&Path]) -> io::Result<()> {
    let each = files.len().div_ceil(SYNC_THREADS_MAX).max(1);
    std::thread::scope(|scope| {
        let sync = |files: &[&Path]| {
            files
                .iter()
                .try_for_each(|file| File::open(file)?.sync_all())
        };
        let threads: Vec<_> = files
            .chunks(each)
            .map(|some| scope.spawn(move || sync(some)))
            .collect();
        let died = |_| Err(io::Error::other("a syncing thread died"));
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(died))
    })
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
