//! What a service would lack here, with each backend: judged over a [`HostView`], purely.

use std::net::{IpAddr, SocketAddr};

use locum_plan::{Backend, BackendKind, Forwarding, Service, first_few};

use crate::choice::Reach;
use crate::verify::host::{HostLink, HostView};

/// Something that has to be here and is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unmet {
    pub reach: Reach,
    /// What is missing, and what to do.
    pub text: String,
}

/// What `service` lacks on this host to be served by `kind`, its port apart.
pub(crate) fn unmet(service: &Service, kind: BackendKind, host: &HostView) -> Vec<Unmet> {
    let everybody = |text: String| Unmet { reach: Reach::All, text };
    match kind {
        BackendKind::Proxy => host.proxy.clone().err().map(everybody).into_iter().collect(),
        BackendKind::Ipvs => {
            if let Err(text) = &host.ipvs {
                return vec![everybody(format!("{text}{}", way_out(service)))];
            }
            let scheduler = &service.scheduler.0;
            let module = format!("ip_vs_{scheduler}");
            let mut found = Vec::new();
            if host.modules.lack(&module) {
                found.push(everybody(format!(
                    "the kernel has no scheduler `{scheduler}`: install its module {module}, or \
                     use another scheduler"
                )));
            }
            // A tunnel asks for no module here: IPVS wraps the packets itself, and what comes back
            // does not come this way.
            found.extend(forwarding(service, host));
            found.extend(one_network(service, host));
            found
        }
    }
}

/// Servers whose answers have to come back through this host, and that are not on it.
fn masqueraded<'a>(service: &'a Service, host: &HostView) -> impl Iterator<Item = SocketAddr> + 'a {
    let is_here = |address: IpAddr| host.has_address(address);
    let by_nat = |way: Forwarding| match way {
        Forwarding::Nat => true,
        Forwarding::Direct | Forwarding::Tunnel => false,
    };
    let servers = service.servers.iter().filter(|server| by_nat(server.forwarding));
    let addresses = servers.map(|server| server.address);
    addresses.filter(|address| !is_here(address.ip())).collect::<Vec<_>>().into_iter()
}

/// Answers are forwarded by the link they come in at.
fn forwarding(service: &Service, host: &HostView) -> Option<Unmet> {
    let real = || host.links.iter().filter(|link| link.name != "lo");
    let nowhere_v4 = !real().any(|link| link.forwards_v4);
    let mut stopped = (Vec::new(), None::<&HostLink>, "ipv4.ip_forward");
    let mut reach = Reach::Part;
    for server in masqueraded(service, host) {
        let nowhere = match server.ip() {
            IpAddr::V4(_) => nowhere_v4,
            IpAddr::V6(_) => !host.forwards_v6,
        };
        let link = real().find(|link| link.network_of(server.ip()).is_some());
        let by_link = server.is_ipv4() && link.is_some_and(|link| !link.forwards_v4);
        if !nowhere && !by_link {
            continue;
        }
        if nowhere {
            reach = Reach::All;
        }
        if server.is_ipv6() {
            stopped.2 = "ipv6.conf.all.forwarding";
        }
        stopped.1 = stopped.1.or(link.filter(|_| !nowhere));
        stopped.0.push(server.to_string());
    }
    let (servers, link, switch) = stopped;
    (!servers.is_empty()).then(|| {
        let servers = first_few(&servers, ", ");
        let switch = match link {
            Some(link) => format!("net.ipv4.conf.{}.forwarding", link.name),
            None => format!("net.{switch}"),
        };
        let text = format!(
            "by nat the answers of {servers} are forwarded by this host, which {switch}=0 forbids: \
             set it to 1{}",
            way_out(service)
        );
        Unmet { reach, text }
    })
}

/// A server beside its clients answers them without a detour, from an address they did not ask.
fn one_network(service: &Service, host: &HostView) -> Option<Unmet> {
    let locum_plan::Listener::Address(listen) = service.listen;
    let of_clients = host.links.iter().find_map(|link| link.network_of(listen.ip()));
    let (network, length) = of_clients?;
    let beside = masqueraded(service, host).filter(|server| {
        super::host::prefix(server.ip(), length) == super::host::prefix(network, length)
    });
    let beside: Vec<_> = beside.map(|server| server.to_string()).collect();
    (!beside.is_empty()).then(|| {
        let they_are = if beside.len() == 1 { "it is" } else { "they are" };
        let text = format!(
            "by nat the answers of {} would not come back through this host, because {they_are} on \
             the network of {listen}, where clients are: put servers on a network behind this host, \
             or use forwarding = \"direct\" with {} on their loopback{}",
            first_few(&beside, ", "),
            listen.ip(),
            way_out(service)
        );
        Unmet { reach: Reach::Part, text }
    })
}

/// Names the backend that could serve it instead, if there is one.
fn way_out(service: &Service) -> String {
    let mut others = Backend::Auto.candidates(service).into_iter();
    match others.find(|kind| *kind != BackendKind::Ipvs) {
        Some(other) => format!(", or use backend = \"{}\"", other.name()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use locum_plan::{Listener, Name, Protocol, Scheduler, Server};

    use super::*;
    use crate::verify::host::Modules;

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
            HostLink { name, networks, forwards_v4 }
        };
        let modules = ["ip_vs", "ip_vs_rr", "ip_vs_wlc"].map(str::to_owned);
        HostView {
            ipvs: Ok(()),
            modules: Modules { loaded: Vec::new(), installed: Some(modules.into()) },
            links: links.iter().map(link).collect(),
            forwards_v6: false,
            proxy: Ok(()),
        }
    }

    fn service(listen: &str, servers: &[&str]) -> Service {
        let listen = Listener::Address(listen.parse().unwrap());
        let mut service = Service::new(Name::from("www"), listen);
        let server = |text: &&str| Server {
            address: text.parse().unwrap(),
            weight: 1,
            forwarding: Forwarding::Nat,
            health: Vec::new(),
        };
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
        let table: [(&[&str], &[&str], &[Reach]); 12] = [
            (&[LO, one], &clients, &[All, Part]),
            (&[LO, one_on], &clients, &[Part]),
            (&[LO, one, two], &behind, &[All]),
            (&[LO, one_on, two_on], &behind, &[]),
            // The link of the servers decides; where another one forwards, we cannot be certain.
            (&[LO, one, two_on], &behind, &[]),
            (&[LO, one_on, two], &behind, &[Part]),
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
        www.scheduler = Scheduler("wlcc".to_owned());
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
        www.scheduler = Scheduler("rr".to_owned());
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
              10.77.0.100 on their loopback"
            ]
        );
        host.ipvs = Err("kernel 6.1 has no IPVS".to_owned());
        assert_eq!(text(&dns, &host), ["kernel 6.1 has no IPVS"]);
        assert_eq!(text(&www, &host), ["kernel 6.1 has no IPVS, or use backend = \"proxy\""]);
    }
}
