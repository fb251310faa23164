//! Real nodes for tests: processes of the real program on hosts that are network namespaces of their own.
//!
//! Everything a [`Lab`] makes is gone when it is dropped: processes by their id, mounts, namespaces, folders.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    missing_docs,
    unreachable_pub
)]

pub mod crew;
pub mod large;
pub mod random;
mod tools;

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
pub use tools::*;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_delugefs");

/// Only a node that hangs takes so long to start, whatever else the machine does.
const START_MAX: Duration = Duration::from_secs(300);

/// A process that was told to end, or was killed, is gone long before, unless the kernel cannot let it go.
const ENDING_MAX: Duration = Duration::from_secs(120);

/// A start that takes longer is shown, with the last lines of the log.
const START_SLOW: Duration = Duration::from_secs(10);

const LAST_LINES: usize = 6;

static LABS: AtomicU32 = AtomicU32::new(0);

/// Hosts joined by a bridge, and a folder for disks and mounts.
pub struct Lab {
    name: String,
    folder: tempfile::TempDir,
    hosts: u32,
}

impl Lab {
    /// A switch and so many hosts, 10.77.0.1 and on.
    pub fn new(hosts: u32) -> Self {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let name = format!("dt{}x{number}", std::process::id());
        let folder = tempfile::Builder::new()
            .prefix("delugefs-lab-")
            .tempdir()
            .unwrap();
        let lab = Self {
            name,
            folder,
            hosts,
        };
        lab.build();
        lab
    }

    /// One host that has only its loopback interface.
    pub fn loopback_only() -> Self {
        let mut lab = Self::new(0);
        ip(&format!("netns add {}", lab.namespace(1)));
        ip(&format!("-n {} link set lo up", lab.namespace(1)));
        lab.hosts = 1;
        lab
    }

    fn switch(&self) -> String {
        format!("{}s", self.name)
    }

    fn namespace(&self, host: u32) -> String {
        format!("{}h{host}", self.name)
    }

    /// The file that stands for a host's network namespace.
    pub fn namespace_file(&self, host: u32) -> PathBuf {
        Path::new("/run/netns").join(self.namespace(host))
    }

    fn build(&self) {
        let switch = self.switch();
        ip(&format!("netns add {switch}"));
        for bridge in ["br0", "br1"] {
            ip(&format!(
                "-n {switch} link add {bridge} type bridge mcast_snooping 0"
            ));
            ip(&format!("-n {switch} link set {bridge} up"));
        }
        for host in 1..=self.hosts {
            let namespace = self.namespace(host);
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
            ip(&format!(
                "link add eth0 netns {namespace} type veth peer name p{host} netns {switch}"
            ));
            ip(&format!("-n {switch} link set p{host} master br0 up"));
            ip(&format!(
                "-n {namespace} address add 10.77.0.{host}/24 dev eth0"
            ));
            ip(&format!("-n {namespace} link set eth0 up"));
            ip(&format!("-n {namespace} route add 224.0.0.0/4 dev eth0"));
        }
    }

    /// Pulls a host's cable.
    pub fn cut(&self, host: u32) {
        ip(&format!("-n {} link set p{host} down", self.switch()));
    }

    /// Plugs it in again.
    pub fn heal(&self, host: u32) {
        ip(&format!("-n {} link set p{host} up", self.switch()));
    }

    /// While so, a host reaches only hosts that are set aside, too, and they nobody else.
    pub fn set_aside(&self, host: u32, aside: bool) {
        let bridge = if aside { "br1" } else { "br0" };
        ip(&format!(
            "-n {} link set p{host} master {bridge}",
            self.switch()
        ));
    }

    /// While so, a host reaches only hosts that are not isolated: no longer does everyone see everyone.
    pub fn isolate(&self, host: u32, isolated: bool) {
        let how = if isolated { "on" } else { "off" };
        ip(&format!(
            "-n {} link set p{host} type bridge_slave isolated {how}",
            self.switch()
        ));
    }

    /// Lets a host send and take so many kilobytes a second.
    pub fn limit(&self, host: u32, kilobytes: u32) {
        let rate = format!("tbf rate {}kbit burst 32kb latency 100ms", kilobytes * 8);
        let (namespace, switch) = (self.namespace(host), self.switch());
        for words in [
            format!("netns exec {namespace} tc qdisc replace dev eth0 root {rate}"),
            format!("netns exec {switch} tc qdisc replace dev p{host} root {rate}"),
        ] {
            ip(&words);
        }
    }

    /// Lets a host send and take as fast as it can again.
    pub fn unlimit(&self, host: u32) {
        let (namespace, switch) = (self.namespace(host), self.switch());
        ip(&format!(
            "netns exec {namespace} tc qdisc delete dev eth0 root"
        ));
        ip(&format!(
            "netns exec {switch} tc qdisc delete dev p{host} root"
        ));
    }

