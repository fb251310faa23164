//! Two hosts on one cable, as network namespaces; on the first a D-Bus and an avahi-daemon of their own.
//! Everything is gone when the [`Lab`] is dropped: processes by their id, namespaces, folders.

use delugefs_core::ids::{NodeId, VolumeId};
use delugefs_discovery::{Announcement, Discovery, Event, Responder, Sources};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const LIAR: &str = "AVAHI_TEST_LIAR";
pub(crate) const B_ADDRESS: &str = "10.78.0.2";

const RESPONDER: &str = "AVAHI_TEST_RESPONDER";
const NUMBER: &str = "AVAHI_TEST_NUMBER";

/// Generous: the machine may be busy.
const WAIT: Duration = Duration::from_secs(30);

static LABS: AtomicU32 = AtomicU32::new(0);

const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

const AVAHI: &str = "[server]\nuse-ipv4=yes\nuse-ipv6=yes\nenable-dbus=yes\n\
    [wide-area]\nenable-wide-area=no\n[publish]\n[reflector]\n[rlimits]\n";

/// Avahi's pid file has one fixed place: each daemon gets a /run of its own.
const PRIVATE_AVAHI: &str = "mount -t tmpfs tmpfs /run && exec avahi-daemon --no-drop-root --no-chroot \
    --no-rlimits --no-proc-title --file \"$0\"";

/// In CI a missing tool is a failure, elsewhere it is said loudly.
pub(crate) fn can_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    let tools = [
        "ip",
        "nsenter",
        "unshare",
        "dbus-daemon",
        "avahi-daemon",
        "avahi-browse",
    ];
    let missing = match tools.into_iter().find(|tool| !on_path(tool)) {
        _ if !root => Some("root"),
        missing => missing,
    };
    match missing {
        None => true,
        Some(what) if std::env::var_os("CI").is_some() => panic!("CI must have {what}"),
        Some(what) => {
            eprintln!("SKIPPED: this test needs {what}");
            false
        }
    }
}

fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

fn on_path(tool: &str) -> bool {
    search_path()
        .split(':')
        .any(|folder| Path::new(folder).join(tool).is_file())
}

fn ip(words: &str) {
    let mut command = Command::new("ip");
    let output = command
        .env("PATH", search_path())
        .args(words.split_whitespace())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {text}");
}

#[track_caller]
fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < WAIT, "not within {WAIT:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn node(number: u8) -> NodeId {
    NodeId::new([number; 16])
}

/// A node's id as its announcement shows it.
pub(crate) fn node_id(number: u8) -> String {
    node(number).to_string()
}

pub(crate) struct Lab {
    name: String,
    folder: tempfile::TempDir,
    bus: Option<Process>,
    avahi: Option<Process>,
}

impl Lab {
    pub(crate) const A: u32 = 1;
    pub(crate) const B: u32 = 2;

    pub(crate) fn new() -> Self {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let name = format!("da{}x{number}", std::process::id());
        let folder = tempfile::Builder::new()
            .prefix("delugefs-avahi-")
            .tempdir()
            .unwrap();
        let lab = Self {
            name,
            folder,
            bus: None,
            avahi: None,
        };
        let (a, b) = (lab.namespace(Self::A), lab.namespace(Self::B));
        ip(&format!("netns add {a}"));
        ip(&format!("netns add {b}"));
        ip(&format!(
            "link add eth0 netns {a} type veth peer name eth0 netns {b}"
        ));
        for host in [Self::A, Self::B] {
            let namespace = lab.namespace(host);
            ip(&format!("-n {namespace} link set lo up"));
            ip(&format!(
                "-n {namespace} address add 10.78.0.{host}/24 dev eth0"
            ));
            ip(&format!("-n {namespace} link set eth0 up"));
            ip(&format!("-n {namespace} route add 224.0.0.0/4 dev eth0"));
        }
        lab
    }

    fn namespace(&self, host: u32) -> String {
        format!("{}h{host}", self.name)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("bus")
    }

