//! The test suite and the checks around it.

use crate::run::{cargo, find_program, run};
use crate::setup;
use anyhow::Result;

/// Cases of each property of the merge in the long part: half a million in all, half a minute.
const LONG_CASES: &str = "50000";

/// The whole test suite. The long part is the tests of `tests/` folders that are marked `ignored`, one at a time
/// (they tell figures, and would disturb each other's), and the merge's properties at length.
pub(crate) fn test(long: bool) -> Result<()> {
    setup::ensure(setup::TESTS)?;
    setup::ensure_suites()?;
    run(cargo().args(["test", "--workspace", "--locked"]))?;
    test_avahi()?;
    if long {
        let mut command = cargo();
        command.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
        // its tests are quick, and one of them can't be built without a feature
        command.args(["--exclude", "delugefs-discovery"]);
        command.args(["--test", "*", "--", "--ignored"]);
        run(command.args(["--test-threads=1", "--nocapture"]))?;
        let properties = [
            "test",
            "--locked",
            "--package",
            "delugefs-core",
            "--lib",
            "merge",
        ];
        run(cargo().args(properties).env("CASES", LONG_CASES))?;
    }
    Ok(())
}

/// The feature is chosen beside the whole workspace, so that all that does not depend on it is built once.
fn test_avahi() -> Result<()> {
    setup::ensure(setup::AVAHI_BUILD)?;
    setup::ensure(setup::AVAHI_TESTS)?;
    let feature = ["--workspace", "--features", "delugefs-discovery/avahi"];
    run(cargo()
        .args(["test", "--locked", "--test", "avahi"])
        .args(feature))
}

fn check_avahi() -> Result<()> {
    setup::ensure(setup::AVAHI_BUILD)?;
    let lints = ["clippy", "--workspace", "--all-targets", "--locked"];
    let feature = ["--features", "delugefs/avahi"];
    run(cargo()
        .args(lints)
        .args(feature)
        .args(["--", "-D", "warnings"]))
}

/// Formatting, lints, docs and dependencies; warnings are errors.
pub(crate) fn check() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    let lints = ["clippy", "--workspace", "--all-targets", "--locked"];
    run(cargo().args(lints).args(["--", "-D", "warnings"]))?;
    check_avahi()?;
    run(cargo()
        .args(["doc", "--workspace", "--no-deps", "--locked"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    if find_program("cargo-deny").is_none() {
        run(cargo().args(["install", "cargo-deny", "--locked", "--debug"]))?;
    }
    // The advisory database is on the internet; CI may have none.
    run(cargo().args(["deny", "check", "bans", "licenses", "sources"]))
}

/// Benchmarks measure the build that demo and tests use: nothing is built twice.
pub(crate) fn bench(name: Option<&str>, only: &[String]) -> Result<()> {
    setup::ensure(setup::TESTS)?;
    let mut command = cargo();
    let build = ["--locked", "--package", "delugefs", "--profile", "dev"];
    command.arg("bench").args(build);
    command.args(["--bench", name.unwrap_or("*")]);
    run(command.arg("--").args(only))
}

/// The simulations alone: of the core's machine, then of whole nodes. A seed is replayed in both.
pub(crate) fn simulate(seed: Option<u64>) -> Result<()> {
    for package in ["delugefs-core", "delugefs"] {
        let mut command = cargo();
        command.args(["test", "--locked", "--package", package]);
        command.args(["--test", "simulation", "--", "--nocapture"]);
        if let Some(seed) = seed {
            command.arg("replay").env("SEED", seed.to_string());
        }
        run(&mut command)?;
    }
    Ok(())
}
