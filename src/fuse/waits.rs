//! Requests that wait, and the signals that end them.
//!
//! The kernel lets a process die only when its request is answered, and tells us nothing of its signals. So
//! while a request waits, a thread looks at the requesting thread's pending signals in /proc.

use crate::filesystem::Inode;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// Between two looks at the requesters: Ctrl-C is to end a wait within a second.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Added for each requester, so that a thousand of them don't cost a core.
const LOOK_EVERY_EACH: Duration = Duration::from_micros(500);

/// Even with many requesters.
const LOOK_EVERY_MAX: Duration = Duration::from_millis(900);

/// Signals that ask a process to end, also one that handles them: HUP, INT, QUIT, TERM. Other signals that
/// are handled (timers, children, window sizes) must not make a read of a regular file fail.
const ASK_TO_END: u64 = bit(1) | bit(2) | bit(3) | bit(15);

/// Signals that end nothing by default: CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH.
const HARMLESS: u64 = bit(17) | bit(18) | bit(19) | bit(20) | bit(21) | bit(22) | bit(23) | bit(28);

const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// Watches over the threads whose requests wait. The kernel bounds their number: one synchronous request a
/// thread, and `max_background` others.
#[derive(Debug)]
pub(super) struct Waits(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    watched: Mutex<BTreeMap<u32, Watched>>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Watched {
    requests: usize,
    ends: Arc<Notify>,
}

impl Waits {
    /// Starts the thread; it ends with this value.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let weak = Arc::downgrade(&shared);
        let thread = std::thread::Builder::new().name("fuse-signals".into());
        thread.spawn(move || look(&weak))?;
        Ok(Self(shared))
    }

    /// Completes when the thread `tid` should not be kept waiting any more.
    pub(super) fn interrupted(&self, tid: u32) -> impl Future<Output = ()> + Send + use<> {
        let guard = Waiting::new(Arc::clone(&self.0), tid);
        async move { guard.ends.notified().await }
    }
}

/// Counted as long as it lives.
struct Waiting {
    shared: Arc<Shared>,
    tid: u32,
    ends: Arc<Notify>,
}

