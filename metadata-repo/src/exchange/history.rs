//! Which commits are new to the other side: the walk over history that both the server and the check of a
//! received pack go by.

use super::ExchangeError;
use super::store::Objects;
use gix::ObjectId;
use gix::objs::{CommitRef, Kind};
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::rc::Rc;

/// What the walk needs of a commit.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) tree: ObjectId,
    /// Empty for commits where this repository's own history was cut.
    pub(super) parents: Vec<ObjectId>,
    /// Seconds; decides in which order commits are looked at, never what comes out.
    time: i64,
}

/// What one side wants and has.
#[derive(Debug, Default)]
pub(super) struct Query {
    /// Commits to be made complete.
    pub(super) wants: Vec<ObjectId>,
    /// Commits that are there, with their history down to `shallow`.
    pub(super) haves: Vec<ObjectId>,
    /// Commits of the other side whose parents it may lack.
    pub(super) shallow: HashSet<ObjectId>,
    /// Only so many commits of each chain.
    pub(super) depth: Option<usize>,
}

/// What follows from a [`Query`].
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Commits that are new, parents first.
    pub(super) commits: Vec<ObjectId>,
    /// The same, and those that are known to be there already.
    known: HashSet<ObjectId>,
    /// New commits whose parents are left out.
    pub(super) shallow: Vec<ObjectId>,
    /// Commits that were shallow and get their parents.
    pub(super) unshallow: Vec<ObjectId>,
}

/// Commits of a set of objects.
pub(super) struct History<'a> {
    pub(super) objects: &'a mut dyn Objects,
    nodes: HashMap<ObjectId, Rc<Node>>,
    /// Commits of ours whose parents were cut off.
    cut: HashSet<ObjectId>,
    commits_max: usize,
    /// Whether a commit that is not there is taken for one without parents.
    has_holes: bool,
}

/// Hears how many commits have been looked at; its error ends the walk.
type Tell<'a> = &'a mut dyn FnMut(usize) -> Result<(), ExchangeError>;

const WANT: u8 = 1;
const HAVE: u8 = 2;

/// Commits coloured by who has them, while the walk goes on.
#[derive(Default)]
struct Paint {
    colours: HashMap<ObjectId, u8>,
    queue: BinaryHeap<(i64, ObjectId)>,
    queued: HashSet<ObjectId>,
    /// How many of the queue nobody is known to have.
    open: usize,
}

impl Paint {
    fn add(&mut self, id: ObjectId, time: i64, colour: u8) {
        let before = self.colours.get(&id).copied().unwrap_or(0);
        let after = before | colour;
        self.colours.insert(id, after);
        // what lies below something that is there, is there
        if before == after || before & HAVE != 0 {
            return;
        }
        if self.queued.contains(&id) {
            self.open -= 1;
        } else {
            self.queue.push((time, id));
            self.queued.insert(id);
            self.open += usize::from(after == WANT);
        }
    }

    fn next(&mut self) -> Option<(ObjectId, u8)> {
        let (_, id) = self.queue.pop()?;
        self.queued.remove(&id);
        let colour = self.colours[&id];
        self.open -= usize::from(colour == WANT);
        Some((id, colour))
    }
}

impl<'a> History<'a> {
    pub(super) fn new(
        objects: &'a mut dyn Objects,
        cut: HashSet<ObjectId>,
        commits_max: usize,
    ) -> Self {
        Self {
            objects,
            nodes: HashMap::new(),
            cut,
            commits_max,
            has_holes: false,
        }
    }

    /// Of a peer's history, which may have holes: the walk ends there, and whoever reads the commit finds out.
    pub(super) fn with_holes(self) -> Self {
        Self {
            has_holes: true,
            ..self
        }
    }

    /// A commit, which has to be there.
    pub(super) fn node(&mut self, id: ObjectId) -> Result<Rc<Node>, ExchangeError> {
        if let Some(node) = self.nodes.get(&id) {
            return Ok(Rc::clone(node));
        }
        if self.nodes.len() >= self.commits_max {
            return Err(ExchangeError::Limit {
                what: "commits in one exchange",
                limit: self.commits_max as u64,
            });
        }
        let mut buffer = Vec::new();
        let mut node = match self.objects.read(&id, &mut buffer)? {
            None if self.has_holes => Node {
                tree: ObjectId::null(id.kind()),
                parents: Vec::new(),
                time: 0,
            },
            None => return Err(ExchangeError::Missing(id.to_string())),
            Some((Kind::Commit, data)) => parse(&id, data)?,
            Some((kind, _)) => {
                return Err(ExchangeError::object(
                    &id,
                    format!("a {kind} where a commit should be"),
                ));
            }
        };
        if self.cut.contains(&id) {
            node.parents.clear();
        }
        let node = Rc::new(node);
        self.nodes.insert(id, Rc::clone(&node));
        Ok(node)
    }

