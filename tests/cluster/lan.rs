//! LAN means LAN.

use crate::support::{Lab, can_run, eventually, noise};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Counts what leaves a host: to itself, to the local network's multicast and to its nodes; and all else.
/// The system's own neighbour and group messages (ICMPv6, IGMP) are no traffic of ours.
const COUNTERS: &str = "
table inet lan {
    counter others { }
    chain out {
        type filter hook output priority 0;
        oif lo accept
        ip daddr 10.77.0.0/24 accept
        ip daddr 224.0.0.251 udp dport 5353 accept
        ip6 daddr ff02::fb udp dport 5353 accept
        ip6 daddr fe80::/10 tcp dport 1024-65535 accept
        ip protocol igmp accept
        meta l4proto ipv6-icmp accept
        counter name others
    }
}
";

fn nft(lab: &Lab, host: u32, words: &[&str], input: &str) -> Option<String> {
    let mut command = lab.command(host, "nft");
    let piped = command
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = piped.spawn().ok()?;
    child.stdin.take()?.write_all(input.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

#[test]
fn nothing_leaves_but_to_multicast_and_nodes() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let route = |host| {
        let mut command = lab.command(host, "ip");
        let words = ["route", "add", "default", "via", "10.77.0.254"];
        assert!(command.args(words).status().unwrap().success());
    };
    (1..=2).for_each(route);
    if (1..=2).any(|host| nft(&lab, host, &["-f", "-"], COUNTERS).is_none()) {
        assert!(std::env::var_os("CI").is_none(), "CI must have nft");
        eprintln!("SKIPPED: this test needs nft");
        return;
    }
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").start();
    let bytes = noise(1, 3 << 20);
    fs::write(first.path("file"), &bytes).unwrap();
    eventually(SOON, "it arrives", || {
        fs::read(second.path("file")).is_ok_and(|found| found == bytes)
    });
    for host in 1..=2 {
        let counted = nft(&lab, host, &["list", "counters"], "").unwrap();
        assert!(counted.contains("packets 0 bytes 0"), "{counted}");
    }
    // the counter counts
    let _ = lab
        .command(1, "ping")
        .args(["-c", "1", "-W", "1", "192.0.2.1"])
        .output();
    let probe = "import socket; socket.socket(2, 2).sendto(b'x', ('192.0.2.1', 9))";
    let _ = lab.command(1, "python3").args(["-c", probe]).output();
    let counted = nft(&lab, 1, &["list", "counters"], "").unwrap();
    assert!(!counted.contains("packets 0 bytes 0"), "{counted}");
}

#[test]
fn a_connection_from_a_public_address_is_refused() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let ip = |host, words: &str| {
        let mut command = lab.command(host, "ip");
        assert!(command.args(words.split(' ')).status().unwrap().success());
    };
    ip(2, "address add 203.0.113.9/32 dev eth0");
    ip(1, "route add 203.0.113.9/32 via 10.77.0.2");
    let node = lab.node(1, "a").create().storage().start();
    let listen = node.status()["node"]["listen"].as_str().unwrap().to_owned();
    let port = listen.parse::<SocketAddr>().unwrap().port();
    let url = format!("git://10.77.0.1:{port}/lab");
    let is_served = |host: u32| {
        let mut command = lab.command(host, "timeout");
        command.args(["5", "git", "ls-remote", &url]);
        command.output().unwrap().status.success()
    };
    assert!(is_served(2), "a private address is served");
    ip(2, "route replace 10.77.0.0/24 dev eth0 src 203.0.113.9");
    assert!(!is_served(2), "a public one is not");
    eventually(SOON, "that is said", || {
        node.log().contains("not from the local network")
    });
}
