//! Gigabytes: writing them, comparing them, and what a node needs in memory for them.

use super::{Node, noise};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of noise made at a time.
const PART: usize = 8 << 20;

/// Writes so many bytes that do not repeat; the file is still open afterwards.
pub fn write_noise(path: &Path, length: u64) -> File {
    let mut file = File::create(path).unwrap();
    let mut left = length;
    for seed in 1.. {
        let part = noise(seed, left.min(PART as u64) as usize);
        if part.is_empty() {
            break;
        }
        file.write_all(&part).unwrap();
        left -= part.len() as u64;
    }
    file
}

/// Whether two files have the same bytes.
pub fn same_bytes(one: &Path, other: &Path) -> bool {
    let files = [one, other].map(|path| File::open(path).unwrap());
    let [length, expected] = files.each_ref().map(|file| file.metadata().unwrap().len());
    length == expected && same_until(&files, 0) == length
}

/// Where two files first differ, looking from `offset` on; parts that end together count as a whole.
fn same_until([one, other]: &[File; 2], mut offset: u64) -> u64 {
    let mut buffers = [vec![0; 1 << 20], vec![0; 1 << 20]];
    loop {
        let [first, second] = &mut buffers;
        let found = read_part(one, first, offset);
        let same = found == read_part(other, second, offset) && first[..found] == second[..found];
        if !same || found == 0 {
            return offset;
        }
        offset += found as u64;
    }
}

fn read_part(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut found = 0;
    while found < buffer.len() {
        match file
            .read_at(&mut buffer[found..], offset + found as u64)
            .unwrap()
        {
            0 => break,
            more => found += more,
        }
    }
    found
}

/// Follows a file that becomes a copy of another, in whatever order its parts arrive: what was the same once is
/// not read again.
pub struct Becoming<'a> {
    copy: &'a Path,
    original: &'a Path,
    same: u64,
}

impl<'a> Becoming<'a> {
    pub fn new(copy: &'a Path, original: &'a Path) -> Self {
        Self {
            copy,
            original,
            same: 0,
        }
    }

    /// Whether it is whole as far as one pass over it tells; [`same_bytes`] is the proof.
    pub fn is_whole(&mut self) -> bool {
        let length = self.original.metadata().unwrap().len();
        let Ok(copy) = File::open(self.copy) else {
            return false;
        };
        self.same = same_until(&[copy, File::open(self.original).unwrap()], self.same);
        self.same == length
    }
}

impl Node {
    /// The most memory that the process has had, in megabytes.
    pub fn most_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
        kibibytes.parse::<u64>().unwrap() * 1024 / 1_000_000
    }
}

/// Megabytes a second.
pub fn rate(bytes: u64, took: std::time::Duration) -> String {
    format!("{} MB/s", u128::from(bytes) / took.as_micros().max(1))
}
