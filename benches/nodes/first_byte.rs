//! The first 4 KiB out of a file whose bytes are on the other host only, at its start and at its end, for two sizes:
//! the size should not matter.

use crate::machine::{QUANTILES, quantiles, table};
use crate::support::{Lab, Node, eventually, noise};
use crate::{MEASURE_MAX, WAIT_MAX, pair};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const READ: usize = 4 << 10;

pub(crate) fn run() {
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    // or the other node would fetch a copy by itself
    first.set("copies", "1");
    eventually(WAIT_MAX, "both have the setting", || {
        first.head() == second.head()
    });
    let mut rows = Vec::new();
    // the large ones take their time to be hashed
    for (shown, length, files) in [("16 MiB", 16 << 20, 40), ("1 GiB", 1 << 30, 10)] {
        let made = make(&first, length, files);
        let there = second.path(&format!("large-{length}-{}", made - 1));
        eventually(WAIT_MAX, "the last name is there", || there.exists());
        // each file is read at one place: read ahead from the one might bring the other
        for (place, at) in [("start", 0), ("end", length - READ as u64)] {
            let numbers = (0..made).filter(|number| (number % 2 == 0) == (at == 0));
            let times = numbers.map(|number| read(&second, length, number, at));
            let mut row = vec![shown.to_owned(), place.to_owned()];
            row.extend(quantiles(times.collect()));
            rows.push(row);
        }
    }
    let mut heads = vec!["file", "4 KiB at its"];
    heads.extend(QUANTILES);
    table(&heads, &rows);
}

fn edge(length: u64, number: u64, at: u64) -> Vec<u8> {
    noise(length ^ (number << 8) ^ u64::from(at == 0), READ)
}

/// Files with noise at both ends, and a hole between: the pieces are moved all the same.
fn make(node: &Node, length: u64, files: u64) -> u64 {
    let begun = Instant::now();
    for number in 0..files {
        let file = File::create(node.path(&format!("large-{length}-{number}"))).unwrap();
        for at in [0, length - READ as u64] {
            file.write_all_at(&edge(length, number, at), at).unwrap();
        }
        drop(file);
        eventually(WAIT_MAX, "it is hashed", || {
            node.status()["contents"]["unsealed"] == 0
        });
        if begun.elapsed() > MEASURE_MAX {
            return number + 1;
        }
    }
    files
}

fn read(node: &Node, length: u64, number: u64, at: u64) -> Duration {
    let path = node.path(&format!("large-{length}-{number}"));
    let mut bytes = vec![0; READ];
    let start = Instant::now();
    File::open(path)
        .unwrap()
        .read_exact_at(&mut bytes, at)
        .unwrap();
    let time = start.elapsed();
    assert!(bytes == edge(length, number, at), "other bytes arrived");
    time
}
