//! Multicast DNS by this process: one service instance per node, `_delugefs._tcp.local.` (RFC 6762, 6763).
//!
//! Instance and host names are the node id, so that hosts of one name (containers, network
//! namespaces) do not answer for each other and no probing for conflicts is needed: existing nodes
//! hear of a new one within milliseconds and connect to it.

use crate::known::{Sighting, Source};
use crate::multicast::{Multicast, OWN_NAME_WAIT_MAX, VERIFY_WAIT_MAX};
use crate::record::{TXT_VERSION, peer_from_txt, volume_name_fits};
use crate::{ADDRESSES_MAX, Announcement, DiscoveryError, Outlet, Peer};
use delugefs_core::ids::NodeId;
use mdns_sd::{
    IfKind, Receiver, RecvTimeoutError, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent,
    ServiceInfo,
};
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::thread;
use std::time::{Duration, Instant};

const SERVICE: &str = "_delugefs._tcp.local.";

const OWN_NAME_MISSING: &str = "multicast DNS does not hear itself: other hosts will not be found. \
    Either no network interface is up, or a firewall drops UDP port 5353, or avahi-daemon keeps the \
    port for itself (set disallow-other-stacks=no in /etc/avahi/avahi-daemon.conf). \
    Nodes on this host are found all the same; others can be named with --peer HOST:PORT";

pub(crate) struct Mdns {
    daemon: ServiceDaemon,
    own: Option<String>,
}

impl fmt::Debug for Mdns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mdns")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

impl Mdns {
    pub(crate) fn start(
        announcement: Option<&Announcement>,
        outlet: Outlet,
    ) -> Result<Self, DiscoveryError> {
        let daemon = ServiceDaemon::new().map_err(|error| cannot_start(&error))?;
        let started = Self::set_up(&daemon, announcement);
        let (own, browser) = match started {
            Ok(started) => started,
            Err(error) => {
                let _ = daemon.shutdown();
                return Err(cannot_start(&error));
            }
        };
        let name = own.clone();
        let thread = thread::Builder::new().name("mdns events".into());
        thread.spawn(move || follow(&browser, name.as_deref(), &outlet))?;
        Ok(Self { daemon, own })
    }

    fn set_up(
        daemon: &ServiceDaemon,
        announcement: Option<&Announcement>,
    ) -> mdns_sd::Result<(Option<String>, Receiver<ServiceEvent>)> {
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        let mut own = None;
        if let Some(announcement) = announcement
            && !announcement.listen.ip().is_loopback()
        {
            let info = service(announcement)?;
            own = Some(info.get_fullname().to_owned());
            daemon.register(info)?;
        }
        let browser = daemon.browse(SERVICE)?;
        Ok((own, browser))
    }
}

fn cannot_start(error: &mdns_sd::Error) -> DiscoveryError {
    DiscoveryError::Mdns(error.to_string())
}

impl Multicast for Mdns {
    fn verify(&self, node: NodeId) {
        let name = format!("{node}.{SERVICE}");
        if let Err(error) = self.daemon.verify(name, VERIFY_WAIT_MAX) {
            tracing::debug!(%node, %error, "cannot ask whether a node is still there");
        }
    }

    fn stop(mut self: Box<Self>, wait: Duration) {
        let until = Instant::now() + wait;
        if let Some(own) = self.own.take()
            && let Ok(done) = self.daemon.unregister(&own)
        {
            let _ = done.recv_timeout(wait);
        }
        if let Ok(done) = self.daemon.shutdown() {
            let _ = done.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            let _ = self.daemon.unregister(&own);
        }
        let _ = self.daemon.shutdown();
    }
}

fn service(announcement: &Announcement) -> mdns_sd::Result<ServiceInfo> {
    let node = announcement.node.to_string();
    let volume = announcement.volume.to_string();
    let properties = [
        ("v", TXT_VERSION),
        ("volume", &volume),
        ("name", &announcement.volume_name),
        ("node", &node),
    ];
    let ip = announcement.listen.ip();
    let addresses: &[IpAddr] = if ip.is_unspecified() { &[] } else { &[ip] };
    let host = format!("{node}.local.");
    let port = announcement.listen.port();
    let mut info = ServiceInfo::new(SERVICE, &node, &host, addresses, port, &properties[..])?;
    if ip.is_unspecified() {
        info = info.enable_addr_auto();
        if ip.is_ipv4() {
            info.set_interfaces(vec![IfKind::IPv4]);
        }
    }
    info.set_requires_probe(false);
    Ok(info)
}

