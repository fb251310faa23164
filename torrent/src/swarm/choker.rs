//! Whom we let ask for blocks: everybody, while there is room; else whoever waits takes turns with those who
//! have had theirs. A node's peers are its own volume's: there is nothing to trade for.

use super::limits::{ROTATE, UNCHOKED_MAX};
use super::scheduler::PeerKey;
use std::collections::BTreeMap;
use std::time::Instant;

#[derive(Debug, Clone, Copy)]
struct State {
    interested: bool,
    /// When it was let in, if it is.
    unchoked: Option<Instant>,
    /// Since when it waits to be let in.
    waits: Instant,
}

/// Who may ask, of one content's peers.
#[derive(Debug, Default)]
pub(crate) struct Choker {
    peers: BTreeMap<PeerKey, State>,
}

impl Choker {
    /// A newcomer is let in before it asks, if there is room: that saves a small file a round trip.
    pub(crate) fn join(&mut self, key: PeerKey, now: Instant) -> Vec<(PeerKey, bool)> {
        let state = State {
            interested: false,
            unchoked: None,
            waits: now,
        };
        self.peers.insert(key, state);
        if self.unchoked() < UNCHOKED_MAX {
            return vec![self.set(key, true, now)];
        }
        Vec::new()
    }

    pub(crate) fn leave(&mut self, key: PeerKey, now: Instant) -> Vec<(PeerKey, bool)> {
        self.peers.remove(&key);
        self.admit(now)
    }

    pub(crate) fn interest(
        &mut self,
        key: PeerKey,
        on: bool,
        now: Instant,
    ) -> Vec<(PeerKey, bool)> {
        if let Some(state) = self.peers.get_mut(&key) {
            if on && !state.interested {
                state.waits = now;
            }
            state.interested = on;
        }
        self.admit(now)
    }

    /// Changes that are due: who becomes choked (`false`) and unchoked (`true`).
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<(PeerKey, bool)> {
        let mut changes = Vec::new();
        if self.longest_waiting().is_some()
            && self.unchoked() >= UNCHOKED_MAX
            && let Some(oldest) = self.longest_served(now)
        {
            changes.push(self.set(oldest, false, now));
        }
        changes.extend(self.admit(now));
        changes
    }

    /// Somebody wants blocks of us.
    pub(crate) fn busy(&self) -> bool {
        self.peers.values().any(|state| state.interested)
    }

    fn admit(&mut self, now: Instant) -> Vec<(PeerKey, bool)> {
        let mut changes = Vec::new();
        while let Some(next) = self.longest_waiting() {
            if self.unchoked() >= UNCHOKED_MAX {
                let Some(idle) = self.uninterested() else {
                    break;
                };
                changes.push(self.set(idle, false, now));
            }
            changes.push(self.set(next, true, now));
        }
        changes
    }

    fn set(&mut self, key: PeerKey, unchoked: bool, now: Instant) -> (PeerKey, bool) {
        if let Some(state) = self.peers.get_mut(&key) {
            state.unchoked = unchoked.then_some(now);
            state.waits = now;
        }
        (key, unchoked)
    }

    fn unchoked(&self) -> usize {
        let unchoked = |state: &&State| state.unchoked.is_some();
        self.peers.values().filter(unchoked).count()
    }

    fn longest_waiting(&self) -> Option<PeerKey> {
        let waiting =
            (self.peers.iter()).filter(|(_, state)| state.interested && state.unchoked.is_none());
        waiting
            .min_by_key(|(_, state)| state.waits)
            .map(|(key, _)| *key)
    }

    fn uninterested(&self) -> Option<PeerKey> {
        (self.peers.iter())
            .find(|(_, state)| state.unchoked.is_some() && !state.interested)
            .map(|(key, _)| *key)
    }

    fn longest_served(&self, now: Instant) -> Option<PeerKey> {
        let served = self.peers.iter().filter_map(|(key, state)| {
            let since = state.unchoked?;
            (now.saturating_duration_since(since) >= ROTATE).then_some((since, *key))
        });
        served.min().map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn all_get_their_turn() {
        let (mut choker, start) = (Choker::default(), Instant::now());
        let keys = || (0..UNCHOKED_MAX as u64 + 2).map(PeerKey);
        for key in keys() {
            choker.join(key, start);
            choker.interest(key, true, start);
        }
        assert_eq!(choker.unchoked(), UNCHOKED_MAX);
        let mut served: std::collections::BTreeSet<PeerKey> = keys().take(UNCHOKED_MAX).collect();
        for turn in 1..=4 {
            for (key, on) in choker.tick(start + turn * (ROTATE + Duration::from_millis(1))) {
                if on {
                    served.insert(key);
                }
            }
            assert_eq!(choker.unchoked(), UNCHOKED_MAX);
        }
        assert_eq!(served.len(), UNCHOKED_MAX + 2);
    }

    #[test]
    fn who_wants_nothing_makes_room_at_once() {
        let (mut choker, now) = (Choker::default(), Instant::now());
        for key in 0..UNCHOKED_MAX as u64 {
            assert_eq!(choker.join(PeerKey(key), now), [(PeerKey(key), true)]);
        }
        assert_eq!(choker.join(PeerKey(99), now), []);
        let changes = choker.interest(PeerKey(99), true, now);
        assert_eq!(changes, [(PeerKey(0), false), (PeerKey(99), true)]);
    }
}
