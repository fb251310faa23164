//! Packs as they are sent (gitformat-pack, version 2).
//!
//! What lies in a pack here goes as it lies there, compressed, and as a delta if that is what it is, its base goes
//! too, and the client reads such. Its CRC is checked before, so that what this disk has spoilt is an error here, and
//! not only at the client, who hashes every object. The rest is read, hashed and compressed.

use super::ExchangeError;
use super::store::Objects;
use crate::repository::packs::CHAIN_MAX;
use crate::repository::packs::table::Table;
use crate::repository::packs::writer::{Form, entry_header};
use gix::ObjectId;
use gix::zlib::stream::deflate::{Compress, FlushCompress};
use gix::zlib::{Compression, Status};
use std::io::Write;

/// Bytes that deflate hands over at once.
const CHUNK_BYTES: usize = 32 * 1024;

/// Most objects that wait for their bases: beyond, in packs that others have made, deltas are dissolved.
const WAITING_MAX: usize = 4 * CHAIN_MAX as usize;

/// What can be sent as it lies in packs.
pub(super) struct Copies<'a> {
    table: &'a Table,
    sends_deltas: bool,
    /// By the numbers of the table's objects.
    places: Vec<Place>,
}

/// What becomes of an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Stays,
    Goes,
    Went {
        /// In the pack that is sent, in bytes.
        offset: u64,
        /// Deltas between it and one that is whole.
        depth: u8,
    },
}

impl<'a> Copies<'a> {
    pub(super) fn new(table: &'a Table, sends_deltas: bool) -> Self {
        Self {
            table,
            sends_deltas,
            places: vec![Place::Stays; table.objects().len()],
        }
    }

    /// Takes what is in packs; gives the rest.
    fn take(&mut self, ids: &[ObjectId]) -> Vec<ObjectId> {
        let is_other = |id: &&ObjectId| match self.table.find(id) {
            Some(number) => {
                self.places[number] = Place::Goes;
                false
            }
            None => true,
        };
        ids.iter().filter(is_other).copied().collect()
    }

    /// In the order in which they lie.
    fn order(&self) -> Vec<usize> {
        let numbers = 0..self.places.len();
        let mut order: Vec<_> = numbers
            .filter(|number| self.places[*number] == Place::Goes)
            .collect();
        order.sort_unstable_by_key(|number| self.table.objects()[*number].age());
        order
    }

    /// What an object rests on, if that goes too.
    fn base(&self, number: usize) -> Option<usize> {
        let base = self.table.objects()[number].base()?;
        (self.sends_deltas && self.places[base] != Place::Stays).then_some(base)
    }
}

struct Sender<'a> {
    objects: &'a mut dyn Objects,
    out: &'a mut dyn Write,
    hasher: gix::hash::Hasher,
    /// Bytes so far.
    offset: u64,
    deflate: Compress,
    buffer: Vec<u8>,
    chunk: Vec<u8>,
}

