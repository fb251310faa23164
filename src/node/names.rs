//! The repository's work: commit and rebase (see `moving`), pull. Each runs on a thread that may block; how it ended
//! comes to the inbox.

use super::inbox::{Input, Work, label};
use super::links;
use super::moving::{self, Mover, NamesError};
use super::shared::{Shared, unix_time, wall_clock};
use super::story;
use crate::filesystem::{Filesystem, Invalidation};
use crate::link::{Purpose, blocking};
use crate::root::Standing;
use crate::sync_ext::lock;
use delugefs_core::ids::{IncarnationId, NodeId, TreeId};
use delugefs_core::settings::Settings;
use delugefs_core::sync::{Evidence, LinkId, PullId};
use delugefs_core::time::Timestamp;
use delugefs_metadata_repo::exchange::{self, PullOptions};
use delugefs_metadata_repo::{Repository, RepositoryError, ViewDiff};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a peer may be silent within a pull; a large pack takes its time to be made.
const PULL_SILENCE_MAX: Duration = Duration::from_secs(30);

/// What it is called when it does not work.
const COMMITTING: &str = "committing changes";

/// Runs some work of the repository, one at a time, and tells the inbox how it ended.
pub(super) fn spawn(shared: &Arc<Shared>, work: Work, run: fn(&Shared) -> Result<(), NamesError>) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let worker = Arc::clone(&shared);
        let well = match tokio::task::spawn_blocking(move || run(&worker)).await {
            Ok(Ok(())) => {
                shared.troubles.over(COMMITTING);
                true
            }
            Ok(Err(error)) => {
                shared.troubles.tell(COMMITTING, &waits(&shared, &error));
                false
            }
            Err(panic) => {
                shared.stop_because(format!(
                    "a broken invariant of the names ({panic}); nothing more is published"
                ));
                false
            }
        };
        shared.tell(Input::Ended(work, well)).await;
    });
}

/// Why changes wait, and what can be done about it.
fn waits(shared: &Shared, error: &NamesError) -> String {
    let why = story::with_causes(error);
    if !error.is_no_space() {
        return format!("changes wait in the journal: {why}");
    }
    let root = shared.layout.root().display();
    format!(
        "no space left on the disk of {root}: make room there, by removing what is not DelugeFS's; until then changes wait in the journal ({why})"
    )
}

impl Mover for Shared {
    fn repository(&self) -> &Repository {
        &self.repository
    }

    fn filesystem(&self) -> &Filesystem {
        &self.filesystem
    }

    fn names_moving(&self) -> &Mutex<()> {
        &self.names_moving
    }

    fn incarnation(&self) -> IncarnationId {
        Self::incarnation(self)
    }

    fn label(&self) -> &str {
        &self.file.label
    }

    fn now(&self) -> Timestamp {
        wall_clock()
    }

    fn follow(&self, diff: &ViewDiff) {
        let (changes, blobs) = (&diff.changes, &diff.blobs);
        self.replica.follow(changes, blobs, unix_time());
    }

    fn invalidate(&self, invalidations: Vec<Invalidation>) {
        Self::invalidate(self, invalidations);
    }

    fn brought(&self, tree: TreeId, diff: &ViewDiff) -> Result<(), RepositoryError> {
        story::tell_conflicts(&self.repository, tree, diff)
    }

    fn learn_settings(&self) -> Result<(), RepositoryError> {
        learn_settings(self)
    }
}

/// Commits what is pending.
pub(super) fn commit(shared: &Shared) -> Result<(), NamesError> {
    moving::commit(shared)
}

/// Commits what is pending, merges the heads, and applies the new view to the mount.
pub(super) fn rebase(shared: &Shared) -> Result<(), NamesError> {
    moving::rebase(shared)
}

/// Changes the volume's settings.
pub(super) fn set(shared: &Shared, settings: &Settings) -> Result<(), NamesError> {
    moving::set(shared, settings)?;
    // the sync machine finds the new head at its next look, and announces it
    shared.pending.notify_one();
    Ok(())
}

/// Shows what the heads show, also where the last run ended before it could.
pub(super) fn catch_up(shared: &Shared) -> Result<(), NamesError> {
    moving::catch_up(shared, shared.file.continues)
}

/// Settings travel with the names.
pub(super) fn learn_settings(shared: &Shared) -> Result<(), RepositoryError> {
    let settings = shared.repository.settings()?;
    if let Some(swarm) = shared.replica.swarm() {
        swarm.set_wait(settings.wait);
    }
    let mut known = lock(&shared.settings);
    if *known != settings {
        *known = settings;
        drop(known);
        shared.replica.look_at_all();
    }
    Ok(())
}

/// Pulls the heads of the node at the other end of a link.
pub(super) fn pull(shared: &Arc<Shared>, pull: PullId, link: LinkId) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let well = match shared.links.get(link) {
            Some(up) => match pull_from(&shared, up.listening).await {
                Ok(()) => true,
                Err(sentence) => {
                    tracing::warn!(
                        "cannot pull names from {}: {sentence}",
                        label(&shared, up.peer)
                    );
                    false
                }
            },
            None => false,
        };
        shared.tell(Input::Ended(Work::Pull(pull), well)).await;
    });
}

async fn pull_from(shared: &Arc<Shared>, address: SocketAddr) -> Result<(), String> {
    let opened = links::open(shared, address, Purpose::Git).await;
    let stream = opened.map_err(|error| error.to_string())?.stream;
    let (read, write) = blocking::split(stream, Handle::current(), PULL_SILENCE_MAX);
    let (repository, own) = (shared.repository.clone(), shared.incarnation());
    let pulled = tokio::task::spawn_blocking(move || {
        let options = PullOptions {
            own: Some(own),
            ..PullOptions::default()
        };
        exchange::pull(&repository, read, write, &options)
    })
    .await;
    let pulled = pulled.map_err(|error| error.to_string())?;
    pulled.map(|_| ()).map_err(|error| error.to_string())
}

/// Someone has seen more of this node than it has itself: its root was restored from an older copy.
pub(super) fn suspect(shared: &Arc<Shared>, peer: NodeId, evidence: Evidence) {
    // the sync machine may know less than the disk
    let is_ours = match evidence {
        Evidence::Head(commit) => shared.repository.is_known(commit).unwrap_or(false),
        Evidence::Holdings(seen) => {
            let positions = shared.replica.positions();
            positions
                .get(&shared.incarnation())
                .is_some_and(|position| *position >= seen)
        }
    };
    if is_ours {
        return;
    }
    let by = label(shared, peer);
    shared.stop_and_stand(
        Standing::Behind,
        &format!(
            "{by} has seen newer work of this disk than is on it: it was restored from an older copy, or another copy of it is running. \
             Start it again: it continues with what the others have, and with what it has itself"
        ),
    );
}
