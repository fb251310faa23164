//! Nonsense at a live node's port disturbs nobody.

use crate::support::{Lab, Node, can_run, eventually, noise};
use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// What conversations begin with, whole, cut off or too long; what follows each is noise.
const BEGINNINGS: [&[u8]; 9] = [
    b"",
    b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0",
    b"\x13BitTorr",
    b"002agit-upload-pack /lab\0host=x\0\0version=2\0",
    b"fff0git-upload-pack /",
    b"DELUGEFS\x01\x01",
    b"DELUGEFS\xff\xff",
    b"DELUGE-ID\n",
    b"GET / HTTP/1.0\r\n\r\n",
];

/// Lengths of the noise: none, half a frame, a few, more than any frame may have.
const LENGTHS: [usize; 5] = [0, 7, 68, 5000, 3 << 20];

fn port(node: &Node) -> String {
    let listen = node.status()["node"]["listen"].to_string();
    let digits = listen.trim_matches('"').rsplit(':').next();
    digits.unwrap().to_owned()
}

#[test]
fn garbage_half_and_oversized_frames_disturb_nobody() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").start();
    eventually(SOON, "they are connected", || first.connected() == 1);
    let target = format!("/dev/tcp/10.77.0.1/{}", port(&first));
    let script = format!(
        "exec 3<>{target} || exit 1; timeout 2 cat <&3 >/dev/null & cat >&3; exec 3>&-; wait"
    );
    let mut attackers = Vec::new();
    for (number, beginning) in BEGINNINGS.iter().enumerate() {
        for length in LENGTHS {
            let mut command = lab.command(2, "bash");
            command
                .args(["-c", &script])
                .stdin(Stdio::piped())
                .stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            let bytes = [beginning, &noise((number * 10 + length) as u64, length)[..]].concat();
            // refused halfway is what is hoped for
            let sender = std::thread::spawn(move || drop(input.write_all(&bytes)));
            attackers.push((child, sender));
        }
    }
    let bytes = noise(1, 2 << 20);
    fs::write(first.path("file"), &bytes).unwrap();
    eventually(SOON, "others go on", || {
        fs::read(second.path("file")).is_ok_and(|found| found == bytes)
    });
    for (mut child, sender) in attackers {
        child.wait().unwrap();
        sender.join().unwrap();
    }
    assert_eq!((first.connected(), second.connected()), (1, 1));
    let log = first.log();
    assert!(!log.contains("ERROR") && !log.contains("panic"), "{log}");
    assert!(log.lines().count() < 20, "{log}");
    fs::write(first.path("later"), "x").unwrap();
    eventually(SOON, "and on", || second.path("later").exists());
}
