//! `cp -a` of a tree of some thousand files into the mount, beside the same into a plain directory.

use crate::machine::{processor_seconds, seconds, table};
use crate::support::{Lab, eventually, noise};
use crate::{WAIT_MAX, pair};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const FOLDERS: u64 = 60;
const FILES_IN_EACH: u64 = 50;

pub(crate) fn run() {
    let lab = Lab::new(2);
    let source = lab.folder("source");
    let bytes = make(&source);
    let (first, second) = pair(&lab);
    let plain = timed("cp", &["-a"], &source, &lab.folder("plain").join("tree"));
    let before = processor_seconds(&first);
    let mounted = timed("cp", &["-a"], &source, &first.path("tree"));
    let start = Instant::now();
    let listed = || {
        first.status()["contents"]["unsealed"] == 0
            && first.status()["contents"]["uncommitted"] == 0
    };
    eventually(WAIT_MAX, "all is hashed and committed", listed);
    let sealed = start.elapsed();
    eventually(WAIT_MAX, "the nodes agree", || {
        first.head() == second.head()
    });
    let agreed = start.elapsed();
    let used = processor_seconds(&first) - before;
    let compared = timed("diff", &["-r"], &source, &second.path("tree"));
    let again = timed("diff", &["-r"], &source, &first.path("tree"));
    let plain_diff = timed("diff", &["-r"], &source, &lab.folder("plain").join("tree"));
    let rows = [
        ("cp -a into it", plain, Some(mounted)),
        (
            "diff -r with the source, where it was written",
            plain_diff,
            Some(again),
        ),
        (
            "diff -r with the source, on the other host, at once",
            plain_diff,
            Some(compared),
        ),
    ]
    .map(|(what, plain, ours)| {
        let ours = ours.unwrap_or_default();
        let ratio = ours.as_secs_f64() / plain.as_secs_f64();
        vec![
            what.to_owned(),
            seconds(plain),
            seconds(ours),
            format!("{ratio:.1}"),
        ]
    });
    println!(
        "{} files, {} MB\n",
        FOLDERS * FILES_IN_EACH,
        bytes / 1_000_000
    );
    table(&["", "plain directory", "mount", "ratio of times"], &rows);
    println!(
        "\nafter cp: hashed and committed after {}, the other host has all names after {}; processor time of the writing node {used:.1} s",
        seconds(sealed),
        seconds(agreed)
    );
}

/// Sizes as in a source tree: mostly small, some large. Answers the bytes.
fn make(folder: &Path) -> u64 {
    let mut total = 0;
    for number in 0..FOLDERS {
        let folder = folder.join(format!("d{}/e{number}", number % 6));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..FILES_IN_EACH {
            let seed = number * FILES_IN_EACH + file;
            let length = 200 << (seed % 10);
            fs::write(folder.join(format!("f{file}")), noise(seed, length)).unwrap();
            total += length as u64;
        }
    }
    total
}

fn timed(program: &str, options: &[&str], one: &Path, other: &Path) -> Duration {
    let start = Instant::now();
    let status = Command::new(program)
        .args(options)
        .arg(one)
        .arg(other)
        .status();
    assert!(
        status.unwrap().success(),
        "{program} of {}",
        other.display()
    );
    start.elapsed()
}
