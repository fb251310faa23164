//! What is on this machine, and how it is run.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Only a watcher that never comes takes so long.
const WATCHING_MAX: Duration = Duration::from_secs(60);

/// Waits until something is so, at most `limit`; the panic says what did not come true.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut check: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        // often enough, and not so often that asking (a process each time) is all that the machine does
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

/// How a process has ended, if it has within `limit`.
pub fn ended(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        let status = child.try_wait().unwrap();
        if status.is_some() || start.elapsed() > limit {
            return status;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Tests that need root, /dev/fuse and network namespaces: in CI their lack is a failure, elsewhere said loudly.
pub fn can_run() -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        Some("root")
    } else if !Path::new("/dev/fuse").exists() {
        Some("/dev/fuse")
    } else if !run_quietly(Command::new("ip").args(["netns", "list"])) {
        Some("ip netns (iproute2)")
    } else {
        None
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

/// Where Debian's package fuse3 puts the helper by which users mount.
pub const HELPER: &str = "/usr/bin/fusermount3";

/// Tests that need the same, and mount as somebody who is not root.
pub fn can_run_as_user() -> bool {
    let helper = Path::new(HELPER).exists();
    assert!(helper || std::env::var_os("CI").is_none(), "CI: no fuse3");
    if !helper {
        eprintln!("SKIPPED: this test needs {HELPER}");
    }
    can_run() && helper
}

/// Whether a test can run here, which needs these programs beside what every lab needs.
pub fn has(programs: &[&str]) -> bool {
    let found = |program: &&&str| {
        let mut command = Command::new("sh");
        let quiet = command
            .args(["-c", &format!("command -v {program}")])
            .stdout(Stdio::null());
        !quiet.status().unwrap().success()
    };
    let Some(missing) = programs.iter().find(found) else {
        return can_run();
    };
    assert!(std::env::var_os("CI").is_none(), "CI must have {missing}");
    eprintln!("SKIPPED: this test needs {missing}");
    false
}

/// Whether a program ends well, whatever it says.
pub fn run_quietly(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Runs a program to its end, which has to be a good one.
#[track_caller]
pub fn must(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}

/// A program that Ctrl-C ends, also where these tests were started by something that ignores it, as a script's background
/// jobs do.
pub fn interruptible(program: &str) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", program]);
    command
}

/// Gives a program a wrong wall clock by libfaketime. The monotonic clock stays right, as it is on any machine: timers and
/// locks count by it, and the kernel's would differ from what the program sees.
pub fn skew(command: &mut Command, wrong: &str) {
    let library = format!(
        "/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1",
        std::env::consts::ARCH
    );
    command.env("LD_PRELOAD", library).env("FAKETIME", wrong);
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command.env("NO_FAKE_STAT", "1");
    // what it shares between processes would outlive one that is killed
    command.env("FAKETIME_DISABLE_SHM", "1");
}

/// `ip` of iproute2 with these words.
#[track_caller]
pub fn ip(words: &str) {
    must(Command::new("ip").args(words.split_whitespace()));
}

/// A process or one of its threads, as /proc/PID/stat has it (see proc(5)).
pub struct Stat {
    pub name: String,
    pub state: char,
    pub parent: u32,
}

impl Stat {
    /// Of a path below /proc; none if it is gone.
    pub fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path.join("stat")).ok()?;
        let (start, end) = (text.find('(')?, text.rfind(')')?);
        let mut rest = text[end + 1..].split_ascii_whitespace();
        Some(Self {
            name: text[start + 1..end].to_owned(),
            state: rest.next()?.chars().next()?,
            parent: rest.next()?.parse().ok()?,
        })
    }
}

/// Whether a process has come to its end, also where nobody has asked for its status yet.
pub fn is_over(pid: u32) -> bool {
    let stat = Stat::read(&Path::new("/proc").join(pid.to_string()));
    stat.is_none_or(|stat| stat.state == 'Z')
}

/// The process that watches over the mount of another one, once it does.
#[track_caller]
pub fn watcher(pid: u32) -> u32 {
    let mut watcher = None;
    eventually(WATCHING_MAX, "somebody watches over the mount", || {
        watcher = watcher_of(pid);
        watcher.is_some()
    });
    watcher.unwrap()
}

/// The same, if there is one.
pub fn watcher_of(pid: u32) -> Option<u32> {
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let mut processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.find_map(|process| {
        let stat = Stat::read(&process.path())?;
        let is_it = stat.parent == pid && stat.name == "mount-watcher";
        is_it.then(|| number(process)).flatten()
    })
}

/// Whether a watcher has nothing open that has a path but its connection's switch.
pub fn holds_the_switch_alone(watcher: u32) -> bool {
    let files = std::fs::read_dir(format!("/proc/{watcher}/fd")).unwrap();
    let files = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
    // sockets and the like have no path
    let mut named = files.filter(|file| file.is_absolute() && file != Path::new("/dev/null"));
    named.next().is_some_and(|file| file.ends_with("abort"))
        && named.all(|file| file.ends_with("abort"))
}

/// Sends a signal.
#[track_caller]
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// A process that ends with the test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes that differ with the seed and do not repeat.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// SHA-256 of a file, in hex.
pub fn sha256(path: &Path) -> String {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    std::io::copy(
        &mut std::fs::File::open(path).unwrap(),
        &mut HashWriter(&mut hash),
    )
    .unwrap();
    hash.finalize()
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

struct HashWriter<'a>(&'a mut sha2::Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        sha2::Digest::update(self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