/// Runs on its own thread until the daemon ends or nobody listens.
fn follow(browser: &Receiver<ServiceEvent>, own: Option<&str>, outlet: &Outlet) {
    let mut own_name_due = own.map(|_| Instant::now() + OWN_NAME_WAIT_MAX);
    loop {
        let event = match own_name_due {
            None => browser.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => browser.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        let go_on = match event {
            Ok(event) => {
                if is_own(&event, own) {
                    own_name_due = None;
                }
                hand_on(event, outlet)
            }
            Err(RecvTimeoutError::Timeout) => {
                own_name_due = None;
                outlet.warn(OWN_NAME_MISSING.into())
            }
            Err(RecvTimeoutError::Disconnected) => false,
        };
        if !go_on {
            return;
        }
    }
}

fn is_own(event: &ServiceEvent, own: Option<&str>) -> bool {
    match (event, own) {
        (ServiceEvent::ServiceResolved(service), Some(own)) => {
            service.fullname.eq_ignore_ascii_case(own)
        }
        _ => false,
    }
}

fn hand_on(event: ServiceEvent, outlet: &Outlet) -> bool {
    match event {
        ServiceEvent::ServiceResolved(service) => match peer(&service) {
            Some(peer) => outlet.put(Sighting::Seen(Source::Mdns(service.fullname), peer)),
            None => true,
        },
        ServiceEvent::ServiceRemoved(_, fullname) => {
            outlet.put(Sighting::Gone(Source::Mdns(fullname)))
        }
        _ => true,
    }
}

/// The daemon's cache holds all addresses heard so far, so each resolution replaces the one before.
fn peer(service: &ResolvedService) -> Option<Peer> {
    let text = |key| service.get_property_val_str(key);
    let mut peer = peer_from_txt(text("v")?, text("volume")?, text("name")?, text("node")?)?;
    let addresses = service.addresses.iter();
    peer.addresses = addresses
        .filter(|ip| !ip.is_loopback() && !ip.to_ip_addr().is_unspecified())
        .take(ADDRESSES_MAX)
        .map(|ip| socket_address(ip, service.port))
        .collect();
    (service.port != 0 && volume_name_fits(&peer.volume_name)).then_some(peer)
}

/// Link-local IPv6 addresses mean nothing without the interface they were heard on.
fn socket_address(ip: &ScopedIp, port: u16) -> SocketAddr {
    match ip {
        ScopedIp::V6(v6) if v6.addr().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.addr(), port, 0, v6.scope_id().index).into()
        }
        other => SocketAddr::new(other.to_ip_addr(), port),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use delugefs_core::ids::VolumeId;

    fn announcement(listen: &str) -> Announcement {
        Announcement {
            volume: VolumeId::new([1; 16]),
            volume_name: "big store=1".into(),
            node: NodeId::new([2; 16]),
            listen: listen.parse().unwrap(),
        }
    }

    #[test]
    fn what_is_announced_is_what_is_understood() {
        let announced = announcement("10.1.2.3:99");
        let service = service(&announced).unwrap().as_resolved_service();
        let heard = peer(&service).unwrap();
        assert_eq!(heard.volume, announced.volume);
        assert_eq!(heard.volume_name, announced.volume_name);
        assert_eq!(heard.node, announced.node);
        assert_eq!(heard.addresses, [announced.listen]);
    }

    #[test]
    fn a_remote_loopback_is_ignored() {
        let mut service = service(&announcement("10.1.2.3:99"))
            .unwrap()
            .as_resolved_service();
        for ip in ["127.0.0.1", "::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            service.addresses.insert(ip.into());
        }
        let heard = peer(&service).unwrap();
        assert_eq!(heard.addresses, ["10.1.2.3:99".parse().unwrap()]);
    }

    #[test]
    fn a_wrong_or_newer_text_is_ignored() {
        let service = service(&announcement("10.1.2.3:99"))
            .unwrap()
            .as_resolved_service();
        let mut without_port = service.clone();
        without_port.port = 0;
        assert!(peer(&without_port).is_none());
        let mut without_text = service;
        without_text.txt_properties = mdns_sd::TxtProperties::new();
        assert!(peer(&without_text).is_none());
    }
}
