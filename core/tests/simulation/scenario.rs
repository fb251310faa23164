//! What happens to a cluster, drawn from a seed, and what must hold in the end.

use crate::node::Node;
use crate::random::Random;
use crate::world::{Action, Next, World};
use std::fmt;
use std::time::Duration;

/// After healing: all links are up again and no retry is waiting. The longest of silence (5 s), dial timeout
/// and pause (5 s + 3.75 s), pull pause (5 s), repeat (10 s); clocks may be 5 % slow.
const RECOVERY: Duration = Duration::from_secs(24);

/// Afterwards nothing is said but heartbeats, once the last repeats are answered.
const LAST_WORDS: Duration = Duration::from_secs(23);
const SILENCE: Duration = Duration::from_secs(20);

/// What one run, or several, came to.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Report {
    pub(crate) runs: u64,
    pub(crate) writes: u64,
    pub(crate) commits: u64,
    pub(crate) crashes: u64,
    pub(crate) pulls: u64,
    pub(crate) failed_pulls: u64,
    pub(crate) heads: u64,
    /// The longest delay of a message, in milliseconds.
    pub(crate) slowest: u64,
    /// How long the last change took to be everywhere, in units of the longest delay and hop.
    pub(crate) settled_in_delays: f64,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.writes += other.writes;
        self.commits += other.commits;
        self.crashes += other.crashes;
        self.pulls += other.pulls;
        self.failed_pulls += other.failed_pulls;
        self.heads += other.heads;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            runs,
            writes,
            commits,
            crashes,
            pulls,
            failed_pulls,
            heads,
            ..
        } = self;
        write!(
            f,
            "{runs} runs: {writes} writes in {commits} commits, {crashes} crashes, {heads} announcements, {pulls} pulls ({failed_pulls} failed)"
        )
    }
}

/// How the nodes are joined.
#[derive(Debug, Clone, Copy)]
enum Topology {
    Mesh,
    /// All know only the first.
    Star,
    /// Each knows the next.
    Line,
}

impl Topology {
    fn joins(self, a: usize, b: usize) -> bool {
        match self {
            Self::Mesh => true,
            Self::Star => a == 0 || b == 0,
            Self::Line => a.abs_diff(b) == 1,
        }
    }

    fn hops(self, nodes: usize) -> u32 {
        match self {
            Self::Mesh => 1,
            Self::Star => 2,
            Self::Line => nodes as u32 - 1,
        }
    }
}

pub(crate) fn run(seed: u64, is_told: bool) -> Report {
    let mut random = Random::new(seed);
    let nodes = random.within(2, 7) as usize;
    let slowest = [5, 20, 50, 150, 400][random.below(5)];
    let topology = [
        Topology::Mesh,
        Topology::Mesh,
        Topology::Star,
        Topology::Line,
    ][random.below(4)];
    let mut world = World::new(nodes, (1, slowest), random, is_told);
    world.log(|| format!("{nodes} nodes, {topology:?}, delays up to {slowest} ms"));
    for a in 0..nodes {
        for b in 0..nodes {
            world.network.never[a][b] = !topology.joins(a, b);
        }
    }
    trouble(&mut world);
    heal(&mut world);
    let settled = last_change(&mut world, topology.hops(nodes), slowest);
    agree(&world);
    fall_silent(&mut world);
    let written: u64 = world.nodes.iter().map(|node| node.written).sum();
    let commits = world.graph.len() as u64;
    assert!(commits <= written, "more commits than writes");
    let longest = Duration::from_millis(slowest) * topology.hops(nodes);
    Report {
        runs: 1,
        writes: written,
        commits,
        crashes: world.counts.crashes,
        pulls: world.counts.pulls,
        failed_pulls: world.counts.failed_pulls,
        heads: world.counts.heads,
        slowest,
        settled_in_delays: settled.as_secs_f64() / longest.as_secs_f64(),
    }
}

