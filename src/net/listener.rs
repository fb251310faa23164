//! The node's port: accepts, checks the source, counts, and sorts by first bytes.

use super::dial::prepare;
use super::policy::Gate;
use super::sniff::{PREFIX_BYTES_MAX, Protocol, Verdict, sniff};
use bytes::{Buf, Bytes};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Connections that the kernel keeps until we take them.
const BACKLOG: i32 = 128;

/// Sorted connections that wait to be taken; beyond this their tasks wait.
const SORTED_MAX: usize = 32;

/// After an error of `accept` (no more descriptors, mostly): time for some to be freed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Refusals are logged once in this time, with how many there were.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_mins(1);

/// How much others may ask of this port.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections in all: some hundred swarm peers, within the usual 1024 descriptors.
    pub connections: usize,
    /// Open connections from one address: a node needs a few, a host may have many nodes.
    pub per_address: usize,
    /// How long the first bytes may take.
    pub first_bytes: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            per_address: 128,
            first_bytes: Duration::from_secs(5),
        }
    }
}

/// A connection from outside, sorted.
#[derive(Debug)]
pub struct Incoming {
    /// What its first bytes say it is.
    pub protocol: Protocol,
    /// Where it comes from.
    pub source: SocketAddr,
    /// The whole stream, from its first byte.
    pub stream: Accepted,
}

/// The listening port. Dropping it closes the port, not the connections.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    sorted: mpsc::Receiver<Incoming>,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    /// Binds every address of the host, IPv6 and IPv4; port 0 lets the system choose one.
    pub fn bind_all(port: u16, gate: Arc<Gate>, limits: Limits) -> io::Result<Self> {
        let dual = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        match bind(dual) {
            Ok(socket) => Self::start(socket, gate, limits),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            // A host without IPv6.
            Err(_) => Self::bind((Ipv4Addr::UNSPECIFIED, port).into(), gate, limits),
        }
    }

    /// Binds one address (`--listen`).
    pub fn bind(address: SocketAddr, gate: Arc<Gate>, limits: Limits) -> io::Result<Self> {
        Self::start(bind(address)?, gate, limits)
    }

    fn start(socket: Socket, gate: Arc<Gate>, limits: Limits) -> io::Result<Self> {
        let listener = TcpListener::from_std(socket.into())?;
        let address = listener.local_addr()?;
        let (sort, sorted) = mpsc::channel(SORTED_MAX);
        let door = Door {
            gate,
            limits,
            counts: Arc::default(),
            sort,
        };
        let task = tokio::spawn(door.run(listener));
        Ok(Self {
            address,
            sorted,
            task,
        })
    }

    /// The bound address, with the port that was chosen.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection of a known kind; `None` only if the port was lost. May be dropped while waiting.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.sorted.recv().await
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        let dual = address.ip().is_unspecified();
        socket.set_only_v6(!dual)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

struct Door {
    gate: Arc<Gate>,
    limits: Limits,
    counts: Arc<Counts>,
    sort: mpsc::Sender<Incoming>,
}

impl Door {
    async fn run(self, listener: TcpListener) {
        let mut refusals = Refusals::default();
        loop {
            match listener.accept().await {
                Ok((stream, source)) => {
                    if let Err(reason) = self.admit(stream, source) {
                        refusals.note(source, reason);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, source: SocketAddr) -> Result<(), &'static str> {
        let ip = source.ip().to_canonical();
        if !self.gate.allows(ip) {
            return Err("not from the local network");
        }
        let place = Counts::take(&self.counts, ip, self.limits).ok_or("too many connections")?;
        let sort = self.sort.clone();
        let first_bytes = self.limits.first_bytes;
        tokio::spawn(async move {
            let source = SocketAddr::new(ip, source.port()).with_scope_of(source);
            match timeout(first_bytes, recognise(stream, place)).await {
                Ok(Ok((protocol, stream))) => {
                    let incoming = Incoming {
                        protocol,
                        source,
                        stream,
                    };
                    // Fails only when the port is being closed.
                    let _ = sort.send(incoming).await;
                }
                Ok(Err(error)) => tracing::debug!(%source, %error, "closed a connection"),
                Err(_) => tracing::debug!(%source, "closed a connection that said nothing"),
            }
        });
        Ok(())
    }
}

trait WithScope {
    fn with_scope_of(self, other: SocketAddr) -> SocketAddr;
}

impl WithScope for SocketAddr {
    /// A link-local address needs its interface to be answered.
    fn with_scope_of(mut self, other: SocketAddr) -> SocketAddr {
        if let (Self::V6(own), Self::V6(other)) = (&mut self, other) {
            own.set_scope_id(other.scope_id());
        }
        self
    }
}

/// Reads as far as is needed to tell.
async fn recognise(mut stream: TcpStream, place: Place) -> io::Result<(Protocol, Accepted)> {
    prepare(&stream)?;
    let mut prefix = [0; PREFIX_BYTES_MAX];
    let mut length = 0;
    loop {
        match sniff(&prefix[..length]) {
            Verdict::Is(protocol) => {
                let prefix = Bytes::copy_from_slice(&prefix[..length]);
                let accepted = Accepted {
                    stream,
                    prefix,
                    _place: place,
                };
                return Ok((protocol, accepted));
            }
            Verdict::Unknown => {
                return Err(io::Error::other("its first bytes are of no known kind"));
            }
            Verdict::Undecided => match stream.read(&mut prefix[length..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => length += count,
            },
        }
    }
}

/// An accepted connection, whole: bytes read for sorting come first. It counts against the limits
/// until it is dropped.
#[derive(Debug)]
pub struct Accepted {
    stream: TcpStream,
    prefix: Bytes,
    _place: Place,
}

impl Accepted {
    /// The connection; what was read for sorting is not in it any more.
    pub const fn get_ref(&self) -> &TcpStream {
        &self.stream
    }

    /// Takes what was read for sorting, for those who read the rest from the connection themselves.
    pub fn take_prefix(&mut self) -> Bytes {
        std::mem::take(&mut self.prefix)
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix[..count]);
        self.prefix.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Open connections by source.
#[derive(Debug, Default)]
struct Counts(Mutex<BTreeMap<IpAddr, usize>>);

impl Counts {
    fn take(this: &Arc<Self>, ip: IpAddr, limits: Limits) -> Option<Place> {
        let mut open = this.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let of_this = open.get(&ip).copied().unwrap_or(0);
        if all >= limits.connections || of_this >= limits.per_address {
            return None;
        }
        open.insert(ip, of_this + 1);
        let counts = Arc::clone(this);
        Some(Place { counts, ip })
    }
}

/// One counted connection; given back on drop.
#[derive(Debug)]
struct Place {
    counts: Arc<Counts>,
    ip: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.ip);
            }
        }
    }
}

/// Keeps someone who knocks a thousand times from filling the log.
#[derive(Debug, Default)]
struct Refusals {
    logged: Option<Instant>,
    unlogged: u64,
}

impl Refusals {
    fn note(&mut self, source: SocketAddr, reason: &str) {
        let recently = |at: Instant| at.elapsed() < REFUSAL_LOG_INTERVAL;
        if self.logged.is_some_and(recently) {
            self.unlogged += 1;
            return;
        }
        let others = std::mem::take(&mut self.unlogged);
        self.logged = Some(Instant::now());
        tracing::warn!(%source, reason, others, "refused a connection");
    }
}

#[cfg(test)]
mod tests;
