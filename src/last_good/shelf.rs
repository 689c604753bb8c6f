//! Answers by key, within bounds of bytes and entries: who was put longest ago goes first. Pure: no lock, no clock.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// What an entry costs beside its bytes.
pub(super) const ENTRY: usize = 256;

#[derive(Debug)]
pub(super) struct Shelf<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// By the order in which they were put.
    order: BTreeMap<u64, K>,
    next: u64,
    bytes: usize,
    max_bytes: usize,
    max_entries: usize,
}

#[derive(Debug)]
struct Entry<V> {
    number: u64,
    cost: usize,
    value: V,
}

impl<K: Hash + Eq + Clone, V> Shelf<K, V> {
    pub(super) fn new(max_bytes: usize, max_entries: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), next: 0, bytes: 0, max_bytes, max_entries }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Puts a value of so many bytes in the place of an older one. One that is larger than all that may be kept takes no place, and the older one goes all the same.
    pub(super) fn put(&mut self, key: K, value: V, bytes: usize) {
        self.remove(&key);
        let cost = bytes.saturating_add(ENTRY);
        if cost > self.max_bytes || self.max_entries == 0 {
            return;
        }
        while self.bytes + cost > self.max_bytes || self.entries.len() >= self.max_entries {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.remove(&oldest);
        }
        self.order.insert(self.next, key.clone());
        self.entries.insert(key, Entry { number: self.next, cost, value });
        self.next += 1;
        self.bytes += cost;
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.number);
            self.bytes -= entry.cost;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // What is kept is what was put last, as much of it as there is room for.
        #[test]
        fn the_latest_are_kept_within_the_bounds(
            ops in proptest::collection::vec((0_u8..12, 0_usize..2_000), 1..200),
            max_bytes in 500_usize..6_000,
            max_entries in 1_usize..8,
        ) {
            let mut shelf = Shelf::new(max_bytes, max_entries);
            // The reference: a list, the latest last.
            let mut list: Vec<(u8, usize, usize)> = Vec::new();
            for (n, (key, len)) in ops.into_iter().enumerate() {
                shelf.put(key, n, len);
                list.retain(|(known, ..)| *known != key);
                if len + ENTRY <= max_bytes {
                    list.push((key, n, len + ENTRY));
                }
                while list.len() > max_entries || list.iter().map(|(_, _, cost)| cost).sum::<usize>() > max_bytes {
                    list.remove(0);
                }
                prop_assert_eq!(shelf.len(), list.len());
                prop_assert_eq!(shelf.bytes(), list.iter().map(|(_, _, cost)| cost).sum::<usize>());
                prop_assert!(shelf.bytes() <= max_bytes && shelf.len() <= max_entries);
                for key in 0..12 {
                    let kept = list.iter().find(|(known, ..)| *known == key).map(|(_, n, _)| n);
                    prop_assert_eq!(shelf.get(&key), kept);
                }
            }
        }
    }
}