    /// A program on a host; its D-Bus is the lab's.
    fn command(&self, host: u32, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(host)));
        let bus = format!("unix:path={}", self.socket().display());
        command
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus)
            .env("PATH", search_path());
        command.arg(program);
        command
    }

    /// Takes a host's interface down.
    pub(crate) fn cut(&self, host: u32) {
        ip(&format!("-n {} link set eth0 down", self.namespace(host)));
    }

    pub(crate) fn start_bus(&mut self) {
        let file = self.folder.path().join("bus.conf");
        fs::write(
            &file,
            BUS.replace("SOCKET", self.socket().to_str().unwrap()),
        )
        .unwrap();
        let mut command = self.command(Self::A, "dbus-daemon");
        command
            .arg("--config-file")
            .arg(&file)
            .args(["--nofork", "--nopidfile"]);
        self.bus = Some(Process::start(command));
        let socket = self.socket();
        eventually("D-Bus answers", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    pub(crate) fn start_avahi(&mut self) {
        let file = self.folder.path().join("avahi.conf");
        fs::write(&file, AVAHI).unwrap();
        let mut command = self.command(Self::A, "unshare");
        command
            .args(["--mount", "sh", "-c", PRIVATE_AVAHI])
            .arg(&file);
        self.avahi = Some(Process::start(command));
        eventually("Avahi answers", || self.browse_all().is_some());
    }

    pub(crate) fn stop_avahi(&mut self) {
        self.avahi.take().unwrap().terminate();
    }

    /// What Avahi's own program finds; `None` without Avahi.
    fn browse_all(&self) -> Option<String> {
        let mut command = self.command(Self::A, "avahi-browse");
        let output = command
            .args(["--terminate", "--parsable", "_delugefs._tcp"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }

    /// Until Avahi has heard so many instances, as its own program shows.
    #[track_caller]
    pub(crate) fn wait_until_avahi_knows(&self, instances: usize) {
        eventually("Avahi has heard of them", || {
            let found = self.browse_all().unwrap_or_default();
            let names: std::collections::BTreeSet<_> = found
                .lines()
                .filter_map(|line| line.split(';').nth(3))
                .collect();
            names.len() >= instances
        });
    }

    pub(crate) fn node(&self, host: u32, responder: &str, number: u8) -> Node {
        let mut command = self.own_test(host, "child_that_looks_and_announces");
        command
            .env(RESPONDER, responder)
            .env(NUMBER, number.to_string());
        Node::start(command)
    }

    pub(crate) fn liar(&self, host: u32) -> Node {
        let mut command = self.own_test(host, "child_that_lies");
        command.env(LIAR, "1");
        Node::start(command)
    }

    fn own_test(&self, host: u32, name: &str) -> Command {
        let program = std::env::current_exe().unwrap();
        let mut command = self.command(host, program.to_str().unwrap());
        command.args(["--exact", name, "--nocapture", "--test-threads=2"]);
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.avahi = None;
        self.bus = None;
        for host in [Self::A, Self::B] {
            let _ = Command::new("ip")
                .args(["netns", "delete", &self.namespace(host)])
                .status();
        }
    }
}

/// Killed when dropped.
struct Process(Child);

impl Process {
    fn start(mut command: Command) -> Self {
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(quiet.spawn().unwrap())
    }

    /// Lets it say goodbye.
    fn terminate(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that announces a node and tells what it sees, a line for each event.
pub(crate) struct Node {
    process: Process,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Node {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Self {
            process: Process(child),
            lines,
        }
    }

    /// Waits for an event of a kind that says something.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, kind: &str, text: &str) {
        let heard = || {
            let lines = self.lines.lock().unwrap();
            lines
                .iter()
                .any(|line| line.starts_with(kind) && line.contains(text))
        };
        let start = Instant::now();
        while !heard() {
            let lines = self.lines.lock().unwrap().join("\n");
            assert!(
                start.elapsed() < WAIT,
                "not within {WAIT:?}: {what}; heard:\n{lines}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The same, after the last loss.
    #[track_caller]
    pub(crate) fn wait_for_again(&self, what: &str, kind: &str, text: &str) {
        {
            let mut lines = self.lines.lock().unwrap();
            let lost = lines.iter().rposition(|line| line.starts_with("Lost"));
            lines.drain(..=lost.unwrap());
        }
        self.wait_for(what, kind, text);
    }

    pub(crate) fn heard(&self, kind: &str) -> bool {
        self.lines
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.starts_with(kind))
    }

    /// Ends it as a node ends; it must not have failed.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        drop(self.process.0.stdin.take());
        let mut status = None;
        eventually("the process ends", || {
            status = self.process.0.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "{status:?}");
    }

    pub(crate) fn kill(mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }
}

pub(crate) fn until_input_ends() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// What a [`Node`] does; nothing when it is run as a test.
pub(crate) fn node_process() {
    let Ok(number) = std::env::var(NUMBER) else {
        return;
    };
    let number: u8 = number.parse().unwrap();
    let responder = match std::env::var(RESPONDER).unwrap().as_str() {
        "avahi" => Responder::Avahi,
        _ => Responder::Embedded,
    };
    let announcement = Announcement {
        volume: VolumeId::new([1; 16]),
        volume_name: "store of müsli".into(),
        node: node(number),
        listen: (Ipv6Addr::UNSPECIFIED, 7000 + u16::from(number)).into(),
    };
    let sources = Sources {
        mdns: Some(responder),
        registry: Vec::new(),
    };
    let (discovery, mut events) = Discovery::start(&announcement, &sources).unwrap();
    thread::spawn(move || {
        while let Some(event) = events.blocking_recv() {
            tell(&event);
        }
    });
    until_input_ends();
    discovery.stop();
}

fn tell(event: &Event) {
    let number = |node: &NodeId| node.to_string()[1..2].to_owned();
    match event {
        Event::Found(peer) => {
            assert_eq!(peer.volume_name, "store of müsli");
            println!("Found {} {:?}", number(&peer.node), peer.addresses);
        }
        Event::Lost(node) => println!("Lost {}", number(node)),
        Event::Ourselves(peer) => println!("Ourselves {}", number(&peer.node)),
        Event::Warning(text) => println!("Warning {text}"),
    }
}
