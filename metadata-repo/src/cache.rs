//! A bounded cache of what was decoded from immutable objects.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: when the young one is full the old one is dropped. What is used stays.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    weight: usize,
    weight_max: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// `weight_max` bounds each generation, in the units that [`Cache::insert`] is told.
    pub(crate) fn new(weight_max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            weight: 0,
            weight_max,
        }
    }

    pub(crate) fn get(&mut self, key: &K, weigh: impl Fn(&V) -> usize) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        let weight = weigh(&value);
        self.insert(key.clone(), value.clone(), weight);
        Some(value)
    }

    /// All that is there, in no order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.young.values().chain(self.old.values())
    }

    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize) {
        if self.weight >= self.weight_max {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        if self.young.insert(key, value).is_none() {
            self.weight += weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_used_and_stays_small() {
        let mut cache = Cache::new(10);
        for number in 0..1000 {
            cache.insert(number, number, 1);
            assert_eq!(cache.get(&0, |_| 1), Some(0), "used each time");
            assert!(cache.young.len() + cache.old.len() <= 22);
        }
        assert_eq!(cache.get(&500, |_| 1), None);
    }
}
