//! Starting: the committed tree, then the journal beyond it, then the staging files.

use super::handles::Handles;
use super::inode::Node;
use super::journal::{Edit, Journal, Record, StagedItem};
use super::namespace::Namespace;
use super::pending::Pending;
use super::staging::{Staged, Staging};
use super::state::State;
use super::{BaseView, Config, FsError, Inode, Ports, Recovered};
use delugefs_core::change::Change;
use delugefs_core::entry::{Entry, Placed};
use delugefs_core::ids::EntryId;
use delugefs_core::name::Name;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Where entries were last said to be, whether or not that directory is loaded.
type Places = HashMap<EntryId, (EntryId, Name)>;

/// What the journal says of staging files.
#[derive(Default)]
struct StagingFiles {
    items: BTreeMap<EntryId, Found>,
    boot: Option<[u8; 16]>,
    /// The committed tree goes farther than the journal: a power cut has taken its end.
    is_cut_short: bool,
}

struct Found {
    item: StagedItem,
    /// When this was written.
    boot: Option<[u8; 16]>,
    synced: bool,
}

/// A change that is being made again.
struct Redone<'a> {
    edit: &'a Edit,
    inode: Option<Inode>,
    before: Option<Placed>,
}

/// Everything as it was acknowledged.
pub(super) fn start(config: Config, ports: Ports) -> Result<State, FsError> {
    let staging = Staging::open(&config.root)?;
    let (journal, records) = Journal::open(&config.root, config.sequence)?;
    let (view, sequence, root) = base(&config, &ports, &records)?;
    let mut state = State {
        names: Namespace::new(ports.names.clone(), view.tree, root),
        pending: Pending::new(view, sequence),
        handles: Handles::default(),
        journal,
        staging,
        leaving: Vec::new(),
        unsealed: VecDeque::new(),
        recovered: Recovered::default(),
        ports,
        config,
    };
    let mut places = Places::new();
    let last = records.iter().map(|record| record.sequence).max();
    let mut files = StagingFiles {
        is_cut_short: last.unwrap_or(0) < sequence,
        ..StagingFiles::default()
    };
    for record in records {
        files.note(&record);
        state.replay(record, sequence, &mut places)?;
    }
    state.recovered.changes = state.pending.len();
    let kept = state.take_up(files, places)?;
    let all = state.snapshot();
    state.journal.rewrite(all)?;
    // not before: what was read of the journal may not be on the disk yet
    state.staging.sweep(|name| kept.contains(name))?;
    Ok(state)
}

/// Which committed tree the rest of the journal is relative to.
fn base(
    config: &Config,
    ports: &Ports,
    records: &[Record],
) -> Result<(BaseView, u64, Entry), FsError> {
    let told = records
        .iter()
        .filter_map(|record| record.base.clone())
        .next_back();
    if let Some((view, sequence)) = told.filter(|(_, sequence)| *sequence >= config.sequence) {
        match ports.names.root(view.tree) {
            Ok(root) => return Ok((view, sequence, root)),
            Err(error) => {
                tracing::warn!(%error, tree = %view.tree, "the journal's base is not to be had");
            }
        }
    }
    let root = ports.names.root(config.base.tree)?;
    Ok((config.base.clone(), config.sequence, root))
}

/// The kernel's present boot; `None` where it does not tell.
pub(super) fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id: EntryId = digits.parse().ok()?;
    Some(*id.as_bytes())
}

impl StagingFiles {
    fn note(&mut self, record: &Record) {
        self.boot = record.boot.or(self.boot);
        for id in &record.unstaged {
            self.items.remove(id);
        }
        for item in &record.staged {
            let found = Found {
                item: item.clone(),
                boot: self.boot,
                synced: false,
            };
            let earlier = self.items.insert(item.placed.entry.id, found);
            if let Some(earlier) = earlier
                && let Some(now) = self.items.get_mut(&item.placed.entry.id)
                && earlier.item.nonce == item.nonce
            {
                now.synced = earlier.synced;
            }
        }
        for id in &record.synced {
            if let Some(found) = self.items.get_mut(id) {
                found.synced = true;
            }
        }
    }
}

impl State {
    fn replay(
        &mut self,
        record: Record,
        committed: u64,
        places: &mut Places,
    ) -> Result<(), FsError> {
        places.extend(record.places.clone());
        if record.sequence > committed {
            let found = self.find_all(&record.edits, places)?;
            places.extend(record.places);
            self.redo(found, places)?;
            for (hash, info) in record.infos {
                self.pending.push_info(hash, info);
            }
        }
        for edit in record.edits {
            match edit.after {
                Some(after) => places.insert(edit.id, (after.parent, after.name)),
                None => places.remove(&edit.id),
            };
        }
        for item in record.staged {
            let Placed {
                parent,
                name,
                entry,
            } = item.placed;
            places.insert(entry.id, (parent, name));
        }
        Ok(())
    }