    /// What the other side has may lie below where history is cut here, and be there in part.
    fn is_here(&mut self, id: ObjectId) -> Result<bool, ExchangeError> {
        Ok(self.nodes.contains_key(&id) || self.objects.kind_of(&id)?.is_some())
    }

    /// What the other side lacks.
    pub(super) fn select(&mut self, query: &Query) -> Result<Selection, ExchangeError> {
        self.select_telling(query, &mut |_| Ok(()))
    }

    /// The same, and tells now and then how many commits have been looked at.
    pub(super) fn select_telling(
        &mut self,
        query: &Query,
        tell: Tell<'_>,
    ) -> Result<Selection, ExchangeError> {
        match query.depth {
            None => self.select_all(query, tell),
            Some(depth) => self.select_to_depth(query, depth),
        }
    }

    fn select_all(&mut self, query: &Query, tell: Tell<'_>) -> Result<Selection, ExchangeError> {
        let mut paint = Paint::default();
        for (ids, colour) in [(&query.wants, WANT), (&query.haves, HAVE)] {
            for id in ids {
                paint.add(*id, self.node(*id)?.time, colour);
            }
        }
        while paint.open > 0 {
            let Some((id, colour)) = paint.next() else {
                break;
            };
            tell(self.nodes.len())?;
            if query.shallow.contains(&id) {
                continue;
            }
            for parent in &self.node(id)?.parents {
                if colour & WANT != 0 || self.is_here(*parent)? {
                    paint.add(*parent, self.node(*parent)?.time, colour);
                }
            }
        }
        let new = paint.colours.iter().filter(|(_, colour)| **colour == WANT);
        let new: HashSet<_> = new.map(|(id, _)| *id).collect();
        let shallow = new
            .iter()
            .filter(|id| self.cut.contains(*id) && !query.shallow.contains(*id));
        Ok(Selection {
            shallow: shallow.copied().collect(),
            unshallow: Vec::new(),
            commits: self.parents_first(&new)?,
            known: paint.colours.into_keys().collect(),
        })
    }

    fn select_to_depth(&mut self, query: &Query, depth: usize) -> Result<Selection, ExchangeError> {
        let mut known = self.closure(&query.haves, &query.shallow)?;
        let mut within: HashSet<ObjectId> = query.wants.iter().copied().collect();
        let mut level: Vec<_> = within.iter().copied().collect();
        let mut shallow = HashSet::new();
        for remaining in (0..depth).rev() {
            let mut next = Vec::new();
            for id in std::mem::take(&mut level) {
                let node = self.node(id)?;
                if (remaining == 0 && !node.parents.is_empty()) || self.cut.contains(&id) {
                    shallow.insert(id);
                } else {
                    next.extend(node.parents.iter().filter(|parent| within.insert(**parent)));
                }
            }
            if next.is_empty() {
                break;
            }
            level = next;
        }
        let unshallow = query
            .shallow
            .iter()
            .filter(|id| within.contains(*id) && !shallow.contains(*id));
        let unshallow = unshallow.copied().collect();
        let new: HashSet<_> = within.difference(&known).copied().collect();
        known.extend(&new);
        Ok(Selection {
            commits: self.parents_first(&new)?,
            known,
            shallow: shallow.difference(&query.shallow).copied().collect(),
            unshallow,
        })
    }

    /// All commits from `tips` down that are here, without the parents of those in `stop`.
    fn closure(
        &mut self,
        tips: &[ObjectId],
        stop: &HashSet<ObjectId>,
    ) -> Result<HashSet<ObjectId>, ExchangeError> {
        let mut all: HashSet<_> = tips.iter().copied().collect();
        let mut todo: Vec<_> = tips.to_vec();
        while let Some(id) = todo.pop() {
            if !stop.contains(&id) {
                for parent in &self.node(id)?.parents {
                    if self.is_here(*parent)? && all.insert(*parent) {
                        todo.push(*parent);
                    }
                }
            }
        }
        Ok(all)
    }

