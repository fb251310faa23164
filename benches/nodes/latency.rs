//! From `close()` on one host until the other lists the file, and until it has read all of it.

use crate::machine::{QUANTILES, quantiles, table};
use crate::support::{Lab, Node, noise};
use crate::{MEASURE_MAX, pair, until};
use std::fs;
use std::time::{Duration, Instant};

const ROUNDS: u64 = 50;

pub(crate) fn run() {
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    let mut rows = Vec::new();
    for (shown, length) in [("1 KiB", 1 << 10), ("1 MiB", 1 << 20)] {
        let (visible, whole) = rounds(&first, &second, length);
        for (what, times) in [("visible", visible), ("read whole", whole)] {
            let mut row = vec![shown.to_owned(), what.to_owned()];
            row.extend(quantiles(times));
            rows.push(row);
        }
    }
    let mut heads = vec!["file", "close() until"];
    heads.extend(QUANTILES);
    table(&heads, &rows);
}

fn rounds(first: &Node, second: &Node, length: usize) -> (Vec<Duration>, Vec<Duration>) {
    let (mut visible, mut whole) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for round in 0..ROUNDS {
        if begun.elapsed() > MEASURE_MAX {
            break;
        }
        let name = format!("latency-{length}-{round}");
        let bytes = noise(round + length as u64, length);
        fs::write(first.path(&name), &bytes).unwrap();
        let closed = Instant::now();
        let there = second.path(&name);
        visible.push(until(closed, &name, || there.exists()));
        let read = fs::read(&there).unwrap();
        whole.push(closed.elapsed());
        assert!(read == bytes, "{name} has other bytes there");
    }
    (visible, whole)
}
