//! What turns what is there into what is wanted, key by key: one comparison for every kind of
//! kernel state. Pure. In which order the differences are carried out is the caller's.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What two maps have under one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Difference<W, O> {
    /// Wanted and not there.
    Missing(W),
    /// Wanted and there; equal or not, is for the caller to say.
    Both(W, O),
    /// There and not wanted.
    Extra(O),
}

/// Every key of both maps, in order.
pub(crate) fn diff<'a, K: Ord + Copy, W, O>(
    wanted: &'a BTreeMap<K, W>,
    observed: &'a BTreeMap<K, O>,
) -> impl Iterator<Item = (K, Difference<&'a W, &'a O>)> {
    let (mut wanted, mut observed) = (wanted.iter().peekable(), observed.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (wanted.peek(), observed.peek()) {
            (Some((wanted, _)), Some((observed, _))) => wanted.cmp(observed),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        match order {
            Ordering::Less => {
                wanted.next().map(|(key, wanted)| (*key, Difference::Missing(wanted)))
            }
            Ordering::Greater => {
                observed.next().map(|(key, observed)| (*key, Difference::Extra(observed)))
            }
            Ordering::Equal => {
                let ((key, wanted), (_, observed)) = wanted.next().zip(observed.next())?;
                Some((*key, Difference::Both(wanted, observed)))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_named_once_and_in_order() {
        let wanted = BTreeMap::from([(1, 'a'), (3, 'b'), (4, 'c')]);
        let observed = BTreeMap::from([(2, 'x'), (3, 'y'), (5, 'z')]);
        let found: Vec<_> = diff(&wanted, &observed).collect();
        assert_eq!(
            found,
            [
                (1, Difference::Missing(&'a')),
                (2, Difference::Extra(&'x')),
                (3, Difference::Both(&'b', &'y')),
                (4, Difference::Missing(&'c')),
                (5, Difference::Extra(&'z')),
            ]
        );
    }
}
