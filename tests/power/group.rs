//! What syncing costs.

use crate::boot::Boot;
use crate::cuts::{Machine, can_cut};
use crate::support::Lab;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;

/// Who sync at once.
const USERS: usize = 48;

/// A drive that takes so long for a flush, as disks do.
const FLUSH: Duration = Duration::from_millis(10);

/// New files, with bytes, still open.
fn files(mount: &Path, name: &str) -> Vec<File> {
    let new = |number: usize| {
        let mut file = File::create_new(mount.join(format!("{name}{number}"))).unwrap();
        file.write_all(&[number as u8; 5_000]).unwrap();
        file
    };
    (0..USERS).map(new).collect()
}

#[test]
fn many_syncs_at_once_cost_little_more_than_one() {
    if !can_cut() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let boot = Boot::new(folder.path());
    let lab = Lab::new(1);
    let mut machine = Machine::new(&lab, boot, 1);
    let mount = machine.node.as_ref().unwrap().path("");
    machine.drive.slow(FLUSH);

    let (before, one_by_one) = (machine.drive.flushes(), files(&mount, "alone"));
    for file in &one_by_one {
        file.sync_all().unwrap();
    }
    let alone = machine.drive.flushes() - before;

    let (at_once, barrier) = (files(&mount, "together"), Barrier::new(USERS));
    let before = machine.drive.flushes();
    std::thread::scope(|scope| {
        for file in &at_once {
            scope.spawn(|| {
                barrier.wait();
                file.sync_all().unwrap();
            });
        }
    });
    let together = machine.drive.flushes() - before;
    eprintln!("flushes for {USERS} syncs: {alone} one by one, {together} at once");
    assert!(alone >= USERS as u64, "the drive sees each sync");
    assert!(together * 4 < alone, "{together} of {alone}");
    drop((one_by_one, at_once));
    machine.ends_well();
}
