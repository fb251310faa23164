//! The network: who reaches whom, and connections that deliver in order or break, as TCP does.

use crate::random::Random;
use delugefs_core::sync::{LinkId, Message};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Names a connection; each end's link is `2 × connection + end`.
pub(crate) type ConnectionId = u64;

/// What travels on a connection.
#[derive(Debug, Clone)]
pub(crate) enum Freight {
    Message(Message),
    /// A question for a holdings log, and the answer.
    Wanted(
        delugefs_core::ids::IncarnationId,
        delugefs_core::holdings::Wanted,
    ),
    Batches(
        delugefs_core::ids::PublicKey,
        Vec<delugefs_core::holdings::Batch>,
    ),
}

#[derive(Debug)]
pub(crate) struct Connection {
    /// Dialler first.
    pub(crate) ends: [usize; 2],
    /// How often each end had started when the connection was made.
    pub(crate) lives: [u32; 2],
    /// On their way to each end.
    pub(crate) queues: [VecDeque<Freight>; 2],
    pub(crate) latest: [Duration; 2],
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) connections: BTreeMap<ConnectionId, Connection>,
    next: ConnectionId,
    /// Pairs that the topology does not join at all.
    pub(crate) never: Vec<Vec<bool>>,
    /// Ways that are cut for now, from and to.
    pub(crate) cut: Vec<Vec<bool>>,
    pub(crate) delay: (u64, u64),
    /// Messages are lost, repeated and overtake each other, worse than TCP would ever let them.
    pub(crate) is_sloppy: bool,
}

pub(crate) fn link(connection: ConnectionId, end: usize) -> LinkId {
    LinkId(connection * 2 + end as u64)
}

pub(crate) fn connection(link: LinkId) -> (ConnectionId, usize) {
    (link.0 / 2, (link.0 % 2) as usize)
}

impl Network {
    pub(crate) fn new(nodes: usize, delay: (u64, u64)) -> Self {
        Self {
            connections: BTreeMap::new(),
            next: 1,
            never: vec![vec![false; nodes]; nodes],
            cut: vec![vec![false; nodes]; nodes],
            delay,
            is_sloppy: false,
        }
    }

    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        !self.never[from][to] && !self.cut[from][to]
    }

    pub(crate) fn joined(&self, a: usize, b: usize) -> bool {
        self.reaches(a, b) && self.reaches(b, a)
    }

    pub(crate) fn delay(&self, random: &mut Random) -> Duration {
        random.ms(self.delay.0, self.delay.1)
    }

    pub(crate) fn connect(&mut self, ends: [usize; 2], lives: [u32; 2]) -> ConnectionId {
        let id = self.next;
        self.next += 1;
        let connection = Connection {
            ends,
            lives,
            queues: [VecDeque::new(), VecDeque::new()],
            latest: [Duration::ZERO; 2],
        };
        self.connections.insert(id, connection);
        id
    }

    /// Puts freight on its way to an end; when to deliver, once for each time given.
    pub(crate) fn post(
        &mut self,
        id: ConnectionId,
        to: usize,
        freight: Freight,
        now: Duration,
        random: &mut Random,
    ) -> Vec<Duration> {
        let delay = self.delay(random);
        let copies = match (self.is_sloppy, random.within(0, 99)) {
            (true, 0..10) => 0,
            (true, 10..20) => 2,
            _ => 1,
        };
        let is_overtaking = self.is_sloppy && random.percent(20);
        let Some(connection) = self.connections.get_mut(&id) else {
            return Vec::new();
        };
        let at = connection.latest[to].max(now + delay);
        connection.latest[to] = at;
        for freight in std::iter::repeat_n(freight, copies) {
            if is_overtaking {
                connection.queues[to].push_front(freight);
            } else {
                connection.queues[to].push_back(freight);
            }
        }
        vec![at; copies]
    }
}
