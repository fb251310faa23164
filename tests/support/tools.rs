//! What is on this machine, and how it is run.

use std::path::Path;
use std::process::{Child, Command, Stdio};

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
