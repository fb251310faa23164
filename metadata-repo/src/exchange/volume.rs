//! The exchange over a volume's repository.

use super::{
    ExchangeError, Foreign, GitStore, PullOptions, Pulled, ServeOptions, Served, pull_into,
    serve_from,
};
use crate::codec::CodecError;
use crate::error::RepositoryError;
use crate::{Repository, commit};
use delugefs_core::ids::{BlobId, CommitId, IncarnationId};
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
pub fn pull(
    repository: &Repository,
    read: impl Read,
    write: impl Write,
    options: &PullOptions<'_>,
) -> Result<Pulled, ExchangeError> {
    pull_into(repository, read, write, options)
}

/// A chain holds its own author's commits at its head. Whether a tree can be read is decided when it is to be
/// shown: a head that cannot is left out then, and keeps nothing else from arriving.
#[derive(Debug, Clone, Copy, Default)]
pub struct VolumeRules;

impl Foreign for VolumeRules {
    fn check_blob(&self, _: BlobId, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn check_commit(&self, _: CommitId, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn check_head(&self, author: IncarnationId, id: CommitId, raw: &[u8]) -> Result<(), String> {
        let facts = match commit::parse(super::object_id(id), raw) {
            Ok(facts) => facts,
            Err(RepositoryError::Codec {
                source: CodecError::Newer { .. },
                ..
            }) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        if facts.incarnation == Some(author) {
            Ok(())
        } else {
            Err(format!("it is not a commit of {author}"))
        }
    }
}
