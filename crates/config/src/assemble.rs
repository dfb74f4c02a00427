//! Wishes plus defaults become a plan. One setting at a time; rules between settings are
//! `validate`'s.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use locum_vrrp::{
    AnnounceSettings, Auth, ChecksumForm, ChecksumMode, Family, Interval, Priority, Profile,
    RouterSettings, Transport, Version, Vrid,
};

use crate::defaults;
use crate::span::{At, Report};
use crate::wish::{
    AnnounceWish, CheckWish, Field, HaproxyWish, HealthWish, HooksWish, InstanceWish, Serve,
    ServiceWish, UnicastWish, Wishes,
};
use locum_plan::{
    Check, Dialect, HaproxyFile, Health, HookSettings, Hooks, Instance, Name, Plan, Probe,
    ProbeKind, Scheduler, Server, Service, VirtualAddress,
};

/// The plan that the wishes describe, entry by entry in the same order. Where a wish is unusable
/// the report has an error and the plan a stand-in: such a plan is looked at, never returned.
pub(crate) fn assemble(wishes: &Wishes, digest: String, report: &mut Report) -> Plan {
    let dialect = wishes.dialect;
    let instances: Vec<Instance> =
        wishes.instances.iter().map(|wish| instance(wish, dialect, report)).collect();
    let checks = wishes.checks.iter().map(|wish| check(wish, dialect, report)).collect();
    let services =
        wishes.services.iter().map(|wish| service(wish, dialect, &instances, report)).collect();
    let haproxy = wishes.haproxy.iter().map(|wish| haproxy(wish, report)).collect();
    let hooks = wishes
        .hook_timeout
        .as_ref()
        .map_or_else(HookSettings::default, |at| HookSettings { timeout: at.value });
    Plan {
        node: wishes.node.clone(),
        nodes: wishes.nodes.clone(),
        dialect,
        instances,
        checks,
        services,
        haproxy,
        hooks,
        digest,
    }
}

/// The value of a setting, or its default.
fn or<T: Clone>(wish: &Option<At<T>>, default: T) -> T {
    wish.as_ref().map_or(default, |at| at.value.clone())
}

fn instance(wish: &InstanceWish, dialect: Dialect, report: &mut Report) -> Instance {
    let name = &wish.name.value;
    if wish.interface.is_absent() {
        missing(report, wish.span, "interface", &format!("instance `{name}`"));
    }
    if wish.vrid.is_absent() {
        let key = match dialect {
            Dialect::Toml => "vrid",
            Dialect::Keepalived => "virtual_router_id",
        };
        missing(report, wish.span, key, &format!("instance `{name}`"));
    }
    let advertised = wish.addresses.value().map_or(&[][..], Vec::as_slice);
    let all = advertised.iter().chain(&wish.excluded);
    Instance {
        name: Name::from(name.as_str()),
        interface: Name::from(wish.interface.value().map_or("", String::as_str)),
        router: router(wish, advertised, dialect, report),
        addresses: all.map(|at| at.value.clone()).collect(),
        track: wish.track.iter().map(|at| at.value.clone()).collect(),
        hooks: hooks(&wish.hooks),
        lease: or(&wish.lease, defaults::LEASE),
    }
}

fn missing(report: &mut Report, span: crate::span::Span, key: &str, of: &str) {
    report.error(span, "missing-key", format!("{of} has no `{key}`"));
}

/// The family of an instance: what its addresses say, else what the file says, else IPv4.
pub(crate) fn family(wish: &InstanceWish) -> Family {
    let first = wish.addresses.value().and_then(|all| all.first());
    let peer = wish
        .unicast
        .as_ref()
        .and_then(|unicast| unicast.peers.value()?.first())
        .map(|peer| peer.value.address);
    first
        .map(|at| Family::of(&at.value.address))
        .or(wish.family.as_ref().map(|at| at.value))
        .or(wish.source.as_ref().map(|at| Family::of(&at.value)))
        .or(peer.map(|address| Family::of(&address)))
        .unwrap_or(Family::V4)
}

