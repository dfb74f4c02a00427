//! Services with their servers: what is given at the service is that of its servers, where they say
//! nothing else.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use locum_plan::{
    BackendChoice, BackendKind, ConnectionBounds, Instance, Listener, Name, Persistence, Quorum,
    QuorumUnit, Scheduler, SchedulerFlags, Server, Service, SorryServer, Standby, TurnHooks,
};

use crate::assemble::health::AskedServer;
use crate::assemble::{commands, health, http};
use crate::dialect::Dialect;
use crate::parsed::{Field, ParsedServer, ParsedService, Serve};
use crate::settings::introduction::ServerHeader;
use crate::settings::persistence::{self, ParsedPersistence};
use crate::settings::server::{self as of_server, ParsedSorry};
use crate::settings::service as of_service;
use crate::span::{At, Report, Span};

pub(super) fn service(
    parsed: &ParsedService,
    dialect: Dialect,
    instances: &[Instance],
    report: &mut Report,
) -> Service {
    let name = &parsed.name.value;
    let listeners = listeners(parsed, dialect);
    let is_routed_to = !parsed.http.is_absent();
    if parsed.listen.is_absent() && parsed.fwmark.is_absent() && !is_routed_to {
        let text = format!("service `{name}` has no `listen`");
        let finding = report.error(parsed.span, "missing-key", text);
        finding.help("name the address and port of its clients, as in \"192.0.2.10:80\"");
    }
    let listen: Vec<Listener> = listeners.iter().map(|at| at.value).collect();
    let port = Listener::common_port(&listen).unwrap_or(0);
    let servers = parsed.servers.list().iter();
    let servers = servers.map(|at| server(&at.value, parsed, port, dialect)).collect();
    Service {
        name: Name::from(name.as_str()),
        instance: owner(parsed, &listeners, dialect, instances, report),
        protocol: of_service::PROTOCOL.of(parsed, dialect),
        backend: of_service::BACKEND.of(parsed, dialect),
        scheduler: Scheduler {
            name: of_service::SCHEDULER.of(parsed, dialect),
            flags: flags(parsed),
        },
        persistence: parsed.persistence.value().map(|one| persistence(one, dialect)),
        one_packet: parsed.one_packet.value() == Some(&true),
        standby: standby(parsed, dialect),
        drain: of_service::DRAIN.of(parsed, dialect),
        limits: parsed.limits(dialect),
        introduction: parsed.introduction.assemble(),
        quorum: quorum(parsed, dialect),
        hooks: TurnHooks { up: commands(&parsed.quorum_up), down: commands(&parsed.quorum_down) },
        sorry: parsed.sorry.value().map(|one| sorry(one, parsed, port, dialect)),
        omega: of_service::OMEGA.of(parsed, dialect),
        slow_start: of_service::SLOW_START.of(parsed, dialect),
        http: http::http(parsed, dialect),
        client_tls: http::client_tls(parsed),
        server_tls: http::server_tls(parsed, dialect),
        servers,
        // Where nothing usable is written it stands in, beside an error.
        listen: if listen.is_empty() && !is_routed_to { vec![nowhere()] } else { listen },
    }
}

/// A HAProxy takes its time to start, and one that is made for a service can always stand by.
fn standby(parsed: &ParsedService, dialect: Dialect) -> Standby {
    let by_backend = match of_service::BACKEND.of(parsed, dialect) {
        BackendChoice::Only(BackendKind::Haproxy) => Standby::Warm,
        BackendChoice::Only(_) | BackendChoice::Auto => Standby::Cold,
    };
    parsed.standby.value().copied().unwrap_or(by_backend)
}

