//! Each published `ipvsadm` script, written as a service, asks for the table the script makes.

use std::net::SocketAddr;
use std::sync::Arc;

use std::num::{NonZeroU16, NonZeroU32};

use locum_kernel::ipvs::{DestSpec, ForwardingMethod, IpFamily, ServiceFlags, ServiceSpec, Tunnel};
use plan::{ConnectionBounds, Encapsulation, Listener, Persistence, TunnelChecksum};

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
            backend: plan::BackendChoice::Only(BackendKind::Ipvs),
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

/// Of one table alone.
fn table_of(wanted: &WantedService) -> (ServiceSpec, Vec<DestSpec>) {
    let mut all = tables_of(wanted);
    let (_, spec, dests) = all.next().unwrap();
    assert!(all.next().is_none());
    (spec, dests)
}

fn id_of(service: &plan::Service) -> OwnedId {
    OwnedId::all(service).next().unwrap()
}

fn table(
    listen: &str,
    scheduler: &str,
    forwarding: ForwardingMethod,
    servers: &[(&str, u32)],
) -> (ServiceSpec, Vec<DestSpec>) {
    let listen: SocketAddr = listen.parse().unwrap();
    let dest = |(address, weight): &(&str, u32)| {
        DestSpec::new(address.parse().unwrap(), forwarding, *weight)
    };
    let id = ServiceId::listener(ipvs::IpProtocol::Tcp, listen);
    (ServiceSpec::new(id, scheduler), servers.iter().map(dest).collect())
}

#[test]
fn direct_routing_with_round_robin() {
    let servers = [("192.168.1.101:80", 1), ("192.168.1.102:80", 1)];
    let service =
        wanted(plan::Protocol::Tcp, "192.168.1.100:80", "rr", plan::Forwarding::Direct, &servers);
    assert_eq!(
        table_of(&service),
        table("192.168.1.100:80", "rr", ForwardingMethod::Direct, &servers)
    );
}

#[test]
fn direct_routing_with_weighted_least_connections() {
    let servers = [("192.168.1.101:80", 1), ("192.168.1.102:80", 2)];
    let service =
        wanted(plan::Protocol::Tcp, "192.168.1.100:80", "wlc", plan::Forwarding::Direct, &servers);
    assert_eq!(
        table_of(&service),
        table("192.168.1.100:80", "wlc", ForwardingMethod::Direct, &servers)
    );
}

#[test]
fn nat_with_least_connections_for_a_database() {
    let servers = [("10.0.0.101:3306", 3), ("10.0.0.102:3306", 2)];
    let service =
        wanted(plan::Protocol::Tcp, "10.0.0.100:3306", "lc", plan::Forwarding::Nat, &servers);
    assert_eq!(
        table_of(&service),
        table("10.0.0.100:3306", "lc", ForwardingMethod::Masq, &servers)
    );
}

#[test]
fn nat_with_round_robin() {
    let servers = [("10.0.0.1:80", 1), ("10.0.0.2:80", 1)];
    let service =
        wanted(plan::Protocol::Tcp, "203.0.113.1:80", "rr", plan::Forwarding::Nat, &servers);
    assert_eq!(table_of(&service), table("203.0.113.1:80", "rr", ForwardingMethod::Masq, &servers));
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
    assert_eq!(spec.id, ServiceId::listener(ipvs::IpProtocol::Udp, listen));
    assert_eq!(dests.len(), 1);
    assert_eq!((dests[0].weight, dests[0].forwarding), (0, ForwardingMethod::Tunnel(Tunnel::Ipip)));
}

#[test]
fn an_owned_table_is_written_down_by_its_identity() {
    let service =
        wanted(plan::Protocol::Udp, "192.0.2.1:53", "rr", plan::Forwarding::Nat, &[]).service;
    let id = id_of(&service);
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
    let id = |wanted: &Arc<WantedService>| id_of(&wanted.service);
    let (same, gone) = (table("192.0.2.1:80", 1), table("192.0.2.2:80", 1));
    let (old, new) = (table("192.0.2.3:80", 1), table("192.0.2.3:80", 2));
    let scope =
        ObservedTables::between(&[same.clone(), gone.clone(), old.clone()], &[same.clone(), new]);
    assert_eq!(scope, ObservedTables::These([id(&gone), id(&old)].into()));
    assert!(!scope.covers(&id(&same)));
    let alone = [same.clone()];
    assert!(ObservedTables::between(&alone, &alone.clone()).is_empty());
    // A standby has no table.
    let ready = WantedService { activity: Activity::Ready, ..(*same).clone() };
    let scope = ObservedTables::between(&alone, &[Arc::new(ready)]);
    assert_eq!(scope, ObservedTables::These([id(&same)].into()));
}

