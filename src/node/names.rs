//! The repository's work: commit and rebase (see `moving`), pull. Each runs on a thread that may block; how it ended
//! comes to the inbox.

use super::inbox::{Input, Work, label};
use super::links::{self, Link};
use super::moving::{self, Mover, NamesError};
use super::past;
use super::places::Only;
use super::shared::{Shared, unix_time, wall_clock};
use super::story;
use crate::cli::units::show_size;
use crate::filesystem::{Filesystem, Invalidation};
use crate::link::{Purpose, blocking};
use crate::root::Standing;
use crate::sync_ext::lock;
use delugefs_core::ids::{CommitId, IncarnationId, NodeId, TreeId};
use delugefs_core::settings::Settings;
use delugefs_core::sync::{Event, Evidence, LinkId, PullId};
use delugefs_core::time::Timestamp;
use delugefs_metadata_repo::exchange::{
    self, ExchangeError, PullOptions, PullProgress, Pulled, Refusal, Refused,
};
use delugefs_metadata_repo::signature::Signer;
use delugefs_metadata_repo::{Repository, RepositoryError, ViewDiff};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long a peer may be silent within a pull; a large pack takes its time to be made.
const PULL_SILENCE_MAX: Duration = Duration::from_secs(30);

/// How often the sync machine is told that a pull makes progress: well within its patience.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// How often the owner is told how far a long pull has come.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What it is called when it does not work.
const COMMITTING: &str = "committing changes";

/// The same.
const IMPORTING: &str = "coming back from before history was cut";

/// What a panic in committing or merging is.
const BROKEN: &str = "a broken invariant of the names";

/// Commits that this node makes at most for one author whose chain forks, until it is started again: an author that
/// forks on purpose does not make others write without end.
const WITNESSES_MAX: u32 = 8;

/// How often this node has made a commit for each author whose chain forks.
#[derive(Debug, Default)]
pub(super) struct Witnessed(BTreeMap<IncarnationId, u32>);

impl Witnessed {
    fn may(&self, author: IncarnationId) -> bool {
        self.0.get(&author).is_none_or(|made| *made < WITNESSES_MAX)
    }

    fn note(&mut self, author: IncarnationId) {
        *self.0.entry(author).or_default() += 1;
    }
}

/// Runs some work of the repository, one at a time, and tells the inbox how it ended.
pub(super) fn spawn(shared: &Arc<Shared>, work: Work, run: fn(&Shared) -> Result<(), NamesError>) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let worker = Arc::clone(&shared);
        let well = shared.publishing.goes_on()
            && match shared.publishing.guard(BROKEN, move || run(&worker)).await {
                Some(Ok(())) => {
                    shared.troubles.over(COMMITTING);
                    true
                }
                Some(Err(error)) => {
                    not_committed(&shared, &error);
                    false
                }
                None => false,
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

/// Changes could not be committed.
fn not_committed(shared: &Shared, error: &NamesError) {
    failed(shared, COMMITTING, error, &waits(shared, error));
}

/// Tells that the names could not move on, and what of it; a node that cannot rely on its disk publishes nothing more.
pub(super) fn failed(shared: &Shared, what: &'static str, error: &NamesError, sentence: &str) {
    if matches!(
        error,
        NamesError::Repository(RepositoryError::NotDurable(_))
    ) {
        shared.stop_publishing(story::with_causes(error));
    } else {
        shared.troubles.tell(what, sentence);
    }
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

    fn signer(&self) -> &dyn Signer {
        &self.file.identity.keys.signing
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
    let set = moving::set(shared, settings);
    if let Err(error) = set {
        not_committed(shared, &error);
        return Err(error);
    }
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
            Some(up) if shared.publishing.goes_on() => pull_over(&shared, &up, Some(pull)).await,
            _ => false,
        };
        shared.tell(Input::Ended(Work::Pull(pull), well)).await;
    });
}

