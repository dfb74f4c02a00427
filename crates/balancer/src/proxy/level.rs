//! What the proxy is told: the wanted services in the words of its protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_plan::{
    Activity, BackendKind, HeaderVersion, Protocol, ServiceLimits, SourceNetwork, WantedServer,
    WantedService,
};
use locum_proxy::protocol::{
    Orphan, ProxyHeaderVersion, ProxyLimits, ProxyNetwork, ProxyPersistence, ProxyServer,
    ProxyService, ProxyTransport,
};

/// Why the proxy cannot serve this at all.
pub(super) fn unfit(wanted: &WantedService) -> Option<String> {
    let capabilities = BackendKind::Proxy.capabilities();
    let lack = capabilities.lack(&wanted.service)?;
    Some(capabilities.explain(lack, &wanted.service))
}

/// As the proxy is told of it.
pub(super) fn spec_of(wanted: &WantedService) -> ProxyService {
    let service = &wanted.service;
    // One of an earlier version knows what all have.
    let all = common_header(wanted);
    let server = |server: &WantedServer| ProxyServer {
        address: server.address,
        weight: server.weight,
        max: server.bounds.max,
        min: server.bounds.min,
        send_proxy: server.introduced.filter(|_| all.is_none()).map(version_of),
    };
    let mut addresses = service.addresses();
    // A service that listens nowhere is unfit.
    let nowhere = || SocketAddr::from(([0, 0, 0, 0], 0));
    ProxyService {
        name: service.name.to_string(),
        listen: addresses.next().unwrap_or_else(nowhere),
        also: addresses.collect(),
        transport: match service.protocol {
            Protocol::Tcp | Protocol::Sctp => ProxyTransport::Tcp,
            Protocol::Udp => ProxyTransport::Udp,
        },
        scheduler: service.scheduler.name.clone(),
        persistence: service.persistence.as_ref().map(|one| ProxyPersistence {
            timeout_ms: u64::from(one.timeout) * 1000,
            prefix: one.granularity,
        }),
        one_packet: service.one_packet,
        drain_ms: u64::try_from(service.drain.as_millis()).unwrap_or(u64::MAX),
        ready_only: wanted.activity == Activity::Ready,
        limits: limits_of(&service.limits),
        send_proxy: all.map(version_of),
        accept_proxy: service.introduction.accepted.iter().map(network_of).collect(),
        servers: wanted.servers.iter().map(server).collect(),
        failed: failed(wanted),
    }
}

/// By which all of its servers are told who a client is.
fn common_header(wanted: &WantedService) -> Option<HeaderVersion> {
    let mut all = wanted.servers.iter().map(|server| server.introduced);
    let first = all.next().flatten()?;
    all.all(|one| one == Some(first)).then_some(first)
}

fn version_of(version: HeaderVersion) -> ProxyHeaderVersion {
    match version {
        HeaderVersion::V1 => ProxyHeaderVersion::V1,
        HeaderVersion::V2 => ProxyHeaderVersion::V2,
    }
}

/// Servers that shall have nobody, not even those that were there: who is drained is still in force.
fn failed(wanted: &WantedService) -> Vec<SocketAddr> {
    let is_in_force = |address| wanted.servers.iter().any(|one| one.address == address);
    let configured = wanted.service.servers.iter().map(|server| server.address);
    configured.filter(|address| !is_in_force(*address)).collect()
}

/// The same for a proxy that may have served for an earlier daemon: one that counts as down until it has
/// been asked has not failed.
pub(super) fn first_spec_of(wanted: &WantedService) -> ProxyService {
    let mut spec = spec_of(wanted);
    let counts_as_down = |address| {
        wanted.service.servers.iter().any(|server| server.alpha && server.address == address)
    };
    spec.failed.retain(|address| !counts_as_down(*address));
    spec
}

/// Why a proxy of this version, one of an earlier run, cannot serve it, though this one could.
pub(super) fn beyond(wanted: &WantedService, version: u32) -> Option<&'static str> {
    (version < spec_of(wanted).since()).then_some(
        "the proxy that runs here is of an earlier version and cannot serve this: end it with \
         SIGTERM, another one is started",
    )
}

fn network_of(network: &SourceNetwork) -> ProxyNetwork {
    ProxyNetwork { address: network.address(), prefix: network.prefix() }
}

fn limits_of(limits: &ServiceLimits) -> ProxyLimits {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    ProxyLimits {
        connections: limits.connections,
        per_server: limits.per_server,
        per_source: limits.per_source,
        queue: limits.waiting,
        queue_ms: ms(limits.queue),
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
