//! Time, and the executor of each machine's effects.

use crate::network::{ConnectionId, Freight, Network, connection, link};
use crate::node::{Node, Step, Work, address, node_id, number_at};
use crate::random::Random;
use crate::store::{Graph, incarnation};
use delugefs_core::holdings::Log;
use delugefs_core::sync::{
    Authors, DIAL_TIMEOUT, DialFailure, Direction, Effect, Event, LinkId, LinkUp, Message, Origin,
    Outcome, PullId,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// What will happen. A node's part happens only in the life that it was meant for.
#[derive(Debug)]
pub(crate) enum Next {
    Wake(usize),
    Deliver(ConnectionId, usize),
    /// The event goes to the machine.
    Tell(usize, u32, Event),
    /// The work under way goes on.
    Work(usize, u32, Step),
    /// The dialler's attempt arrives.
    Dial(usize, u32, usize),
    /// A pull's request arrives at the peer.
    Serve(Fetch),
    /// Its answer arrives.
    Fetched(Fetch, Authors, Vec<usize>),
    /// The node's loop hears that a pull has moved what it moved.
    Pulled(Fetch),
    Start(usize),
    /// The scenario's own doing.
    Script(Action),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetch {
    pub(crate) by: usize,
    pub(crate) life: u32,
    pub(crate) from: usize,
    pub(crate) pull: PullId,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Write(usize),
    Crash(usize),
    /// The two are cut off from each other; if only one way, the second does not hear the first.
    Cut(usize, usize, bool),
    Heal,
    /// A connection of this node breaks.
    Reset(usize),
}

/// How often things happened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) crashes: u64,
    pub(crate) pulls: u64,
    pub(crate) failed_pulls: u64,
    pub(crate) heads: u64,
    /// Messages other than heartbeats.
    pub(crate) talk: u64,
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) random: Random,
    pub(crate) nodes: Vec<Node>,
    pub(crate) graph: Graph,
    pub(crate) network: Network,
    pub(crate) counts: Counts,
    /// Percent of pulls and commits that fail.
    pub(crate) failures: u64,
    /// Longest time that a commit or a rebase takes, usually and seldom, in milliseconds.
    pub(crate) work: (u64, u64),
    pub(crate) is_told: bool,
    queue: BTreeMap<(Duration, u64), Next>,
    serial: u64,
}

impl World {
    pub(crate) fn new(nodes: usize, delay: (u64, u64), mut random: Random, is_told: bool) -> Self {
        Self {
            now: Duration::ZERO,
            nodes: (0..nodes)
                .map(|number| Node::new(number, &mut random))
                .collect(),
            random,
            graph: Graph::new(nodes),
            network: Network::new(nodes, delay),
            counts: Counts::default(),
            failures: 0,
            work: (30, 600),
            is_told,
            queue: BTreeMap::new(),
            serial: 0,
        }
    }

