//! What a journal record says.

use super::codec::{Malformed, Reader, Writer};
use crate::filesystem::staging::Nonce;
use crate::filesystem::{BaseView, TOKEN_BYTES_MAX};
use delugefs_core::change::Changes;
use delugefs_core::entry::Placed;
use delugefs_core::ids::{EntryId, InfoHash};
use delugefs_core::name::Name;
use std::collections::BTreeMap;

/// Most items of one kind in a record: a remote change may touch many, a local operation touches few.
const ITEMS_MAX: usize = 1 << 22;

/// Most bytes of one `info` dictionary: the largest number of pieces that a peer can be told of, twice over.
const INFO_BYTES_MAX: usize = 8 << 20;

/// A change, without the entry as it was: the committed tree still has that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::filesystem) struct Edit {
    pub(in crate::filesystem) id: EntryId,
    /// Where it was; `None`: nowhere.
    pub(in crate::filesystem) before: Option<(EntryId, Name)>,
    /// Where it is now, and what it is; `None`: gone.
    pub(in crate::filesystem) after: Option<Placed>,
}

/// A file has a staging file. The latest of an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::filesystem) struct StagedItem {
    pub(in crate::filesystem) nonce: Nonce,
    pub(in crate::filesystem) placed: Placed,
    pub(in crate::filesystem) unborn: bool,
    pub(in crate::filesystem) privileged: bool,
    pub(in crate::filesystem) replaces: Vec<Placed>,
}

/// One atomic step. All of it happened, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::filesystem) struct Record {
    /// Given when it is appended; grows.
    pub(in crate::filesystem) sequence: u64,
    /// From here on the committed tree is this, with all changes up to that sequence in it.
    pub(in crate::filesystem) base: Option<(BaseView, u64)>,
    /// The kernel's boot in which the records that follow were written.
    pub(in crate::filesystem) boot: Option<[u8; 16]>,
    /// Where the directories are that the rest mentions.
    pub(in crate::filesystem) places: BTreeMap<EntryId, (EntryId, Name)>,
    pub(in crate::filesystem) edits: Vec<Edit>,
    pub(in crate::filesystem) infos: Vec<(InfoHash, Vec<u8>)>,
    pub(in crate::filesystem) staged: Vec<StagedItem>,
    /// These entries have no staging file any more.
    pub(in crate::filesystem) unstaged: Vec<EntryId>,
    /// The staging files of these entries are on the disk.
    pub(in crate::filesystem) synced: Vec<EntryId>,
}

impl Record {
    /// Adds changes.
    pub(in crate::filesystem) fn push(&mut self, changes: &Changes) {
        self.edits.extend(changes.iter().map(|(id, change)| Edit {
            id,
            before: change.before.as_ref().map(|b| (b.parent, b.name.clone())),
            after: change.after.clone(),
        }));
    }

    /// All directories that it mentions.
    pub(in crate::filesystem) fn parents(&self) -> Vec<EntryId> {
        let edits = self.edits.iter().flat_map(|edit| {
            let after = edit.after.as_ref().map(|placed| placed.parent);
            edit.before
                .as_ref()
                .map(|(parent, _)| *parent)
                .into_iter()
                .chain(after)
        });
        let staged = self.staged.iter().flat_map(|staged| {
            let replaced = staged.replaces.iter().map(|placed| placed.parent);
            replaced.chain([staged.placed.parent])
        });
        edits.chain(staged).collect()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.u64(self.sequence);
        to.byte(u8::from(self.base.is_some()) | u8::from(self.boot.is_some()) << 1);
        if let Some((view, sequence)) = &self.base {
            to.bytes(&view.token);
            to.raw(view.tree.as_bytes());
            to.u64(*sequence);
        }
        if let Some(boot) = &self.boot {
            to.raw(boot);
        }
        to.u32(self.places.len() as u32);
        for (id, place) in &self.places {
            to.raw(id.as_bytes());
            encode_place(&mut to, place);
        }
        self.encode_edits(&mut to);
        self.encode_staged(&mut to);
        to.0
    }

