//! Whole clusters in one process: nodes that each run the sync machine over a model of a repository, on a
//! network that delays, stalls, breaks, loses and repeats; seeded, so that each run can be had again.
//!
//! Each step is checked for safety (see `store` and `node`); after everything is healed, a last change must be
//! everywhere within a few delays, and then there must be silence.
//!
//! `SEED=n cargo test -p delugefs-core --test simulation replay -- --nocapture` tells one run step by step;
//! `SEEDS=from..to` runs others than the usual ones.
#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction)]

mod network;
mod node;
mod promise;
mod random;
mod scenario;
mod store;
mod world;

use scenario::Report;
use std::time::Instant;

/// Seeds of the usual run.
const SEEDS: u64 = 1000;

/// Longest delays from here on outweigh commits and gathering, in milliseconds.
const SLOW_MS: u64 = 150;

/// Names the seed when a check fails.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "SEED={seed} failed; replay: SEED={seed} cargo test -p delugefs-core --test simulation replay -- --nocapture"
            );
        }
    }
}

fn run(seed: u64, is_told: bool) -> Report {
    let _announce = Announce(seed);
    scenario::run(seed, is_told)
}

fn seeds(usual: u64) -> std::ops::Range<u64> {
    let parse = |text: String| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    };
    match std::env::var("SEEDS") {
        Ok(text) => parse(text).expect("SEEDS=from..to"),
        Err(_) => 0..usual,
    }
}

#[test]
fn clusters_converge_whatever_happens() {
    let mut times = Vec::new();
    let mut settled = Vec::new();
    let mut total = Report::default();
    for seed in seeds(SEEDS) {
        let start = Instant::now();
        let report = run(seed, false);
        times.push(start.elapsed());
        if report.slowest >= SLOW_MS {
            settled.push(report.settled_in_delays);
        }
        total.add(&report);
    }
    times.sort_unstable();
    settled.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| {
        settled
            .get(settled.len() * share / 100)
            .copied()
            .unwrap_or(0.0)
    };
    let median = times[times.len() / 2];
    println!(
        "{total}; median seed {median:?}, slowest {:?}; on slow networks settled after {:.1} delays and hops in the median, {:.1} in 99 of 100",
        times[times.len() - 1],
        at(50),
        at(99),
    );
    assert!(
        total.commits > 0 && total.crashes > 0 && total.failed_pulls > 0,
        "too tame"
    );
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    assert_eq!(run(7, false), run(7, false));
}

#[test]
fn replay() {
    if let Ok(seed) = std::env::var("SEED") {
        println!("{}", run(seed.parse().expect("SEED=number"), true));
    }
}
