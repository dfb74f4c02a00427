//! Consistent hashing by a table, as Maglev builds it: the same on every node that has the same
//! servers, whatever their order, and little of it changes when a server leaves.

use std::net::SocketAddr;

use crate::hash::Hash;

/// A prime, at least a hundred times as large as the number of servers usually is, so that shares are
/// within a percent of the weights. Not by their number: a table of another size sends most clients
/// elsewhere.
const SLOTS: usize = 16_381;

/// Which server, by its position, each slot leads to.
#[derive(Debug, Default)]
pub struct Maglev(Box<[u16]>);

impl Maglev {
    /// Of these servers and weights; empty when none takes clients. Servers beyond 65,536 get none.
    pub fn of(servers: &[(SocketAddr, u32)]) -> Self {
        let mut takers: Vec<Taker> = servers
            .iter()
            .zip(0..=u16::MAX)
            .filter(|((_, weight), _)| *weight > 0)
            .map(|((address, weight), position)| Taker::new(*address, *weight, position))
            .collect();
        let Some(heaviest) = takers.iter().map(|taker| taker.weight).max() else {
            return Self::default();
        };
        takers.sort_by_key(|taker| taker.address);
        let mut slots: Box<[Option<u16>]> = vec![None; SLOTS].into();
        let mut free = SLOTS;
        while free > 0 {
            for taker in &mut takers {
                taker.credit += taker.weight;
                // The heaviest takes a slot in every round, the others as often as their weight.
                if taker.credit < heaviest || free == 0 {
                    continue;
                }
                taker.credit -= heaviest;
                let slot = taker.next_free(&slots);
                slots[slot] = Some(taker.position);
                free -= 1;
            }
        }
        Self(slots.iter().flatten().copied().collect())
    }

    /// Positions of servers in the order in which they are to be tried for a client of this hash,
    /// many of them more than once. The order is that of the slots: it does not depend on who asks.
    pub fn from(&self, hash: u64) -> impl Iterator<Item = usize> {
        let slots = self.0.len();
        let first = usize::try_from(hash % SLOTS as u64).unwrap_or(0);
        (0..slots).map(move |step| usize::from(self.0[(first + step) % slots]))
    }
}

/// A server that slots are given to.
struct Taker {
    address: SocketAddr,
    weight: u64,
    position: u16,
    credit: u64,
    /// The slot that it takes next if that is free, and the way to the one after.
    next: usize,
    skip: usize,
}

impl Taker {
    fn new(address: SocketAddr, weight: u32, position: u16) -> Self {
        let hash = |seed: u8| Hash::default().feed(&[seed]).feed_address(address).end();
        let below = |limit: usize, seed| usize::try_from(hash(seed) % limit as u64).unwrap_or(0);
        let (next, skip) = (below(SLOTS, 1), below(SLOTS - 1, 2) + 1);
        Self { address, weight: weight.into(), position, credit: 0, next, skip }
    }

    /// There is one: the number of slots is a prime, so that every way leads to all of them.
    fn next_free(&mut self, slots: &[Option<u16>]) -> usize {
        loop {
            let slot = self.next;
            self.next = (self.next + self.skip) % SLOTS;
            if slots[slot].is_none() {
                return slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(weights: &[u32]) -> Vec<(SocketAddr, u32)> {
        let address =
            |n: usize| SocketAddr::from(([10, 0, (n / 250 % 256) as u8, (n % 250) as u8 + 1], 80));
        weights.iter().enumerate().map(|(n, weight)| (address(n), *weight)).collect()
    }

    fn shares(table: &Maglev, count: usize) -> Vec<usize> {
        let mut shares = vec![0; count];
        table.0.iter().for_each(|position| shares[usize::from(*position)] += 1);
        shares
    }

    #[test]
    fn slots_are_shared_by_weight_within_a_percent() {
        let table = Maglev::of(&servers(&[1, 2, 0, 5]));
        let shares = shares(&table, 4);
        for (share, weight) in shares.iter().zip([1.0, 2.0, 0.0, 5.0]) {
            let wanted = SLOTS as f64 * weight / 8.0;
            assert!((*share as f64 - wanted).abs() <= SLOTS as f64 / 100.0, "{shares:?}");
        }
        assert_eq!(shares[2], 0);
    }

    #[test]
    fn the_order_of_the_servers_is_of_no_account() {
        let listed = servers(&[3, 1, 2]);
        let turned: Vec<_> = listed.iter().rev().copied().collect();
        let (table, other) = (Maglev::of(&listed), Maglev::of(&turned));
        for slot in 0..SLOTS {
            let (one, same) = (usize::from(table.0[slot]), usize::from(other.0[slot]));
            assert_eq!(listed[one].0, turned[same].0, "slot {slot}");
        }
    }

    #[test]
    fn a_server_that_leaves_moves_few_clients_of_the_others() {
        let all = servers(&[1; 10]);
        let (before, after) = (Maglev::of(&all), Maglev::of(&all[..9]));
        let moved = before.0.iter().zip(&after.0).filter(|(old, new)| **old != 9 && old != new);
        let moved = moved.count();
        // Maglev moves some; a table by remainder would move nine in ten.
        assert!(moved < SLOTS / 20, "{moved} of {SLOTS}");
    }

    #[test]
    fn without_a_taker_there_is_nothing_and_with_extreme_weights_everything_ends() {
        assert_eq!(Maglev::of(&servers(&[0, 0])).from(7).count(), 0);
        let table = Maglev::of(&servers(&[65_535, 1]));
        assert_eq!(table.0.len(), SLOTS);
    }

    #[test]
    fn servers_beyond_what_a_slot_can_name_get_no_clients() {
        let mut weights = [0; 65_537];
        weights[65_535] = 1;
        weights[65_536] = 1;
        let table = Maglev::of(&servers(&weights));
        assert!(table.0.iter().all(|position| *position == 65_535));
    }
}