fn router(
    wish: &InstanceWish,
    advertised: &[At<VirtualAddress>],
    dialect: Dialect,
    report: &mut Report,
) -> RouterSettings {
    let family = family(wish);
    let version = match (&wish.version, family) {
        (Some(at), _) => at.value,
        (None, Family::V6) => Version::V3,
        (None, Family::V4) => defaults::version(dialect),
    };
    // INVARIANT: 1 is a VRID; it stands in only beside an error.
    let stand_in = Vrid::new(1).expect("1 is not 0");
    let base = RouterSettings::new(wish.vrid.value().copied().unwrap_or(stand_in), family, version);
    RouterSettings {
        profile: or(&wish.profile, base.profile),
        priority: wish.priority.as_ref().map_or(base.priority, |at| Priority(at.value)),
        interval: interval(wish.interval.as_ref(), version, dialect, report),
        preempt: or(&wish.preempt, base.preempt),
        addresses: advertised.iter().map(|at| at.value.address).collect(),
        auth: auth(wish, version, dialect, report),
        transport: transport(wish, base.transport.clone()),
        source: wish.source.as_ref().map(|at| at.value),
        checksum: checksum(wish, &base, dialect, report),
        down_multiplier: or(&wish.down_multiplier, base.down_multiplier),
        announce: announce(&wish.announce),
        answer_lower: or(&wish.answer_lower, base.answer_lower),
        answer_higher: or(&wish.answer_higher, base.answer_higher),
        owner_ignores_adverts: or(&wish.owner_ignores_adverts, base.owner_ignores_adverts),
        start_delay: or(&wish.start_delay, base.start_delay),
        ..base
    }
}

/// V-043: strict in our own files means the form of RFC 9568. A keepalived.conf keeps to its peers:
/// a keepalived in strict mode sends and understands the other form only.
fn checksum(
    wish: &InstanceWish,
    base: &RouterSettings,
    dialect: Dialect,
    report: &mut Report,
) -> ChecksumMode {
    let strict = or(&wish.profile, base.profile) == Profile::Strict;
    if dialect == Dialect::Keepalived || !strict {
        return or(&wish.checksum, base.checksum);
    }
    let forced = ChecksumMode::Pinned(ChecksumForm::Message);
    if let Some(at) = wish.checksum.as_ref().filter(|at| at.value != forced) {
        report
            .error(at.span, "checksum-strict", "the strict profile has the checksum of RFC 9568")
            .help("remove `checksum`, or set it to \"message\"");
    }
    forced
}

/// V-012: an interval the version cannot carry is refused. A keepalived.conf is the exception:
/// its fractions are rounded as keepalived rounds them, and it is said, because a peer with the
/// same file sends the rounded value.
fn interval(
    wish: Option<&At<Duration>>,
    version: Version,
    dialect: Dialect,
    report: &mut Report,
) -> Interval {
    let Some(at) = wish else { return Interval::DEFAULT };
    let (step, range) = match version {
        Version::V2 => (Duration::from_secs(1), "whole seconds from 1s to 255s"),
        Version::V3 => (Duration::from_millis(10), "multiples of 10ms from 10ms to 40950ms"),
    };
    let steps = rounded(at.value, step);
    let exact = step.checked_mul(steps) == Some(at.value);
    let centis = u128::from(steps) * step.as_millis() / 10;
    let interval = u16::try_from(centis).ok().and_then(|centis| Interval::new(version, centis));
    let number = match version {
        Version::V2 => 2,
        Version::V3 => 3,
    };
    match (interval, exact, dialect) {
        (Some(interval), true, _) => interval,
        (Some(interval), false, Dialect::Keepalived) => {
            let used = crate::duration::spell(interval.as_duration());
            let text =
                format!("interval rounded to {used}, as keepalived does in VRRP version {number}");
            report.warning(at.span, "interval-rounded", text);
            interval
        }
        (Some(_), false, Dialect::Toml) | (None, _, _) => {
            let text = format!("VRRP version {number} cannot carry this interval");
            report.error(at.span, "interval-range", text).help(format!("use {range}"));
            Interval::DEFAULT
        }
    }
}

/// Nearest number of steps, at least 1.
fn rounded(value: Duration, step: Duration) -> u32 {
    let steps = (value + step / 2).as_nanos() / step.as_nanos().max(1);
    u32::try_from(steps).unwrap_or(u32::MAX).max(1)
}