    /// Bytes that a host has taken so far.
    pub fn received(&self, host: u32) -> u64 {
        let namespace = self.namespace(host);
        let output = Command::new("ip")
            .args(["-n", &namespace, "-s", "-j", "link", "show", "eth0"])
            .output()
            .unwrap();
        let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        links[0]["stats64"]["rx"]["bytes"].as_u64().unwrap()
    }

    /// A folder in the lab, made if it is missing.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        // a dead mount is there, and does not answer
        match fs::create_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                panic!("{}: {error}", path.display())
            }
            _ => path,
        }
    }

    /// Lets users who are not root into a folder of the lab, and write there.
    pub fn open_to_users(&self, folder: &Path) {
        fs::set_permissions(self.folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
    }

    /// A program to be run on a host.
    pub fn command(&self, host: u32, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.namespace(host)))
            .arg(program);
        command.env("DELUGEFS_REGISTRY", self.folder(&format!("registry{host}")));
        command
    }

    /// A node that is started with [`NodeSpec::start`].
    pub fn node(&self, host: u32, disk: &str) -> NodeSpec<'_> {
        NodeSpec {
            lab: self,
            host,
            disk: disk.to_owned(),
            volume: "lab".to_owned(),
            mounted: true,
            arguments: Vec::new(),
            user: None,
            clock: None,
            dies_with_test: false,
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let namespaces = (1..=self.hosts).map(|host| self.namespace(host));
        for namespace in namespaces.chain([self.switch()]) {
            run_quietly(Command::new("ip").args(["netns", "delete", &namespace]));
        }
    }
}

/// Somebody who is not root, in a mount namespace of their own: there /dev is as a test wants it, and what is mounted
/// disturbs nobody else.
pub struct User {
    keeper: Child,
    program: PathBuf,
}

/// `nobody`: a user who has a name, as fusermount3 needs it, and nothing else.
pub const USER: u32 = 65534;

impl User {
    /// `prepare` is a shell script that root runs in the new namespace, in a folder of the lab's, where `dev` is what
    /// will be its /dev: with `fuse` for everyone, unless the script removes it.
    pub fn new(lab: &Lab, prepare: &str) -> Self {
        // the program is reached by a mount: its own path may be closed to others
        let place = lab.folder("user");
        lab.open_to_users(&place);
        let script = format!(
            "set -e; cd {place}; mkdir -p dev; touch program; mount -t tmpfs -o mode=755 tmpfs dev
             cp -a /dev/null /dev/zero /dev/random /dev/urandom dev
             mknod -m 666 dev/fuse c 10 229; mount --bind {PROGRAM} program
             {prepare}
             mount --rbind dev /dev; echo ready; exec cat",
            place = place.display()
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().unwrap();
        let mut said = String::new();
        let output = keeper.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        Self {
            keeper,
            program: place.join("program"),
        }
    }

    /// Words of theirs, on a host of the lab.
    pub fn run(&self, lab: &Lab, host: u32, program: &Path) -> Command {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.keeper.id());
        let mut command = lab.command(host, "nsenter");
        command.arg(namespace).args([
            "setpriv".to_owned(),
            format!("--reuid={USER}"),
            format!("--regid={USER}"),
            "--clear-groups".to_owned(),
        ]);
        command.arg(program);
        command
    }

    fn command(&self, lab: &Lab, host: u32) -> Command {
        lab.open_to_users(&lab.folder(&format!("registry{host}")));
        self.run(lab, host, &self.program)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// How a node is to be started. The first disk of a lab is told to `create`.
pub struct NodeSpec<'a> {
    lab: &'a Lab,
    host: u32,
    disk: String,
    volume: String,
    mounted: bool,
    arguments: Vec<String>,
    user: Option<&'a User>,
    clock: Option<String>,
    dies_with_test: bool,
}

impl<'a> NodeSpec<'a> {
    /// Killed when the thread that starts it ends, be it that the test is killed.
    pub fn dies_with_test(mut self) -> Self {
        self.dies_with_test = true;
        self
    }

    /// With a wall clock that is wrong, as libfaketime understands it: `+3d x2` is days ahead and goes twice as fast.
    pub fn clock(mut self, wrong: Option<&str>) -> Self {
        self.clock = wrong.map(str::to_owned);
        self
    }

    /// Run by somebody who is not root.
    pub fn by(mut self, user: &'a User) -> Self {
        self.user = Some(user);
        self
    }

    /// Makes the volume.
    pub fn create(self) -> Self {
        self.with("--create")
    }

    /// Of another volume than `lab`.
    pub fn volume(mut self, id: &str) -> Self {
        id.clone_into(&mut self.volume);
        self
    }

    /// Without a mount.
    pub fn storage(mut self) -> Self {
        self.mounted = false;
        self
    }

    /// More words on its command line.
    pub fn with(mut self, words: &str) -> Self {
        self.arguments
            .extend(words.split_whitespace().map(str::to_owned));
        self
    }

