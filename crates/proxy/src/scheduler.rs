//! Which server takes the next client. Pure arithmetic over the servers' counters.
//!
//! Servers of weight 0, those that lead back to us, full ones and those already tried for this client
//! are passed over. Ties go to the
//! server that was chosen longest ago, so that idle servers take turns instead of the first one
//! taking all.

use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use crate::server::Server;

/// By the names IPVS gives them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheduler {
    /// rr: one after the other, weights ignored.
    RoundRobin,
    /// wrr: in proportion to the weights, as evenly spread as they allow.
    WeightedRoundRobin,
    /// lc: the fewest connections under way.
    LeastConnections,
    /// wlc: the fewest connections under way per weight.
    WeightedLeastConnections,
    /// sh: the client's address decides; a server that leaves moves its own clients only.
    SourceHash,
}

impl Scheduler {
    /// `None` for a name the proxy does not know.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "rr" => Some(Scheduler::RoundRobin),
            "wrr" => Some(Scheduler::WeightedRoundRobin),
            "lc" => Some(Scheduler::LeastConnections),
            "wlc" => Some(Scheduler::WeightedLeastConnections),
            "sh" => Some(Scheduler::SourceHash),
            _ => None,
        }
    }

    /// Chooses among `servers` and marks the choice as turn number `turn`, which rises with every
    /// call. `None` when no server is left.
    pub fn choose(
        self,
        servers: &[Rc<Server>],
        client: IpAddr,
        tried: &[SocketAddr],
        turn: u64,
    ) -> Option<Rc<Server>> {
        let is_eligible =
            |s: &&Rc<Server>| !s.is_out() && s.has_room() && !tried.contains(&s.address);
        let eligible = || servers.iter().filter(is_eligible);
        let chosen = match self {
            Scheduler::RoundRobin => eligible().min_by_key(|server| server.turn.get()),
            Scheduler::WeightedRoundRobin => smooth_weighted(eligible()),
            Scheduler::LeastConnections => {
                eligible().min_by_key(|server| (server.active.get(), server.turn.get()))
            }
            Scheduler::WeightedLeastConnections => eligible().min_by(|a, b| by_load(a, b)),
            Scheduler::SourceHash => {
                let client = client.to_canonical();
                eligible().max_by(|a, b| affinity(client, a).total_cmp(&affinity(client, b)))
            }
        }?;
        chosen.turn.set(turn);
        Some(chosen.clone())
    }
}

/// Every server earns its weight; the richest is chosen and pays what all earned. Over as many
/// choices as the weights add up to, each server is chosen as often as its weight, never in a row
/// where that can be avoided.
fn smooth_weighted<'a>(eligible: impl Iterator<Item = &'a Rc<Server>>) -> Option<&'a Rc<Server>> {
    let mut total = 0;
    let mut richest: Option<&Rc<Server>> = None;
    for server in eligible {
        let weight = i64::from(server.weight.get());
        total += weight;
        server.credit.set(server.credit.get() + weight);
        if richest.is_none_or(|best| server.credit.get() > best.credit.get()) {
            richest = Some(server);
        }
    }
    let chosen = richest?;
    chosen.credit.set(chosen.credit.get() - total);
    Some(chosen)
}

/// Compares the load per weight that each would have with one connection more; with the present
/// load, idle servers would look alike whatever their weights.
fn by_load(a: &Server, b: &Server) -> Ordering {
    let a_load = u128::from(a.active.get() + 1) * u128::from(b.weight.get());
    let b_load = u128::from(b.active.get() + 1) * u128::from(a.weight.get());
    a_load.cmp(&b_load).then(a.turn.get().cmp(&b.turn.get()))
}

