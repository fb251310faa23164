//! When a node commits, pulls, tells, dials: one node's decisions as a state machine, events in, effects out.
//!
//! [`Sync::handle`] takes one [`Event`] and gives the [`Effect`]s to carry out; how they ended comes back as
//! events. It reads no clock: `now` is an argument, and [`Sync::wake_at`] says when to call with
//! [`Event::Wake`]. So a whole cluster runs in one deterministic test.
//!
//! After each event everything is weighed anew ("is something due?"), rather than each event having its own
//! reaction: a lost occasion cannot be lost for good, and what is due at the same time is done once.
//!
//! - `committer`: local changes are committed at once when idle, in growing groups under load; a pull that moved
//!   heads is followed by a rebase.
//! - `heads`: every peer announces all heads it has; heads that are news are pulled from one of those who have
//!   them; our own map is told to whoever has not announced the same. So everything is relayed, in any topology.
//! - `exchange`: the same for holdings logs.
//! - `links`, `dialer`: one link to each peer, heartbeats, retries, peers of peers.
//!
//! Nothing here survives a crash, and nothing needs to: heads and positions are read from disk at start.

mod agenda;
mod committer;
mod dialer;
mod event;
mod exchange;
mod heads;
pub mod limits;
mod links;
mod told;

pub use event::{
    Authors, Config, DialFailure, Direction, Effect, Event, Evidence, LinkId, LinkUp, Message, Now,
    Origin, Outcome, PeerAddress, Positions, PullId, Reason,
};

use crate::holdings::LOGS_MAX;
use crate::ids::NodeId;
use agenda::{Agenda, Jitter};
use committer::Committer;
use dialer::Dialer;
use exchange::{BatchEnd, Exchange};
use heads::{Heads, PullEnd};
use limits::{AUTHORS_MAX, PEERS_TOLD_MAX, ROUNDS_MAX};
use links::{Arrival, Links};
use std::time::Duration;

/// One node's decisions.
#[derive(Debug)]
pub struct Sync {
    committer: Committer,
    heads: Heads,
    exchange: Exchange,
    links: Links,
    dialer: Dialer,
    jitter: Jitter,
    wake: Option<Now>,
}

impl Sync {
    /// A node that has just started. Call [`Sync::handle`] with a first event: [`Event::LocalChanges`] when
    /// the journal holds any, else [`Event::Wake`].
    pub fn new(config: Config) -> Self {
        Self {
            committer: Committer::new(),
            heads: Heads::new(config.incarnation, config.authors),
            exchange: Exchange::new(config.positions),
            links: Links::new(config.node),
            dialer: Dialer::new(config.node),
            jitter: Jitter(config.seed),
            wake: None,
        }
    }

