//! A control stream as two typed halves, with heartbeats.
//!
//! The sender is a bounded queue in front of a task; the receiver reads in the caller's task. Either
//! end notices a silent peer: heartbeats go out when there is nothing else to say.

use super::codec::{self, FRAME_BYTES_MAX, TooLarge};
use super::{LinkError, Message, SecureStream};
use bytes::{Bytes, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// Messages that wait to be sent to one peer; beyond this, senders wait.
pub const QUEUE_MESSAGES_MAX: usize = 64;

/// Bytes put together for one write, so that small messages share packets and encryption.
const BATCH_BYTES: usize = 64 * 1024;

/// Times of a connection. The defaults suit a local network.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// After this long without a message of ours, a heartbeat goes out.
    pub heartbeat: Duration,
    /// A peer that is silent for this long is gone: a few heartbeats.
    pub silence_max: Duration,
    /// A peer that takes nothing for this long is gone; senders wait no longer than this.
    pub stall_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(2),
            silence_max: Duration::from_secs(8),
            stall_max: Duration::from_secs(10),
        }
    }
}

/// Both halves of a control stream.
#[derive(Debug)]
pub struct Connection<S> {
    /// For whoever has something to say.
    pub sender: Sender,
    /// For the one task that listens.
    pub receiver: Receiver<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    /// Starts the sending task on the current runtime.
    pub fn start(stream: SecureStream<S>, pace: Pace) -> Self {
        let (read, write) = tokio::io::split(stream);
        let (queue, queued) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let (ended, cut) = watch::channel(false);
        let task = tokio::spawn(async move {
            if drain(write, queued, pace).await {
                let _ = ended.send(true);
            }
        });
        let sender = Sender {
            queue,
            stall_max: pace.stall_max,
            task: task.abort_handle(),
        };
        let receiver = Receiver {
            read,
            incoming: BytesMut::new(),
            answers: sender.queue.downgrade(),
            silence_max: pace.silence_max,
            heard: Instant::now(),
            cut,
            task: task.abort_handle(),
        };
        Self { sender, receiver }
    }
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It breaks a limit of the format.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The connection is gone, or the peer took nothing for too long and was given up.
    #[error("the connection is closed")]
    Closed,
}

/// Sends messages in order. Once all clones are dropped, what is queued is still sent and the stream ended.
#[derive(Debug, Clone)]
pub struct Sender {
    queue: mpsc::Sender<Bytes>,
    stall_max: Duration,
    task: AbortHandle,
}

impl Sender {
    /// Queues a message; waits for room as long as the peer may stall, then gives the peer up.
    pub async fn send(&self, message: &Message) -> Result<(), SendError> {
        let frame = codec::encode(message)?;
        match timeout(self.stall_max, self.queue.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SendError::Closed),
            Err(_) => {
                self.close();
                Err(SendError::Closed)
            }
        }
    }

    /// Queues a message if there is room now: for decisions that must not wait. Returns whether it was taken.
    pub fn try_send(&self, message: &Message) -> Result<bool, SendError> {
        let frame = codec::encode(message)?;
        match self.queue.try_send(frame) {
            Ok(()) => Ok(true),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(SendError::Closed),
        }
    }

    /// Ends the connection at once; what is queued is lost.
    pub fn close(&self) {
        self.task.abort();
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.task.is_finished() || self.queue.is_closed()
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }
}

/// Writes what is queued, in batches; a heartbeat when there is nothing. Returns whether the stream
/// was ended because there was no more to say.
async fn drain<S: AsyncRead + AsyncWrite + Unpin>(
    mut write: WriteHalf<SecureStream<S>>,
    mut queued: mpsc::Receiver<Bytes>,
    pace: Pace,
) -> bool {
    let mut beats = 0_u64;
    loop {
        let mut batch = match timeout(pace.heartbeat, queued.recv()).await {
            Ok(Some(frame)) => BytesMut::from(frame),
            Ok(None) => break,
            Err(_) => {
                beats += 1;
                match codec::encode(&Message::Ping(beats)) {
                    Ok(frame) => BytesMut::from(frame),
                    Err(_) => return false,
                }
            }
        };
        while batch.len() < BATCH_BYTES
            && let Ok(frame) = queued.try_recv()
        {
            batch.extend_from_slice(&frame);
        }
        if !matches!(
            timeout(pace.stall_max, write_out(&mut write, &batch)).await,
            Ok(Ok(()))
        ) {
            return false;
        }
    }
    matches!(timeout(pace.stall_max, write.shutdown()).await, Ok(Ok(())))
}

/// Returns once the sending half is gone without having ended the stream.
async fn cut_off(cut: &mut watch::Receiver<bool>) {
    while cut.changed().await.is_ok() {}
    if *cut.borrow() {
        std::future::pending::<()>().await;
    }
}

async fn write_out<W: AsyncWrite + Unpin>(write: &mut W, batch: &[u8]) -> io::Result<()> {
    write.write_all(batch).await?;
    write.flush().await
}

/// Receives messages, heartbeats among them, which it answers by itself. Dropping it ends the connection.
#[derive(Debug)]
pub struct Receiver<S> {
    read: ReadHalf<SecureStream<S>>,
    incoming: BytesMut,
    answers: mpsc::WeakSender<Bytes>,
    silence_max: Duration,
    heard: Instant,
    cut: watch::Receiver<bool>,
    task: AbortHandle,
}

impl<S> Drop for Receiver<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Receiver<S> {
    /// The next message; `None` when the peer ended the stream. May be dropped while waiting (in
    /// `select!`): nothing is lost.
    pub async fn receive(&mut self) -> Result<Option<Message>, LinkError> {
        loop {
            while let Some(frame) = codec::split_frame(&mut self.incoming)? {
                match codec::decode(frame)? {
                    Some(Message::Ping(number)) => {
                        self.answer(number);
                        return Ok(Some(Message::Ping(number)));
                    }
                    Some(message) => return Ok(Some(message)),
                    None => {}
                }
            }
            if !self.fill().await? {
                if self.incoming.is_empty() {
                    return Ok(None);
                }
                return Err(LinkError::protocol("the stream ends in half a message"));
            }
        }
    }

    async fn fill(&mut self) -> Result<bool, LinkError> {
        self.incoming.reserve(BATCH_BYTES);
        debug_assert!(self.incoming.len() <= FRAME_BYTES_MAX + codec::FRAME_LENGTH_BYTES);
        let due = self.heard + self.silence_max;
        let reading = timeout_at(due, self.read.read_buf(&mut self.incoming));
        let count = tokio::select! {
            biased;
            count = reading => count.map_err(|_| LinkError::TimedOut)??,
            () = cut_off(&mut self.cut) => return Err(LinkError::Closed),
        };
        self.heard = Instant::now();
        Ok(count > 0)
    }

    /// When the queue is full, what stands in it is answer enough.
    fn answer(&self, number: u64) {
        if let (Some(queue), Ok(frame)) = (
            self.answers.upgrade(),
            codec::encode(&Message::Pong(number)),
        ) {
            let _ = queue.try_send(frame);
        }
    }
}

#[cfg(test)]
mod tests;