/// Weighted rendezvous hashing: every pair of client and server has a score, the highest wins. A
/// server's share of the clients is its share of the weights, and scores of the others do not move
/// when one leaves. Equal on all nodes, so that a client keeps its server after a failover.
fn affinity(client: IpAddr, server: &Server) -> f64 {
    let mut hash = FNV_OFFSET;
    let mut feed = |octets: &[u8]| {
        for octet in octets {
            hash = (hash ^ u64::from(*octet)).wrapping_mul(FNV_PRIME);
        }
    };
    match client {
        IpAddr::V4(address) => feed(&address.octets()),
        IpAddr::V6(address) => feed(&address.octets()),
    }
    match server.address.ip() {
        IpAddr::V4(address) => feed(&address.octets()),
        IpAddr::V6(address) => feed(&address.octets()),
    }
    feed(&server.address.port().to_be_bytes());
    // Into (0, 1): 53 bits are what the fraction of a double holds exactly.
    let unit = ((mix(hash) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    // Not the C library's: its last bit differs between releases, and nodes must agree.
    f64::from(server.weight.get()) / -libm::log(unit)
}

/// FNV-1a, 64 bit.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Spreads the low bits of FNV over the whole word (the finaliser of SplitMix64); neighbouring
/// addresses would otherwise differ in few bits.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn servers(weights: &[u32]) -> Vec<Rc<Server>> {
        let address = |i: usize| SocketAddr::from(([10, 0, 0, i as u8 + 1], 80));
        weights.iter().enumerate().map(|(i, w)| Rc::new(Server::new(address(i), *w))).collect()
    }

    fn client(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0xc000_0200 + n))
    }

    /// Last octets of the chosen servers, one letter each: 1 is the first server.
    fn sequence(scheduler: Scheduler, servers: &[Rc<Server>], count: u64) -> Vec<u8> {
        let choose = |turn| scheduler.choose(servers, client(1), &[], turn).unwrap();
        let first = servers.iter().map(|server| server.turn.get()).max().unwrap() + 1;
        (first..first + count)
            .map(|turn| match choose(turn).address.ip() {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(_) => 0,
            })
            .collect()
    }

    #[test]
    fn round_robin_takes_turns_and_ignores_weights_but_zero() {
        let servers = servers(&[1, 9, 0, 1]);
        assert_eq!(sequence(Scheduler::RoundRobin, &servers, 6), [1, 2, 4, 1, 2, 4]);
    }

    #[test]
    fn weighted_round_robin_is_exact_and_spread() {
        let servers = servers(&[5, 1, 1]);
        assert_eq!(sequence(Scheduler::WeightedRoundRobin, &servers, 7), [1, 1, 2, 1, 3, 1, 1],);
    }

    #[test]
    fn least_connections_fills_the_emptiest() {
        let servers = servers(&[1, 1, 1]);
        servers[0].active.set(2);
        servers[1].active.set(1);
        servers[2].active.set(3);
        assert_eq!(sequence(Scheduler::LeastConnections, &servers, 1), [2]);
        servers[1].active.set(2);
        assert_eq!(sequence(Scheduler::LeastConnections, &servers, 3), [1, 2, 1]);
    }

    #[test]
    fn weighted_least_connections_divides_by_the_weight() {
        let servers = servers(&[1, 3]);
        let mut share = [0_u64; 2];
        for turn in 1..=40 {
            let chosen =
                Scheduler::WeightedLeastConnections.choose(&servers, client(1), &[], turn).unwrap();
            chosen.active.set(chosen.active.get() + 1);
            share[usize::from(chosen.address == servers[1].address)] += 1;
        }
        assert_eq!(share, [10, 30]);
    }

    #[test]
    fn source_hash_moves_only_the_clients_of_the_server_that_left() {
        let all = servers(&[1, 1, 2]);
        let fewer: Vec<_> = all[1..].to_vec();
        let mut shares = [0; 3];
        for n in 0..4000 {
            let of = |servers: &[Rc<Server>]| {
                Scheduler::SourceHash.choose(servers, client(n), &[], 1).unwrap().address
            };
            let before = of(&all);
            assert_eq!(before, of(&all), "the same client goes to the same server");
            shares[all.iter().position(|s| s.address == before).unwrap()] += 1;
            if before != all[0].address {
                assert_eq!(before, of(&fewer));
            }
        }
        // 1000, 1000 and 2000 are expected; 5 standard deviations are about 140.
        assert!((860..1140).contains(&shares[0]), "{shares:?}");
        assert!((1860..2140).contains(&shares[2]), "{shares:?}");
    }

    #[test]
    fn a_mapped_client_is_the_same_client() {
        let servers = servers(&[1; 8]);
        for n in 0..100 {
            let IpAddr::V4(plain) = client(n) else { continue };
            let mapped = IpAddr::V6(plain.to_ipv6_mapped());
            let of = |ip| Scheduler::SourceHash.choose(&servers, ip, &[], 1).unwrap().address;
            assert_eq!(of(mapped), of(IpAddr::V4(plain)));
        }
    }

    #[test]
    fn tried_servers_are_passed_over_until_none_is_left() {
        for name in ["rr", "wrr", "lc", "wlc", "sh"] {
            let scheduler = Scheduler::from_name(name).unwrap();
            let servers = servers(&[1, 1, 0]);
            let mut tried = Vec::new();
            for turn in 1..=2 {
                let chosen = scheduler.choose(&servers, client(1), &tried, turn).unwrap();
                assert!(!tried.contains(&chosen.address), "{name}");
                tried.push(chosen.address);
            }
            assert!(scheduler.choose(&servers, client(1), &tried, 3).is_none(), "{name}");
        }
        assert_eq!(Scheduler::from_name("mh"), None);
    }
}
