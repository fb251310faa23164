//! Where the peers of one content may be found, and when each address is worth the next attempt.

use super::limits::{ADDRESSES_MAX, BACK_OFF_MAX, BACK_OFF_MIN, PEERS_MAX};
use super::scheduler::PeerKey;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be tried from then on.
    Due(Instant),
    Connecting,
    /// The peer there is connected, by whichever side began.
    Connected(PeerKey),
    /// Ourselves, or a peer that lied.
    Barred,
}

#[derive(Debug)]
struct Address {
    state: State,
    pause: Duration,
    /// Named by the sources when last asked.
    current: bool,
}

/// The addresses of one content.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    all: BTreeMap<SocketAddr, Address>,
}

impl Addresses {
    /// What the sources say now. Whether there is an address that was not among those of the last time.
    pub(crate) fn update(&mut self, named: &[SocketAddr], now: Instant) -> bool {
        let before: Vec<SocketAddr> = (self.all.iter())
            .filter(|(_, address)| address.current)
            .map(|(at, _)| *at)
            .collect();
        self.all
            .values_mut()
            .for_each(|address| address.current = false);
        for at in named.iter().take(ADDRESSES_MAX) {
            let address = self.all.entry(*at).or_insert(Address {
                state: State::Due(now),
                pause: BACK_OFF_MIN,
                current: true,
            });
            address.current = true;
        }
        self.all
            .retain(|_, address| address.current || !matches!(address.state, State::Due(_)));
        named.iter().any(|at| !before.contains(at))
    }

    /// Something has changed out there: every pause ends.
    pub(crate) fn reset(&mut self, now: Instant) {
        for address in self.all.values_mut() {
            address.pause = BACK_OFF_MIN;
            if let State::Due(at) = &mut address.state {
                *at = now;
            }
        }
    }

    /// Addresses to be tried now, at most so many; they count as being tried.
    pub(crate) fn take_due(&mut self, most: usize, now: Instant) -> Vec<SocketAddr> {
        let most = most.min(PEERS_MAX);
        let due = |address: &Address| matches!(address.state, State::Due(at) if at <= now);
        let mut taken = Vec::new();
        for (at, address) in (self.all.iter_mut())
            .filter(|(_, address)| due(address))
            .take(most)
        {
            address.state = State::Connecting;
            taken.push(*at);
        }
        taken
    }

    /// Attempts under way.
    pub(crate) fn connecting(&self) -> usize {
        let connecting = |address: &&Address| address.state == State::Connecting;
        self.all.values().filter(connecting).count()
    }

    /// The attempt failed, or the connection is lost: later again.
    pub(crate) fn failed(&mut self, at: SocketAddr, now: Instant) {
        if let Some(address) = self.all.get_mut(&at)
            && address.state != State::Barred
        {
            address.state = State::Due(now + address.pause);
            address.pause = (2 * address.pause).min(BACK_OFF_MAX);
        }
    }

    /// A peer is connected, and this is where it listens.
    pub(crate) fn connected(&mut self, at: SocketAddr, key: PeerKey) {
        self.set(at, State::Connected(key));
    }

    /// The peer has proved useful: the next loss starts with a short pause.
    pub(crate) fn useful(&mut self, key: PeerKey) {
        for address in self.all.values_mut() {
            if address.state == State::Connected(key) {
                address.pause = BACK_OFF_MIN;
            }
        }
    }

    /// The peer is gone.
    pub(crate) fn left(&mut self, key: PeerKey, now: Instant) {
        let at: Vec<SocketAddr> = (self.all.iter())
            .filter(|(_, address)| address.state == State::Connected(key))
            .map(|(at, _)| *at)
            .collect();
        for at in at {
            self.failed(at, now);
        }
    }

    /// Whoever was barred is to be tried again.
    pub(crate) fn forgive(&mut self, now: Instant) {
        for address in self.all.values_mut() {
            if address.state == State::Barred {
                address.state = State::Due(now);
            }
        }
    }

    /// Do not try this address again.
    pub(crate) fn bar(&mut self, at: SocketAddr) {
        self.set(at, State::Barred);
    }

    fn set(&mut self, at: SocketAddr, state: State) {
        if let Some(address) = self.all.get_mut(&at)
            && address.state != State::Barred
        {
            address.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn pauses_double_to_a_bound_and_end_when_something_changes() {
        let (mut addresses, mut now) = (Addresses::default(), Instant::now());
        assert!(addresses.update(&[at(1)], now));
        assert!(!addresses.update(&[at(1)], now));
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(addresses.take_due(8, now), [at(1)]);
            assert_eq!(addresses.take_due(8, now), []);
            addresses.failed(at(1), now);
            let State::Due(due) = addresses.all[&at(1)].state else {
                panic!("to be tried again");
            };
            pauses.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(
            pauses,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        addresses.take_due(8, now);
        addresses.failed(at(1), now);
        addresses.reset(now);
        assert_eq!(addresses.take_due(8, now), [at(1)]);
    }

    #[test]
    fn what_sources_no_longer_name_is_forgotten_unless_in_use() {
        let (mut addresses, now) = (Addresses::default(), Instant::now());
        addresses.update(&[at(1), at(2), at(3)], now);
        addresses.connected(at(1), PeerKey(7));
        addresses.bar(at(3));
        assert!(addresses.update(&[at(3), at(4)], now));
        assert_eq!(addresses.take_due(8, now), [at(4)]);
        addresses.left(PeerKey(7), now);
        assert!(!addresses.update(&[at(4)], now));
        addresses.failed(at(4), now);
        assert_eq!(addresses.all.len(), 2);
    }
}
