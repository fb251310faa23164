//! This node's share of the volume's bytes: the content store and the swarm behind one door, with what is known about
//! every content of the volume.

use super::catalogue::{Catalogue, Known};
use super::catalogue_file::CatalogueFile;
use super::holdings::{Brought, HoldingsFileError, HoldingsFiles};
use super::retention::Retention;
use super::room::Room;
use super::scrubber::Scrubber;
use super::torn::{Boot, BootFile};
use crate::filesystem::Space;
use crate::sync_ext::lock;
use delugefs_core::change::Changes;
use delugefs_core::entry::ContentRef;
use delugefs_core::holdings::{Log, Operation, Wanted};
use delugefs_core::ids::{BlobId, EntryId, IncarnationId, InfoHash, TreeId};
use delugefs_core::sync::Positions;
use delugefs_metadata_repo::signature::Signer as _;
use delugefs_metadata_repo::{Repository, RepositoryError};
use delugefs_torrent::metainfo::{Info, piece_length};
use delugefs_torrent::store::{ContentStore, State};
use delugefs_torrent::swarm::Swarm;
use ed25519_dalek::SigningKey;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

/// Contents that wait to be looked at by the replicator; beyond this, all are looked at.
const SUBJECTS_MAX: usize = 1 << 20;

/// What the replicator has to look at.
#[derive(Debug, Default)]
pub struct Subjects {
    /// These contents.
    pub some: BTreeSet<InfoHash>,
    /// All contents.
    pub all: bool,
    /// Those for which nobody had room, or which others were to take.
    pub unmet: bool,
}

/// A content that can go, and whether that is before its time, for want of room.
pub type Expired = (InfoHash, bool);

/// This node's share of the volume's bytes.
pub struct Replica {
    /// The contents on this disk.
    pub store: ContentStore,
    repository: Repository,
    own: IncarnationId,
    swarm: OnceLock<Swarm>,
    catalogue: Mutex<Catalogue>,
    catalogue_file: CatalogueFile,
    pub(super) holdings: Mutex<HoldingsFiles>,
    retention: Mutex<Retention>,
    subjects: Mutex<Subjects>,
    completed: Mutex<BTreeSet<InfoHash>>,
    durable: Mutex<BTreeSet<InfoHash>>,
    /// Contents whose files this node said it has, and which are gone or incomplete at the start.
    missing: Mutex<BTreeSet<InfoHash>>,
    /// Contents that a power cut may have torn: not told of before they are read.
    pub(super) doubtful: Mutex<BTreeSet<InfoHash>>,
    pub(super) boot: BootFile,
    /// What is read again, and what was found damaged.
    pub scrub: Scrubber,
    room: Room,
    vain: Mutex<BTreeSet<InfoHash>>,
    /// There is something to replicate, perhaps.
    pub wants_look: Notify,
    /// A content is complete and waits to be made durable and told of.
    pub wants_sync: Notify,
    /// Reads have waited in vain, and the owner is to be told.
    pub waited: Notify,
}

