//! The past: where history may be cut is recorded, history is cut there, and where this node's own lies beside, it goes
//! over to the others'. What may be cut, and who is asked, decides `core::past`.

use super::moving::{self, Mover, NamesError, base_view};
use super::names;
use super::rests::{self, LOOK_DIVISOR, LOOK_EVERY_MIN};
use super::shared::Shared;
use super::story;
use super::upkeep;
use crate::sync_ext::lock;
use delugefs_core::ids::{CommitId, IncarnationId};
use delugefs_core::settings::Settings;
use delugefs_metadata_repo::Said;
use delugefs_metadata_repo::exchange::Anew;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Commits that a cut frees at least: below that, it costs as much as it brings.
const FREED_MIN: usize = 64;

/// And so many for each author: cutting makes a commit for most of them, and in a volume where nothing else happens that
/// must come to an end.
const FREED_FOR_AUTHOR: usize = 4;

/// How seldom, at most, a node looks at its past: it reads all history that is left.
const LOOK_EVERY_MAX: Duration = Duration::from_hours(1);

/// But so soon after the start: not while it has more to do, and a disk may be connected for minutes only.
const LOOK_FIRST: Duration = Duration::from_mins(5);

/// What a panic in it is.
const BROKEN: &str = "a broken invariant of the names' past";

/// What it is called when it does not work.
const TENDING: &str = "cutting history";

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tended {
    /// There was nothing to do, or it may not be done yet.
    Nothing,
    /// Where history may be cut is recorded.
    Recorded,
    /// History is cut.
    Cut,
    /// What lay beside has gone over.
    Imported,
}

/// Looks after the past. `asked` is what all rest on, if nobody is missing (`core::past::rests::Rests::asked`), `said`
/// what each incarnation has said last, also who is not asked any more; `now` the volume's time, in seconds since 1970; a
/// cut frees `least` commits.
pub fn tend(
    node: &dyn Mover,
    asked: Option<&[BTreeSet<CommitId>]>,
    said: &Said,
    (now, least): (i64, usize),
) -> Result<Tended, NamesError> {
    let repository = node.repository();
    let cuts = repository.cuts()?;
    let recorded = repository.recorded()?.map(|boundary| boundary.commit);
    let Some(at) = recorded.filter(|at| !cuts.contains(at)) else {
        return match asked {
            Some(asked) => record(node, asked, (now, least)),
            None => Ok(Tended::Nothing),
        };
    };
    if let Some(today) = repository.without_what_lies_beside(at)? {
        moving::import(node, &today)?;
        return Ok(Tended::Imported);
    }
    match asked {
        Some(asked) if repository.is_stable(asked, at)? => cut(node, at, said),
        _ => Ok(Tended::Nothing),
    }
}

fn record(
    node: &dyn Mover,
    asked: &[BTreeSet<CommitId>],
    (now, least): (i64, usize),
) -> Result<Tended, NamesError> {
    let repository = node.repository();
    let settings = repository.settings()?;
    let until = now.saturating_sub(rests::seconds(settings.history));
    let found = repository.boundary(asked, (until, least))?;
    if found <= settings.boundary {
        return Ok(Tended::Nothing);
    }
    let recorded = Settings {
        boundary: found,
        ..settings
    };
    moving::set(node, &recorded)?;
    Ok(Tended::Recorded)
}

fn cut(node: &dyn Mover, at: CommitId, said: &Said) -> Result<Tended, NamesError> {
    let (repository, own) = (node.repository(), node.signer().incarnation());
    if repository.is_below(own, at)? {
        // its head tells how far its journal is committed, and must not go
        moving::attest(node)?;
    } else {
        moving::rebase(node)?;
    }
    let _still = lock(node.names_moving());
    let filesystem = node.filesystem();
    if filesystem.base() != base_view(&repository.view()) {
        return Ok(Tended::Nothing);
    }
    // or a start after a power cut could begin from a view below
    filesystem.sync_names()?;
    match repository.cut(at, own, said)? {
        true => Ok(Tended::Cut),
        false => Ok(Tended::Nothing),
    }
}

/// Goes over to a history that begins later than the one that is here. `said` is what each incarnation has said last;
/// `former` which one this disk was before.
pub fn import(
    node: &dyn Mover,
    history: Anew,
    said: &Said,
    former: Option<IncarnationId>,
) -> Result<(), NamesError> {
    let own = former.into_iter().chain([node.signer().incarnation()]);
    let today = node.repository().today(history, said, &own.collect())?;
    moving::import(node, &today)
}

/// Looks after the past again and again, as long as the node runs.
pub(super) async fn keep_tending(shared: Arc<Shared>) {
    let (mut looked, mut pause) = (Instant::now(), LOOK_FIRST);
    let mut sweep_at = None::<Instant>;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = sleep(LOOK_EVERY_MIN) => {}
        }
        if sweep_at.is_some_and(|at| at <= Instant::now()) {
            sweep_at = None;
            sweep(&shared).await;
        }
        // the settings may have changed meanwhile
        let every = (shared.settings().history / LOOK_DIVISOR).min(pause);
        if looked.elapsed() < every || !shared.publishing.goes_on() {
            continue;
        }
        (looked, pause) = (Instant::now(), LOOK_EVERY_MAX);
        if has_left_something(&shared).await {
            sweep(&shared).await;
            // what was found to be of no use goes the next time
            let kept = upkeep::kept(&shared) + LOOK_EVERY_MIN;
            sweep_at = Some(Instant::now() + kept);
        }
    }
}

/// Whether objects are not needed any more.
async fn has_left_something(shared: &Arc<Shared>) -> bool {
    let worker = Arc::clone(shared);
    let tended = match shared.publishing.guard(BROKEN, move || look(&worker)).await {
        Some(Ok(tended)) => tended,
        Some(Err(error)) => {
            names::failed(shared, TENDING, &error, &story::with_causes(&error));
            return false;
        }
        None => return false,
    };
    shared.troubles.over(TENDING);
    match tended {
        Tended::Nothing => return false,
        Tended::Recorded => tracing::info!("recorded where history may be cut"),
        Tended::Cut => tracing::info!("history is cut"),
        Tended::Imported => tell_imported(),
    }
    // the sync machine finds the new heads at its next look, and announces them
    shared.pending.notify_one();
    tended != Tended::Recorded
}

fn look(shared: &Shared) -> Result<Tended, NamesError> {
    let now = rests::note_all(shared)?;
    let asked = shared.rests.asked(now, shared.settings().retire);
    let least = FREED_MIN + FREED_FOR_AUTHOR * shared.repository.authors()?.len();
    tend(shared, asked.as_deref(), &shared.rests.said(), (now, least))
}

/// Says what becomes of what was done while a disk was away for too long.
pub(super) fn tell_imported() {
    tracing::warn!(
        "this disk was away for longer than history is kept: what was made and changed on it meanwhile is brought \
         into what the others have; what was removed or renamed on it is as the others have it"
    );
}

async fn sweep(shared: &Arc<Shared>) {
    let worker = Arc::clone(shared);
    // ends soon once the node stops
    let _ = tokio::task::spawn_blocking(move || upkeep::sweep_names(&worker)).await;
}
