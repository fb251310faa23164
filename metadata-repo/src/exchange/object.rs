//! What an object that comes from outside can be checked for by itself.

use super::{ExchangeError, Foreign, tree};
use delugefs_core::ids::BlobId;
use gix::ObjectId;
use gix::objs::{CommitRef, Kind, WriteTo as _};

/// Gives an object's id if it is well-formed.
pub(super) fn check(
    kind: Kind,
    data: &[u8],
    foreign: &dyn Foreign,
) -> Result<ObjectId, ExchangeError> {
    let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, kind, data)
        .map_err(|e| ExchangeError::Pack(e.to_string()))?;
    let checked = match (kind, BlobId::from_slice(id.as_bytes())) {
        (Kind::Commit, _) => check_commit(data).map_err(str::to_owned),
        (Kind::Tree, _) => tree::check(data).map_err(str::to_owned),
        (_, Some(blob)) => foreign.check_blob(blob, data),
        (_, None) => Err("an id of another length".to_owned()),
    };
    match checked {
        Ok(()) => Ok(id),
        Err(why) => Err(ExchangeError::object(&id, why)),
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
    let distinct: std::collections::HashSet<_> = parents.iter().collect();
    if distinct.len() == parents.len() {
        Ok(())
    } else {
        Err("a commit with one parent twice")
    }
}
