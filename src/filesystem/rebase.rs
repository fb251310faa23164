//! Moving to another committed tree: what other nodes have done becomes visible.
//!
//! The names are made what the new tree says, entry by entry; what exists only here (files being written or not
//! yet hashed) stays, and gives way where a name is wanted twice. Nothing that is open loses its bytes: new
//! bytes of a file are a new inode, and the old one is left to those who have it.

use super::inode::{Node, Place};
use super::journal::Record;
use super::state::State;
use super::{BaseView, Filesystem, FsError, Group, Inode, Invalidation, ViewDiff};
use delugefs_core::change::{Change, Changes};
use delugefs_core::conflict::numbered_conflict_name;
use delugefs_core::entry::{Kind, Placed, Written};
use delugefs_core::ids::{EntryId, TreeId};
use delugefs_core::name::Name;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

impl Filesystem {
    /// Moves to another committed tree. `commit` is called under the namespace lock with the base and what
    /// is pending: it commits that, and answers the difference from the base to the new view.
    /// On its error nothing has changed and the changes wait again. No group may be on its way.
    pub fn rebase<E: From<FsError>>(
        &self,
        commit: impl FnOnce(&BaseView, Option<&Group>) -> Result<ViewDiff, E>,
    ) -> Result<Vec<Invalidation>, E> {
        let (invalidations, is_precious) = self.lock().rebase_by(commit)?;
        if is_precious {
            // Before anything else is committed: or after a power cut its staging file would be taken for one of what is
            // committed under its old id. Where it fails, nothing more is.
            let _ = self.sync_journal();
        }
        Ok(invalidations)
    }

    /// Moves to a committed tree with which this node's own commit has the work of others: `go_over` answers the difference
    /// to it. What is pending is committed before, by `commit`, and the journal is durable: or after a power cut its end
    /// might be lost, and what others have made of a file be taken for the commit of what is written to it here.
    /// On an error of `go_over` all is as `commit` has left it. No group may be on its way.
    pub fn go_over<E: From<FsError>>(
        &self,
        commit: impl FnOnce(&BaseView, Option<&Group>) -> Result<ViewDiff, E>,
        go_over: impl FnOnce(&BaseView) -> Result<ViewDiff, E>,
    ) -> Result<Vec<Invalidation>, E> {
        let mut state = self.lock();
        state.check_publishing()?;
        let (mut told, _) = state.rebase_by(commit)?;
        state.rewrite_journal()?;
        let (more, _) = state.rebase_by(|base, group| match group {
            None => go_over(base),
            Some(_) => Err(FsError::Invalid.into()),
        })?;
        told.extend(more);
        Ok(told)
    }
}

impl State {
    fn rebase_by<E: From<FsError>>(
        &mut self,
        commit: impl FnOnce(&BaseView, Option<&Group>) -> Result<ViewDiff, E>,
    ) -> Result<(Vec<Invalidation>, bool), E> {
        if self.pending.is_in_flight() {
            return Err(FsError::Invalid.into());
        }
        let group = self.group();
        let diff = commit(&self.pending.base, group.as_ref())?;
        Ok(self.rebase(group, diff))
    }

    /// What the kernel is to forget; and whether a file that was synced goes on as another entry.
    fn rebase(&mut self, group: Option<Group>, diff: ViewDiff) -> (Vec<Invalidation>, bool) {
        let sequence = self.journal.sequence();
        let mut rebase = Rebase::new(self, group, diff.changes, diff.directories);
        rebase.uncover();
        rebase.leave();
        rebase.arrive();
        rebase.house();
        rebase.pending_of(diff.view, sequence);
        rebase.remove_directories();
        rebase.finish()
    }

    /// A name that is free in a loaded directory: this one, else a conflict name.
    pub(super) fn free_name(&self, parent: Inode, name: &Name, written: &Written) -> Name {
        let taken = |name: &Name| {
            let names = self.names.loaded(parent);
            names.is_some_and(|names| names.contains_key(name))
        };
        if !taken(name) {
            return name.clone();
        }
        let mut numbered = (1..).map(|nth| numbered_conflict_name(name, written, nth));
        let free = numbered.find(|name| !taken(name));
        free.unwrap_or_else(|| name.clone())
    }
}

/// A rebase under way.
struct Rebase<'a> {
    state: &'a mut State,
    /// What each entry that may differ shall be.
    targets: BTreeMap<EntryId, Option<Placed>>,
    trees: HashMap<EntryId, TreeId>,
    /// Detached inodes that `targets` gives a place.
    floating: BTreeMap<EntryId, Inode>,
    /// Local files that have lost their name to another version.
    homeless: Vec<(Inode, Place)>,
    /// Directories that the tree has no more.
    removed: BTreeSet<Inode>,
    record: Record,
    invalid: Vec<Invalidation>,
    /// A file that was synced has got another id.
    is_precious: bool,
}

