//! Places that are given to one after another, so that no single peer takes them all.

use crate::sync_ext::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who has something under way that is to be under way once for each.
pub(super) type OneEach<K> = Mutex<BTreeSet<K>>;

/// While it lives, its owner has something under way.
#[derive(Debug)]
pub(super) struct Only<K: Ord> {
    all: Arc<OneEach<K>>,
    key: K,
}

impl<K: Ord + Copy> Only<K> {
    /// `None` while the one before it lives.
    pub(super) fn take(all: &Arc<OneEach<K>>, key: K) -> Option<Self> {
        let all = Arc::clone(all);
        let is_first = lock(&all).insert(key);
        is_first.then_some(Self { all, key })
    }
}

impl<K: Ord> Drop for Only<K> {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.key);
    }
}

/// So many places in all, and fewer for each; whoever finds none waits.
#[derive(Debug)]
pub(super) struct Shares<K> {
    all: Arc<Semaphore>,
    each: usize,
    taken: Mutex<BTreeMap<K, Arc<Semaphore>>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Share(#[expect(dead_code, reason = "held")] [OwnedSemaphorePermit; 2]);

impl<K: Ord + Copy> Shares<K> {
    pub(super) fn new(all: usize, each: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            each,
            taken: Mutex::default(),
        }
    }

    /// Waits for a place. `None` is never.
    pub(super) async fn take(&self, key: K) -> Option<Share> {
        let own = {
            let mut taken = lock(&self.taken);
            // whose last place was given back is forgotten
            taken.retain(|_, places| Arc::strong_count(places) > 1);
            let places = taken.entry(key);
            Arc::clone(places.or_insert_with(|| Arc::new(Semaphore::new(self.each))))
        };
        let own = own.acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Share([own, all]))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn once_for_each_until_it_has_ended() {
        let all = Arc::default();
        let first = Only::take(&all, 1);
        assert!(first.is_some() && Only::take(&all, 1).is_none());
        assert!(Only::take(&all, 2).is_some());
        drop(first);
        assert!(Only::take(&all, 1).is_some());
    }

    #[test]
    fn who_takes_what_it_can_leaves_places_for_others() {
        let shares = Shares::new(3, 2);
        let mut noop = Context::from_waker(Waker::noop());
        let mut take = |key: u8| match pin!(shares.take(key)).poll(&mut noop) {
            Poll::Ready(share) => share,
            Poll::Pending => None,
        };
        let held = [take(1), take(1)];
        assert!(held.iter().all(Option::is_some) && take(1).is_none());
        let other = take(2);
        assert!(other.is_some() && take(3).is_none(), "three in all");
        drop(held);
        assert!(take(3).is_some());
        assert!(
            shares.taken.lock().unwrap().len() <= 3,
            "nobody is remembered for ever"
        );
    }
}
