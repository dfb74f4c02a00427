//! Services that send their clients back to themselves.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use locum_plan::{Listener, Name, Plan, Service};

/// The services, by name, through which what `service` sends to `server` comes back to it; empty when
/// `server` is `service` itself. `None`: it does not come back.
///
/// All nodes have one file, so a service that listens on every address is one on each of them, and
/// a connection that goes round between two nodes goes round as well.
pub(super) fn way_back<'a>(
    plan: &'a Plan,
    service: &Service,
    server: SocketAddr,
) -> Option<Vec<&'a str>> {
    let mut seen: Vec<&str> = Vec::new();
    let mut ways: Vec<(SocketAddr, Vec<&str>)> = vec![(server, Vec::new())];
    while let Some((address, way)) = ways.pop() {
        let is_there =
            |other: &&Service| other.protocol == service.protocol && receives(plan, other, address);
        let there: Vec<&Service> = plan.services.iter().filter(is_there).collect();
        let routes = there.iter().filter_map(|other| other.http.as_ref()).flat_map(|it| &it.routes);
        let routed: BTreeSet<&Name> = routes.map(|route| &route.service).collect();
        if receives(plan, service, address) || routed.contains(&service.name) {
            return Some(way);
        }
        let is_routed = |other: &&Service| !routed.is_empty() && routed.contains(&other.name);
        for other in there.iter().copied().chain(plan.services.iter().filter(is_routed)) {
            if other.name == service.name || seen.contains(&&*other.name) {
                continue;
            }
            seen.push(&other.name);
            let mut way = way.clone();
            way.push(&*other.name);
            ways.extend(other.servers.iter().map(|server| (server.address, way.clone())));
        }
    }
    None
}

/// What is sent to this address comes to the service, on one node or another.
pub(super) fn receives(plan: &Plan, service: &Service, address: SocketAddr) -> bool {
    service.listen.iter().any(|listener| match listener {
        Listener::Address(listen) if listen.ip().is_unspecified() => {
            let is_every = listen.is_ipv4() == address.is_ipv4();
            let is_here = *listen == address || is_a_nodes(plan, address.ip());
            is_every && is_here && listen.port() == address.port()
        }
        Listener::Address(_) | Listener::Range(_) | Listener::Fwmark { .. } => {
            listener.receives(address)
        }
    })
}

fn is_a_nodes(plan: &Plan, address: IpAddr) -> bool {
    let mut held = plan.instances.iter().flat_map(|instance| &instance.addresses);
    address.is_loopback()
        || plan.nodes.iter().any(|node| node.address == Some(address))
        || held.any(|held| held.address == address)
}
