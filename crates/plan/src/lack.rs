//! What a service asks and a backend does not have, by the backend's row of capabilities.

use crate::backend::{Backend, BackendKind, Capabilities};
use crate::listener::Listener;
use crate::service::Service;
use crate::traffic::Forwarding;

/// Something a service asks that a backend does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    Protocol,
    Forwarding,
    /// A server is of another address family than the service.
    Family,
    Scheduler,
    Limits,
}

impl Capabilities {
    /// The first thing of what `service` asks that this backend does not have.
    pub fn lack(&self, service: &Service) -> Option<Lack> {
        if !self.protocols.contains(&service.protocol) {
            Some(Lack::Protocol)
        } else if self.lacking_way(service).is_some() {
            Some(Lack::Forwarding)
        } else if self.lacking_family(service).is_some() {
            Some(Lack::Family)
        } else if !self.schedules(&service.scheduler.0) {
            Some(Lack::Scheduler)
        } else if service.limits.count() && !self.limits_connections {
            Some(Lack::Limits)
        } else {
            None
        }
    }

    /// How a server of `service` is to be reached and this backend cannot.
    fn lacking_way(&self, service: &Service) -> Option<Forwarding> {
        let mut ways = service.servers.iter().map(|server| server.forwarding);
        ways.find(|way| !self.forwardings.contains(way))
    }

    /// How a server of the other address family is to be reached and this backend cannot.
    fn lacking_family(&self, service: &Service) -> Option<Forwarding> {
        let Listener::Address(listen) = service.listen;
        let mut others =
            service.servers.iter().filter(|one| one.address.is_ipv4() != listen.is_ipv4());
        others
            .find(|one| !self.crosses_families.contains(&one.forwarding))
            .map(|one| one.forwarding)
    }

    /// What a service that this backend cannot serve for that reason is told.
    pub fn explain(&self, lack: Lack, service: &Service) -> String {
        let title = self.title;
        match lack {
            Lack::Protocol => {
                let carried: Vec<_> = self.protocols.iter().map(|one| one.title()).collect();
                format!("{title} carries {} only", carried.join(" and "))
            }
            Lack::Forwarding => {
                format!("{title} cannot forward {}", way_in_words(self.lacking_way(service)))
            }
            Lack::Family => {
                let way = way_in_words(self.lacking_family(service));
                format!("{title} cannot forward to the other address family {way}")
            }
            Lack::Scheduler => {
                let (name, known) = (&service.scheduler.0, self.schedulers.join(", "));
                format!("{title} has no scheduler `{name}`, use one of {known}")
            }
            Lack::Limits => format!("{title} keeps no limit of connections"),
        }
    }
}

const fn way_in_words(way: Option<Forwarding>) -> &'static str {
    match way {
        None | Some(Forwarding::Nat) => "by nat",
        Some(Forwarding::Direct) => "direct",
        Some(Forwarding::Tunnel) => "through a tunnel",
    }
}

impl Backend {
    /// The backends that may serve `service` and can, the preferred one first.
    pub fn candidates(self, service: &Service) -> Vec<BackendKind> {
        let named = |kind: &BackendKind| self == Backend::Auto || self == Backend::Only(*kind);
        let able = |kind: &BackendKind| kind.capabilities().lack(service).is_none();
        BackendKind::ALL.into_iter().filter(named).filter(able).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::name::Name;
    use crate::service::Server;
    use crate::traffic::Protocol;

    fn service(listen: &str, server: &str, forwarding: Forwarding) -> Service {
        let socket = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let mut service = Service::new(Name::from("www"), socket(listen).into());
        let address = socket(server);
        service.servers = vec![Server { address, weight: 1, forwarding, health: Vec::new() }];
        service
    }

    #[test]
    fn a_service_goes_to_the_backend_that_reaches_the_family_of_its_servers() {
        use BackendKind::{Ipvs, Proxy};
        let found = |listen, server, way| Backend::Auto.candidates(&service(listen, server, way));
        let (v4, v6) = ("192.0.2.10:80", "[2001:db8::10]:80");
        assert_eq!(found(v4, "10.0.0.1:80", Forwarding::Nat), [Ipvs, Proxy]);
        assert_eq!(found(v6, "[2001:db8::1]:80", Forwarding::Nat), [Ipvs, Proxy]);
        assert_eq!(found(v6, "10.0.0.1:80", Forwarding::Nat), [Proxy]);
        assert_eq!(found(v4, "[2001:db8::1]:80", Forwarding::Tunnel), [Ipvs]);
        assert_eq!(found(v4, "[2001:db8::1]:80", Forwarding::Direct), []);
        let mut datagrams = service(v6, "10.0.0.1:53", Forwarding::Nat);
        datagrams.protocol = Protocol::Udp;
        let ipvs = Ipvs.capabilities();
        assert_eq!(ipvs.lack(&datagrams), Some(Lack::Family));
        assert_eq!(
            ipvs.explain(Lack::Family, &datagrams),
            "IPVS cannot forward to the other address family by nat"
        );
    }
}
