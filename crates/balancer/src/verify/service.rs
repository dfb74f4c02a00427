//! What a service would lack here, with each backend: judged over a [`HostView`], purely.

use std::net::{IpAddr, SocketAddr};

use locum_kernel::ipvs::{engine_module, scheduler_module};
use locum_kernel::own_links::prefix;
use locum_plan::{BackendKind, Service, first_few};

use crate::choice::Reach;
use crate::verify::forwarding::{
    IN_THE_KERNEL, Unforwarded, Unmet, masqueraded, or_way_out, unforwarded,
};
use crate::verify::host::HostView;
use crate::verify::translation::translated;

/// What `service` lacks on this host to be served by `kind`, its port apart.
pub(crate) fn unmet(service: &Service, kind: BackendKind, host: &HostView) -> Vec<Unmet> {
    let everybody = |text: String| Unmet { reach: Reach::All, text };
    match kind {
        BackendKind::Nftables => translated(service, host),
        // It is looked at as the file that it would be run from.
        BackendKind::Haproxy => Vec::new(),
        BackendKind::Proxy => host.proxy.clone().err().map(everybody).into_iter().collect(),
        BackendKind::Ipvs => {
            if let Err(text) = &host.ipvs {
                return vec![everybody(format!("{text}{}", or_way_out(service, &[kind])))];
            }
            let scheduler = &service.scheduler.name;
            let module = scheduler_module(scheduler);
            let mut found = Vec::new();
            if host.modules.lack(&module) {
                found.push(everybody(format!(
                    "the kernel has no scheduler `{scheduler}`: install its module {module}, or \
                     use another scheduler"
                )));
            }
            if let Some(engine) = engine_of(service)
                && host.modules.lack(&engine_module(engine))
            {
                found.push(everybody(format!(
                    "the kernel has no persistence engine `{engine}`: install its module {}, or \
                     leave it out",
                    engine_module(engine)
                )));
            }
            // A tunnel asks for no module here: IPVS wraps the packets itself, and what comes back
            // does not come this way.
            let of_clients = network_of_clients(service, host);
            let is_beside = |server: &SocketAddr| {
                of_clients.is_some_and(|(network, length)| {
                    prefix(server.ip(), length) == prefix(network, length)
                })
            };
            let (beside, behind): (Vec<_>, Vec<_>) =
                masqueraded(service, host).into_iter().partition(is_beside);
            found.extend(forwarding(service, &behind, host));
            found.extend(one_network(service, &beside, host));
            found
        }
    }
}

/// What tells its clients apart beside the address.
pub(crate) fn engine_of(service: &Service) -> Option<&str> {
    service.persistence.as_ref()?.engine.as_deref()
}

/// The network of this host that the service's address is of.
fn network_of_clients(service: &Service, host: &HostView) -> Option<(IpAddr, u8)> {
    let listen = service.addresses().next()?;
    host.links.iter().find_map(|link| link.network_of(listen.ip()))
}

/// Of servers that are not on the network of the clients.
fn forwarding(service: &Service, behind: &[SocketAddr], host: &HostView) -> Option<Unmet> {
    let Unforwarded { servers, is_nowhere, switch } = unforwarded(behind, host);
    (!servers.is_empty()).then(|| {
        let text = format!(
            "by nat the answers of {} are forwarded by this host, which {switch}=0 forbids: set it \
             to 1{}",
            first_few(&servers, ", "),
            or_way_out(service, &IN_THE_KERNEL)
        );
        Unmet { reach: if is_nowhere { Reach::All } else { Reach::Part }, text }
    })
}

/// A server beside its clients answers them without a detour, from an address they did not ask. To
/// forward is not enough there, and so it is asked for as a part of the way that is.
fn one_network(service: &Service, beside: &[SocketAddr], host: &HostView) -> Option<Unmet> {
    let listen = service.addresses().next()?;
    let Unforwarded { is_nowhere, switch, .. } = unforwarded(beside, host);
    (!beside.is_empty()).then(|| {
        let they_are = if beside.len() == 1 { "it is" } else { "they are" };
        let forward = match switch.is_empty() {
            true => String::new(),
            false => format!(" and set {switch}=1"),
        };
        // Addresses of a loopback are not told to IPv6 neighbours anyway.
        let hidden = match listen.ip() {
            IpAddr::V4(_) => ", hidden by net.ipv4.conf.all.arp_ignore=1 and arp_announce=2",
            IpAddr::V6(_) => "",
        };
        let servers: Vec<String> = beside.iter().map(ToString::to_string).collect();
        let text = format!(
            "by nat the answers of {} would not come back through this host, because {they_are} on \
             the network of {listen}, where clients are: put servers on a network behind this \
             host{forward}, or use forwarding = \"direct\" with {} on the loopback of \
             each{hidden}{}",
            first_few(&servers, ", "),
            listen.ip(),
            or_way_out(service, &[BackendKind::Ipvs])
        );
        Unmet { reach: if is_nowhere { Reach::All } else { Reach::Part }, text }
    })
}

