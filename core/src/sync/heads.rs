//! Which heads to pull from whom, and when to tell ours.

use super::agenda::{Agenda, Jitter, pause};
use super::event::{Authors, Effect, Evidence, LinkId, Message, Now, Outcome, PullId};
use super::limits::{
    ANNOUNCE_INTERVAL, KNOWN_HEADS_MAX, PULL_PATIENCE, PULL_PROGRESS_MAX, PULL_RETRY_MAX,
    PULL_RETRY_MIN, PULLS_FRUITLESS_MAX, PULLS_MAX,
};
use super::told::Told;
use crate::ids::{CommitId, IncarnationId, NodeId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What is known of one connected peer's heads.
#[derive(Debug)]
struct Peer {
    link: LinkId,
    heads: Told<Authors>,
    /// Announced heads that a pull from it did not bring: it is behind, or lies. Either way not news.
    settled: Authors,
    /// When it was last pulled from, so that peers take turns.
    pulled: Now,
    failures: u32,
    fruitless: u32,
    retry_at: Now,
}

/// A pull under way.
#[derive(Debug)]
struct Pull {
    peer: NodeId,
    since: Now,
    /// Until then it keeps others from pulling the same.
    patience_until: Now,
    wanted: Authors,
}

#[derive(Debug)]
pub(super) struct Heads {
    incarnation: IncarnationId,
    ours: Authors,
    /// Each author's last heads here, oldest first, the present one included.
    known: BTreeMap<IncarnationId, VecDeque<CommitId>>,
    peers: BTreeMap<NodeId, Peer>,
    pulls: BTreeMap<PullId, Pull>,
    next_pull: u64,
}

impl Heads {
    pub(super) fn new(incarnation: IncarnationId, authors: Authors) -> Self {
        let mut heads = Self {
            incarnation,
            ours: Authors::new(),
            known: BTreeMap::new(),
            peers: BTreeMap::new(),
            pulls: BTreeMap::new(),
            next_pull: 0,
        };
        heads.set_ours(authors);
        heads
    }

    pub(super) fn ours(&self) -> &Authors {
        &self.ours
    }

    /// Whether the repository has heads of other authors that this machine has not been told of.
    pub(super) fn have_others_moved(&self, authors: &Authors) -> bool {
        let mut others = authors
            .iter()
            .filter(|(author, _)| **author != self.incarnation);
        others.any(|(author, head)| self.ours.get(author) != Some(head))
    }

    /// Takes the repository's heads; whether they are others than before.
    pub(super) fn set_ours(&mut self, authors: Authors) -> bool {
        if self.ours == authors {
            return false;
        }
        for (author, head) in &authors {
            let known = self.known.entry(*author).or_default();
            if known.back() != Some(head) {
                known.push_back(*head);
            }
            if known.len() > KNOWN_HEADS_MAX {
                known.pop_front();
            }
        }
        self.ours = authors;
        true
    }

    pub(super) fn connect(&mut self, peer: NodeId, link: LinkId) {
        self.disconnect(peer);
        let state = Peer {
            link,
            heads: Told::default(),
            settled: Authors::new(),
            pulled: Now::ZERO,
            failures: 0,
            fruitless: 0,
            retry_at: Now::ZERO,
        };
        self.peers.insert(peer, state);
    }

    pub(super) fn disconnect(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
        self.pulls.retain(|_, pull| pull.peer != peer);
    }

    pub(super) fn announced(&mut self, peer: NodeId, authors: Authors, agenda: &mut Agenda) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let before = state.heads.announced.get(&self.incarnation).copied();
        let own = authors.get(&self.incarnation).copied();
        state.heads.hear(authors, &self.ours, agenda.now);
        if let Some(head) = own.filter(|head| before != Some(*head))
            && !self.is_known(self.incarnation, head)
        {
            let evidence = Evidence::Head(head);
            agenda.push(Effect::SuspectIdentity { peer, evidence });
        }
    }

    /// Takes a pull's end; whether it moved our heads.
    pub(super) fn pulled(&mut self, event: PullEnd, now: Now, jitter: &mut Jitter) -> bool {
        let PullEnd { pull, outcome } = event;
        let before = self.ours.clone();
        let (is_done, has_moved) = match outcome {
            Outcome::Done(authors) => (true, self.set_ours(authors)),
            Outcome::Failed => (false, false),
        };
        // A pull whose link has gone is forgotten, but what it brought counts.
        let Some(pull) = self.pulls.remove(&pull) else {
            return has_moved;
        };
        let mut missing = pull.wanted;
        missing.retain(|author, head| !self.is_known(*author, *head));
        let Some(peer) = self.peers.get_mut(&pull.peer) else {
            return has_moved;
        };
        if !is_done {
            peer.failures += 1;
            let pause = pause(peer.failures, PULL_RETRY_MIN, PULL_RETRY_MAX);
            peer.retry_at = now + jitter.spread(pause);
            return has_moved;
        }
        peer.failures = 0;
        peer.fruitless = if missing.is_empty() || has_moved {
            0
        } else {
            peer.fruitless + 1
        };
        if peer.fruitless > PULLS_FRUITLESS_MAX {
            let times = peer.fruitless - PULLS_FRUITLESS_MAX;
            peer.retry_at = now + jitter.spread(pause(times, PULL_RETRY_MIN, PULL_RETRY_MAX));
        }
        if has_moved {
            // what was refused may be let in by what has come: one side of a fork, once other chains have that of here
            let stays = |author: &IncarnationId| before.get(author) == self.ours.get(author);
            missing.retain(|author, _| !stays(author));
        }
        let announced = &peer.heads.announced;
        peer.settled.extend(missing);
        peer.settled
            .retain(|author, head| announced.get(author) == Some(head));
        has_moved
    }

    /// Bytes of a pull are arriving.
    pub(super) fn progressed(&mut self, pull: PullId, now: Now) {
        if let Some(pull) = self.pulls.get_mut(&pull) {
            pull.patience_until = (now + PULL_PATIENCE).min(pull.since + PULL_PROGRESS_MAX);
        }
    }

    pub(super) fn is_pulling(&self) -> bool {
        !self.pulls.is_empty()
    }

    pub(super) fn decide(&mut self, agenda: &mut Agenda) {
        self.announce(agenda);
        self.start_pulls(agenda);
    }

    fn is_known(&self, author: IncarnationId, head: CommitId) -> bool {
        self.known
            .get(&author)
            .is_some_and(|known| known.contains(&head))
    }

    /// What a peer has and we have not, as far as we know. Our own chain nobody else moves forward.
    fn missing(&self, peer: &Peer) -> Authors {
        peer.heads
            .announced
            .iter()
            .filter(|(author, head)| {
                **author != self.incarnation
                    && !self.is_known(**author, **head)
                    && peer.settled.get(*author) != Some(*head)
            })
            .map(|(author, head)| (*author, *head))
            .collect()
    }

    fn announce(&mut self, agenda: &mut Agenda) {
        for peer in self.peers.values_mut() {
            if peer.heads.is_due(&self.ours, ANNOUNCE_INTERVAL, agenda) {
                agenda.send(peer.link, Message::Heads(self.ours.clone()));
            }
        }
    }

    fn start_pulls(&mut self, agenda: &mut Agenda) {
        let mut covered = BTreeSet::new();
        let mut running = 0;
        for pull in self.pulls.values() {
            if !agenda.due(pull.patience_until) {
                covered.extend(pull.wanted.values().copied());
                running += 1;
            }
        }
        for node in self.by_merit() {
            if running >= PULLS_MAX {
                return;
            }
            let Some(peer) = self.peers.get(&node) else {
                continue;
            };
            let wanted = self.missing(peer);
            if wanted.values().all(|head| covered.contains(head)) || !agenda.due(peer.retry_at) {
                continue;
            }
            covered.extend(wanted.values().copied());
            running += 1;
            self.start_pull(node, wanted, agenda);
        }
    }

    /// Peers that may be pulled from: those that never failed first, then in turn.
    fn by_merit(&self) -> Vec<NodeId> {
        let busy: BTreeSet<_> = self.pulls.values().map(|pull| pull.peer).collect();
        let free = self.peers.iter().filter(|(node, _)| !busy.contains(node));
        let mut order: Vec<_> = free
            .map(|(node, peer)| (peer.failures + peer.fruitless, peer.pulled, *node))
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, _, node)| node).collect()
    }

    fn start_pull(&mut self, node: NodeId, wanted: Authors, agenda: &mut Agenda) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.pulled = agenda.now;
        let pull = PullId(self.next_pull);
        self.next_pull += 1;
        agenda.push(Effect::Pull {
            pull,
            peer: node,
            link: peer.link,
        });
        let since = agenda.now;
        let under_way = Pull {
            peer: node,
            since,
            patience_until: since + PULL_PATIENCE,
            wanted,
        };
        self.pulls.insert(pull, under_way);
    }
}

/// The fields of [`super::Event::PullFinished`].
#[derive(Debug)]
pub(super) struct PullEnd {
    pub(super) pull: PullId,
    pub(super) outcome: Outcome,
}