impl Replica {
    /// Opens the bytes of a root, for the incarnation that has a key and under a boot of the machine; for `random` see
    /// [`HoldingsFiles::open`]. [`Replica::check_torn`] is to follow.
    pub fn open(
        root: &Path,
        store: ContentStore,
        repository: Repository,
        key: SigningKey,
        (boot, random): (Boot, u64),
    ) -> io::Result<Self> {
        let own = key.incarnation();
        let mut holdings = HoldingsFiles::open(&root.join("holdings"), key, random)?;
        let boot = BootFile::new(root, boot);
        let complete = store.list().into_iter().filter(|held| held.complete);
        let mut held: BTreeSet<_> = complete.map(|held| held.content.info_hash).collect();
        let mut doubtful = BTreeSet::new();
        if !store.was_synced() {
            boot.forget()?;
        }
        if boot.differs()? {
            let said = holdings.holdings().log(own);
            let is_said = |content: &_| said.is_some_and(|log| log.held().contains(content));
            doubtful = held.iter().filter(|one| !is_said(one)).copied().collect();
            held.retain(|content| !doubtful.contains(content));
        }
        let mut missing: BTreeSet<_> = holdings
            .set_own(&held)
            .map_err(io::Error::other)?
            .into_iter()
            .collect();
        missing.retain(|content| !held.contains(content));
        Ok(Self {
            store,
            repository,
            own,
            swarm: OnceLock::new(),
            catalogue: Mutex::default(),
            catalogue_file: CatalogueFile::new(root),
            holdings: Mutex::new(holdings),
            retention: Mutex::new(Retention::open(root)?),
            subjects: Mutex::default(),
            completed: Mutex::default(),
            durable: Mutex::default(),
            missing: Mutex::new(missing),
            doubtful: Mutex::new(doubtful),
            boot,
            scrub: Scrubber::open(root)?,
            room: Room::new(root),
            vain: Mutex::default(),
            wants_look: Notify::new(),
            wants_sync: Notify::new(),
            waited: Notify::new(),
        })
    }

    /// Joins the swarm. Called once.
    pub fn join(&self, swarm: Swarm) {
        // a second swarm would be a bug that changes nothing
        let _ = self.swarm.set(swarm);
    }

    /// The swarm, once joined.
    pub fn swarm(&self) -> Option<&Swarm> {
        self.swarm.get()
    }

    /// Learns of the whole view which contents there are. Contents on disk that it does not name begin to expire.
    pub fn learn(&self, tree: TreeId, now: u64) -> Result<(), RepositoryError> {
        let catalogue = self.catalogue_file.of(&self.repository, tree)?;
        let mut retention = lock(&self.retention);
        for held in self.store.list() {
            let info_hash = held.content.info_hash;
            let known = catalogue.get(&info_hash);
            if known.is_some_and(|known| held.complete && known.length != held.content.length) {
                self.scrub.suspect(info_hash, None);
            }
            note(match known {
                Some(_) => retention.forget(&info_hash),
                None => retention.died(info_hash, now, None),
            });
        }
        for content in std::mem::take(&mut *lock(&self.missing)) {
            if let Some(known) = catalogue.get(&content) {
                let pieces = known.length.div_ceil(piece_length(known.length).into());
                self.scrub.found(content, pieces as u32, now);
            }
        }
        *lock(&self.catalogue) = catalogue;
        self.look_at_all();
        Ok(())
    }

    /// Follows the view by one difference.
    pub fn follow(&self, changes: &Changes, blobs: &BTreeMap<EntryId, BlobId>, now: u64) {
        let moved = lock(&self.catalogue).apply(changes, blobs);
        self.catalogue_file.moved(changes.len());
        let mut retention = lock(&self.retention);
        for (content, successor) in &moved.died {
            note(retention.died(content.info_hash, now, *successor));
        }
        for content in &moved.born {
            note(retention.forget(&content.info_hash));
        }
        drop(retention);
        self.look_at(moved.born.iter().map(|content| content.info_hash));
    }

    /// Writes down, now and then, which contents there are, so that the next start reads only what changes from here on.
    /// The view's tree is given. Blocks.
    pub fn remember(&self, tree: TreeId) -> Result<(), RepositoryError> {
        match self.catalogue_file.is_far(self.total()) {
            // read anew: a mistake in what is followed would otherwise outlive this process
            true => self.catalogue_file.of(&self.repository, tree).map(drop),
            false => Ok(()),
        }
    }

    /// What the view says of a content.
    pub fn known(&self, info_hash: &InfoHash) -> Option<Known> {
        lock(&self.catalogue).get(info_hash)
    }

    /// All contents of the view.
    pub fn contents(&self) -> Vec<ContentRef> {
        lock(&self.catalogue).iter().collect()
    }

    /// Number of contents of the view.
    pub fn total(&self) -> usize {
        lock(&self.catalogue).len()
    }

