//! The kernel's tables that a service asks for: one for each address that it listens on, and one for
//! each mark, all with the same servers.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use locum_kernel::ipvs::{
    self, DestSpec, ForwardingMethod, IpFamily, ServiceFlags, ServiceId, ServiceSpec, Tunnel,
};
use locum_plan as plan;
use locum_plan::{Encapsulation, Listener, TunnelChecksum, WantedService};
use serde::{Deserialize, Serialize};

/// A table of ours, as the state file has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum OwnedId {
    Listener { protocol: OwnedProtocol, listen: SocketAddr },
    Mark { mark: NonZeroU32, ipv6: bool },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OwnedProtocol {
    Tcp,
    Udp,
    Sctp,
}

impl OwnedId {
    /// Those of all tables of a service.
    pub(super) fn all(service: &plan::Service) -> impl Iterator<Item = Self> {
        let protocol = match service.protocol {
            plan::Protocol::Tcp => OwnedProtocol::Tcp,
            plan::Protocol::Udp => OwnedProtocol::Udp,
            plan::Protocol::Sctp => OwnedProtocol::Sctp,
        };
        let marks = service.listen.iter().filter_map(|listener| match listener {
            Listener::Fwmark { mark, .. } => {
                Some(Self::Mark { mark: *mark, ipv6: listener.is_ipv6() })
            }
            Listener::Address(_) | Listener::Range(_) => None,
        });
        let listeners = service.addresses();
        marks.chain(listeners.map(move |listen| Self::Listener { protocol, listen }))
    }

    pub(super) fn kernel_id(&self) -> ServiceId {
        match self {
            Self::Listener { protocol, listen } => {
                let protocol = match protocol {
                    OwnedProtocol::Tcp => ipvs::IpProtocol::Tcp,
                    OwnedProtocol::Udp => ipvs::IpProtocol::Udp,
                    OwnedProtocol::Sctp => ipvs::IpProtocol::Sctp,
                };
                ServiceId::listener(protocol, *listen)
            }
            Self::Mark { mark, ipv6 } => {
                let family = if *ipv6 { IpFamily::V6 } else { IpFamily::V4 };
                ServiceId::Mark { family, mark: mark.get() }
            }
        }
    }

    /// The port that its clients ask for; 0 is whichever they ask for.
    fn port(&self) -> u16 {
        match self {
            Self::Listener { listen, .. } => listen.port(),
            Self::Mark { .. } => 0,
        }
    }
}

/// The tables a service asks for.
pub(super) fn tables_of(
    wanted: &WantedService,
) -> impl Iterator<Item = (OwnedId, ServiceSpec, Vec<DestSpec>)> {
    OwnedId::all(&wanted.service).map(|id| {
        let servers = wanted.servers.iter().map(|server| dest_of(server, id.port()));
        (id, spec_of(&wanted.service, id), servers.collect())
    })
}

fn spec_of(service: &plan::Service, id: OwnedId) -> ServiceSpec {
    let mut spec = ServiceSpec::new(id.kernel_id(), service.scheduler.name.as_str());
    let scheduler = service.scheduler.flags;
    let flags = [
        (service.persistence.is_some(), ServiceFlags::PERSISTENT),
        (service.one_packet, ServiceFlags::ONE_PACKET),
        (scheduler.fallback, ServiceFlags::FALLBACK),
        (scheduler.port, ServiceFlags::PORT),
        (scheduler.third, ServiceFlags::SCHEDULER_3),
    ];
    let set = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag);
    spec.flags = set.fold(ServiceFlags::default(), ServiceFlags::with);
    if let Some(persistence) = &service.persistence {
        spec.persistence_seconds = persistence.timeout;
        spec.client_prefix = persistence.granularity.min(spec.client_prefix);
        spec.persistence_engine = persistence.engine.as_ref().map(ToString::to_string);
    }
    spec
}

/// `asked` is the port of the table. Only masquerading translates it (I-016).
fn dest_of(server: &plan::WantedServer, asked: u16) -> DestSpec {
    let (forwarding, port) = match server.forwarding {
        plan::Forwarding::Nat => match server.address.port() {
            0 => (ForwardingMethod::Masq, asked),
            own => (ForwardingMethod::Masq, own),
        },
        plan::Forwarding::Direct => (ForwardingMethod::Direct, asked),
        plan::Forwarding::Tunnel => {
            (ForwardingMethod::Tunnel(tunnel_of(server.encapsulation)), asked)
        }
    };
    let address = SocketAddr::new(server.address.ip(), port);
    DestSpec {
        upper_threshold: server.bounds.max.unwrap_or(0),
        // The kernel's own is three quarters of the upper one.
        lower_threshold: server.bounds.min.unwrap_or(0),
        ..DestSpec::new(address, forwarding, server.weight)
    }
}

fn tunnel_of(encapsulation: Encapsulation) -> Tunnel {
    let flags = |checksum| match checksum {
        TunnelChecksum::None => 0,
        TunnelChecksum::Full => 1,
        TunnelChecksum::Remote => 2,
    };
    match encapsulation {
        Encapsulation::Ipip => Tunnel::Ipip,
        Encapsulation::Gue { port, checksum } => {
            Tunnel::Gue { port: port.get(), flags: flags(checksum) }
        }
        Encapsulation::Gre { checksum } => Tunnel::Gre { flags: flags(checksum) },
    }
}
