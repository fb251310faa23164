//! Which addresses to dial, and when.

use super::agenda::{Agenda, Jitter, pause};
use super::event::{DialFailure, Effect, Now, Origin};
use super::limits::{
    ADDRESSES_MAX, DIAL_DEFERENCE, DIAL_EAGER_MAX, DIAL_RETRY_MAX, DIAL_RETRY_MIN,
    DIAL_RETRY_SELDOM, DIALS_FORGET, DIALS_MAX, LINK_SETTLED,
};
use super::links::Links;
use crate::ids::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be dialled then, unless its node is connected.
    Waiting(Now),
    Dialling,
    /// It is this node: never dialled again.
    Oneself,
}

#[derive(Debug)]
struct Address {
    node: Option<NodeId>,
    origin: Origin,
    failures: u32,
    state: State,
}

#[derive(Debug)]
pub(super) struct Dialer {
    me: NodeId,
    addresses: BTreeMap<SocketAddr, Address>,
}

impl Dialer {
    pub(super) fn new(me: NodeId) -> Self {
        Self {
            me,
            addresses: BTreeMap::new(),
        }
    }

    /// Learns of an address. Discovery and the owner speak of now, so what failed before is tried soon.
    pub(super) fn found(&mut self, node: Option<NodeId>, at: SocketAddr, origin: Origin, now: Now) {
        // where this node itself is said to be, a copy of it may be: a dial tells
        let node = node.filter(|node| *node != self.me);
        let is_deferring = node.is_some_and(|node| self.me > node);
        let soon = now
            + if is_deferring {
                DIAL_DEFERENCE
            } else {
                Duration::ZERO
            };
        if let Some(known) = self.addresses.get_mut(&at) {
            known.origin = known.origin.max(origin);
            if origin == Origin::Told {
                return;
            }
            known.node = node.or(known.node);
            if let State::Waiting(then) = known.state
                && known.failures > 0
            {
                known.failures = 1;
                known.state = State::Waiting(then.min(now + DIAL_RETRY_MIN));
            }
            return;
        }
        if self.addresses.len() >= ADDRESSES_MAX && !self.make_room(origin) {
            return;
        }
        let address = Address {
            node,
            origin,
            failures: 0,
            state: State::Waiting(soon),
        };
        self.addresses.insert(at, address);
    }

    /// A connected node says that it can be dialled here.
    pub(super) fn listens(&mut self, node: NodeId, at: SocketAddr, now: Now) {
        self.found(Some(node), at, Origin::Told, now);
        if let Some(address) = self.addresses.get_mut(&at) {
            address.node = Some(node);
        }
    }

    /// Forgets the address that failed most among those that count less than `origin`.
    fn make_room(&mut self, origin: Origin) -> bool {
        let worst = self
            .addresses
            .iter()
            .filter(|(_, address)| address.origin < origin && address.state != State::Dialling)
            .max_by_key(|(_, address)| address.failures)
            .map(|(at, _)| *at);
        worst.is_some_and(|at| self.addresses.remove(&at).is_some())
    }

    pub(super) fn failed(
        &mut self,
        at: SocketAddr,
        why: DialFailure,
        now: Now,
        jitter: &mut Jitter,
    ) {
        let Some(address) = self.addresses.get_mut(&at) else {
            return;
        };
        address.failures += 1;
        address.state = match why {
            DialFailure::Oneself => State::Oneself,
            DialFailure::Stranger => State::Waiting(now + jitter.spread(DIAL_RETRY_SELDOM)),
            DialFailure::Unreachable => State::Waiting(now + retry(address.failures, jitter)),
        };
        if address.failures > DIALS_FORGET && address.origin != Origin::Owner {
            self.addresses.remove(&at);
        }
    }

    /// Someone answered at an address that we dialled.
    pub(super) fn answered(&mut self, at: SocketAddr, node: NodeId, now: Now) {
        if let Some(address) = self.addresses.get_mut(&at) {
            address.node = Some(node);
            address.state = if node == self.me {
                State::Oneself
            } else {
                State::Waiting(now)
            };
        }
    }

    /// A node is connected no more: its addresses are tried again soon.
    pub(super) fn lost(&mut self, node: NodeId, lived: Duration, now: Now, jitter: &mut Jitter) {
        for address in self.addresses.values_mut() {
            if address.node == Some(node)
                && let State::Waiting(_) = address.state
            {
                let is_settled = lived >= LINK_SETTLED;
                address.failures = if is_settled { 1 } else { address.failures + 1 };
                address.state = State::Waiting(now + retry(address.failures, jitter));
            }
        }
    }

    pub(super) fn decide(&mut self, links: &Links, agenda: &mut Agenda) {
        if links.is_full() {
            return;
        }
        let dialling = self
            .addresses
            .values()
            .filter(|a| a.state == State::Dialling);
        let mut count = dialling.clone().count();
        let mut nodes: BTreeSet<_> = dialling.filter_map(|a| a.node).collect();
        for (at, address) in &mut self.addresses {
            let State::Waiting(then) = address.state else {
                continue;
            };
            let is_busy = address
                .node
                .is_some_and(|node| links.is_connected(node) || nodes.contains(&node));
            if is_busy || count >= DIALS_MAX || !agenda.due(then) {
                continue;
            }
            address.state = State::Dialling;
            count += 1;
            nodes.extend(address.node);
            agenda.push(Effect::Dial { address: *at });
        }
    }
}

fn retry(failures: u32, jitter: &mut Jitter) -> Duration {
    jitter.spread(if failures > DIAL_EAGER_MAX {
        DIAL_RETRY_SELDOM
    } else {
        pause(failures, DIAL_RETRY_MIN, DIAL_RETRY_MAX)
    })
}