impl<'a> Rebase<'a> {
    fn new(
        state: &'a mut State,
        group: Option<Group>,
        changes: Changes,
        trees: Vec<(EntryId, TreeId)>,
    ) -> Self {
        let own = group.map(|group| group.changes).unwrap_or_default();
        let own = own.into_iter().map(|(id, change)| (id, change.before));
        let mut targets: BTreeMap<_, _> = own.collect();
        targets.extend(changes.into_iter().map(|(id, change)| (id, change.after)));
        Self {
            state,
            targets,
            trees: trees.into_iter().collect(),
            floating: BTreeMap::new(),
            homeless: Vec::new(),
            removed: BTreeSet::new(),
            record: Record::default(),
            invalid: Vec::new(),
            is_precious: false,
        }
    }

    /// What unborn files cover may have changed in the meantime. Changed bytes or another place lift the
    /// cover: an edit outlives a replacement that had not seen it.
    fn uncover(&mut self) {
        let unborn: Vec<Inode> = self.inodes_with(Node::is_unborn);
        for inode in unborn {
            let targets = &mut self.targets;
            let Ok(node) = self.state.names.node_mut(inode) else {
                continue;
            };
            let Some(staged) = node.staged_mut() else {
                continue;
            };
            staged.replaces.retain_mut(|placed| {
                let Some(target) = targets.get(&placed.entry.id) else {
                    return true;
                };
                let Some(now) = target.clone().filter(|now| only_attributes(placed, now)) else {
                    return false;
                };
                targets.remove(&placed.entry.id);
                *placed = now;
                true
            });
        }
    }

    fn inodes_with(&self, want: impl Fn(&Node) -> bool) -> Vec<Inode> {
        let nodes = self.state.names.iter();
        let mut found: Vec<Inode> = nodes.filter(|(_, n)| want(n)).map(|(i, _)| i).collect();
        found.sort_unstable();
        found
    }

    /// Takes everything from its place that has another one now, or none, or other bytes.
    fn leave(&mut self) {
        let targets = std::mem::take(&mut self.targets);
        for (id, tree) in &self.trees {
            if let Some(inode) = self.state.names.inode_of(*id) {
                self.state.names.set_tree(inode, *tree);
            }
        }
        for (id, target) in &targets {
            if let Some(inode) = self.state.names.inode_of(*id) {
                match target {
                    None => self.leave_for_good(inode),
                    Some(target) => self.compare(inode, target),
                }
            }
        }
        self.targets = targets;
    }

    fn leave_for_good(&mut self, inode: Inode) {
        let Ok(node) = self.state.names.node(inode) else {
            return;
        };
        if node.is_directory() {
            self.removed.insert(inode);
        } else if node.staged().is_some() {
            self.estrange(inode);
        } else {
            self.detach(inode, true);
            self.state.let_go(inode);
        }
    }

    fn compare(&mut self, inode: Inode, target: &Placed) {
        let Ok(node) = self.state.names.node(inode) else {
            return;
        };
        if inode == Inode::ROOT {
            return self.set_entry(inode, target);
        }
        let Some(now) = self.state.names.placed(inode) else {
            return;
        };
        let is_staged = node.staged().is_some();
        if !same_bytes(&now.entry.kind, &target.entry.kind) {
            if is_staged {
                self.estrange(inode);
            } else {
                self.detach(inode, false);
                self.state.let_go(inode);
            }
            return;
        }
        if now.parent != target.parent || now.name != target.name {
            self.detach(inode, false);
            self.floating.insert(target.entry.id, inode);
        }
        if now.entry != target.entry {
            self.set_entry(inode, target);
        }
    }

    fn set_entry(&mut self, inode: Inode, target: &Placed) {
        if let Ok(node) = self.state.names.node_mut(inode) {
            node.entry = target.entry.clone();
        }
        self.invalid.push(Invalidation::Attributes(inode));
    }

    fn detach(&mut self, inode: Inode, deleted: bool) {
        let Ok(node) = self.state.names.node(inode) else {
            return;
        };
        let Some((parent, name)) = node.place.clone() else {
            return;
        };
        self.state.names.detach(inode);
        self.tell(parent, &name, deleted.then_some(inode));
    }

