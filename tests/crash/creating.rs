//! `delugefs --create …`, killed at any moment: the same command again goes on with it.

use crate::support::{Lab, NodeSpec, can_run, eventually};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// What appears in a root while a volume is made in it, about in this order.
const STEPS: [&str; 13] = [
    "lock",
    "data",
    "holdings",
    "node.toml.new",
    "node.toml",
    "metadata.git.new",
    "metadata.git.new/HEAD",
    "metadata.git",
    "expiring",
    "staging",
    "journal",
    "holdings/pins",
    "control",
];

fn creation<'a>(lab: &'a Lab, disk: &str) -> NodeSpec<'a> {
    // a name for each: another one's volume is still in the ears of some
    lab.node(1, disk).volume(disk).create()
}

/// The same command again; once the node has said that it is up, the one without `--create`.
fn again<'a>(lab: &'a Lab, disk: &str) -> NodeSpec<'a> {
    let root = lab.folder(disk);
    let identity = fs::read_to_string(root.join("node.toml")).unwrap_or_default();
    let was_mounted = root.join("control").exists();
    match was_mounted && identity.contains("in-use") {
        true => lab.node(1, disk).volume(disk),
        false => creation(lab, disk),
    }
}

/// Starts it, and kills it as soon as `reached` and a little later.
fn kill_when(spec: &NodeSpec<'_>, later: Duration, mut reached: impl FnMut() -> bool) {
    let mut command = spec.command();
    let log = tempfile::NamedTempFile::new().unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(log.reopen().unwrap()).spawn().unwrap();
    let began = Instant::now();
    while !reached() {
        let ended = child.try_wait().unwrap();
        let said = || fs::read_to_string(log.path()).unwrap();
        assert!(ended.is_none(), "it ended by itself: {ended:?}\n{}", said());
        assert!(began.elapsed() < SOON, "the moment to kill it did not come");
        std::hint::spin_loop();
    }
    std::thread::sleep(later);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The same command works, and what it makes is a volume as any other.
fn goes_on(lab: &Lab, disk: &str, when: &str) {
    eprintln!("killed {when}");
    let mut node = again(lab, disk).start();
    let mount = node.path("");
    let owner = fs::metadata(&mount).unwrap();
    assert_eq!((owner.mode() & 0o7777, owner.uid()), (0o755, 0), "{when}");
    fs::write(node.path("file"), disk).unwrap();
    eventually(SOON, "the first commit is made", || {
        node.status()["contents"]["uncommitted"] == 0 && node.head() != "null"
    });
    let identity = node.root.join("node.toml");
    // it answers a moment before whoever started it is told that it is up
    eventually(SOON, "the creation is over", || {
        fs::read_to_string(&identity).unwrap().contains("in-use")
    });
    node.stop();
    let output = creation(lab, disk).command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{when}: {said}");
    assert!(said.contains("start it without --create"), "{when}: {said}");
    drop(node);
    let mut node = lab.node(1, disk).volume(disk).start();
    assert_eq!(fs::read_to_string(node.path("file")).unwrap(), disk);
    node.stop();
}

#[test]
fn a_creation_that_was_killed_goes_on_with_the_same_command() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    for (number, step) in STEPS.into_iter().enumerate() {
        let disk = format!("disk{number}");
        let root = lab.folder(&disk);
        let there = root.join(step);
        let control = root.join("control");
        // what is there for a moment only may be missed
        kill_when(&creation(&lab, &disk), Duration::ZERO, || {
            there.exists() || control.exists()
        });
        goes_on(&lab, &disk, &format!("when there was {step}"));
    }
    let disk = "mounted";
    let mount = lab.folder(&format!("{disk}-mount"));
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let before = device(&mount);
    kill_when(&creation(&lab, disk), Duration::ZERO, || {
        device(&mount) != before
    });
    goes_on(&lab, disk, "when it was mounted");
}

#[test]
fn a_creation_that_is_killed_again_and_again_comes_to_its_end() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let [control, identity] = ["control", "node.toml"].map(|name| lab.folder("disk").join(name));
    for round in 0..6 {
        // from the first instruction to beyond the first commit
        let later = Duration::from_millis(round * 250);
        let spec = again(&lab, "disk");
        let _ = fs::remove_file(&control);
        match round % 2 {
            0 => kill_when(&spec, later, || identity.exists()),
            _ => kill_when(&spec, Duration::ZERO, || control.exists()),
        }
    }
    goes_on(&lab, "disk", "six times");
}
