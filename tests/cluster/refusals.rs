//! What is refused: with a sentence that says what to do, an exit status, and nothing harmed.

use crate::support::{Lab, PROGRAM, can_run, eventually, must, noise};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Exit status for a command line that cannot be understood.
const USAGE: i32 = 2;

/// Runs the program on the lab's only host; it must end by itself.
fn run(lab: &Lab, words: &[&str]) -> Output {
    let mut command = lab.command(1, "timeout");
    command.args(["20", PROGRAM]).args(words);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn refused(output: &Output, status: i32, sentence: &str) {
    let said = said(output);
    assert!(said.contains(sentence), "{sentence:?} is not in {said:?}");
    assert_eq!(output.status.code(), Some(status), "{said}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_root_that_cannot_be_used_is_left_alone() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let mut node = lab.node(1, "used").create().storage().start();
    let (used, new) = (lab.folder("used"), lab.folder("new"));
    let (used, new) = (text(&used), text(&new));

    let in_use = run(&lab, &["--id", "lab", "--root", used]);
    refused(&in_use, 1, "is in use by another delugefs process");
    let there = run(&lab, &["--create", "--id", "lab", "--root", new]);
    refused(&there, 1, "there is a volume lab on this network already");
    node.stop();
    let again = run(&lab, &["--create", "--id", "lab", "--root", used]);
    refused(&again, 1, "already holds a disk of volume lab");
    let other = run(&lab, &["--id", "other", "--root", used]);
    refused(&other, 1, "is a disk of volume lab");

    let identity = lab.folder("used").join("node.toml");
    let toml = fs::read_to_string(&identity).unwrap();
    fs::write(&identity, toml.replace("draft-4", "draft-9")).unwrap();
    let newer = run(&lab, &["--id", "lab", "--root", used, "--background"]);
    refused(&newer, 1, "has format draft-9, this program knows draft-4");
    fs::write(&identity, toml).unwrap();
    drop(node);
    lab.node(1, "used").storage().start().stop();
}

#[test]
fn a_folder_with_other_things_in_it_is_left_as_it_is() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let home = lab.folder("home");
    fs::write(home.join("letter"), "dear").unwrap();
    for more in ["--create", "--background"] {
        let output = run(&lab, &["--id", "lab", "--root", text(&home), more]);
        refused(&output, 1, "has files in it that are not a DelugeFS root");
    }
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    let file = home.join("letter");
    let output = run(&lab, &["--id", "lab", "--root", text(&file)]);
    refused(&output, 1, "Not a directory");
}

#[test]
fn an_unreadable_root_is_refused_to_who_may_not() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let root = lab.folder("private");
    let opened = fs::Permissions::from_mode(0o755);
    fs::set_permissions(root.parent().unwrap(), opened).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", PROGRAM];
    let mut command = lab.command(1, "setpriv");
    command.args(nobody).args(["--id", "lab", "--root"]);
    let output = command.arg(&root).output().unwrap();
    if said(&output).contains("cannot execute") || said(&output).contains("failed to execute") {
        eprintln!("SKIPPED: the program is where other users cannot reach it");
        return;
    }
    refused(&output, 1, "Permission denied");
    assert_eq!(said(&output).matches("Permission denied").count(), 1);
}

#[test]
fn a_mount_point_that_cannot_be_used_is_refused_before_anything_is_made() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let (root, full) = (lab.folder("root"), lab.folder("full"));
    fs::write(full.join("file"), "").unwrap();
    let file = full.join("file");
    for (point, sentence) in [
        ("/no/such/folder", "there is no such folder; make it first"),
        (text(&full), "the folder is not empty"),
        (text(&file), "not a folder"),
        ("/proc", "proc (proc) is mounted there already"),
        (text(&root), "one must not be inside the other"),
    ] {
        let words = [
            "--create",
            "--id",
            "lab",
            "--root",
            text(&root),
            "--mount",
            point,
        ];
        refused(&run(&lab, &words), 1, sentence);
        assert!(!root.join("node.toml").exists());
    }
}

#[test]
fn without_fuse_the_owner_is_told_what_is_missing() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let (root, mount) = (lab.folder("root"), lab.folder("mount"));
    let script = format!(
        "mount --bind /dev/null /dev/fuse && exec {PROGRAM} --create --id lab --root {} --mount {}",
        root.display(),
        mount.display()
    );
    let mut command = lab.command(1, "unshare");
    let output = command.args(["-m", "sh", "-c", &script]).output().unwrap();
    refused(
        &output,
        1,
        "/dev/fuse is missing: load the kernel's fuse module",
    );
    assert!(!root.join("node.toml").exists());
}

