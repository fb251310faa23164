//! Chores of the project, one command each: `cargo xtask demo | test | check | bench | sim`.

mod check;
mod demo;
mod run;
mod setup;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of DelugeFS")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Start a volume of three disks on this machine, write and read through its mounts, and leave it running.
    Demo(demo::Options),
    /// Run the whole test suite, installing what it needs.
    Test {
        /// Also what takes longer than the everyday suite: many-gigabyte files, large trees, repetition.
        #[arg(long)]
        long: bool,
    },
    /// What CI checks besides the tests: formatting, clippy, docs, dependencies.
    Check,
    /// Measure, beside something else in the same run. Prints tables for docs/PERFORMANCE.md.
    Bench {
        /// Which benchmark (all when missing).
        name: Option<String>,
        /// Which of its parts, e.g. `nodes latency transfer` (all when missing).
        only: Vec<String>,
    },
    /// Run the simulations; with SEED, replay one run of each step by step.
    Sim {
        /// The seed that a failing run printed.
        seed: Option<u64>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Demo(options) => demo::demo(&options),
        Chore::Test { long } => check::test(long),
        Chore::Check => check::check(),
        Chore::Bench { name, only } => check::bench(name.as_deref(), &only),
        Chore::Sim { seed } => check::simulate(seed),
    }
}
