//! Control links: dialling, accepting, the hello, and the table of those that are up.

use super::inbox::Input;
use super::members::Member;
use super::rests;
use super::shared::Shared;
use crate::link::connection::Pace;
use crate::link::handshake::HANDSHAKE_WAIT_MAX;
use crate::link::message::{Hello, PROTOCOL};
use crate::link::{self, Connection, Established, LinkError, Message, Purpose, Receiver, Sender};
use crate::net::{self, Accepted};
use crate::root::Standing;
use crate::sync_ext::lock;
use delugefs_core::ids::{NodeId, VolumeId};
use delugefs_core::sync::{DialFailure, Direction, Event, LinkId, LinkUp};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// Peers that break the protocol are told of at most so often: one that does it all the time must not fill the log.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// How long a peer may take for its hello, whatever else it says.
const HELLO_WAIT_MAX: Duration = HANDSHAKE_WAIT_MAX;

/// Messages of one link that wait for the node's loop: beyond it the link is not read from. Each is up to 1 MiB.
const INPUTS_MAX: usize = 4;

/// A link that is up.
#[derive(Clone)]
pub(super) struct Link {
    /// For messages to the peer.
    pub(super) sender: Sender,
    /// Who it is.
    pub(super) peer: NodeId,
    /// Where it takes connections.
    pub(super) listening: SocketAddr,
}

/// All links that are up.
#[derive(Default)]
pub(super) struct Links {
    next: AtomicU64,
    up: Mutex<BTreeMap<LinkId, Link>>,
    complained: Mutex<Option<Instant>>,
}

impl Links {
    fn insert(&self, link: Link) -> LinkId {
        let id = LinkId(self.next.fetch_add(1, Ordering::Relaxed));
        lock(&self.up).insert(id, link);
        id
    }

    /// Whether another line about a peer that breaks the protocol may be written.
    fn may_complain(&self) -> bool {
        let mut last = lock(&self.complained);
        let may = last.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY);
        if may {
            *last = Some(Instant::now());
        }
        may
    }

    /// A link, while it is up.
    pub(super) fn get(&self, id: LinkId) -> Option<Link> {
        lock(&self.up).get(&id).cloned()
    }

    /// A link to a node.
    pub(super) fn to(&self, node: NodeId) -> Option<Link> {
        let up = lock(&self.up);
        up.values().find(|link| link.peer == node).cloned()
    }

    /// Closes a link.
    pub(super) fn close(&self, id: LinkId) {
        if let Some(link) = lock(&self.up).remove(&id) {
            link.sender.close();
        }
    }

    /// Queues a message; a peer that does not take its messages loses the link, so that none is ever missing
    /// between two others.
    pub(super) fn send(&self, id: LinkId, message: &Message) {
        let Some(link) = self.get(id) else {
            return;
        };
        if !matches!(link.sender.try_send(message), Ok(true)) {
            self.close(id);
        }
    }

    /// Queues a message to every peer.
    pub(super) fn broadcast(&self, message: &Message) {
        let all: Vec<LinkId> = lock(&self.up).keys().copied().collect();
        for id in all {
            self.send(id, message);
        }
    }

    /// Queues a message to one node.
    pub(super) fn send_to(&self, node: NodeId, message: &Message) {
        let found = lock(&self.up)
            .iter()
            .find(|(_, link)| link.peer == node)
            .map(|(id, _)| *id);
        if let Some(id) = found {
            self.send(id, message);
        }
    }
}

/// Opens a link; how it went comes to the inbox.
pub(super) fn dial(shared: &Arc<Shared>, address: SocketAddr) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let failure = match open(&shared, address, Purpose::Control).await {
            Ok(established) => {
                let direction = Direction::Dialled(address);
                converse(&shared, established, direction, address).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = failure {
            tracing::debug!("no link to {address}: {error}");
            let failure = match error {
                LinkError::Itself => DialFailure::Oneself,
                LinkError::Duplicate { yields, .. } => {
                    doubled(&shared, yields, address);
                    DialFailure::Stranger
                }
                LinkError::Io(_) | LinkError::TimedOut | LinkError::Closed => {
                    DialFailure::Unreachable
                }
                LinkError::WrongKey
                | LinkError::Version(_)
                | LinkError::Protocol(_)
                | LinkError::Pin(_) => DialFailure::Stranger,
            };
            shared
                .tell(Input::Event(Event::DialFailed { address, failure }))
                .await;
        }
    });
}

/// A copy of this disk runs, too. Both end: which of them has answered whom is not to be told apart any more.
pub(super) fn doubled(shared: &Shared, yields: bool, other: SocketAddr) {
    let (standing, next) = match yields {
        true => (Standing::Double, "becomes a disk of its own"),
        false => (Standing::Behind, "stays the disk that both were"),
    };
    shared.stop_and_stand(
        standing,
        &format!(
            "another copy of this disk runs at {other}, and both stop. Nothing is lost: start both again, or one; this one {next}"
        ),
    );
}