/// Whether it went well; what it has to say is said.
async fn pull_over(shared: &Arc<Shared>, up: &Link, pull: Option<PullId>) -> bool {
    let from = label(shared, up.peer);
    let telling = Telling::new(shared, pull, from.clone());
    match pull_from(shared, up.listening, telling).await {
        Ok(pulled) => {
            for refused in &pulled.refused {
                tell_refused(shared, &from, refused);
            }
            witness(shared, pulled.refused).await;
            true
        }
        Err(PullError::Exchange(ExchangeError::OwnChainAhead { .. })) => {
            restored(shared, &from);
            false
        }
        Err(PullError::Exchange(ExchangeError::Cut { .. })) => {
            let telling = Telling::new(shared, pull, from.clone());
            come_back(shared, up.listening, telling).await
        }
        Err(error) => {
            tracing::warn!("cannot pull names from {from}: {error}");
            false
        }
    }
}

/// Goes over to the history of a peer that begins later than the one that is here; whether it did.
async fn come_back(shared: &Arc<Shared>, address: SocketAddr, telling: Telling) -> bool {
    let from = telling.from.clone();
    let stream = match links::open(shared, address, Purpose::Git).await {
        Ok(opened) => opened.stream,
        Err(error) => {
            tracing::warn!("cannot pull names from {from}: {error}");
            return false;
        }
    };
    let (read, write) = blocking::split(stream, Handle::current(), PULL_SILENCE_MAX);
    let worker = Arc::clone(shared);
    let run = move || {
        let repository = &worker.repository;
        let _kept = repository.keep_all();
        let history =
            telling.over(|options| exchange::fetch_anew(repository, read, write, options))?;
        past::import(
            &*worker,
            history,
            &worker.rests.said(),
            worker.file.continues,
        )?;
        Ok::<_, PullError>(())
    };
    match shared.publishing.guard(BROKEN, run).await {
        Some(Ok(())) => {
            past::tell_imported();
            // the sync machine finds the new heads at its next look, and announces them
            shared.pending.notify_one();
            true
        }
        Some(Err(PullError::Exchange(ExchangeError::OwnChainAhead { .. }))) => {
            restored(shared, &from);
            false
        }
        Some(Err(PullError::Names(error))) => {
            failed(shared, IMPORTING, &error, &story::with_causes(&error));
            false
        }
        Some(Err(error)) => {
            tracing::warn!("cannot take up the history that {from} has: {error}");
            false
        }
        None => false,
    }
}

