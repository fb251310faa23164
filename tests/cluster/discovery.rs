//! Nodes find each other by themselves.

use crate::support::{Lab, Node, can_run, eventually};
use std::time::{Duration, Instant};

/// From the start of the last process; a busy machine has as much again.
const LIMIT: Duration = Duration::from_secs(if cfg!(debug_assertions) { 4 } else { 2 });

#[track_caller]
fn everyone_knows_everyone(nodes: &[Node], start: Instant) {
    let left = LIMIT.saturating_sub(start.elapsed());
    eventually(left, "everyone is connected to everyone", || {
        nodes.iter().all(|node| node.connected() == nodes.len() - 1)
    });
    eprintln!("everyone knew everyone after {:?}", start.elapsed());
}

#[test]
fn three_hosts_and_four_disks_know_each_other_within_two_seconds() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(3);
    let mut nodes = vec![
        lab.node(1, "a").create().start(),
        lab.node(1, "b").storage().start(),
        lab.node(2, "c").start(),
    ];
    let start = Instant::now();
    nodes.push(lab.node(3, "d").start());
    everyone_knows_everyone(&nodes, start);
}

#[test]
fn disks_of_a_host_without_network_know_each_other() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let mut nodes = vec![
        lab.node(1, "a").create().start(),
        lab.node(1, "b").storage().start(),
    ];
    let start = Instant::now();
    nodes.push(lab.node(1, "c").start());
    everyone_knows_everyone(&nodes, start);
}