    /// The command line, without `--background`.
    pub fn command(&self) -> Command {
        let mut command = match self.user {
            Some(user) => user.command(self.lab, self.host),
            None if self.dies_with_test => {
                let mut command = self.lab.command(self.host, "setpriv");
                command.args(["--pdeathsig", "KILL", PROGRAM]);
                command
            }
            None => self.lab.command(self.host, PROGRAM),
        };
        command
            .args(["--id", &self.volume, "--label", &self.disk])
            .args(&self.arguments);
        command.arg("--root").arg(self.lab.folder(&self.disk));
        if self.mounted {
            command
                .arg("--mount")
                .arg(self.lab.folder(&format!("{}-mount", self.disk)));
        }
        if let Some(wrong) = &self.clock {
            skew(&mut command, wrong);
        }
        command
    }

    /// Starts it and waits until it answers; its log goes to a file that [`Node::log`] reads.
    pub fn start(self) -> Node {
        let root = self.lab.folder(&self.disk);
        let mount = self
            .mounted
            .then(|| self.lab.folder(&format!("{}-mount", self.disk)));
        let log = self.lab.folder.path().join(format!("{}.log", self.disk));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let child = command.spawn().unwrap();
        let mut node = Node {
            child,
            root,
            mount,
            log,
            host: self.host,
        };
        node.wait_until_up();
        node
    }
}

/// A running node; killed and unmounted when dropped.
pub struct Node {
    child: Child,
    pub root: PathBuf,
    pub mount: Option<PathBuf>,
    log: PathBuf,
    pub host: u32,
}

impl Node {
    #[track_caller]
    fn wait_until_up(&mut self) {
        let start = Instant::now();
        // to ask costs a process, which a busy machine would rather give to the node
        let control = self.root.join("control");
        while UnixStream::connect(&control).is_err() || self.try_status().is_none() {
            let ended = self.child.try_wait().unwrap();
            let log = || self.log();
            assert!(ended.is_none(), "the node ended ({ended:?}):\n{}", log());
            assert!(
                start.elapsed() < START_MAX,
                "the node does not start:\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = start.elapsed();
        if took > START_SLOW {
            let log = self.log();
            let from = log.lines().count().saturating_sub(LAST_LINES);
            let last: Vec<_> = log.lines().skip(from).collect();
            eprintln!("a start took {took:?}:\n{}", last.join("\n"));
        }
    }

    /// A path below the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.mount.as_ref().unwrap().join(name)
    }

    /// `delugefs where --json` of a file below the mount.
    pub fn whereabouts(&self, name: &str) -> serde_json::Value {
        let mut command = Command::new(PROGRAM);
        let output = command.args(["where", "--json"]).arg(self.path(name));
        let output = output.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn try_status(&self) -> Option<serde_json::Value> {
        let mut command = Command::new(PROGRAM);
        let output = command
            .args(["status", "--json", "--root"])
            .arg(&self.root)
            .output()
            .unwrap();
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// `delugefs status --json`
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        self.try_status()
            .unwrap_or_else(|| panic!("no status:\n{}", self.log()))
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The head commit, while it answers.
    pub fn try_head(&self) -> Option<String> {
        Some(self.try_status()?["volume"]["head"].to_string())
    }

    /// Number of peers with a link.
    pub fn connected(&self) -> usize {
        let status = self.status();
        let peers = status["peers"].as_array().unwrap();
        peers
            .iter()
            .filter(|peer| peer["connected"] == true)
            .count()
    }

    /// The head commit.
    pub fn head(&self) -> String {
        self.status()["volume"]["head"].to_string()
    }

    /// `delugefs set`
    pub fn set(&self, key: &str, value: &str) {
        must(
            Command::new(PROGRAM)
                .arg("set")
                .arg("--root")
                .arg(&self.root)
                .args([key, value]),
        );
    }

    /// Waits for its end, which someone has brought about.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let ended = ended(&mut self.child, ENDING_MAX);
        ended.unwrap_or_else(|| panic!("{}", self.lingers()))
    }

    fn lingers(&self) -> String {
        let (process, root) = (self.child.id(), self.root.display());
        format!("process {process} of {root} should have ended, and has not within {ENDING_MAX:?}")
    }

    /// SIGKILL, now.
    #[track_caller]
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.wait();
    }

    /// Kills it, and leaves its mount as it then is.
    pub fn abandon(mut self) {
        self.kill();
        self.mount = None;
    }

    /// `delugefs stop`
    pub fn stop(&mut self) {
        must(
            Command::new(PROGRAM)
                .args(["stop", "--root"])
                .arg(&self.root),
        );
        let ended = self.wait();
        assert!(ended.success(), "{ended:?}:\n{}", self.log());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(4000);
            eprintln!(
                "--- {} ---\n{}",
                self.log.display(),
                String::from_utf8_lossy(&log.as_bytes()[tail..])
            );
        }
        let _ = self.child.kill();
        let has_ended = ended(&mut self.child, ENDING_MAX).is_some();
        if let Some(mount) = &self.mount {
            run_quietly(Command::new("umount").args(["-l", "-q"]).arg(mount));
        }
        // a second panic would hide the first
        assert!(has_ended || std::thread::panicking(), "{}", self.lingers());
    }
}
