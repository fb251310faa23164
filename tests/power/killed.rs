//! The test itself is killed: nothing may wait for a drive that nobody serves.

use crate::cuts::can_cut;
use crate::support::{eventually, run_quietly};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Processes that were told of a folder, and loop devices with a file there.
fn users_of(folder: &Path) -> usize {
    let of = |list: &str, file: &str| {
        let entries = fs::read_dir(list).unwrap().flatten();
        let read = |entry: fs::DirEntry| fs::read(entry.path().join(file)).ok();
        let text = entries.filter_map(read);
        let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        text.filter(|text| text.contains(folder.to_str().unwrap()))
            .count()
    };
    of("/proc", "environ") + of("/sys/block", "loop/backing_file")
}

#[test]
fn a_test_that_is_killed_leaves_nobody_waiting() {
    if !can_cut() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "cuts::what_was_synced_outlives_power_cuts",
        "--nocapture",
    ]);
    command.env("TMPDIR", folder.path());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut killed = command.spawn().unwrap();
    let said = BufReader::new(killed.stderr.take().unwrap()).lines();
    let works = said
        .map_while(Result::ok)
        .any(|line| line.contains("round 0"));
    assert!(works && users_of(folder.path()) > 2, "it is at work");
    killed.kill().unwrap();
    killed.wait().unwrap();
    eventually(SOON, "all have ended", || users_of(folder.path()) == 0);
    for namespace in ["s", "h1"] {
        let name = format!("dt{}x0{namespace}", killed.id());
        run_quietly(Command::new("ip").args(["netns", "delete", &name]));
    }
}
