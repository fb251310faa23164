//! Pieces on their way from blocks to disk.

use super::super::layout::{Block, Layout};
use super::super::limits::{BLOCK_BYTES, DISK_BATCH_BYTES, DISK_BATCHES_MAX};
use super::super::ports::PieceWritten;
use super::super::scheduler::Event;
use super::super::uploads::on_disk;
use super::super::wire::Message;
use super::{Command, Content, ReadError};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

/// Buffers kept for the next pieces: allocating afresh costs a page fault for each 4 KiB.
const SPARE_BUFFERS_MAX: usize = 64;

/// One full disk fails many pieces; its owner need not read of each.
const DISK_WARNING_EVERY: Duration = Duration::from_secs(10);

/// Pieces being put together, and those waiting for the disk.
#[derive(Default)]
pub(crate) struct Assembly {
    open: BTreeMap<u32, Vec<u8>>,
    whole: VecDeque<(u32, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    writing: usize,
}

/// A piece that the disk side is done with.
pub(crate) struct Written {
    pub(super) piece: u32,
    outcome: io::Result<PieceWritten>,
    buffer: Vec<u8>,
}

impl Assembly {
    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.writing == 0
    }

    /// Copies a block's bytes to their place.
    pub(super) fn keep(&mut self, layout: &Layout, block: Block, data: Option<&Bytes>) {
        let Some(data) = data else {
            return;
        };
        let spare = &mut self.spare;
        let size = layout.piece_size(block.piece) as usize;
        let buffer = self.open.entry(block.piece).or_insert_with(|| {
            let mut buffer = spare.pop().unwrap_or_default();
            buffer.resize(size, 0);
            buffer
        });
        let begin = (block.index * BLOCK_BYTES) as usize;
        buffer[begin..begin + data.len()].copy_from_slice(data);
    }

    pub(super) fn forget(&mut self, piece: u32) {
        if let Some(buffer) = self.open.remove(&piece) {
            self.recycle(buffer);
        }
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX {
            self.spare.push(buffer);
        }
    }

    fn next_batch(&mut self) -> Option<Vec<(u32, Vec<u8>)>> {
        if self.writing >= DISK_BATCHES_MAX || self.whole.is_empty() {
            return None;
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < DISK_BATCH_BYTES
            && let Some((piece, buffer)) = self.whole.pop_front()
        {
            bytes += buffer.len();
            batch.push((piece, buffer));
        }
        self.writing += 1;
        Some(batch)
    }
}

impl Content {
    /// All blocks of the piece are here.
    pub(super) fn verify(&mut self, piece: u32) {
        if let Some(buffer) = self.assembly.open.remove(&piece) {
            if self.scheduler.is_needed(piece) {
                // Before what nobody waits for.
                self.assembly.whole.push_front((piece, buffer));
            } else {
                self.assembly.whole.push_back((piece, buffer));
            }
        }
        self.write_pieces();
    }

    /// Hands whole pieces to the disk, many at a time when it is behind.
    fn write_pieces(&mut self) {
        while let Some(batch) = self.assembly.next_batch() {
            let content = self.loaded.content.clone();
            let write = move |(piece, buffer): (u32, Vec<u8>)| Written {
                piece,
                outcome: content.write(piece, &buffer),
                buffer,
            };
            let disk = self.engine.resources.disk.clone();
            let commands = self.commands.clone();
            self.engine.runtime.spawn(async move {
                let work = move || Ok(batch.into_iter().map(write).collect());
                let written = on_disk(&disk, work).await;
                let _ = commands.send(Command::Written(written));
            });
        }
    }

    pub(super) fn written(&mut self, written: io::Result<Vec<Written>>) {
        self.assembly.writing -= 1;
        match written {
            Ok(pieces) => {
                for piece in pieces {
                    self.piece_written(piece);
                }
            }
            // The work itself was lost (a panic, or the end of the runtime): the pieces' fate is unknown.
            Err(error) => self.disk_failed(&error),
        }
        self.write_pieces();
    }

    fn piece_written(&mut self, written: Written) {
        let Written {
            piece,
            outcome,
            buffer,
        } = written;
        self.assembly.recycle(buffer);
        match outcome {
            Ok(PieceWritten::Stored) => self.stored(piece),
            Ok(PieceWritten::Wrong) => {
                tracing::warn!(content = %self.info_hash, piece, "wrong piece received");
                self.event(Event::Wrong(piece));
            }
            Err(error) => {
                self.event(Event::Unwritten(piece));
                self.disk_failed(&error);
            }
        }
    }

    pub(super) fn stored(&mut self, piece: u32) {
        self.have.insert(piece);
        self.unflushed.get_or_insert_with(Instant::now);
        let lacking: Vec<_> = (self.peers.iter())
            .filter(|(_, peer)| !peer.has.contains(piece))
            .map(|(key, _)| *key)
            .collect();
        for key in lacking {
            self.tell(key, Message::Have(piece));
        }
        self.event(Event::Verified(piece));
        self.show_progress();
    }

    /// Whoever waits is told; asking for more bytes would end the same way.
    pub(super) fn disk_failed(&mut self, error: &io::Error) {
        let now = Instant::now();
        let again = |warned| now.saturating_duration_since(warned) < DISK_WARNING_EVERY;
        if !self.disk_warned.is_some_and(again) {
            self.disk_warned = Some(now);
            tracing::warn!(content = %self.info_hash, %error, "cannot keep what was received");
        }
        self.event(Event::AheadGone);
        let waiting: Vec<_> = self.needs.keys().copied().collect();
        for id in waiting {
            self.event(Event::NeedGone(id));
            self.end_need(id, Err(ReadError::Io(error.kind(), error.to_string())));
        }
        self.fail_fetches(error);
    }
}
