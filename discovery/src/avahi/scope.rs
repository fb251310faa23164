//! The interfaces that a link-local IPv6 address may belong to.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

/// Interfaces tried for one address: a host with more has most of them for its own containers.
const SCOPES_MAX: usize = 8;

/// Avahi's answers come without the interface they were heard on, and a link-local address means nothing
/// without it: so one address for each interface that has such addresses. Dialing the wrong ones fails.
pub(super) fn candidates(ip: Ipv6Addr, port: u16) -> Vec<SocketAddr> {
    let table = fs::read_to_string("/proc/self/net/if_inet6").unwrap_or_default();
    let scopes = link_local_interfaces(&table).into_iter();
    scopes
        .map(|scope| SocketAddrV6::new(ip, port, 0, scope).into())
        .collect()
}

/// From the kernel's table, a line `address index prefix-length scope flags name` for each address, in hex.
fn link_local_interfaces(table: &str) -> Vec<u32> {
    let mut scopes: Vec<u32> = table
        .lines()
        .filter(|line| line.starts_with("fe80"))
        .filter_map(|line| u32::from_str_radix(line.split_whitespace().nth(1)?, 16).ok())
        .collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes.truncate(SCOPES_MAX);
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_those_with_link_local_addresses() {
        let table = "fe80000000000000fc54aefffe000002 0a 40 20 80     eth0\n\
                     00000000000000000000000000000001 01 80 10 80       lo\n\
                     fe80000000000000fc54aefffe000001 02 40 20 80     eth1\n\
                     fe80000000000000fc54aefffe000003 02 40 20 80     eth1\n";
        assert_eq!(link_local_interfaces(table), [2, 10]);
        assert!(link_local_interfaces("fe80 x\nfe80\n").is_empty());
    }
}
