//! The scrub: one thread that reads what this disk holds again and again, slowly, and at once what somebody doubts.
//! What is next and how fast is decided in `core::scrub`; what follows from damage, in `bytes::damage`.

use super::shared::{Shared, unix_time};
use crate::bytes::damage::Verdict;
use delugefs_core::ids::InfoHash;
use delugefs_core::scrub::{RATE_MAX, Scrub, Step, Suspect};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Contents listed at a time.
const LIST_MAX: usize = 1024;

/// How far it is, is written down so often: what a crash makes it read again.
const STORE_EVERY: Duration = Duration::from_secs(10);

/// Clocks jump: the time of the next pass is looked at anew after this.
const REST_MAX: Duration = Duration::from_mins(10);

/// What was not read in time before is made up for only so far: the disk's readers were in the way, and come again.
const CATCH_UP_MAX: Duration = Duration::from_millis(100);

/// The lowest priority (setpriority(2)); the kernel derives the thread's priority at the disk from it (ioprio_set(2)).
const NICE: i32 = 19;

/// Starts the thread. It ends after the node's stop, once it is rung.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let mut thread = Scrubbing {
        shared: Arc::clone(shared),
        due: Instant::now(),
        stored: Instant::now(),
    };
    let runtime = Handle::current();
    let run = move || {
        let _inside = runtime.enter();
        be_nice();
        thread.run();
    };
    std::thread::Builder::new().name("scrub".into()).spawn(run)
}

fn be_nice() {
    let own = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(own), NICE) {
        tracing::debug!("the scrub runs at normal priority: {error}");
    }
}

struct Scrubbing {
    shared: Arc<Shared>,
    /// When the next piece may be read.
    due: Instant,
    stored: Instant,
}

impl Scrubbing {
    fn run(&mut self) {
        let shared = Arc::clone(&self.shared);
        let scrub = &shared.replica.scrub;
        while !shared.stop.is_cancelled() {
            match scrub.with(|scrub| scrub.next(unix_time())) {
                Step::Suspect(suspect) => self.examine(&suspect),
                Step::List(after) => list(&shared, after),
                Step::Check { content, from } => self.check(content, from),
                Step::Rest(rest) => scrub.wait(rest.min(REST_MAX)),
            }
            self.store_now_and_then();
        }
        scrub.store();
    }

    /// A suspect is read at once.
    fn examine(&mut self, suspect: &Suspect) {
        let pieces = suspect.piece.map(|piece| piece..piece.saturating_add(1));
        let shared = Arc::clone(&self.shared);
        shared
            .replica
            .recheck(&suspect.content, pieces, &mut |_, bytes| {
                self.may_read_after(bytes, RATE_MAX);
                self.pause(false)
            });
    }

    fn check(&mut self, content: InfoHash, from: u32) {
        let shared = Arc::clone(&self.shared);
        let (replica, scrub) = (&shared.replica, &shared.replica.scrub);
        let held_bytes = replica.store.space().map_or(0, |space| space.used);
        let pieces = (from > 0).then_some(from..u32::MAX);
        let verdict = replica.recheck(&content, pieces, &mut |piece, bytes| {
            let rate = scrub.with(|scrub| {
                scrub.read(content, piece, bytes);
                scrub.rate(held_bytes)
            });
            self.may_read_after(bytes, rate);
            self.store_now_and_then();
            self.pause(true)
        });
        if !shared.stop.is_cancelled() {
            scrub.with(|scrub| scrub.checked(content, verdict != Verdict::Unknown));
        }
    }

    fn may_read_after(&mut self, bytes: u64, rate: u64) {
        let now = Instant::now();
        let behind = now.checked_sub(CATCH_UP_MAX).unwrap_or(now);
        let time = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        self.due = self.due.max(behind) + time;
    }

    /// Until the next piece may be read. Suspects are not kept waiting by it. Whether to go on.
    fn pause(&mut self, take_suspects: bool) -> bool {
        let shared = Arc::clone(&self.shared);
        let scrub = &shared.replica.scrub;
        loop {
            if shared.stop.is_cancelled() {
                return false;
            }
            if take_suspects && let Some(suspect) = scrub.with(Scrub::take_suspect) {
                self.examine(&suspect);
                continue;
            }
            match self.due.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => scrub.wait(left),
                _ => return true,
            }
        }
    }

    fn store_now_and_then(&mut self) {
        if self.stored.elapsed() >= STORE_EVERY {
            self.stored = Instant::now();
            self.shared.replica.scrub.store();
        }
    }
}

fn list(shared: &Shared, after: Option<InfoHash>) {
    let contents = shared.replica.held_after(after, LIST_MAX);
    let scrub = &shared.replica.scrub;
    let is_over = contents.is_empty();
    let pass = scrub.with(|scrub| {
        scrub.listed(contents, unix_time());
        *scrub.pass()
    });
    if is_over {
        scrub.store();
    }
    if is_over && pass.contents > 0 {
        let size = crate::cli::units::show_size(pass.bytes);
        let (checked, found) = (pass.contents, pass.found);
        tracing::info!("scrub: {checked} contents read again, {size}; {found} were damaged");
    }
}