/// Version 2 alone has passwords. keepalived ignores one in version 3, and says so.
fn auth(wish: &InstanceWish, version: Version, dialect: Dialect, report: &mut Report) -> Auth {
    let Some(at) = &wish.auth else { return Auth::None };
    match (version, dialect) {
        (Version::V2, _) => return at.value.clone(),
        (Version::V3, Dialect::Keepalived) => {
            report.warning(
                at.span,
                "auth-version",
                "VRRP version 3 has no authentication, so this one is ignored",
            );
        }
        (Version::V3, Dialect::Toml) => {
            report
                .error(at.span, "auth-version", "VRRP version 3 has no authentication")
                .help("remove `auth`, or set `version = 2` if the peers use it");
        }
    }
    Auth::None
}

fn transport(wish: &InstanceWish, default: Transport) -> Transport {
    match (&wish.unicast, &wish.group) {
        (Some(unicast), _) => unicast_transport(unicast, wish),
        (None, Some(group)) => Transport::Multicast { group: group.value },
        (None, None) => default,
    }
}

/// V-331: the source is checked unless the profile is the tolerant one.
fn unicast_transport(unicast: &UnicastWish, wish: &InstanceWish) -> Transport {
    let peers = unicast.peers.value().map_or(&[][..], Vec::as_slice);
    let strict =
        wish.profile.as_ref().is_some_and(|profile| profile.value == locum_vrrp::Profile::Strict);
    Transport::Unicast {
        peers: peers.iter().map(|at| at.value.clone()).collect(),
        ttl: or(&unicast.ttl, defaults::UNICAST_TTL),
        check_source: or(&unicast.check_source, strict),
    }
}

/// What follows a lower-priority master is the first burst again, unless said otherwise.
fn announce(wish: &AnnounceWish) -> AnnounceSettings {
    let base = AnnounceSettings::default();
    let repeat = or(&wish.repeat, base.repeat);
    let delay = or(&wish.delay, base.delay);
    AnnounceSettings {
        repeat,
        delay,
        refresh: or(&wish.refresh, base.refresh),
        refresh_repeat: or(&wish.refresh_repeat, base.refresh_repeat),
        lower_priority_repeat: or(&wish.lower_priority_repeat, repeat),
        lower_priority_delay: or(&wish.lower_priority_delay, delay),
        garp_interval: or(&wish.garp_interval, base.garp_interval),
        gna_interval: or(&wish.gna_interval, base.gna_interval),
    }
}

fn hooks(wish: &HooksWish) -> Hooks {
    let commands = |list: &[At<locum_plan::Command>]| {
        list.iter().map(|at| at.value.clone()).collect::<Vec<_>>()
    };
    Hooks {
        master: commands(&wish.master),
        backup: commands(&wish.backup),
        fault: commands(&wish.fault),
        stop: commands(&wish.stop),
        any: commands(&wish.any),
    }
}

fn check(wish: &CheckWish, dialect: Dialect, report: &mut Report) -> Check {
    if wish.probe.is_absent() {
        let text = format!("check `{}` does not say what to run", wish.name.value);
        let finding = report.error(wish.span, "missing-key", text);
        match dialect {
            Dialect::Toml => finding.help("add `process`, `script`, `shell`, `tcp` or `http`"),
            Dialect::Keepalived => finding.help("add `script`"),
        };
    }
    let interval = or(&wish.interval, defaults::CHECK_INTERVAL);
    let stand_in = ProbeKind::Process { name: String::new() };
    Check {
        name: Name::from(wish.name.value.as_str()),
        probe: Probe {
            kind: wish.probe.value().cloned().unwrap_or(stand_in),
            interval,
            timeout: or(&wish.timeout, defaults::check_timeout(dialect, interval)),
        },
        rise: or(&wish.rise, defaults::check_rise(dialect)),
        fall: or(&wish.fall, defaults::check_fall(dialect)),
        weight: or(&wish.weight, defaults::CHECK_WEIGHT),
        starts_failed: or(&wish.starts_failed, false),
    }
}

