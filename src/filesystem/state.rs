//! All that the filesystem's one lock protects, and how it changes: every change goes through [`State::apply`],
//! which writes the journal first and the memory second.

use super::handles::Handles;
use super::inode::{Place, placed};
use super::journal::{Journal, Record, StagedItem};
use super::namespace::{Namespace, placed_root};
use super::pending::Pending;
use super::staging::{Nonce, Staged, Staging};
use super::{Config, FsError, Inode, Ports, Recovered};
use delugefs_core::change::{Change, Changes};
use delugefs_core::entry::{Entry, Placed};
use delugefs_core::ids::{EntryId, InfoHash};
use delugefs_core::time::Timestamp;
use std::collections::VecDeque;

/// Under the lock.
pub(super) struct State {
    pub(super) names: Namespace,
    pub(super) pending: Pending,
    pub(super) handles: Handles,
    pub(super) journal: Journal,
    pub(super) staging: Staging,
    /// Staging files that nobody needs once the journal is on the disk up to this sequence: until then a power cut
    /// takes it back to where they are what was synced.
    pub(super) leaving: Vec<(u64, Nonce)>,
    /// Closed files that wait to be sealed. May name some that do not any more.
    pub(super) unsealed: VecDeque<Inode>,
    /// What the start found to be done.
    pub(super) recovered: Recovered,
    pub(super) ports: Ports,
    pub(super) config: Config,
}

/// What an inode shall be.
pub(super) struct Target {
    pub(super) inode: Inode,
    /// `None`: nowhere.
    pub(super) place: Option<Place>,
    pub(super) entry: Entry,
}

/// One atomic step.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) targets: Vec<Target>,
    /// Has its first bytes: no longer a secret.
    pub(super) born: Option<Inode>,
    /// An unborn file and what it replaces: that stays visible elsewhere until it is born.
    pub(super) replaces: Option<(Inode, Inode)>,
    /// A content that other nodes do not know, with its `info`.
    pub(super) info: Option<(InfoHash, Vec<u8>)>,
    /// Has no staging file any more.
    pub(super) unstaged: Option<Inode>,
    /// Has got a staging file.
    pub(super) staged: Option<Inode>,
}

impl Plan {
    /// A step for some inodes.
    pub(super) fn of(targets: Vec<Target>) -> Self {
        Self {
            targets,
            ..Self::default()
        }
    }
}

impl State {
    pub(super) fn now(&self) -> Timestamp {
        self.ports.source.now()
    }

    pub(super) fn new_id(&self) -> EntryId {
        EntryId::new(self.ports.source.random())
    }

    pub(super) fn new_nonce(&self) -> Nonce {
        self.ports.source.random()
    }

    /// An inode where it is, for a plan to change.
    pub(super) fn target(&self, inode: Inode) -> Result<Target, FsError> {
        let node = self.names.node(inode)?;
        Ok(Target {
            inode,
            place: node.place.clone(),
            entry: node.entry.clone(),
        })
    }

    /// A directory whose names change now.
    pub(super) fn touched(&self, directory: Inode) -> Result<Target, FsError> {
        let mut target = self.target(directory)?;
        let now = self.now();
        target.entry.attributes.modified = now;
        target.entry.attributes.changed = now;
        Ok(target)
    }

    /// Journals a step, then makes it so. On an error nothing has changed.
    pub(super) fn apply(&mut self, plan: Plan) -> Result<(), FsError> {
        let changes = self.changes(&plan);
        let mut record = Record::default();
        record.push(&changes);
        record.infos.extend(plan.info.clone());
        record.staged = self.staged_items(&plan);
        record.unstaged = self.unstaged_ids(&plan);
        self.append(record)?;
        let has_changes = !changes.is_empty();
        for (id, change) in changes {
            self.pending.push(id, change);
        }
        if let Some((hash, info)) = plan.info.clone() {
            self.pending.push_info(hash, info);
        }
        self.make_so(plan);
        if has_changes {
            self.ports.events.pending();
        }
        Ok(())
    }

