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
mod large;
mod rqbit;
mod swarm;

use std::path::Path;
use support::{Lab, Node, must};

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
