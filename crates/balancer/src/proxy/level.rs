//! What the proxy is told: the wanted services in the words of its protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_plan::{Activity, BackendKind, ServiceLimits, WantedService};
use locum_proxy::protocol::{Orphan, ProxyLimits, ProxyServer, ProxyService};

/// Why the proxy cannot serve this at all.
pub(super) fn unfit(wanted: &WantedService) -> Option<String> {
    let capabilities = BackendKind::Proxy.capabilities();
    let lack = capabilities.lack(&wanted.service)?;
    Some(capabilities.explain(lack, &wanted.service))
}

/// As the proxy is told of it.
pub(super) fn spec_of(wanted: &WantedService) -> ProxyService {
    let server = |server: &locum_plan::WantedServer| ProxyServer {
        address: server.address,
        weight: server.weight,
    };
    // A service that listens elsewhere is unfit.
    let nowhere = || SocketAddr::from(([0, 0, 0, 0], 0));
    let listen = wanted.service.only_address().unwrap_or_else(nowhere);
    ProxyService {
        name: wanted.service.name.to_string(),
        listen,
        scheduler: wanted.service.scheduler.name.clone(),
        drain_ms: u64::try_from(wanted.service.drain.as_millis()).unwrap_or(u64::MAX),
        ready_only: wanted.activity == Activity::Ready,
        limits: limits_of(&wanted.service.limits),
        servers: wanted.servers.iter().map(server).collect(),
    }
}

fn limits_of(limits: &ServiceLimits) -> ProxyLimits {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    ProxyLimits {
        connections: limits.connections,
        per_server: limits.per_server,
        per_source: limits.per_source,
        connect_ms: ms(limits.connect),
        idle_ms: ms(limits.idle),
        half_closed_ms: ms(limits.half_closed),
    }
}

/// One process serves all: without a daemon it goes on as long as any of their addresses stays.
pub(super) fn orphan_of<'a>(services: impl Iterator<Item = &'a Arc<WantedService>>) -> Orphan {
    let leases: Option<Vec<Duration>> = services.map(|wanted| wanted.lease).collect();
    match leases {
        None => Orphan::ForEver,
        Some(leases) => {
            // The last connections of what was served finish under the lease they had.
            let longest = leases.into_iter().max();
            longest.map_or(Orphan::Unchanged, |longest| Orphan::from(Some(longest)))
        }
    }
}

/// Whether the proxy has something to learn from the second.
pub(super) fn is_same(before: &[Arc<WantedService>], now: &[Arc<WantedService>]) -> bool {
    before.len() == now.len()
        && before.iter().zip(now).all(|(before, now)| Arc::ptr_eq(before, now) || before == now)
}
