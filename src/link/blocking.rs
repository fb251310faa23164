//! A stream for code that blocks (Git): `Read` and `Write` on a thread outside the runtime.

use std::future::Future;
use std::io::{self, BufWriter, Read, Write};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Bytes collected before they are sent: Git writes many small packet lines.
const BUFFER_BYTES: usize = 64 * 1024;

/// Both directions of a stream for blocking code. Each single read or write waits for at most
/// `wait`. To be used on a thread that may block (`spawn_blocking`), never on a runtime's worker.
pub fn split<S: AsyncRead + AsyncWrite>(
    stream: S,
    runtime: Handle,
    wait: Duration,
) -> (BlockingReader<S>, BlockingWriter<S>) {
    let (read, write) = tokio::io::split(stream);
    let reader = BlockingReader {
        half: read,
        waiting: Waiting {
            runtime: runtime.clone(),
            wait,
        },
    };
    let raw = RawWriter {
        half: write,
        waiting: Waiting { runtime, wait },
    };
    let writer = BlockingWriter(BufWriter::with_capacity(BUFFER_BYTES, raw));
    (reader, writer)
}

#[derive(Debug)]
struct Waiting {
    runtime: Handle,
    wait: Duration,
}

impl Waiting {
    fn run<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let limited = async { timeout(self.wait, work).await };
        let late = |_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer is too slow",
            ))
        };
        self.runtime.block_on(limited).unwrap_or_else(late)
    }
}

/// The reading side.
#[derive(Debug)]
pub struct BlockingReader<S> {
    half: ReadHalf<S>,
    waiting: Waiting,
}

impl<S: AsyncRead> Read for BlockingReader<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.waiting.run(self.half.read(buffer))
    }
}

/// The writing side, buffered: flush before waiting for an answer.
#[derive(Debug)]
pub struct BlockingWriter<S: AsyncWrite>(BufWriter<RawWriter<S>>);

#[derive(Debug)]
struct RawWriter<S> {
    half: WriteHalf<S>,
    waiting: Waiting,
}

impl<S: AsyncWrite> Write for RawWriter<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.run(self.half.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.waiting.run(self.half.flush())
    }
}

impl<S: AsyncWrite> Write for BlockingWriter<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<S: AsyncWrite> BlockingWriter<S> {
    /// Sends what is buffered and ends this direction of the stream, so that the reader sees a clean end.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.flush()?;
        let raw = self.0.get_mut();
        raw.waiting.run(raw.half.shutdown())
    }
}