fn service(
    wish: &ServiceWish,
    dialect: Dialect,
    instances: &[Instance],
    report: &mut Report,
) -> Service {
    let name = &wish.name.value;
    if wish.listen.is_absent() {
        missing(report, wish.span, "listen", &format!("service `{name}`"));
    }
    let stand_in = SocketAddr::from(([0, 0, 0, 0], 0));
    let listen = wish.listen.value().copied().unwrap_or(stand_in);
    let servers = wish.servers.value().map_or(&[][..], Vec::as_slice);
    Service {
        name: Name::from(name.as_str()),
        instance: owner(wish, dialect, instances, report),
        listen,
        protocol: or(&wish.protocol, defaults::PROTOCOL),
        backend: or(&wish.backend, defaults::BACKEND),
        scheduler: Scheduler(or(&wish.scheduler, defaults::SCHEDULER.to_owned())),
        forwarding: or(&wish.forwarding, defaults::FORWARDING),
        health: wish.health.as_ref().map(|wish| health(wish, dialect)),
        failed: or(&wish.failed, Default::default()),
        standby: or(&wish.standby, Default::default()),
        drain: or(&wish.drain, defaults::DRAIN),
        servers: servers
            .iter()
            .map(|server| Server {
                address: SocketAddr::new(
                    server.address.value,
                    server.port.unwrap_or(listen.port()),
                ),
                weight: or(&server.weight, defaults::SERVER_WEIGHT),
            })
            .collect(),
    }
}

/// The instance whose master serves: the one named, else the one that has the listen address.
/// keepalived ties no service to an instance: its virtual servers are programmed on every node.
fn owner(
    wish: &ServiceWish,
    dialect: Dialect,
    instances: &[Instance],
    report: &mut Report,
) -> Option<Name> {
    let serve = wish.serve.as_ref().map(|at| at.value);
    match (dialect, serve, &wish.instance, wish.listen.value()) {
        (Dialect::Keepalived, _, _, _) | (Dialect::Toml, Some(Serve::Always), None, _) => None,
        (Dialect::Toml, Some(Serve::Always), Some(named), _) => {
            report
                .error(named.span, "serve-conflict", "`serve = \"always\"` goes with no instance")
                .help("remove `instance`, or `serve`");
            None
        }
        (Dialect::Toml, _, Some(named), _) => Some(Name::from(named.value.as_str())),
        (Dialect::Toml, _, None, None) => None,
        (Dialect::Toml, _, None, Some(listen)) => {
            let found = holder(instances, listen.ip());
            if found.is_none() {
                let text = format!("no instance has the address {}", listen.ip());
                let span = wish.listen.given().map_or(wish.span, |at| at.span);
                report.error(span, "service-without-instance", text).help(
                    "name the `instance` that serves it, or set `serve = \"always\"` for every node",
                );
            }
            found
        }
    }
}

fn holder(instances: &[Instance], address: IpAddr) -> Option<Name> {
    instances
        .iter()
        .find(|instance| instance.addresses.iter().any(|held| held.address == address))
        .map(|instance| instance.name.clone())
}

fn health(wish: &HealthWish, dialect: Dialect) -> Health {
    let interval = or(&wish.interval, defaults::health_interval(dialect));
    Health {
        kind: wish.kind.value.clone(),
        interval,
        timeout: or(&wish.timeout, defaults::health_timeout(dialect, interval)),
        rise: or(&wish.rise, defaults::health_rise(dialect)),
        fall: or(&wish.fall, defaults::health_fall(dialect)),
        port: wish.port.as_ref().map(|at| at.value),
    }
}

fn haproxy(wish: &HaproxyWish, report: &mut Report) -> HaproxyFile {
    let name = &wish.name.value;
    if let Field::Absent = wish.config {
        missing(report, wish.name.span, "config", &format!("haproxy `{name}`"));
    }
    HaproxyFile {
        name: Name::from(name.as_str()),
        instance: wish.instance.as_ref().map(|at| Name::from(at.value.as_str())),
        config: wish.config.value().cloned().unwrap_or_default(),
        program: or(&wish.program, PathBuf::from(defaults::HAPROXY_PROGRAM)),
        standby: or(&wish.standby, Default::default()),
    }
}
