//! What a volume of two hosts does, beside something else that does the same in the same run.
//!
//! `cargo xtask bench nodes [latency | transfer | commits | first-byte | tree]…`; without a name, all of them. The
//! hosts are network namespaces of this machine, so both nodes share its cores: figures of a pair of machines are
//! better. Each takes less than a minute and leaves nothing behind.
#![allow(clippy::unwrap_used, missing_docs)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::unchecked_time_subtraction
)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod commits;
mod first_byte;
mod latency;
mod machine;
mod transfer;
mod tree;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use support::{Lab, Node, eventually};

/// A benchmark that has measured for so long makes no more rounds, and says how many it made.
const MEASURE_MAX: Duration = Duration::from_secs(20);

/// What has not happened after this is a failure, not a figure.
const WAIT_MAX: Duration = Duration::from_secs(50);

const BENCHMARKS: [(&str, fn()); 5] = [
    ("latency", latency::run),
    ("transfer", transfer::run),
    ("commits", commits::run),
    ("first-byte", first_byte::run),
    ("tree", tree::run),
];

fn main() -> ExitCode {
    // cargo itself says `--bench`
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    if let Some(stranger) = named.iter().find(|name| !is_known(name)) {
        eprintln!("there is no benchmark {stranger}");
        return ExitCode::FAILURE;
    }
    if !support::can_run() {
        return ExitCode::SUCCESS;
    }
    println!("{}", machine::facts());
    let mut outcome = ExitCode::SUCCESS;
    for (name, run) in BENCHMARKS {
        if !named.is_empty() && !named.iter().any(|wanted| wanted == name) {
            continue;
        }
        let (start, load) = (Instant::now(), machine::load());
        println!("\n## {name}\n");
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            println!("FAILED: {name}");
            outcome = ExitCode::FAILURE;
        }
        let took = start.elapsed().as_secs_f64();
        println!(
            "\n{took:.0} s in all; load {load} before, {} after",
            machine::load()
        );
    }
    outcome
}

fn is_known(name: &str) -> bool {
    BENCHMARKS.iter().any(|(known, _)| *known == name)
}

/// Two hosts with one disk and one mount each, connected.
fn pair(lab: &Lab) -> (Node, Node) {
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").start();
    eventually(WAIT_MAX, "the nodes are connected", || {
        first.connected() == 1 && second.connected() == 1
    });
    (first, second)
}

/// Waits with fine steps, for what takes milliseconds. Answers the time since `start`.
#[track_caller]
fn until(start: Instant, what: &str, mut check: impl FnMut() -> bool) -> Duration {
    while !check() {
        assert!(
            start.elapsed() < WAIT_MAX,
            "not within {WAIT_MAX:?}: {what}"
        );
        std::thread::sleep(Duration::from_micros(300));
    }
    start.elapsed()
}
