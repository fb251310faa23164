//! What is acknowledged and not yet committed, relative to the committed tree.

use super::{BaseView, Group};
use delugefs_core::change::{Change, Changes};
use delugefs_core::entry::{Content, Entry, Kind};
use delugefs_core::ids::{EntryId, InfoHash};
use std::collections::{BTreeMap, BTreeSet};

/// Changes since the base; in two parts while a group of them is being committed.
pub(super) struct Pending {
    /// The committed tree.
    pub(super) base: BaseView,
    /// All changes up to this journal sequence are in it.
    pub(super) base_sequence: u64,
    changes: Changes,
    infos: BTreeMap<InfoHash, Vec<u8>>,
    /// Taken and not yet given back: as many changes lie between the base and `changes`.
    in_flight: Option<Group>,
}

impl Pending {
    pub(super) fn new(base: BaseView, base_sequence: u64) -> Self {
        Self {
            base,
            base_sequence,
            changes: Changes::new(),
            infos: BTreeMap::new(),
            in_flight: None,
        }
    }

    pub(super) fn push(&mut self, id: EntryId, change: Change) {
        self.changes.push(id, change);
    }

    pub(super) fn push_info(&mut self, hash: InfoHash, info: Vec<u8>) {
        self.infos.insert(hash, info);
    }

    /// Entries that differ from the base.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
            + self
                .in_flight
                .as_ref()
                .map_or(0, |group| group.changes.len())
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Everything that waits, as a group; it goes on waiting.
    pub(super) fn group(&self, sequence: u64) -> Option<Group> {
        if self.changes.is_empty() {
            return None;
        }
        let needed = contents(&self.changes);
        let infos = self.infos.iter().filter(|(hash, _)| needed.contains(hash));
        Some(Group {
            base: self.base.clone(),
            changes: self.changes.clone(),
            infos: infos.map(|(hash, info)| (*hash, info.clone())).collect(),
            places: BTreeMap::new(),
            sequence,
        })
    }

    /// The group is on its way; what comes now waits for the next one.
    pub(super) fn sent(&mut self, group: Group) {
        self.changes = Changes::new();
        self.infos.clear();
        self.in_flight = Some(group);
    }

    /// The group on its way is in the tree.
    pub(super) fn committed(&mut self, view: BaseView) {
        if let Some(group) = self.in_flight.take() {
            self.base_sequence = group.sequence;
        }
        self.base = view;
    }

    /// The group on its way is back.
    pub(super) fn returned(&mut self) {
        if let Some(group) = self.in_flight.take() {
            let later = std::mem::replace(&mut self.changes, group.changes);
            self.changes.extend(later);
            self.infos.extend(group.infos);
        }
    }

    /// All that waits is in this tree.
    pub(super) fn rebased(&mut self, view: BaseView, sequence: u64) {
        *self = Self::new(view, sequence);
    }

    /// All changes since the base.
    pub(super) fn all(&self) -> (Changes, BTreeMap<InfoHash, Vec<u8>>) {
        let mut changes = Changes::new();
        let mut infos = self.infos.clone();
        if let Some(group) = &self.in_flight {
            changes = group.changes.clone();
            infos.extend(group.infos.clone());
        }
        changes.extend(self.changes.clone());
        (changes, infos)
    }

    /// Contents that the changes name, as they were and as they are.
    pub(super) fn contents(&self) -> BTreeSet<InfoHash> {
        let mut all = contents(&self.changes);
        if let Some(group) = &self.in_flight {
            all.extend(contents(&group.changes));
        }
        all
    }
}

fn contents(changes: &Changes) -> BTreeSet<InfoHash> {
    let placed = changes
        .iter()
        .flat_map(|(_, change)| [&change.before, &change.after]);
    placed
        .flatten()
        .filter_map(|placed| content(&placed.entry))
        .collect()
}

/// The content that an entry's bytes are in, if they are in the swarm.
pub(super) fn content(entry: &Entry) -> Option<InfoHash> {
    match &entry.kind {
        Kind::File(file) => match &file.content {
            Content::Swarm(content) => Some(content.info_hash),
            Content::Inline(_) => None,
        },
        _ => None,
    }
}
