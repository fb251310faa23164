//! History is cut on every node and stays cut, newcomers begin there, and who was away beyond it loses nothing.

use crate::support::{Lab, Node, can_run, eventually};
use std::fs;
use std::process::Command;
use std::time::Duration;

pub const SOON: Duration = Duration::from_secs(60);

/// Nodes retire within half a minute, and what they have left is found a while later.
pub const LATER: Duration = Duration::from_secs(180);

/// More commits than a cut has to free.
pub const COMMITS: usize = 90;

fn repository(lab: &Lab, disk: &str) -> std::path::PathBuf {
    lab.folder(disk).join("metadata.git")
}

pub fn has_cut(lab: &Lab, disk: &str) -> bool {
    repository(lab, disk).join("shallow").exists()
}

fn has_commit(lab: &Lab, disk: &str, commit: &str) -> bool {
    let git = Command::new("git")
        .arg("-C")
        .arg(repository(lab, disk))
        .args(["cat-file", "-e", commit])
        .output();
    git.unwrap().status.success()
}

pub fn write(node: &Node, name: &str, text: &str) {
    let before = node.head();
    fs::write(node.path(name), text).unwrap();
    eventually(SOON, "it is committed", || node.head() != before);
}

fn shows(node: &Node, name: &str, text: &str) -> bool {
    fs::read_to_string(node.path(name)).is_ok_and(|found| found == text)
}

/// What a node did while nobody could hear it.
fn work_alone(lab: &Lab) {
    lab.cut(3);
    let mut late = lab.node(3, "late").start();
    write(&late, "made", "by late");
    write(&late, "edited", "by late");
    let before = late.head();
    fs::remove_file(late.path("removed")).unwrap();
    eventually(SOON, "it is committed", || late.head() != before);
    late.stop();
    lab.heal(3);
}

#[test]
fn history_is_cut_and_whoever_was_away_loses_nothing() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(4);
    let a = lab.node(1, "a").create().start();
    let b = lab.node(2, "b").start();
    let mut late = lab.node(3, "late").start();
    a.set("history", "1s");
    a.set("retire", "30s");
    for name in ["edited", "removed", "gone"] {
        write(&a, name, "by a");
    }
    let first = a.head().trim_matches('"').to_owned();
    eventually(SOON, "all have the same", || {
        b.head() == a.head() && late.head() == a.head()
    });
    late.stop();
    work_alone(&lab);

    fs::remove_file(b.path("gone")).unwrap();
    for number in 0..COMMITS {
        write(&a, "again", &number.to_string());
    }
    eventually(LATER, "history is cut once one is retired", || {
        has_cut(&lab, "a") && has_cut(&lab, "b")
    });
    eventually(LATER, "what lies below goes", || {
        !has_commit(&lab, "a", &first) && !has_commit(&lab, "b", &first)
    });
    write(&b, "later", "by b");
    eventually(SOON, "names go on", || shows(&a, "later", "by b"));

    let d = lab.node(4, "d").start();
    eventually(SOON, "a newcomer has all", || d.head() == a.head());
    assert!(has_cut(&lab, "d") && shows(&d, "edited", "by a"));
    assert!(!has_commit(&lab, "d", &first));

    let late = lab.node(3, "late").start();
    for node in [&a, &b, &d, &late] {
        eventually(SOON, "what was made and edited away", || {
            shows(node, "made", "by late") && shows(node, "edited", "by late")
        });
        eventually(SOON, "one head", || node.head() == a.head());
        assert!(shows(node, "removed", "by a"), "nothing is removed by it");
        assert!(shows(node, "later", "by b") && !node.path("gone").exists());
    }
    assert!(has_cut(&lab, "late"));
    assert!(
        late.log().contains("away for longer than history is kept"),
        "{}",
        late.log()
    );
    for node in [&a, &b, &d, &late] {
        assert!(!node.log().contains("panic"), "{}", node.log());
        assert_eq!(fs::read_dir(node.path(".")).unwrap().count(), 5);
    }
}
