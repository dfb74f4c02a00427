//! How HAProxy is to use each server of a service, and the commands that make it so.

use std::net::SocketAddr;

use locum_plan::{HeaderVersion, Service, WantedService};

use crate::generated::stats::SeenServer;
use crate::generated::word::{section, server};

/// HAProxy's largest weight.
const HEAVIEST: u64 = 256;

/// What a server shall be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ServerUse {
    /// New clients, by a weight from 1 to 256.
    Takes(u32),
    /// None that is new; those that it has go on.
    Rests,
    /// Nobody: those that it has are cut.
    Gone,
}

/// A server as the file names it, configured or sorry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct UsedServer {
    pub address: SocketAddr,
    pub usage: ServerUse,
    /// That of the file: what a server has until it is said otherwise.
    pub file_weight: u32,
    pub max: Option<u32>,
    /// How it is told who a client is.
    pub introduced: Option<HeaderVersion>,
}

/// Every server that the service may ever have, in the order of the file.
pub(super) fn servers(wanted: &WantedService) -> Vec<UsedServer> {
    let service = &wanted.service;
    let configured = service.servers.iter().map(|one| one.wanted());
    let sorry = service.sorry.iter().map(|sorry| sorry.wanted());
    let in_file = WeightScale::of(service, 0);
    let heaviest = wanted.servers.iter().map(|one| one.weight).max();
    let scale = WeightScale::of(service, heaviest.unwrap_or(0));
    let in_force = |address| wanted.servers.iter().find(|one| one.address == address);
    let mut all: Vec<(u32, UsedServer)> = Vec::new();
    for one in configured.chain(sorry) {
        let address = one.address;
        let force = in_force(address);
        let usage = match force.map(|force| force.weight) {
            None => ServerUse::Gone,
            Some(0) => ServerUse::Rests,
            Some(weight) => ServerUse::Takes(scale.weight(weight)),
        };
        let max = [one.bounds.max, service.limits.per_server].into_iter().flatten().min();
        let file_weight = in_file.weight(one.weight);
        // Where the heaviest has all clients, their order is that of the file: it alone changes with
        // the weights in force. One that gets nobody stays where it is.
        let in_force = force.map(|force| force.weight).filter(|weight| *weight > 0);
        let rank = match service.scheduler.name.as_str() {
            "fo" => u32::MAX - in_force.unwrap_or(one.weight),
            _ => 0,
        };
        all.push((
            rank,
            UsedServer { address, usage, file_weight, max, introduced: one.introduced },
        ));
    }
    all.sort_by_key(|(rank, _)| *rank);
    all.into_iter().map(|(_, one)| one).collect()
}

/// How weights of 1 to 65535 become those of HAProxy.
struct WeightScale {
    is_weighted: bool,
    is_hashed: bool,
    heaviest: u32,
}

impl WeightScale {
    /// `heaviest` of those in force; the file is of the configuration alone.
    fn of(service: &Service, heaviest: u32) -> Self {
        let name = service.scheduler.name.as_str();
        let configured = service.servers.iter().map(|one| one.weight).max();
        Self {
            // The order of the first is that of the file.
            is_weighted: service.scheduler.is_weighted() && name != "fo",
            is_hashed: matches!(name, "sh" | "mh"),
            heaviest: configured.unwrap_or(0).max(heaviest).max(1),
        }
    }

    fn weight(&self, weight: u32) -> u32 {
        let heaviest = u64::from(self.heaviest);
        if !self.is_weighted {
            1
        } else if self.is_hashed || heaviest > HEAVIEST {
            // Of a hash a server has so many points, and more of them are shared out more evenly.
            let scaled = (u64::from(weight) * HEAVIEST + heaviest / 2) / heaviest;
            u32::try_from(scaled.clamp(1, HEAVIEST)).unwrap_or(1)
        } else {
            weight.max(1)
        }
    }
}