/// Writes the pack of `ids`, which are all there and different, in whatever order.
pub(super) fn write(
    (objects, copies): (&mut dyn Objects, Option<Copies<'_>>),
    ids: &[ObjectId],
    out: &mut dyn Write,
) -> Result<(), ExchangeError> {
    let count = u32::try_from(ids.len()).map_err(|_| ExchangeError::Limit {
        what: "objects in one pack",
        limit: u64::from(u32::MAX),
    })?;
    let mut sender = Sender {
        objects,
        out,
        hasher: gix::hash::hasher(gix::hash::Kind::Sha1),
        offset: 0,
        deflate: Compress::new(Compression::BEST_SPEED),
        buffer: Vec::new(),
        chunk: vec![0; CHUNK_BYTES],
    };
    sender.put(b"PACK\0\0\0\x02")?;
    sender.put(&count.to_be_bytes())?;
    match copies {
        None => sender.send_each(ids)?,
        Some(mut copies) => {
            let others = copies.take(ids);
            for number in copies.order() {
                sender.copy_with_bases(&mut copies, number)?;
            }
            sender.send_each(&others)?;
        }
    }
    let trailer = sender.hasher.try_finalize();
    let trailer = trailer.map_err(ExchangeError::repository)?;
    let written = sender.out.write_all(trailer.as_bytes());
    written.map_err(ExchangeError::Connection)
}

impl Sender<'_> {
    /// An offset points back: what an object rests on goes before it.
    fn copy_with_bases(
        &mut self,
        copies: &mut Copies<'_>,
        number: usize,
    ) -> Result<(), ExchangeError> {
        let mut waiting = vec![number];
        while let Some(number) = waiting.last().copied() {
            let base = copies.base(number);
            match base {
                _ if copies.places[number] != Place::Goes => {}
                Some(base) if copies.places[base] == Place::Goes && waiting.len() < WAITING_MAX => {
                    waiting.push(base);
                    continue;
                }
                base => self.copy(copies, number, base)?,
            }
            waiting.pop();
        }
        Ok(())
    }

    /// Sends an object of the table: a delta only where its base went, and no chain gets too long.
    fn copy(
        &mut self,
        copies: &mut Copies<'_>,
        number: usize,
        base: Option<usize>,
    ) -> Result<(), ExchangeError> {
        let (object, at) = (copies.table.objects()[number], self.offset);
        let on = base.and_then(|base| match copies.places[base] {
            Place::Went { offset, depth } if depth < CHAIN_MAX => Some((offset, depth + 1)),
            _ => None,
        });
        let (form, depth) = match (object.kind, on) {
            (Some(kind), _) => (Some(Form::Whole(kind)), 0),
            (None, Some((base, depth))) => (Some(Form::DeltaOn(base)), depth),
            (None, None) => (None, 0),
        };
        match form {
            None => self.send(&object.id)?,
            Some(form) => {
                let stored = copies.table.stored(number);
                let stored = stored.map_err(ExchangeError::repository)?;
                let (size, compressed) = stored.ok_or_else(|| not_here(&object.id))?;
                self.put(&entry_header(form, size, at))?;
                self.put(compressed)?;
            }
        }
        copies.places[number] = Place::Went { offset: at, depth };
        Ok(())
    }

    fn send_each(&mut self, ids: &[ObjectId]) -> Result<(), ExchangeError> {
        ids.iter().try_for_each(|id| self.send(id))
    }

    /// Sends an object whole, wherever it is.
    fn send(&mut self, id: &ObjectId) -> Result<(), ExchangeError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let object = self.objects.read(id, &mut buffer)?;
        let (kind, data) = object.ok_or_else(|| not_here(id))?;
        let found = gix::objs::compute_hash(gix::hash::Kind::Sha1, kind, data);
        if found.map_err(ExchangeError::repository)? != *id {
            return Err(ExchangeError::repository(format!("object {id} is damaged")));
        }
        self.put(&entry_header(Form::Whole(kind), data.len() as u64, 0))?;
        self.deflate.reset();
        self.compress(data)?;
        self.buffer = buffer;
        Ok(())
    }

    fn compress(&mut self, mut data: &[u8]) -> Result<(), ExchangeError> {
        let mut chunk = std::mem::take(&mut self.chunk);
        loop {
            let (taken, made) = (self.deflate.total_in(), self.deflate.total_out());
            let status = self
                .deflate
                .compress(data, &mut chunk, FlushCompress::Finish)
                .map_err(ExchangeError::repository)?;
            data = &data[(self.deflate.total_in() - taken) as usize..];
            self.put(&chunk[..(self.deflate.total_out() - made) as usize])?;
            if status == Status::StreamEnd {
                break;
            }
        }
        self.chunk = chunk;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ExchangeError> {
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        self.out.write_all(bytes).map_err(ExchangeError::Connection)
    }
}

fn not_here(id: &ObjectId) -> ExchangeError {
    ExchangeError::repository(format!("no object {id}"))
}