    /// A content's `info`, if the view has it; see [`Self::info_of`].
    pub fn info(&self, info_hash: &InfoHash) -> io::Result<Option<Info>> {
        let known = self.known(info_hash);
        known
            .map(|known| self.info_of(info_hash, known))
            .transpose()
    }

    /// A content's `info`, from its descriptor; what the names say, or said, is checked against the info-hash. Blocks.
    pub fn info_of(&self, info_hash: &InfoHash, known: Known) -> io::Result<Info> {
        let bytes = self.repository.info(known.blob).map_err(io::Error::other)?;
        let info = Info::parse(&bytes).map_err(io::Error::other)?;
        if info.info_hash() != *info_hash || info.length() != known.length {
            let text = format!("the descriptor of {info_hash} is damaged");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(info)
    }

    /// Room on this disk, at most a moment old.
    pub fn space(&self) -> Space {
        self.room.space(&self.store)
    }

    /// Takes room for what is about to be written, if there is as much.
    pub fn take_room(&self, bytes: u64) -> bool {
        self.room.take(&self.store, bytes)
    }

    /// Someone may have become reachable who has this content.
    pub fn peers_changed(&self, info_hash: &InfoHash) {
        if let Some(swarm) = self.swarm() {
            swarm.peers_changed(info_hash);
        }
    }

    // ---- who holds what ----

    /// The incarnations that hold a content.
    pub fn holders(&self, info_hash: &InfoHash) -> Vec<IncarnationId> {
        lock(&self.holdings).holdings().holders(info_hash).collect()
    }

    /// Contents that this node holds.
    pub fn held(&self) -> usize {
        let holdings = lock(&self.holdings);
        holdings
            .holdings()
            .log(self.own)
            .map_or(0, |log| log.held().len())
    }

    /// Whether this node says that it holds a content.
    pub fn claims(&self, info_hash: &InfoHash) -> bool {
        let holdings = lock(&self.holdings);
        let own = holdings.holdings().log(self.own);
        own.is_some_and(|log| log.held().contains(info_hash))
    }

    /// Contents that this node says it holds, in ascending order, after one of them or from the first.
    pub fn held_after(&self, after: Option<InfoHash>, most: usize) -> Vec<InfoHash> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let holdings = lock(&self.holdings);
        let Some(own) = holdings.holdings().log(self.own) else {
            return Vec::new();
        };
        let later = own.held().range((from, Bound::Unbounded));
        later.take(most).copied().collect()
    }

    /// How far each log is known.
    pub fn positions(&self) -> Positions {
        lock(&self.holdings).holdings().positions()
    }

    /// What to ask for of an incarnation's log.
    pub fn holdings_wanted(&self, incarnation: IncarnationId) -> Wanted {
        lock(&self.holdings).holdings().wanted(incarnation)
    }

    /// The answer to who asks for an incarnation's log, encoded.
    pub fn holdings_answer(&self, incarnation: IncarnationId, wanted: &Wanted) -> Option<Vec<u8>> {
        lock(&self.holdings).answer(incarnation, wanted)
    }

    /// Whether there is a log of this incarnation.
    pub fn has_log(&self, incarnation: IncarnationId) -> bool {
        lock(&self.holdings).holdings().log(incarnation).is_some()
    }

    /// Makes room for the logs of known incarnations, if there is none.
    pub fn make_room_for_logs(&self, known: &BTreeSet<IncarnationId>) {
        lock(&self.holdings).make_room(|incarnation| known.contains(incarnation));
    }

    /// Takes an answer with a part of a log, as far as its author has signed it. Answers the log's position, what was
    /// brought, and how it ended.
    pub fn take_holdings(
        &self,
        incarnation: IncarnationId,
        answer: &[u8],
    ) -> (u64, Brought, Result<(), HoldingsFileError>) {
        let mut brought = Brought::default();
        let mut holdings = lock(&self.holdings);
        let ended = holdings.apply(incarnation, answer, &mut brought);
        let log = holdings.holdings().log(incarnation);
        let position = log.map_or(0, Log::position);
        drop(holdings);
        for content in &brought.moved {
            self.peers_changed(content);
        }
        self.look_at(brought.moved.iter().copied());
        (position, brought, ended)
    }

