//! What a service asks and a backend does not have, by the backend's row of capabilities.

use crate::backend::{BackendChoice, BackendKind, Capabilities};
use crate::listener::Listener;
use crate::service::Service;
use crate::traffic::{Encapsulation, Forwarding};

/// Something a service asks that a backend does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    Protocol,
    /// Its requests are looked at.
    Http,
    /// Clients or servers are spoken to by TLS.
    Tls,
    /// It listens at more than one address and port.
    Several,
    Fwmark,
    /// It listens on every port of an address, or a server has the port that the client asked for.
    AllPorts,
    Forwarding,
    /// Its servers are reached in different ways.
    MixedForwarding,
    Encapsulation,
    /// A server is of another address family than the service.
    Family,
    Scheduler,
    SchedulerFlags,
    Persistence,
    PersistenceEngine,
    OnePacket,
    Limits,
    /// The PROXY protocol.
    Introduction,
    /// A server has a most of connections of its own.
    ServerBounds,
    /// A server that had the most gets new ones below another number.
    LowerBounds,
}

impl Lack {
    const ALL: [Self; 19] = [
        Self::Protocol,
        Self::Http,
        Self::Tls,
        Self::Several,
        Self::Fwmark,
        Self::AllPorts,
        Self::Forwarding,
        Self::MixedForwarding,
        Self::Encapsulation,
        Self::Family,
        Self::Scheduler,
        Self::SchedulerFlags,
        Self::Persistence,
        Self::PersistenceEngine,
        Self::OnePacket,
        Self::Limits,
        Self::Introduction,
        Self::ServerBounds,
        Self::LowerBounds,
    ];
}

impl Capabilities {
    /// The first thing of what `service` asks that this backend does not have.
    pub fn lack(&self, service: &Service) -> Option<Lack> {
        Lack::ALL.into_iter().find(|lack| !self.has(*lack, service))
    }

    /// Whether `service` asks nothing of this kind that this backend does not have.
    fn has(&self, asked: Lack, service: &Service) -> bool {
        let listens = |is: fn(&Listener) -> bool| service.listen.iter().any(is);
        let engine = service.persistence.as_ref().and_then(|one| one.engine.as_deref());
        match asked {
            Lack::Protocol => self.protocols.contains(&service.protocol),
            Lack::Several => {
                self.listens_on_several
                    || service.listen.len() == 1
                        && !listens(|one| matches!(one, Listener::Range(_)))
            }
            Lack::Fwmark => {
                self.listens_on_marks || !listens(|one| matches!(one, Listener::Fwmark { .. }))
            }
            Lack::AllPorts => {
                let follows = service.reached().any(|server| server.address.port() == 0);
                self.listens_on_all_ports || !follows && !listens(|one| one.port().is_none())
            }
            Lack::Forwarding => self.lacking_way(service).is_none(),
            Lack::MixedForwarding => {
                let mut ways = service.reached().map(|server| server.forwarding);
                let first = ways.next();
                self.forwards_by_server || ways.all(|way| Some(way) == first)
            }
            Lack::Encapsulation => self.lacking_encapsulation(service).is_none(),
            Lack::Family => self.lacking_family(service).is_none(),
            Lack::Scheduler => self.schedules(&service.scheduler.name),
            Lack::SchedulerFlags => self.has_scheduler_flags || !service.scheduler.flags.any(),
            Lack::Persistence => self.persists || service.persistence.is_none(),
            Lack::PersistenceEngine => {
                engine.is_none_or(|engine| self.persistence_engines.contains(&engine))
            }
            Lack::OnePacket => self.sends_one_packet || !service.one_packet,
            Lack::Limits => self.limits_connections || !service.limits.count(),
            Lack::Introduction => {
                let introduced = service.reached().any(|server| server.introduced.is_some());
                let is_asked = introduced || service.introduction.any();
                self.introduces.contains(&service.protocol) || !is_asked
            }
            Lack::ServerBounds => {
                self.bounds_servers || !service.reached().any(|server| server.bounds.any())
            }
            Lack::LowerBounds => {
                self.bounds_servers_below
                    || !service.reached().any(|server| server.bounds.min.is_some())
            }
            Lack::Http => self.reads_http || service.http.is_none(),
            Lack::Tls => {
                self.speaks_tls || service.client_tls.is_none() && service.server_tls.is_none()
            }
        }
    }

