//! One session with avahi-daemon: the only place that names the crate `zeroconf`.

use super::scope;
use crate::record::{TXT_VERSION, peer_from_txt};
use crate::{Announcement, Peer};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use zeroconf::prelude::{TEventLoop, TMdnsBrowser, TMdnsService, TTxtRecord};
use zeroconf::{
    BrowserEvent, EventLoop, MdnsBrowser, MdnsService, ServiceDiscovery, ServiceType, TxtRecord,
};

/// How long a session listens to D-Bus at a time.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// How the crate reports one instance that could not be resolved; other errors of a browser end it.
const UNRESOLVED: &str = "failed to resolve";

/// What came out of a session.
pub(super) enum Heard {
    /// An instance with one of its addresses.
    Resolved(String, Peer),
    /// Some instance is gone from some interface.
    Removed,
    /// Our own service is not published: why.
    Unpublished(String),
    /// avahi-daemon is gone: why.
    Ended(String),
}

/// A connection to avahi-daemon for looking, and one for announcing.
pub(super) struct Session {
    browser: (MdnsBrowser, EventLoop),
    service: Option<(MdnsService, EventLoop)>,
    told: Receiver<Told>,
    tell: Sender<Told>,
}

/// What the callbacks pass on, undecoded.
enum Told {
    Resolved(ServiceDiscovery),
    Heard(Heard),
}

impl Session {
    pub(super) fn open(own: Option<&Announcement>) -> Result<Self, String> {
        let (tell, told) = channel();
        let browser = browse(&tell).map_err(|error| text(&error))?;
        let service = own.map(|own| announce(own, &tell)).transpose();
        let service = service.map_err(|error| text(&error))?;
        Ok(Self {
            browser,
            service,
            told,
            tell,
        })
    }

    /// Avahi answers a new browser from its cache, which it keeps while the old one is there.
    pub(super) fn browse_again(&mut self) -> Result<(), String> {
        self.browser = browse(&self.tell).map_err(|error| text(&error))?;
        Ok(())
    }

    /// Waits for at most [`POLL`].
    pub(super) fn poll(&self) -> Vec<Heard> {
        let polled = match &self.service {
            Some((_, events)) => events.poll(Duration::ZERO),
            None => Ok(()),
        };
        let polled = polled.and_then(|()| self.browser.1.poll(POLL));
        let mut heard: Vec<Heard> = self.told.try_iter().filter_map(decoded).collect();
        heard.extend(polled.err().map(|error| Heard::Ended(text(&error))));
        heard
    }
}

fn text(error: &zeroconf::error::Error) -> String {
    error.to_string()
}

fn service_type() -> zeroconf::Result<ServiceType> {
    ServiceType::new("delugefs", "tcp")
}

/// The callbacks are called from C: they may not panic, so they only pass on.
fn browse(tell: &Sender<Told>) -> zeroconf::Result<(MdnsBrowser, EventLoop)> {
    let mut browser = MdnsBrowser::new(service_type()?);
    let tell = tell.clone();
    browser.set_service_callback(Box::new(move |event, _| {
        let told = match event {
            Ok(BrowserEvent::Add(service)) => Told::Resolved(service),
            Ok(BrowserEvent::Remove(_)) => Told::Heard(Heard::Removed),
            Err(error) if error.to_string().starts_with(UNRESOLVED) => return,
            Err(error) => Told::Heard(Heard::Ended(text(&error))),
        };
        let _ = tell.send(told);
    }));
    let events = browser.browse_services()?;
    Ok((browser, events))
}

fn announce(own: &Announcement, tell: &Sender<Told>) -> zeroconf::Result<(MdnsService, EventLoop)> {
    let node = own.node.to_string();
    let mut record = TxtRecord::new();
    for (key, value) in [
        ("v", TXT_VERSION),
        ("volume", &own.volume.to_string()),
        ("name", &own.volume_name),
        ("node", &node),
    ] {
        record.insert(key, value)?;
    }
    let mut service = MdnsService::new(service_type()?, own.listen.port());
    service.set_name(&node);
    service.set_txt_record(record);
    let tell = tell.clone();
    service.set_registered_callback(Box::new(move |registered, _| {
        if let Err(error) = registered {
            let _ = tell.send(Told::Heard(Heard::Unpublished(text(&error))));
        }
    }));
    let events = service.register()?;
    Ok((service, events))
}

fn decoded(told: Told) -> Option<Heard> {
    match told {
        Told::Heard(heard) => Some(heard),
        Told::Resolved(service) => {
            peer(&service).map(|peer| Heard::Resolved(service.name().clone(), peer))
        }
    }
}

fn peer(service: &ServiceDiscovery) -> Option<Peer> {
    let values = texts(service.txt().as_ref()?)?;
    let [version, volume, name, node] = values.each_ref().map(String::as_str);
    let mut peer = peer_from_txt(version, volume, name, node)?;
    peer.addresses = addresses(service.address().parse().ok()?, *service.port());
    (*service.port() != 0 && !peer.addresses.is_empty()).then_some(peer)
}

/// The crate panics at a value that is not UTF-8, and anyone on the network can send one.
fn texts(record: &TxtRecord) -> Option<[String; 4]> {
    let read = || {
        Some([
            record.get("v")?,
            record.get("volume")?,
            record.get("name")?,
            record.get("node")?,
        ])
    };
    catch_unwind(AssertUnwindSafe(read)).ok().flatten()
}

fn addresses(ip: IpAddr, port: u16) -> Vec<SocketAddr> {
    match ip {
        ip if ip.is_loopback() || ip.is_unspecified() => Vec::new(),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => scope::candidates(ip, port),
        ip => vec![SocketAddr::new(ip, port)],
    }
}
