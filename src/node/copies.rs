//! Copies: what the plan says this node should hold is fetched, a few contents at a time, the rarest first.

use super::shared::{Shared, unix_time};
use crate::link::Message;
use crate::sync_ext::lock;
use delugefs_core::entry::ContentRef;
use delugefs_core::ids::{InfoHash, NodeId};
use delugefs_core::plan::{Cluster, Decision, NodeFacts, Presence, Subject};
use delugefs_core::settings::Settings;
use delugefs_torrent::store::State;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Contents fetched at once: enough that many small ones do not wait for each other's round trips.
const FETCHES_MAX: usize = 16;

/// News are gathered this long before the plan is made.
const GATHER: Duration = Duration::from_millis(50);

/// The plan is made anew after this also without news: a node may have been away for longer than the grace.
const LOOK_AGAIN_AFTER: Duration = Duration::from_mins(1);

/// A fetch without progress for so long gives its place to another.
const STALL_MAX: Duration = Duration::from_secs(30);

/// A fetch that failed (a full disk, mostly) is tried again after this. Meanwhile it keeps its place, so that a
/// disk in trouble is not asked more and more.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Contents in one request to hold.
const ASK_MAX: usize = 4096;

/// Runs until the node stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut fetches = JoinSet::new();
    let wanted: Arc<std::sync::Mutex<BTreeSet<InfoHash>>> = Arc::default();
    let places = Arc::new(Semaphore::new(FETCHES_MAX));
    let mut unmet = BTreeSet::new();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.replica.wants_look.notified() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(quiet(&shared)) => shared.replica.look_at_all(),
        }
        while fetches.try_join_next().is_some() {}
        let (worker, before) = (Arc::clone(&shared), unmet.clone());
        let Ok(plan) = tokio::task::spawn_blocking(move || plan(&worker, before)).await else {
            continue;
        };
        unmet = plan.unmet;
        ask(&shared, plan.ask);
        for content in plan.hold {
            if lock(&wanted).insert(content.info_hash) {
                let (shared, wanted, places) = (
                    Arc::clone(&shared),
                    Arc::clone(&wanted),
                    Arc::clone(&places),
                );
                fetches.spawn(async move {
                    let place = places.acquire_owned().await;
                    fetch(&shared, content).await;
                    lock(&wanted).remove(&content.info_hash);
                    drop(place);
                });
            }
        }
    }
}

/// How long the last plan is good without news.
fn quiet(shared: &Shared) -> Duration {
    let (settings, facts) = (shared.settings(), facts(shared));
    let cluster = Cluster {
        settings: &settings,
        nodes: &facts,
    };
    // times of members are in whole seconds
    let next = cluster
        .next_change()
        .map(|next| next + Duration::from_secs(1));
    next.map_or(LOOK_AGAIN_AFTER, |next| next.min(LOOK_AGAIN_AFTER))
}

#[derive(Default)]
struct Plan {
    hold: Vec<ContentRef>,
    ask: BTreeMap<NodeId, Vec<InfoHash>>,
    /// Short of copies, and not for this node to hold.
    unmet: BTreeSet<InfoHash>,
}

fn plan(shared: &Shared, unmet: BTreeSet<InfoHash>) -> Plan {
    let mut subjects = shared.replica.take_subjects();
    if subjects.unmet {
        subjects.some.extend(&unmet);
    }
    let mut plan = Plan::default();
    let contents = if subjects.all {
        shared.replica.contents()
    } else {
        plan.unmet = unmet;
        plan.unmet
            .retain(|content| !subjects.some.contains(content));
        let known = |info_hash: &InfoHash| {
            let length = shared.replica.known(info_hash)?.length;
            Some(ContentRef {
                info_hash: *info_hash,
                length,
            })
        };
        subjects.some.iter().filter_map(known).collect()
    };
    let (settings, facts) = (shared.settings(), facts(shared));
    let cluster = Cluster {
        settings: &settings,
        nodes: &facts,
    };
    let mut short = Vec::new();
    for content in contents {
        let holders = holders(shared, &cluster, &content);
        let subject = Subject {
            content,
            holders: &holders,
            declined: &BTreeSet::new(),
        };
        let assessed = cluster.assess(&subject);
        let decision = cluster.decide(shared.node(), &subject);
        if decision == Decision::Hold {
            short.push((content, assessed));
            continue;
        }
        if assessed.missing > 0 {
            plan.unmet.insert(content.info_hash);
        }
        if let Decision::AskOthers(nodes) = decision {
            for node in nodes {
                plan.ask.entry(node).or_default().push(content.info_hash);
            }
        }
    }
    plan.hold = delugefs_core::plan::by_need(short);
    plan
}