    /// Makes the changes of one record again. Those that are in the tree already change nothing.
    fn redo(&mut self, mut redone: Vec<Redone<'_>>, places: &Places) -> Result<(), FsError> {
        let mut floating = HashMap::new();
        for one in &mut redone {
            self.leave(one)?;
            if let Some(inode) = one.inode {
                floating.insert(one.edit.id, inode);
            }
        }
        for one in redone {
            let Some(inode) = one.inode else { continue };
            if let Some(after) = &one.edit.after
                && self.names.node(inode)?.place.is_none()
                && inode != Inode::ROOT
            {
                let parent = match floating.get(&after.parent) {
                    Some(parent) => Some(*parent),
                    None => self.resolve_id(after.parent, places)?,
                };
                self.put(inode, after, parent)?;
            }
            let after = self.names.placed(inode);
            let before = one.before;
            self.pending.push(one.edit.id, Change { before, after });
            self.names.drop_unused(inode);
        }
        Ok(())
    }

    /// Finds what a record changes, as it was before. Leaves `places` as they were before.
    fn find_all<'a>(
        &mut self,
        edits: &'a [Edit],
        places: &mut Places,
    ) -> Result<Vec<Redone<'a>>, FsError> {
        // A record tells the places of directories as they are after it.
        for edit in edits {
            match &edit.before {
                Some(place) => places.insert(edit.id, place.clone()),
                None => places.remove(&edit.id),
            };
        }
        let mut redone = Vec::new();
        for edit in edits {
            let mut inode = self.resolve_id(edit.id, places)?;
            if let (None, Some(after)) = (inode, &edit.after)
                && let Some(parent) = self.resolve_id(after.parent, places)?
            {
                inode = self.descend(parent, edit.id, &after.name)?;
            }
            let before = inode.and_then(|inode| self.names.placed(inode));
            redone.push(Redone {
                edit,
                inode,
                before,
            });
        }
        Ok(redone)
    }

    /// Gives it its new state, and takes it from its place if it has another one then.
    fn leave(&mut self, one: &mut Redone<'_>) -> Result<(), FsError> {
        if let Some(after) = &one.edit.after {
            if let Some(inode) = one.inode {
                self.names.node_mut(inode)?.entry = after.entry.clone();
            } else {
                let node = Node::new(None, after.entry.clone(), None);
                one.inode = Some(self.names.insert(node));
            }
        }
        let stays = match (&one.edit.after, &one.before) {
            (Some(a), Some(b)) => a.parent == b.parent && a.name == b.name,
            _ => false,
        };
        if let Some(inode) = one.inode
            && !stays
        {
            self.names.detach(inode);
        }
        Ok(())
    }

    /// Attaches where it belongs; what cannot be there is kept elsewhere rather than lost.
    fn put(&mut self, inode: Inode, at: &Placed, parent: Option<Inode>) -> Result<(), FsError> {
        let parent = parent.filter(|parent| {
            let node = self.names.node(*parent);
            node.is_ok_and(Node::is_directory)
        });
        let parent = parent.unwrap_or(Inode::ROOT);
        self.names.load(parent)?;
        let name = self.free_name(parent, &at.name, &at.entry.written);
        self.names.attach(inode, (parent, name));
        Ok(())
    }

    /// Finds an entry that is perhaps not loaded.
    fn resolve_id(&mut self, id: EntryId, places: &Places) -> Result<Option<Inode>, FsError> {
        let (mut at, mut below) = (id, Vec::new());
        let mut inode = loop {
            if let Some(known) = self.names.inode_of(at) {
                break known;
            }
            let Some((parent, name)) = places.get(&at) else {
                return Ok(None);
            };
            if below.len() > places.len() {
                return Ok(None);
            }
            below.push((at, name));
            at = *parent;
        };
        while let Some((id, name)) = below.pop() {
            match self.descend(inode, id, name)? {
                Some(child) => inode = child,
                None => return Ok(None),
            }
        }
        Ok(Some(inode))
    }

    /// What has this name in a directory, if it is this entry.
    fn descend(
        &mut self,
        directory: Inode,
        id: EntryId,
        name: &Name,
    ) -> Result<Option<Inode>, FsError> {
        if !self.names.node(directory)?.is_directory() {
            return Ok(None);
        }
        self.names.load(directory)?;
        let child = self.names.child(directory, name)?;
        Ok(child.filter(|_| self.names.inode_of(id) == child))
    }

    /// Takes up what was being written, as closed files. The names of their staging files.
    fn take_up(
        &mut self,
        files: StagingFiles,
        mut places: Places,
    ) -> Result<HashSet<String>, FsError> {
        let is_cut_short = files.is_cut_short;
        let left = self.left_behind(files)?;
        if is_cut_short {
            self.find_committed(&left, &mut places)?;
        }
        let mut kept = HashSet::new();
        for (item, staged) in left {
            let known = self.resolve_id(item.placed.entry.id, &places)?;
            if let Some(inode) = known.filter(|_| is_cut_short)
                && self.is_committed(inode, &item)?
            {
                continue;
            }
            self.recovered.taken_up += 1;
            kept.insert(super::staging::hex(&item.nonce));
            self.take_up_one(item, staged, &places, (known, is_cut_short))?;
        }
        Ok(kept)
    }

    /// The staging files that have something to be taken up.
    fn left_behind(&mut self, files: StagingFiles) -> Result<Vec<(StagedItem, Staged)>, FsError> {
        let boot = self.ports.source.boot();
        let mut left = Vec::new();
        for found in files.items.into_values() {
            let Some(mut staged) = self.staging.recover(&found.item.nonce)? else {
                tracing::warn!(name = %found.item.placed.name, "a staging file is gone");
                continue;
            };
            staged.unborn = found.item.unborn;
            staged.privileged = found.item.privileged;
            staged.synced = found.synced;
            let lost_power = boot.is_none() || boot != found.boot;
            // its bytes may be lost, and there is an older version which is not
            let hides_better = !staged.unborn || !found.item.replaces.is_empty();
            let untrue = lost_power && !staged.synced && hides_better;
            if !(staged.unborn || staged.written) {
                continue;
            }
            if untrue {
                self.recovered.older += 1;
                continue;
            }
            left.push((found.item, staged));
        }
        Ok(left)
    }

    /// Where files and their folders are in the committed tree, if the journal, which has lost its end, does not know them
    /// there: they were moved since. Takes as long as it takes to list all folders, once.
    fn find_committed(
        &mut self,
        left: &[(StagedItem, Staged)],
        places: &mut Places,
    ) -> Result<(), FsError> {
        let mut sought = HashSet::new();
        for (item, _) in left {
            for id in [item.placed.entry.id, item.placed.parent] {
                if self.resolve_id(id, places)?.is_none() {
                    sought.insert(id);
                }
            }
        }
        let mut folders = VecDeque::from([(EntryId::ROOT, self.pending.base.tree)]);
        while let Some((folder, tree)) = folders.pop_front().filter(|_| !sought.is_empty()) {
            for listed in self.ports.names.directory(tree)? {
                let id = listed.entry.id;
                if sought.remove(&id) || listed.tree.is_some() {
                    places.insert(id, (folder, listed.name));
                }
                folders.extend(listed.tree.map(|tree| (id, tree)));
            }
        }
        Ok(())
    }

    /// A staging file has been hashed and committed since, which the lost end of the journal said: the committed bytes are
    /// its own, or newer ones. Had it given way to another node's version, the journal would say so: see
    /// [`Filesystem::rebase`](super::Filesystem::rebase).
    fn is_committed(&self, inode: Inode, item: &StagedItem) -> Result<bool, FsError> {
        let committed = &self.names.node(inode)?.entry;
        Ok(committed.written.edits > item.placed.entry.written.edits)
    }

    fn take_up_one(
        &mut self,
        item: StagedItem,
        mut staged: Staged,
        places: &Places,
        (known, is_cut_short): (Option<Inode>, bool),
    ) -> Result<(), FsError> {
        let inode = if let Some(inode) = known {
            // If the journal takes it for unborn, its birth is in a commit, and was lost here.
            staged.unborn = false;
            inode
        } else {
            let mut new = item.placed;
            // Where the journal is cut short, it may be in the committed tree, at a place that was lost.
            if !staged.unborn || is_cut_short {
                staged.unborn = true;
                new.entry.id = self.new_id();
            }
            staged.replaces = self.cover(&item.replaces, places)?;
            let inode = self.names.insert(Node::new(None, new.entry.clone(), None));
            let parent = self.resolve_id(new.parent, places)?;
            self.put(inode, &new, parent)?;
            inode
        };
        if let Some(body) = self.names.node_mut(inode)?.file_mut() {
            body.staged = Some(staged);
        }
        self.wait_for_seal(inode);
        Ok(())
    }

    /// Hides what an unborn file has replaced.
    fn cover(&mut self, replaced: &[Placed], places: &Places) -> Result<Vec<Placed>, FsError> {
        let mut covered = Vec::new();
        for placed in replaced {
            if let Some(inode) = self.resolve_id(placed.entry.id, places)?
                && let Some(placed) = self.names.placed(inode)
            {
                covered.push(placed);
                self.names.detach(inode);
                self.names.drop_unused(inode);
            }
        }
        Ok(covered)
    }
}
