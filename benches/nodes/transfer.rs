//! 1 GiB from one host to the other, beside libtorrent doing the same between the same two hosts.

use crate::machine::{processor_seconds, seconds, table};
use crate::support::{Lab, noise};
use crate::{pair, until};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LENGTH: u64 = 1 << 30;
const CHUNK: usize = 1 << 20;
const LIBTORRENT: &str = include_str!("libtorrent.py");

struct Ours {
    copied: Duration,
    visible: Duration,
    whole: Duration,
    processor: [f64; 2],
}

struct Theirs {
    hashed: Duration,
    whole: Duration,
}

pub(crate) fn run() {
    let lab = Lab::new(2);
    let source = lab.folder("source").join("file");
    write_noise(&source);
    let ours = ours(&lab, &source);
    let theirs = libtorrent(&lab, &source);
    show(&ours, &theirs);
}

fn write_noise(path: &Path) {
    let mut file = File::create(path).unwrap();
    let mut chunk = noise(1, CHUNK);
    for number in 0..LENGTH / CHUNK as u64 {
        // a number in each block is enough: no two pieces are the same
        for block in chunk.chunks_mut(1 << 14) {
            block[..8].copy_from_slice(&number.to_le_bytes());
        }
        file.write_all(&chunk).unwrap();
    }
}

fn ours(lab: &Lab, source: &Path) -> Ours {
    let (first, second) = pair(lab);
    let used = || [processor_seconds(&first), processor_seconds(&second)];
    let before = used();
    let start = Instant::now();
    let copied = Command::new("cp")
        .arg(source)
        .arg(first.path("file"))
        .status();
    assert!(copied.unwrap().success());
    let (copied, closed) = (start.elapsed(), Instant::now());
    let there = second.path("file");
    let visible = until(closed, "its name", || {
        there.metadata().is_ok_and(|seen| seen.len() == LENGTH)
    });
    assert!(is_same(source, &there), "other bytes arrived");
    let whole = closed.elapsed();
    let after = used();
    Ours {
        copied,
        visible,
        whole,
        processor: [after[0] - before[0], after[1] - before[1]],
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let (mut one, mut other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    for _ in 0..LENGTH / CHUNK as u64 {
        one.read_exact(&mut left).unwrap();
        other.read_exact(&mut right).unwrap();
        if left != right {
            return false;
        }
    }
    true
}

/// A process that ends with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn libtorrent(lab: &Lab, source: &Path) -> Theirs {
    let torrent = lab.folder("libtorrent").join("file.torrent");
    let target = lab.folder("libtorrent-target");
    let python = |host, role: &str| {
        let mut command = lab.command(host, "/usr/bin/python3");
        command.args(["-c", LIBTORRENT, role]).arg(&torrent);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    };
    let mut seeder = Ended(
        python(1, "seed")
            .arg(source)
            .arg("10.77.0.1")
            .spawn()
            .unwrap(),
    );
    let mut said = BufReader::new(seeder.0.stdout.take().unwrap());
    let (hashed, port) = (figure(&mut said), figure(&mut said));
    let mut leecher = Ended(
        python(2, "leech")
            .arg(&target)
            .arg("10.77.0.2")
            .arg(format!("10.77.0.1:{port}"))
            .spawn()
            .unwrap(),
    );
    let mut said = BufReader::new(leecher.0.stdout.take().unwrap());
    let whole = figure(&mut said);
    assert!(
        is_same(source, &target.join("file")),
        "libtorrent brought other bytes"
    );
    fs::remove_file(target.join("file")).unwrap();
    Theirs {
        hashed: Duration::from_secs_f64(hashed),
        whole: Duration::from_secs_f64(whole),
    }
}

fn figure(said: &mut impl BufRead) -> f64 {
    let mut line = String::new();
    let read: io::Result<usize> = said.read_line(&mut line);
    read.unwrap();
    let parsed = line.trim().parse();
    parsed.unwrap_or_else(|_| panic!("libtorrent did not answer with a figure but {line:?}"))
}

fn show(ours: &Ours, theirs: &Theirs) {
    let moved = ours.whole - ours.visible;
    let rate = |time: Duration| format!("{:.0} MB/s", LENGTH as f64 / 1e6 / time.as_secs_f64());
    let row = |what: &str, ours: Duration, theirs: Duration| {
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        vec![
            what.to_owned(),
            format!("{} ({})", seconds(ours), rate(ours)),
            format!("{} ({})", seconds(theirs), rate(theirs)),
            format!("{ratio:.2}"),
        ]
    };
    table(
        &["1 GiB", "delugefs", "libtorrent", "ratio of times"],
        &[
            row(
                "hashed, named, name there | hashed",
                ours.visible,
                theirs.hashed,
            ),
            row(
                "from then until all bytes are there, and read",
                moved,
                theirs.whole,
            ),
            row("both", ours.whole, theirs.hashed + theirs.whole),
        ]
        .map(|mut row| {
            row[0] = row[0].replace('|', "/");
            row
        }),
    );
    println!(
        "\ncp into the mount, before all this: {} ({}); processor time of the two nodes for all of it: {:.1} s and {:.1} s",
        seconds(ours.copied),
        rate(ours.copied),
        ours.processor[0],
        ours.processor[1]
    );
}
