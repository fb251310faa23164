//! Nodes find each other by themselves.

use crate::support::{Lab, can_run, eventually};
use std::time::Duration;

#[test]
fn three_hosts_and_four_disks_know_each_other_within_two_seconds() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(3);
    let nodes = [
        lab.node(1, "a").create().start(),
        lab.node(1, "b").storage().start(),
        lab.node(2, "c").start(),
        lab.node(3, "d").start(),
    ];
    eventually(
        Duration::from_secs(2),
        "everyone is connected to everyone",
        || nodes.iter().all(|node| node.connected() == 3),
    );
}

#[test]
fn disks_of_a_host_without_network_know_each_other() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let nodes = [
        lab.node(1, "a").create().start(),
        lab.node(1, "b").storage().start(),
        lab.node(1, "c").start(),
    ];
    eventually(
        Duration::from_secs(2),
        "everyone is connected to everyone",
        || nodes.iter().all(|node| node.connected() == 2),
    );
}