    fn tell(&mut self, parent: Inode, name: &Name, deleted: Option<Inode>) {
        let name = name.as_bytes().to_vec();
        self.invalid.push(match deleted {
            Some(child) => Invalidation::Deleted {
                parent,
                child,
                name,
            },
            None => Invalidation::Entry { parent, name },
        });
        self.invalid.push(Invalidation::Attributes(parent));
    }

    /// A file that is being written here has become another one elsewhere, or is gone there: what is written
    /// here goes on as an entry of its own.
    fn estrange(&mut self, inode: Inode) {
        let node = self.state.names.node(inode).ok();
        let Some(place) = node.and_then(|node| node.place.clone()) else {
            return;
        };
        self.detach(inode, false);
        self.make_another(inode);
        self.homeless.push((inode, place));
    }

    /// What is being written in a detached inode is an entry of its own from here on.
    fn make_another(&mut self, inode: Inode) {
        let id = self.state.new_id();
        let Ok(node) = self.state.names.node_mut(inode) else {
            return;
        };
        self.record.unstaged.push(node.entry.id);
        node.entry.id = id;
        if let Some(staged) = node.staged_mut() {
            self.is_precious |= staged.synced;
            staged.unborn = true;
            // What makes it whole may not be on the disk yet, but it is nowhere else.
            staged.written = true;
        }
    }

    /// Puts everything where the new tree has it.
    fn arrive(&mut self) {
        let targets = std::mem::take(&mut self.targets);
        let mut waiting: Vec<&Placed> = targets.values().flatten().collect();
        loop {
            let before = waiting.len();
            waiting.retain(|target| !self.make_known(target));
            if waiting.len() == before {
                break;
            }
        }
        let floating = std::mem::take(&mut self.floating);
        for (id, inode) in &floating {
            if let Some(Some(target)) = targets.get(id) {
                self.land(*inode, &targets, target, &floating);
            }
        }
    }

    /// Whether an entry is loaded, or now floats, about to be.
    fn make_known(&mut self, target: &Placed) -> bool {
        let id = target.entry.id;
        if self.state.names.inode_of(id).is_some() || self.floating.contains_key(&id) {
            return true;
        }
        let Some(parent) = self.parent_of(target, &self.floating) else {
            return false;
        };
        if self.state.names.loaded(parent).is_none() {
            return true;
        }
        let tree = self.trees.get(&id).copied();
        let node = Node::new(None, target.entry.clone(), tree);
        let inode = self.state.names.insert(node);
        self.floating.insert(id, inode);
        true
    }

    fn parent_of(&self, target: &Placed, floating: &BTreeMap<EntryId, Inode>) -> Option<Inode> {
        let loaded = self.state.names.inode_of(target.parent);
        loaded.or_else(|| floating.get(&target.parent).copied())
    }

    fn land(
        &mut self,
        inode: Inode,
        targets: &BTreeMap<EntryId, Option<Placed>>,
        target: &Placed,
        floating: &BTreeMap<EntryId, Inode>,
    ) {
        let parent = self.reach(target.parent, targets, floating);
        let Some(parent) = parent.filter(|parent| self.state.names.load(*parent).is_ok()) else {
            return self.leave_the_loaded(inode, &target.name);
        };
        self.evict(parent, target);
        let place = (parent, target.name.clone());
        self.state.names.attach(inode, place);
        self.tell(parent, &target.name, None);
    }

    /// A directory of the new tree. Those above it are loaded as far as they have changed.
    fn reach(
        &mut self,
        id: EntryId,
        targets: &BTreeMap<EntryId, Option<Placed>>,
        floating: &BTreeMap<EntryId, Inode>,
    ) -> Option<Inode> {
        let (mut at, mut unknown) = (id, Vec::new());
        let mut inode = loop {
            // First what has moved: below a directory just loaded there may be a second image of it.
            let moved = floating.get(&at).copied();
            if let Some(known) = moved.or_else(|| self.state.names.inode_of(at)) {
                break known;
            }
            let target = targets.get(&at)?.as_ref()?;
            if unknown.len() > targets.len() {
                return None;
            }
            unknown.push(at);
            at = target.parent;
        };
        while let Some(id) = unknown.pop() {
            self.state.names.load(inode).ok()?;
            inode = self.state.names.inode_of(id)?;
        }
        Some(inode)
    }

    /// It has gone where nobody has looked yet: it will be found there, under a new inode number. What is
    /// being written here cannot go along.
    fn leave_the_loaded(&mut self, inode: Inode, name: &Name) {
        let node = self.state.names.node(inode);
        if !node.is_ok_and(|node| node.staged().is_some()) {
            return self.state.let_go(inode);
        }
        self.make_another(inode);
        self.homeless.push((inode, (Inode::ROOT, name.clone())));
    }

