//! Time, and the executor of what each node's machine decides.

use crate::disk;
use crate::network::{ConnectionId, Freight, Network, connection};
use crate::node::{Node, Running, number_at};
use crate::oracle::{Shown, Versions, look};
use crate::ports::Archive;
use crate::pulls::Fetch;
use crate::random::Random;
use delugefs::node::moving;
use delugefs_core::ids::InfoHash;
use delugefs_core::sync::{Effect, Event, Message};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What will happen. A node's part happens only in the life that it was meant for.
#[derive(Debug)]
pub(crate) enum Next {
    Wake(usize),
    Deliver(ConnectionId, usize),
    /// The event goes to the machine.
    Tell(usize, u32, Event),
    /// The repository's writer works.
    Work(usize, u32, Work),
    /// The machine hears how that ended.
    Worked(usize, u32, Work, bool),
    /// The dialler's attempt arrives.
    Dial(usize, u32, usize),
    /// A pull is made.
    Pull(Fetch),
    /// The machine hears how it ended.
    Pulled(Fetch, bool),
    /// Files are hashed: one begins, one ends.
    Seal(usize, u32),
    Sealed(usize, u32),
    /// Contents are made durable, copied, let go.
    Upkeep(usize, u32),
    Start(usize),
    /// The scenario's own doing.
    Script(crate::scenario::Action),
}

/// What the repository's one writer was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Commit,
    Rebase,
}

/// How often things happened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) acts: u64,
    pub(crate) refused: u64,
    pub(crate) commits: u64,
    pub(crate) rebases: u64,
    pub(crate) pulls: u64,
    pub(crate) failed_pulls: u64,
    pub(crate) kills: u64,
    pub(crate) power_cuts: u64,
    pub(crate) wipes: u64,
    pub(crate) restores: u64,
    /// Restored nodes that found out by what others had seen of them.
    pub(crate) renewals: u64,
    pub(crate) copies: u64,
    pub(crate) reaped: u64,
    /// Where history may be cut was recorded; it was cut; who had been away brought what it had.
    pub(crate) records: u64,
    pub(crate) cuts: u64,
    pub(crate) imports: u64,
    /// Messages other than heartbeats.
    pub(crate) talk: u64,
}

/// How often each node looks after its contents.
const UPKEEP_EVERY: Duration = Duration::from_secs(2);

pub(crate) struct World {
    pub(crate) now: Duration,
    /// Time in which nobody ran.
    pub(crate) slept: Duration,
    pub(crate) random: Random,
    pub(crate) nodes: Vec<Node>,
    /// What the mounts show that are watched all the time.
    pub(crate) models: Vec<Option<Shown>>,
    pub(crate) network: Network,
    pub(crate) archive: Arc<Archive>,
    pub(crate) versions: Versions,
    /// Contents whose last copy went with a disk.
    pub(crate) lost: BTreeSet<InfoHash>,
    pub(crate) serial: u64,
    pub(crate) counts: Counts,
    /// Percent of pulls that break.
    pub(crate) failures: u64,
    pub(crate) is_told: bool,
    /// Each user works in a folder of his own.
    pub(crate) is_apart: bool,
    /// Who is switched off until it is taken out again.
    pub(crate) drawer: Option<usize>,
    /// Who has gone over to a history that was cut.
    pub(crate) gone_over: BTreeSet<usize>,
    /// How long history is kept and who gives no sign of life is asked, if not as usual.
    pub(crate) past: Option<(Duration, Duration)>,
    top: PathBuf,
    queue: BTreeMap<(Duration, u64), Next>,
    queued: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        for node in std::mem::take(&mut self.nodes) {
            disk::forget(&node.root);
        }
        let _ = std::fs::remove_dir_all(&self.top);
    }
}

impl World {
    pub(crate) fn new(nodes: usize, delay: (u64, u64), mut random: Random, is_told: bool) -> Self {
        let top = crate::folder();
        let nodes: Vec<_> = (0..nodes)
            .map(|number| Node::new(number, &top, &mut random))
            .collect();
        Self {
            now: Duration::ZERO,
            slept: Duration::ZERO,
            models: nodes.iter().map(|_| None).collect(),
            network: Network::new(nodes.len(), delay),
            nodes,
            random,
            archive: Arc::default(),
            versions: Versions::default(),
            lost: BTreeSet::new(),
            serial: 0,
            counts: Counts::default(),
            failures: 0,
            is_told,
            is_apart: false,
            drawer: None,
            gone_over: BTreeSet::new(),
            past: None,
            top,
            queue: BTreeMap::new(),
            queued: 0,
        }
    }

