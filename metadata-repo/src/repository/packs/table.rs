//! What is in the packs and loose files that shall become one: where each object is, and on which it rests.

use super::CHAIN_MAX;
use super::plan::JOINED_MAX;
use crate::error::{RepositoryError, Result, git, io};
use gix::ObjectId;
use gix::objs::Kind;
use gix_pack::data::entry::Header;
use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

/// Stands for no pack: a file of its own.
const LOOSE: u16 = u16::MAX;

/// Stands for no base.
const NONE: u32 = u32::MAX;

/// An object, once, wherever it is found first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object {
    pub(crate) id: ObjectId,
    /// What it is; `None` for a delta, which is what its base is.
    pub(crate) kind: Option<Kind>,
    /// Deltas that rest on it, one on the other.
    height: u8,
    pack: u16,
    base: u32,
    crc: u32,
    /// Of its entry or file, in bytes.
    pub(crate) length: u32,
    offset: u64,
}

impl Object {
    pub(crate) fn base(&self) -> Option<usize> {
        (self.base != NONE).then_some(self.base as usize)
    }

    /// Which source it is in.
    pub(crate) fn pack(&self) -> Option<usize> {
        (self.pack != LOOSE).then_some(usize::from(self.pack))
    }

    /// Sorts the newest first: what is loose, then pack by pack in their own order.
    pub(crate) fn age(&self) -> (u16, u64) {
        (LOOSE - self.pack, self.offset)
    }
}

/// Objects by their ids.
pub(crate) struct Table {
    objects: Vec<Object>,
    packs: Vec<Source>,
}

struct Source {
    data: gix_pack::data::File,
    has_deltas: bool,
}

/// The packs in a repository's directory of objects, each with its number of objects.
pub(crate) fn packs(objects: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut packs = Vec::new();
    for entry in fs::read_dir(objects.join("pack")).map_err(io("list packs"))? {
        let path = entry.map_err(io("list packs"))?.path();
        let is_pack = path.extension().is_some_and(|it| it == "pack");
        if is_pack && path.with_extension("idx").exists() {
            let objects = open_index(&path)?.num_objects();
            packs.push((path, u64::from(objects)));
        }
    }
    packs.sort_unstable();
    Ok(packs)
}

/// The index of a pack.
pub(crate) fn open_index(pack: &Path) -> Result<gix_pack::index::File> {
    let index = gix_pack::index::File::at(pack.with_extension("idx"), gix::hash::Kind::Sha1);
    index.map_err(git("open a pack's index"))
}

impl Table {
    /// Reads the list of all packs; nothing where they have more objects than memory is given to.
    pub(crate) fn of_all_packs(objects: &Path) -> Result<Option<Self>> {
        let mut packs = packs(objects)?;
        if packs.iter().map(|(_, objects)| objects).sum::<u64>() > JOINED_MAX {
            return Ok(None);
        }
        // what is in several is taken from the largest, where most of its neighbours are
        packs.sort_by_key(|(_, objects)| Reverse(*objects));
        let paths: Vec<_> = packs.into_iter().map(|(path, _)| path).collect();
        Self::read(&paths, &[], objects).map(Some)
    }

    /// Reads the lists of packs, the oldest first, and of loose objects.
    ///
    /// An object that is in several is taken from the first: so what it rests on, which is in the same pack, is
    /// never taken from a later one, and no circle of deltas comes about.
    pub(crate) fn read(packs: &[PathBuf], loose: &[ObjectId], objects: &Path) -> Result<Self> {
        let (mut found, mut sources) = (Vec::new(), Vec::new());
        for (number, path) in packs.iter().enumerate() {
            let number = u16::try_from(number).map_err(git("number the packs"))?;
            sources.push(read_pack(path, number, &mut found)?);
        }
        let store = gix::odb::loose::Store::at(objects, gix::hash::Kind::Sha1);
        for id in loose {
            found.push((read_loose(&store, *id)?, None));
        }
        found.sort_unstable_by_key(|(object, _)| (object.id, object.pack));
        found.dedup_by_key(|(object, _)| object.id);
        let mut table = Self {
            objects: found.iter().map(|(object, _)| *object).collect(),
            packs: sources,
        };
        for (number, (_, base)) in found.iter().enumerate() {
            if let Some(base) = base {
                let base = table.find(base).ok_or_else(|| missing(base))?;
                table.objects[number].base = base as u32;
            }
        }
        for number in 0..table.objects.len() {
            table.raise(number);
        }
        Ok(table)
    }

    pub(crate) fn objects(&self) -> &[Object] {
        &self.objects
    }

    pub(crate) fn find(&self, id: &ObjectId) -> Option<usize> {
        let found = self.objects.binary_search_by_key(id, |object| object.id);
        found.ok()
    }

