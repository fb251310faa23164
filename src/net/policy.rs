//! LAN means LAN: which addresses this node talks to.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Interfaces come and go (Wi-Fi, cables): what is known of them is this old at most.
pub const INTERFACES_AGE_MAX: Duration = Duration::from_secs(5);

/// Shortest prefix of an interface that counts as a local network: a wider one is a mistake or a
/// tunnel to everywhere.
const ON_LINK_BITS_MIN_V4: u8 = 8;
const ON_LINK_BITS_MIN_V6: u8 = 32;

/// An address and how many of its leading bits name the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// Any address in the network.
    pub address: IpAddr,
    /// Leading bits that count.
    pub bits: u8,
}

impl Prefix {
    /// Whether an address is in the network; of an IPv4-mapped one, the IPv4 address counts.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let differing = net.to_bits() ^ ip.to_bits();
                differing.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let differing = net.to_bits() ^ ip.to_bits();
                differing.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }

    fn is_local_network(&self) -> bool {
        match self.address {
            IpAddr::V4(_) => self.bits >= ON_LINK_BITS_MIN_V4,
            IpAddr::V6(_) => self.bits >= ON_LINK_BITS_MIN_V6,
        }
    }
}

/// Decides by address alone. Pure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    on_link: Vec<Prefix>,
    named: BTreeSet<IpAddr>,
}

impl Policy {
    /// Besides loopback, link-local and private addresses: the networks that interfaces are in, and
    /// hosts that the owner named (`--peer`).
    pub fn new(on_link: Vec<Prefix>, named: &BTreeSet<IpAddr>) -> Self {
        let mut on_link = on_link;
        on_link.retain(Prefix::is_local_network);
        let named = named.iter().map(IpAddr::to_canonical).collect();
        Self { on_link, named }
    }

    /// Whether to talk to this address, in either direction.
    pub fn allows(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        is_always_local(ip)
            || self.named.contains(&ip)
            || self.on_link.iter().any(|prefix| prefix.contains(ip))
    }
}

/// Loopback, link-local, RFC 1918, and unique local IPv6 (RFC 4193).
fn is_always_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_private(),
        IpAddr::V6(ip) => {
            ip == Ipv6Addr::LOCALHOST || ip.is_unicast_link_local() || ip.is_unique_local()
        }
    }
}

/// The networks that this host's interfaces are in now.
pub fn interface_prefixes() -> io::Result<Vec<Prefix>> {
    let interfaces = if_addrs::get_if_addrs()?;
    let prefixes = interfaces.iter().map(|interface| match &interface.addr {
        if_addrs::IfAddr::V4(v4) => Prefix {
            address: v4.ip.into(),
            bits: v4.prefixlen,
        },
        if_addrs::IfAddr::V6(v6) => Prefix {
            address: v6.ip.into(),
            bits: v6.prefixlen,
        },
    });
    Ok(prefixes.collect())
}

/// A policy that follows the host's interfaces.
#[derive(Debug)]
pub struct Gate {
    named: BTreeSet<IpAddr>,
    current: Mutex<(Policy, Option<Instant>)>,
}

impl Gate {
    /// `named`: hosts allowed besides the local ones.
    pub fn new(named: BTreeSet<IpAddr>) -> Self {
        let policy = Policy::new(Vec::new(), &named);
        let current = Mutex::new((policy, None));
        Self { named, current }
    }

    /// Whether to talk to this address; looks at the interfaces again when what is known is too old.
    pub fn allows(&self, ip: IpAddr) -> bool {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (policy, read) = &mut *current;
        if policy.allows(ip) && read.is_none_or(|read| read.elapsed() < INTERFACES_AGE_MAX) {
            return true;
        }
        if read.is_none_or(|read| read.elapsed() >= INTERFACES_AGE_MAX) {
            *read = Some(Instant::now());
            match interface_prefixes() {
                Ok(on_link) => *policy = Policy::new(on_link, &self.named),
                Err(error) => tracing::warn!(%error, "cannot read the network interfaces"),
            }
        }
        policy.allows(ip)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, bits) = text.split_once('/').unwrap();
        Prefix {
            address: address.parse().unwrap(),
            bits: bits.parse().unwrap(),
        }
    }

    fn policy() -> Policy {
        let on_link = ["203.0.113.77/28", "2001:db8:1:2::3/64", "0.0.0.0/0", "::/0"];
        let named = ["198.51.100.9".parse().unwrap()].into();
        Policy::new(on_link.map(prefix).into(), &named)
    }

    #[test]
    fn local_on_link_and_named_are_allowed() {
        for good in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "169.254.3.4",
            "fe80::1",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.255.1",
            "fc00::1",
            "fdff::1",
            "203.0.113.64",
            "203.0.113.79",
            "2001:db8:1:2:ffff::1",
            "198.51.100.9",
            "::ffff:10.0.0.1",
            "::ffff:203.0.113.65",
            "::ffff:198.51.100.9",
        ] {
            assert!(policy().allows(good.parse().unwrap()), "{good}");
        }
    }

    #[test]
    fn all_others_are_refused() {
        for bad in [
            "8.8.8.8",
            "172.32.0.1",
            "172.15.255.255",
            "192.169.0.1",
            "11.0.0.1",
            "100.64.0.1",
            "203.0.113.63",
            "203.0.113.80",
            "2001:db8:1:3::1",
            "2606:4700::1",
            "fe00::1",
            "::ffff:8.8.8.8",
            "198.51.100.10",
            "0.0.0.0",
            "::",
            "224.0.0.251",
            "ff02::fb",
            "::8.8.8.8",
        ] {
            assert!(!policy().allows(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn the_gate_knows_this_host() {
        let gate = Gate::new(BTreeSet::new());
        assert!(gate.allows("127.0.0.1".parse().unwrap()));
        assert!(!gate.allows("8.8.8.8".parse().unwrap()));
        let loopback = interface_prefixes().unwrap();
        assert!(loopback.contains(&prefix("127.0.0.1/8")));
    }
}
