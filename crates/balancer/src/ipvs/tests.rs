//! Each published `ipvsadm` script, written as a service, asks for the table the script makes.

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;

fn wanted(
    protocol: plan::Protocol,
    listen: &str,
    scheduler: &str,
    forwarding: plan::Forwarding,
    servers: &[(&str, u32)],
) -> WantedService {
    let servers: Vec<_> = servers
        .iter()
        .map(|(address, weight)| plan::Server {
            weight: *weight,
            forwarding,
            ..plan::Server::new(address.parse().unwrap())
        })
        .collect();
    WantedService {
        service: Arc::new(plan::Service {
            protocol,
            backend: plan::Backend::Only(BackendKind::Ipvs),
            scheduler: plan::Scheduler::named(scheduler),
            servers: servers.clone(),
            ..plan::Service::new(
                Name::from("web"),
                plan::Listener::Address(listen.parse().unwrap()),
            )
        }),
        activity: Activity::Active,
        lease: None,
        servers: servers.iter().map(plan::Server::wanted).collect(),
    }
}

fn table(
    listen: &str,
    scheduler: &str,
    forwarding: Forwarding,
    servers: &[(&str, u32)],
) -> (ServiceSpec, Vec<DestSpec>) {
    let listen: SocketAddr = listen.parse().unwrap();
    let dest = |(address, weight): &(&str, u32)| {
        DestSpec::new(address.parse().unwrap(), forwarding, *weight)
    };
    let id = ServiceId::listener(ipvs::Protocol::Tcp, listen);
    (ServiceSpec::new(id, scheduler), servers.iter().map(dest).collect())
}

#[test]
fn direct_routing_with_round_robin() {
    let servers = [("192.168.1.101:80", 1), ("192.168.1.102:80", 1)];
    let service =
        wanted(plan::Protocol::Tcp, "192.168.1.100:80", "rr", plan::Forwarding::Direct, &servers);
    assert_eq!(table_of(&service), table("192.168.1.100:80", "rr", Forwarding::Direct, &servers));
}

#[test]
fn direct_routing_with_weighted_least_connections() {
    let servers = [("192.168.1.101:80", 1), ("192.168.1.102:80", 2)];
    let service =
        wanted(plan::Protocol::Tcp, "192.168.1.100:80", "wlc", plan::Forwarding::Direct, &servers);
    assert_eq!(table_of(&service), table("192.168.1.100:80", "wlc", Forwarding::Direct, &servers));
}

#[test]
fn nat_with_least_connections_for_a_database() {
    let servers = [("10.0.0.101:3306", 3), ("10.0.0.102:3306", 2)];
    let service =
        wanted(plan::Protocol::Tcp, "10.0.0.100:3306", "lc", plan::Forwarding::Nat, &servers);
    assert_eq!(table_of(&service), table("10.0.0.100:3306", "lc", Forwarding::Masq, &servers));
}

#[test]
fn nat_with_round_robin() {
    let servers = [("10.0.0.1:80", 1), ("10.0.0.2:80", 1)];
    let service =
        wanted(plan::Protocol::Tcp, "203.0.113.1:80", "rr", plan::Forwarding::Nat, &servers);
    assert_eq!(table_of(&service), table("203.0.113.1:80", "rr", Forwarding::Masq, &servers));
}

#[test]
fn weights_in_force_and_udp_and_tunnels_are_kept() {
    let mut service = wanted(
        plan::Protocol::Udp,
        "[2001:db8::10]:53",
        "wrr",
        plan::Forwarding::Tunnel,
        &[("[2001:db8::1]:53", 7), ("[2001:db8::2]:53", 1)],
    );
    service.servers[0].weight = 0;
    service.servers.pop();
    let (spec, dests) = table_of(&service);
    let listen = "[2001:db8::10]:53".parse().unwrap();
    assert_eq!(spec.id, ServiceId::listener(ipvs::Protocol::Udp, listen));
    assert_eq!(dests.len(), 1);
    assert_eq!((dests[0].weight, dests[0].forwarding), (0, Forwarding::Tunnel(Tunnel::Ipip)));
}

#[test]
fn an_owned_table_is_written_down_by_its_identity() {
    let service =
        wanted(plan::Protocol::Udp, "192.0.2.1:53", "rr", plan::Forwarding::Nat, &[]).service;
    let id = OwnedId::of(&service);
    let text = serde_json::to_string(&id).unwrap();
    assert_eq!(text, r#"{"protocol":"udp","listen":"192.0.2.1:53"}"#);
    assert_eq!(serde_json::from_str::<OwnedId>(&text).unwrap(), id);
}

#[test]
fn only_the_tables_in_which_two_levels_differ_are_looked_at() {
    let table = |listen: &str, weight| {
        let servers = [("10.0.0.1:80", weight)];
        Arc::new(wanted(plan::Protocol::Tcp, listen, "rr", plan::Forwarding::Nat, &servers))
    };
    let id = |wanted: &Arc<WantedService>| OwnedId::of(&wanted.service);
    let (same, gone) = (table("192.0.2.1:80", 1), table("192.0.2.2:80", 1));
    let (old, new) = (table("192.0.2.3:80", 1), table("192.0.2.3:80", 2));
    let scope = Scope::between(&[same.clone(), gone.clone(), old.clone()], &[same.clone(), new]);
    assert_eq!(scope, Scope::These([id(&gone), id(&old)].into()));
    assert!(!scope.covers(&id(&same)));
    let alone = [same.clone()];
    assert!(Scope::between(&alone, &alone.clone()).is_empty());
    // A standby has no table.
    let ready = WantedService { activity: Activity::Ready, ..(*same).clone() };
    let scope = Scope::between(&alone, &[Arc::new(ready)]);
    assert_eq!(scope, Scope::These([id(&same)].into()));
}
