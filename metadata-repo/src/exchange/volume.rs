//! The exchange over a volume's repository.

use super::{
    Anew, ExchangeError, Foreign, GitStore, PullOptions, Pulled, Refusals, ServeOptions, Served,
    client, pull_into, serve_from,
};
use crate::error::RepositoryError;
use crate::{Repository, commit};
use delugefs_core::ids::{BlobId, CommitId, IncarnationId};
use delugefs_core::past::Boundary;
use gix::ObjectId;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::sync::RwLockReadGuard;

impl GitStore for Repository {
    fn git(&self) -> gix::Repository {
        self.git_handle()
    }

    /// Handles look at the disk again when they miss something.
    fn refresh(&self) {}

    fn sync(&self) -> Result<(), ExchangeError> {
        Self::sync(self).map_err(ExchangeError::repository)
    }

    fn hold(&self) -> Option<RwLockReadGuard<'_, ()>> {
        Some(self.hold_objects())
    }

    fn boundary(&self) -> Result<Option<Boundary>, ExchangeError> {
        self.recorded().map_err(ExchangeError::repository)
    }

    fn begin_at(&self, commits: &HashSet<ObjectId>) -> Result<(), ExchangeError> {
        Self::begin_at(self, commits).map_err(ExchangeError::repository)
    }

    fn refusals(&self) -> &Refusals {
        self.refused()
    }
}

/// Serves one connection, of stock git or of a node, until the client is done. The client speaks first: a
/// `git://` request line, or at once a command. Blocks; timeouts are the streams'.
pub fn serve(
    repository: &Repository,
    read: impl Read,
    write: impl Write,
    options: &ServeOptions,
) -> Result<Served, ExchangeError> {
    serve_from(repository, read, write, options)
}

/// Pulls all author chains over a connection on whose other side is [`serve`]. The stream carries this one
/// conversation. Blocks; timeouts are the streams'. What has moved is shown after
/// [`Repository::refresh_view`].
///
/// Each commit that is new has to be signed by the incarnation that it names, and each chain's head has to be its
/// own author's.
pub fn pull(
    repository: &Repository,
    read: impl Read,
    write: impl Write,
    options: &PullOptions<'_>,
) -> Result<Pulled, ExchangeError> {
    let rules = VolumeRules {
        repository,
        further: options.foreign,
    };
    pull_into(repository, read, write, &rules.within(options))
}

/// Fetches all that the other side has, as [`pull`] for a node without any history: after [`ExchangeError::Cut`]. No
/// chain moves: that is for [`Repository::import`]; until then [`Repository::keep_all`] has to be held.
pub fn fetch_anew(
    repository: &Repository,
    read: impl Read,
    write: impl Write,
    options: &PullOptions<'_>,
) -> Result<Anew, ExchangeError> {
    let rules = VolumeRules {
        repository,
        further: options.foreign,
    };
    let within = PullOptions {
        own: None,
        ..rules.within(options)
    };
    let history = client::fetch_anew(repository, read, write, &within)?;
    if let Some(own) = options.own {
        check_own(repository, own, &history)?;
    }
    Ok(history)
}

/// The others may have of this very incarnation what its own cut has let go of. More than it has itself proves that there
/// is, or was, another copy of it.
fn check_own(
    repository: &Repository,
    own: IncarnationId,
    history: &Anew,
) -> Result<(), ExchangeError> {
    let Some(theirs) = history.authors.get(&own).copied() else {
        return Ok(());
    };
    let has_come = repository.has_come_to(own, theirs);
    if has_come.map_err(ExchangeError::repository)? {
        return Ok(());
    }
    let authors = repository.authors().map_err(ExchangeError::repository)?;
    let ours = authors.get(&own).copied();
    Err(ExchangeError::OwnChainAhead { ours, theirs })
}

/// Whether a tree can be read is not among the rules: that is decided when it is to be shown. A head that cannot be
/// is left out then, and keeps nothing else from arriving.
struct VolumeRules<'a> {
    repository: &'a Repository,
    further: &'a dyn Foreign,
}

impl VolumeRules<'_> {
    fn within<'a>(&'a self, options: &PullOptions<'a>) -> PullOptions<'a> {
        PullOptions {
            own: options.own,
            limits: options.limits.clone(),
            foreign: self,
            progress: options.progress,
        }
    }
}

impl Foreign for VolumeRules<'_> {
    fn check_blob(&self, blob: BlobId, raw: &[u8]) -> Result<(), String> {
        self.further.check_blob(blob, raw)
    }

    fn check_commit(&self, id: CommitId, raw: &[u8]) -> Result<(), String> {
        let checked = commit::parse_signed(super::object_id(id), raw);
        checked.map_err(why)?;
        self.further.check_commit(id, raw)?;
        self.repository.note_signed(super::object_id(id));
        Ok(())
    }

    fn wants_cuts_recorded(&self) -> bool {
        true
    }

    fn check_head(&self, author: IncarnationId, id: CommitId, raw: &[u8]) -> Result<(), String> {
        // its signature is verified already, with all that is new or when it was
        let facts = commit::parse(super::object_id(id), raw).map_err(why)?;
        match facts.incarnation {
            Some(found) if found == author => self.further.check_head(author, id, raw),
            Some(other) => Err(format!("it is a commit of {other}")),
            None => Err("it has no author".to_owned()),
        }
    }
}

/// Without the commit's id, which is told beside it.
fn why(error: RepositoryError) -> String {
    match error {
        RepositoryError::Rules { problem, .. } | RepositoryError::Malformed { problem, .. } => {
            problem
        }
        RepositoryError::Codec { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}