    /// Journals a record, unless it says nothing.
    pub(super) fn append(&mut self, mut record: Record) -> Result<(), FsError> {
        if record == Record::default() {
            return Ok(());
        }
        self.check_publishing()?;
        if self.journal.wants_rewriting() && !self.pending.is_in_flight() {
            // then it goes on as it is
            let _ = self.rewrite_journal();
        }
        for parent in record.parents() {
            self.names.ancestors(parent, &mut record.places);
        }
        if let Err(error) = self.journal.append(record) {
            self.stop_if_the_disk_fails(&error);
            return Err(error);
        }
        Ok(())
    }

    /// The journal says all that there is, and no more, durably.
    pub(super) fn rewrite_journal(&mut self) -> Result<(), FsError> {
        let all = self.snapshot();
        self.journal.rewrite(all).inspect_err(|error| {
            tracing::warn!(%error, "the journal could not be rewritten");
            self.stop_if_the_disk_fails(error);
        })
    }

    /// A staging file is not needed any more, as the journal says.
    pub(super) fn dismiss(&mut self, staged: &Staged) {
        match staged.synced {
            true => self.leaving.push((self.journal.sequence(), staged.nonce)),
            false => self.staging.remove(&staged.nonce),
        }
    }

    /// The journal is on the disk up to `sequence`.
    pub(super) fn is_durable_to(&mut self, sequence: u64) {
        let gone = |(needed, _): &mut (u64, Nonce)| *needed <= sequence;
        for (_, nonce) in self.leaving.extract_if(.., gone) {
            self.staging.remove(&nonce);
        }
    }

    /// Whether changes are still taken.
    pub(super) fn check_publishing(&self) -> Result<(), FsError> {
        match self.ports.publishing.goes_on() {
            true => Ok(()),
            false => Err(FsError::ReadOnly),
        }
    }

    /// A journal without room takes records again when there is some; one on a disk that fails does not.
    fn stop_if_the_disk_fails(&self, error: &FsError) {
        if let FsError::Io { message, .. } = error {
            let reason = format!("the journal of this disk cannot be written: {message}");
            self.ports.publishing.stop(reason);
        }
    }

    /// One record that says all that a journal must.
    pub(super) fn snapshot(&self) -> Record {
        let (changes, infos) = self.pending.all();
        let mut record = Record {
            base: Some((self.pending.base.clone(), self.pending.base_sequence)),
            boot: self.ports.source.boot(),
            infos: infos.into_iter().collect(),
            ..Record::default()
        };
        record.push(&changes);
        self.add_staged(&mut record);
        for parent in record.parents() {
            self.names.ancestors(parent, &mut record.places);
        }
        record
    }

    /// Every staging file.
    pub(super) fn add_staged(&self, record: &mut Record) {
        for (inode, node) in self.names.iter() {
            if let Some(placed) = self.names.placed(inode)
                && let Some(staged) = node.staged()
            {
                record.staged.push(staged.item(placed));
                if staged.synced {
                    record.synced.push(node.entry.id);
                }
            }
        }
    }

    /// What of a plan other nodes shall see.
    fn changes(&self, plan: &Plan) -> Changes {
        let mut changes = Changes::new();
        for target in &plan.targets {
            let Ok(node) = self.names.node(target.inode) else {
                continue;
            };
            if node.is_unborn() {
                self.unborn_changes(plan, target, &mut changes);
                continue;
            }
            let hidden = plan.replaces.is_some_and(|(_, old)| old == target.inode);
            if !hidden {
                let before = self.names.placed(target.inode);
                let after = self.after(target);
                changes.push(target.entry.id, Change { before, after });
            }
        }
        changes
    }

    /// An unborn file shows itself when it is born; what it has replaced vanishes then, or when it leaves
    /// that name.
    fn unborn_changes(&self, plan: &Plan, target: &Target, changes: &mut Changes) {
        let Ok(node) = self.names.node(target.inode) else {
            return;
        };
        let is_born = plan.born == Some(target.inode);
        if is_born {
            let after = self.after(target);
            let before = None;
            changes.push(target.entry.id, Change { before, after });
        }
        if is_born || self.uncovers(plan, target) {
            for placed in node.staged().map_or(&[][..], |staged| &staged.replaces) {
                let before = Some(placed.clone());
                let after = None;
                changes.push(placed.entry.id, Change { before, after });
            }
        }
    }

