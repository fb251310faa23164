//! What happens by itself, again and again: complete contents are made durable and told of, what has expired is let
//! go, room and members are kept up to date.

use super::inbox::Input;
use super::shared::{Shared, unix_time};
use crate::bytes::ports::holder_nodes;
use crate::cli::units::{show_size, show_time};
use crate::link::Message;
use crate::sync_ext::lock;
use delugefs_core::holdings::Operation;
use delugefs_core::ids::InfoHash;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{interval, sleep};

/// Contents that become complete are gathered this long before they are synced as one group.
const SYNC_GATHER: Duration = Duration::from_millis(100);

/// Complete contents that nobody announced (a reader has read them whole) are looked for so often.
const SYNC_EVERY: Duration = Duration::from_secs(2);

/// How often pieces are made to survive a restart, expired contents are looked for, and room is told.
const TIDY_EVERY: Duration = Duration::from_secs(2);

/// Room is told again only when it has changed by this part.
const SPACE_CHANGE_DIVISOR: u64 = 64;

/// How often the members are written down.
const MEMBERS_EVERY: Duration = Duration::from_secs(60);

/// Makes complete contents durable, then tells of them: nobody counts on bytes that a power cut may take.
pub(super) async fn sync_contents(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.replica.wants_sync.notified() => sleep(SYNC_GATHER).await,
            () = sleep(SYNC_EVERY) => {}
        }
        let worker = Arc::clone(&shared);
        if let Ok(true) = tokio::task::spawn_blocking(move || sync_and_declare(&worker)).await {
            shared
                .tell(Input::Holdings(shared.replica.positions()))
                .await;
        }
    }
}

fn sync_and_declare(shared: &Shared) -> bool {
    let replica = &shared.replica;
    let synced = replica.store.sync();
    for (content, error) in &synced.failed {
        tracing::error!("{content} may be damaged on this disk: {error}");
    }
    let own = shared.incarnation();
    let complete = replica
        .take_completed()
        .into_iter()
        .filter(|content| replica.store.is_durable(content));
    let mut fresh: Vec<_> = synced.durable.into_iter().chain(complete).collect();
    fresh.retain(|content| !replica.holders(content).contains(&own));
    fresh.sort_unstable();
    fresh.dedup();
    if !fresh.is_empty() {
        replica.declare(Operation::Held, &fresh);
    }
    !fresh.is_empty()
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
        let _ = tokio::task::spawn_blocking(move || reap(&worker)).await;
        let space = shared.replica.space();
        if space.free.abs_diff(told) > space.total / SPACE_CHANGE_DIVISOR {
            told = space.free;
            let (capacity, free) = (space.total, space.free);
            shared.links.broadcast(&Message::Space { capacity, free });
        }
    }
}

fn reap(shared: &Shared) {
    if let Err(error) = shared.replica.store.flush() {
        tracing::warn!("{error}");
    }
    let in_use = shared.filesystem.contents_in_use();
    let (gone, freed) = shared
        .replica
        .reap(unix_time(), shared.settings().keep, &in_use);
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
            () = sleep(MEMBERS_EVERY) => store_members(&shared),
        }
    }
}

/// Writes the members down.
pub(super) fn store_members(shared: &Shared) {
    if let Err(error) = lock(&shared.members).store() {
        tracing::warn!("cannot write down which nodes there are: {error}");
    }
}
