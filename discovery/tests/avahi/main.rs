//! The host's Avahi: a private D-Bus and avahi-daemon in a network namespace, beside a host that speaks
//! multicast DNS by itself.
#![allow(clippy::unwrap_used)]

mod lab;

use lab::{Lab, can_run, node_id};
use mdns_sd::{ServiceDaemon, ServiceInfo, TxtProperty};

/// Not a test by itself: what [`Lab::node`] starts in a namespace.
#[test]
fn child_that_looks_and_announces() {
    lab::node_process();
}

/// Not a test by itself: announces names that only an enemy would, until its input ends.
#[test]
fn child_that_lies() {
    if std::env::var_os(lab::LIAR).is_none() {
        return;
    }
    let daemon = ServiceDaemon::new().unwrap();
    let volume = "01".repeat(16);
    for (instance, version, name) in [
        ("not utf-8", &b"1"[..], &b"\xff\xfe\x80"[..]),
        ("newer", b"2", b"store"),
        ("empty", b"1", b""),
    ] {
        let properties = vec![
            TxtProperty::from(("v", version)),
            TxtProperty::from(("volume", volume.as_bytes())),
            TxtProperty::from(("name", name)),
            TxtProperty::from(("node", node_id(9).as_bytes())),
        ];
        let (kind, host) = ("_delugefs._tcp.local.", "liar.local.");
        let info = ServiceInfo::new(kind, instance, host, lab::B_ADDRESS, 7009, properties);
        daemon.register(info.unwrap()).unwrap();
    }
    lab::until_input_ends();
    daemon.shutdown().unwrap().recv().unwrap();
}

#[test]
fn a_node_by_avahi_and_one_that_speaks_itself_find_and_lose_each_other() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::new();
    lab.start_bus();
    lab.start_avahi();
    let a = lab.node(Lab::A, "avahi", 1);
    let b = lab.node(Lab::B, "embedded", 2);
    a.wait_for("the other's address", "Found 2", "10.78.0.2:7002");
    b.wait_for("the other's address", "Found 1", "10.78.0.1:7001");
    b.stop();
    a.wait_for("that the other has said goodbye", "Lost 2", "");
    let b = lab.node(Lab::B, "embedded", 2);
    a.wait_for_again("the other to be back", "Found 2", "10.78.0.2:7002");
    b.wait_for(
        "the first, which was there before",
        "Found 1",
        "10.78.0.1:7001",
    );
    a.stop();
    b.wait_for("that Avahi has said goodbye", "Lost 1", "");
}

#[test]
fn avahi_says_goodbye_for_a_node_that_was_killed() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::new();
    lab.start_bus();
    lab.start_avahi();
    let a = lab.node(Lab::A, "avahi", 1);
    let other = lab.node(Lab::A, "avahi", 3);
    let b = lab.node(Lab::B, "embedded", 2);
    b.wait_for("the first", "Found 1", "10.78.0.1:7001");
    other.wait_for("the other of its host", "Found 1", "10.78.0.1:7001");
    a.kill();
    b.wait_for("that the first is gone", "Lost 1", "");
    other.wait_for("that the other of its host is gone", "Lost 1", "");
}

#[test]
fn what_is_missing_is_named_and_is_used_once_it_is_there() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::new();
    let a = lab.node(Lab::A, "avahi", 1);
    a.wait_for("a word about D-Bus", "Warning", "no D-Bus answers at");
    lab.start_bus();
    let late = lab.node(Lab::A, "avahi", 3);
    late.wait_for(
        "a word about Avahi",
        "Warning",
        "avahi-daemon does not answer",
    );
    lab.start_avahi();
    let b = lab.node(Lab::B, "embedded", 2);
    for node in [&a, &late] {
        node.wait_for("the other host", "Found 2", "10.78.0.2:7002");
    }
    b.wait_for("the first", "Found 1", "10.78.0.1:7001");
    b.wait_for("the late one", "Found 3", "10.78.0.1:7003");
}

#[test]
fn a_restarted_avahi_daemon_is_told_everything_again() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::new();
    lab.start_bus();
    lab.start_avahi();
    let a = lab.node(Lab::A, "avahi", 1);
    let b = lab.node(Lab::B, "embedded", 2);
    b.wait_for("the first", "Found 1", "10.78.0.1:7001");
    a.wait_for("the other", "Found 2", "10.78.0.2:7002");
    lab.stop_avahi();
    b.wait_for("that the first has gone with Avahi", "Lost 1", "");
    a.wait_for(
        "a word about Avahi",
        "Warning",
        "avahi-daemon does not answer",
    );
    a.wait_for("that nobody speaks for the other", "Lost 2", "");
    lab.start_avahi();
    b.wait_for_again("the first to be back", "Found 1", "10.78.0.1:7001");
    a.wait_for_again("the other to be back", "Found 2", "10.78.0.2:7002");
}

#[test]
fn a_host_without_network_is_told_that_nobody_hears_it() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::new();
    lab.cut(Lab::A);
    lab.start_bus();
    lab.start_avahi();
    let a = lab.node(Lab::A, "avahi", 1);
    a.wait_for(
        "a word about its name",
        "Warning",
        "does not hear this node's own name",
    );
}

#[test]
fn lies_on_the_network_disturb_nobody() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::new();
    lab.start_bus();
    lab.start_avahi();
    let _liar = lab.liar(Lab::B);
    lab.wait_until_avahi_knows(3);
    let a = lab.node(Lab::A, "avahi", 1);
    let b = lab.node(Lab::B, "embedded", 2);
    a.wait_for("the honest one", "Found 2", "10.78.0.2:7002");
    b.wait_for("the one by Avahi", "Found 1", "10.78.0.1:7001");
    assert!(!a.heard("Found 9"), "a lie was believed");
    a.stop();
}