    /// Says durably that this node holds contents, or no longer does. Blocks.
    pub fn declare(&self, operation: Operation, contents: &[InfoHash]) {
        let records = contents.iter().map(|content| (operation, *content));
        if let Err(error) = lock(&self.holdings).push(records) {
            tracing::error!("{error}");
        }
        self.look_at(contents.iter().copied());
    }

    /// Says anew what is held, where others have proved to have heard more of this disk than it has said. Answers whether
    /// they had.
    pub fn leap(&self, heard: u64) -> bool {
        lock(&self.holdings).leap(heard).unwrap_or_else(|error| {
            tracing::error!("{error}");
            false
        })
    }

    // ---- what the replicator and the reaper look at ----

    /// These may need copies, or need them no more.
    pub fn look_at(&self, contents: impl Iterator<Item = InfoHash>) {
        let mut subjects = lock(&self.subjects);
        subjects.some.extend(contents);
        if subjects.some.len() > SUBJECTS_MAX {
            *subjects = Subjects {
                all: true,
                ..Subjects::default()
            };
        }
        drop(subjects);
        self.wants_look.notify_one();
    }

    /// Any content may need copies.
    pub fn look_at_all(&self) {
        lock(&self.subjects).all = true;
        self.wants_look.notify_one();
    }

    /// Some node's room has changed: contents that wait for room may have found it.
    pub fn room_changed(&self) {
        lock(&self.subjects).unmet = true;
        self.wants_look.notify_one();
    }

    /// Takes what is to be looked at.
    pub fn take_subjects(&self) -> Subjects {
        std::mem::take(&mut lock(&self.subjects))
    }

    /// A node has come or gone: readers may find bytes, contents may be short of copies.
    pub fn cluster_changed(&self) {
        if let Some(swarm) = self.swarm() {
            swarm.all_peers_changed();
        }
        self.look_at_all();
    }

    /// A peer asks that these be held here: those that have a name are looked at. Answers whether there is room for each of
    /// them.
    pub fn asked_to_hold(&self, contents: Vec<InfoHash>) -> bool {
        let named = |content| Some((content, self.known(&content)?.length));
        let named: Vec<_> = contents.into_iter().filter_map(named).collect();
        let free = self.space().free;
        self.look_at(named.iter().map(|(content, _)| *content));
        named.iter().all(|(_, length)| *length <= free)
    }

    /// Contents on this disk whose time is over; when room is short, then those whose time is not yet over, the
    /// oldest first. [`Replica::reap`] looks closer.
    pub fn expired(&self, now: u64, keep: Duration) -> Vec<Expired> {
        let (over, early) = lock(&self.retention).expired(now, keep);
        let early = match self.room.short(&self.store) {
            0 => Vec::new(),
            _ => early,
        };
        with(over, false).chain(with(early, true)).collect()
    }

    /// Removes those of some expired contents from this disk that `in_use` does not name, that have no name again,
    /// and whose replacement is held durably by this node or one of `others`, the present incarnations of the other nodes
    /// that are expected back. Answers how many there were, and their bytes. Blocks.
    pub fn reap(
        &self,
        expired: &[Expired],
        in_use: &BTreeSet<InfoHash>,
        others: &BTreeSet<IncarnationId>,
    ) -> (usize, u64) {
        // held until the bytes are gone: see `keep`
        let mut retention = lock(&self.retention);
        let is_needed = |content: &InfoHash| {
            in_use.contains(content)
                || !retention.contains(content)
                || self.known(content).is_some()
                || self.is_last_resort(retention.successor(content), others)
        };
        let doomed = self.doomed(expired, is_needed);
        let held: Vec<InfoHash> = doomed
            .iter()
            .filter(|content| self.store.length(content).is_some())
            .copied()
            .collect();
        if !held.is_empty() {
            // the log goes first: nobody is told of bytes that are gone
            self.declare(Operation::Dropped, &held);
        }
        let removed: Vec<u64> = held.iter().filter_map(|it| self.remove(it)).collect();
        for content in &doomed {
            note(retention.forget(content));
        }
        (removed.len(), removed.iter().sum())
    }