#[test]
fn a_command_line_that_makes_no_sense_has_a_status_of_its_own() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let root = lab.folder("root");
    let root = text(&root);
    for (words, sentence) in [
        (
            &["--id", "a b", "--root", root][..],
            "a volume's name has 1 to 64",
        ),
        (&["--id", "lab"], "--root <DIR>"),
        (
            &["--id", "lab", "--root", root, "--capacity", "5X"],
            "is not a size",
        ),
        (
            &["--id", "lab", "--root", root, "--log", "loud"],
            "possible values: error",
        ),
        (
            &["--id", "lab", "--root", root, "--listen", "here"],
            "--listen",
        ),
        (&["status"], "--root <DIR>"),
    ] {
        refused(&run(&lab, words), USAGE, sentence);
    }
    let nobody = run(&lab, &["status", "--root", root]);
    refused(&nobody, 1, "no delugefs is running with --root");
    let nowhere = run(&lab, &["where", root]);
    refused(&nowhere, 1, "is not in a mounted DelugeFS volume");
}

#[test]
fn of_two_volumes_of_one_name_one_has_to_be_chosen() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    // neither hears of the other while it is made
    lab.cut(2);
    let first = lab.node(1, "a").create().storage().start();
    let second = lab.node(2, "b").create().storage().start();
    lab.heal(2);
    let volume = |status: serde_json::Value| status["volume"]["id"].as_str().unwrap().to_owned();
    let (one, two) = (volume(first.status()), volume(second.status()));
    let mut attempts = 0;
    eventually(SOON, "both are listed", || {
        attempts += 1;
        let root = lab.folder(&format!("c{attempts}"));
        let mut command = lab.command(1, "timeout");
        command.args(["2", PROGRAM, "--id", "lab", "--root", text(&root)]);
        let output = command.output().unwrap();
        let said = said(&output);
        said.contains(&one)
            && said.contains(&two)
            && said.contains("say which with --id lab#PREFIX")
    });
    let chosen = format!("lab#{}", &two[..8]);
    let mut third = lab.node(1, "d").volume(&chosen).storage().start();
    eventually(SOON, "the chosen one is found", || third.connected() == 1);
    assert_eq!(volume(third.status()), two);
    third.stop();
}

#[test]
fn a_copied_root_is_a_node_of_its_own_beside_the_original() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let mut original = lab.node(1, "a").create().start();
    let bytes = noise(1, 300_000);
    fs::write(original.path("file"), &bytes).unwrap();
    eventually(SOON, "it is committed", || original.head() != "null");
    original.stop();
    drop(original);
    let copy = lab.folder("a").parent().unwrap().join("copy");
    must(Command::new("cp").arg("-a").arg(lab.folder("a")).arg(&copy));
    let original = lab.node(1, "a").start();
    let mut copy = lab.node(1, "copy").start();
    eventually(SOON, "they know each other as two", || {
        original.connected() == 1 && copy.connected() == 1
    });
    let listen = |status: &serde_json::Value| status["node"]["listen"].to_string();
    let (one, two) = (original.status(), copy.status());
    assert_ne!(one["node"]["id"], two["node"]["id"]);
    assert_ne!(listen(&one), listen(&two));
    assert!(
        copy.log().contains("continues as a new disk of volume lab"),
        "{}",
        copy.log()
    );
    assert_eq!(fs::read(copy.path("file")).unwrap(), bytes);
    fs::write(copy.path("from the copy"), "x").unwrap();
    eventually(SOON, "both go on", || {
        original.path("from the copy").exists()
    });

    copy.stop();
    drop(copy);
    let copy = lab.node(1, "copy").start();
    assert_eq!(listen(&two), listen(&copy.status()), "its port is kept");
}

#[test]
fn a_copy_that_lacks_names_is_told_what_to_do() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let mut node = lab.node(1, "a").create().start();
    fs::write(node.path("file"), "x").unwrap();
    eventually(SOON, "it is committed", || node.head() != "null");
    node.stop();
    let objects = node.root.join("metadata.git/objects");
    fs::remove_dir_all(&objects).unwrap();
    fs::create_dir_all(objects.join("pack")).unwrap();
    let output = run(&lab, &["--id", "lab", "--root", text(&node.root)]);
    refused(&output, 1, "Then copy it again with the node stopped");
}
