//! What services lack where this host forwards packets for them, whatever backend does it.

use std::net::{IpAddr, SocketAddr};

use locum_plan::{BackendChoice, BackendKind, Forwarding, Service};

use crate::choice::{Reach, way_out};
use crate::verify::host::HostView;

/// Something that has to be here and is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unmet {
    pub reach: Reach,
    /// What is missing, and what to do.
    pub text: String,
}

/// Servers whose answers have to come back through this host, and that are not on it.
pub(super) fn masqueraded(service: &Service, host: &HostView) -> Vec<SocketAddr> {
    let by_nat = |way: Forwarding| match way {
        Forwarding::Nat => true,
        Forwarding::Direct | Forwarding::Tunnel => false,
    };
    let servers = service.servers.iter().filter(|server| by_nat(server.forwarding));
    let addresses = servers.map(|server| server.address);
    addresses.filter(|address| !host.has_address(address.ip())).collect()
}

/// What keeps this host from forwarding the answers of these servers.
#[derive(Debug, Default)]
pub(super) struct Unforwarded {
    pub(super) servers: Vec<String>,
    /// For some of them nothing is forwarded at all.
    pub(super) is_nowhere: bool,
    /// To be set to 1.
    pub(super) switch: String,
}

/// Answers are forwarded by the link they come in at.
pub(super) fn unforwarded(servers: &[SocketAddr], host: &HostView) -> Unforwarded {
    let real = || host.links.iter().filter(|link| !link.own.is_loopback);
    let nowhere_v4 = !real().any(|link| link.forwards_v4);
    let mut found = Unforwarded::default();
    for server in servers {
        let (is_nowhere, switch) = match server.ip() {
            IpAddr::V4(_) => (nowhere_v4, "net.ipv4.ip_forward"),
            IpAddr::V6(_) => (!host.forwards_v6, "net.ipv6.conf.all.forwarding"),
        };
        let link = real().find(|link| link.network_of(server.ip()).is_some());
        let by_link = link.filter(|link| server.is_ipv4() && !link.forwards_v4);
        let switch = match by_link {
            _ if is_nowhere => switch.to_owned(),
            Some(link) => format!("net.ipv4.conf.{}.forwarding", link.own.name),
            None => continue,
        };
        // The one for all counts more than that of a link.
        if found.switch.is_empty() || is_nowhere && !found.is_nowhere {
            found.switch = switch;
        }
        found.is_nowhere |= is_nowhere;
        found.servers.push(server.to_string());
    }
    found
}

/// Backends for which this host forwards packets.
pub(super) const IN_THE_KERNEL: [BackendKind; 2] = [BackendKind::Ipvs, BackendKind::Nftables];

/// Names the backend that could serve it instead, if there is one that is not asked anyway.
pub(super) fn or_way_out(service: &Service, except: &[BackendKind]) -> String {
    match (service.backend, way_out(service, except)) {
        (BackendChoice::Only(_), Some(advice)) => format!(", or {advice}"),
        (BackendChoice::Only(_), None) | (BackendChoice::Auto, _) => String::new(),
    }
}
