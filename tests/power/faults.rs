//! The drive fails at any write or flush, or has no room.

use crate::cuts::{Machine, with_machine};
use crate::support::eventually;
use std::fs::File;
use std::time::Duration;

/// A fault comes within so many writes and flushes: about as many as a second of the load makes.
const FAULT_WITHIN: u64 = 700;

const LIFE: Duration = Duration::from_millis(1200);

const SOON: Duration = Duration::from_secs(30);

/// Bytes that are left where the disk is nearly full.
const LEFT: u64 = 24 << 20;

impl Machine<'_> {
    /// Work, a fault in the midst of it, a look, another start with a drive that works, and a look.
    fn fault(&mut self, round: u64) {
        let crew = self.work();
        let after = self.random.below(FAULT_WITHIN);
        let count = [1, u64::MAX][self.random.below(2) as usize];
        self.drive.fail(after, count);
        std::thread::sleep(LIFE);
        self.rest(crew);
        let when = format!("round {round}, {count} faults from {after} on");
        let (paths, promised) = self.look(&when);
        let reason = self.node.as_ref().unwrap().status()["read_only"].clone();
        eprintln!("{when}: {paths} paths, {promised} promised, read-only: {reason}");
        if count > 1 {
            assert!(reason.is_string(), "{when}: it goes on without a disk");
        }
        if self.random.below(2) == 0 {
            self.drive.cut(&mut self.random);
        }
        self.start_again();
        self.check(&when);
    }

    /// Work until there is no room, and on when there is some again.
    fn fill(&mut self) {
        let node = self.node.as_ref().unwrap();
        let ballast = node.root.join("ballast");
        let space = rustix::fs::statvfs(&node.root).unwrap();
        let free = space.f_bavail * space.f_frsize;
        let file = File::create(&ballast).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free - LEFT).unwrap();
        let crew = self.work();
        let node = self.node.as_ref().unwrap();
        eventually(SOON, "there is no room", || {
            let wrote = std::fs::write(node.path("more"), vec![1; 4 << 20]);
            wrote.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
        });
        self.rest(crew);
        self.check("full");
        std::fs::remove_file(&ballast).unwrap();
        let node = self.node.as_ref().unwrap();
        eventually(SOON, "there is room", || {
            std::fs::write(node.path("more"), "more").is_ok()
        });
        self.check("with room again");
    }
}

fn fail_again_and_again(rounds: u64) {
    with_machine(|machine| {
        machine.fill();
        for round in 0..rounds {
            machine.fault(round);
        }
    });
}

#[test]
fn what_was_synced_outlives_a_drive_that_fails() {
    fail_again_and_again(6);
}

#[test]
#[ignore = "long: minutes of faults"]
fn what_was_synced_outlives_a_drive_that_fails_again_and_again() {
    fail_again_and_again(60);
}
