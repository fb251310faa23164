//! The process beside a mount.

use crate::support::{
    Lab, can_run, eventually, holds_the_switch_alone, is_over, signal, watcher, watcher_of,
};
use rustix::process::Signal;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn it_ends_with_a_killed_node_and_the_mount_answers_enotconn() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let mut node = lab.node(1, "a").create().start();
    let watcher = watcher(node.pid());
    node.kill();
    eventually(SOON, "the watcher is gone", || is_over(watcher));
    let dead = fs::read_dir(node.path("")).unwrap_err();
    assert_eq!(dead.kind(), ErrorKind::NotConnected);
    node.abandon();
    let node = lab.node(1, "a").start();
    fs::write(node.path("file"), "x").unwrap();
}

#[test]
fn it_ends_with_a_stopped_or_unmounted_node() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let mut node = lab.node(1, "a").create().start();
    let first = watcher(node.pid());
    node.stop();
    assert!(is_over(first));
    let mut node = lab.node(1, "a").start();
    let second = watcher(node.pid());
    rustix::mount::unmount(node.path(""), rustix::mount::UnmountFlags::empty()).unwrap();
    assert!(node.wait().success());
    assert!(is_over(second));
}

#[test]
fn its_own_death_harms_nothing() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let mut node = lab.node(1, "a").create().start();
    signal(watcher(node.pid()), Signal::KILL);
    eventually(SOON, "nothing is left of it", || {
        watcher_of(node.pid()).is_none()
    });
    eventually(SOON, "the log says so", || {
        node.log().contains("nobody watches over the mount")
    });
    fs::write(node.path("file"), "x").unwrap();
    assert_eq!(fs::read(node.path("file")).unwrap(), b"x");
    node.stop();
}

#[test]
fn it_holds_nothing_of_the_node() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let node = lab.node(1, "a").create().start();
    let watcher = watcher(node.pid());
    let folder = fs::read_link(format!("/proc/{watcher}/cwd"));
    assert_eq!(folder.unwrap(), Path::new("/"));
    assert!(holds_the_switch_alone(watcher));
    let group = rustix::process::Pid::from_raw(i32::try_from(watcher).unwrap());
    let of_its_own = rustix::process::getpgid(group).unwrap();
    assert_eq!(Some(of_its_own), group);
}

#[test]
fn the_manual_does_not_name_it() {
    let mut help = std::process::Command::new(crate::support::PROGRAM);
    let help = help.arg("--help").output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("scrub") && !text.contains("watch"), "{text}");
}
