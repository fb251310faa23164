//! Reading decoded objects, and gathering new ones until they are written together.
//!
//! Invariant: an id that leaves a session (in a reference, or to a caller) names objects that are on disk:
//! what [`Session::take_batch`] gives is written first.

use crate::cache::Cache;
use crate::codec::{self, Decoded};
use crate::commit::{self, CommitFacts};
use crate::cut;
use crate::error::{RepositoryError, Result, git, malformed};
use crate::node::Node;
use delugefs_core::entry::{Content, Entry, Kind};
use delugefs_core::name::Name;
use gix::ObjectId;
use gix::objs::Kind as ObjectKind;
use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names in cached trees, of each of two generations: about 80 bytes each.
const NODE_ITEMS_MAX: usize = 200_000;

/// Cached entries, of each of two generations: about 500 bytes each.
const META_ENTRIES_MAX: usize = 16_384;

/// Cached commits, of each of two generations: about 200 bytes each.
const COMMITS_MAX: usize = 65_536;

/// Commits known to be signed, of each of two generations: about 40 bytes each. A verification takes some 50 µs.
const SIGNED_MAX: usize = 131_072;

/// An entry as its blob describes it, without a file's `info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) entry: Entry,
    /// The whole name, where the tree's is cut.
    pub(crate) name: Option<Name>,
    pub(crate) fan_out: u8,
}

/// Decoded objects, shared by all sessions of a repository.
#[derive(Debug)]
pub(crate) struct Decoders {
    nodes: Mutex<Cache<ObjectId, Arc<Node>>>,
    metas: Mutex<Cache<ObjectId, Arc<Meta>>>,
    /// With their parents, also where history is cut.
    commits: Mutex<Cache<ObjectId, Arc<CommitFacts>>>,
    /// Commits whose authors have been found to have signed them.
    signed: Mutex<Cache<ObjectId, ()>>,
}

impl Decoders {
    pub(crate) fn new() -> Self {
        Self {
            nodes: Mutex::new(Cache::new(NODE_ITEMS_MAX)),
            metas: Mutex::new(Cache::new(META_ENTRIES_MAX)),
            commits: Mutex::new(Cache::new(COMMITS_MAX)),
            signed: Mutex::new(Cache::new(SIGNED_MAX)),
        }
    }

    /// Some commits may not be here any more.
    pub(crate) fn forget_commits(&self) {
        *lock(&self.commits) = Cache::new(COMMITS_MAX);
    }

    /// A commit's signature is its author's: it need not be verified again.
    pub(crate) fn note_signed(&self, id: ObjectId) {
        lock(&self.signed).insert(id, (), 1);
    }
}

/// A cache is consistent after every one of its calls, so that a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn node_weight(node: &Arc<Node>) -> usize {
    node.items().len() + 1
}

/// Objects that are not on disk yet.
pub(crate) type Batch = HashMap<ObjectId, (ObjectKind, Vec<u8>)>;

/// One thread's access to the objects.
pub(crate) struct Session<'r> {
    decoders: &'r Decoders,
    git: gix::Repository,
    batch: RefCell<Batch>,
    /// Where history was cut when that was first asked for.
    cut: OnceCell<HashSet<ObjectId>>,
}

impl<'r> Session<'r> {
    pub(crate) fn new(decoders: &'r Decoders, git: gix::Repository) -> Self {
        Self {
            decoders,
            git,
            batch: RefCell::default(),
            cut: OnceCell::new(),
        }
    }

    /// As if history were cut at these commits and nowhere else.
    pub(crate) fn cut_at(self, commits: HashSet<ObjectId>) -> Self {
        let cut = OnceCell::from(commits);
        Self { cut, ..self }
    }

    pub(crate) fn git(&self) -> &gix::Repository {
        &self.git
    }

    /// The object's bytes, if it is of that kind.
    pub(crate) fn object(&self, id: ObjectId, kind: ObjectKind) -> Result<Vec<u8>> {
        if let Some((found, data)) = self.batch.borrow().get(&id) {
            return if *found == kind {
                Ok(data.clone())
            } else {
                Err(malformed(id, "of another kind"))
            };
        }
        match self
            .git
            .try_find_object(id)
            .map_err(git("read an object"))?
        {
            None => Err(RepositoryError::Missing(id.to_string())),
            Some(object) if object.kind == kind => Ok(object.detach().data),
            Some(_) => Err(malformed(id, "of another kind")),
        }
    }