#[cfg(test)]
mod tests {
    use locum_kernel::own_links::OwnLink;
    use locum_plan::{BackendChoice, Forwarding, Listener, Name, Protocol, Scheduler, Server};

    use super::*;
    use crate::verify::host::{HostLink, Modules};

    /// `NAME ADDRESS/LENGTH… [forwards]` for each link.
    fn host(links: &[&str]) -> HostView {
        let link = |text: &&str| {
            let mut words = text.split(' ');
            let name = words.next().unwrap().to_owned();
            let (mut networks, mut forwards_v4) = (Vec::new(), false);
            for word in words {
                match word.split_once('/') {
                    Some((address, length)) => {
                        networks.push((address.parse().unwrap(), length.parse().unwrap()));
                    }
                    None => forwards_v4 = word == "forwards",
                }
            }
            let is_loopback = name == "lo";
            HostLink { own: OwnLink { name, is_loopback, addresses: networks }, forwards_v4 }
        };
        let modules = ["ip_vs", "ip_vs_rr", "ip_vs_wlc"].map(str::to_owned);
        HostView {
            ipvs: Ok(()),
            translates_v4: Ok(()),
            translates_v6: Ok(()),
            modules: Modules { loaded: Vec::new(), installed: Some(modules.into()) },
            links: links.iter().map(link).collect(),
            forwards_v6: false,
            proxy: Ok(()),
        }
    }

    fn service(listen: &str, servers: &[&str]) -> Service {
        let listen = Listener::Address(listen.parse().unwrap());
        let mut service = Service::new(Name::from("www"), listen);
        let server = |text: &&str| Server::new(text.parse().unwrap());
        service.servers = servers.iter().map(server).collect();
        service
    }

    fn reaches(service: &Service, host: &HostView) -> Vec<Reach> {
        unmet(service, BackendKind::Ipvs, host).iter().map(|one| one.reach).collect()
    }

    const LO: &str = "lo 127.0.0.1/8 ::1/128";

    /// The layouts of the first file that anybody writes: one network; servers routed through the
    /// director, which does not forward; the same, and it does.
    #[test]
    fn nat_asks_for_servers_behind_this_host_and_for_forwarding() {
        use Reach::{All, Part};
        let one = "eth0 10.77.0.1/24";
        let one_on = "eth0 10.77.0.1/24 forwards";
        let (two, two_on) = ("eth1 10.78.0.1/24", "eth1 10.78.0.1/24 forwards");
        let (clients, behind) = (["10.77.0.11:80"], ["10.78.0.11:80"]);
        let mixed = ["10.77.0.11:80", "10.78.0.11:80"];
        let table: [(&[&str], &[&str], &[Reach]); 14] = [
            (&[LO, one], &clients, &[All]),
            (&[LO, one_on], &clients, &[Part]),
            (&[LO, one, two], &behind, &[All]),
            (&[LO, one_on, two_on], &behind, &[]),
            // The link of the servers decides; where another one forwards, we cannot be certain.
            (&[LO, one, two_on], &behind, &[]),
            (&[LO, one_on, two], &behind, &[Part]),
            (&[LO, one, two], &mixed, &[All, All]),
            (&[LO, one_on, two_on], &mixed, &[Part]),
            // Somewhere behind a router: which link it answers at is not known.
            (&[LO, one_on, two], &["192.0.2.7:80"], &[]),
            (&[LO, one, two], &["192.0.2.7:80"], &[All]),
            // The director as its own server, also beside one that is not.
            (&[LO, one], &["10.77.0.1:80", "127.0.0.1:80"], &[]),
            (&[LO, one_on], &["10.77.0.1:80", "10.77.0.11:80"], &[Part]),
            // The listener's address is there already, alone in its network; and one that is routed.
            (&[LO, "eth0 10.77.0.1/24 10.77.0.100/32 forwards"], &clients, &[Part]),
            (&["lo 127.0.0.1/8 forwards", one], &behind, &[All]),
        ];
        for (links, servers, expected) in table {
            let service = service("10.77.0.100:80", servers);
            assert_eq!(reaches(&service, &host(links)), expected, "{links:?} {servers:?}");
        }
        let routed = service("198.51.100.1:80", &clients);
        assert_eq!(reaches(&routed, &host(&[LO, one_on])), []);
    }