    fn encode_edits(&self, to: &mut Writer) {
        to.u32(self.edits.len() as u32);
        for edit in &self.edits {
            to.raw(edit.id.as_bytes());
            to.byte(u8::from(edit.before.is_some()) | u8::from(edit.after.is_some()) << 1);
            if let Some(place) = &edit.before {
                encode_place(to, place);
            }
            if let Some(placed) = &edit.after {
                to.placed(placed);
            }
        }
        to.u32(self.infos.len() as u32);
        for (hash, info) in &self.infos {
            to.raw(hash.as_bytes());
            to.bytes(info);
        }
    }

    fn encode_staged(&self, to: &mut Writer) {
        to.u32(self.staged.len() as u32);
        for staged in &self.staged {
            to.raw(&staged.nonce);
            to.placed(&staged.placed);
            to.byte(u8::from(staged.unborn) | u8::from(staged.privileged) << 1);
            to.u32(staged.replaces.len() as u32);
            for placed in &staged.replaces {
                to.placed(placed);
            }
        }
        for ids in [&self.unstaged, &self.synced] {
            to.u32(ids.len() as u32);
            for id in ids {
                to.raw(id.as_bytes());
            }
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        let mut record = Self {
            sequence: from.u64()?,
            ..Self::default()
        };
        let flags = from.byte()?;
        if flags & 1 != 0 {
            let token = from.bytes(TOKEN_BYTES_MAX)?.to_vec();
            let tree = from.tree()?;
            record.base = Some((BaseView { token, tree }, from.u64()?));
        }
        if flags & 2 != 0 {
            record.boot = Some(from.array()?);
        }
        for _ in 0..from.count(ITEMS_MAX)? {
            let id = from.id()?;
            record.places.insert(id, decode_place(&mut from)?);
        }
        record.decode_edits(&mut from)?;
        record.decode_staged(&mut from)?;
        from.0.is_empty().then_some(record).ok_or(Malformed)
    }

    fn decode_edits(&mut self, from: &mut Reader<'_>) -> Result<(), Malformed> {
        for _ in 0..from.count(ITEMS_MAX)? {
            let id = from.id()?;
            let flags = from.byte()?;
            let before = (flags & 1 != 0).then(|| decode_place(from)).transpose()?;
            let after = (flags & 2 != 0).then(|| from.placed()).transpose()?;
            self.edits.push(Edit { id, before, after });
        }
        for _ in 0..from.count(ITEMS_MAX)? {
            let hash = from.hash()?;
            self.infos
                .push((hash, from.bytes(INFO_BYTES_MAX)?.to_vec()));
        }
        Ok(())
    }

    fn decode_staged(&mut self, from: &mut Reader<'_>) -> Result<(), Malformed> {
        for _ in 0..from.count(ITEMS_MAX)? {
            let nonce = from.array()?;
            let placed = from.placed()?;
            let flags = from.byte()?;
            let mut replaces = Vec::new();
            for _ in 0..from.count(ITEMS_MAX)? {
                replaces.push(from.placed()?);
            }
            self.staged.push(StagedItem {
                nonce,
                placed,
                unborn: flags & 1 != 0,
                privileged: flags & 2 != 0,
                replaces,
            });
        }
        for ids in [&mut self.unstaged, &mut self.synced] {
            for _ in 0..from.count(ITEMS_MAX)? {
                ids.push(from.id()?);
            }
        }
        Ok(())
    }
}

fn encode_place(to: &mut Writer, (parent, name): &(EntryId, Name)) {
    to.raw(parent.as_bytes());
    to.bytes(name.as_bytes());
}

fn decode_place(from: &mut Reader<'_>) -> Result<(EntryId, Name), Malformed> {
    Ok((from.id()?, from.name()?))
}
