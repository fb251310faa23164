//! The repository's work: commit, rebase, pull. Each runs on a thread that may block; how it ended comes to the inbox.

use super::inbox::{Input, Work, label};
use super::links;
use super::shared::{Shared, unix_time, wall_clock};
use super::story;
use crate::filesystem::{self as fs, BaseView, FsError, Group};
use crate::link::{Purpose, blocking};
use crate::sync_ext::lock;
use delugefs_core::change::Changes;
use delugefs_core::ids::{NodeId, TreeId};
use delugefs_core::settings::Settings;
use delugefs_core::sync::{Evidence, LinkId, PullId};
use delugefs_metadata_repo::exchange::{self, PullOptions};
use delugefs_metadata_repo::{Authoring, RepositoryError, View, ViewDiff};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a peer may be silent within a pull; a large pack takes its time to be made.
const PULL_SILENCE_MAX: Duration = Duration::from_secs(30);

/// What it is called when it does not work.
const COMMITTING: &str = "committing changes";

/// Why the names could not move on.
#[derive(Debug, thiserror::Error)]
pub(super) enum NamesError {
    /// Git or the disk under it.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The mount's side.
    #[error(transparent)]
    Filesystem(#[from] FsError),
}

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
                let why = story::with_causes(&error);
                let sentence = format!("changes wait in the journal: {why}");
                shared.troubles.tell(COMMITTING, &sentence);
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

/// Commits what is pending.
pub(super) fn commit(shared: &Shared) -> Result<(), NamesError> {
    let _moving = lock(&shared.names_moving);
    let Some(group) = shared.filesystem.take_group() else {
        return Ok(());
    };
    let view = match author(shared, &group, None) {
        Ok(view) => view,
        Err(error) => {
            shared.filesystem.return_group();
            return Err(error.into());
        }
    };
    shared.filesystem.committed(base_view(&view))?;
    follow(shared, group.base.tree, view.tree)?;
    Ok(())
}

/// Commits what is pending, merges the heads, and applies the new view to the mount.
pub(super) fn rebase(shared: &Shared) -> Result<(), NamesError> {
    // the bulk of it without the namespace's lock
    commit(shared)?;
    rebase_with(shared, None)
}

/// Changes the volume's settings.
pub(super) fn set(shared: &Shared, settings: &Settings) -> Result<(), NamesError> {
    rebase_with(shared, Some(settings))?;
    // the sync machine finds the new head at its next look, and announces it
    shared.pending.notify_one();
    Ok(())
}

fn rebase_with(shared: &Shared, settings: Option<&Settings>) -> Result<(), NamesError> {
    let _moving = lock(&shared.names_moving);
    let mut brought = None;
    let mut failed = None;
    let invalidations = shared.filesystem.rebase(|base, group| {
        let own = match group {
            Some(group) => author(shared, group, settings)?,
            None if settings.is_some() => author(shared, &nothing(base), settings)?,
            None => view_of(shared, base)?,
        };
        let view = match shared.repository.refresh_view() {
            // What has been committed must be told to the filesystem, or the next commit would start from a view
            // without it: the own commit is shown, the others' when there is room again.
            Err(error) if base_view(&own) != *base => {
                failed = Some(error);
                own.clone()
            }
            view => view?,
        };
        let diff = shared.repository.diff(base.tree, view.tree)?;
        // Before the names show: whoever sees one may read at once, and a content that is not known is an error.
        brought = Some((
            follow_both(shared, base.tree, own.tree, view.tree)?,
            view.tree,
        ));
        Ok::<_, NamesError>(fs::ViewDiff {
            view: base_view(&view),
            changes: diff.changes,
            directories: diff.directories,
        })
    })?;
    shared.invalidate(invalidations);
    if let Some((brought, tree)) = brought {
        story::tell_conflicts(&shared.repository, tree, &brought)?;
    }
    learn_settings(shared)?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// A group in which only the volume's settings change.
fn nothing(base: &BaseView) -> Group {
    Group {
        base: base.clone(),
        changes: Changes::new(),
        infos: BTreeMap::new(),
        places: BTreeMap::new(),
        sequence: 0,
    }
}

fn author(
    shared: &Shared,
    group: &Group,
    settings: Option<&Settings>,
) -> Result<View, RepositoryError> {
    let base = view_of(shared, &group.base)?;
    let authored = shared.repository.author(&Authoring {
        incarnation: shared.incarnation(),
        label: &shared.file.label,
        base: &base,
        changes: &group.changes,
        settings,
        infos: &group.infos,
        journal_sequence: group.sequence,
        now: wall_clock(),
        durable: true,
        resolve: &|directory| group.places.get(&directory).cloned(),
    })?;
    match authored.commit {
        Some(commit) => shared.repository.view_of(&[commit].into()),
        None => Ok(base),
    }
}

/// What the filesystem keeps of a view, to name it again after a restart.
pub(super) fn base_view(view: &View) -> BaseView {
    let heads = view
        .heads
        .iter()
        .flat_map(|head| *head.as_bytes())
        .collect();
    BaseView {
        token: heads,
        tree: view.tree,
    }
}

/// The view that a base names.
pub(super) fn view_of(shared: &Shared, base: &BaseView) -> Result<View, RepositoryError> {
    shared.repository.view_of(&super::start::heads(base))
}

/// What the view's step means for the bytes here.
fn follow(shared: &Shared, from: TreeId, to: TreeId) -> Result<ViewDiff, RepositoryError> {
    let diff = shared.repository.diff(from, to)?;
    shared
        .replica
        .follow(&diff.changes, &diff.blobs, unix_time());
    Ok(diff)
}

/// What a rebase means for the bytes here: its own commit, then what others brought, which is answered. On an error
/// neither has been followed.
fn follow_both(
    shared: &Shared,
    base: TreeId,
    own: TreeId,
    view: TreeId,
) -> Result<ViewDiff, RepositoryError> {
    let authored = shared.repository.diff(base, own)?;
    let brought = shared.repository.diff(own, view)?;
    for diff in [&authored, &brought] {
        shared
            .replica
            .follow(&diff.changes, &diff.blobs, unix_time());
    }
    Ok(brought)
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
    if let Err(error) = shared.file.renew_at_next_start(&shared.layout) {
        tracing::error!("{error}");
    }
    shared.stop_because(format!(
        "{by} has seen newer work of this disk than is on it: it was restored from an older copy, or another copy of it is running. \
         Stop the other copy if there is one. At the next start this disk continues as a new node; what it holds is kept"
    ));
}