    /// An unborn file leaves its name, to nobody who keeps what it has replaced covered.
    fn uncovers(&self, plan: &Plan, target: &Target) -> bool {
        let moves = self
            .names
            .node(target.inode)
            .is_ok_and(|node| node.place != target.place);
        moves && plan.replaces.is_none_or(|(_, old)| old != target.inode)
    }

    fn after(&self, target: &Target) -> Option<Placed> {
        if target.inode == Inode::ROOT {
            return Some(placed_root(&target.entry));
        }
        let (parent, name) = target.place.as_ref()?;
        let parent = self.names.node(*parent).ok()?.entry.id;
        Some(placed(parent, name, &target.entry))
    }

    /// Staging files whose journal entry changes.
    fn staged_items(&self, plan: &Plan) -> Vec<StagedItem> {
        let mut items = Vec::new();
        for target in &plan.targets {
            let Ok(node) = self.names.node(target.inode) else {
                continue;
            };
            let concerned = node.is_unborn() || plan.staged == Some(target.inode);
            let ends = plan.unstaged == Some(target.inode) || plan.born == Some(target.inode);
            if concerned
                && !ends
                && let Some(staged) = node.staged()
                && let Some(placed) = self.after(target)
            {
                let mut item = staged.item(placed);
                if self.uncovers(plan, target) {
                    item.replaces.clear();
                }
                item.replaces
                    .extend(self.newly_replaced(plan, target.inode));
                items.push(item);
            }
        }
        items
    }

    /// What an unborn file replaces by this plan.
    fn newly_replaced(&self, plan: &Plan, unborn: Inode) -> Vec<Placed> {
        let Some((_, old)) = plan.replaces.filter(|(new, _)| *new == unborn) else {
            return Vec::new();
        };
        let Ok(node) = self.names.node(old) else {
            return Vec::new();
        };
        match node.staged() {
            Some(staged) if staged.unborn => staged.replaces.clone(),
            _ => self.names.placed(old).into_iter().collect(),
        }
    }

    /// Of what has gone before, the journal knows no more: its id may be another's, which came back from elsewhere.
    fn unstaged_ids(&self, plan: &Plan) -> Vec<EntryId> {
        let goes = |target: &&Target| target.place.is_none() && self.is_elsewhere(target);
        let gone = plan.targets.iter().filter(goes);
        let staged = |inode: &Inode| {
            let node = self.names.node(*inode).ok()?;
            node.staged().map(|_| node.entry.id)
        };
        let gone = gone.map(|target| target.inode).chain(plan.unstaged);
        let mut ids: Vec<EntryId> = gone.filter_map(|inode| staged(&inode)).collect();
        ids.dedup();
        ids
    }

    fn make_so(&mut self, plan: Plan) {
        for target in &plan.targets {
            self.note_replaced(&plan, target);
        }
        let moved: Vec<bool> = plan.targets.iter().map(|t| self.is_elsewhere(t)).collect();
        for (target, moved) in plan.targets.iter().zip(&moved) {
            if *moved {
                self.names.detach(target.inode);
            }
        }
        for (target, moved) in plan.targets.into_iter().zip(moved) {
            if let Ok(node) = self.names.node_mut(target.inode) {
                node.entry = target.entry;
            }
            if moved && let Some(place) = target.place {
                self.names.attach(target.inode, place);
            }
        }
    }

    fn is_elsewhere(&self, target: &Target) -> bool {
        let node = self.names.node(target.inode);
        node.is_ok_and(|node| node.place != target.place)
    }

    fn note_replaced(&mut self, plan: &Plan, target: &Target) {
        let uncovers = self.uncovers(plan, target);
        let replaced = self.newly_replaced(plan, target.inode);
        let born = plan.born == Some(target.inode);
        if let Ok(node) = self.names.node_mut(target.inode)
            && let Some(staged) = node.staged_mut()
        {
            if uncovers || born {
                staged.replaces.clear();
            }
            staged.replaces.extend(replaced);
            staged.unborn &= !born;
        }
    }
}
