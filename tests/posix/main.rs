//! Published suites on real mounts: `pjdfstest` for what POSIX says of names and attributes, `fsx` for bytes.
//!
//! `cargo xtask test` installs both. Without one a test says so and counts as skipped; in CI (`CI` is set) that is a
//! failure.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod fsx;
mod pjdfstest;

use std::path::{Path, PathBuf};

/// A suite's program, if it and a mount can be had here.
fn suite(name: &str) -> Option<PathBuf> {
    let target = Path::new(support::PROGRAM).ancestors().nth(2).unwrap();
    let program = target.join("tools/bin").join(name);
    if program.is_file() {
        return support::can_run().then_some(program);
    }
    assert!(std::env::var_os("CI").is_none(), "CI must have {name}");
    eprintln!("SKIPPED: this test needs {name}, which `cargo xtask test` installs");
    None
}
