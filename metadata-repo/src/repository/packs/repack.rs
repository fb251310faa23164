//! Writing the objects of a table to new packs.

use super::table::Table;
use super::writer::{Form, PACK_BYTES_MAX, PackWriter};
use super::{CHAIN_MAX, delta};
use crate::error::{RepositoryError, Result, git};
use gix::ObjectId;
use gix::objs::{Find as _, Kind};
use gix::zlib::Compression;
use std::path::{Path, PathBuf};

/// A delta is taken only where it has less than this part of the object's own compressed bytes, in percent: each
/// costs time when it is read.
const DELTA_PERCENT_MAX: usize = 75;

/// Most objects that wait for their bases; beyond, in packs that others have made, deltas are dissolved.
const WAITING_MAX: usize = 4 * CHAIN_MAX as usize;

/// A file that goes beside a pack: its extension, and its bytes from the ids in order and the pack's hash.
pub(in super::super) type Beside<'b> =
    &'b dyn Fn(&[ObjectId], ObjectId) -> Result<Option<(&'static str, Vec<u8>)>>;

/// Writes those objects of a table that are wanted, by their numbers, to as many packs as are needed, and makes
/// these part of the repository. Gives their paths.
pub(in super::super) fn write(
    table: &Table,
    wanted: &[bool],
    (repository, objects): (&gix::Repository, &Path),
    (beside, stop): (Beside<'_>, &dyn Fn() -> bool),
) -> Result<Vec<PathBuf>> {
    let mut order: Vec<usize> = (0..wanted.len()).filter(|number| wanted[*number]).collect();
    order.sort_unstable_by_key(|number| table.objects()[*number].age());
    if order.is_empty() {
        return Ok(Vec::new());
    }
    let mut work = Work {
        table,
        wanted,
        repository,
        objects,
        beside,
        writer: PackWriter::new(objects, Compression::DEFAULT)?,
        states: vec![State::default(); wanted.len()],
        finished: Vec::new(),
    };
    for number in order {
        if stop() {
            return Err(RepositoryError::Stopped);
        }
        work.write_with_bases(number)?;
    }
    let Work {
        writer,
        mut finished,
        ..
    } = work;
    finished.push(writer.finish_with(beside)?);
    Ok(finished)
}

/// Where an object has been written.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    is_written: bool,
    /// Deltas between it and one that is whole.
    depth: u8,
    /// In the pack that is being written; 0 for an earlier one.
    offset: u64,
}

struct Work<'a> {
    table: &'a Table,
    wanted: &'a [bool],
    repository: &'a gix::Repository,
    objects: &'a Path,
    beside: Beside<'a>,
    writer: PackWriter,
    states: Vec<State>,
    finished: Vec<PathBuf>,
}

impl Work<'_> {
    /// An offset points back: what an object rests on comes before it.
    fn write_with_bases(&mut self, number: usize) -> Result<()> {
        let mut waiting = vec![number];
        while let Some(number) = waiting.last().copied() {
            let base = self.table.objects()[number].base();
            let base = base.filter(|base| self.wanted[*base] && waiting.len() < WAITING_MAX);
            match base {
                _ if self.states[number].is_written => {}
                Some(base) if !self.states[base].is_written => {
                    waiting.push(base);
                    continue;
                }
                base => self.write_one(number, base)?,
            }
            waiting.pop();
        }
        Ok(())
    }

    fn write_one(&mut self, number: usize, base: Option<usize>) -> Result<()> {
        let object = self.table.objects()[number];
        if self.writer.bytes() + u64::from(object.length) > PACK_BYTES_MAX {
            self.next_pack()?;
        }
        let base = base.filter(|base| {
            let base = self.states[*base];
            base.offset > 0 && base.depth < CHAIN_MAX
        });
        let on = base.map(|base| self.states[base]);
        let offset = match (object.kind, base, on) {
            (None, _, Some(on)) => Some(self.copy(number, Form::DeltaOn(on.offset))?),
            (Some(_), Some(base), Some(on)) => self.write_delta(number, base, on.offset)?,
            _ => None,
        };
        self.states[number] = State {
            is_written: true,
            depth: match (offset, on) {
                (Some(_), Some(on)) => on.depth + 1,
                _ => 0,
            },
            offset: match offset {
                Some(offset) => offset,
                None => self.write_whole(number)?,
            },
        };
        Ok(())
    }

    fn write_whole(&mut self, number: usize) -> Result<u64> {
        let object = self.table.objects()[number];
        if let (Some(kind), Some(_)) = (object.kind, object.pack()) {
            return self.copy(number, Form::Whole(kind));
        }
        let mut buffer = Vec::new();
        let (kind, data) = self.read(number, &mut buffer)?;
        self.writer.add(object.id, Form::Whole(kind), data)
    }

    fn copy(&mut self, number: usize, form: Form) -> Result<u64> {
        let id = self.table.objects()[number].id;
        let stored = self.table.stored(number)?;
        let stored = stored.ok_or_else(|| RepositoryError::Missing(id.to_string()))?;
        self.writer.add_compressed(id, form, stored)
    }

    /// Nothing where a delta does not pay.
    fn write_delta(&mut self, number: usize, base: usize, on: u64) -> Result<Option<u64>> {
        let object = self.table.objects()[number];
        let (mut old, mut new) = (Vec::new(), Vec::new());
        let (old_kind, old) = self.read(number, &mut old)?;
        let (new_kind, new) = self.read(base, &mut new)?;
        let limit = object.length as usize * DELTA_PERCENT_MAX / 100;
        let delta = match delta::encode(new, old, limit) {
            Some(delta) if old_kind == new_kind => delta,
            _ => return Ok(None),
        };
        let form = Form::DeltaOn(on);
        self.writer.add(object.id, form, &delta).map(Some)
    }

    fn read<'b>(&self, number: usize, buffer: &'b mut Vec<u8>) -> Result<(Kind, &'b [u8])> {
        let id = self.table.objects()[number].id;
        let found = self.repository.objects.try_find(&id, buffer);
        let found = found.map_err(git("read an object"))?;
        let found = found.ok_or_else(|| RepositoryError::Missing(id.to_string()))?;
        Ok((found.kind, found.data))
    }

    /// Goes on in another pack. What is in this one is no base for what goes there.
    fn next_pack(&mut self) -> Result<()> {
        let next = PackWriter::new(self.objects, Compression::DEFAULT)?;
        let full = std::mem::replace(&mut self.writer, next);
        self.finished.push(full.finish_with(self.beside)?);
        for state in &mut self.states {
            state.offset = 0;
        }
        Ok(())
    }
}
