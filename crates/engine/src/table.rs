//! Which instances have something, by a key that is made anew with each plan.

use std::borrow::Borrow;

use crate::ids::InstanceId;

/// Sorted by key. Those with the same key stay in the order in which they were given. A node of
/// thousands of instances has several of these: a hash table would take three times the room.
#[derive(Debug)]
pub struct InstanceTable<K>(Box<[(K, InstanceId)]>);

impl<K: Ord> InstanceTable<K> {
    /// All that have this key.
    pub fn get<'a, Q: Ord + ?Sized>(
        &'a self,
        key: &Q,
    ) -> impl Iterator<Item = InstanceId> + use<'a, K, Q>
    where
        K: Borrow<Q>,
    {
        let start = self.0.partition_point(|(other, _)| other.borrow() < key);
        let alike = self.0[start..].partition_point(|(other, _)| other.borrow() == key);
        self.0[start..start + alike].iter().map(|(_, id)| *id)
    }
}

impl<K> InstanceTable<K> {
    /// All that have something.
    pub fn ids(&self) -> impl Iterator<Item = InstanceId> {
        self.0.iter().map(|(_, id)| *id)
    }
}

impl<K> Default for InstanceTable<K> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<K: Ord> FromIterator<(K, InstanceId)> for InstanceTable<K> {
    fn from_iter<I: IntoIterator<Item = (K, InstanceId)>>(pairs: I) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_by(|(one, _), (two, _)| one.cmp(two));
        Self(pairs.into_boxed_slice())
    }
}
