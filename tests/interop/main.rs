//! Stock programs on our ports: git, and BitTorrent clients in both directions, against real nodes.
//!
//! Without a tool a test says so and counts as skipped; in CI (`CI` is set) that is a failure.
//! `DELUGEFS_MEGABYTES` (default 32) sets the size of what is transferred.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod collision;
mod git;
mod rqbit;
mod swarm;

use std::path::Path;
use std::process::{Command, Stdio};
use support::{Lab, Node, can_run};

/// Whether a test can run here, which needs these programs beside what every lab needs.
fn has(programs: &[&str]) -> bool {
    let found = |program: &&&str| {
        let mut command = Command::new("sh");
        let quiet = command
            .args(["-c", &format!("command -v {program}")])
            .stdout(Stdio::null());
        !quiet.status().unwrap().success()
    };
    let Some(missing) = programs.iter().find(found) else {
        return can_run();
    };
    assert!(std::env::var_os("CI").is_none(), "CI must have {missing}");
    eprintln!("SKIPPED: this test needs {missing}");
    false
}

fn must(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}

/// Where a node on a lab's host takes connections.
fn address(node: &Node) -> String {
    let status = node.status();
    let listen = status["node"]["listen"].as_str().unwrap();
    let port = listen.rsplit(':').next().unwrap();
    format!("10.77.0.{}:{port}", node.host)
}

/// Clones a node's volume with stock git, on another host.
fn clone(lab: &Lab, host: u32, node: &Node, into: &Path) {
    let url = format!("git://{}/lab", address(node));
    must(
        lab.command(host, "git")
            .args(["clone", "-q", &url])
            .arg(into),
    );
}
