//! What was parsed, plus defaults, becomes a plan. One setting at a time; rules between settings are
//! `validate`'s.

pub(crate) mod fitness;
mod health;
mod http;
mod ipvs;
pub(crate) mod service;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_vrrp::{
    AnnounceSettings, Auth, ChecksumForm, ChecksumMode, Family, Interval, Priority, Profile,
    RouterSettings, Transport, UnicastPeer, Version, Vrid,
};

use crate::dialect::Dialect;
use crate::interned::Interned;
use crate::parsed::{
    Field, Parsed, ParsedAnnounce, ParsedCheck, ParsedHaproxy, ParsedHooks, ParsedInstance,
    ParsedUnicast,
};
use crate::settings::{check as of_check, instance as of_instance, node, transport as unicast};
use crate::span::{At, Report, Span};
use crate::values;
use locum_plan::{
    Check, Checker, Command, HaproxyFile, HookSettings, Hooks, HttpTarget, Instance, Name, Plan,
    Probe, Service, Unrunnable, VirtualAddress,
};

/// The plan of what was parsed, entry by entry in the same order. Where something is unusable the
/// report has an error and the plan a stand-in: such a plan is looked at, never returned.
pub(crate) fn assemble(parsed: &Parsed, digest: String, report: &mut Report) -> Plan {
    let dialect = parsed.dialect;
    let mut interned = Interned::default();
    let instances = parsed.instances.iter();
    let instances: Vec<Instance> =
        instances.map(|parsed| instance(parsed, dialect, report)).collect();
    let checks: Vec<Check> =
        parsed.checks.iter().map(|parsed| check(parsed, dialect, report)).collect();
    let services = parsed.services.iter();
    let services: Vec<Service> =
        services.map(|parsed| service::service(parsed, dialect, &instances, report)).collect();
    let haproxy: Vec<HaproxyFile> =
        parsed.haproxy.iter().map(|parsed| haproxy(parsed, dialect, report)).collect();
    let ipvs = Arc::new(ipvs::settings(&parsed.ipvs, &instances, dialect, report));
    let with_fitness = |(parsed, mut built): (&ParsedInstance, Instance)| {
        let served = fitness::served(parsed, &services, &haproxy, dialect);
        built.fitness = fitness::policy(parsed, &built, &checks, served);
        interned.share(built)
    };
    let instances = parsed.instances.iter().zip(instances).map(with_fitness).collect();
    Plan {
        node: parsed.node.clone(),
        nodes: parsed.nodes.clone(),
        instances,
        checks,
        services,
        haproxy,
        ipvs,
        hooks: HookSettings { timeout: node::HOOK_TIMEOUT.of(&parsed.hooks, dialect) },
        digest,
    }
}

/// Unicast peers and sources from the addresses of the nodes, where the file does not name them.
pub(crate) fn fill_from_nodes(parsed: &mut Parsed) {
    if !parsed.is_node_known {
        return;
    }
    for instance in &mut parsed.instances {
        if let Some(span) = instance.unicast.span {
            let family = family(instance);
            let of_family = |address: &IpAddr| Family::of(address) == family;
            let (own, others): (Vec<_>, Vec<_>) =
                parsed.nodes.iter().partition(|node| node.name == parsed.node);
            let own = own.iter().find_map(|node| node.address).filter(of_family);
            let others = others.iter().filter_map(|node| node.address).filter(of_family).collect();
            peers_and_source(instance, span, own, others);
        }
    }
}

/// The list of peers may be the same on all nodes: this node's own address is taken out of it.
fn peers_and_source(
    instance: &mut ParsedInstance,
    span: Span,
    own: Option<IpAddr>,
    others: Vec<IpAddr>,
) {
    match &mut instance.unicast.peers {
        Field::Given(peers) => {
            let listed = peers.value.len();
            peers.value.retain(|peer| Some(peer.value.address) != own);
            if peers.value.len() == listed {
                return;
            }
        }
        Field::Absent if others.is_empty() => return,
        Field::Absent => {
            let peer = |address| At::new(UnicastPeer { address, ttl: None }, span);
            let peers = others.into_iter().map(peer).collect();
            instance.unicast.peers = Field::Given(At::new(peers, span));
        }
        Field::Bad => {}
    }
    if let (Field::Absent, Some(own)) = (&instance.source, own) {
        instance.source = Field::Given(At::new(own, span));
    }
}