#[test]
fn a_service_has_a_table_for_each_address_and_mark_with_the_same_servers() {
    let servers = [("10.0.0.1:0", 1)];
    let mut wanted =
        wanted(plan::Protocol::Udp, "192.0.2.1:53", "rr", plan::Forwarding::Nat, &servers);
    let range =
        plan::AddressRange::new("192.0.2.3".parse().unwrap(), "192.0.2.4".parse().unwrap(), 5353);
    let service = Arc::make_mut(&mut wanted.service);
    service.listen.push(Listener::Range(range.unwrap()));
    let mark = NonZeroU32::new(7).unwrap();
    // In the words of the plan the family is that of the elections.
    let of_v4 = service.listen[0].family();
    service.listen.push(Listener::Fwmark { mark, family: of_v4 });
    let udp = |listen: &str| ServiceId::listener(ipvs::IpProtocol::Udp, listen.parse().unwrap());
    let all: Vec<(ServiceId, u16)> =
        tables_of(&wanted).map(|(_, spec, dests)| (spec.id, dests[0].id.port)).collect();
    assert_eq!(
        all,
        [
            (ServiceId::Mark { family: IpFamily::V4, mark: 7 }, 0),
            (udp("192.0.2.1:53"), 53),
            (udp("192.0.2.3:5353"), 5353),
            (udp("192.0.2.4:5353"), 5353),
        ]
    );
    let ids: Vec<OwnedId> = OwnedId::all(&wanted.service).collect();
    let text = serde_json::to_string(&ids[..2]).unwrap();
    assert_eq!(text, r#"[{"mark":7,"ipv6":false},{"protocol":"udp","listen":"192.0.2.1:53"}]"#);
    assert_eq!(serde_json::from_str::<Vec<OwnedId>>(&text).unwrap(), ids[..2]);
}

#[test]
fn persistence_and_flags_are_those_of_the_service() {
    let mut wanted =
        wanted(plan::Protocol::Udp, "192.0.2.1:5060", "sh", plan::Forwarding::Nat, &[]);
    let service = Arc::make_mut(&mut wanted.service);
    service.one_packet = true;
    service.scheduler.flags.fallback = true;
    service.scheduler.flags.port = true;
    assert_eq!(table_of(&wanted).0.flags, ServiceFlags(0x4 | 0x8 | 0x10));
    let service = Arc::make_mut(&mut wanted.service);
    let engine = Some(Name::from("sip"));
    service.persistence = Some(Persistence { timeout: 300, granularity: 24, engine });
    let (spec, _) = table_of(&wanted);
    assert_eq!(spec.flags, ServiceFlags(0x1 | 0x4 | 0x8 | 0x10));
    assert_eq!((spec.persistence_seconds, spec.client_prefix), (300, 24));
    assert_eq!(spec.persistence_engine.as_deref(), Some("sip"));
    let service = Arc::make_mut(&mut wanted.service);
    service.persistence = Some(Persistence { timeout: 1, granularity: 128, engine: None });
    assert_eq!(table_of(&wanted).0.client_prefix, 32, "of IPv4 the whole address");
}

#[test]
fn i_016_bounds_and_tunnels_are_those_of_the_server_and_only_nat_translates_ports() {
    let servers = [("10.0.0.1:8080", 1)];
    let mut wanted =
        wanted(plan::Protocol::Tcp, "192.0.2.1:80", "wlc", plan::Forwarding::Nat, &servers);
    wanted.servers[0].bounds = ConnectionBounds { max: Some(200), min: Some(100) };
    let dest = |wanted: &WantedService| table_of(wanted).1.remove(0);
    let found = dest(&wanted);
    assert_eq!((found.id.port, found.upper_threshold, found.lower_threshold), (8080, 200, 100));
    wanted.servers[0].forwarding = plan::Forwarding::Tunnel;
    let port = NonZeroU16::new(6080).unwrap();
    let full = TunnelChecksum::Full;
    let table = [
        (Encapsulation::Ipip, Tunnel::Ipip),
        (Encapsulation::Gue { port, checksum: full }, Tunnel::Gue { port: 6080, flags: 1 }),
        (Encapsulation::Gre { checksum: TunnelChecksum::None }, Tunnel::Gre { flags: 0 }),
    ];
    for (encapsulation, tunnel) in table {
        wanted.servers[0].encapsulation = encapsulation;
        let found = dest(&wanted);
        assert_eq!((found.id.port, found.forwarding), (80, ForwardingMethod::Tunnel(tunnel)));
    }
}
