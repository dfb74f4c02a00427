//! Which server takes the next client. Pure arithmetic over the servers' counters.
//!
//! Servers of weight 0, those that lead back to us, full ones and those already tried for this client
//! are passed over. Ties go to the server that was chosen longest ago, so that idle servers take
//! turns instead of the first one taking all.

use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use crate::hash::Hash;
use crate::maglev::Maglev;
use crate::server::RunningServer;

/// By the names IPVS gives them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyScheduler {
    /// rr: one after the other, weights ignored.
    RoundRobin,
    /// wrr: in proportion to the weights, as evenly spread as they allow.
    WeightedRoundRobin,
    /// lc: the fewest connections under way.
    LeastConnections,
    /// wlc, and sed: the fewest connections under way per weight, the new one included.
    WeightedLeastConnections,
    /// nq: one without connections if there is any, else as sed.
    NeverQueue,
    /// fo: the heaviest that takes clients has them all.
    FailOver,
    /// ovf: the heaviest until it has as many connections as its weight, then the next one.
    OverFlow,
    /// sh: the client's address decides; a server that leaves moves its own clients only.
    SourceHash,
    /// mh: the same by a table, which costs the same for any number of servers.
    MaglevHash,
}

/// A client that is to be given a server.
#[derive(Clone, Copy, Debug)]
pub struct Chooser<'a> {
    pub client: IpAddr,
    /// Servers that it has been tried on.
    pub tried: &'a [SocketAddr],
    /// Rises with every choice.
    pub turn: u64,
    /// Of the servers; only [`ProxyScheduler::MaglevHash`] reads it.
    pub table: &'a Maglev,
}

/// The names of all there are, for a person.
pub const NAMES: &str = "rr, wrr, lc, wlc, sed, nq, fo, ovf, sh or mh";

impl ProxyScheduler {
    /// `None` for a name the proxy does not know.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "rr" => Some(ProxyScheduler::RoundRobin),
            "wrr" => Some(ProxyScheduler::WeightedRoundRobin),
            "lc" => Some(ProxyScheduler::LeastConnections),
            "wlc" | "sed" => Some(ProxyScheduler::WeightedLeastConnections),
            "nq" => Some(ProxyScheduler::NeverQueue),
            "fo" => Some(ProxyScheduler::FailOver),
            "ovf" => Some(ProxyScheduler::OverFlow),
            "sh" => Some(ProxyScheduler::SourceHash),
            "mh" => Some(ProxyScheduler::MaglevHash),
            _ => None,
        }
    }

    /// Chooses among `servers`. `None` when no server is left.
    pub fn choose(
        self,
        servers: &[Rc<RunningServer>],
        chooser: Chooser<'_>,
    ) -> Option<Rc<RunningServer>> {
        let takes = |s: &&Rc<RunningServer>| {
            !s.is_out() && s.has_room() && !chooser.tried.contains(&s.address)
        };
        // One that did not answer a moment ago is asked again when no other one is left.
        let trusted = |s: &&Rc<RunningServer>| takes(s) && !s.is_suspect();
        let chosen = self.among(servers, chooser, &trusted);
        let chosen = chosen.or_else(|| self.among(servers, chooser, &takes))?;
        chosen.turn.set(chooser.turn);
        Some(chosen.clone())
    }

    fn among<'a>(
        self,
        servers: &'a [Rc<RunningServer>],
        chooser: Chooser<'_>,
        is_eligible: &dyn Fn(&&'a Rc<RunningServer>) -> bool,
    ) -> Option<&'a Rc<RunningServer>> {
        let eligible = || servers.iter().filter(is_eligible);
        let client = chooser.client.to_canonical();
        match self {
            ProxyScheduler::RoundRobin => eligible().min_by_key(|server| server.turn.get()),
            ProxyScheduler::WeightedRoundRobin => smooth_weighted(eligible()),
            ProxyScheduler::LeastConnections => {
                eligible().min_by_key(|server| (server.active.get(), server.turn.get()))
            }
            ProxyScheduler::WeightedLeastConnections => eligible().min_by(|a, b| by_load(a, b)),
            ProxyScheduler::NeverQueue => {
                let idle = eligible().filter(|server| server.active.get() == 0);
                let idle = idle.min_by_key(|server| server.turn.get());
                idle.or_else(|| eligible().min_by(|a, b| by_load(a, b)))
            }
            ProxyScheduler::FailOver => heaviest(eligible()),
            ProxyScheduler::OverFlow => {
                let has_room = |server: &&Rc<RunningServer>| {
                    server.active.get() < u64::from(server.weight.get())
                };
                heaviest(eligible().filter(has_room))
            }
            ProxyScheduler::SourceHash => {
                eligible().max_by(|a, b| affinity(client, a).total_cmp(&affinity(client, b)))
            }
            ProxyScheduler::MaglevHash => {
                // Who is not there would be looked for in every slot.
                eligible().next()?;
                let places = chooser.table.from(Hash::default().feed_ip(client).end());
                places.filter_map(|at| servers.get(at)).find(is_eligible)
            }
        }
    }
}