fn instance(parsed: &ParsedInstance, dialect: Dialect, report: &mut Report) -> Instance {
    let name = &parsed.name.value;
    if parsed.interface.is_absent() {
        missing(report, parsed.span, "interface", &format!("instance `{name}`"));
    }
    if parsed.vrid.is_absent() {
        let key = match dialect {
            Dialect::Toml => "vrid",
            Dialect::Keepalived => "virtual_router_id",
        };
        missing(report, parsed.span, key, &format!("instance `{name}`"));
    }
    let advertised = parsed.addresses.list();
    let all = advertised.iter().chain(parsed.excluded.list());
    let track = parsed.track.list().iter().map(|at| &at.value);
    Instance {
        name: Name::from(name.as_str()),
        interface: Name::from(parsed.interface.value().map_or("", String::as_str)),
        router: Arc::new(router(parsed, advertised, dialect, report)),
        addresses: all.map(|at| at.value.clone()).collect(),
        track: track.filter(|track| !fitness::is_followed(track)).cloned().collect(),
        fitness: None,
        hooks: Arc::new(hooks(&parsed.hooks)),
        lease: of_instance::LEASE.of(parsed, dialect),
        keep_connections: of_instance::KEEP_CONNECTIONS.of(parsed, dialect),
    }
}

fn missing(report: &mut Report, span: Span, key: &str, of: &str) {
    report.error(span, "missing-key", format!("{of} has no `{key}`"));
}

/// The family of an instance: what its addresses say, else what the file says, else IPv4.
pub(crate) fn family(parsed: &ParsedInstance) -> Family {
    let first = parsed.addresses.list().first();
    let peer = parsed.unicast.span.and_then(|_| parsed.unicast.peers.list().first());
    first
        .map(|at| Family::of(&at.value.address))
        .or(parsed.family.value().copied())
        .or(parsed.source.value().map(Family::of))
        .or(peer.map(|peer| Family::of(&peer.value.address)))
        .unwrap_or(Family::V4)
}

fn router(
    parsed: &ParsedInstance,
    advertised: &[At<VirtualAddress>],
    dialect: Dialect,
    report: &mut Report,
) -> RouterSettings {
    let family = family(parsed);
    let version = match (parsed.version.value(), family) {
        (Some(version), _) => *version,
        (None, Family::V6) => Version::V3,
        (None, Family::V4) => of_instance::VERSION.of(parsed, dialect),
    };
    // INVARIANT: 1 is a VRID; it stands in only beside an error.
    let stand_in = Vrid::new(1).expect("1 is not 0");
    let vrid = parsed.vrid.value().copied().unwrap_or(stand_in);
    let base = RouterSettings::new(vrid, family, version);
    RouterSettings {
        profile: of_instance::PROFILE.of(parsed, dialect),
        priority: Priority(of_instance::PRIORITY.of(parsed, dialect)),
        interval: interval(parsed, version, dialect, report),
        preempt: of_instance::PREEMPT.of(parsed, dialect),
        addresses: advertised.iter().map(|at| at.value.address).collect(),
        auth: auth(parsed, version, dialect, report),
        transport: transport(parsed, base.transport.clone(), dialect),
        source: parsed.source.value().copied(),
        checksum: checksum(parsed, dialect, report),
        down_multiplier: of_instance::DOWN_MULTIPLIER.of(parsed, dialect),
        announce: Arc::new(announce(&parsed.announce, dialect)),
        answer_lower: of_instance::ANSWER_LOWER.of(parsed, dialect),
        answer_higher: of_instance::ANSWER_HIGHER.of(parsed, dialect),
        owner_ignores_adverts: of_instance::OWNER_IGNORES_ADVERTS.of(parsed, dialect),
        start_delay: of_instance::START_DELAY.of(parsed, dialect),
        ..base
    }
}

