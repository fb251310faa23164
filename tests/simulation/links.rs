//! Connections between nodes: what is sent arrives, late or not at all.

use crate::network::{ConnectionId, Freight, connection, link};
use crate::node::{address, node_id};
use crate::world::{Next, World};
use delugefs_core::holdings::codec;
use delugefs_core::ids::IncarnationId;
use delugefs_core::sync::{DIAL_TIMEOUT, DialFailure, Direction, Event, LinkId, LinkUp, Origin};
use std::sync::Arc;
use std::time::Duration;

impl World {
    pub(crate) fn post(&mut self, from: LinkId, freight: Freight) {
        let (id, end) = connection(from);
        let times = self
            .network
            .post(id, 1 - end, freight, self.now, &mut self.random);
        for at in times {
            self.after(at.saturating_sub(self.now), Next::Deliver(id, 1 - end));
        }
    }

    pub(crate) fn deliver(&mut self, id: ConnectionId, end: usize) {
        let Some(connection) = self.network.connections.get_mut(&id) else {
            return;
        };
        let (to, from) = (connection.ends[end], connection.ends[1 - end]);
        let life = connection.lives[end];
        if self.network.cut[from][to] {
            // TCP sends it again until it gets through.
            self.after(Duration::from_millis(200), Next::Deliver(id, end));
            return;
        }
        let freight = connection.queues[end].pop_front();
        if !self.is_alive(to, life) {
            return;
        }
        let link = link(id, end);
        match freight {
            Some(Freight::Message(message)) => {
                self.handle(to, Event::Received { link, message });
            }
            Some(Freight::Wanted(log, wanted)) => {
                self.handle(to, Event::Heard { link });
                let replica = Arc::clone(&self.nodes[to].parts().replica);
                if let Some(answer) = replica.holdings_answer(log, &wanted) {
                    let (author, batches) = codec::decode_answer(&answer).unwrap();
                    self.post(link, Freight::Batches(author, batches));
                }
            }
            Some(Freight::Batches(author, batches)) => {
                let answer = codec::encode_answer(author, &batches);
                self.take_answer(to, (link, author.incarnation()), &answer);
            }
            None => {}
        }
    }

    fn take_answer(
        &mut self,
        to: usize,
        (link, incarnation): (LinkId, IncarnationId),
        answer: &[u8],
    ) {
        let replica = &self.nodes[to].parts().replica;
        let (position, brought, ended) = replica.take_holdings(incarnation, answer);
        ended.expect("nobody lies here");
        if let Some(heard) = brought.ahead {
            self.leap(to, heard);
        }
        let progressed = brought.progressed;
        let event = Event::BatchApplied {
            link,
            incarnation,
            position,
            progressed,
        };
        self.handle(to, event);
    }

    /// A connection ends. Whoever did it knows; the others hear of it if they can be reached.
    pub(crate) fn hang_up(&mut self, id: ConnectionId, by: Option<usize>) {
        let Some(connection) = self.network.connections.remove(&id) else {
            return;
        };
        for end in [0, 1] {
            let (node, life) = (connection.ends[end], connection.lives[end]);
            let is_heard = self.network.joined(node, connection.ends[1 - end]);
            if by != Some(end) && is_heard {
                let delay = self.network.delay(&mut self.random);
                // Behind all that was sent, and never before the link is up.
                let up = connection.latest[end].saturating_sub(self.now);
                let link = link(id, end);
                let down = Next::Tell(node, life, Event::LinkDown { link });
                self.after(delay.max(up), down);
            }
        }
    }

    pub(crate) fn dial_arrives(&mut self, node: usize, life: u32, to: usize) {
        if !self.is_alive(node, life) {
            return;
        }
        let failure = if to == node {
            Some((Duration::ZERO, DialFailure::Oneself))
        } else if !self.network.joined(node, to) {
            Some((DIAL_TIMEOUT, DialFailure::Unreachable))
        } else if !self.nodes[to].is_running() {
            let delay = self.network.delay(&mut self.random);
            Some((delay, DialFailure::Unreachable))
        } else {
            None
        };
        if let Some((delay, failure)) = failure {
            let address = address(to);
            let event = Event::DialFailed { address, failure };
            self.after(delay, Next::Tell(node, life, event));
            return;
        }
        let lives = [life, self.nodes[to].life];
        let id = self.network.connect([node, to], lives);
        for (end, other) in [(0, to), (1, node)] {
            let direction = if end == 0 {
                Direction::Dialled(address(to))
            } else {
                Direction::Accepted
            };
            let up = LinkUp {
                link: link(id, end),
                peer: node_id(other),
                incarnation: self.nodes[other].incarnation(),
                direction,
                listening: Some(address(other)),
            };
            let delay = self.network.delay(&mut self.random);
            // What the other end sends is read only once the link is up.
            if let Some(connection) = self.network.connections.get_mut(&id) {
                connection.latest[end] = self.now + delay;
            }
            let up = Next::Tell([node, to][end], lives[end], Event::LinkUp(up));
            self.after(delay, up);
        }
    }

    pub(crate) fn discover_all(&mut self) {
        for by in 0..self.nodes.len() {
            for other in 0..self.nodes.len() {
                self.discover(by, other);
            }
        }
    }

    /// As mDNS does when a node or a network comes up.
    pub(crate) fn discover(&mut self, by: usize, other: usize) {
        if by == other || !self.network.joined(by, other) {
            return;
        }
        let delay = self.random.ms(1, 900);
        let life = self.nodes[by].life;
        let found = Event::Found {
            node: Some(node_id(other)),
            addresses: vec![address(other)],
            origin: Origin::Discovered,
        };
        self.after(delay, Next::Tell(by, life, found));
    }
}