    /// Orders a set so that each commit comes after its parents.
    fn parents_first(&mut self, set: &HashSet<ObjectId>) -> Result<Vec<ObjectId>, ExchangeError> {
        let mut ids: Vec<_> = set.iter().copied().collect();
        ids.sort_unstable();
        let mut done = HashSet::with_capacity(ids.len());
        let mut ordered = Vec::with_capacity(ids.len());
        for id in ids {
            let mut stack = vec![(id, false)];
            while let Some((id, parents_done)) = stack.pop() {
                if parents_done {
                    ordered.push(id);
                } else if done.insert(id) {
                    stack.push((id, true));
                    let node = self.node(id)?;
                    let parents = node.parents.iter().filter(|parent| set.contains(*parent));
                    stack.extend(parents.map(|parent| (*parent, false)));
                }
            }
        }
        Ok(ordered)
    }

    /// Those of `targets` that are neither among `tips` nor in their history.
    pub(super) fn unreachable(
        &mut self,
        tips: &[ObjectId],
        mut targets: HashSet<ObjectId>,
    ) -> Result<HashSet<ObjectId>, ExchangeError> {
        let mut seen = HashSet::new();
        let mut queue = BinaryHeap::new();
        for tip in tips {
            if seen.insert(*tip) {
                queue.push((self.node(*tip)?.time, *tip));
            }
        }
        while let Some((_, id)) = queue.pop() {
            targets.remove(&id);
            if targets.is_empty() {
                break;
            }
            for parent in &self.node(id)?.parents {
                if seen.insert(*parent) {
                    queue.push((self.node(*parent)?.time, *parent));
                }
            }
        }
        Ok(targets)
    }

    /// In a history with holes: whether all that a commit goes on from is here, down to commits of which that is known,
    /// `above`. More are added.
    pub(super) fn leads_up(
        &mut self,
        tip: ObjectId,
        above: &mut HashSet<ObjectId>,
    ) -> Result<bool, ExchangeError> {
        let (mut seen, mut todo) = (HashSet::from([tip]), vec![tip]);
        while let Some(id) = todo.pop() {
            if above.contains(&id) {
                continue;
            }
            // also of a commit that is missing, which is a hole
            let node = self.node(id)?;
            if node.parents.is_empty() {
                return Ok(false);
            }
            let parents = node.parents.iter().copied();
            todo.extend(parents.filter(|parent| seen.insert(*parent)));
        }
        above.extend(seen);
        Ok(true)
    }

    /// Where history is cut.
    pub(super) fn cut(&self) -> &HashSet<ObjectId> {
        &self.cut
    }

    /// The trees that the other side has, or will have got before this commit: what to compare it with.
    pub(super) fn bases(
        &mut self,
        selection: &Selection,
        commit: ObjectId,
    ) -> Result<Vec<ObjectId>, ExchangeError> {
        let node = self.node(commit)?;
        let known = node
            .parents
            .iter()
            .filter(|parent| selection.known.contains(*parent));
        known.map(|parent| Ok(self.node(*parent)?.tree)).collect()
    }
}

