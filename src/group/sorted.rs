//! A small map as a sorted list: ten thousand groups that store a few offsets each hold many of them, and a tree's
//! first node has room for eleven entries.
//!
//! Entries come in order where a log or a request has them in order, so that inserting seldom moves any.

use std::borrow::Borrow;

/// A map in a list sorted by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortedMap<K, V> {
    entries: Vec<(K, V)>,
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<K: Ord, V> SortedMap<K, V> {
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.entries.binary_search_by(|(other, _)| other.borrow().cmp(key))
    }

    /// What a key has.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(self.find(key).ok()?).map(|(_, value)| value)
    }

    /// As [`Self::get`], to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let at = self.find(key).ok()?;
        self.entries.get_mut(at).map(|(_, value)| value)
    }

    /// Whether a key has something.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// Gives a key a value; the one it had before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => self.entries.get_mut(at).map(|(_, before)| std::mem::replace(before, value)),
            Err(at) => {
                if self.entries.len() == self.entries.capacity() {
                    // An eighth at a time: most never grow again.
                    self.entries.reserve_exact(self.entries.len() / 8 + 1);
                }
                self.entries.insert(at, (key, value));
                None
            }
        }
    }

    /// Takes a key away.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.find(key).ok()?;
        Some(self.entries.remove(at).1)
    }

    /// Keeps what satisfies.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.entries.retain(|(key, value)| keep(key, value));
    }
}

impl<K: Ord, V: Default> SortedMap<K, V> {
    /// What a key has; the default, if it has nothing yet.
    pub fn get_or_default(&mut self, key: K) -> &mut V {
        let at = self.find(&key).unwrap_or_else(|at| {
            self.entries.reserve_exact(1);
            self.entries.insert(at, (key, V::default()));
            at
        });
        self.entries.get_mut(at).map(|(_, value)| value).expect("an entry that was found or inserted")
    }
}

impl<K, V> SortedMap<K, V> {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.entries.iter().map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_holds_what_a_tree_would_hold() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut map, mut tree) = (SortedMap::<u8, u32>::default(), BTreeMap::new());
        for _ in 0..5_000 {
            let (key, value) = (rng.u8(..40), rng.u32(..));
            match rng.u8(..4) {
                0 => assert_eq!(map.insert(key, value), tree.insert(key, value)),
                1 => assert_eq!(map.remove(&key), tree.remove(&key)),
                2 => assert_eq!(map.get_or_default(key), tree.entry(key).or_default()),
                _ => {
                    map.retain(|key, _| key % 7 != 3);
                    tree.retain(|key, _| key % 7 != 3);
                }
            }
            assert!(map.iter().eq(tree.iter()) && map.keys().eq(tree.keys()));
            assert_eq!((map.get(&key), map.is_empty()), (tree.get(&key), tree.is_empty()));
            assert_eq!(map.contains_key(&key), tree.contains_key(&key));
        }
    }
}