/// Some seconds in which everything goes wrong.
fn trouble(world: &mut World) {
    let nodes = world.nodes.len();
    world.failures = [0, 5, 20][world.random.below(3)];
    world.network.is_sloppy = world.random.percent(30);
    for number in 0..nodes {
        let delay = world.random.ms(0, 300);
        world.after(delay, Next::Start(number));
    }
    let seconds = world.random.within(3, 15);
    for _ in 0..world.random.within(5, 60) {
        let at = world.random.ms(0, seconds * 1000);
        let node = world.random.below(nodes);
        let other = world.random.below(nodes);
        let action = match world.random.within(0, 99) {
            0..60 => Action::Write(node),
            60..70 => Action::Crash(node),
            70..80 => Action::Reset(node),
            80..90 => Action::Cut(node, other, at.subsec_millis().is_multiple_of(2)),
            90..95 => Action::Heal,
            _ => {
                burst(world, at, node);
                continue;
            }
        };
        world.after(at, Next::Script(action));
    }
    let end = world.now + Duration::from_secs(seconds);
    world.run(end, |_| false);
}

/// One node writes for a second, every few milliseconds.
fn burst(world: &mut World, at: Duration, node: usize) {
    for step in 0..100 {
        let at = at + Duration::from_millis(10) * step;
        world.after(at, Next::Script(Action::Write(node)));
    }
}

fn heal(world: &mut World) {
    world.act(Action::Heal);
    world.failures = 0;
    world.network.is_sloppy = false;
    let end = world.now + RECOVERY;
    world.run(end, |_| false);
    for node in &world.nodes {
        assert!(node.running.is_some(), "{} is down", node.number);
    }
    agree(world);
}

/// All nodes write at once; how long it takes until that is everywhere.
fn last_change(world: &mut World, hops: u32, slowest: u64) -> Duration {
    for number in 0..world.nodes.len() {
        world.act(Action::Write(number));
    }
    let start = world.now;
    // Over each hop: the announcement, a pull that was under way and misses the change (there and back), the
    // pull that brings it; beside that, a commit and a rebase of up to 600 ms, each with the rest after it.
    let delay = Duration::from_millis(slowest);
    let bound =
        delay * 5 * hops + Duration::from_millis(20) * 3 * hops + Duration::from_millis(2500);
    let is_done = world.run(start + bound, is_agreed);
    assert!(
        is_done,
        "not everywhere after {bound:?}: {}",
        disagreement(world)
    );
    world.now - start
}

pub(crate) fn is_agreed(world: &World) -> bool {
    let authors = world.nodes[0].store.authors();
    let have_the_same = |node: &Node| node.pending == 0 && node.store.authors() == authors;
    if !world.nodes.iter().all(have_the_same) {
        return false;
    }
    let heads = world.graph.maximal(authors);
    let shows = |node: &Node| (node.running.as_ref()).is_some_and(|running| running.shown == heads);
    world.nodes.iter().all(shows)
}

pub(crate) fn disagreement(world: &World) -> String {
    let line = |node: &Node| {
        let heads = world.graph.maximal(node.store.authors());
        let writes = world.graph.writes(&heads);
        let running = node.running.as_ref();
        let shown = running.map(|running| world.graph.writes(&running.shown));
        let (number, pending) = (node.number, node.pending);
        format!("\n  {number}: {pending} pending, has {writes:?}, shows {shown:?}")
    };
    world.nodes.iter().map(line).collect()
}

/// All that was acknowledged is everywhere.
fn agree(world: &World) {
    assert!(is_agreed(world), "no agreement: {}", disagreement(world));
    let written: Vec<_> = world.nodes.iter().map(|node| node.written).collect();
    for node in &world.nodes {
        let running = node.running.as_ref().unwrap();
        assert_eq!(
            world.graph.writes(&running.shown),
            written,
            "{} lost writes",
            node.number
        );
    }
}

fn pairs(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |b| (0..b).map(move |a| (a, b)))
}

/// When all is said, nothing more is said; and by then all know who holds what.
fn fall_silent(world: &mut World) {
    let end = world.now + LAST_WORDS;
    world.run(end, |_| false);
    for node in &world.nodes {
        let running = node.running.as_ref().unwrap();
        assert!(running.sync.is_settled(), "{} is not settled", node.number);
    }
    for (a, b) in pairs(world.nodes.len()) {
        let both = |ends: [usize; 2]| ends == [a, b] || ends == [b, a];
        let links = world.network.connections.values();
        let count = links.filter(|connection| both(connection.ends)).count();
        let expected = usize::from(world.network.joined(a, b));
        assert_eq!(count, expected, "links between {a} and {b}");
    }
    let before = world.counts;
    let end = world.now + SILENCE;
    world.run(end, |_| false);
    assert_eq!(world.counts, before, "they talk although all is said");
    let first = world.nodes[0].held();
    for node in &world.nodes {
        assert_eq!(node.held(), first, "{} knows other holdings", node.number);
    }
}
