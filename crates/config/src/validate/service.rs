//! Rules of one service: what serves it and how a server is chosen.

use std::time::Duration;

use locum_plan::{
    BackendChoice, BackendKind, Capabilities, Lack, Listener, Plan, Protocol, Service, Standby,
};
use locum_vrrp::Family;

use crate::dialect::Dialect;
use crate::need::NeedKind;
use crate::parsed::{ParsedHealth, ParsedService};
use crate::settings::health::{HEALTH_INTERVAL, LocalCheck};
use crate::span::Report;
use crate::validate::common::{
    command_needs, known_instance, question_needs, strict_in_toml, timing,
};
use crate::validate::servers::is_reached;
use crate::validate::{http, listen, quorum, servers};

/// Octets of a scheduler name in the kernel: IP_VS_SCHEDNAME_MAXLEN less its final zero.
const MAX_SCHEDULER: usize = 15;

pub(super) fn validate(
    parsed: &ParsedService,
    built: &Service,
    plan: &Plan,
    dialect: Dialect,
    report: &mut Report,
) {
    known_instance(&parsed.instance, plan.instances.iter().map(|i| &*i.name), report);
    listen::validate(parsed, built, plan, dialect, report);
    backend(parsed, built, report);
    scheduler(parsed, built, report);
    scheduler_flags(parsed, built, report);
    persistence(parsed, built, dialect, report);
    one_packet(parsed, built, report);
    slow_start(parsed, built, report);
    let own = parsed.servers.list().iter().flat_map(|server| server.value.health.list());
    for check in parsed.health.list().iter().chain(own) {
        health(&check.value, built.protocol, dialect, report);
    }
    servers::validate(parsed, built, plan, dialect, report);
    quorum::validate(parsed, built, dialect, report);
    http::validate(parsed, built, report);
}

/// What a backend cannot do must not be asked of it, and what it needs must be on the host.
fn backend(parsed: &ParsedService, built: &Service, report: &mut Report) {
    let span = parsed.backend.given().map_or(parsed.span, |at| at.span);
    let lacks: Vec<(&Capabilities, Lack)> = built
        .backend
        .allowed()
        .filter_map(|backend| Some((backend, backend.lack(built)?)))
        .collect();
    if lacks.len() == built.backend.allowed().count() && !has_own_line(parsed, built, &lacks) {
        let each: Vec<String> =
            lacks.iter().map(|(backend, lack)| backend.explain(*lack, built)).collect();
        let finding = report.error(span, "backend-cannot", each.join(", and "));
        let mut all = BackendKind::ALL.into_iter().map(BackendKind::capabilities);
        let other = all.find(|other| other.lack(built).is_none());
        match (other, built.backend) {
            (Some(other), _) if !BackendKind::AUTOMATIC.contains(&other.kind) => {
                finding.help(format!("set the backend to \"{}\"", other.name))
            }
            (Some(other), _) => {
                finding.help(format!("set the backend to \"{}\", or leave it out", other.name))
            }
            (None, BackendChoice::Only(_)) => finding.help("no other backend can either"),
            (None, BackendChoice::Auto) => finding,
        };
    }
    if let (Some(standby), BackendChoice::Only(kind)) = (parsed.standby.given(), built.backend)
        && standby.value == Standby::Warm
        && !kind.capabilities().has_warm_standby
    {
        let title = kind.capabilities().title;
        let text =
            format!("a warm standby is the proxy's or HAProxy's: {title} has nothing to keep warm");
        report.warning(standby.span, "standby-ipvs", text);
    }
    if built.backend == BackendChoice::Only(BackendKind::Haproxy) {
        report.need(span, NeedKind::Program("haproxy".to_owned()));
    }
    time_outs(parsed, built, report);
}