    pub(crate) fn log(&self, text: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>10.3} ms  {}", self.now.as_secs_f64() * 1e3, text());
        }
    }

    pub(crate) fn after(&mut self, delay: Duration, next: Next) {
        self.queued += 1;
        self.queue.insert((self.now + delay, self.queued), next);
    }

    /// Runs until `end`, or until `is_done` says so after some step; whether it did.
    pub(crate) fn run(
        &mut self,
        end: Duration,
        mut is_done: impl FnMut(&mut Self) -> bool,
    ) -> bool {
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

    /// Runs for so long.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.run(end, |_| false);
    }

    fn step(&mut self, next: Next) {
        match next {
            Next::Wake(node) => self.wake(node),
            Next::Deliver(id, end) => self.deliver(id, end),
            Next::Tell(node, life, event) => {
                if self.is_alive(node, life) {
                    self.handle(node, event);
                }
            }
            Next::Work(node, life, work) => self.work(node, life, work),
            Next::Worked(node, life, work, is_done) => self.worked(node, life, work, is_done),
            Next::Dial(node, life, to) => self.dial_arrives(node, life, to),
            Next::Pull(fetch) => self.pull(fetch),
            Next::Pulled(fetch, is_done) => self.pulled(fetch, is_done),
            Next::Seal(node, life) => self.seal(node, life),
            Next::Sealed(node, life) => self.sealed(node, life),
            Next::Upkeep(node, life) => self.upkeep(node, life),
            Next::Start(node) => self.start(node),
            Next::Script(action) => self.act(&action),
        }
    }

    pub(crate) fn is_alive(&self, node: usize, life: u32) -> bool {
        self.nodes[node].is_running() && self.nodes[node].life == life
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

    /// Hands an event to a machine and carries out what it wants.
    pub(crate) fn handle(&mut self, number: usize, event: Event) {
        let clock = self.nodes[number].clock(self.now);
        let Some(running) = &mut self.nodes[number].running else {
            return;
        };
        if self.is_told && !is_dull(&event) {
            let at = self.now.as_secs_f64() * 1e3;
            println!("{at:>10.3} ms  {number} < {event:?}");
        }
        let effects = running.sync.handle(event, clock);
        let wake = running.sync.wake_at();
        assert!(wake.is_none_or(|wake| wake > clock), "{number} spins");
        for effect in effects {
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
            Effect::Pull { pull, peer, .. } => self.ask(number, peer, Some(pull)),
            Effect::Send { link, message } => {
                let is_talk = !matches!(message, Message::Ping | Message::Pong);
                self.counts.talk += u64::from(is_talk);
                self.post(link, Freight::Message(message));
            }
            Effect::AskHoldings { link, incarnation } => {
                self.counts.talk += 1;
                let wanted = self.nodes[number]
                    .parts()
                    .replica
                    .holdings_wanted(incarnation);
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
            Effect::SuspectIdentity { peer, evidence } => self.suspect(number, peer, evidence),
            Effect::Connected { peer } => {
                self.log(|| format!("{number} is connected to {peer:?}"));
                self.nodes[number].parts().replica.cluster_changed();
            }
            Effect::Lost { .. } => self.nodes[number].parts().replica.cluster_changed(),
        }
    }

    fn work_begins(&mut self, number: usize, work: Work) {
        let life = self.nodes[number].life;
        let delay = self.random.ms(0, 5);
        self.after(delay, Next::Work(number, life, work));
    }

    fn work(&mut self, number: usize, life: u32, work: Work) {
        if !self.is_alive(number, life) {
            return;
        }
        self.goes_to_work(number);
        let own = self.nodes[number].incarnation();
        let parts = self.nodes[number].parts();
        let before = parts.repository.sequence(own).unwrap();
        let done = match work {
            Work::Commit => moving::commit(parts),
            Work::Rebase => moving::rebase(parts),
        };
        if self.has_crashed(number) {
            return;
        }
        let parts = self.nodes[number].parts();
        let has_committed = parts.repository.sequence(own).unwrap() != before;
        self.counts.commits += u64::from(has_committed);
        self.counts.rebases += u64::from(work == Work::Rebase);
        if let Err(error) = &done {
            panic!("{number} cannot {work:?}: {error}");
        }
        self.log(|| format!("{number} {work:?}, {has_committed} new commit"));
        self.see(number);
        let is_slow = self.random.percent(2);
        let delay = self.random.ms(0, if is_slow { 500 } else { 20 });
        self.after(delay, Next::Worked(number, life, work, true));
        self.settle(number);
    }

    fn worked(&mut self, number: usize, life: u32, work: Work, is_done: bool) {
        if self.is_alive(number, life) {
            let outcome = self.nodes[number].parts().outcome(is_done);
            let event = match work {
                Work::Commit => Event::CommitFinished(outcome),
                Work::Rebase => Event::RebaseFinished(outcome),
            };
            self.handle(number, event);
        }
    }

    pub(crate) fn set_clock(&self, number: usize) {
        self.nodes[number].set_clock(self.now + self.slept);
    }

    /// From here on this node works, at its own time.
    pub(crate) fn goes_to_work(&self, number: usize) {
        self.set_clock(number);
        disk::work_on(&self.nodes[number].root);
    }

    /// Looks at a mount that has moved, if it is watched.
    pub(crate) fn see(&mut self, number: usize) {
        if self.models[number].is_some()
            && let Some(running) = &mut self.nodes[number].running
        {
            let shown = look(running);
            self.versions.check(number, &shown);
            self.models[number] = Some(shown);
        }
    }

    /// Hears what the filesystem has to say.
    pub(crate) fn settle(&mut self, number: usize) {
        use std::sync::atomic::Ordering::Relaxed;
        let life = self.nodes[number].life;
        let events = Arc::clone(&self.nodes[number].parts().events);
        if events.unsealed.swap(false, Relaxed) {
            let delay = self.random.ms(0, 50);
            self.after(delay, Next::Seal(number, life));
        }
        if events.pending.swap(false, Relaxed) {
            self.handle(number, Event::LocalChanges);
        }
    }

    fn seal(&mut self, number: usize, life: u32) {
        if self.is_alive(number, life) {
            self.goes_to_work(number);
            let running = self.nodes[number].running.as_mut();
            if running.is_some_and(Running::seal_begin) {
                let delay = self.random.ms(0, 30);
                self.after(delay, Next::Sealed(number, life));
            }
            self.settle(number);
        }
    }

    fn sealed(&mut self, number: usize, life: u32) {
        if !self.is_alive(number, life) {
            return;
        }
        self.goes_to_work(number);
        if let Some(running) = &mut self.nodes[number].running {
            running.seal_end();
        }
        // a content that no commit names yet is the easiest to take for one that nobody needs
        let is_tidied = self.random.percent(30);
        let reaped = if is_tidied { self.reap(number) } else { 0 };
        if self.has_crashed(number) {
            return;
        }
        if reaped > 0 {
            self.tell_holdings(number);
        }
        // more may wait, and what failed is tried again
        let is_full = self.is_full(number);
        let unsealed = self.nodes[number].filesystem().status().unsealed;
        if unsealed > 0 {
            let delay = Duration::from_millis(if is_full { 2000 } else { 5 });
            self.after(delay, Next::Seal(number, life));
        }
        self.settle(number);
    }

    pub(crate) fn is_full(&self, number: usize) -> bool {
        let faults = &self.nodes[number].faults;
        faults.is_full.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Lets go of what has expired on a node; how many contents.
    fn reap(&mut self, number: usize) -> usize {
        let others = self.nodes.iter().filter(|other| other.number != number);
        let others = others.map(Node::incarnation).collect();
        let reaped = self.nodes[number].parts().reap(&others);
        self.counts.reaped += reaped as u64;
        reaped
    }

    fn tell_holdings(&mut self, number: usize) {
        let positions = self.nodes[number].parts().replica.positions();
        self.handle(number, Event::HoldingsChanged(positions));
    }

    fn upkeep(&mut self, number: usize, life: u32) {
        if !self.is_alive(number, life) {
            return;
        }
        self.goes_to_work(number);
        let reaped = self.reap(number);
        self.copy_contents(number);
        let parts = self.nodes[number].parts();
        let said = parts.sync_contents();
        let tree = parts.filesystem.base().tree;
        parts.replica.remember(tree).unwrap();
        if self.has_crashed(number) {
            return;
        }
        if said || reaped > 0 {
            self.tell_holdings(number);
        }
        if self.past.is_some() {
            self.tend(number);
        }
        if !self.is_alive(number, life) {
            return;
        }
        self.after(UPKEEP_EVERY, Next::Upkeep(number, life));
    }

    /// Starts a node; it and those it can find hear of each other.
    fn start(&mut self, number: usize) {
        if self.nodes[number].is_running() || self.drawer == Some(number) {
            return;
        }
        self.goes_to_work(number);
        disk::starting(true);
        let seed = self.random.next();
        let archive = Arc::clone(&self.archive);
        let started = self.nodes[number].start(&archive);
        started.unwrap_or_else(|error| panic!("{number} does not start: {error}"));
        self.log(|| format!("{number} starts"));
        self.check_restarted(number);
        let events = self.nodes[number].boot(seed);
        disk::starting(false);
        if self.has_crashed(number) {
            return;
        }
        disk::sync_all(&self.nodes[number].root);
        self.see(number);
        self.check_catalogue(number);
        self.check_power_cut(number);
        for event in events {
            self.handle(number, event);
        }
        self.settle(number);
        let life = self.nodes[number].life;
        let first = self.random.ms(0, 2000);
        self.after(first, Next::Upkeep(number, life));
        for other in 0..self.nodes.len() {
            self.discover(number, other);
            self.discover(other, number);
        }
    }
}

/// Heartbeats and the like, which a replay leaves out.
fn is_dull(event: &Event) -> bool {
    let is_beat = |message: &Message| matches!(message, Message::Ping | Message::Pong);
    match event {
        Event::Wake | Event::Heard { .. } => true,
        Event::Received { message, .. } => is_beat(message),
        _ => false,
    }
}
