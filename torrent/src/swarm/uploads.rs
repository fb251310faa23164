//! What a peer has asked us for, and reading it from disk in large strides.

use super::layout::Layout;
use super::limits::{REQUESTS_QUEUED_MAX, SEND_BLOCKS, SERVE_BYTES};
use super::ports::StoredContent;
use super::wire::BlockRequest;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// A peer's requests, from the receiving side of its connection to the sending side.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<BlockRequest>,
    unchoked: bool,
}

impl Uploads {
    /// `None`: the peer has asked for more at a time than it may. Requests of a choked peer are dropped, as it
    /// may have sent them before it knew (BEP 3).
    pub(crate) fn push(&self, request: BlockRequest) -> Option<()> {
        let mut state = self.lock();
        if !state.unchoked {
            return Some(());
        }
        if state.queue.len() >= REQUESTS_QUEUED_MAX {
            return None;
        }
        state.queue.push_back(request);
        self.changed.notify_one();
        Some(())
    }

    pub(crate) fn cancel(&self, request: BlockRequest) {
        self.lock().queue.retain(|queued| *queued != request);
    }

    pub(crate) fn set_unchoked(&self, unchoked: bool) {
        let mut state = self.lock();
        state.unchoked = unchoked;
        if !unchoked {
            state.queue.clear();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().queue.is_empty()
    }

    /// Returns when requests may have come.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The next requests that follow one another in the content, up to one write's worth; and for how many
    /// bytes from their beginning the queue goes on likewise.
    fn take_run(&self, layout: &Layout) -> Option<Run> {
        let mut state = self.lock();
        let first = *state.queue.front()?;
        let offset = place(layout, first);
        let (mut end, mut count) = (offset, 0);
        for request in &state.queue {
            if place(layout, *request) != end || end - offset >= SERVE_BYTES.into() {
                break;
            }
            end += u64::from(request.length);
            count += 1;
        }
        let requests = state.queue.drain(..count.min(SEND_BLOCKS)).collect();
        Some(Run {
            requests,
            offset,
            bytes: end - offset,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(layout: &Layout, request: BlockRequest) -> u64 {
    layout.offset(request.piece) + u64::from(request.begin)
}

struct Run {
    requests: Vec<BlockRequest>,
    offset: u64,
    bytes: u64,
}

/// Bytes read from disk for one peer's requests.
pub(crate) struct Server {
    content: Arc<dyn StoredContent>,
    layout: Layout,
    disk: Arc<Semaphore>,
    /// What was read last, and where it begins.
    chunk: (u64, Bytes),
}

impl Server {
    pub(crate) fn new(
        content: Arc<dyn StoredContent>,
        layout: Layout,
        disk: Arc<Semaphore>,
    ) -> Self {
        let chunk = (0, Bytes::new());
        Self {
            content,
            layout,
            disk,
            chunk,
        }
    }

    /// Answers to the next requests; empty when there are none.
    pub(crate) async fn next(
        &mut self,
        uploads: &Uploads,
    ) -> io::Result<Vec<(BlockRequest, Bytes)>> {
        let Some(run) = uploads.take_run(&self.layout) else {
            return Ok(Vec::new());
        };
        let taken = run
            .requests
            .iter()
            .map(|request| u64::from(request.length))
            .sum();
        if !self.covers(run.offset, taken) {
            self.fetch(&run).await?;
        }
        let answer = |request: BlockRequest| {
            let at = (place(&self.layout, request) - self.chunk.0) as usize;
            let data = self.chunk.1.slice(at..at + request.length as usize);
            (request, data)
        };
        Ok(run.requests.into_iter().map(answer).collect())
    }

    fn end(&self) -> u64 {
        self.chunk.0 + self.chunk.1.len() as u64
    }

    fn covers(&self, offset: u64, bytes: u64) -> bool {
        offset >= self.chunk.0 && offset + bytes <= self.end()
    }

    async fn fetch(&mut self, run: &Run) -> io::Result<()> {
        let sequential = run.offset >= self.chunk.0 && run.offset <= self.end();
        let wanted = if sequential {
            run.bytes.max(SERVE_BYTES.into())
        } else {
            run.bytes
        };
        let bytes = self.present(run.offset, wanted);
        let (content, offset) = (self.content.clone(), run.offset);
        let read = move || content.read(offset, bytes as usize);
        let chunk = on_disk(&self.disk, read).await?;
        if (chunk.len() as u64) < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.chunk = (offset, chunk);
        Ok(())
    }

    /// How many of the bytes are in pieces that are here, from the first on. (The run's own pieces are: each
    /// request was checked.)
    fn present(&self, offset: u64, bytes: u64) -> u64 {
        let end = (offset + bytes).min(self.layout.length());
        let pieces = self.layout.pieces_of(offset, bytes);
        let gap = pieces.into_iter().find(|piece| !self.content.has(*piece));
        gap.map_or(end, |piece| self.layout.offset(piece).max(offset)) - offset
    }
}

/// Runs a blocking disk operation, of which only so many run at a time.
pub(crate) async fn on_disk<T: Send + 'static>(
    disk: &Semaphore,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let _permit = disk.acquire().await.map_err(io::Error::other)?;
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
