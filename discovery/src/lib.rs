//! Who is there: nodes of any volume on the local network and on this host.
//!
//! Two sources feed one picture. `mDNS` (`_delugefs._tcp.local.`) reaches the local network, spoken by
//! this process or, with the feature `avahi`, by the host's Avahi; the registry directory reaches nodes on the same host, where there may be no network at all. What
//! they say is a hint and nothing more: the link authenticates whoever answers.
//!
//! Invariant: every node that was [`Event::Found`] and is no longer claimed by any source is
//! [`Event::Lost`] once. Nothing here survives a crash: the registry's files die with the process
//! that holds their lock, `mDNS` records expire.

#[cfg(any(feature = "avahi", test))]
#[cfg_attr(not(feature = "avahi"), allow(dead_code))]
mod avahi;
pub mod fuzzing;
mod known;
mod mdns;
mod multicast;
mod record;
pub mod registry;

use delugefs_core::ids::{NodeId, VolumeId};
use known::{Known, Sighting};
use multicast::Multicast;
pub use multicast::Responder;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Events that wait for the receiver; beyond this the sources wait, and nothing is lost.
pub const EVENTS_MAX: usize = 256;

/// Addresses kept for one node: hosts with more than a few interfaces are rare, liars are not.
pub const ADDRESSES_MAX: usize = 16;

/// How long [`Discovery::stop`] waits for the goodbye to leave.
pub const STOP_WAIT_MAX: Duration = Duration::from_secs(1);

/// A node that says it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The volume it belongs to.
    pub volume: VolumeId,
    /// That volume's name.
    pub volume_name: String,
    /// Which node it is.
    pub node: NodeId,
    /// Where it listens, best first, at most [`ADDRESSES_MAX`]; never empty.
    pub addresses: Vec<SocketAddr>,
}

/// What was noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A node is there, of whatever volume; told again when its addresses change.
    Found(Peer),
    /// No source claims this node any more.
    Lost(NodeId),
    /// Our own node id is said to be there: it is ourselves, or a copy of this disk. Each address is told once.
    Ourselves(Peer),
    /// Something keeps discovery from working: why, and what to do.
    Warning(String),
}

/// Where to look (and, for a node, where to announce).
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Multicast DNS on every interface but the loopback, and who speaks it; `None`: no multicast at all.
    pub mdns: Option<Responder>,
    /// Registry directories, all of them read; a node announces itself in the first that can be used.
    pub registry: Vec<PathBuf>,
}

/// What a node tells the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The volume it belongs to.
    pub volume: VolumeId,
    /// That volume's name.
    pub volume_name: String,
    /// Which node it is.
    pub node: NodeId,
    /// The bound address; an unspecified one (`[::]:4711`) means every address of the host.
    pub listen: SocketAddr,
}

/// Why discovery did not start.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The multicast DNS part could not be set up.
    #[error("cannot start multicast DNS: {0}")]
    Mdns(String),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// Running discovery. Dropping it says goodbye without waiting; dropping the receiver of its events ends it, too.
#[derive(Debug)]
pub struct Discovery {
    multicast: Option<Box<dyn Multicast>>,
    registry: Option<registry::Registry>,
}

impl Discovery {
    /// Announces a node and looks for others.
    pub fn start(
        announcement: &Announcement,
        sources: &Sources,
    ) -> Result<(Self, Receiver<Event>), DiscoveryError> {
        Self::run(Some(announcement), sources)
    }

    /// Looks for nodes of every volume without announcing anything.
    pub fn browse(sources: &Sources) -> Result<(Self, Receiver<Event>), DiscoveryError> {
        Self::run(None, sources)
    }

    fn run(
        announcement: Option<&Announcement>,
        sources: &Sources,
    ) -> Result<(Self, Receiver<Event>), DiscoveryError> {
        let (events, receiver) = channel(EVENTS_MAX);
        let outlet = Outlet::new(announcement, events);
        let registry = if sources.registry.is_empty() {
            None
        } else {
            let directories = sources.registry.clone();
            Some(registry::Registry::start(
                directories,
                announcement.cloned(),
                outlet.clone(),
            )?)
        };
        let multicast = match sources.mdns {
            Some(responder) => Some(multicast::start(responder, announcement, outlet)?),
            None => None,
        };
        let running = Self {
            multicast,
            registry,
        };
        Ok((running, receiver))
    }

    /// Asks whether a node is still there, after its link broke: if not, it is lost within 3 s instead of
    /// when its record expires (2 min). Avahi can only be asked for what it still believes, and where.
    pub fn verify(&self, node: NodeId) {
        if let Some(multicast) = &self.multicast {
            multicast.verify(node);
        }
    }

    /// Says goodbye and ends; blocks for at most [`STOP_WAIT_MAX`] for each kind of source.
    pub fn stop(mut self) {
        if let Some(registry) = self.registry.take() {
            registry.stop(STOP_WAIT_MAX);
        }
        if let Some(multicast) = self.multicast.take() {
            multicast.stop(STOP_WAIT_MAX);
        }
    }
}

/// Where the sources put what they see: merged, then sent on in order.
#[derive(Debug, Clone)]
pub(crate) struct Outlet(Arc<Mutex<(Known, Sender<Event>)>>);

impl Outlet {
    fn new(announcement: Option<&Announcement>, events: Sender<Event>) -> Self {
        let this = announcement.map(|own| own.node);
        Self(Arc::new(Mutex::new((Known::new(this), events))))
    }

    /// Returns false when nobody listens any more. Waits when the receiver is behind.
    pub(crate) fn put(&self, sighting: Sighting) -> bool {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let events = inner.0.handle(sighting);
        events.into_iter().all(|event| send(&inner.1, event))
    }

    pub(crate) fn warn(&self, text: String) -> bool {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        send(&inner.1, Event::Warning(text))
    }
}

fn send(events: &Sender<Event>, event: Event) -> bool {
    events.blocking_send(event).is_ok()
}
