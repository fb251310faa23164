//! Replicating a whole content to here.

use super::content::{Command, FetchId};
use super::engine::Engine;
use crate::metainfo::Info;
use std::io;
use std::sync::Arc;
use tokio::sync::watch;

/// How far a [`Fetch`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// All pieces of the content.
    pub pieces: u32,
    /// Pieces that are not here yet.
    pub missing_pieces: u32,
    /// Nobody who is connected has what is missing.
    pub stalled: bool,
    /// Set once, at the end.
    pub end: Option<FetchEnd>,
}

/// How a [`Fetch`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchEnd {
    /// The content is complete, checked as a whole, and kept by the store.
    Complete,
    /// The disk failed; with the system's words.
    Failed(io::ErrorKind, String),
}

/// A replication under way; it ends when this is dropped. It waits for holders as long as it takes.
pub struct Fetch {
    engine: Arc<Engine>,
    info: Info,
    id: FetchId,
    progress: watch::Receiver<Progress>,
}

impl Fetch {
    pub(crate) fn new(engine: Arc<Engine>, info: Info) -> Self {
        let id = FetchId(engine.fresh());
        let (sender, progress) = watch::channel(Progress {
            pieces: info.piece_count(),
            missing_pieces: info.piece_count(),
            stalled: false,
            end: None,
        });
        engine.activate_with(&info, Command::Fetch(id, sender));
        Self {
            engine,
            info,
            id,
            progress,
        }
    }

    /// Follows the progress.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits for the end.
    pub async fn done(&mut self) -> Result<(), io::Error> {
        match self
            .progress
            .wait_for(|progress| progress.end.is_some())
            .await
        {
            Ok(progress) => match &progress.end {
                Some(FetchEnd::Failed(kind, text)) => Err(io::Error::new(*kind, text.clone())),
                _ => Ok(()),
            },
            Err(_) => Err(io::Error::other("the content could not be opened")),
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.engine
            .tell(&self.info.info_hash(), Command::FetchGone(self.id));
    }
}