/// Connects to a node for some purpose.
pub(super) async fn open(
    shared: &Shared,
    address: SocketAddr,
    purpose: Purpose,
) -> Result<Established<tokio::net::TcpStream>, LinkError> {
    let stream = net::connect(address, &shared.gate).await?;
    link::dial(stream, purpose, &shared.credentials, &shared.pins).await
}

/// Serves a control link that a peer opened.
pub(super) async fn accepted(
    shared: &Arc<Shared>,
    established: Established<Accepted>,
    source: SocketAddr,
) {
    match converse(shared, established, Direction::Accepted, source).await {
        Ok(()) => {}
        Err(error @ LinkError::Protocol(_)) if shared.links.may_complain() => {
            tracing::warn!("a node at {source} breaks the protocol: its link is closed ({error})");
        }
        Err(error) => tracing::debug!("the link from {source} ended: {error}"),
    }
}

/// From hello to the end of a link. An error is only given before the link is up.
async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    shared: &Arc<Shared>,
    established: Established<S>,
    direction: Direction,
    remote: SocketAddr,
) -> Result<(), LinkError> {
    let proved = established.remote;
    let Connection {
        sender,
        mut receiver,
    } = Connection::start(established.stream, Pace::default());
    let told = sender.send(&Message::Hello(shared.hello())).await;
    told.map_err(|_| LinkError::Closed)?;
    let hello = receive_hello(&mut receiver, HELLO_WAIT_MAX).await?;
    check_hello(shared.volume().id, &hello)?;
    if (hello.node, hello.incarnation) != (proved.node, proved.incarnation) {
        return Err(LinkError::Protocol(
            "its hello names another node".to_owned(),
        ));
    }
    let mut listening = remote;
    listening.set_port(hello.listen_port);
    let link = shared.links.insert(Link {
        sender,
        peer: hello.node,
        listening,
    });
    let up = LinkUp {
        link,
        peer: hello.node,
        incarnation: hello.incarnation,
        direction,
        listening: Some(listening),
    };
    let member = member(hello, listening);
    shared.tell(Input::Up(up, member)).await;
    rests::introduce(shared, link);
    listen(shared, link, &mut receiver).await;
    shared.links.close(link);
    shared.tell(Input::Event(Event::LinkDown { link })).await;
    Ok(())
}

async fn listen<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    link: LinkId,
    receiver: &mut Receiver<S>,
) {
    if let Err(error) = forward(&shared.inbox, link, receiver).await {
        broke(shared, link, &error);
    }
}

/// Hands what a peer says to the node's loop, no faster than that takes it.
async fn forward<S: AsyncRead + AsyncWrite + Unpin>(
    inbox: &mpsc::Sender<Input>,
    link: LinkId,
    receiver: &mut Receiver<S>,
) -> Result<(), LinkError> {
    let places = Arc::new(Semaphore::new(INPUTS_MAX));
    while let Some(message) = receiver.receive().await? {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            break;
        };
        // a loop that has ended wants to know nothing more
        let _ = inbox.send(Input::Message(link, message, place)).await;
    }
    Ok(())
}

/// A peer that sends what none of ours does is told of; connections that break are told of when the node is lost.
fn broke(shared: &Shared, link: LinkId, error: &LinkError) {
    match (error, shared.links.get(link)) {
        (LinkError::Protocol(_), Some(up)) if shared.links.may_complain() => {
            let who = super::inbox::label(shared, up.peer);
            tracing::warn!("{who} breaks the protocol: its link is closed ({error})");
        }
        _ => tracing::debug!("a link broke: {error}"),
    }
}

async fn receive_hello<S: AsyncRead + AsyncWrite + Unpin>(
    receiver: &mut Receiver<S>,
    within: Duration,
) -> Result<Hello, LinkError> {
    let hello = async {
        loop {
            match receiver.receive().await? {
                Some(Message::Hello(hello)) => return Ok(hello),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                Some(_) => {
                    return Err(LinkError::Protocol(
                        "it does not begin with a hello".to_owned(),
                    ));
                }
                None => return Err(LinkError::Closed),
            }
        }
    };
    timeout(within, hello)
        .await
        .unwrap_or(Err(LinkError::TimedOut))
}

fn check_hello(volume: VolumeId, hello: &Hello) -> Result<(), LinkError> {
    if hello.protocol.major != PROTOCOL.major {
        let text = format!("messages {}.{}", hello.protocol.major, hello.protocol.minor);
        return Err(LinkError::Version(text));
    }
    if hello.volume != volume {
        return Err(LinkError::WrongKey);
    }
    Ok(())
}

fn member(hello: Hello, address: SocketAddr) -> Member {
    Member {
        incarnation: hello.incarnation,
        label: hello.label,
        site: hello.site,
        capacity: hello.capacity,
        free: hello.free,
        seen: super::shared::unix_time(),
        address: Some(address),
        met: true,
    }
}

#[cfg(test)]
mod tests;