fn parse(id: &ObjectId, data: &[u8]) -> Result<Node, ExchangeError> {
    let bad = |why: String| ExchangeError::object(id, why);
    let commit =
        CommitRef::from_bytes(data, gix::hash::Kind::Sha1).map_err(|e| bad(e.to_string()))?;
    Ok(Node {
        tree: commit.tree(),
        parents: commit.parents().collect(),
        time: commit.time().map_err(|e| bad(e.to_string()))?.seconds,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Commits by number, each with its parents and its time.
    struct Graph(Vec<(Vec<u8>, i64)>);

    fn id(number: u8) -> ObjectId {
        ObjectId::Sha1([number; 20])
    }

    impl Objects for Graph {
        fn read<'b>(
            &mut self,
            id: &gix::oid,
            buffer: &'b mut Vec<u8>,
        ) -> Result<Option<(Kind, &'b [u8])>, ExchangeError> {
            let Some((parents, time)) = self.0.get(usize::from(id.as_bytes()[0])) else {
                return Ok(None);
            };
            let parents = parents
                .iter()
                .map(|parent| format!("parent {}\n", self::id(*parent)));
            let (tree, parents) = ("ee".repeat(20), parents.collect::<String>());
            let by = format!("a <a> {time} +0000");
            let text = format!("tree {tree}\n{parents}author {by}\ncommitter {by}\n\nx\n");
            *buffer = text.into_bytes();
            Ok(Some((Kind::Commit, buffer)))
        }

        fn kind_of(&mut self, _: &gix::oid) -> Result<Option<Kind>, ExchangeError> {
            Ok(Some(Kind::Commit))
        }
    }

    /// 0 ← 1 ← 2 ← 4 and 1 ← 3 ← 4; clocks run backwards.
    fn diamond() -> Graph {
        let parents = [vec![], vec![0], vec![1], vec![1], vec![2, 3]];
        Graph((0i64..).zip(parents).map(|(n, p)| (p, 100 - n)).collect())
    }

    fn ids(numbers: &[u8]) -> Vec<ObjectId> {
        numbers.iter().map(|number| id(*number)).collect()
    }

    fn numbers(ids: &[ObjectId]) -> Vec<u8> {
        let mut numbers: Vec<_> = ids.iter().map(|id| id.as_bytes()[0]).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn what_is_there_is_left_out_whatever_the_clocks_say() {
        let mut graph = diamond();
        let mut history = History::new(&mut graph, HashSet::new(), 100);
        let mut query = Query {
            wants: ids(&[4]),
            haves: ids(&[2]),
            ..Query::default()
        };
        let selection = history.select(&query).unwrap();
        assert!(
            selection.commits.ends_with(&ids(&[3, 4])),
            "{:?}",
            selection.commits
        );
        query.haves.clear();
        let selection = history.select(&query).unwrap();
        assert_eq!(numbers(&selection.commits), [0, 1, 2, 3, 4]);
        assert_eq!(selection.commits[..2], ids(&[0, 1])[..]);
        query.haves = ids(&[4]);
        assert!(history.select(&query).unwrap().commits.is_empty());
    }

    #[test]
    fn depth_cuts_and_deepens() {
        let mut graph = diamond();
        let mut history = History::new(&mut graph, HashSet::new(), 100);
        let mut query = Query {
            wants: ids(&[4]),
            depth: Some(2),
            ..Query::default()
        };
        let selection = history.select(&query).unwrap();
        assert_eq!(numbers(&selection.commits), [2, 3, 4]);
        assert_eq!(numbers(&selection.shallow), [2, 3]);
        query.haves = ids(&[4]);
        query.shallow = ids(&[2, 3]).into_iter().collect();
        query.depth = Some(usize::MAX);
        let selection = history.select(&query).unwrap();
        assert_eq!(numbers(&selection.commits), [0, 1]);
        assert_eq!(numbers(&selection.unshallow), [2, 3]);
    }

    #[test]
    fn a_shallow_client_gets_what_lies_below_its_boundary_when_it_needs_it() {
        // 5 has the parents 2 and 0, and the client has 2 alone
        let mut graph = diamond();
        graph.0.push((vec![2, 0], 200));
        let mut history = History::new(&mut graph, HashSet::new(), 100);
        let shallow = ids(&[2]).into_iter().collect();
        let query = Query {
            wants: ids(&[5]),
            haves: ids(&[2]),
            shallow,
            depth: None,
        };
        assert_eq!(numbers(&history.select(&query).unwrap().commits), [0, 5]);
    }

    #[test]
    fn reachability_and_limits() {
        let mut graph = diamond();
        let mut history = History::new(&mut graph, HashSet::new(), 4);
        let targets = || ids(&[1, 3]).into_iter().collect();
        assert!(
            history
                .unreachable(&ids(&[3]), targets())
                .unwrap()
                .is_empty()
        );
        assert_eq!(history.unreachable(&ids(&[1]), targets()).unwrap().len(), 1);
        assert!(matches!(
            history.unreachable(&ids(&[4]), ids(&[9]).into_iter().collect()),
            Err(ExchangeError::Limit { .. })
        ));
        assert!(matches!(
            history.node(id(77)),
            Err(ExchangeError::Limit { .. } | ExchangeError::Missing(_))
        ));
    }
}