    /// Makes room for an entry of the tree.
    fn evict(&mut self, parent: Inode, target: &Placed) {
        let names = self.state.names.loaded(parent);
        let Some(occupant) = names.and_then(|names| names.get(&target.name).copied()) else {
            return;
        };
        self.detach(occupant, false);
        let node = self.state.names.node(occupant);
        if node.is_ok_and(|node| node.entry.id == target.entry.id) {
            // Just loaded from the new tree: it is the same entry.
            self.state.let_go(occupant);
            return;
        }
        self.homeless
            .push((occupant, (parent, target.name.clone())));
    }

    /// Gives names to what has lost its own.
    fn house(&mut self) {
        if self.homeless.is_empty() {
            return;
        }
        let inhabited = self.inhabited();
        for (inode, (parent, name)) in std::mem::take(&mut self.homeless) {
            if self.removed.contains(&inode) && !inhabited.contains(&inode) {
                self.state.let_go(inode);
                continue;
            }
            let parent = self.living_directory(parent);
            let written = Written {
                edits: 0,
                at: self.state.now(),
                by: self.state.config.label.clone(),
            };
            let free = self.state.free_name(parent, &name, &written);
            self.state.names.attach(inode, (parent, free.clone()));
            self.tell(parent, &free, None);
            if free != name {
                let path = self.state.describe(inode);
                tracing::warn!(
                    "conflict: another disk has changed what was being written here; the version from here is now {path}"
                );
            }
        }
    }

    /// A loaded directory that is still in the tree.
    fn living_directory(&self, directory: Inode) -> Inode {
        let reaches_root = self.state.names.is_beneath(directory, Inode::ROOT);
        if reaches_root && self.state.names.loaded(directory).is_some() {
            directory
        } else {
            Inode::ROOT
        }
    }

    /// The removed directories that have something in them, however deep, that exists only here.
    fn inhabited(&self) -> BTreeSet<Inode> {
        let mut inhabited = BTreeSet::new();
        for directory in &self.removed {
            let names = self.state.names.loaded(*directory);
            let mut names = names.into_iter().flat_map(|names| names.values());
            let mut at = Some(*directory).filter(|_| names.any(|it| !self.removed.contains(it)));
            while let Some(directory) = at.filter(|it| self.removed.contains(it))
                && inhabited.insert(directory)
            {
                let node = self.state.names.node(directory).ok();
                at = node.and_then(|node| node.place.as_ref().map(|(parent, _)| *parent));
            }
        }
        inhabited
    }

    /// From here on, what is pending is relative to the new tree.
    fn pending_of(&mut self, view: BaseView, sequence: u64) {
        self.state.pending.rebased(view.clone(), sequence);
        self.record.base = Some((view, sequence));
    }

    /// Removes the directories that the tree has no more, but those with something in them that exists only
    /// here: they live, and so do their ancestors.
    fn remove_directories(&mut self) {
        let mut kept = Changes::new();
        let inhabited = self.inhabited();
        for inode in &inhabited {
            if let Some(placed) = self.state.names.placed(*inode) {
                let before = None;
                let after = Some(placed.clone());
                kept.push(placed.entry.id, Change { before, after });
            }
        }
        for inode in std::mem::take(&mut self.removed) {
            if !inhabited.contains(&inode) {
                self.detach(inode, true);
                self.state.let_go(inode);
            }
        }
        self.record.push(&kept);
        for (id, change) in kept {
            self.state.pending.push(id, change);
        }
    }

    fn finish(mut self) -> (Vec<Invalidation>, bool) {
        self.state.add_staged(&mut self.record);
        let written = self.state.append(self.record);
        if let Err(error) = written {
            tracing::error!(%error, "a change from another node is not in the journal");
            self.state.journal.rewrite_soon();
        }
        if !self.state.pending.is_empty() {
            self.state.ports.events.pending();
        }
        let mut told = HashSet::new();
        self.invalid.retain(|invalid| told.insert(invalid.clone()));
        (self.invalid, self.is_precious)
    }
}

fn only_attributes(old: &Placed, new: &Placed) -> bool {
    old.parent == new.parent && old.name == new.name && same_bytes(&old.entry.kind, &new.entry.kind)
}

fn same_bytes(old: &Kind, new: &Kind) -> bool {
    match (old, new) {
        (Kind::File(old), Kind::File(new)) => old.content == new.content,
        (old, new) => old == new,
    }
}