    pub(crate) fn node(&self, id: ObjectId) -> Result<Arc<Node>> {
        if let Some(node) = lock(&self.decoders.nodes).get(&id, node_weight) {
            return Ok(node);
        }
        let node = Arc::new(Node::parse(id, &self.object(id, ObjectKind::Tree)?)?);
        lock(&self.decoders.nodes).insert(id, Arc::clone(&node), node_weight(&node));
        Ok(node)
    }

    pub(crate) fn decoded(&self, id: ObjectId) -> Result<Decoded> {
        let decoded = codec::decode(&self.object(id, ObjectKind::Blob)?);
        let decoded = decoded.map_err(|source| RepositoryError::Codec {
            object: id.to_string(),
            source,
        })?;
        match &decoded.entry.kind {
            Kind::File(file)
                if matches!(file.content, Content::Swarm(_)) && decoded.info.is_none() =>
            {
                Err(malformed(id, "a descriptor without info"))
            }
            _ => Ok(decoded),
        }
    }

    pub(crate) fn meta(&self, id: ObjectId) -> Result<Arc<Meta>> {
        if let Some(meta) = lock(&self.decoders.metas).get(&id, |_| 1) {
            return Ok(meta);
        }
        let Decoded {
            entry,
            name,
            fan_out,
            ..
        } = self.decoded(id)?;
        let meta = Arc::new(Meta {
            entry,
            name,
            fan_out,
        });
        lock(&self.decoders.metas).insert(id, Arc::clone(&meta), 1);
        Ok(meta)
    }

    /// A commit; where history is cut, as one without parents.
    pub(crate) fn commit(&self, id: ObjectId) -> Result<Arc<CommitFacts>> {
        let facts = self.stored_commit(id)?;
        if !self.cut()?.contains(&id) {
            return Ok(facts);
        }
        let mut facts = CommitFacts::clone(&facts);
        facts.parents.clear();
        Ok(Arc::new(facts))
    }

    /// Where history is cut.
    pub(crate) fn cut(&self) -> Result<&HashSet<ObjectId>> {
        if let Some(cut) = self.cut.get() {
            return Ok(cut);
        }
        let cut = cut::read(&self.git)?;
        Ok(self.cut.get_or_init(|| cut))
    }

    /// Whether history is cut, and what begins with this commit is not what is left of it.
    pub(crate) fn is_beside_cut(&self, root: ObjectId) -> Result<bool> {
        let cut = self.cut()?;
        Ok(!cut.is_empty() && !cut.contains(&root))
    }

    fn stored_commit(&self, id: ObjectId) -> Result<Arc<CommitFacts>> {
        if let Some(facts) = lock(&self.decoders.commits).get(&id, |_| 1) {
            return Ok(facts);
        }
        let facts = Arc::new(commit::parse(id, &self.object(id, ObjectKind::Commit)?)?);
        lock(&self.decoders.commits).insert(id, Arc::clone(&facts), 1);
        Ok(facts)
    }

    /// A commit that its author must have signed.
    pub(crate) fn signed_commit(&self, id: ObjectId) -> Result<Arc<CommitFacts>> {
        if lock(&self.decoders.signed).get(&id, |()| 1).is_none() {
            commit::parse_signed(id, &self.object(id, ObjectKind::Commit)?)?;
            self.decoders.note_signed(id);
        }
        self.commit(id)
    }

    pub(crate) fn put(&self, kind: ObjectKind, data: Vec<u8>) -> Result<ObjectId> {
        let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, kind, &data)
            .map_err(git("hash an object"))?;
        self.batch.borrow_mut().entry(id).or_insert((kind, data));
        Ok(id)
    }

    pub(crate) fn put_node(&self, node: Node) -> Result<ObjectId> {
        let id = self.put(ObjectKind::Tree, node.write()?)?;
        let node = Arc::new(node);
        let weight = node_weight(&node);
        lock(&self.decoders.nodes).insert(id, node, weight);
        Ok(id)
    }

    /// What is not on disk yet.
    pub(crate) fn take_batch(&self) -> Batch {
        let mut batch = self.batch.take();
        batch.retain(|id, _| !self.git.objects.exists_without_refresh(id));
        batch
    }
}
