//! What POSIX says of names, attributes and errors, case by case: as root, as a user of root's mount, and on a mount of a
//! user's own.

use crate::suite;
use crate::support::{Lab, USER, User, can_run_as_user};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// All cases of the version that is installed: none is lost by a filter.
const CASES: usize = 398;

/// Why a case may be left out, whoever runs it.
const NO_LIMIT: &str = "Cannot get value for LINK_MAX: filesystem limit is unknown";
const NO_REMOUNT: &str = "Remounts (allow_remount) are not allowed in the configuration file";

/// Why a case may be left out by who is not root.
const NOT_ROOT: &str = "requires root privileges";
const NO_MOUNT: &str = "process doesn't have the CAP_SYS_ADMIN cap to mount the dummy file system";

/// Groups that fail, each for all [`KINDS`]. One that passes fails the test: it is to be taken out.
const FAILING: [&str; 7] = [
    // there are no hard links yet
    "link::changed_ctime_success",
    "link::remove_link",
    "link::share_metadata",
    "rename::preserve_metadata",
    "rename::to_multiply_linked",
    "unlink::unchanged_ctime_failed",
    "unlink::update_ctime_success",
];

const KINDS: [&str; 5] = ["regular", "fifo", "block", "char", "socket"];

/// A place for a suite's files, which users reach.
struct Place {
    folder: PathBuf,
    short: tempfile::TempDir,
    program: PathBuf,
}

impl Place {
    fn new(lab: &Lab, program: &Path) -> Self {
        let folder = lab.folder("suite");
        lab.open_to_users(&folder);
        fs::create_dir(folder.join("elsewhere")).unwrap();
        let copy = folder.join("pjdfstest");
        fs::copy(program, &copy).unwrap();
        let short = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(short.path(), Permissions::from_mode(0o755)).unwrap();
        Self {
            folder,
            short,
            program: copy,
        }
    }

    /// A short path to a folder: sockets have no room for more than 107 bytes.
    fn short(&self, folder: &Path) -> PathBuf {
        let link = self.short.path().join("on");
        symlink(folder, &link).unwrap();
        link
    }

    fn configuration(&self, remount: bool) -> PathBuf {
        let failing = FAILING.iter().flat_map(|group| {
            let name = move |kind: &&str| format!("{group}::{kind}");
            KINDS.iter().map(name)
        });
        let failing: Vec<String> = failing.collect();
        let text = format!(
            r#"
[features]
posix_fallocate = {{}}
rename_ctime = {{}}
utime_now = {{}}
utimensat = {{}}
[settings]
naptime = 0.01
allow_remount = {remount}
expected_failures = {failing:?}
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#
        );
        let path = self.folder.join(format!("remount-{remount}.toml"));
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs cases; all have to end as they should, none is left out for another reason than these.
    #[track_caller]
    fn run(&self, mut suite: Command, point: &Path, remount: bool, reasons: &[&str]) -> usize {
        suite.arg("-c").arg(self.configuration(remount));
        suite.arg("-p").arg(point);
        suite.arg("-s").arg(self.folder.join("elsewhere"));
        if remount {
            suite.arg("erofs");
        }
        let output = suite.env_remove("RUST_BACKTRACE").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let good = |line: &&str| line.ends_with(" ok") || line.ends_with("failed as expected");
        let bad: Vec<&str> = said.lines().filter(|line| !good(line)).collect();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{errors}", bad.join("\n"));
        for reason in bad.iter().filter_map(|line| line.strip_prefix('\t')) {
            assert!(reasons.contains(&reason), "left out: {}", bad.join("\n"));
        }
        let total = said.trim_end().rsplit(", ").next().unwrap();
        total.strip_suffix(" total").unwrap().parse().unwrap()
    }
}

/// In a folder of its own, which everyone may use.
fn open_folder(mount: &Path) -> PathBuf {
    let folder = mount.join("open");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    folder
}

#[test]
fn root_sees_what_posix_says() {
    let Some(program) = suite("pjdfstest") else {
        return;
    };
    let lab = Lab::new(1);
    let place = Place::new(&lab, &program);
    let node = lab.node(1, "disk").create().with("--allow-other").start();
    let mount = node.mount.as_ref().unwrap();

    let suite = || Command::new(&place.program);
    let reasons = [NO_LIMIT, NO_REMOUNT];
    let cases = place.run(suite(), &place.short(mount), false, &reasons);
    assert_eq!(cases, CASES);

    // Apart from the others, some of which leave descriptors open for writing: then nothing can be made read-only.
    let mut suite = suite();
    suite.env("PATH", path_with_plain_mount(&lab));
    assert_eq!(place.run(suite, mount, true, &[]), 13);
}

/// `mount` hands a mount of this kind to fuse3's helper, which looks for a program `delugefs` to remount it.
fn path_with_plain_mount(lab: &Lab) -> String {
    let folder = lab.folder("plain");
    let script = folder.join("mount");
    fs::write(&script, "#!/bin/sh\nexec /bin/mount -i \"$@\"\n").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

#[test]
fn a_user_sees_what_posix_says() {
    let Some(program) = suite("pjdfstest") else {
        return;
    };
    let lab = Lab::new(1);
    let place = Place::new(&lab, &program);
    let node = lab.node(1, "disk").create().with("--allow-other").start();

    let folder = open_folder(node.mount.as_ref().unwrap());
    let mut suite = Command::new("setpriv");
    let (uid, gid) = (format!("--reuid={USER}"), format!("--regid={USER}"));
    suite.args([&uid, &gid, "--clear-groups"]);
    suite.arg(&place.program);
    let reasons = [NO_LIMIT, NO_REMOUNT, NOT_ROOT, NO_MOUNT];
    let cases = place.run(suite, &place.short(&folder), false, &reasons);
    assert_eq!(cases, CASES);
}

#[test]
fn a_user_sees_what_posix_says_on_a_mount_of_their_own() {
    let Some(program) = suite("pjdfstest") else {
        return;
    };
    if !can_run_as_user() {
        return;
    }
    let lab = Lab::new(1);
    let place = Place::new(&lab, &program);
    let user = User::new(&lab, "");
    for folder in ["disk", "disk-mount"] {
        chown(lab.folder(folder), Some(USER), Some(USER)).unwrap();
    }
    let node = lab.node(1, "disk").by(&user).create().start();

    let suite = user.run(&lab, 1, &place.program);
    let mount = place.short(node.mount.as_ref().unwrap());
    let reasons = [NO_LIMIT, NO_REMOUNT, NOT_ROOT, NO_MOUNT];
    let cases = place.run(suite, &mount, false, &reasons);
    assert_eq!(cases, CASES);
}
