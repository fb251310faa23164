//! What is on the disk, in memory: about 40 bytes a content.

use super::partial::PartialContent;
use delugefs_core::ids::InfoHash;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

/// One content on the disk.
#[derive(Debug)]
pub(crate) enum Slot {
    /// All its bytes; the file's length.
    Complete(u64),
    /// Some of them.
    Partial(Box<PartialSlot>),
}

#[derive(Debug)]
pub(crate) struct PartialSlot {
    /// Bytes the whole content has: so many are reserved.
    pub(crate) length: u64,
    /// Who is fetching it.
    pub(crate) live: Weak<PartialContent>,
    /// A temporary file without a `.have`: nothing of it outlives who is fetching it.
    pub(crate) loose: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: HashMap<InfoHash, Slot>,
    /// Complete, perhaps not yet safe from a power cut; each with a number that tells one sealing from the
    /// next of the same content.
    unsynced: HashMap<InfoHash, u64>,
    /// A sync of these failed: later syncs would succeed without the bytes being there.
    suspect: HashSet<InfoHash>,
    /// Bytes of all slots.
    used: u64,
    sealings: u64,
}

impl Slot {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Complete(length) => *length,
            Self::Partial(partial) => partial.length,
        }
    }
}

impl Index {
    pub(crate) fn get(&self, content: &InfoHash) -> Option<&Slot> {
        self.slots.get(content)
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&InfoHash, &Slot)> {
        self.slots.iter()
    }

    pub(crate) fn live(&self, content: &InfoHash) -> Option<Arc<PartialContent>> {
        match self.slots.get(content)? {
            Slot::Complete(_) => None,
            Slot::Partial(partial) => partial.live.upgrade(),
        }
    }

    /// It was being fetched into a temporary file, and whoever did is just going away.
    pub(crate) fn is_abandoned(&self, content: &InfoHash) -> bool {
        let over = |partial: &PartialSlot| partial.loose && partial.live.strong_count() == 0;
        matches!(self.get(content), Some(Slot::Partial(partial)) if over(partial))
    }

    /// It is being fetched into a temporary file, or was until a moment ago.
    pub(crate) fn is_loose(&self, content: &InfoHash) -> bool {
        matches!(self.get(content), Some(Slot::Partial(partial)) if partial.loose)
    }

    /// This very handle is the one that fetches it.
    pub(crate) fn is_fetched_by(&self, content: &InfoHash, who: &PartialContent) -> bool {
        let own = |partial: &PartialSlot| std::ptr::eq(partial.live.as_ptr(), who);
        matches!(self.get(content), Some(Slot::Partial(partial)) if own(partial))
    }

    pub(crate) fn insert(&mut self, content: InfoHash, slot: Slot) {
        self.remove(&content);
        self.used += slot.length();
        self.slots.insert(content, slot);
    }

    /// A complete content whose bytes or name may be in memory only.
    pub(crate) fn insert_unsynced(&mut self, content: InfoHash, length: u64) {
        self.insert(content, Slot::Complete(length));
        self.sealings += 1;
        self.unsynced.insert(content, self.sealings);
    }

    pub(crate) fn remove(&mut self, content: &InfoHash) {
        if let Some(slot) = self.slots.remove(content) {
            self.used -= slot.length();
        }
        self.unsynced.remove(content);
        self.suspect.remove(content);
    }

    pub(crate) fn is_durable(&self, content: &InfoHash) -> bool {
        matches!(self.get(content), Some(Slot::Complete(_))) && !self.unsynced.contains_key(content)
    }

    /// What a sync is worth trying for.
    pub(crate) fn unsynced(&self) -> Vec<(InfoHash, u64)> {
        let all = self.unsynced.iter();
        all.filter(|(content, _)| !self.suspect.contains(*content))
            .map(|(content, sealing)| (*content, *sealing))
            .collect()
    }

    /// True if it is still the same sealing.
    pub(crate) fn set_durable(&mut self, content: &InfoHash, sealing: u64) -> bool {
        let same = self.unsynced.get(content) == Some(&sealing);
        if same {
            self.unsynced.remove(content);
        }
        same
    }

    pub(crate) fn set_suspect(&mut self, content: InfoHash) {
        self.suspect.insert(content);
    }

    /// A sync of everything failed.
    pub(crate) fn doubt_all(&mut self) {
        let complete = self.slots.iter();
        let complete = complete.filter(|(_, slot)| matches!(slot, Slot::Complete(_)));
        for (content, _) in complete {
            self.sealings += 1;
            self.unsynced.insert(*content, self.sealings);
            self.suspect.insert(*content);
        }
    }

    pub(crate) fn is_suspect(&self, content: &InfoHash) -> bool {
        self.suspect.contains(content)
    }

    pub(crate) fn clear_suspect(&mut self, content: &InfoHash) {
        self.suspect.remove(content);
    }
}
