//! The port behind which multicast DNS is done: by this process, or by the host's Avahi.

use crate::{Announcement, DiscoveryError, Outlet, mdns};
use delugefs_core::ids::NodeId;
use std::fmt::Debug;
use std::time::Duration;

/// How long our own name may take to come back before the owner is told.
pub(crate) const OWN_NAME_WAIT_MAX: Duration = Duration::from_secs(3);

/// How long a node that is asked for may take to answer before its claim is dropped.
pub(crate) const VERIFY_WAIT_MAX: Duration = Duration::from_secs(3);

/// Who speaks multicast DNS for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Responder {
    /// This process itself; needs nothing of the host.
    Embedded,
    /// The host's avahi-daemon, by way of D-Bus.
    #[cfg(feature = "avahi")]
    Avahi,
}

impl Default for Responder {
    /// Avahi where it is built in: who builds it in wants it.
    fn default() -> Self {
        #[cfg(feature = "avahi")]
        return Self::Avahi;
        #[cfg(not(feature = "avahi"))]
        return Self::Embedded;
    }
}

/// Multicast DNS at work. Sightings and warnings go to the [`Outlet`] it was started with. Dropping it says
/// goodbye without waiting.
pub(crate) trait Multicast: Debug + Send {
    /// Asks again for a node; its claim is dropped [`VERIFY_WAIT_MAX`] later if nothing speaks for it any more.
    fn verify(&self, node: NodeId);

    /// Says goodbye and ends; blocks for at most `wait`.
    fn stop(self: Box<Self>, wait: Duration);
}

/// Announces a node, if there is one to announce, and looks for others.
pub(crate) fn start(
    responder: Responder,
    announcement: Option<&Announcement>,
    outlet: Outlet,
) -> Result<Box<dyn Multicast>, DiscoveryError> {
    match responder {
        Responder::Embedded => Ok(Box::new(mdns::Mdns::start(announcement, outlet)?)),
        #[cfg(feature = "avahi")]
        Responder::Avahi => Ok(Box::new(crate::avahi::Avahi::start(announcement, outlet)?)),
    }
}