    /// Those of some expired contents that can go now.
    fn doomed(&self, expired: &[Expired], is_needed: impl Fn(&InfoHash) -> bool) -> Vec<InfoHash> {
        let mut short = self.room.short(&self.store);
        let mut doomed = Vec::new();
        for (content, is_early) in expired {
            if *is_early && short == 0 {
                break;
            }
            if !is_needed(content) {
                short = short.saturating_sub(self.store.length(content).unwrap_or(0));
                doomed.push(*content);
            }
        }
        doomed
    }

    /// What has replaced it is durable nowhere yet: what a disk held as a former incarnation, it may have lost.
    fn is_last_resort(
        &self,
        successor: Option<InfoHash>,
        others: &BTreeSet<IncarnationId>,
    ) -> bool {
        let is_held = |successor: &InfoHash| {
            let holders = self.holders(successor);
            let mut holders = holders.iter();
            holders.any(|holder| *holder == self.own || others.contains(holder))
        };
        successor.is_some_and(|successor| !is_held(&successor))
    }

    /// A file with these bytes is about to get its name: the reaper leaves them alone from here on. `false` if it
    /// was faster, and the bytes are gone.
    pub fn keep(&self, info_hash: &InfoHash) -> bool {
        note(lock(&self.retention).forget(info_hash));
        self.store.state(info_hash) == State::Complete
    }

    /// A file has been given these bytes. Should it be gone again before it is committed, no commit will ever take
    /// their last name away: they count as without a name until one names them.
    pub fn sealed(&self, info_hash: &InfoHash, now: u64) {
        if self.known(info_hash).is_none() {
            note(lock(&self.retention).died(*info_hash, now, None));
        }
    }

    /// Answers how many bytes that frees.
    fn remove(&self, info_hash: &InfoHash) -> Option<u64> {
        let length = self.store.length(info_hash)?;
        if let Some(swarm) = self.swarm() {
            // an open file would keep its room
            swarm.release(info_hash);
        }
        match self.store.remove(info_hash) {
            Ok(_) => Some(length),
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        }
    }

    /// Some content has become complete without a fetch of ours: a reader has read all of it.
    pub fn completed(&self, info_hash: InfoHash, now: u64) {
        if self.known(&info_hash).is_none() {
            // its last name went while it was on its way here
            note(lock(&self.retention).died(info_hash, now, None));
        }
        lock(&self.completed).insert(info_hash);
        self.wants_sync.notify_one();
    }

    /// A read of a content has waited in vain.
    pub fn waited_in_vain(&self, info_hash: InfoHash) {
        lock(&self.vain).insert(info_hash);
        self.waited.notify_one();
    }

    /// Takes the contents that reads have waited for in vain.
    pub fn take_vain(&self) -> BTreeSet<InfoHash> {
        std::mem::take(&mut lock(&self.vain))
    }

    /// Contents were made durable because a writer asked for it; it is still to be told.
    pub fn became_durable(&self, contents: Vec<InfoHash>) {
        if !contents.is_empty() {
            lock(&self.durable).extend(contents);
            self.wants_sync.notify_one();
        }
    }

    /// Takes the contents that were made durable because a writer asked for it.
    pub fn take_durable(&self) -> BTreeSet<InfoHash> {
        std::mem::take(&mut lock(&self.durable))
    }

    /// Takes the contents that have become complete.
    pub fn take_completed(&self) -> BTreeSet<InfoHash> {
        std::mem::take(&mut lock(&self.completed))
    }
}

fn with(contents: Vec<InfoHash>, is_early: bool) -> impl Iterator<Item = Expired> {
    contents.into_iter().map(move |content| (content, is_early))
}

fn note(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!("cannot write down which contents expire; they are kept longer: {error}");
    }
}

#[cfg(test)]
mod tests;
