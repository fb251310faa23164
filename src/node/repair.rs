//! Repair: what is damaged on this disk is told to the owner and fetched again, from whoever has it; and peers whose
//! pieces were wrong are told so.

use super::copies;
use super::shared::Shared;
use crate::bytes::ports::Holders;
use crate::link::Message;
use crate::sync_ext::lock;
use delugefs_core::entry::ContentRef;
use delugefs_core::ids::InfoHash;
use delugefs_core::scrub::Repair;
use delugefs_torrent::store::State;
use delugefs_torrent::swarm::PeerSource;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Contents repaired at once.
const REPAIRS_MAX: usize = 4;

/// How often it is looked which repairs have ended and which can begin.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often without damage: it is told of.
const IDLE: Duration = Duration::from_mins(1);

/// A repair that came to nothing although somebody has the content is tried again after this.
const RETRY_AFTER: Duration = Duration::from_mins(1);

/// Damaged contents named one by one in the log, at a time.
const NAMED_MAX: usize = 20;

/// Runs until the node stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut repairs = Repairs::default();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.replica.scrub.told.notified() => {}
            () = tokio::time::sleep(look_after(&shared)) => {}
        }
        complain(&shared);
        let news = shared.replica.scrub.take_news();
        if !news.is_empty() {
            let worker = Arc::clone(&shared);
            let _ = tokio::task::spawn_blocking(move || tell_damage(&worker, &news)).await;
        }
        settle(&shared);
        repairs.start(&shared);
    }
}

/// Without damage there is nothing to look at.
fn look_after(shared: &Shared) -> Duration {
    let is_sound = shared
        .replica
        .scrub
        .with(|scrub| scrub.damaged().is_empty());
    if is_sound { IDLE } else { LOOK_EVERY }
}

fn complain(shared: &Shared) {
    for (node, content, piece) in shared.replica.scrub.take_complaints() {
        let label = super::inbox::label(shared, node);
        tracing::warn!("{label} has sent a wrong piece of {content}; it is told so");
        shared
            .links
            .send_to(node, &Message::Damaged { content, piece });
    }
}

/// Tells the owner, and the kernel, and peers: whoever banned this node for a wrong piece may come back.
fn tell_damage(shared: &Shared, news: &BTreeSet<InfoHash>) {
    let names = shared.paths_of(news);
    for (told, content) in news.iter().enumerate() {
        shared.invalidate(shared.filesystem.forget_file(content));
        let pieces = shared.replica.scrub.with(|scrub| {
            let damage = scrub.damaged().get(content);
            damage.map_or(0, |damage| damage.pieces)
        });
        if told < NAMED_MAX {
            let (name, disk) = (named(&names, content), &shared.file.label);
            tracing::error!(
                "damaged on disk {disk}: {name}, {pieces} of its pieces; they are fetched again"
            );
        }
    }
    if news.len() > NAMED_MAX {
        tracing::error!("damaged: {} files more", news.len() - NAMED_MAX);
    }
    let all: Vec<InfoHash> = news.iter().copied().collect();
    for part in all.chunks(crate::link::codec::HASHES_MAX) {
        shared.links.broadcast(&Message::Available(part.to_vec()));
    }
    lock(&shared.damaged_names).extend(names);
}

/// What people call a content.
fn named(names: &BTreeMap<InfoHash, String>, content: &InfoHash) -> String {
    let name = names.get(content).cloned();
    name.unwrap_or_else(|| format!("the content {content}"))
}

/// Takes those that are whole again, or that no name has any more, from the list; a name may wait to be committed.
fn settle(shared: &Shared) {
    let replica = &shared.replica;
    let damaged: Vec<InfoHash> = replica
        .scrub
        .with(|scrub| scrub.damaged().keys().copied().collect());
    let is_uncommitted =
        |content: &InfoHash| (shared.filesystem.uncommitted_infos()).contains_key(content);
    let mut changed = false;
    for content in damaged {
        let is_whole = replica.store.is_durable(&content);
        if is_whole
            && replica
                .scrub
                .with(|scrub| scrub.repaired(&content))
                .is_some()
        {
            let name = named(&lock(&shared.damaged_names), &content);
            tracing::info!("repaired on disk {}: {name}", shared.file.label);
        } else if replica.known(&content).is_none() && !is_uncommitted(&content) {
            replica.scrub.with(|scrub| scrub.forget(&content));
        } else {
            continue;
        }
        changed = true;
        lock(&shared.damaged_names).remove(&content);
    }
    if changed {
        replica.scrub.store();
    }
}

struct Repairs {
    places: Arc<Semaphore>,
    tasks: JoinSet<InfoHash>,
    under_way: BTreeSet<InfoHash>,
    /// When a repair last came to nothing.
    failed: BTreeMap<InfoHash, Instant>,
}

impl Default for Repairs {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(REPAIRS_MAX)),
            tasks: JoinSet::new(),
            under_way: BTreeSet::new(),
            failed: BTreeMap::new(),
        }
    }
}

impl Repairs {
    /// Begins what can be begun.
    fn start(&mut self, shared: &Arc<Shared>) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Ok(content) = ended {
                self.ended(shared, content);
            }
        }
        let holders = Holders {
            replica: Arc::clone(&shared.replica),
            members: Arc::clone(&shared.members),
        };
        let damaged: Vec<_> = shared.replica.scrub.with(|scrub| {
            let all = scrub.damaged().iter();
            all.map(|(content, damage)| (*content, damage.repair))
                .collect()
        });
        for (content, repair) in damaged {
            if self.under_way.contains(&content) {
                continue;
            }
            if holders.holders(&content).is_empty() {
                self.wait(shared, content, repair);
            } else if repair == Repair::Due || self.may_try(&content) {
                self.begin(shared, content, repair);
            }
        }
    }

    fn may_try(&self, content: &InfoHash) -> bool {
        let failed = self.failed.get(content);
        failed.is_none_or(|at| at.elapsed() >= RETRY_AFTER)
    }

    fn wait(&mut self, shared: &Shared, content: InfoHash, repair: Repair) {
        self.failed.remove(&content);
        if repair != Repair::Waiting {
            let name = named(&lock(&shared.damaged_names), &content);
            tracing::error!(
                "cannot repair {name} yet: no connected disk has it. What is left of it is kept, and reads of what is damaged fail"
            );
            set(shared, &content, Repair::Waiting);
        }
    }

    fn begin(&mut self, shared: &Arc<Shared>, info_hash: InfoHash, repair: Repair) {
        let Some(length) = shared.replica.known(&info_hash).map(|known| known.length) else {
            return;
        };
        if repair == Repair::Due {
            // one that is tried again is still one that waits
            set(shared, &info_hash, Repair::UnderWay);
        }
        self.under_way.insert(info_hash);
        let (shared, places) = (Arc::clone(shared), Arc::clone(&self.places));
        self.tasks.spawn(async move {
            let _place = places.acquire_owned().await;
            copies::fetch(&shared, ContentRef { info_hash, length }).await;
            info_hash
        });
    }

    fn ended(&mut self, shared: &Shared, content: InfoHash) {
        self.under_way.remove(&content);
        if shared.replica.store.state(&content) == State::Complete {
            self.failed.remove(&content);
            return;
        }
        self.failed.insert(content, Instant::now());
        set(shared, &content, Repair::Waiting);
    }
}

fn set(shared: &Shared, content: &InfoHash, repair: Repair) {
    shared
        .replica
        .scrub
        .with(|scrub| scrub.set_repair(content, repair));
}
