//! An encrypted stream: Noise transport messages behind a 16-bit length, as tokio's read and write.
//!
//! A frame is a big-endian `u16` (bytes that follow, 16 to 65535) and the ciphertext with its tag.
//! An empty plaintext is the end of the stream; a connection that ends without it was cut.

use bytes::{Buf, BytesMut};
use snow::TransportState;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes of the length before each frame.
const LENGTH_BYTES: usize = 2;

/// Bytes of a frame's authentication tag.
const TAG_BYTES: usize = 16;

/// Largest plaintext of a frame: a Noise message has at most 65,535 bytes.
const PLAIN_BYTES_MAX: usize = 65_535 - TAG_BYTES;

/// Encrypted bytes that may wait for the socket; beyond this, writers wait.
const OUTGOING_BYTES_MAX: usize = 128 * 1024;

/// Room for incoming bytes: one whole frame and the next one's beginning.
const INCOMING_BYTES: usize = 128 * 1024;

/// A link's stream. Write, then flush: bytes that the socket did not take at once wait for that.
pub struct SecureStream<S = TcpStream> {
    inner: S,
    noise: TransportState,
    incoming: BytesMut,
    /// Decrypted and not yet read.
    plain: Box<[u8]>,
    plain_at: usize,
    plain_end: usize,
    outgoing: BytesMut,
    ended: bool,
    closing: bool,
}

impl<S> fmt::Debug for SecureStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureStream")
            .field("ended", &self.ended)
            .field("closing", &self.closing)
            .finish_non_exhaustive()
    }
}

impl<S> SecureStream<S> {
    pub(crate) fn new(inner: S, noise: TransportState) -> Self {
        Self {
            inner,
            noise,
            incoming: BytesMut::with_capacity(INCOMING_BYTES),
            plain: vec![0; PLAIN_BYTES_MAX].into_boxed_slice(),
            plain_at: 0,
            plain_end: 0,
            outgoing: BytesMut::new(),
            ended: false,
            closing: false,
        }
    }

    /// The connection beneath, for its addresses.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Length of the whole frame at the front of what has come in, once its length is known.
    fn frame_length(&self) -> Option<usize> {
        let length = self.incoming.get(..LENGTH_BYTES)?;
        Some(LENGTH_BYTES + usize::from(u16::from_be_bytes([length[0], length[1]])))
    }

    /// Decrypts the frame at the front into the reader's buffer if it fits there, else into ours.
    fn open_frame(&mut self, frame: usize, reader: &mut ReadBuf<'_>) -> io::Result<()> {
        let plain = frame
            .checked_sub(LENGTH_BYTES + TAG_BYTES)
            .ok_or_else(|| invalid("a frame is shorter than its tag"))?;
        let message = &self.incoming[LENGTH_BYTES..frame];
        let fits = reader.remaining() >= plain;
        let target = if fits {
            &mut reader.initialize_unfilled()[..plain]
        } else {
            &mut self.plain[..plain]
        };
        self.noise
            .read_message(message, target)
            .map_err(|_| invalid("a frame was not authentic"))?;
        if fits {
            reader.advance(plain);
        } else {
            (self.plain_at, self.plain_end) = (0, plain);
        }
        self.ended = plain == 0;
        self.incoming.advance(frame);
        Ok(())
    }

    fn hand_out(&mut self, reader: &mut ReadBuf<'_>) {
        let count = reader.remaining().min(self.plain_end - self.plain_at);
        reader.put_slice(&self.plain[self.plain_at..self.plain_at + count]);
        self.plain_at += count;
    }

    fn seal_frame(&mut self, plain: &[u8]) -> io::Result<()> {
        let length = plain.len() + TAG_BYTES;
        let start = self.outgoing.len();
        self.outgoing
            .extend_from_slice(&(length as u16).to_be_bytes());
        self.outgoing.resize(start + LENGTH_BYTES + length, 0);
        let target = &mut self.outgoing[start + LENGTH_BYTES..];
        let written = self.noise.write_message(plain, target);
        written.map_err(io::Error::other)?;
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> SecureStream<S> {
    /// Takes more bytes in; false at the end of the connection.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.incoming.reserve(INCOMING_BYTES / 2);
        let count = ready!(pin!(self.inner.read_buf(&mut self.incoming)).poll(cx))?;
        Poll::Ready(Ok(count > 0))
    }
}

impl<S: AsyncWrite + Unpin> SecureStream<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = Pin::new(&mut self.inner).poll_write(cx, &self.outgoing);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.outgoing.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SecureStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        reader: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if reader.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.plain_at < this.plain_end {
                this.hand_out(reader);
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            match this.frame_length() {
                Some(frame) if frame <= this.incoming.len() => {
                    let before = reader.filled().len();
                    this.open_frame(frame, reader)?;
                    if reader.filled().len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
                _ => {
                    if !ready!(this.poll_fill(cx))? {
                        let error = io::ErrorKind::UnexpectedEof;
                        let text = "the connection was cut";
                        return Poll::Ready(Err(io::Error::new(error, text)));
                    }
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SecureStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.poll_drain(cx)?.is_pending() && this.outgoing.len() >= OUTGOING_BYTES_MAX {
            return Poll::Pending;
        }
        let count = bytes.len().min(PLAIN_BYTES_MAX);
        if count == 0 {
            return Poll::Ready(Ok(0));
        }
        this.seal_frame(&bytes[..count])?;
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            self.closing = true;
            self.seal_frame(&[])?;
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests;
