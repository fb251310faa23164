//! A process beside each mount, which ends the mount's connection when the node has died and cannot go.
//!
//! A thread of the node tells the kernel of changes (`notify`). In the kernel it may have to wait for a folder that a
//! user's request holds; that request waits for the node's answer. If the node is killed now, the answer never comes, and
//! the thread, which waits where no signal reaches it, never ends. It keeps what it shares with the threads that are gone:
//! `/dev/fuse` stays open, so the kernel does not end the connection, and mount, process and the root's lock stay for ever.
//!
//! What the kernel does at the end of a process is not done then, so nothing of it tells of the death: no closed pipe, no
//! lock, no pidfd. So the watcher looks, each second. Reasons and other ways: docs/adr/0014.

use super::connection::Switch;
use crate::process::is_dead;
use std::ffi::CStr;
use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// The hidden word that makes the program a watcher.
pub const COMMAND: &str = "watch-over-mount";

/// What the process is called, so that `killall -9 delugefs` leaves it alone.
const NAME: &CStr = c"mount-watcher";

/// Between two looks: so long a dead node's users wait at most.
const LOOK: Duration = Duration::from_secs(1);

/// How long a watcher that is told to end may take; nobody waits longer for one that is stopped or frozen.
const END_MAX: Duration = Duration::from_secs(5);

/// The node's side: a watcher that lives as long as this. If it ends before, nothing else does.
#[derive(Debug)]
pub(super) struct Watcher {
    /// The watcher's standard input: closed, it ends.
    line: UnixStream,
    keeper: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts `program` as the watcher of a connection.
    pub(super) fn start(program: &Path, switch: &Switch) -> io::Result<Self> {
        let (line, theirs) = UnixStream::pair()?;
        line.set_read_timeout(Some(END_MAX))?;
        let child = command(program, theirs, switch)?.spawn()?;
        let keeper = thread::Builder::new().name("watcher".into());
        let keeper = keeper.spawn(|| keep(child))?;
        Ok(Self {
            line,
            keeper: Some(keeper),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let told = self.line.shutdown(Shutdown::Write);
        let has_ended = told.and_then(|()| self.line.read_to_end(&mut Vec::new()));
        if let (Ok(_), Some(keeper)) = (has_ended, self.keeper.take()) {
            let _ = keeper.join();
        }
    }
}

fn command(program: &Path, line: UnixStream, switch: &Switch) -> io::Result<Command> {
    let mut command = Command::new(program);
    command
        .arg0("delugefs")
        .arg(COMMAND)
        .current_dir("/")
        // Ctrl-C, and `kill` of a job, are for the node
        .process_group(0)
        .stdin(OwnedFd::from(line))
        .stdout(switch.for_child()?)
        .stderr(Stdio::null());
    Ok(command)
}

/// Waits for a watcher's end, so that it does not stay as a zombie, and says so if nobody has asked for it.
fn keep(mut child: Child) {
    match child.wait() {
        Ok(status) if status.success() => {}
        Ok(status) => tell_unwatched(&format!("the watcher ended: {status}")),
        Err(error) => tell_unwatched(&error.to_string()),
    }
}

/// Says what it means that there is no watcher.
pub(super) fn tell_unwatched(reason: &str) {
    tracing::warn!(
        "nobody watches over the mount; if this node is killed, it may hang until the next start ({reason})"
    );
}

/// The watcher's side, until the node ends or is dead. Its standard input is the line to the node, its standard output the
/// connection's switch.
pub fn watch_over_mount() -> io::Result<()> {
    be_deaf()?;
    rustix::thread::set_name(NAME)?;
    let mut line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    line.set_read_timeout(Some(LOOK))?;
    let (node, switch) = (parent_id(), Switch::of_stdout()?);
    loop {
        match line.read(&mut [0]) {
            // the mount is gone, or the node with all that it had open
            Ok(_) => return Ok(()),
            Err(error) if !is_time(&error) => return Err(error),
            Err(_) if is_dead(node) => return switch.abort(),
            Err(_) => {}
        }
    }
}

/// Who ends a service or a session ends the node, and that one ends its watcher.
fn be_deaf() -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ] {
        // caught once, it is never the end again
        drop(signal(kind)?);
    }
    Ok(())
}

fn is_time(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
