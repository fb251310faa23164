//! What a drive holds, and what it forgets or refuses.

use crate::support::random::Random;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Bytes: enough for all that a test writes, few enough that ext4 makes it in no time.
pub const SIZE: u64 = 512 << 20;

/// What the cache keeps together, in bytes.
pub const BLOCK: u64 = 4096;

/// What a drive writes whole or not at all, in bytes.
const SECTOR: usize = 512;

/// What outlives a power cut, and what does not.
pub struct Platter {
    durable: File,
    /// Blocks written since the last flush, by number.
    cache: BTreeMap<u64, Vec<u8>>,
    /// The power is off: what was to be kept. Writes are taken since, and lost.
    left: Option<BTreeMap<u64, Vec<u8>>>,
    /// Writes and flushes so far.
    done: u64,
    flushes: u64,
    /// What a flush takes.
    slowness: Duration,
    /// Those that fail, by number.
    failing: Range<u64>,
}

impl Platter {
    /// With this file, [`SIZE`] long, as what is durable.
    pub fn new(durable: File) -> Self {
        Self {
            durable,
            cache: BTreeMap::new(),
            left: None,
            done: 0,
            flushes: 0,
            slowness: Duration::ZERO,
            failing: 0..0,
        }
    }

    fn block(&self, number: u64) -> Vec<u8> {
        if let Some(block) = self.cache.get(&number) {
            return block.clone();
        }
        self.durable_block(number)
    }

    fn durable_block(&self, number: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK as usize];
        let at = number * BLOCK;
        self.durable.read_exact_at(&mut block, at).unwrap();
        block
    }

    pub fn read(&self, mut at: u64, length: u64) -> Vec<u8> {
        let end = (at + length).min(SIZE);
        let mut bytes = Vec::with_capacity(length as usize);
        while at < end {
            let block = self.block(at / BLOCK);
            let from = at % BLOCK;
            let until = (from + end - at).min(BLOCK);
            bytes.extend_from_slice(&block[from as usize..until as usize]);
            at += until - from;
        }
        bytes
    }

    /// Fails where it was told to; nothing has changed then.
    pub fn write(&mut self, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        while !bytes.is_empty() {
            let mut block = self.block(at / BLOCK);
            let from = (at % BLOCK) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK as usize - from));
            block[from..from + now.len()].copy_from_slice(now);
            self.cache.insert(at / BLOCK, block);
            at += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Fails where it was told to; nothing is durable then that was not.
    pub fn flush(&mut self) -> io::Result<()> {
        self.step()?;
        self.flushes += 1;
        std::thread::sleep(self.slowness);
        if self.left.is_none() {
            let written = std::mem::take(&mut self.cache);
            self.keep(written);
        }
        Ok(())
    }

    fn step(&mut self) -> io::Result<()> {
        let is_failing = self.failing.contains(&self.done);
        self.done += 1;
        match is_failing {
            true => Err(io::Error::other("as it was told")),
            false => Ok(()),
        }
    }

    /// After so many more writes and flushes, so many fail.
    pub fn fail(&mut self, after: u64, count: u64) {
        let first = self.done + after;
        self.failing = first..first.saturating_add(count);
    }

    /// From now on a flush takes so long.
    pub fn slow(&mut self, flush: Duration) {
        self.slowness = flush;
    }

    /// Flushes that were answered.
    pub fn flushes(&self) -> u64 {
        self.flushes
    }

    fn keep(&self, blocks: BTreeMap<u64, Vec<u8>>) {
        for (number, block) in blocks {
            self.durable.write_all_at(&block, number * BLOCK).unwrap();
        }
    }

    /// The power fails. Of each block in the cache there will be all, nothing, or some sectors.
    pub fn cut(&mut self, random: &mut Random) {
        let luck = random.below(5);
        let mut left = BTreeMap::new();
        for (&number, new) in &self.cache {
            let mut block = self.durable_block(number);
            match random.below(4) {
                // a drive that was about to lose all, and one that was about to keep all
                fate if fate >= luck => continue,
                0 => {
                    let kept = random.below(BLOCK / SECTOR as u64) as usize * SECTOR;
                    block[..kept].copy_from_slice(&new[..kept]);
                }
                _ => block.copy_from_slice(new),
            }
            left.insert(number, block);
        }
        self.left = Some(left);
    }

    /// It works again, with what a power cut has left if there was one.
    pub fn power_on(&mut self) {
        self.failing = 0..0;
        if let Some(left) = self.left.take() {
            self.cache.clear();
            self.keep(left);
        }
    }
}
