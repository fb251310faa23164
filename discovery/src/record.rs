//! What nodes say of themselves in text: `mDNS` TXT values and registry files. Parsers of foreign bytes.

use crate::{ADDRESSES_MAX, Announcement, Peer};
use delugefs_core::ids::{NodeId, VolumeId};
use delugefs_core::limits::VOLUME_NAME_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Version of the TXT record.
pub(crate) const TXT_VERSION: &str = "1";

/// Version of a registry file.
const FILE_VERSION: u32 = 1;

pub(crate) fn volume_name_fits(name: &str) -> bool {
    (1..=VOLUME_NAME_BYTES_MAX).contains(&name.len())
}

/// The peer of TXT values, still without addresses; `None` if they are not ours to understand.
pub(crate) fn peer_from_txt(version: &str, volume: &str, name: &str, node: &str) -> Option<Peer> {
    (version == TXT_VERSION && volume_name_fits(name)).then_some(())?;
    Some(Peer {
        volume: volume.parse().ok()?,
        volume_name: name.to_owned(),
        node: node.parse().ok()?,
        addresses: Vec::new(),
    })
}

/// A registry file's text.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    version: u32,
    /// For people: liveness is the file's lock.
    pid: u32,
    /// Seconds since the Unix epoch, for people.
    started: u64,
    /// Where the addresses mean something: boot and network namespace.
    network: String,
    volume: String,
    name: String,
    node: String,
    addresses: Vec<SocketAddr>,
}

impl FileRecord {
    pub(crate) fn new(own: &Announcement, network: &str, pid: u32, started: u64) -> Self {
        Self {
            version: FILE_VERSION,
            pid,
            started,
            network: network.to_owned(),
            volume: own.volume.to_string(),
            name: own.volume_name.clone(),
            node: own.node.to_string(),
            addresses: local_addresses(own.listen),
        }
    }

    /// The peer that a file speaks of, if it is of this version and network.
    pub(crate) fn parse(bytes: &[u8], network: &str) -> Option<Peer> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        let fits = record.version == FILE_VERSION
            && record.network == network
            && volume_name_fits(&record.name)
            && (1..=ADDRESSES_MAX).contains(&record.addresses.len())
            && record.addresses.iter().all(|address| address.port() != 0);
        fits.then_some(())?;
        Some(Peer {
            volume: record.volume.parse::<VolumeId>().ok()?,
            volume_name: record.name,
            node: record.node.parse::<NodeId>().ok()?,
            addresses: record.addresses,
        })
    }
}

/// How a process on this host reaches a listening address.
fn local_addresses(listen: SocketAddr) -> Vec<SocketAddr> {
    let port = listen.port();
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![(Ipv4Addr::LOCALHOST, port).into()],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![
            (Ipv4Addr::LOCALHOST, port).into(),
            (Ipv6Addr::LOCALHOST, port).into(),
        ],
        _ => vec![listen],
    }
}
