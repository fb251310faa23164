//! What happens by itself, again and again: complete contents are made durable and told of, what has expired is let
//! go, the names' files are kept few, room and members are kept up to date.

use super::inbox::Input;
use super::shared::{Shared, unix_time, wall_clock};
use super::story::{self, Copied};
use crate::bytes::ports::holder_nodes;
use crate::cli::units::{show_size, show_time};
use crate::link::Message;
use crate::sync_ext::lock;
use delugefs_core::holdings::Operation;
use delugefs_core::ids::InfoHash;
use delugefs_metadata_repo::{RepositoryError, Upkeep};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::{interval, sleep};

/// Contents that become complete are gathered this long before they are synced as one group.
const SYNC_GATHER: Duration = Duration::from_millis(100);

/// Complete contents that nobody announced (a reader has read them whole) are looked for so often.
const SYNC_EVERY: Duration = Duration::from_secs(2);

/// How often pieces are made to survive a restart, expired contents are looked for, and room is told.
const TIDY_EVERY: Duration = Duration::from_secs(2);

/// How often is asked whether enough names have come for their files to be counted.
const PACK_EVERY: Duration = Duration::from_secs(2);

/// How long objects of the names are kept that nothing leads to any more: as long as history, but no longer than this.
const CRUFT_KEPT: Duration = Duration::from_hours(24);

/// What a panic is in making contents durable, and in letting them go.
const STORE_BROKEN: &str = "the content store has broken";
const REAPING_BROKEN: &str = "reaping contents has broken";

/// What it is called when it does not work.
const PACKING: &str = "packing the names";

/// Room is told again only when it has changed by this part.
const SPACE_CHANGE_DIVISOR: u64 = 64;

/// Contents reaped while the names stand still: some milliseconds, for mostly small files.
const REAP_GROUP: usize = 64;

/// News of members are gathered this long before they are written down.
const MEMBERS_GATHER: Duration = Duration::from_millis(500);

/// How often the members are written down and told to others also without news: when each was last connected.
const MEMBERS_EVERY: Duration = Duration::from_mins(1);

/// How often, at most, what is held is said anew because of what others have heard.
const LEAP_EVERY: Duration = Duration::from_secs(1);

/// Makes complete contents durable, then tells of them: nobody counts on bytes that a power cut may take.
pub(super) async fn sync_contents(shared: Arc<Shared>) {
    let copied = Arc::new(Mutex::new(Copied::default()));
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.replica.wants_sync.notified() => sleep(SYNC_GATHER).await,
            () = sleep(SYNC_EVERY) => {}
        }
        let (worker, sums) = (Arc::clone(&shared), Arc::clone(&copied));
        let sync = move || sync_and_declare(&worker, &mut lock(&sums));
        let declared = shared.publishing.guard(STORE_BROKEN, sync).await;
        if let Some(sentence) = lock(&copied).due(Instant::now()) {
            tracing::info!("{sentence}");
        }
        if declared == Some(true) {
            let positions = shared.replica.positions();
            shared.tell(Input::Holdings(positions)).await;
        }
    }
}

fn sync_and_declare(shared: &Shared, copied: &mut Copied) -> bool {
    if !shared.publishing.goes_on() {
        return false;
    }
    if let Err(error) = shared.filesystem.sync_leaving() {
        tracing::warn!("files that are not needed any more wait in staging: {error}");
    }
    let replica = &shared.replica;
    let synced = replica.sync();
    for (content, error) in &synced.failed {
        tracing::error!("{content} may be damaged on this disk: {error}");
        replica.scrub.suspect(*content, None);
    }
    let own = shared.incarnation();
    let arrived = replica.take_completed();
    for content in &arrived {
        let length = replica.store.length(content).unwrap_or(0);
        copied.add(length, sources(shared, content), Instant::now());
    }
    let complete = arrived
        .into_iter()
        .filter(|content| replica.store.is_durable(content));
    let asked = replica.take_durable();
    let durable = synced.durable.into_iter().chain(asked);
    let mut fresh: Vec<_> = durable.chain(complete).collect();
    fresh.retain(|content| !replica.holders(content).contains(&own));
    fresh.sort_unstable();
    fresh.dedup();
    if !fresh.is_empty() {
        replica.declare(Operation::Held, &fresh);
    }
    !fresh.is_empty()
}

/// Labels of the connected disks that say they have a content.
fn sources(shared: &Shared, content: &InfoHash) -> Vec<String> {
    let members = lock(&shared.members);
    let nodes = holder_nodes(&shared.replica, &members, content).into_iter();
    let connected = nodes.filter_map(|node| members.get(node).filter(|m| m.address.is_some()));
    connected.map(|member| member.label.clone()).collect()
}

/// Says anew what this disk holds when others have proof that it has said more than it knows of: it was restored from an
/// older copy.
pub(super) async fn stay_ahead(shared: Arc<Shared>) {
    let mut heard = shared.heard.subscribe();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            changed = heard.changed() => if changed.is_err() { return },
        }
        let (worker, position) = (Arc::clone(&shared), *heard.borrow_and_update());
        let leap = move || worker.replica.leap(position);
        if let Ok(true) = tokio::task::spawn_blocking(leap).await {
            tracing::warn!(
                "others have heard more of what this disk holds than it has said; it says so anew"
            );
            let positions = shared.replica.positions();
            shared.tell(Input::Holdings(positions)).await;
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = sleep(LEAP_EVERY) => {}
        }
    }
}

