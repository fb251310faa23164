//! Outgoing connections.

use super::policy::Gate;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one address may take to answer: on a local network a second is long.
pub const CONNECT_WAIT_MAX: Duration = Duration::from_secs(3);

/// An idle connection is probed after this long, so that streams without heartbeats end, too.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Connects, if the policy allows the address. Small messages leave at once (no Nagle delay).
pub async fn connect(address: SocketAddr, gate: &Gate) -> io::Result<TcpStream> {
    if !gate.allows(address.ip()) {
        let text =
            format!("{address} is not on the local network (name it with --peer to allow it)");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let connecting = TcpStream::connect(address);
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    let stream = timeout(CONNECT_WAIT_MAX, connecting)
        .await
        .unwrap_or_else(late)?;
    prepare(&stream)?;
    Ok(stream)
}

/// What every connection of ours has, whoever opened it.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 4);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
