//! A table of a bounded size that forgets first what soonest says nothing any more.

use schema::time::Mono;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Table<K, V> {
    rows: BTreeMap<K, (V, Mono)>,
    /// When each row says nothing any more, soonest first.
    order: BTreeSet<(Mono, K)>,
    most: usize,
}

impl<K: Ord + Clone, V> Table<K, V> {
    pub(super) const fn new(most: usize) -> Self {
        Self { rows: BTreeMap::new(), order: BTreeSet::new(), most }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn peek<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.rows.get(key).map(|(value, _)| value)
    }

    /// Remembers a row at least until it is forgettable, unless the table is full of rows that matter longer.
    pub(super) fn put(&mut self, key: K, value: V, forgettable: Mono, now: Mono) {
        if let Some((_, before)) = self.rows.insert(key.clone(), (value, forgettable)) {
            self.order.remove(&(before, key.clone()));
        }
        self.order.insert((forgettable, key));
        while let Some((at, _)) = self.order.first()
            && (*at <= now || self.order.len() > self.most)
        {
            let Some((_, key)) = self.order.pop_first() else { break };
            self.rows.remove(&key);
        }
    }
}