impl Waiting {
    fn new(shared: Arc<Shared>, tid: u32) -> Self {
        let mut watched = shared.lock();
        let entry = watched.entry(tid).or_default();
        entry.requests += 1;
        let ends = Arc::clone(&entry.ends);
        drop(watched);
        shared.arrived.notify_all();
        Self { shared, tid, ends }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut watched = self.shared.lock();
        if let Some(entry) = watched.get_mut(&self.tid) {
            entry.requests -= 1;
            if entry.requests == 0 {
                watched.remove(&self.tid);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who waits, once somebody does. Empty after a while, for the thread to see whether it is still needed.
    fn watched(&self) -> Vec<(u32, Arc<Notify>)> {
        let mut watched = self.lock();
        if watched.is_empty() {
            let idle = self.arrived.wait_timeout(watched, LOOK_EVERY_MAX);
            watched = idle.unwrap_or_else(PoisonError::into_inner).0;
        }
        let each = watched.iter();
        each.map(|(tid, entry)| (*tid, Arc::clone(&entry.ends)))
            .collect()
    }
}

/// The files whose new length waits for bytes: their requests hold the kernel's lock of the inode.
#[derive(Debug, Clone, Default)]
pub(super) struct Resizing(Arc<Mutex<BTreeMap<Inode, usize>>>);

/// Counted as long as it lives.
pub(super) struct Resize(Resizing, Inode);

impl Resizing {
    pub(super) fn begin(&self, inode: Inode) -> Resize {
        *self.lock().entry(inode).or_default() += 1;
        Resize(self.clone(), inode)
    }

    pub(super) fn contains(&self, inode: Inode) -> bool {
        self.lock().contains_key(&inode)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Inode, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Resize {
    fn drop(&mut self) {
        let mut files = self.0.lock();
        if let Some(count) = files.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                files.remove(&self.1);
            }
        }
    }
}

fn look(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let watched = shared.watched();
        drop(shared);
        for (tid, ends) in &watched {
            if requester(*tid).is_over() {
                ends.notify_waiters();
            }
        }
        if !watched.is_empty() {
            let each = LOOK_EVERY_EACH * u32::try_from(watched.len()).unwrap_or(u32::MAX >> 8);
            std::thread::sleep((LOOK_EVERY + each).min(LOOK_EVERY_MAX));
        }
    }
}

/// What is known of a thread that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requester {
    Waits,
    /// A signal asks it to end.
    Ends,
    Gone,
}

impl Requester {
    fn is_over(self) -> bool {
        self != Self::Waits
    }
}

fn requester(tid: u32) -> Requester {
    match std::fs::read(format!("/proc/{tid}/status")) {
        Ok(status) => parse(&String::from_utf8_lossy(&status)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !exists(tid) => Requester::Gone,
        // Not ours to see (`hidepid`): the wait has its own end.
        Err(_) => Requester::Waits,
    }
}

/// Whether there is such a thread, also one that /proc hides.
fn exists(tid: u32) -> bool {
    let pid = i32::try_from(tid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    pid.is_none_or(|pid| {
        let tested = rustix::process::test_kill_process(pid);
        tested != Err(rustix::io::Errno::SRCH)
    })
}

/// Reads the text of `/proc/TID/status` (see proc(5)).
fn parse(status: &str) -> Requester {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches(':').trim())
    };
    let mask = |name| field(name).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    if field("State").is_some_and(|state| state.starts_with(['Z', 'X'])) {
        return Requester::Gone;
    }
    let (Some(own), Some(shared)) = (mask("SigPnd"), mask("ShdPnd")) else {
        return Requester::Waits;
    };
    let kept_back = mask("SigBlk").unwrap_or(0) | mask("SigIgn").unwrap_or(0);
    let deliverable = (own | shared) & !kept_back;
    let fatal = deliverable & !mask("SigCgt").unwrap_or(0) & !HARMLESS;
    if fatal != 0 || deliverable & ASK_TO_END != 0 {
        return Requester::Ends;
    }
    Requester::Waits
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn status(pending: [&str; 2], blocked: &str, ignored: &str, caught: &str) -> String {
        format!(
            "Name:\tcat\nUmask:\t0022\nState:\tD (disk sleep)\nTgid:\t4711\nPid:\t4711\n\
             Threads:\t1\nSigQ:\t0/63432\nSigPnd:\t{}\nShdPnd:\t{}\nSigBlk:\t{blocked}\n\
             SigIgn:\t{ignored}\nSigCgt:\t{caught}\nCapInh:\t0000000000000000\n",
            pending[0], pending[1]
        )
    }

    const NONE: &str = "0000000000000000";
    const INT: &str = "0000000000000002";
    const KILL: &str = "0000000000000100";
    const ALRM: &str = "0000000000002000";
    const USR1: &str = "0000000000000200";
    const TSTP: &str = "0000000000080000";

    #[test]
    fn nothing_pending_waits_on() {
        assert_eq!(
            parse(&status([NONE, NONE], NONE, NONE, INT)),
            Requester::Waits
        );
    }

    #[test]
    fn ctrl_c_ends_it_also_where_it_is_handled() {
        assert_eq!(
            parse(&status([NONE, INT], NONE, NONE, NONE)),
            Requester::Ends
        );
        assert_eq!(
            parse(&status([NONE, INT], NONE, NONE, INT)),
            Requester::Ends
        );
        assert_eq!(
            parse(&status([INT, NONE], NONE, NONE, INT)),
            Requester::Ends
        );
    }

    #[test]
    fn blocked_and_ignored_signals_do_not() {
        assert_eq!(
            parse(&status([NONE, INT], INT, NONE, NONE)),
            Requester::Waits
        );
        assert_eq!(
            parse(&status([NONE, INT], NONE, INT, NONE)),
            Requester::Waits
        );
    }

    #[test]
    fn kill_does() {
        assert_eq!(
            parse(&status([KILL, NONE], NONE, NONE, NONE)),
            Requester::Ends
        );
    }

    #[test]
    fn a_handled_timer_does_not_but_a_fatal_one_does() {
        assert_eq!(
            parse(&status([NONE, ALRM], NONE, NONE, ALRM)),
            Requester::Waits
        );
        assert_eq!(
            parse(&status([NONE, USR1], NONE, NONE, NONE)),
            Requester::Ends
        );
    }

    #[test]
    fn ctrl_z_lets_the_read_finish_first() {
        assert_eq!(
            parse(&status([NONE, TSTP], NONE, NONE, NONE)),
            Requester::Waits
        );
    }

    #[test]
    fn the_dead_do_not_wait() {
        let zombie = status([NONE, NONE], NONE, NONE, NONE).replace("D (disk sleep)", "Z (zombie)");
        assert_eq!(parse(&zombie), Requester::Gone);
    }

    #[test]
    fn garbage_waits_on() {
        for text in [
            "",
            "SigPnd:\tzz\nShdPnd:\t-1\n",
            "SigPnd:\t0000000000000002\n",
        ] {
            assert_eq!(parse(text), Requester::Waits, "{text:?}");
        }
    }

    #[test]
    fn this_thread_waits_and_one_that_never_was_is_gone() {
        assert_eq!(requester(std::process::id()), Requester::Waits);
        // Beyond the largest number that the kernel gives (`PID_MAX_LIMIT`, 4 Mi).
        assert_eq!(requester(1 << 23), Requester::Gone);
    }

    #[tokio::test]
    async fn a_wait_of_the_gone_ends() {
        let waits = Waits::start().unwrap();
        waits.interrupted(1 << 23).await;
        assert!(waits.0.lock().is_empty());
    }
}