fn nowhere() -> Listener {
    Listener::Address(SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// Where it listens, with the place of each.
pub(crate) fn listeners(parsed: &ParsedService, dialect: Dialect) -> Vec<At<Listener>> {
    let mark = parsed.fwmark.given().and_then(|at| {
        let family = of_service::FAMILY.of(parsed, dialect);
        let mark = NonZeroU32::new(at.value)?;
        Some(At::new(Listener::Fwmark { mark, family }, at.span))
    });
    parsed.listen.list().iter().cloned().chain(mark).collect()
}

/// Unknown ones are reported by the rules.
fn flags(parsed: &ParsedService) -> SchedulerFlags {
    let has = |names: &[&str]| {
        parsed.scheduler_flags.list().iter().any(|at| names.contains(&at.value.as_str()))
    };
    SchedulerFlags {
        fallback: has(&["flag-1", "sh-fallback", "mh-fallback"]),
        port: has(&["flag-2", "sh-port", "mh-port"]),
        third: has(&["flag-3"]),
    }
}

fn quorum(parsed: &ParsedService, dialect: Dialect) -> Quorum {
    let level = of_service::QUORUM.of(parsed, dialect);
    Quorum {
        level,
        // More than that is refused, and in a keepalived.conf taken for the most.
        hysteresis: of_service::HYSTERESIS.of(parsed, dialect).min(level - 1),
        unit: match dialect {
            Dialect::Toml => QuorumUnit::Servers,
            Dialect::Keepalived => QuorumUnit::Weight,
        },
    }
}

fn persistence(parsed: &ParsedPersistence, dialect: Dialect) -> Persistence {
    let timeout = persistence::TIMEOUT.of(parsed, dialect);
    Persistence {
        timeout: u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1),
        granularity: persistence::GRANULARITY.of(parsed, dialect),
        engine: parsed.engine.value().map(|name| Name::from(name.as_str())),
    }
}

fn server(parsed: &ParsedServer, service: &ParsedService, port: u16, dialect: Dialect) -> Server {
    let address = socket(&parsed.address, port);
    let checks = if parsed.health.is_absent() { &service.health } else { &parsed.health };
    let forwarding = parsed.forwarding.value().copied();
    let tunnel = parsed.tunnel.value().or(service.tunnel.value()).copied();
    let failed = parsed.failed.value().copied();
    let alpha = parsed.alpha.value().copied();
    let warm_up: Option<Duration> = parsed.warm_up.value().copied();
    let warm_up = warm_up.unwrap_or_else(|| of_service::WARM_UP.of(service, dialect));
    let asked = checks.list().iter();
    let introduced = match parsed.introduced.value() {
        Some(ServerHeader::Of(version)) => Some(*version),
        Some(ServerHeader::Not) => None,
        None => service.introduction.sent.value().copied(),
    };
    let server = AskedServer { address, introduced, warm_up };
    let asked = asked.filter_map(|at| health::health(&at.value, &server, dialect));
    let mut health: Vec<_> = asked.collect();
    // Of thousands of servers most have one.
    health.shrink_to_fit();
    Server {
        address,
        weight: of_server::WEIGHT.of(parsed, dialect),
        forwarding: forwarding.unwrap_or_else(|| of_service::FORWARDING.of(service, dialect)),
        encapsulation: tunnel.unwrap_or_default(),
        bounds: ConnectionBounds {
            // keepalived's 0 is none.
            max: parsed.max_connections.value().copied().filter(|most| *most > 0),
            min: parsed.min_connections.value().copied().filter(|least| *least > 0),
        },
        introduced,
        failed: failed.unwrap_or_else(|| of_service::FAILED.of(service, dialect)),
        alpha: alpha.unwrap_or_else(|| of_service::ALPHA.of(service, dialect)),
        hooks: TurnHooks { up: commands(&parsed.up), down: commands(&parsed.down) },
        health,
    }
}

fn sorry(
    parsed: &ParsedSorry,
    service: &ParsedService,
    port: u16,
    dialect: Dialect,
) -> SorryServer {
    let forwarding = parsed.forwarding.value().copied();
    let tunnel = parsed.tunnel.value().or(service.tunnel.value()).copied();
    SorryServer {
        address: socket(&parsed.address, port),
        forwarding: forwarding.unwrap_or_else(|| of_service::FORWARDING.of(service, dialect)),
        encapsulation: tunnel.unwrap_or_default(),
        introduced: service.introduction.sent.value().copied(),
        unused: of_server::SORRY_UNUSED.of(parsed, dialect),
    }
}

fn socket(parsed: &Field<(IpAddr, Option<u16>)>, port: u16) -> SocketAddr {
    let stand_in = (IpAddr::from([0, 0, 0, 0]), None);
    let (address, own) = parsed.value().copied().unwrap_or(stand_in);
    SocketAddr::new(address, own.unwrap_or(port))
}

/// The instance whose master serves: the one named, else the one that has its addresses.
/// keepalived ties no service to an instance: its virtual servers are programmed on every node.
fn owner(
    parsed: &ParsedService,
    listeners: &[At<Listener>],
    dialect: Dialect,
    instances: &[Instance],
    report: &mut Report,
) -> Option<Name> {
    let serve = parsed.serve.value().copied();
    match (dialect, serve, parsed.instance.given()) {
        (Dialect::Keepalived, _, _) | (Dialect::Toml, Some(Serve::Always), None) => None,
        (Dialect::Toml, Some(Serve::Always), Some(named)) => {
            report
                .error(named.span, "serve-conflict", "`serve = \"always\"` goes with no instance")
                .help("remove `instance`, or `serve`");
            None
        }
        (Dialect::Toml, _, Some(named)) => Some(Name::from(named.value.as_str())),
        (Dialect::Toml, _, None) if listeners.is_empty() => {
            if parsed.listen.is_absent() && !parsed.http.is_absent() {
                let text = "a service that routes lead to belongs to no instance by itself";
                report.error(parsed.span, "service-without-instance", text).help(
                    "name the `instance` of the service that has the routes, or set \
                     `serve = \"always\"` for every node",
                );
            }
            None
        }
        (Dialect::Toml, _, None) => holder(parsed, listeners, instances, report),
    }
}

/// The one instance that has an address of the service.
fn holder(
    parsed: &ParsedService,
    listeners: &[At<Listener>],
    instances: &[Instance],
    report: &mut Report,
) -> Option<Name> {
    let mut found: Option<(&Instance, Span)> = None;
    for at in listeners {
        for address in at.value.addresses() {
            let Some(one) = holder_of(instances, address.ip()) else { continue };
            match found {
                Some((other, _)) if other.name != one.name => {
                    let text = format!(
                        "instances `{}` and `{}` both have addresses of service `{}`",
                        other.name, one.name, parsed.name.value
                    );
                    report.error(at.span, "service-of-two-instances", text).help(
                        "name the `instance` that serves it, or write a service for each of them",
                    );
                    return None;
                }
                Some(_) => {}
                None => found = Some((one, at.span)),
            }
        }
    }
    if found.is_none() {
        let address = listeners.iter().find_map(|at| at.value.addresses().next());
        let text = match address {
            Some(address) => format!("no instance has the address {}", address.ip()),
            None => "a service by mark belongs to no instance by itself".to_owned(),
        };
        let span = listeners.first().map_or(parsed.span, |at| at.span);
        report
            .error(span, "service-without-instance", text)
            .help("name the `instance` that serves it, or set `serve = \"always\"` for every node");
    }
    found.map(|(instance, _)| instance.name.clone())
}

fn holder_of(instances: &[Instance], address: IpAddr) -> Option<&Instance> {
    instances.iter().find(|instance| instance.addresses.iter().any(|held| held.address == address))
}