/// V-043: strict in our own files means the form of RFC 9568. A keepalived.conf keeps to its peers:
/// a keepalived in strict mode sends and understands the other form only.
fn checksum(parsed: &ParsedInstance, dialect: Dialect, report: &mut Report) -> ChecksumMode {
    let is_strict = of_instance::PROFILE.of(parsed, dialect) == Profile::Strict;
    if dialect == Dialect::Keepalived || !is_strict {
        return of_instance::CHECKSUM.of(parsed, dialect);
    }
    let forced = ChecksumMode::Pinned(ChecksumForm::Message);
    if let Some(at) = parsed.checksum.given().filter(|at| at.value != forced) {
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
    parsed: &ParsedInstance,
    version: Version,
    dialect: Dialect,
    report: &mut Report,
) -> Interval {
    let Some(at) = parsed.interval.given() else { return Interval::DEFAULT };
    let (step, range) = match (version, dialect) {
        (Version::V2, Dialect::Toml) => (SECOND, "whole seconds from 1s to 255s"),
        (Version::V2, Dialect::Keepalived) => (SECOND, "whole seconds from 1 to 255"),
        (Version::V3, Dialect::Toml) => (CENTISECOND, "multiples of 10ms from 10ms to 40950ms"),
        (Version::V3, Dialect::Keepalived) => (CENTISECOND, "seconds from 0.01 to 40.95"),
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

const SECOND: Duration = Duration::from_secs(1);
const CENTISECOND: Duration = Duration::from_millis(10);

/// Nearest number of steps, at least 1.
fn rounded(value: Duration, step: Duration) -> u32 {
    let steps = (value + step / 2).as_nanos() / step.as_nanos().max(1);
    u32::try_from(steps).unwrap_or(u32::MAX).max(1)
}

/// V-021: eight octets, padded with zeros. What does not fit is cut, as keepalived cuts it; in the
/// strict profile of our own files it is an error. Version 2 alone has passwords.
fn auth(parsed: &ParsedInstance, version: Version, dialect: Dialect, report: &mut Report) -> Auth {
    let Some(span) = parsed.auth.span else { return Auth::None };
    let absent =
        [("type", parsed.auth.simple.is_absent()), ("password", parsed.auth.password.is_absent())];
    for (field, _) in absent.into_iter().filter(|(_, is_absent)| *is_absent) {
        let text = format!("the authentication has no `{field}`");
        report.error(span, "missing-key", text);
    }
    let Some(password) = parsed.auth.password.given() else { return Auth::None };
    if password.value.is_empty() {
        report.error(password.span, "bad-password", "the password is empty");
        return Auth::None;
    }
    if password.value.len() > values::MAX_PASSWORD {
        let most = values::MAX_PASSWORD;
        let text = format!("a password has at most {most} octets on the wire");
        match (dialect, of_instance::PROFILE.of(parsed, dialect)) {
            (Dialect::Toml, Profile::Strict) => {
                report.error(password.span, "password-too-long", text);
            }
            (Dialect::Toml, Profile::Interop) => {
                report
                    .warning(password.span, "password-too-long", text)
                    .help("the rest is cut off, as keepalived does");
            }
            (Dialect::Keepalived, _) => {
                let text = format!("auth_pass is cut to {most} octets, as in keepalived");
                report.warning(password.span, "password-too-long", text);
            }
        }
    }
    if version == Version::V3 {
        report
            .error(span, "auth-version", "VRRP version 3 has no authentication")
            .help("remove `auth`, or set `version = 2` if the peers use it");
        return Auth::None;
    }
    values::password(&password.value)
}

fn transport(parsed: &ParsedInstance, default: Transport, dialect: Dialect) -> Transport {
    match (parsed.unicast.span, parsed.group.value()) {
        (Some(_), _) => {
            let is_strict = of_instance::PROFILE.of(parsed, dialect) == Profile::Strict;
            unicast_transport(&parsed.unicast, dialect, is_strict)
        }
        (None, Some(group)) => Transport::Multicast { group: *group },
        (None, None) => default,
    }
}

/// V-331.
fn unicast_transport(parsed: &ParsedUnicast, dialect: Dialect, is_strict: bool) -> Transport {
    let accepted = parsed.accepted_ttl(dialect);
    let peer = |at: &At<UnicastPeer>| UnicastPeer { ttl: at.value.ttl.or(accepted), ..at.value };
    let checks_source = ParsedUnicast::checks_source_by_default(dialect, is_strict);
    Transport::Unicast {
        peers: parsed.peers.list().iter().map(peer).collect(),
        ttl: unicast::TTL.of(parsed, dialect),
        check_source: parsed.check_source.value().copied().unwrap_or(checks_source),
    }
}

/// What follows a lower-priority master is the first burst again, unless said otherwise.
fn announce(parsed: &ParsedAnnounce, dialect: Dialect) -> AnnounceSettings {
    let repeat = of_instance::REPEAT.of(parsed, dialect);
    let delay = of_instance::DELAY.of(parsed, dialect);
    AnnounceSettings {
        repeat,
        delay,
        refresh: of_instance::REFRESH.of(parsed, dialect),
        refresh_repeat: of_instance::REFRESH_REPEAT.of(parsed, dialect),
        lower_priority_repeat: parsed.lower_priority_repeat.value().copied().unwrap_or(repeat),
        lower_priority_delay: parsed.lower_priority_delay.value().copied().unwrap_or(delay),
        garp_interval: of_instance::GARP_INTERVAL.of(parsed, dialect),
        gna_interval: of_instance::GNA_INTERVAL.of(parsed, dialect),
    }
}

fn hooks(parsed: &ParsedHooks) -> Hooks {
    Hooks {
        master: commands(&parsed.master),
        backup: commands(&parsed.backup),
        fault: commands(&parsed.fault),
        stop: commands(&parsed.stop),
        any: commands(&parsed.any),
    }
}

fn commands(list: &Field<Vec<At<Command>>>) -> Vec<Command> {
    list.list().iter().map(|at| at.value.clone()).collect()
}

fn check(parsed: &ParsedCheck, dialect: Dialect, report: &mut Report) -> Check {
    if parsed.checker.is_absent() {
        let text = format!("check `{}` does not say what to run", parsed.name.value);
        let finding = report.error(parsed.span, "missing-key", text);
        match dialect {
            Dialect::Toml => finding.help(
                "add `process`, `script`, `shell`, `tcp` or `http`, or `address` and what to ask there",
            ),
            Dialect::Keepalived => finding.help("add `script`"),
        };
    }
    let stand_in = Checker::Process { name: String::new() };
    let fall = of_check::FALL.of(parsed, dialect);
    Check {
        name: Name::from(parsed.name.value.as_str()),
        probe: Probe {
            kind: parsed.checker.value().cloned().unwrap_or(stand_in),
            interval: of_check::INTERVAL.of(parsed, dialect),
            timeout: parsed.timeout(dialect),
            retry: health::retry(&parsed.asked.question, fall),
            warm_up: parsed.asked.question.warm_up.value().copied().unwrap_or_default(),
        },
        rise: of_check::RISE.of(parsed, dialect),
        fall,
        weight: of_check::WEIGHT.of(parsed, dialect),
        starts_failed: of_check::STARTS_FAILED.of(parsed, dialect),
        unrunnable: match dialect {
            Dialect::Toml => Unrunnable::Fails,
            Dialect::Keepalived => Unrunnable::LeftOut,
        },
    }
}

fn haproxy(parsed: &ParsedHaproxy, dialect: Dialect, report: &mut Report) -> HaproxyFile {
    let name = &parsed.name.value;
    if parsed.config.is_absent() {
        missing(report, parsed.name.span, "config", &format!("haproxy `{name}`"));
    }
    HaproxyFile {
        name: Name::from(name.as_str()),
        instance: parsed.instance.value().map(|name| Name::from(name.as_str())),
        config: parsed.config.value().cloned().unwrap_or_default(),
        program: node::HAPROXY_PROGRAM.of(parsed, dialect),
        standby: node::HAPROXY_STANDBY.of(parsed, dialect),
        answer: parsed.answer.value().map(|url| HttpTarget {
            address: url.target,
            host: url.host.clone(),
            path: url.path.clone(),
        }),
    }
}
