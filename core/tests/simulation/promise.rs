//! The promise on how soon all agree: after bursts by 2 to 20 nodes, and after all have written without pause, one head
//! within four times the largest delay after the last change.

use crate::Announce;
use crate::random::Random;
use crate::scenario::{disagreement, is_agreed};
use crate::world::{Action, Next, World};
use std::time::Duration;

/// Runs of the usual test.
const SEEDS: u64 = 60;

/// Longest time that a commit or a rebase takes here, in milliseconds.
const WORK_MS: u64 = 10;

/// What disks and gathering take beside the network: the commit of the change and the rebase that shows it, each after
/// another and the rest that follows it.
const BESIDE: Duration = Duration::from_millis(4 * WORK_MS + 4 * 20);

/// Until all are linked and all is said that links bring.
const SETTLE: Duration = Duration::from_secs(8);

/// In units of the largest delay, what is promised.
const DELAYS: u32 = 4;

#[derive(Debug, Clone, Copy)]
enum Load {
    /// Each node changes something once, all within one largest delay.
    Burst,
    /// Each changes something every few milliseconds for a while.
    Continuous,
}

/// How long after the last change all showed one head, and the largest delay.
fn run(seed: u64) -> (Duration, Duration) {
    let _announce = Announce(seed);
    let mut random = Random::new(seed);
    let nodes = random.within(2, 20) as usize;
    let slowest = random.within(1, 400);
    let load = [Load::Burst, Load::Continuous][random.below(2)];
    let mut world = World::new(nodes, (1, slowest), random, false);
    world.work = (WORK_MS, WORK_MS);
    for number in 0..nodes {
        world.after(Duration::ZERO, Next::Start(number));
    }
    world.run(SETTLE, |_| false);
    let last = changes(&mut world, load, slowest);
    world.run(last, |_| false);
    let largest = Duration::from_millis(slowest);
    let bound = largest * DELAYS + BESIDE;
    let is_one = world.run(last + bound, is_agreed);
    assert!(
        is_one,
        "{nodes} nodes, {load:?}, delays up to {slowest} ms: not one head after {bound:?}: {}",
        disagreement(&world)
    );
    (world.now - last, largest)
}

/// Arranges the changes; when the last of them is.
fn changes(world: &mut World, load: Load, slowest: u64) -> Duration {
    let (start, nodes) = (world.now, world.nodes.len());
    let (span, each) = match load {
        Load::Burst => (slowest, slowest),
        Load::Continuous => (1500, 30),
    };
    let mut last = start;
    for number in 0..nodes {
        let mut at = world.random.ms(0, each);
        while at <= Duration::from_millis(span) {
            world.after(at, Next::Script(Action::Write(number)));
            last = last.max(start + at);
            if matches!(load, Load::Burst) {
                break;
            }
            at += world.random.ms(1, each);
        }
    }
    last
}

#[test]
fn all_show_one_head_within_four_delays() {
    let mut ratios = Vec::new();
    for seed in crate::seeds(SEEDS) {
        let (took, largest) = run(seed);
        if largest >= Duration::from_millis(100) {
            ratios.push(took.as_secs_f64() / largest.as_secs_f64());
        }
    }
    ratios.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| ratios.get((ratios.len() * share / 100).min(ratios.len() - 1));
    println!(
        "largest delay 100 ms and more: one head after {:.1} of them in the median, {:.1} in 99 of 100, {:.1} at most",
        at(50).unwrap(),
        at(99).unwrap(),
        at(100).unwrap()
    );
}