    /// Whether a pack has deltas: then what came after what has been found before.
    pub(crate) fn has_deltas(&self, pack: usize) -> bool {
        self.packs[pack].has_deltas
    }

    /// Lets `old` be written as a delta on `new`, if both are here, `old` is whole, and no chain gets too long.
    pub(crate) fn link(&mut self, old: &ObjectId, new: &ObjectId) {
        let (Some(old), Some(new)) = (self.find(old), self.find(new)) else {
            return;
        };
        if self.objects[old].base != NONE {
            return;
        }
        let room = CHAIN_MAX.saturating_sub(self.objects[old].height);
        let mut at = Some(new);
        for _ in 0..room {
            match at {
                Some(at) if at == old => return,
                Some(number) => at = self.objects[number].base(),
                None => break,
            }
        }
        if at.is_none() {
            self.objects[old].base = new as u32;
            self.raise(old);
        }
    }

    /// Notes that an object, with what rests on it, rests on its base.
    fn raise(&mut self, number: usize) {
        let mut height = self.objects[number].height;
        let mut at = number;
        while let Some(base) = self.objects[at].base() {
            height = height.saturating_add(1);
            if self.objects[base].height >= height || height == u8::MAX {
                break;
            }
            self.objects[base].height = height;
            at = base;
        }
    }

    /// An object's entry as its pack has it: size, then the compressed bytes. `None` for a loose object.
    pub(crate) fn stored(&self, number: usize) -> Result<Option<(u64, &[u8])>> {
        let object = &self.objects[number];
        let Some(pack) = object.pack() else {
            return Ok(None);
        };
        let data = &self.packs[pack].data;
        let end = object.offset + u64::from(object.length);
        let crc = data.entry_slice(object.offset..end).map(crc32fast::hash);
        if crc != Some(object.crc) {
            return Err(damaged(&object.id));
        }
        let entry = data
            .entry(object.offset)
            .map_err(git("read a pack's entry"))?;
        let compressed = data.entry_slice(entry.data_offset..end);
        let compressed = compressed.ok_or_else(|| damaged(&object.id))?;
        Ok(Some((entry.decompressed_size, compressed)))
    }
}

fn missing(id: &ObjectId) -> RepositoryError {
    RepositoryError::Missing(id.to_string())
}

fn damaged(id: &ObjectId) -> RepositoryError {
    crate::error::malformed(id, "its checksum in the pack does not match")
}

type Found = (Object, Option<ObjectId>);

fn read_pack(path: &Path, number: u16, found: &mut Vec<Found>) -> Result<Source> {
    let index = open_index(path)?;
    let data = gix_pack::data::File::at(path, gix::hash::Kind::Sha1);
    let data = data.map_err(git("open a pack"))?;
    let mut entries: Vec<_> = index.iter().collect();
    entries.sort_unstable_by_key(|entry| entry.pack_offset);
    let end = data.pack_end() as u64;
    let mut has_deltas = false;
    for (place, entry) in entries.iter().enumerate() {
        let next = entries.get(place + 1).map_or(end, |next| next.pack_offset);
        let header = data.entry(entry.pack_offset);
        let header = header.map_err(git("read a pack's entry"))?.header;
        let base = match header {
            Header::OfsDelta { base_distance } => {
                let at = Header::verified_base_pack_offset(entry.pack_offset, base_distance);
                let at = at.ok_or_else(|| damaged(&entry.oid))?;
                let base = entries.binary_search_by_key(&at, |entry| entry.pack_offset);
                Some(entries[base.map_err(|_| damaged(&entry.oid))?].oid)
            }
            Header::RefDelta { base_id } => Some(base_id),
            _ => None,
        };
        has_deltas |= base.is_some();
        let object = Object {
            id: entry.oid,
            kind: header.as_kind(),
            height: 0,
            pack: number,
            base: NONE,
            crc: entry.crc32.ok_or_else(|| damaged(&entry.oid))?,
            length: u32::try_from(next - entry.pack_offset).map_err(|_| damaged(&entry.oid))?,
            offset: entry.pack_offset,
        };
        found.push((object, base));
    }
    Ok(Source { data, has_deltas })
}

fn read_loose(store: &gix::odb::loose::Store, id: ObjectId) -> Result<Object> {
    let header = store
        .try_header(&id)
        .map_err(git("read an object's header"))?;
    let (_, kind) = header.ok_or_else(|| missing(&id))?;
    let file = fs::metadata(store.object_path(&id)).map_err(io("stat an object"))?;
    Ok(Object {
        id,
        kind: Some(kind),
        height: 0,
        pack: LOOSE,
        base: NONE,
        crc: 0,
        length: u32::try_from(file.len()).unwrap_or(u32::MAX),
        offset: 0,
    })
}