/// Lets go of what has expired, and tells others how much room there is.
pub(super) async fn tidy(shared: Arc<Shared>) {
    let mut ticks = interval(TIDY_EVERY);
    let mut told = 0;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let worker = Arc::clone(&shared);
        let reap = move || reap(&worker);
        shared.publishing.guard(REAPING_BROKEN, reap).await;
        let worker = Arc::clone(&shared);
        let remember = move || worker.replica.remember(worker.filesystem.base().tree);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(remember).await {
            tracing::debug!("the next start takes longer: {error}");
        }
        let space = shared.replica.space();
        if space.free.abs_diff(told) > space.total / SPACE_CHANGE_DIVISOR {
            told = space.free;
            tell_room(&shared);
        }
    }
}

/// Tells others how much room there is.
pub(super) fn tell_room(shared: &Shared) {
    let space = shared.replica.space();
    let (capacity, free) = (space.total, space.free);
    shared.links.broadcast(&Message::Space { capacity, free });
}

fn reap(shared: &Shared) {
    if !shared.publishing.goes_on() {
        return;
    }
    if let Err(error) = shared.replica.store.flush() {
        tracing::warn!("{error}");
    }
    let (now, settings) = (unix_time(), shared.settings());
    let expired = shared.replica.expired(now, settings.keep);
    let others = lock(&shared.members).expected(now, settings.retire);
    let (mut gone, mut freed) = (0, 0);
    for some in expired.chunks(REAP_GROUP) {
        let _still = lock(&shared.names_moving);
        let in_use = shared.filesystem.contents_in_use();
        let (contents, bytes) = shared.replica.reap(some, &in_use, &others);
        gone += contents;
        freed += bytes;
    }
    if gone > 0 {
        tracing::info!(
            "let go of {gone} removed or replaced contents, {} in all",
            show_size(freed)
        );
        let told = Input::Holdings(shared.replica.positions());
        // the sync machine hears of it at the next change, if it is too busy now
        let _ = shared.inbox.try_send(told);
    }
}

/// Keeps the files that the names are in few and small, on a thread that nobody waits for.
pub(super) async fn pack_names(shared: Arc<Shared>) {
    let mut ticks = interval(PACK_EVERY);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if shared.repository.wants_maintenance() {
            let worker = Arc::clone(&shared);
            // ends soon once the node stops: a new one must not find it at work
            let _ = tokio::task::spawn_blocking(move || maintain_names(&worker, false)).await;
        }
    }
}

/// How long objects are kept that nothing leads to.
pub(super) fn kept(shared: &Shared) -> Duration {
    CRUFT_KEPT.min(shared.settings().history)
}

/// Looks through all names for what nothing leads to any more.
pub(super) fn sweep_names(shared: &Shared) {
    maintain_names(shared, true);
}

fn maintain_names(shared: &Shared, thorough: bool) {
    let upkeep = Upkeep {
        now: wall_clock(),
        in_use: &[shared.filesystem.base().tree],
        kept: kept(shared),
        thorough,
        stop: &|| shared.stop.is_cancelled(),
    };
    match shared.repository.maintain(&upkeep) {
        Ok(()) => shared.troubles.over(PACKING),
        Err(RepositoryError::Stopped) => {}
        Err(error @ RepositoryError::NotDurable(_)) => {
            shared.stop_publishing(story::with_causes(&error));
        }
        Err(error) => {
            let why = story::with_causes(&error);
            let sentence = format!("the names take more room than they need: {why}");
            shared.troubles.tell(PACKING, &sentence);
        }
    }
}

/// Tells the owner which files could not be read, and which disks have their bytes.
pub(super) async fn tell_of_vain_waits(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.replica.waited.notified() => {}
        }
        for info_hash in shared.replica.take_vain() {
            tell_of_vain_wait(&shared, &info_hash);
        }
    }
}

fn tell_of_vain_wait(shared: &Shared, info_hash: &InfoHash) {
    let path = shared.filesystem.path_of_content(info_hash);
    let shown = match path {
        Some(names) => {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            names.join("/")
        }
        None => format!("the content {info_hash}"),
    };
    let waited = show_time(shared.settings().wait);
    match disks(shared, info_hash).join(", ") {
        disks if disks.is_empty() => {
            tracing::warn!("cannot read {shown}: in {waited} no disk has shown up that has it");
        }
        disks => tracing::warn!("cannot read {shown}: waited {waited} in vain for {disks}"),
    }
}

/// The disks that have a content, by their labels, and whether they are connected.
fn disks(shared: &Shared, info_hash: &InfoHash) -> Vec<String> {
    let members = lock(&shared.members);
    let nodes = holder_nodes(&shared.replica, &members, info_hash).into_iter();
    let members = nodes.filter_map(|node| members.get(node));
    let shown = members.map(|member| match member.address {
        Some(_) => format!("{} (does not answer)", member.label),
        None => format!("{} (not connected)", member.label),
    });
    shown.collect()
}

/// Writes the members down from time to time, and at the end.
pub(super) async fn keep_members(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.members_changed.notified() => sleep(MEMBERS_GATHER).await,
            () = sleep(MEMBERS_EVERY) => super::gossip::tell_all(&shared),
        }
        store_members(&shared);
    }
}

/// Writes the members down.
pub(super) fn store_members(shared: &Shared) {
    if let Err(error) = lock(&shared.members).store(unix_time()) {
        tracing::warn!("cannot write down which nodes there are: {error}");
    }
}