/// What has to be said for what is seen to become what is wanted. `is_over`: whoever is still there is
/// cut, the address has gone for long enough.
pub(super) fn commands(
    wanted: &WantedService,
    seen: &dyn Fn(&str, &str) -> Option<SeenServer>,
    is_over: bool,
) -> Vec<String> {
    let section = section(&wanted.service.name);
    let mut said = Vec::new();
    for one in servers(wanted) {
        let name = server(one.address);
        let Some(seen) = seen(&section, &name) else { continue };
        let mut cuts = is_over;
        match one.usage {
            ServerUse::Takes(weight) => {
                if !seen.takes {
                    said.push(format!("set server {section}/{name} state ready"));
                }
                if seen.weight != weight {
                    said.push(format!("set server {section}/{name} weight {weight}"));
                }
            }
            ServerUse::Rests | ServerUse::Gone => {
                if !seen.is_out {
                    // Draining would let clients in that are kept on the server.
                    said.push(format!("set server {section}/{name} state maint"));
                }
                cuts |= one.usage == ServerUse::Gone;
            }
        }
        if cuts && seen.active > 0 {
            said.push(format!("shutdown sessions server {section}/{name}"));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use locum_plan::{
        Activity, Encapsulation, FailedServer, Forwarding, Scheduler, Server, Service, SorryServer,
    };

    use super::*;

    fn wanted(scheduler: &str, weights: &[u32]) -> WantedService {
        let listen: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let mut service = Service::new("www".into(), listen.into());
        service.scheduler = Scheduler::named(scheduler);
        for (at, weight) in (1..).zip(weights) {
            let address = SocketAddr::from(([10, 0, 0, at], 80));
            service.servers.push(Server { weight: *weight, ..Server::new(address) });
        }
        let servers = service.servers.iter().map(Server::wanted).collect();
        WantedService {
            service: Arc::new(service),
            activity: Activity::Active,
            servers,
            lease: None,
        }
    }

    fn usages(wanted: &WantedService) -> Vec<(u8, ServerUse)> {
        let last = |one: &UsedServer| match one.address {
            SocketAddr::V4(v4) => v4.ip().octets()[3],
            SocketAddr::V6(_) => 0,
        };
        servers(wanted).iter().map(|one| (last(one), one.usage)).collect()
    }

    #[test]
    fn weights_fit_haproxy_and_keep_their_proportion() {
        use ServerUse::Takes;
        assert_eq!(usages(&wanted("wrr", &[1, 3])), [(1, Takes(1)), (2, Takes(3))]);
        assert_eq!(usages(&wanted("rr", &[1, 3])), [(1, Takes(1)), (2, Takes(1))]);
        assert_eq!(
            usages(&wanted("wlc", &[65_535, 256, 1])),
            [(1, Takes(256)), (2, Takes(1)), (3, Takes(1))]
        );
        assert_eq!(usages(&wanted("mh", &[1, 2])), [(1, Takes(128)), (2, Takes(256))]);
        assert_eq!(
            usages(&wanted("fo", &[1, 3])),
            [(2, Takes(1)), (1, Takes(1))],
            "the heaviest is the first"
        );
    }

    /// What an operator orders or a start ramps up is said at the socket; a change of the file would
    /// be a reload.
    #[test]
    fn weights_of_the_file_are_those_of_the_configuration() {
        let of_file = |wanted: &WantedService| -> Vec<u32> {
            servers(wanted).iter().map(|one| one.file_weight).collect()
        };
        for scheduler in ["wlc", "mh"] {
            let before = wanted(scheduler, &[1, 3]);
            let mut after = before.clone();
            after.servers[0].weight = 5000;
            assert_eq!(of_file(&after), of_file(&before), "{scheduler}");
            assert_ne!(usages(&after), usages(&before), "{scheduler}");
        }
        let before = wanted("fo", &[1, 3]);
        let mut after = before.clone();
        after.servers[1].weight = 0;
        assert_eq!(usages(&after), [(2, ServerUse::Rests), (1, ServerUse::Takes(1))]);
    }

    #[test]
    fn what_is_not_in_the_level_is_cut_and_what_has_no_weight_finishes() {
        let mut www = wanted("wrr", &[1, 1, 1]);
        let service = Arc::make_mut(&mut www.service);
        service.sorry = Some(SorryServer {
            address: "10.0.0.9:80".parse().unwrap(),
            forwarding: Forwarding::Nat,
            encapsulation: Encapsulation::Ipip,
            introduced: None,
            unused: FailedServer::Remove,
        });
        www.servers.remove(0);
        www.servers[0].weight = 0;
        use ServerUse::{Gone, Rests, Takes};
        assert_eq!(usages(&www), [(1, Gone), (2, Rests), (3, Takes(1)), (9, Gone)]);
        let seen = |takes, is_out, weight, active| SeenServer {
            takes,
            is_out,
            weight,
            active,
            ..SeenServer::default()
        };
        let all = commands(&www, &|_, _| Some(seen(true, false, 1, 2)), false);
        assert_eq!(
            all,
            [
                "set server www/10.0.0.1:80 state maint",
                "shutdown sessions server www/10.0.0.1:80",
                "set server www/10.0.0.2:80 state maint",
                "set server www/10.0.0.9:80 state maint",
                "shutdown sessions server www/10.0.0.9:80",
            ]
        );
        let all = commands(&www, &|_, _| Some(seen(false, true, 5, 0)), false);
        assert_eq!(
            all,
            ["set server www/10.0.0.3:80 state ready", "set server www/10.0.0.3:80 weight 1"]
        );
        let is_over = commands(
            &www,
            &|_, name| (name == "10.0.0.3:80").then(|| seen(true, false, 1, 1)),
            true,
        );
        assert_eq!(is_over, ["shutdown sessions server www/10.0.0.3:80"]);
        assert_eq!(
            commands(&www, &|_, _| None, true),
            [""; 0],
            "of what HAProxy does not know nothing is said"
        );
    }
}