/// Why a pull came to nothing.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Link(#[from] crate::link::LinkError),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error(transparent)]
    Names(#[from] NamesError),
    #[error("it broke: {0}")]
    Panic(#[from] tokio::task::JoinError),
}

async fn pull_from(
    shared: &Arc<Shared>,
    address: SocketAddr,
    telling: Telling,
) -> Result<Pulled, PullError> {
    let stream = links::open(shared, address, Purpose::Git).await?.stream;
    let (read, write) = blocking::split(stream, Handle::current(), PULL_SILENCE_MAX);
    let repository = shared.repository.clone();
    let pulled = tokio::task::spawn_blocking(move || {
        let pulled = telling.over(|options| exchange::pull(&repository, read, write, options))?;
        telling.end(&pulled);
        Ok::<_, ExchangeError>(pulled)
    });
    Ok(pulled.await??)
}

/// Tells the owner of a pull that takes long, as that of a node that joins, and the sync machine that it is alive.
struct Telling {
    shared: Arc<Shared>,
    pull: Option<PullId>,
    from: String,
    since: Instant,
    /// When the machine and the owner were last told.
    told: Cell<(Instant, Instant)>,
}

impl Telling {
    fn new(shared: &Arc<Shared>, pull: Option<PullId>, from: String) -> Self {
        let since = Instant::now();
        Self {
            shared: Arc::clone(shared),
            pull,
            from,
            since,
            told: Cell::new((since, since)),
        }
    }

    /// Does something that is told about.
    fn over<T>(&self, run: impl FnOnce(&PullOptions<'_>) -> T) -> T {
        run(&PullOptions {
            own: Some(self.shared.incarnation()),
            progress: &|progress| self.hear(progress),
            ..PullOptions::default()
        })
    }

    fn hear(&self, progress: PullProgress) {
        let now = Instant::now();
        let (mut machine, mut owner) = self.told.get();
        if let Some(pull) = self.pull.filter(|_| now >= machine + PROGRESS_EVERY) {
            machine = now;
            // one of many: it may be lost where the inbox is full
            let event = Input::Event(Event::PullProgress { pull });
            let _ = self.shared.inbox.try_send(event);
        }
        if now >= owner + TELL_EVERY {
            owner = now;
            tracing::info!("getting names from {}: {}", self.from, show(progress));
        }
        self.told.set((machine, owner));
    }

    fn end(&self, pulled: &Pulled) {
        let (_, owner) = self.told.get();
        if owner > self.since {
            let (objects, took) = (pulled.objects, self.since.elapsed().as_secs());
            tracing::info!(
                "got {objects} objects of names from {} in {took} s",
                self.from
            );
        }
    }
}

fn show(progress: PullProgress) -> String {
    match progress {
        PullProgress::Listed => "it looks for what is new here".to_owned(),
        PullProgress::Arriving { objects, of, bytes } => {
            format!("{objects} of {of} objects, {}", show_size(bytes))
        }
        PullProgress::Checking => "all have arrived, and are being checked".to_owned(),
    }
}

fn tell_refused(shared: &Shared, from: &str, refused: &Refused) {
    if refused.why == Refusal::BesideCut {
        // mostly one whose author has not written since: a peer that has not cut yet still has it
        tracing::debug!("{from}: {refused}");
        return;
    }
    let author = lock(&shared.members)
        .iter()
        .find(|(_, member)| member.incarnation == refused.author)
        .map(|(_, member)| format!(" ({})", member.label));
    tracing::warn!(
        "{from} has names that are not taken: {refused}. The author is {}{}; other authors' changes are not affected",
        refused.author,
        author.unwrap_or_default()
    );
}

/// Both sides of a fork come to all nodes in the history of other chains. So where one side is shown here and nobody
/// has built on it, this node says that it has it.
async fn witness(shared: &Arc<Shared>, refused: Vec<Refused>) {
    for one in refused {
        let Refusal::Forked { ours, .. } = one.why else {
            continue;
        };
        let worker = Arc::clone(shared);
        let run = move || witness_head(&worker, one.author, ours);
        if let Some(Err(error)) = shared.publishing.guard(BROKEN, run).await {
            not_committed(shared, &error);
        }
    }
}

fn witness_head(shared: &Shared, author: IncarnationId, head: CommitId) -> Result<(), NamesError> {
    let may = lock(&shared.witnessed).may(author);
    if may && moving::witness(shared, head)? {
        lock(&shared.witnessed).note(author);
        // the sync machine finds the new head at its next look, and announces it
        shared.pending.notify_one();
    }
    Ok(())
}

/// Someone has seen more of this node than it has itself: its root was restored from an older copy.
///
/// Anyone can say so of names: only a commit that this incarnation has signed is believed, and so it is asked for.
pub(super) fn suspect(shared: &Arc<Shared>, peer: NodeId, evidence: Evidence) {
    let Evidence::Head(commit) = evidence;
    // the sync machine may know less than the disk
    if shared.repository.is_known(commit).unwrap_or(false) {
        return;
    }
    let Some(asking) = Only::take(&shared.asked_for_proof, peer) else {
        return;
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let _asking = asking;
        if let Some(up) = shared.links.to(peer) {
            pull_over(&shared, &up, None).await;
            // what came with it is found by the sync machine
            shared.pending.notify_one();
        }
    });
}

/// This root was restored from an older copy, or is one.
pub(super) fn restored(shared: &Shared, by: &str) {
    shared.stop_and_stand(
        Standing::Behind,
        &format!(
            "{by} has seen newer work of this disk than is on it: it was restored from an older copy, or another copy of it is running. \
             Start it again: it continues with what the others have, and with what it has itself"
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_forks_without_end_makes_others_write_eight_times() {
        let (forking, other) = (IncarnationId::new([1; 16]), IncarnationId::new([2; 16]));
        let mut witnessed = Witnessed::default();
        let mut made = 0;
        while witnessed.may(forking) && made < 100 {
            witnessed.note(forking);
            made += 1;
        }
        assert_eq!(made, 8);
        assert!(witnessed.may(other), "others are not to blame");
    }
}
