//! Deltas of a received pack: each is applied once, as soon as its base is known, and what it makes is checked like
//! any other object.
//!
//! From each whole object down to what rests on it, so that of a chain of deltas one object at a time is kept. What
//! is never reached rests on something that is not in the pack, or on itself.

use super::super::object::Checker;
use super::super::{ExchangeError, PullOptions, PullProgress};
use super::{Deltas, Entry};
use crate::repository::packs::{CHAIN_MAX, delta};
use gix::objs::Kind;
use gix::zlib::Inflate;
use gix_pack::data::File;
use std::path::Path;
use std::rc::Rc;

/// A delta whose base is known.
struct Ready {
    number: u32,
    base: Rc<Vec<u8>>,
    /// Deltas between what it makes and an object that is whole.
    depth: u8,
}

struct Resolver<'a, 'f> {
    entries: &'a mut [Entry],
    /// Sorted.
    deltas: Deltas,
    pack: File,
    inflate: Inflate,
    checker: &'a mut Checker<'f>,
    options: &'a PullOptions<'f>,
    /// Bytes that deltas may still make.
    room: u64,
    /// Bytes of bases that wait.
    held: u64,
}

/// Finds out what all deltas of a pack, which has that path and so many bytes, make.
pub(super) fn resolve<'f>(
    entries: &mut [Entry],
    mut deltas: Deltas,
    (path, bytes): (&Path, u64),
    (checker, options): (&mut Checker<'f>, &PullOptions<'f>),
) -> Result<(), ExchangeError> {
    if deltas.on_entry.is_empty() && deltas.on_id.is_empty() {
        return Ok(());
    }
    let numbered = entries.iter().zip(0..);
    let whole = numbered.filter_map(|(entry, number)| Some((number, entry.kind?)));
    let whole: Vec<(u32, Kind)> = whole.collect();
    deltas.on_entry.sort_unstable();
    deltas.on_id.sort_unstable();
    let pack = File::at(path, gix::hash::Kind::Sha1).map_err(ExchangeError::repository)?;
    let mut resolver = Resolver {
        entries,
        deltas,
        pack,
        inflate: Inflate::default(),
        checker,
        options,
        room: bytes.saturating_mul(options.limits.made_per_byte_max),
        held: 0,
    };
    for (number, kind) in whole {
        resolver.resolve_below(number, kind)?;
    }
    if entries.iter().all(|entry| entry.kind.is_some()) {
        Ok(())
    } else {
        Err(ExchangeError::Pack(
            "a delta whose base is not in the pack, or rests on it".into(),
        ))
    }
}

impl Resolver<'_, '_> {
    /// Makes all that rests on a whole object.
    fn resolve_below(&mut self, number: u32, kind: Kind) -> Result<(), ExchangeError> {
        if self.resting_on(number).is_empty() {
            return Ok(());
        }
        let whole = self.read(number)?;
        let mut ready = Vec::new();
        self.prepare((number, whole, 0), &mut ready)?;
        while let Some(Ready {
            number,
            base,
            depth,
        }) = ready.pop()
        {
            if Rc::strong_count(&base) == 1 {
                self.held -= base.len() as u64;
            }
            // an object that is there twice has the same resting on it twice
            if self.entries[number as usize].kind.is_some() {
                continue;
            }
            (self.options.progress)(PullProgress::Checking);
            let made = self.apply(number, &base, kind)?;
            drop(base);
            let id = self.checker.check(kind, &made)?;
            let entry = &mut self.entries[number as usize];
            (entry.id, entry.kind) = (id, Some(kind));
            self.prepare((number, made, depth), &mut ready)?;
        }
        Ok(())
    }

    /// Lets what rests on an object be made next.
    fn prepare(
        &mut self,
        (number, base, depth): (u32, Vec<u8>, u8),
        ready: &mut Vec<Ready>,
    ) -> Result<(), ExchangeError> {
        let resting = self.resting_on(number);
        if resting.is_empty() {
            return Ok(());
        }
        if depth == CHAIN_MAX {
            return Err(ExchangeError::Limit {
                what: "deltas in a chain",
                limit: u64::from(CHAIN_MAX),
            });
        }
        self.held += base.len() as u64;
        let limit = self.options.limits.bases_bytes_max;
        if self.held > limit {
            let what = "bytes that deltas rest on";
            return Err(ExchangeError::Limit { what, limit });
        }
        let base = Rc::new(base);
        ready.extend(resting.into_iter().map(|number| Ready {
            number,
            base: Rc::clone(&base),
            depth: depth + 1,
        }));
        Ok(())
    }

    /// The deltas whose base an entry is, whose object is known.
    fn resting_on(&self, number: u32) -> Vec<u32> {
        let id = self.entries[number as usize].id;
        let mut resting = Vec::new();
        resting.extend(with_base(&self.deltas.on_entry, &number));
        resting.extend(with_base(&self.deltas.on_id, &id));
        resting
    }

    fn apply(&mut self, number: u32, base: &[u8], kind: Kind) -> Result<Vec<u8>, ExchangeError> {
        let delta = self.read(number)?;
        let made = delta::length(&delta).map_err(bad)? as u64;
        self.options.limits.check_size(Some(kind), made)?;
        self.room = self.room.checked_sub(made).ok_or(ExchangeError::Limit {
            what: "bytes made by deltas for each byte of a pack",
            limit: self.options.limits.made_per_byte_max,
        })?;
        delta::apply(base, &delta, made as usize).map_err(bad)
    }

    /// An entry's own bytes: of an object, or of a delta.
    fn read(&mut self, number: u32) -> Result<Vec<u8>, ExchangeError> {
        let offset = self.entries[number as usize].offset;
        let entry = self.pack.entry(offset).map_err(ExchangeError::repository)?;
        // the size has been checked when it arrived
        let mut bytes = vec![0; entry.decompressed_size as usize];
        let read = self
            .pack
            .decompress_entry(&entry, &mut self.inflate, &mut bytes);
        read.map_err(ExchangeError::repository)?;
        Ok(bytes)
    }
}

fn bad(error: delta::DeltaError) -> ExchangeError {
    ExchangeError::Pack(error.to_string())
}

/// Of sorted pairs, the second of those with that first.
fn with_base<'a, K: Ord>(
    deltas: &'a [(K, u32)],
    base: &K,
) -> impl Iterator<Item = u32> + use<'a, K> {
    let start = deltas.partition_point(|(on, _)| on < base);
    let end = start + deltas[start..].partition_point(|(on, _)| on <= base);
    deltas[start..end].iter().map(|(_, number)| *number)
}