    pub(crate) fn log(&self, text: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>10.3} ms  {}", self.now.as_secs_f64() * 1e3, text());
        }
    }

    pub(crate) fn after(&mut self, delay: Duration, next: Next) {
        self.serial += 1;
        self.queue.insert((self.now + delay, self.serial), next);
    }

    /// Runs until `end`, or until `is_done` says so after some step; whether it did.
    pub(crate) fn run(&mut self, end: Duration, is_done: impl Fn(&Self) -> bool) -> bool {
        while let Some(entry) = self
            .queue
            .first_entry()
            .filter(|entry| entry.key().0 <= end)
        {
            self.now = entry.key().0;
            let next = entry.remove();
            self.step(next);
            if is_done(self) {
                return true;
            }
        }
        self.now = end;
        false
    }

    fn step(&mut self, next: Next) {
        match next {
            Next::Wake(node) => self.wake(node),
            Next::Deliver(id, end) => self.deliver(id, end),
            Next::Tell(node, life, event) => self.tell(node, life, event),
            Next::Work(node, life, step) => self.work_goes_on(node, life, step),
            Next::Dial(node, life, to) => self.dial_arrives(node, life, to),
            Next::Serve(fetch) => self.serve(fetch),
            Next::Fetched(fetch, authors, pack) => self.fetched(fetch, &authors, &pack),
            Next::Pulled(fetch) => self.pulled(fetch),
            Next::Start(node) => self.start(node),
            Next::Script(action) => self.act(action),
        }
    }

    fn is_alive(&self, node: usize, life: u32) -> bool {
        self.nodes[node].running.is_some() && self.nodes[node].life == life
    }

    fn wake(&mut self, number: usize) {
        let now = self.now;
        let clock = self.nodes[number].clock(now);
        let Some(running) = &mut self.nodes[number].running else {
            return;
        };
        if running.wake == Some(now) {
            running.wake = None;
        }
        if running.sync.wake_at().is_some_and(|at| at <= clock) {
            self.handle(number, Event::Wake);
        } else if let Some(at) = running.sync.wake_at() {
            self.arrange(number, at);
        }
    }

    fn tell(&mut self, node: usize, life: u32, event: Event) {
        if self.is_alive(node, life) {
            self.handle(node, event);
        }
    }

    /// Hands an event to a machine and carries out what it wants.
    pub(crate) fn handle(&mut self, number: usize, event: Event) {
        let clock = self.nodes[number].clock(self.now);
        let Some(running) = &mut self.nodes[number].running else {
            return;
        };
        if self.is_told && event != Event::Wake {
            println!(
                "{:>10.3} ms  {number} < {event:?}",
                self.now.as_secs_f64() * 1e3
            );
        }
        let effects = running.sync.handle(event, clock);
        let wake = running.sync.wake_at();
        assert!(wake.is_none_or(|wake| wake > clock), "{number} spins");
        for effect in effects {
            self.log(|| format!("{number} > {effect:?}"));
            self.execute(number, effect);
        }
        if let Some(wake) = wake {
            self.arrange(number, wake);
        }
    }

    fn arrange(&mut self, number: usize, wake: Duration) {
        let at = self.nodes[number].time_of(wake).max(self.now);
        let Some(running) = &mut self.nodes[number].running else {
            return;
        };
        if running.wake.is_none_or(|arranged| at < arranged) {
            running.wake = Some(at);
            self.after(at.saturating_sub(self.now), Next::Wake(number));
        }
    }

    fn execute(&mut self, number: usize, effect: Effect) {
        let life = self.nodes[number].life;
        match effect {
            Effect::Commit => self.work_begins(number, Work::Commit),
            Effect::Rebase => self.work_begins(number, Work::Rebase),
            Effect::Pull { pull, link, .. } => {
                self.counts.pulls += 1;
                let (id, end) = connection(link);
                let from = self.network.connections.get(&id).map(|c| c.ends[1 - end]);
                let by = number;
                let fetch = Fetch {
                    by,
                    life,
                    from: from.unwrap_or(by),
                    pull,
                };
                let delay = self.network.delay(&mut self.random);
                self.after(delay, Next::Serve(fetch));
            }
            Effect::Send { link, message } => {
                self.counts.heads += u64::from(matches!(message, Message::Heads(_)));
                let is_talk = !matches!(message, Message::Ping | Message::Pong);
                self.counts.talk += u64::from(is_talk);
                self.post(link, Freight::Message(message));
            }
            Effect::AskHoldings { link, incarnation } => {
                self.counts.talk += 1;
                let is_own = incarnation == crate::store::incarnation(number);
                assert!(!is_own, "{number}: no root was copied here");
                let wanted = self.nodes[number].holdings.wanted(incarnation);
                self.post(link, Freight::Wanted(incarnation, wanted));
            }
            Effect::Dial { address } => {
                let delay = self.network.delay(&mut self.random) * 2;
                self.after(delay, Next::Dial(number, life, number_at(address)));
            }
            Effect::Disconnect { link, .. } => {
                let (id, end) = connection(link);
                self.hang_up(id, Some(end));
            }
            Effect::SuspectIdentity { .. } | Effect::Connected { .. } | Effect::Lost { .. } => {}
        }
    }

    fn post(&mut self, from: LinkId, freight: Freight) {
        let (id, end) = connection(from);
        let times = self
            .network
            .post(id, 1 - end, freight, self.now, &mut self.random);
        for at in times {
            self.after(at.saturating_sub(self.now), Next::Deliver(id, 1 - end));
        }
    }

    fn deliver(&mut self, id: ConnectionId, end: usize) {
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
        match freight {
            Some(Freight::Message(message)) => {
                let link = link(id, end);
                self.handle(to, Event::Received { link, message });
            }
            Some(Freight::Wanted(incarnation, wanted)) => {
                self.handle(
                    to,
                    Event::Heard {
                        link: link(id, end),
                    },
                );
                if let Some(log) = self.nodes[to].holdings.log(incarnation) {
                    let answer = Freight::Batches(log.author(), log.answer(&wanted));
                    self.post(link(id, end), answer);
                }
            }
            Some(Freight::Batches(author, batches)) => {
                let holdings = &mut self.nodes[to].holdings;
                let mut progressed = false;
                for batch in batches {
                    let applied = holdings.apply(author, batch).unwrap();
                    progressed |= applied.is_progress();
                }
                let log = author.incarnation();
                let event = Event::BatchApplied {
                    link: link(id, end),
                    incarnation: log,
                    position: holdings.log(log).map_or(0, Log::position),
                    progressed,
                };
                self.handle(to, event);
            }
            None => {}
        }
    }

    /// A connection ends. Whoever did it knows; the others hear of it if they can be reached.
    fn hang_up(&mut self, id: ConnectionId, by: Option<usize>) {
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
                let delay = delay.max(up);
                let event = Event::LinkDown {
                    link: link(id, end),
                };
                self.after(delay, Next::Tell(node, life, event));
            }
        }
    }

    fn dial_arrives(&mut self, node: usize, life: u32, to: usize) {
        if !self.is_alive(node, life) {
            return;
        }
        let failure = if to == node {
            Some((Duration::ZERO, DialFailure::Oneself))
        } else if !self.network.joined(node, to) {
            Some((DIAL_TIMEOUT, DialFailure::Unreachable))
        } else if self.nodes[to].running.is_none() {
            Some((
                self.network.delay(&mut self.random),
                DialFailure::Unreachable,
            ))
        } else {
            None
        };
        if let Some((delay, failure)) = failure {
            let event = Event::DialFailed {
                address: address(to),
                failure,
            };
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
                incarnation: incarnation(other),
                direction,
                listening: Some(address(other)),
            };
            let delay = self.network.delay(&mut self.random);
            // What the other end sends is read only once the link is up.
            if let Some(connection) = self.network.connections.get_mut(&id) {
                connection.latest[end] = self.now + delay;
            }
            self.after(
                delay,
                Next::Tell([node, to][end], lives[end], Event::LinkUp(up)),
            );
        }
    }

    /// Time passes before each step, and before the machine is told; any step may fail.
    fn work_begins(&mut self, number: usize, work: Work) {
        self.nodes[number].begin(work);
        let is_slow = self.random.percent(2);
        let mut left = self
            .random
            .ms(1, if is_slow { self.work.1 } else { self.work.0 });
        let life = self.nodes[number].life;
        let mut at = Duration::ZERO;
        let mut is_done = true;
        for step in work.steps() {
            let pause = left * self.random.within(0, 60) as u32 / 100;
            (at, left) = (at + pause, left - pause);
            is_done = !self.random.percent(self.failures / 2);
            if !is_done {
                break;
            }
            self.after(at, Next::Work(number, life, *step));
        }
        self.after(at + left, Next::Work(number, life, Step::Tell(is_done)));
    }

    fn work_goes_on(&mut self, number: usize, life: u32, step: Step) {
        if !self.is_alive(number, life) {
            return;
        }
        let node = &mut self.nodes[number];
        let Step::Tell(is_done) = step else {
            node.advance(step, &mut self.graph);
            self.log(|| format!("{number} {step:?}"));
            return;
        };
        let outcome = match is_done {
            true => Outcome::Done(node.store.authors().clone()),
            false => Outcome::Failed,
        };
        let job = node.running.as_mut().unwrap().job.take();
        let event = match job.expect("work under way").work {
            Work::Commit => Event::CommitFinished(outcome),
            Work::Rebase => Event::RebaseFinished(outcome),
        };
        self.handle(number, event);
    }

    fn serve(&mut self, fetch: Fetch) {
        let is_served = self.network.joined(fetch.by, fetch.from)
            && self.nodes[fetch.from].running.is_some()
            && !self.random.percent(self.failures);
        if is_served {
            let (authors, pack) = self.nodes[fetch.from].store.pack();
            let mut delay = self.network.delay(&mut self.random);
            if self.random.percent(self.failures) {
                delay += self.random.ms(500, 4000);
            }
            self.after(delay, Next::Fetched(fetch, authors, pack));
        } else {
            self.counts.failed_pulls += 1;
            let delay = self.random.ms(1, 3000);
            let event = Event::PullFinished {
                pull: fetch.pull,
                outcome: Outcome::Failed,
            };
            self.after(delay, Next::Tell(fetch.by, fetch.life, event));
        }
    }

    fn fetched(&mut self, fetch: Fetch, authors: &Authors, pack: &[usize]) {
        if !self.is_alive(fetch.by, fetch.life) {
            return;
        }
        let node = &mut self.nodes[fetch.by];
        let before = node.store.authors().clone();
        node.store.receive(&self.graph, authors, pack);
        self.graph.assert_forward(&before, node.store.authors());
        let delay = self.random.ms(0, 10);
        self.after(delay, Next::Pulled(fetch));
    }

    fn pulled(&mut self, fetch: Fetch) {
        if self.is_alive(fetch.by, fetch.life) {
            // read now: heads of two pulls that end close together must not be told in the wrong order
            let outcome = Outcome::Done(self.nodes[fetch.by].store.authors().clone());
            let pull = fetch.pull;
            self.handle(fetch.by, Event::PullFinished { pull, outcome });
        }
    }

    /// Starts a node; it and those it can find hear of each other.
    fn start(&mut self, number: usize) {
        let seed = self.random.next();
        let event = self.nodes[number].start(seed, &self.graph);
        self.log(|| format!("{number} starts"));
        self.handle(number, event);
        for other in 0..self.nodes.len() {
            self.discover(number, other);
            self.discover(other, number);
        }
    }

    fn discover_all(&mut self) {
        for by in 0..self.nodes.len() {
            for other in 0..self.nodes.len() {
                self.discover(by, other);
            }
        }
    }

    /// As mDNS does when a node or a network comes up.
    fn discover(&mut self, by: usize, other: usize) {
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

    pub(crate) fn act(&mut self, action: Action) {
        self.log(|| format!("{action:?}"));
        match action {
            Action::Write(number) => self.write(number),
            Action::Crash(number) => self.crash(number),
            Action::Cut(a, b, is_one_way) => {
                self.network.cut[a][b] = true;
                self.network.cut[b][a] |= !is_one_way;
            }
            Action::Heal => {
                for row in &mut self.network.cut {
                    row.fill(false);
                }
                self.discover_all();
            }
            Action::Reset(number) => {
                let mut all = self.network.connections.iter();
                let one = all
                    .find(|(_, c)| c.ends.contains(&number))
                    .map(|(id, _)| *id);
                if let Some(id) = one {
                    self.hang_up(id, None);
                }
            }
        }
    }

    fn write(&mut self, number: usize) {
        if self.nodes[number].running.is_none() {
            return;
        }
        self.nodes[number].write(&mut self.random);
        let positions = self.nodes[number].holdings.positions();
        self.handle(number, Event::HoldingsChanged(positions));
        self.handle(number, Event::LocalChanges);
    }

    fn crash(&mut self, number: usize) {
        if self.nodes[number].running.take().is_none() {
            return;
        }
        self.counts.crashes += 1;
        let all: Vec<_> = self
            .network
            .connections
            .iter()
            .map(|(id, c)| (*id, c.ends))
            .collect();
        for (id, ends) in all {
            if let Some(end) = ends.iter().position(|end| *end == number) {
                if self.random.percent(50) {
                    self.hang_up(id, Some(end));
                } else {
                    // A host that is gone does not even say so.
                    self.network.connections.remove(&id);
                }
            }
        }
        let delay = self.random.ms(50, 3000);
        self.after(delay, Next::Start(number));
    }
}
