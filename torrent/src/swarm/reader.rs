//! Reading a content while it arrives.

use super::content::{Command, Loaded, Origin};
use super::engine::{Engine, Handle};
use super::limits::{AHEAD_BYTES_MAX, AHEAD_BYTES_MIN};
use super::scheduler::{NeedId, ReaderId};
use super::uploads::on_disk;
use crate::metainfo::Info;
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Why a read gives no bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// An earlier read has waited in vain, and no holder has appeared since.
    #[error("no connected node has these bytes")]
    Unavailable,
    /// This read has waited in vain.
    #[error("no connected node has sent these bytes in time")]
    TimedOut,
    /// The disk here failed; with the system's words.
    #[error("{1}")]
    Io(io::ErrorKind, String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind(), error.to_string())
    }
}

/// Attempts to find a content's task that is not just ending.
const ATTEMPTS_MAX: u32 = 3;

/// A place in a content from which somebody reads; clones share it. Reading on makes what follows arrive ahead.
#[derive(Clone)]
pub struct Reader(Arc<Inner>);

struct Inner {
    engine: Arc<Engine>,
    info: Info,
    id: ReaderId,
    window: Mutex<Window>,
}

impl Reader {
    pub(crate) fn new(engine: Arc<Engine>, info: Info) -> Self {
        let id = ReaderId(engine.fresh());
        Self(Arc::new(Inner {
            engine,
            info,
            id,
            window: Mutex::default(),
        }))
    }

    /// Bytes from `offset` on, fewer than `length` only at the content's end, once their pieces are verified
    /// and on disk. Dropping the future gives the need up.
    pub async fn read(&self, offset: u64, length: usize) -> Result<Bytes, ReadError> {
        let inner = &*self.0;
        let left = inner.info.length().saturating_sub(offset);
        let length = left.min(length as u64);
        if length == 0 {
            return Ok(Bytes::new());
        }
        for _ in 0..ATTEMPTS_MAX {
            let origin = Origin::Local(inner.info.clone());
            let handle = inner.engine.activate(inner.info.info_hash(), &origin);
            let loaded = handle.loaded().await?;
            if inner.arrive(&handle, &loaded, offset, length).await? {
                let content = loaded.content.clone();
                let read = move || content.read(offset, length as usize);
                return Ok(on_disk(&inner.engine.resources.disk, read).await?);
            }
        }
        Err(ReadError::Io(
            io::ErrorKind::Other,
            "the content is being closed".into(),
        ))
    }
}

impl Inner {
    /// Waits for the pieces of a range. `false`: the content's task has ended, and another is to be asked.
    async fn arrive(
        &self,
        handle: &Handle,
        loaded: &Loaded,
        offset: u64,
        length: u64,
    ) -> Result<bool, ReadError> {
        let pieces = loaded.layout.pieces_of(offset, length);
        let here = pieces.clone().all(|piece| loaded.content.has(piece));
        let waiting = (!here).then(|| Waiting::start(&self.engine, handle, pieces));
        let ahead = self
            .window
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .moved(offset, length);
        if let Some(ahead) = ahead {
            let pieces = loaded
                .layout
                .pieces_of(ahead.start, ahead.end - ahead.start);
            handle.send(Command::Ahead(self.id, pieces));
        }
        match waiting {
            None => Ok(true),
            Some(waiting) => waiting.end().await,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.engine
            .tell(&self.info.info_hash(), Command::ReaderGone(self.id));
    }
}

/// A need that is given up when this is dropped.
struct Waiting<'a> {
    handle: &'a Handle,
    id: NeedId,
    reply: Option<oneshot::Receiver<Result<(), ReadError>>>,
}

impl<'a> Waiting<'a> {
    fn start(engine: &Engine, handle: &'a Handle, pieces: Range<u32>) -> Self {
        let id = NeedId(engine.fresh());
        let (sender, reply) = oneshot::channel();
        handle.send(Command::Need {
            id,
            pieces,
            reply: sender,
        });
        Self {
            handle,
            id,
            reply: Some(reply),
        }
    }

    async fn end(mut self) -> Result<bool, ReadError> {
        let Some(reply) = &mut self.reply else {
            return Ok(false);
        };
        let result = reply.await;
        self.reply = None;
        match result {
            Ok(result) => result.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.reply.is_some() {
            self.handle.send(Command::NeedGone(self.id));
        }
    }
}

/// How far to read ahead: more, the longer reads follow one another; from the beginning after a jump.
#[derive(Debug, Default)]
struct Window {
    /// Where the next read is expected.
    next: u64,
    size: u64,
    /// Up to where pieces were asked for ahead.
    asked: u64,
}

impl Window {
    /// The bytes to ask for ahead after a read, if that has changed enough to tell.
    fn moved(&mut self, offset: u64, length: u64) -> Option<Range<u64>> {
        let end = offset + length;
        // The kernel's readahead mixes up the order of neighbouring reads.
        let near = offset <= self.next + AHEAD_BYTES_MIN && end + AHEAD_BYTES_MIN >= self.next;
        if !near || self.size == 0 {
            self.size = AHEAD_BYTES_MIN;
            self.asked = 0;
            self.next = end;
        } else if end > self.next {
            self.size = (2 * self.size).min(AHEAD_BYTES_MAX);
            self.next = end;
        }
        let wanted = self.next + self.size;
        if wanted < self.asked + self.size / 4 {
            return None;
        }
        self.asked = wanted;
        Some(self.next..wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_with_sequential_reads_and_restarts_after_a_jump() {
        const K: u64 = 1024;
        let mut window = Window::default();
        assert_eq!(window.moved(0, 128 * K), Some(128 * K..1152 * K));
        assert_eq!(window.moved(128 * K, 128 * K), Some(256 * K..2304 * K));
        for read in 2..200 {
            window.moved(read * 128 * K, 128 * K);
        }
        assert_eq!(window.size, AHEAD_BYTES_MAX);
        // Told seldom, not for each read.
        let told = (200..300).filter(|read| window.moved(read * 128 * K, 128 * K).is_some());
        assert!((2..5).contains(&told.count()));
        let far = 1 << 40;
        assert_eq!(
            window.moved(far, K),
            Some(far + K..far + K + AHEAD_BYTES_MIN)
        );
        assert_eq!(window.moved(far, K), None);
    }
}
