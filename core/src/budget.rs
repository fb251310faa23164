//! What each peer may cause: so much at once, and then so much in a time.

use std::collections::BTreeMap;
use std::time::Duration;

/// Peers remembered; while there are more that have spent something, newcomers get nothing.
pub const PEERS_MAX: usize = 256;

/// A token bucket for each peer.
#[derive(Debug)]
pub struct Budget<P> {
    most: u32,
    each: Duration,
    /// When each peer's bucket will be full again.
    full_at: BTreeMap<P, Duration>,
}

impl<P: Ord> Budget<P> {
    /// `most` at once, and one more after `each`.
    pub fn new(most: u32, each: Duration) -> Self {
        Self {
            most,
            each,
            full_at: BTreeMap::new(),
        }
    }

    /// Whether a peer may once more. `now` is the time since some fixed moment, and never goes back.
    pub fn take(&mut self, peer: P, now: Duration) -> bool {
        self.full_at.retain(|_, full| *full > now);
        let full = self.full_at.get(&peer).copied().unwrap_or(now) + self.each;
        let has_room = self.full_at.len() < PEERS_MAX || self.full_at.contains_key(&peer);
        let may = has_room && full <= now + self.each * self.most;
        if may {
            self.full_at.insert(peer, full);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn so_many_at_once_and_then_one_by_one_for_each() {
        let mut budget = Budget::new(3, SECOND);
        let mut spend = |number, now: u64| {
            let now = Duration::from_secs(now);
            (0..10).filter(|_| budget.take(number, now)).count()
        };
        assert_eq!((spend(1, 100), spend(1, 100)), (3, 0));
        assert_eq!(spend(2, 100), 3, "others have their own");
        assert_eq!((spend(1, 101), spend(1, 103)), (1, 2));
        assert_eq!(spend(1, 1000), 3);
    }

    #[test]
    fn peers_without_end_are_not_remembered() {
        let mut budget = Budget::new(1, SECOND);
        let now = |seconds| Duration::from_secs(seconds);
        let took = (0..5000).filter(|one| budget.take(*one, now(1)));
        assert_eq!(took.count(), PEERS_MAX);
        assert!(!budget.take(0, now(1)));
        assert!(budget.take(9999, now(3)));
        assert_eq!(budget.full_at.len(), 1);
    }
}