    #[test]
    fn what_does_not_come_back_this_way_asks_for_nothing() {
        let mut service = service("10.77.0.100:80", &["10.77.0.11:80"]);
        for way in [Forwarding::Direct, Forwarding::Tunnel] {
            service.servers[0].forwarding = way;
            assert_eq!(reaches(&service, &host(&[LO, "eth0 10.77.0.1/24"])), []);
        }
        let proxied = unmet(&service, BackendKind::Proxy, &host(&[LO, "eth0 10.77.0.1/24"]));
        assert_eq!(proxied, []);
    }

    #[test]
    fn ipv6_is_forwarded_by_a_switch_of_its_own() {
        let service = service("[2001:db8::100]:80", &["[2001:db8:1::1]:80"]);
        let mut host =
            host(&[LO, "eth0 2001:db8::1/64 forwards", "eth1 2001:db8:1::9/64 forwards"]);
        let found = unmet(&service, BackendKind::Ipvs, &host);
        assert_eq!(found.len(), 1);
        assert!(found[0].text.contains("net.ipv6.conf.all.forwarding=0"), "{found:?}");
        host.forwards_v6 = true;
        assert_eq!(reaches(&service, &host), []);
    }

    #[test]
    fn a_sentence_says_what_is_missing_and_what_to_do() {
        let text = |service: &Service, host: &HostView| {
            let found = unmet(service, BackendKind::Ipvs, host);
            found.into_iter().map(|one| one.text).collect::<Vec<_>>()
        };
        let mut www = service("10.77.0.100:80", &["10.78.0.11:80"]);
        www.scheduler = Scheduler::named("wlcc");
        www.backend = BackendChoice::Only(BackendKind::Ipvs);
        let mut host = host(&[LO, "eth0 10.77.0.1/24", "eth1 10.78.0.1/24"]);
        assert_eq!(
            text(&www, &host),
            [
                "the kernel has no scheduler `wlcc`: install its module ip_vs_wlcc, or use another \
                 scheduler",
                "by nat the answers of 10.78.0.11:80 are forwarded by this host, which \
                 net.ipv4.ip_forward=0 forbids: set it to 1",
            ]
        );
        www.scheduler = Scheduler::named("rr");
        host.links[1].forwards_v4 = true;
        assert_eq!(
            text(&www, &host),
            ["by nat the answers of 10.78.0.11:80 are forwarded by this host, which \
              net.ipv4.conf.eth1.forwarding=0 forbids: set it to 1, or use backend = \"proxy\""]
        );
        let mut dns = service("10.77.0.100:53", &["10.77.0.11:53", "10.77.0.12:53"]);
        dns.protocol = Protocol::Udp;
        assert_eq!(
            text(&dns, &host),
            [
                "by nat the answers of 10.77.0.11:53, 10.77.0.12:53 would not come back through this \
              host, because they are on the network of 10.77.0.100:53, where clients are: put \
              servers on a network behind this host, or use forwarding = \"direct\" with \
              10.77.0.100 on the loopback of each, hidden by net.ipv4.conf.all.arp_ignore=1 and \
              arp_announce=2"
            ]
        );
        // What to forward is a part of one of the ways.
        host.links.iter_mut().for_each(|link| link.forwards_v4 = false);
        let found = text(&dns, &host);
        assert_eq!(found.len(), 1, "{found:?}");
        let way = "put servers on a network behind this host and set net.ipv4.ip_forward=1, or use";
        assert!(found[0].contains(way), "{found:?}");
        host.ipvs = Err("kernel 6.1 has no IPVS".to_owned());
        assert_eq!(text(&dns, &host), ["kernel 6.1 has no IPVS"]);
        assert_eq!(text(&www, &host), ["kernel 6.1 has no IPVS, or use backend = \"nftables\""]);
    }
}