/// Only a backend that has the connections can end them, and only where there are some.
fn time_outs(parsed: &ParsedService, built: &Service, report: &mut Report) {
    let able = built.backend.candidates(built).into_iter().map(BackendKind::capabilities);
    let able: Vec<&Capabilities> = able.collect();
    // What none can serve is complained of elsewhere: whatever was meant is taken for granted.
    let backends = if able.is_empty() { built.backend.allowed().collect() } else { able };
    let ends_some = backends.iter().any(|backend| backend.limits_connections);
    let limits = &parsed.limits;
    let given = [
        ("drain", &parsed.drain, false),
        ("queue_timeout", &limits.queue, true),
        ("connect_timeout", &limits.connect, true),
        ("idle_timeout", &limits.idle, false),
        ("half_closed_timeout", &limits.half_closed, true),
    ];
    for (key, time, is_of_connections) in given {
        let Some(at) = time.given() else { continue };
        let text = if !ends_some {
            let titles: Vec<&str> = backends.iter().map(|backend| backend.title).collect();
            let titles = titles.join(" or ");
            format!("`{key}` is the proxy's or HAProxy's, and {titles} serves this service")
        } else if is_of_connections && built.protocol == Protocol::Udp {
            format!("`{key}` is for connections, and UDP has none")
        } else if key == "queue_timeout" && !bounds_servers(built) {
            format!("`{key}` is for clients that wait, and {NOBODY_WAITS}")
        } else {
            continue;
        };
        report.warning(at.span, "without-effect", text).help("leave it out");
    }
    if let Some(at) = limits.waiting.given()
        && ends_some
        && (built.protocol == Protocol::Udp || !bounds_servers(built))
    {
        let why = match built.protocol {
            Protocol::Udp => "clients of UDP do not wait",
            Protocol::Tcp | Protocol::Sctp => NOBODY_WAITS,
        };
        let text = format!("`max_waiting` is for clients that wait, and {why}");
        report.warning(at.span, "without-effect", text).help("leave it out");
    }
}

const NOBODY_WAITS: &str = "they wait only where servers have a most of connections \
    (`max_connections` of the server, `max_connections_per_server`)";

fn bounds_servers(built: &Service) -> bool {
    built.limits.per_server.is_some() || built.reached().any(|one| one.bounds.max.is_some())
}

/// What no backend can do is complained about where it is asked: at the scheduler, or at a server.
fn has_own_line(parsed: &ParsedService, built: &Service, lacks: &[(&Capabilities, Lack)]) -> bool {
    let is_of_scheduler = lacks.iter().all(|(_, lack)| *lack == Lack::Scheduler)
        && parsed.scheduler.given().is_some();
    let has_no_port = |port| port == 0 && built.listen.is_empty();
    let is_of_server = built
        .reached()
        .any(|server| !is_reached(built, &server) || has_no_port(server.address.port()));
    // Of what family is a service that listens nowhere?
    is_of_scheduler
        || is_of_server
        || !built.listen.is_empty()
            && parsed.listen.given().is_none()
            && parsed.fwmark.given().is_none()
}

fn scheduler(parsed: &ParsedService, built: &Service, report: &mut Report) {
    let Some(at) = parsed.scheduler.given() else { return };
    let name = at.value.as_str();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_SCHEDULER || !name.chars().all(word) {
        let text = format!("a scheduler name has 1 to {MAX_SCHEDULER} letters and digits");
        report.error(at.span, "bad-scheduler", text);
    } else if built.backend.allowed().all(|backend| !backend.schedules(name)) {
        let text = match built.backend {
            BackendChoice::Only(kind) => {
                format!("{} has no scheduler `{name}`", kind.capabilities().title)
            }
            BackendChoice::Auto => format!("no backend has a scheduler `{name}`"),
        };
        let mut known: Vec<&str> = Vec::new();
        for scheduler in built.backend.allowed().flat_map(|backend| backend.schedulers) {
            if !known.contains(scheduler) {
                known.push(scheduler);
            }
        }
        report
            .error(at.span, "backend-scheduler", text)
            .help(format!("use one of {}", known.join(", ")));
    } else if built.backend.allowed().all(|backend| !backend.schedulers.contains(&name)) {
        let known = built.backend.allowed().flat_map(|backend| backend.schedulers).copied();
        let text = format!("`{name}` is not a scheduler that the kernel brings along");
        report.warning(at.span, "unknown-scheduler", text).suggest(name, known);
    }
}

/// A flag is a word, and of this scheduler.
fn scheduler_flags(parsed: &ParsedService, built: &Service, report: &mut Report) {
    const FLAGS: [&str; 7] =
        ["sh-port", "sh-fallback", "mh-port", "mh-fallback", "flag-1", "flag-2", "flag-3"];
    let scheduler = built.scheduler.name.as_str();
    for at in parsed.scheduler_flags.list() {
        let flag = at.value.as_str();
        if !FLAGS.contains(&flag) {
            let text = format!("`{flag}` is not a flag of a scheduler");
            report.error(at.span, "unknown-flag", text).suggest(flag, FLAGS);
        } else if let Some((of, _)) = flag.split_once('-').filter(|(of, _)| *of != "flag")
            && of != scheduler
        {
            let text = format!("`{flag}` is of the scheduler {of}, and this one is {scheduler}");
            report.error(at.span, "misplaced-flag", text);
        } else if !matches!(scheduler, "sh" | "mh") {
            let text = format!("the scheduler {scheduler} has no flags that the kernel knows");
            report.warning(at.span, "without-effect", text);
        }
    }
}