/// The first of the heaviest.
fn heaviest<'a>(
    mut eligible: impl Iterator<Item = &'a Rc<RunningServer>>,
) -> Option<&'a Rc<RunningServer>> {
    let first = eligible.next()?;
    let heavier = |best: &'a Rc<RunningServer>, next: &'a Rc<RunningServer>| {
        if next.weight.get() > best.weight.get() { next } else { best }
    };
    Some(eligible.fold(first, heavier))
}

/// Every server earns its weight; the richest is chosen and pays what all earned. Over as many
/// choices as the weights add up to, each server is chosen as often as its weight, never in a row
/// where that can be avoided.
fn smooth_weighted<'a>(
    eligible: impl Iterator<Item = &'a Rc<RunningServer>>,
) -> Option<&'a Rc<RunningServer>> {
    let mut total = 0;
    let mut richest: Option<&Rc<RunningServer>> = None;
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
fn by_load(a: &RunningServer, b: &RunningServer) -> Ordering {
    let a_load = u128::from(a.active.get() + 1) * u128::from(b.weight.get());
    let b_load = u128::from(b.active.get() + 1) * u128::from(a.weight.get());
    a_load.cmp(&b_load).then(a.turn.get().cmp(&b.turn.get()))
}

/// Weighted rendezvous hashing: every pair of client and server has a score, the highest wins. A
/// server's share of the clients is its share of the weights, and scores of the others do not move
/// when one leaves. Equal on all nodes, so that a client keeps its server after a failover.
fn affinity(client: IpAddr, server: &RunningServer) -> f64 {
    let hash = Hash::default().feed_ip(client).feed_address(server.address).end();
    // Into (0, 1): 53 bits are what the fraction of a double holds exactly.
    let unit = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    // Not the C library's: its last bit differs between releases, and nodes must agree.
    f64::from(server.weight.get()) / -libm::log(unit)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::Ipv4Addr;

    use super::*;

    fn servers(weights: &[u32]) -> Vec<Rc<RunningServer>> {
        let address = |i: usize| SocketAddr::from(([10, 0, 0, i as u8 + 1], 80));
        weights
            .iter()
            .enumerate()
            .map(|(i, w)| Rc::new(RunningServer::new(address(i), *w, &Rc::default())))
            .collect()
    }

    fn client(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0xc000_0200 + n))
    }

    fn choose(
        scheduler: ProxyScheduler,
        servers: &[Rc<RunningServer>],
        client: IpAddr,
        tried: &[SocketAddr],
        turn: u64,
    ) -> Option<Rc<RunningServer>> {
        let weights: Vec<_> = servers.iter().map(|one| (one.address, one.weight.get())).collect();
        let table = Maglev::of(&weights);
        scheduler.choose(servers, Chooser { client, tried, turn, table: &table })
    }

    /// Last octets of the chosen servers, one letter each: 1 is the first server.
    fn sequence(scheduler: ProxyScheduler, servers: &[Rc<RunningServer>], count: u64) -> Vec<u8> {
        let choose = |turn| choose(scheduler, servers, client(1), &[], turn).unwrap();
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
        assert_eq!(sequence(ProxyScheduler::RoundRobin, &servers, 6), [1, 2, 4, 1, 2, 4]);
    }

    #[test]
    fn weighted_round_robin_is_exact_and_spread() {
        let servers = servers(&[5, 1, 1]);
        assert_eq!(
            sequence(ProxyScheduler::WeightedRoundRobin, &servers, 7),
            [1, 1, 2, 1, 3, 1, 1],
        );
    }

    #[test]
    fn least_connections_fills_the_emptiest() {
        let servers = servers(&[1, 1, 1]);
        servers[0].active.set(2);
        servers[1].active.set(1);
        servers[2].active.set(3);
        assert_eq!(sequence(ProxyScheduler::LeastConnections, &servers, 1), [2]);
        servers[1].active.set(2);
        assert_eq!(sequence(ProxyScheduler::LeastConnections, &servers, 3), [1, 2, 1]);
    }

    #[test]
    fn weighted_least_connections_divides_by_the_weight() {
        let servers = servers(&[1, 3]);
        let mut share = [0_u64; 2];
        for turn in 1..=40 {
            let scheduler = ProxyScheduler::WeightedLeastConnections;
            let chosen = choose(scheduler, &servers, client(1), &[], turn).unwrap();
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
            let of = |servers: &[Rc<RunningServer>]| {
                choose(ProxyScheduler::SourceHash, servers, client(n), &[], 1).unwrap().address
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
            let of = |ip| choose(ProxyScheduler::SourceHash, &servers, ip, &[], 1).unwrap().address;
            assert_eq!(of(mapped), of(IpAddr::V4(plain)));
        }
    }

    #[test]
    fn tried_servers_are_passed_over_until_none_is_left() {
        for name in ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "sh", "mh"] {
            let scheduler = ProxyScheduler::from_name(name).unwrap();
            let servers = servers(&[1, 1, 0]);
            let mut tried = Vec::new();
            for turn in 1..=2 {
                let chosen = choose(scheduler, &servers, client(1), &tried, turn).unwrap();
                assert!(!tried.contains(&chosen.address), "{name}");
                tried.push(chosen.address);
            }
            assert!(choose(scheduler, &servers, client(1), &tried, 3).is_none(), "{name}");
        }
        assert_eq!(ProxyScheduler::from_name("lblc"), None);
    }

    #[test]
    fn never_queue_takes_an_idle_server_before_a_faster_one() {
        let servers = servers(&[10, 1]);
        servers[0].active.set(1);
        assert_eq!(sequence(ProxyScheduler::NeverQueue, &servers, 1), [2]);
        servers[1].active.set(1);
        assert_eq!(sequence(ProxyScheduler::NeverQueue, &servers, 1), [1]);
        assert_eq!(sequence(ProxyScheduler::WeightedLeastConnections, &servers, 1), [1]);
    }

    #[test]
    fn fail_over_and_over_flow_fill_the_heaviest_first() {
        let servers = servers(&[1, 3, 2]);
        assert_eq!(sequence(ProxyScheduler::FailOver, &servers, 3), [2, 2, 2]);
        servers[1].active.set(3);
        assert_eq!(sequence(ProxyScheduler::FailOver, &servers, 1), [2]);
        assert_eq!(sequence(ProxyScheduler::OverFlow, &servers, 1), [3]);
        servers[2].active.set(2);
        assert_eq!(sequence(ProxyScheduler::OverFlow, &servers, 1), [1]);
        servers[0].active.set(1);
        assert!(
            choose(ProxyScheduler::OverFlow, &servers, client(1), &[], 9).is_none(),
            "as in IPVS"
        );
    }

    #[test]
    fn maglev_keeps_a_client_and_passes_over_who_takes_none() {
        let all = servers(&[1, 1, 1]);
        for n in 0..100 {
            let of =
                || choose(ProxyScheduler::MaglevHash, &all, client(n), &[], 1).unwrap().address;
            let first = of();
            assert_eq!(first, of());
            let other = choose(ProxyScheduler::MaglevHash, &all, client(n), &[first], 1).unwrap();
            assert_ne!(other.address, first);
        }
    }

    #[test]
    fn a_table_of_servers_that_take_nobody_is_not_searched() {
        let servers = servers(&[1, 1]);
        let weights: Vec<_> = servers.iter().map(|one| (one.address, 1)).collect();
        let table = &Maglev::of(&weights);
        let chooser = Chooser { client: client(1), tried: &[], turn: 1, table };
        let asked = Cell::new(0);
        let nobody = |_: &&Rc<RunningServer>| {
            asked.set(asked.get() + 1);
            false
        };
        assert!(ProxyScheduler::MaglevHash.among(&servers, chooser, &nobody).is_none());
        assert_eq!(asked.get(), servers.len());
    }

    #[test]
    fn a_server_that_did_not_answer_is_the_last_resort() {
        for name in ["rr", "wrr", "lc", "wlc", "nq", "fo", "ovf", "sh", "mh"] {
            let scheduler = ProxyScheduler::from_name(name).unwrap();
            let servers = servers(&[9, 9]);
            servers[0].note_failure();
            let chosen = (1..=4).map(|turn| choose(scheduler, &servers, client(1), &[], turn));
            assert!(chosen.flatten().all(|one| one.address == servers[1].address), "{name}");
            servers[1].weight.set(0);
            let last = choose(scheduler, &servers, client(1), &[], 5).unwrap();
            assert_eq!(last.address, servers[0].address, "{name}");
        }
    }
}