    /// Takes what happened; gives what is to be done, in this order. `now` never goes back.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        if let Some(wake) = self.wake {
            self.links.late(now.saturating_sub(wake));
        }
        let mut agenda = Agenda::new(now);
        self.take(event, &mut agenda);
        for _ in 0..ROUNDS_MAX {
            agenda.wake = None;
            let before = agenda.effects.len();
            self.decide(&mut agenda);
            let new = &agenda.effects[before..];
            if new.is_empty() {
                break;
            }
            for effect in new {
                if let Effect::Send { link, .. } = effect {
                    self.links.sent(*link, now);
                }
            }
        }
        self.wake = agenda.wake;
        agenda.effects
    }

    /// When to call [`Sync::handle`] with [`Event::Wake`], if nothing happens before.
    pub fn wake_at(&self) -> Option<Now> {
        self.wake
    }

    /// The nodes to which there is a link.
    pub fn connected(&self) -> impl Iterator<Item = NodeId> {
        self.links.nodes()
    }

    /// The heads that this node has.
    pub fn heads(&self) -> &Authors {
        self.heads.ours()
    }

    /// Whether nothing is pending or under way in the repository: all local changes are committed, all heads
    /// shown.
    pub fn is_settled(&self) -> bool {
        self.committer.is_settled() && !self.heads.is_pulling()
    }

    fn decide(&mut self, agenda: &mut Agenda) {
        for link in self.links.decide(agenda) {
            self.close(link, Reason::Silent, agenda);
        }
        self.heads.decide(agenda);
        self.committer.decide(self.heads.is_pulling(), agenda);
        self.exchange.decide(agenda, &mut self.jitter);
        self.dialer.decide(&self.links, agenda);
    }

    fn take(&mut self, event: Event, agenda: &mut Agenda) {
        let now = agenda.now;
        match event {
            Event::LocalChanges => self.committer.changed_here(now),
            Event::CommitFinished(outcome) | Event::RebaseFinished(outcome) => {
                self.written(outcome, now);
            }
            Event::PullFinished { pull, outcome } => {
                let end = PullEnd { pull, outcome };
                if self.heads.pulled(end, now, &mut self.jitter) {
                    self.committer.arrived(now);
                }
            }
            Event::PullProgress { pull } => self.heads.progressed(pull, now),
            Event::HoldingsChanged(positions) => self.exchange.set_ours(positions),
            Event::BatchApplied {
                link,
                incarnation,
                position,
                progressed,
            } => {
                self.links.heard(link, now);
                if let Some(from) = self.links.node(link) {
                    let end = BatchEnd {
                        from,
                        incarnation,
                        position,
                        progressed,
                    };
                    self.exchange.applied(&end, now, &mut self.jitter);
                }
            }
            Event::Found {
                node,
                addresses,
                origin,
            } => {
                for address in addresses {
                    self.dialer.found(node, address, origin, now);
                }
            }
            Event::DialFailed { address, failure } => {
                self.dialer.failed(address, failure, now, &mut self.jitter);
            }
            Event::LinkUp(up) => self.link_up(&up, agenda),
            Event::LinkDown { link } => self.link_down(link, agenda),
            Event::Heard { link } => self.links.heard(link, now),
            Event::Received { link, message } => self.received(link, message, agenda),
            Event::Wake => {}
        }
    }

    fn written(&mut self, outcome: Outcome, now: Now) {
        let mut late = false;
        let is_done = match outcome {
            Outcome::Done(authors) => {
                late = self.heads.have_others_moved(&authors);
                self.heads.set_ours(authors);
                true
            }
            Outcome::Failed => false,
        };
        self.committer.finished(is_done, now, &mut self.jitter);
        if late {
            // A pull has moved them while this ran, perhaps after the heads to show were read; when the pull's end
            // is told, they will be no news any more.
            self.committer.arrived(now);
        }
    }

    fn link_up(&mut self, up: &LinkUp, agenda: &mut Agenda) {
        if let Direction::Dialled(address) = up.direction {
            self.dialer.answered(address, up.peer, agenda.now);
        }
        let arrival = self.links.up(up, agenda);
        if let Arrival::Refused(_) = arrival {
            return;
        }
        // It may be needed when the link is gone.
        if let Some(address) = up.listening {
            self.dialer.listens(up.peer, address, agenda.now);
        }
        self.heads.connect(up.peer, up.link);
        self.exchange.connect(up.peer, up.link, up.incarnation);
        if arrival == Arrival::First {
            agenda.push(Effect::Connected { peer: up.peer });
        }
    }

    fn link_down(&mut self, link: LinkId, agenda: &mut Agenda) {
        let Some((peer, lived)) = self.links.down(link, agenda.now) else {
            return;
        };
        self.heads.disconnect(peer);
        self.exchange.disconnect(peer);
        self.dialer.lost(peer, lived, agenda.now, &mut self.jitter);
        agenda.push(Effect::Lost { peer });
    }

    fn close(&mut self, link: LinkId, reason: Reason, agenda: &mut Agenda) {
        agenda.push(Effect::Disconnect { link, reason });
        self.link_down(link, agenda);
    }

    fn received(&mut self, link: LinkId, message: Message, agenda: &mut Agenda) {
        // A link that was closed here may still deliver.
        let Some(peer) = self.links.node(link) else {
            return;
        };
        self.links.heard(link, agenda.now);
        if is_oversized(&message) {
            self.close(link, Reason::Oversized, agenda);
            return;
        }
        match message {
            Message::Heads(authors) => self.heads.announced(peer, authors, agenda),
            Message::Holdings(positions) => self.exchange.announced(peer, positions, agenda.now),
            Message::Peers(peers) => {
                for told in peers {
                    let origin = Origin::Told;
                    self.dialer
                        .found(Some(told.node), told.address, origin, agenda.now);
                }
            }
            Message::Ping => {
                agenda.send(link, Message::Pong);
                self.links.sent(link, agenda.now);
            }
            Message::Pong => {}
        }
    }
}

fn is_oversized(message: &Message) -> bool {
    match message {
        Message::Heads(authors) => authors.len() > AUTHORS_MAX,
        Message::Holdings(positions) => positions.len() > LOGS_MAX,
        Message::Peers(peers) => peers.len() > PEERS_TOLD_MAX,
        Message::Ping | Message::Pong => false,
    }
}

/// How long the executor may take to open a link before it reports that it failed: as long as a link may be
/// silent.
pub const DIAL_TIMEOUT: Duration = limits::SILENCE_MAX;

#[cfg(test)]
mod tests;