fn persistence(parsed: &ParsedService, built: &Service, dialect: Dialect, report: &mut Report) {
    let every_port = built.listen.iter().any(|one| match one {
        Listener::Address(_) | Listener::Range(_) => one.port().is_none(),
        Listener::Fwmark { .. } => false,
    });
    let is_written = parsed.listen.given().is_some();
    if every_port && is_written && built.persistence.is_none() {
        // I-015: without persistence each port would go to another server.
        let span = parsed.listen.given().map_or(parsed.span, |at| at.span);
        let text = "a service on every port (port 0) needs `persistence`";
        let finding = report.error(span, "port-zero", text);
        finding.help("name a port from 1 to 65535, or keep clients on their server");
    }
    let Some(at) = parsed.persistence.given() else { return };
    if let Some(timeout) = at.value.timeout.given() {
        let rest = timeout.value.subsec_nanos();
        if timeout.value.is_zero() || rest > 0 || timeout.value.as_secs() > MAX_PERSISTENCE {
            let text = "clients are kept for whole seconds, from 1 s to 30 days";
            report.error(timeout.span, "out-of-range", text);
        }
    }
    if let Some(prefix) = at.value.granularity.given()
        && prefix.value > 32
        && !built.listen.is_empty()
        && built.listen.iter().all(|one| one.family() == Family::V4)
    {
        let text = "an address of the service's family has a prefix of 1 to 32";
        report.error(prefix.span, "out-of-range", text);
    }
    if let Some(engine) = at.value.engine.given()
        && built.protocol != Protocol::Udp
    {
        // The engine looks into datagrams alone.
        let text = format!("the persistence engine `{}` is for UDP", engine.value);
        strict_in_toml(dialect, engine.span, "persistence-engine", text, report);
    }
}

/// Thirty days: far above any visit, far below what the kernel's timer can hold.
const MAX_PERSISTENCE: u64 = 30 * 24 * 3600;

fn one_packet(parsed: &ParsedService, built: &Service, report: &mut Report) {
    if let Some(at) = parsed.one_packet.given()
        && at.value
        && built.protocol != Protocol::Udp
        && !built.listen.iter().any(|one| matches!(one, Listener::Fwmark { .. }))
    {
        let text = "a server for each packet is for UDP: a connection has many";
        report.error(at.span, "one-packet", text);
    }
}

fn slow_start(parsed: &ParsedService, built: &Service, report: &mut Report) {
    let Some(at) = parsed.slow_start.given().filter(|at| !at.value.is_zero()) else { return };
    let scheduler = &built.scheduler.name;
    if !built.scheduler.is_weighted() {
        let text = format!("`slow_start` has no effect: {scheduler} looks at no weights");
        report.warning(at.span, "without-effect", text).help("use \"wrr\" or \"wlc\"");
    }
    if built.servers.iter().all(|server| server.health.is_empty()) {
        let text = "`slow_start` has no effect: no server is checked, so none ever comes up";
        report.warning(at.span, "without-effect", text);
    }
    if at.value > MAX_SLOW_START {
        report.error(at.span, "out-of-range", "a server has its weight after a day at most");
    }
}

const MAX_SLOW_START: Duration = Duration::from_secs(24 * 3600);

fn health(parsed: &ParsedHealth, protocol: Protocol, dialect: Dialect, report: &mut Report) {
    // keepalived asks the server's port whatever the service speaks: DNS answers on both.
    if let Some(question) = parsed.question.given()
        && dialect == Dialect::Toml
        && let Some(carrier) = question.value.protocol()
        && carrier != protocol
        && parsed.port.is_absent()
    {
        let (title, asked) = (question.value.title(), carrier.title());
        let text =
            format!("{title} check asks a {asked} port, and this service is {}", protocol.title());
        report.error(question.span, "health-protocol", text).help(format!(
            "give the check a `port` of its own on which the server answers {asked}"
        ));
    }
    question_needs(&parsed.asked, report);
    if let Some(at) = parsed.local.given()
        && let LocalCheck::Script { command, .. } = &at.value
    {
        command_needs(command, at.span, report);
    }
    let in_force = HEALTH_INTERVAL.of(parsed, dialect);
    timing(&parsed.interval, &parsed.timeout, in_force, report);
}
