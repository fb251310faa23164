//! However a node is told to end, it ends whole: what was closed is there at the next start.

use crate::support::{Lab, Node, PROGRAM, can_run, eventually, noise};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn is_mounted(point: &Path) -> bool {
    let point = format!(" {} ", point.display());
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .contains(&point)
}

#[track_caller]
fn ends_well(mut node: Node, how: &str) {
    let mount = node.mount.clone().unwrap();
    let status = node.wait();
    assert!(status.success(), "{how}: {status:?}");
    assert!(!is_mounted(&mount), "{how}");
    assert!(node.log().contains("stopped"), "{how}: {}", node.log());
}

#[test]
fn signals_and_umount_end_a_node_cleanly() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    drop(lab.node(1, "a").create().start());
    let bytes = noise(3, 3 << 20);
    for how in ["-TERM", "-INT", "-HUP", "umount"] {
        let node = lab.node(1, "a").start();
        fs::write(node.path(how), &bytes).unwrap();
        let mut command = match how {
            "umount" => Command::new("umount"),
            _ => Command::new("kill"),
        };
        match how {
            "umount" => command.arg(node.mount.as_ref().unwrap()),
            signal => command.args([signal, &node.pid().to_string()]),
        };
        assert!(command.status().unwrap().success());
        ends_well(node, how);
    }
    let node = lab.node(1, "a").start();
    for how in ["-TERM", "-INT", "-HUP", "umount"] {
        assert_eq!(fs::read(node.path(how)).unwrap(), bytes, "{how}");
    }
}

#[test]
fn a_stopped_root_can_be_started_at_once_and_background_tells_how_it_went() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let (root, mount) = (lab.folder("a"), lab.folder("a-mount"));
    let background = |create: &[&str]| {
        let mut command = lab.command(1, PROGRAM);
        command.args(["--id", "lab", "--background"]).args(create);
        command.arg("--root").arg(&root).arg("--mount").arg(&mount);
        command.output().unwrap()
    };
    let first = background(&["--create"]);
    assert!(first.status.success(), "{first:?}");
    let said = String::from_utf8_lossy(&first.stderr);
    assert!(
        said.contains("whoever is on this network can join it"),
        "{said}"
    );
    for round in 0..3 {
        assert!(is_mounted(&mount), "it is up when the command returns");
        let busy = background(&[]);
        assert_eq!(busy.status.code(), Some(1));
        let said = String::from_utf8_lossy(&busy.stderr);
        assert!(said.contains("is in use"), "{said}");
        fs::write(mount.join("file"), round.to_string()).unwrap();
        let mut stop = Command::new(PROGRAM);
        assert!(
            stop.arg("stop")
                .arg("--root")
                .arg(&root)
                .status()
                .unwrap()
                .success()
        );
        assert!(!is_mounted(&mount));
        if round < 2 {
            let again = background(&[]);
            assert!(again.status.success(), "{again:?}");
            assert_eq!(
                fs::read(mount.join("file")).unwrap(),
                round.to_string().as_bytes()
            );
        }
    }
}

#[test]
fn the_log_tells_what_happened_and_not_each_operation() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let first = lab.node(1, "a").create().start();
    let mut second = lab.node(2, "b").start();
    eventually(SOON, "they are connected", || {
        first.connected() == 1 && second.connected() == 1
    });
    let lines = || first.log().lines().count();
    let before = lines();
    for number in 0..50 {
        fs::write(first.path(&format!("file{number}")), noise(number, 10_000)).unwrap();
    }
    eventually(SOON, "copies are told in sums", || {
        second.log().contains("copied")
    });
    eventually(SOON, "all are copied", || {
        second.status()["contents"]["held"] == 50
    });
    assert_eq!(lines(), before, "{}", first.log());
    assert!(
        second.log().matches("copied").count() < 5,
        "{}",
        second.log()
    );

    lab.cut(2);
    eventually(2 * SOON, "the loss is seen", || {
        first.connected() == 0 && second.connected() == 0
    });
    fs::create_dir(first.path("folder")).unwrap();
    fs::create_dir(second.path("folder")).unwrap();
    fs::write(first.path("folder/same"), "one").unwrap();
    fs::write(second.path("folder/same"), "two").unwrap();
    lab.heal(2);
    for node in [&first, &second] {
        eventually(2 * SOON, "the conflict is told", || {
            node.log().contains("conflict: ")
        });
        let log = node.log();
        assert!(log.contains("found ") && log.contains("lost "), "{log}");
        assert!(log.contains("/folder/same (conflict "), "{log}");
        assert_eq!(log.matches("conflict: ").count(), 1, "{log}");
    }
    second.stop();
}