/// The nodes that hold a content; this one does also before it has told so.
fn holders(shared: &Shared, cluster: &Cluster<'_>, content: &ContentRef) -> BTreeSet<NodeId> {
    let told = shared.replica.holders(&content.info_hash).into_iter();
    let mut holders = cluster.nodes_of(told);
    if shared.replica.store.state(&content.info_hash) == State::Complete {
        holders.insert(shared.node());
    }
    holders
}

/// What the plan goes by: all nodes ever met, and this one.
pub(super) fn facts(shared: &Shared) -> BTreeMap<NodeId, NodeFacts> {
    let retire = shared.settings().retire;
    let mut facts = lock(&shared.members).facts(unix_time(), shared.started.elapsed(), retire);
    let space = shared.replica.space();
    let own = NodeFacts {
        incarnation: shared.incarnation(),
        site: shared.file.site.clone(),
        presence: Presence::Connected,
        free: space.free,
        capacity: space.total,
        retired: false,
    };
    facts.insert(shared.node(), own);
    facts
}

/// How many contents are on fewer nodes than they should be.
pub(super) fn short_of_copies(shared: &Shared, settings: &Settings) -> usize {
    let facts = facts(shared);
    let cluster = Cluster {
        settings,
        nodes: &facts,
    };
    let is_short = |content: &ContentRef| {
        let holders = holders(shared, &cluster, content);
        let subject = Subject {
            content: *content,
            holders: &holders,
            declined: &BTreeSet::new(),
        };
        cluster.assess(&subject).missing > 0
    };
    shared
        .replica
        .contents()
        .iter()
        .filter(|content| is_short(content))
        .count()
}

fn ask(shared: &Shared, asks: BTreeMap<NodeId, Vec<InfoHash>>) {
    for (node, contents) in asks {
        for part in contents.chunks(ASK_MAX) {
            shared
                .links
                .send_to(node, &Message::PleaseHold(part.to_vec()));
        }
    }
}

/// Fetches a content to here, for as long as there is progress.
pub(super) async fn fetch(shared: &Arc<Shared>, content: ContentRef) {
    let info_hash = content.info_hash;
    let source = Arc::clone(&shared.replica);
    let info = match tokio::task::spawn_blocking(move || source.info(&info_hash)).await {
        Ok(Ok(Some(info))) => info,
        Ok(Ok(None)) | Err(_) => return,
        Ok(Err(error)) => {
            tracing::warn!("cannot fetch a copy: {error}");
            return;
        }
    };
    let Some(swarm) = shared.replica.swarm() else {
        return;
    };
    let mut fetch = swarm.fetch(&info);
    let mut progress = fetch.progress();
    // a content that is removed meanwhile is not wanted any more
    let stalled = async {
        while tokio::time::timeout(STALL_MAX, progress.changed())
            .await
            .is_ok_and(|told| told.is_ok() && shared.replica.known(&info_hash).is_some())
        {}
    };
    tokio::select! {
        ended = fetch.done() => match ended {
            Ok(()) => tracing::debug!("holds a copy of {info_hash}"),
            Err(error) => {
                tracing::warn!("cannot keep a copy of {info_hash} yet: {error}");
                tokio::time::sleep(RETRY_AFTER).await;
                shared.replica.look_at([info_hash].into_iter());
            }
        },
        () = stalled => shared.replica.look_at([info_hash].into_iter()),
        () = shared.stop.cancelled() => {}
    }
}
