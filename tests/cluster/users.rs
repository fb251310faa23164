//! Nodes of somebody who is not root, mounted by way of fusermount3.

use crate::support::{
    HELPER, Lab, Node, NodeSpec, USER, User, can_run_as_user, eventually, holds_the_switch_alone,
    noise, sha256, signal, watcher,
};
use rustix::process::Signal;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// A disk, and a mount point, that belong to the user.
fn theirs<'a>(lab: &'a Lab, user: &'a User, disk: &str) -> NodeSpec<'a> {
    for folder in [disk.to_owned(), format!("{disk}-mount")] {
        chown(lab.folder(&folder), Some(USER), Some(USER)).unwrap();
    }
    lab.node(1, disk).by(user)
}

/// What the user's shell says to a script; it must succeed.
#[track_caller]
fn shell(lab: &Lab, user: &User, script: &str) -> String {
    let mut command = user.run(lab, 1, Path::new("sh"));
    let output = command.args(["-ec", script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A file of the node's mount by a path that leads root there.
fn from_outside(node: &Node, name: &str) -> PathBuf {
    let namespace = PathBuf::from(format!("/proc/{}/root", node.pid()));
    namespace.join(node.path(name).strip_prefix("/").unwrap())
}

/// Whether something is mounted on the folder, as the user's namespace has it.
fn is_mounted(lab: &Lab, user: &User, point: &Path) -> bool {
    let point = format!(" {} ", point.display());
    shell(lab, user, "cat /proc/self/mountinfo").contains(&point)
}

#[test]
fn a_user_mounts_shares_and_unmounts() {
    if !can_run_as_user() {
        return;
    }
    let lab = Lab::new(2);
    let user = User::new(&lab, "");
    let mut own = theirs(&lab, &user, "own").create().start();
    let other = lab.node(2, "other").start();
    eventually(SOON, "they are connected", || own.connected() == 1);

    let mount = own.mount.clone().unwrap();
    let bytes = noise(1, 300_000);
    fs::write(other.path("theirs"), &bytes).unwrap();
    fs::create_dir(other.path("folder")).unwrap();
    chown(other.path("theirs"), Some(12), Some(34)).unwrap();
    fs::write(lab.folder("user").join("file"), noise(2, 2 << 20)).unwrap();
    let script = format!(
        "cd {mount}; umask 022; cp {file} mine; cp {file} small; truncate -s 100 small; mv small folder/
         echo more >> folder/small; chmod 640 folder/small; ln -s mine link; mkdir made
         until [ -e theirs ]; do sleep 0.01; done",
        mount = mount.display(),
        file = lab.folder("user").join("file").display()
    );
    eventually(SOON, "the folder is there", || {
        shell(&lab, &user, &format!("ls {}", mount.display())).contains("folder")
    });
    shell(&lab, &user, &script);
    let stat = format!("cd {}; stat -c '%n %u %g %a' * folder/*", mount.display());
    let expected = format!(
        "folder {USER} {USER} 755\nlink {USER} {USER} 777\nmade {USER} {USER} 755\nmine {USER} {USER} 644\n\
         theirs {USER} {USER} 644\nfolder/small {USER} {USER} 640\n"
    );
    assert_eq!(shell(&lab, &user, &stat), expected);

    let read = format!("sha256sum < {}", mount.join("theirs").display());
    assert_eq!(
        shell(&lab, &user, &read),
        format!("{}  -\n", sha256(&other.path("theirs")))
    );
    eventually(SOON, "the other node has all", || {
        other.path("made").exists()
    });
    assert_eq!(fs::read(other.path("mine")).unwrap(), noise(2, 2 << 20));
    let small = [&noise(2, 100)[..], b"more\n"].concat();
    assert_eq!(fs::read(other.path("folder/small")).unwrap(), small);
    // others see who made it, if they are root; a user may not give away what is theirs
    let refused = format!("! chown 0 {} 2>&1", mount.join("mine").display());
    assert!(shell(&lab, &user, &refused).contains("not permitted"));

    // nobody else is let in, not even root
    let closed = fs::read(from_outside(&own, "mine")).unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::PermissionDenied);

    assert!(is_mounted(&lab, &user, &mount));
    signal(own.pid(), Signal::TERM);
    assert!(own.wait().success(), "{}", own.log());
    assert!(!is_mounted(&lab, &user, &mount), "{}", own.log());
}

#[test]
fn after_a_kill_the_users_same_command_mounts_again() {
    if !can_run_as_user() {
        return;
    }
    let lab = Lab::loopback_only();
    let user = User::new(&lab, "");
    let mut first = theirs(&lab, &user, "own").create().start();
    let mount = first.mount.clone().unwrap();
    let read = format!("cat {}", mount.join("file").display());
    let write = format!("echo kept > {}", mount.join("file").display());
    shell(&lab, &user, &write);
    first.kill();
    assert!(is_mounted(&lab, &user, &mount), "a dead mount is left");
    for _ in 0..2 {
        let mut again = theirs(&lab, &user, "own").start();
        assert_eq!(shell(&lab, &user, &read), "kept\n");
        again.kill();
    }
    let mut last = theirs(&lab, &user, "own").start();
    let log = last.log();
    assert!(log.contains("taking away the dead mount"), "{log}");
    assert_eq!(shell(&lab, &user, &read), "kept\n");

    // by the user's own hand
    shell(&lab, &user, &format!("{HELPER} -u {}", mount.display()));
    assert!(last.wait().success(), "{}", last.log());
    assert!(!is_mounted(&lab, &user, &mount));
}

#[test]
fn a_users_open_files_do_not_hold_up_the_end() {
    if !can_run_as_user() {
        return;
    }
    let lab = Lab::loopback_only();
    let user = User::new(&lab, "");
    let mut node = theirs(&lab, &user, "own").create().start();
    let mount = node.mount.clone().unwrap();
    assert!(is_mounted(&lab, &user, &mount));
    let mut reader = user.run(&lab, 1, Path::new("sh"));
    let script = format!("exec 3> {}; exec cat", mount.join("file").display());
    reader.args(["-ec", &script]);
    reader.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut reader = reader.spawn().unwrap();
    eventually(SOON, "the file is open", || {
        shell(&lab, &user, &format!("ls {}", mount.display())) == "file\n"
    });
    node.stop();
    assert!(
        node.log().contains("files are still open"),
        "{}",
        node.log()
    );
    assert!(!is_mounted(&lab, &user, &mount), "{}", node.log());
    reader.kill().unwrap();
    reader.wait().unwrap();
}

/// What the program says to a user, who cannot mount, when it ends.
fn attempt(lab: &Lab, user: &User, words: &str) -> Output {
    let spec = theirs(lab, user, "own").create().with(words);
    let mut command = spec.command();
    command.output().unwrap()
}

#[track_caller]
fn refused(output: &Output, sentence: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(sentence), "{sentence:?} is not in {said:?}");
    assert_eq!(output.status.code(), Some(1), "{said}");
}

#[test]
fn a_user_who_cannot_mount_is_told_what_is_missing() {
    if !can_run_as_user() {
        return;
    }
    let lab = Lab::loopback_only();
    for (prepare, words, sentence) in [
        (
            "rm dev/fuse",
            "",
            "/dev/fuse is missing: load the kernel's fuse module",
        ),
        (
            "chmod 600 dev/fuse",
            "",
            "/dev/fuse: permission denied: give this user access to it",
        ),
        (
            "mount --bind /dev/null /usr/bin/fusermount3",
            "",
            "fusermount3 is missing: install the package fuse3, or mount as root",
        ),
        (
            "touch empty; mount --bind empty /etc/fuse.conf",
            "--allow-other",
            "--allow-other: only root may, unless /etc/fuse.conf has a line user_allow_other",
        ),
    ] {
        let user = User::new(&lab, prepare);
        refused(&attempt(&lab, &user, words), sentence);
        refused(
            &attempt(&lab, &user, &format!("{words} --background")),
            sentence,
        );
        assert!(!lab.folder("own").join("node.toml").exists(), "{sentence}");
    }
}

#[test]
fn a_mount_point_that_is_not_the_users_is_refused() {
    if !can_run_as_user() {
        return;
    }
    let lab = Lab::loopback_only();
    let user = User::new(&lab, "");
    let spec = theirs(&lab, &user, "own").create();
    let point = lab.folder("own-mount");
    chown(&point, Some(0), Some(0)).unwrap();
    // not writable; writable to all, but not to remove what is others', as /tmp
    for mode in [0o755, 0o1777] {
        fs::set_permissions(&point, Permissions::from_mode(mode)).unwrap();
        let output = spec.command().output().unwrap();
        refused(&output, "the folder is not this user's to write in");
        assert!(!lab.folder("own").join("node.toml").exists());
    }
}

#[test]
fn where_users_may_others_see_the_mount_too() {
    if !can_run_as_user() {
        return;
    }
    let lab = Lab::loopback_only();
    let conf = "echo user_allow_other > conf; mount --bind conf /etc/fuse.conf";
    let user = User::new(&lab, conf);
    let mut node = theirs(&lab, &user, "own")
        .create()
        .with("--allow-other")
        .start();
    let file = node.path("file");
    shell(&lab, &user, &format!("echo shared > {}", file.display()));
    // root is somebody else here
    let seen = fs::read(from_outside(&node, "file"));
    assert_eq!(seen.unwrap(), b"shared\n");
    node.stop();
}

/// The control filesystem is mounted for them, as it usually is, or something else is in its place.
#[test]
fn a_users_mount_is_watched_where_its_connection_can_be_ended() {
    if !can_run_as_user() {
        return;
    }
    let lab = Lab::loopback_only();
    for (disk, control) in [("one", "fusectl"), ("two", "tmpfs")] {
        let place = "/sys/fs/fuse/connections";
        let prepare = format!("umount -q {place} || true; mount -t {control} none {place}");
        let user = User::new(&lab, &prepare);
        let mut node = theirs(&lab, &user, disk).volume(disk).create().start();
        let is_unwatched = node.log().contains("nobody watches over the mount");
        assert_eq!(is_unwatched, control == "tmpfs", "{}", node.log());
        assert!(is_unwatched || holds_the_switch_alone(watcher(node.pid())));
        node.stop();
    }
}
