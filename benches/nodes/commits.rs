//! Many small files through the mount, beside the same in a plain directory: how many a second, and when the last of
//! them is on the other host.

use crate::machine::{seconds, table};
use crate::support::{Lab, Node, noise};
use crate::{pair, until};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const FILES: u64 = 2000;

pub(crate) fn run() {
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    let mut rows = Vec::new();
    for (shown, length) in [
        ("1 KiB (in the descriptor)", 1 << 10),
        ("8 KiB (in the swarm)", 8 << 10),
    ] {
        let plain = create(&lab.folder(&format!("plain{length}")), length);
        let commits_before = commits(&first);
        let folder = format!("many{length}");
        fs::create_dir(first.path(&folder)).unwrap();
        let mounted = create(&first.path(&folder), length);
        let start = Instant::now();
        let there = second.path(&folder);
        let seen = until(start, "all names", || count(&there) == FILES);
        rows.push(vec![
            shown.to_owned(),
            rate(plain),
            rate(mounted),
            format!("{:.1}", mounted.as_secs_f64() / plain.as_secs_f64()),
            seconds(seen),
            (commits(&first) - commits_before).to_string(),
        ]);
    }
    let heads = [
        "2,000 files of",
        "plain directory",
        "mount",
        "ratio of times",
        "then, until all are there",
        "commits",
    ];
    table(&heads, &rows);
}

fn create(folder: &Path, length: usize) -> Duration {
    let bytes = noise(length as u64, length + FILES as usize);
    let start = Instant::now();
    for number in 0..FILES {
        let part = &bytes[number as usize..][..length];
        fs::write(folder.join(format!("file{number}")), part).unwrap();
    }
    start.elapsed()
}

fn count(folder: &Path) -> u64 {
    fs::read_dir(folder).map_or(0, |entries| entries.count() as u64)
}

fn rate(time: Duration) -> String {
    format!("{:.0} files/s", FILES as f64 / time.as_secs_f64())
}

fn commits(node: &Node) -> u64 {
    let output = Command::new("git")
        .arg("--git-dir")
        .arg(node.root.join("metadata.git"))
        .args(["rev-list", "--count", "refs/heads/main"])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap()
}