    /// How a server of `service` is to be reached and this backend cannot.
    fn lacking_way(&self, service: &Service) -> Option<Forwarding> {
        let mut ways = service.reached().map(|server| server.forwarding);
        ways.find(|way| !self.forwardings.contains(way))
    }

    fn lacking_encapsulation(&self, service: &Service) -> Option<Encapsulation> {
        let tunnels = service.reached().filter(|server| server.forwarding == Forwarding::Tunnel);
        let mut wrapped = tunnels.map(|server| server.encapsulation);
        wrapped.find(|one| !self.encapsulations.contains(&one.name()))
    }

    /// How a server of the other address family is to be reached and this backend cannot.
    fn lacking_family(&self, service: &Service) -> Option<Forwarding> {
        let mut others = service.reached().filter(|server| service.crosses(server));
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
            Lack::Several => format!("{title} serves a service at one address and port only"),
            Lack::Fwmark => format!("{title} does not serve by firewall mark"),
            Lack::AllPorts => format!("{title} serves one port of an address, not every port"),
            Lack::Forwarding => {
                format!("{title} cannot forward {}", way_in_words(self.lacking_way(service)))
            }
            Lack::MixedForwarding => {
                format!("{title} forwards to all servers of a service in the same way")
            }
            Lack::Encapsulation => {
                let wrapped = self.lacking_encapsulation(service).unwrap_or_default();
                format!("{title} does not send through a tunnel of type {}", wrapped.name())
            }
            Lack::Family => {
                let way = way_in_words(self.lacking_family(service));
                format!("{title} cannot forward to the other address family {way}")
            }
            Lack::Scheduler => {
                let (name, known) = (&service.scheduler.name, self.schedulers.join(", "));
                format!("{title} has no scheduler `{name}`, use one of {known}")
            }
            Lack::SchedulerFlags => format!("{title} knows no flags of a scheduler"),
            Lack::Persistence => format!("{title} keeps no client on its server (`persistence`)"),
            Lack::PersistenceEngine => {
                let engine = service.persistence.as_ref().and_then(|one| one.engine.as_deref());
                format!("{title} has no persistence engine `{}`", engine.unwrap_or_default())
            }
            Lack::OnePacket => format!("{title} does not choose a server for each datagram"),
            Lack::Limits => format!("{title} keeps no limit of connections"),
            Lack::Introduction if self.introduces.is_empty() => {
                format!("{title} does not speak the PROXY protocol (`send_proxy`, `accept_proxy`)")
            }
            Lack::Introduction => {
                let carried: Vec<_> = self.introduces.iter().map(|one| one.title()).collect();
                format!("{title} speaks the PROXY protocol with {} only", carried.join(" and "))
            }
            Lack::ServerBounds => {
                format!("{title} keeps no limit of connections for a server of its own")
            }
            Lack::LowerBounds => format!(
                "{title} sends a full server new connections as soon as it is not full \
                 (`min_connections`)"
            ),
            Lack::Http => format!("{title} does not read HTTP (`http`)"),
            Lack::Tls => format!("{title} passes TLS on as it is (`tls`, `server_tls`)"),
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

impl BackendChoice {
    /// Those that the operator leaves the choice between, the preferred one first.
    pub fn allowed(self) -> impl Iterator<Item = &'static Capabilities> {
        let named = move |kind: &BackendKind| match self {
            Self::Auto => BackendKind::AUTOMATIC.contains(kind),
            Self::Only(only) => only == *kind,
        };
        BackendKind::ALL.into_iter().filter(named).map(BackendKind::capabilities)
    }

    /// The backends that may serve `service` and can, the preferred one first.
    pub fn candidates(self, service: &Service) -> Vec<BackendKind> {
        let able = self.allowed().filter(|backend| backend.lack(service).is_none());
        able.map(|backend| backend.kind).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use locum_vrrp::Family;

    use super::*;
    use crate::http::{HttpService, ServerTls, ServerTrust};
    use crate::introduction::HeaderVersion;
    use crate::name::Name;
    use crate::selection::Persistence;
    use crate::server::{ConnectionBounds, FailedServer, Server, SorryServer};
    use crate::traffic::{Protocol, TunnelChecksum};

    fn socket(text: &str) -> SocketAddr {
        text.parse::<SocketAddr>().expect("an address")
    }

    fn service(listen: &str, server: &str, forwarding: Forwarding) -> Service {
        let mut service = Service::new(Name::from("www"), socket(listen).into());
        service.servers = vec![Server { forwarding, ..Server::new(socket(server)) }];
        service
    }

    #[test]
    fn a_service_goes_to_the_backend_that_reaches_the_family_of_its_servers() {
        use BackendKind::{Ipvs, Nftables, Proxy};
        let found =
            |listen, server, way| BackendChoice::Auto.candidates(&service(listen, server, way));
        let (v4, v6) = ("192.0.2.10:80", "[2001:db8::10]:80");
        assert_eq!(found(v4, "10.0.0.1:80", Forwarding::Nat), [Ipvs, Nftables, Proxy]);
        assert_eq!(found(v6, "[2001:db8::1]:80", Forwarding::Nat), [Ipvs, Nftables, Proxy]);
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

    /// What a backend cannot do is said of it, whatever is asked: no column is forgotten.
    #[test]
    fn a_backend_that_can_nothing_lacks_all_that_is_asked() {
        let nothing = Capabilities {
            protocols: &[],
            forwardings: &[],
            schedulers: &[],
            has_more_schedulers: false,
            encapsulations: &[],
            crosses_families: &[],
            limits_connections: false,
            introduces: &[],
            listens_on_several: false,
            persists: false,
            sends_one_packet: false,
            bounds_servers: false,
            bounds_servers_below: false,
            reads_http: false,
            speaks_tls: false,
            ..*BackendKind::Proxy.capabilities()
        };
        let mut all = service("192.0.2.10:0", "[2001:db8::1]:80", Forwarding::Tunnel);
        let mark = "7".parse().expect("a mark");
        all.listen.push(Listener::Fwmark { mark, family: Family::V4 });
        all.scheduler.flags.port = true;
        let engine = Some(Name::from("sip"));
        all.persistence = Some(Persistence { timeout: 300, granularity: 32, engine });
        all.one_packet = true;
        all.limits.connections = Some(1);
        all.servers[0].introduced = Some(HeaderVersion::V1);
        all.servers[0].bounds = ConnectionBounds { max: Some(9), min: Some(5) };
        let checksum = TunnelChecksum::None;
        all.sorry = Some(SorryServer {
            address: socket("10.0.0.9:80"),
            forwarding: Forwarding::Direct,
            encapsulation: Encapsulation::Gre { checksum },
            introduced: None,
            unused: FailedServer::Remove,
        });
        all.http = Some(std::sync::Arc::new(HttpService {
            redirects: Vec::new(),
            routes: Vec::new(),
            stats: None,
            forwarded: false,
            access: None,
            cookie: None,
            server_http2: false,
            request_timeout: Duration::ZERO,
            tunnel_timeout: Duration::ZERO,
        }));
        all.server_tls = Some(ServerTls { name: None, trust: ServerTrust::Nobody });
        let lacking: Vec<Lack> =
            Lack::ALL.into_iter().filter(|lack| !nothing.has(*lack, &all)).collect();
        assert_eq!(lacking, Lack::ALL);
        for lack in Lack::ALL {
            assert!(nothing.explain(lack, &all).starts_with("the built-in proxy "), "{lack:?}");
        }
    }
}
