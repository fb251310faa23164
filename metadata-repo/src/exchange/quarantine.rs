//! A received pack that is whole: read like the repository, and not part of it until it is installed.

use super::ExchangeError;
use super::object::Checker;
use super::pack_reader::{Entry, TEMPORARY_PREFIX};
use super::store::Objects;
use crate::repository::packs::cache::DeltaBases;
use crate::repository::packs::index;
use gix::ObjectId;
use gix::objs::Kind;
use gix::oid;
use gix::zlib::Inflate;
use std::path::Path;
use tempfile::NamedTempFile;

/// A whole pack with its index, each object well-formed by itself; whether it is complete is another question.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) pack: NamedTempFile,
    pub(super) index: NamedTempFile,
    /// SHA-1 of the pack, which ends it and names it.
    pub(super) trailer: ObjectId,
    /// Of the objects, in the order of the index.
    kinds: Vec<Kind>,
    /// Whether all that its trees name is in it.
    is_closed: bool,
}

impl Received {
    /// Writes the index of a pack, all of whose entries are known.
    pub(super) fn new(
        (pack, trailer): (NamedTempFile, ObjectId),
        (mut entries, checker): (Vec<Entry>, &Checker<'_>),
        directory: &Path,
    ) -> Result<Self, ExchangeError> {
        entries.sort_unstable_by_key(|entry| entry.id);
        if let Some(twice) = entries.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(ExchangeError::Pack(format!("object {} twice", twice[0].id)));
        }
        let kinds: Vec<_> = entries.iter().filter_map(|entry| entry.kind).collect();
        assert_eq!(kinds.len(), entries.len(), "all entries are known");
        let is_closed = checker.is_closed(|id| {
            let found = entries.binary_search_by_key(id, |entry| entry.id);
            found.ok().map(|number| kinds[number])
        });
        let listed = entries.into_iter().map(|entry| index::Entry {
            id: entry.id,
            offset: entry.offset,
            crc: entry.crc,
        });
        let index = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempfile_in(directory)
            .map_err(ExchangeError::repository)?;
        index::write(index.as_file(), &listed.collect::<Vec<_>>(), trailer)
            .map_err(ExchangeError::repository)?;
        Ok(Self {
            pack,
            index,
            trailer,
            kinds,
            is_closed,
        })
    }

    /// How many objects there are.
    pub(super) fn objects(&self) -> usize {
        self.kinds.len()
    }

    fn open(&self) -> Result<gix_pack::Bundle, ExchangeError> {
        let hash = gix::hash::Kind::Sha1;
        let pack = gix_pack::data::File::at(self.pack.path(), hash);
        let index = gix_pack::index::File::at(self.index.path(), hash);
        Ok(gix_pack::Bundle {
            pack: pack.map_err(ExchangeError::repository)?,
            index: index.map_err(ExchangeError::repository)?,
        })
    }

    /// For the fuzz target: all that was accepted can be read again, and is what it is called.
    pub(super) fn assert_readable(&self) {
        let bundle = self.open().expect("a pack just written");
        let mut cache = gix_pack::cache::Never;
        for (entry, kind) in bundle.index.iter().zip(&self.kinds) {
            let (mut buffer, mut inflate) = (Vec::new(), Inflate::default());
            let found = bundle.find(&entry.oid, &mut buffer, &mut inflate, &mut cache);
            let (object, _) = found.expect("readable").expect("listed");
            assert_eq!(object.kind, *kind);
            let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, *kind, object.data);
            assert_eq!(id.ok(), Some(entry.oid));
        }
    }
}

/// A received pack with the repository behind it.
pub(super) struct Quarantine<'a> {
    received: &'a Received,
    bundle: gix_pack::Bundle,
    inflate: Inflate,
    bases: DeltaBases,
    repository: gix::Repository,
}

impl<'a> Quarantine<'a> {
    pub(super) fn new(
        received: &'a Received,
        repository: gix::Repository,
    ) -> Result<Self, ExchangeError> {
        Ok(Self {
            received,
            bundle: received.open()?,
            inflate: Inflate::default(),
            bases: DeltaBases::new(),
            repository,
        })
    }
}

impl Objects for Quarantine<'_> {
    fn read<'a>(
        &mut self,
        id: &oid,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Option<(Kind, &'a [u8])>, ExchangeError> {
        let Some(place) = self.bundle.index.lookup(id) else {
            return self.repository.read(id, buffer);
        };
        let (inflate, bases) = (&mut self.inflate, &mut self.bases);
        let found = self
            .bundle
            .get_object_by_index(place, buffer, inflate, bases);
        let (object, _) = found.map_err(ExchangeError::repository)?;
        Ok(Some((object.kind, object.data)))
    }

    fn kind_of(&mut self, id: &oid) -> Result<Option<Kind>, ExchangeError> {
        match self.bundle.index.lookup(id) {
            Some(place) => Ok(Some(self.received.kinds[place as usize])),
            None => self.repository.kind_of(id),
        }
    }

    fn has_all_of(&self, tree: &oid) -> bool {
        let kind = self.bundle.index.lookup(tree);
        let kind = kind.map(|place| self.received.kinds[place as usize]);
        self.received.is_closed && kind == Some(Kind::Tree)
    }
}
