//! What an object that comes from outside can be checked for by itself.

use super::tree::{self, Found};
use super::{ExchangeError, Foreign};
use delugefs_core::ids::BlobId;
use gix::ObjectId;
use gix::objs::{CommitRef, Kind, WriteTo as _};
use std::collections::HashSet;

/// Checks the objects of one pack, and notes what their trees name.
pub(super) struct Checker<'a> {
    foreign: &'a dyn Foreign,
    named: HashSet<Found>,
    /// More than the pack has: something else is named, too.
    named_max: usize,
}

/// Objects of a pack up to which what its trees name is noted: up to 50 bytes of memory for each.
const NAMED_MAX: usize = 4_000_000;

impl<'a> Checker<'a> {
    /// For a pack of so many objects.
    pub(super) fn new(foreign: &'a dyn Foreign, objects: u32) -> Self {
        Self {
            foreign,
            named: HashSet::new(),
            named_max: NAMED_MAX.min(objects as usize),
        }
    }

    /// Gives an object's id if it is well-formed.
    pub(super) fn check(&mut self, kind: Kind, data: &[u8]) -> Result<ObjectId, ExchangeError> {
        let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, kind, data)
            .map_err(|e| ExchangeError::Pack(e.to_string()))?;
        let checked = match (kind, BlobId::from_slice(id.as_bytes())) {
            (Kind::Commit, _) => check_commit(data).map_err(str::to_owned),
            (Kind::Tree, _) => self.check_tree(data).map_err(str::to_owned),
            (_, Some(blob)) => self.foreign.check_blob(blob, data),
            (_, None) => Err("an id of another length".to_owned()),
        };
        match checked {
            Ok(()) => Ok(id),
            Err(why) => Err(ExchangeError::object(&id, why)),
        }
    }

    fn check_tree(&mut self, data: &[u8]) -> Result<(), &'static str> {
        let named = tree::check(data)?;
        if self.named.len() <= self.named_max {
            self.named.extend(named);
        }
        Ok(())
    }

    /// Whether all that the trees name is in the pack, as what it is named: then so is all that is below each.
    pub(super) fn is_closed(&self, kind_of: impl Fn(&ObjectId) -> Option<Kind>) -> bool {
        self.named.len() <= self.named_max
            && self.named.iter().all(|named| {
                let kind = match named.directory {
                    true => Kind::Tree,
                    false => Kind::Blob,
                };
                kind_of(&named.id) == Some(kind)
            })
    }
}

/// A commit must be written exactly as Git writes it.
fn check_commit(data: &[u8]) -> Result<(), &'static str> {
    let bad = "a commit that git would not write";
    let commit = CommitRef::from_bytes(data, gix::hash::Kind::Sha1).map_err(|_| bad)?;
    let same_name = |a: gix::actor::SignatureRef<'_>| !a.name.is_empty() || !a.email.is_empty();
    if !same_name(commit.author().map_err(|_| bad)?)
        || !same_name(commit.committer().map_err(|_| bad)?)
    {
        return Err("a commit without author");
    }
    let mut again = Vec::with_capacity(data.len());
    commit.write_to(&mut again).map_err(|_| bad)?;
    if again != data || data.contains(&0) {
        return Err(bad);
    }
    let parents: Vec<_> = commit.parents().collect();
    let distinct: HashSet<_> = parents.iter().collect();
    if distinct.len() == parents.len() {
        Ok(())
    } else {
        Err("a commit with one parent twice")
    }
}
