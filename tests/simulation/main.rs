//! Whole nodes in one process: the real machine, names, filesystem and content store of each, on folders of their own,
//! with a simulated network, clock and users; seeded, so that each run can be had again.
//!
//! After each step, what users were told is compared with what the mounts show; after everything is healed, all
//! must have the same head and show the same, and then there must be silence.
//!
//! `SEED=n cargo test --test simulation replay -- --nocapture` tells one run step by step; `SEEDS=from..to` runs
//! others than the usual ones.
#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction)]

mod backups;
mod copies;
mod disk;
mod drawer;
mod links;
#[path = "../../core/tests/simulation/network.rs"]
mod network;
mod node;
mod oracle;
mod over;
mod past;
mod ports;
mod pulls;
#[path = "../../core/tests/simulation/random.rs"]
mod random;
mod report;
mod scenario;
mod users;
mod wire;
mod world;

use past::Kind;
use report::Report;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seeds of the usual run.
const SEEDS: u64 = 1000;

/// And of those in which history is cut.
const CUTTING_SEEDS: u64 = 60;

/// Names the seed when a check fails.
struct Announce(u64, Kind);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            match self.1 {
                Kind::Usual => eprintln!("SEED={seed} failed; replay: cargo xtask sim {seed}"),
                Kind::Cutting => {
                    eprintln!("SEED={seed} failed; replay: CUT=1 cargo xtask sim {seed}");
                }
            }
        }
    }
}

/// A new folder for one run, in memory where there is such a thing.
pub(crate) fn folder() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let memory = Path::new("/dev/shm");
    let top = match memory.is_dir() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    };
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    top.join(format!("delugefs-sim-{}-{next}", std::process::id()))
}

fn run(seed: u64, kind: Kind, is_told: bool) -> Report {
    let _announce = Announce(seed, kind);
    scenario::run(seed, kind, is_told)
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

/// Runs seeds on all cores; each with its time.
fn run_all(seeds: std::ops::Range<u64>, kind: Kind) -> Vec<(Report, Duration)> {
    let next = AtomicU64::new(seeds.start);
    let take = || {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        (seed < seeds.end).then_some(seed)
    };
    let work = || {
        let timed = |seed| {
            let start = Instant::now();
            (run(seed, kind, false), start.elapsed())
        };
        std::iter::from_fn(take).map(timed).collect::<Vec<_>>()
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let done = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        let failed = "a seed has failed";
        done.flat_map(|done| done.expect(failed)).collect()
    })
}

#[test]
fn whole_nodes_keep_what_they_promised_whatever_happens() {
    let total = total(seeds(SEEDS), Kind::Usual);
    let counts = &total.counts;
    assert!(
        counts.commits > 0 && counts.kills > 0 && counts.pulls > 0 && total.checks > 0,
        "too tame"
    );
}

#[test]
fn history_is_cut_and_nothing_that_lives_goes_with_it() {
    let total = total(seeds(CUTTING_SEEDS), Kind::Cutting);
    let counts = &total.counts;
    assert!(
        counts.records > 0 && counts.cuts > 0 && counts.imports > 0,
        "too tame"
    );
}

fn total(seeds: std::ops::Range<u64>, kind: Kind) -> Report {
    let mut total = Report::default();
    let mut times = Vec::new();
    for (report, time) in run_all(seeds, kind) {
        total.add(&report);
        times.push(time);
    }
    times.sort_unstable();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{total}; median seed {median:?}, slowest {slowest:?}");
    total
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for (seed, kind) in [(7, Kind::Usual), (8, Kind::Usual), (9, Kind::Cutting)] {
        assert_eq!(run(seed, kind, false), run(seed, kind, false));
    }
}

#[test]
fn replay() {
    if let Ok(seed) = std::env::var("SEED") {
        tracing_subscriber::fmt().with_test_writer().init();
        let kind = match std::env::var_os("CUT") {
            Some(_) => Kind::Cutting,
            None => Kind::Usual,
        };
        println!("{}", run(seed.parse().expect("SEED=number"), kind, true));
    }
}
