//! Multicast DNS by the host's avahi-daemon, over D-Bus: the same service as in `mdns`, under Avahi's host name.
//!
//! One thread does all of it and lives until it is stopped or let go; a call to an avahi-daemon that hangs
//! ends after D-Bus's own limit (25 s), and `Multicast::stop` does not wait for that. avahi-daemon may come
//! late or be restarted: a session with it ends and is opened again.
//!
//! A node that listens on one address only is announced with all addresses of its host: the crate `zeroconf`
//! offers no choice. Dialing the others fails.

mod obstacle;
mod picture;
mod scope;
#[cfg(feature = "avahi")]
mod session;
#[cfg(feature = "avahi")]
mod worker;

#[cfg(feature = "avahi")]
pub(crate) use worker::Avahi;
