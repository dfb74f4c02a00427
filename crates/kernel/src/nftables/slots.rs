//! Which server has which number: what a client's turn, or the hash of its address, is looked up in.
//! Pure.

use std::net::SocketAddr;

use super::service::{NatSelection, NatServer};

/// The most numbers of a service in turn: weights beyond are kept to one part in so many. More where
/// there are many servers, so that each has some.
const MOST_TURNS: usize = 1024;
const TURNS_PER_SERVER: usize = 4;

/// Numbers of a service by hash, as many as IPVS has.
const HASHED: usize = 256;

/// A prime number, for Maglev: with it a server that comes or goes takes few clients of others along.
const CONSISTENT: usize = 1021;

/// The server of each number, from 0 on; none when no server takes clients.
pub(super) fn slots(selection: NatSelection, servers: &[NatServer]) -> Vec<SocketAddr> {
    let taking: Vec<_> = servers.iter().filter(|server| server.weight > 0).copied().collect();
    let Some(divisor) = taking.iter().map(|server| server.weight).reduce(common_divisor) else {
        return Vec::new();
    };
    let most = MOST_TURNS.max(taking.len() * TURNS_PER_SERVER);
    let (weights, count): (Vec<u64>, usize) = match selection {
        NatSelection::Turns => (vec![1; taking.len()], taking.len()),
        NatSelection::WeightedTurns => {
            let weights: Vec<u64> =
                taking.iter().map(|server| u64::from(server.weight / divisor)).collect();
            let round = weights.iter().sum::<u64>();
            (weights, usize::try_from(round).map_or(most, |round| round.min(most)))
        }
        NatSelection::SourceHash => {
            (taking.iter().map(|server| u64::from(server.weight)).collect(), HASHED)
        }
        NatSelection::ConsistentHash => return consistent(&taking),
    };
    spread(&weights, count).into_iter().map(|at| taking[at].address).collect()
}

const fn common_divisor(one: u32, other: u32) -> u32 {
    let (mut one, mut other) = (one, other);
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// `count` turns, so that at any moment each has had as much as its weight says: who is behind most
/// is next.
fn spread(weights: &[u64], count: usize) -> Vec<usize> {
    let all: i64 = weights.iter().map(|weight| *weight as i64).sum();
    let mut behind = vec![0_i64; weights.len()];
    let turn = |_| {
        behind.iter_mut().zip(weights).for_each(|(behind, weight)| *behind += *weight as i64);
        // The first of equals.
        let at = (0..weights.len()).rev().max_by_key(|at| behind[*at]).unwrap_or(0);
        behind[at] -= all;
        at
    };
    (0..count).map(turn).collect()
}

/// Maglev (Eisenbud et al., NSDI 2016, §3.4): each server takes the next free number of its own order,
/// in turns that follow the weights.
fn consistent(servers: &[NatServer]) -> Vec<SocketAddr> {
    let mut taken: Vec<Option<SocketAddr>> = vec![None; CONSISTENT];
    let modulus = CONSISTENT as u64;
    // By address: directors that list their servers in another order agree.
    let mut servers = servers.to_vec();
    servers.sort_by_key(|server| server.address);
    let mut next: Vec<(u64, u64)> = servers
        .iter()
        .map(|server| {
            let name = server.address.to_string();
            let first = mixed(digest(name.as_bytes())) % modulus;
            let step = mixed(digest(name.as_bytes()) ^ u64::MAX) % (modulus - 1) + 1;
            (first, step)
        })
        .collect();
    let weights: Vec<u64> = servers.iter().map(|server| u64::from(server.weight)).collect();
    for turn in spread(&weights, CONSISTENT) {
        let (at, step) = &mut next[turn];
        // As many turns as numbers, and every way leads to all of them: one is free.
        while taken[*at as usize].is_some() {
            *at = (*at + *step) % modulus;
        }
        taken[*at as usize] = Some(servers[turn].address);
    }
    taken.into_iter().flatten().collect()
}

/// FNV-1a, 64 bits.
pub(super) fn digest(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |digest, octet| {
        (digest ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finalizer of SplitMix64: what differs in one bit differs everywhere.
const fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn servers(weights: &[u32]) -> Vec<NatServer> {
        let server = |(at, weight): (usize, &u32)| {
            let last = u8::try_from(at + 1).unwrap();
            NatServer { address: ([10, 0, 0, last], 80).into(), weight: *weight }
        };
        weights.iter().enumerate().map(server).collect()
    }

    /// Last part of the address of each.
    fn lasts(slots: &[SocketAddr]) -> Vec<u8> {
        let last = |slot: &SocketAddr| match slot {
            SocketAddr::V4(slot) => slot.ip().octets()[3],
            SocketAddr::V6(_) => unreachable!(),
        };
        slots.iter().map(last).collect()
    }

    fn shares(slots: &[SocketAddr]) -> BTreeMap<u8, usize> {
        let mut shares = BTreeMap::new();
        lasts(slots).into_iter().for_each(|last| *shares.entry(last).or_default() += 1);
        shares
    }

    #[test]
    fn turns_follow_the_weights_evenly_and_nobody_without_weight_has_one() {
        use NatSelection::{Turns, WeightedTurns};
        let numbers = |selection, weights: &[u32]| lasts(&slots(selection, &servers(weights)));
        assert_eq!(numbers(Turns, &[3, 0, 1]), [1, 3]);
        assert_eq!(numbers(WeightedTurns, &[3, 0, 1]), [1, 1, 3, 1]);
        assert_eq!(numbers(WeightedTurns, &[10, 10]), [1, 2]);
        assert_eq!(numbers(WeightedTurns, &[0, 0]), []);
        assert_eq!(numbers(Turns, &[]), []);
        // Weights that no table holds: within a part in so many.
        let found = shares(&slots(WeightedTurns, &servers(&[65535, 32768, 1])));
        assert_eq!(found[&1] + found[&2], MOST_TURNS);
        assert!(found[&1].abs_diff(683) <= 1, "{found:?}");
    }

    #[test]
    fn a_hash_finds_each_server_as_often_as_its_weight_says() {
        for selection in [NatSelection::SourceHash, NatSelection::ConsistentHash] {
            // Of the last two, a round of all weights is longer than the table.
            for weights in [[1, 2, 1], [65535, 65534, 65533], [2000, 1999, 1]] {
                let all = slots(selection, &servers(&weights));
                let found = shares(&all);
                let sum: u32 = weights.iter().sum();
                for (last, weight) in (1..).zip(weights) {
                    let expected = all.len() * weight as usize / sum as usize;
                    let count = found.get(&last).copied().unwrap_or(0);
                    assert!(count.abs_diff(expected) <= 2, "{selection:?} {weights:?} {found:?}");
                }
            }
        }
    }

    #[test]
    fn a_server_that_leaves_takes_few_clients_of_others_along() {
        let before = slots(NatSelection::ConsistentHash, &servers(&[1; 10]));
        let mut fewer = servers(&[1; 10]);
        fewer.reverse();
        assert_eq!(slots(NatSelection::ConsistentHash, &fewer), before, "in any order");
        let gone = fewer.remove(4).address;
        let after = slots(NatSelection::ConsistentHash, &fewer);
        let kept = before.iter().zip(&after).filter(|(before, _)| **before != gone);
        let moved = kept.filter(|(before, after)| before != after).count();
        assert!(moved < CONSISTENT / 10, "{moved} of {CONSISTENT} moved");
        assert!(!after.contains(&gone));
    }
}
