//! Rules of one service, and between services of one node.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};

use crate::dialect::Dialect;
use crate::parsed::{Parsed, ParsedHealth, ParsedService};
use crate::settings::health::HEALTH_INTERVAL;
use crate::span::{Report, Span};
use crate::validate::common::{known_instance, strict_in_toml};
use crate::validate::loops::way_back;
use locum_plan::{
    Backend, BackendKind, Capabilities, Forwarding, Lack, Listener, Plan, Protocol, Server,
    Service, Standby,
};

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
    listen(parsed, built, plan, dialect, report);
    backend(parsed, built, report);
    scheduler(parsed, built, report);
    let own = parsed.servers.list().iter().flat_map(|server| server.value.health.list());
    for check in parsed.health.list().iter().chain(own) {
        health(&check.value, built.protocol, dialect, report);
    }
    servers(parsed, built, plan, dialect, report);
}

fn listen(
    parsed: &ParsedService,
    built: &Service,
    plan: &Plan,
    dialect: Dialect,
    report: &mut Report,
) {
    let Some(at) = parsed.listen.given() else { return };
    if at.value.port() == 0 {
        report.error(at.span, "port-zero", "a service listens on a port from 1 to 65535");
    }
    if at.value.ip().is_multicast() {
        report.error(at.span, "bad-listen", "a service listens on a unicast address");
    }
    if at.value.ip().is_unspecified() && !always(built, |backend| backend.listens_on_any) {
        report
            .error(at.span, "bad-listen", "only the built-in proxy listens on every address")
            .help(match dialect {
                Dialect::Toml => "name the virtual address, or set the backend to \"proxy\"",
                Dialect::Keepalived => "name the virtual address",
            });
    }
    let Some(name) = &built.instance else { return };
    let Some(instance) = plan.instances.iter().find(|instance| instance.name == *name) else {
        return;
    };
    let address = at.value.ip();
    if !address.is_unspecified() && instance.addresses.iter().all(|held| held.address != address) {
        let text = format!("{address} is not an address of instance `{name}`");
        report
            .warning(at.span, "listen-elsewhere", text)
            .help("the service is served while that instance is master, wherever the address is");
    }
}

/// The backends that the operator leaves the choice between.
fn allowed(backend: Backend) -> impl Iterator<Item = &'static Capabilities> {
    let is_allowed = move |kind: &BackendKind| match backend {
        Backend::Auto => true,
        Backend::Only(only) => *kind == only,
    };
    BackendKind::ALL.into_iter().filter(is_allowed).map(BackendKind::capabilities)
}

/// Whether it holds of the backend, whichever it will be.
fn always(built: &Service, holds: impl Fn(&Capabilities) -> bool) -> bool {
    let mut candidates = built.backend.candidates(built).into_iter();
    candidates.all(|kind| holds(kind.capabilities()))
}

/// What a backend cannot do must not be asked of it, and what it needs must be on the host.
fn backend(parsed: &ParsedService, built: &Service, report: &mut Report) {
    let span = parsed.backend.given().map_or(parsed.span, |at| at.span);
    let lacks: Vec<(&Capabilities, Lack)> = allowed(built.backend)
        .filter_map(|backend| Some((backend, backend.lack(built)?)))
        .collect();
    if lacks.len() == allowed(built.backend).count() && !has_own_line(parsed, built, &lacks) {
        let each: Vec<String> =
            lacks.iter().map(|(backend, lack)| backend.explain(*lack, built)).collect();
        let finding = report.error(span, "backend-cannot", each.join(", and "));
        if let Some(other) = allowed(Backend::Auto).find(|other| other.lack(built).is_none()) {
            finding.help(format!("set the backend to \"{}\", or leave it out", other.name));
        }
    }
    if let (Some(standby), Backend::Only(kind)) = (parsed.standby.given(), built.backend)
        && standby.value == Standby::Warm
        && !kind.capabilities().has_warm_standby
    {
        let title = kind.capabilities().title;
        let text =
            format!("a warm standby is the built-in proxy's: {title} has nothing to keep warm");
        report.warning(standby.span, "standby-ipvs", text);
    }
    time_outs(parsed, built, report);
}

/// Only a backend that has the connections can end them.
fn time_outs(parsed: &ParsedService, built: &Service, report: &mut Report) {
    let Backend::Only(kind) = built.backend else { return };
    let backend = kind.capabilities();
    if backend.limits_connections {
        return;
    }
    let limits = &parsed.limits;
    let given = [
        ("drain", &parsed.drain),
        ("connect_timeout", &limits.connect),
        ("idle_timeout", &limits.idle),
        ("half_closed_timeout", &limits.half_closed),
    ];
    for (key, time) in given {
        if let Some(at) = time.given() {
            let text =
                format!("`{key}` is the built-in proxy's: {} ends no connection", backend.title);
            report.warning(at.span, "without-effect", text).help("leave it out");
        }
    }
}

/// What no backend can do is complained about where it is asked: at the scheduler, or at a server.
fn has_own_line(parsed: &ParsedService, built: &Service, lacks: &[(&Capabilities, Lack)]) -> bool {
    let is_of_scheduler = lacks.iter().all(|(_, lack)| *lack == Lack::Scheduler)
        && parsed.scheduler.given().is_some();
    let is_of_server = built.servers.iter().any(|server| !is_reached(built, server));
    // Of what family is a service that listens nowhere?
    is_of_scheduler || is_of_server || parsed.listen.given().is_none()
}

/// A server of the other address family needs a backend that crosses.
fn is_reached(built: &Service, server: &Server) -> bool {
    let Listener::Address(listen) = built.listen;
    let crosses = |backend: &Capabilities| {
        backend.protocols.contains(&built.protocol)
            && backend.crosses_families.contains(&server.forwarding)
    };
    server.address.is_ipv4() == listen.is_ipv4() || allowed(built.backend).any(crosses)
}

fn scheduler(parsed: &ParsedService, built: &Service, report: &mut Report) {
    let Some(at) = parsed.scheduler.given() else { return };
    let name = at.value.as_str();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_SCHEDULER || !name.chars().all(word) {
        let text = format!("a scheduler name has 1 to {MAX_SCHEDULER} letters and digits");
        report.error(at.span, "bad-scheduler", text);
    } else if let Backend::Only(kind) = built.backend
        && !kind.capabilities().schedules(name)
    {
        let backend = kind.capabilities();
        report
            .error(
                at.span,
                "backend-scheduler",
                format!("{} has no scheduler `{name}`", backend.title),
            )
            .help(format!("use one of {}", backend.schedulers.join(", ")));
    } else if allowed(built.backend).all(|backend| !backend.schedulers.contains(&name)) {
        let known = allowed(built.backend).flat_map(|backend| backend.schedulers).copied();
        let text = format!("`{name}` is not a scheduler that the kernel brings along");
        report.warning(at.span, "unknown-scheduler", text).suggest(name, known);
    }
}

fn health(parsed: &ParsedHealth, protocol: Protocol, dialect: Dialect, report: &mut Report) {
    // keepalived asks the server's port whatever the service speaks: DNS answers on both.
    if let Some(question) = parsed.question.given()
        && dialect == Dialect::Toml
        && question.value.protocol() != protocol
        && parsed.port.is_absent()
    {
        let (title, asked) = (question.value.title(), question.value.protocol().title());
        let text =
            format!("{title} check asks a {asked} port, and this service is {}", protocol.title());
        report.error(question.span, "health-protocol", text).help(format!(
            "give the check a `port` of its own on which the server answers {asked}"
        ));
    }
    if let Some(interval) = parsed.interval.given().filter(|at| at.value.is_zero()) {
        report.error(interval.span, "zero-interval", "the interval of a check is longer than 0");
    }
    let Some(timeout) = parsed.timeout.given() else { return };
    if timeout.value.is_zero() {
        report.error(timeout.span, "zero-timeout", "the timeout of a check is longer than 0");
    } else if timeout.value > HEALTH_INTERVAL.of(parsed, dialect) {
        let text = "the timeout is longer than the interval: a hung run makes others be skipped";
        report.warning(timeout.span, "timeout-over-interval", text);
    }
}

fn servers(
    parsed: &ParsedService,
    built: &Service,
    plan: &Plan,
    dialect: Dialect,
    report: &mut Report,
) {
    if parsed.servers.is_bad() {
        return;
    }
    if built.servers.is_empty() {
        let text = format!("service `{}` has no servers", built.name);
        strict_in_toml(dialect, parsed.span, "no-servers", text, report);
        return;
    }
    let mut seen: HashMap<SocketAddr, Span> = HashMap::new();
    for (parsed_server, server) in parsed.servers.list().iter().zip(&built.servers) {
        let span = parsed_server.value.address.given().map_or(parsed_server.span, |at| at.span);
        if let Some(first) = seen.insert(server.address, span) {
            let text = format!("server {} is listed twice", server.address);
            report.error(span, "duplicate-server", text).see("first", first);
        }
        if parsed.listen.given().is_some() {
            server_fits(server, span, built, dialect, report);
            if let Some(way) = way_back(plan, built, server.address) {
                let through = match &way[..] {
                    [] => "is this service itself".to_owned(),
                    way => format!("leads back to this service through `{}`", way.join("`, `")),
                };
                let text = format!(
                    "server {} {through}: a connection would go round until nothing is left to \
                     open one with",
                    server.address
                );
                strict_in_toml(dialect, span, "service-loop", text, report);
            }
        }
    }
    let taking = built.servers.iter().filter(|server| server.weight > 0).count();
    if let Some(quorum) = parsed.quorum.given()
        && usize::try_from(quorum.value).is_ok_and(|quorum| quorum > taking)
    {
        let text = format!(
            "a quorum of {} is out of reach: servers of service `{}` that take connections are \
             {taking}",
            quorum.value, built.name
        );
        report
            .error(quorum.span, "quorum-out-of-reach", text)
            .help("no node could ever serve it: lower the quorum, or add servers");
    }
    if taking == 0 {
        let text = format!("every server of service `{}` has weight 0", built.name);
        report.warning(parsed.span, "all-weights-zero", text);
    }
}

fn server_fits(
    server: &Server,
    span: Span,
    built: &Service,
    dialect: Dialect,
    report: &mut Report,
) {
    let address = server.address;
    let Listener::Address(listen) = built.listen;
    if !sends_to(address.ip()) {
        report.error(span, "bad-server", "a server has a unicast address that is not link-local");
        return;
    }
    if address.port() == 0 && listen.port() != 0 {
        report.error(span, "port-zero", "a server has a port from 1 to 65535");
    }
    // I-016: these leave the packet as it is, so the server sees the service's port.
    if server.forwarding != Forwarding::Nat && address.port() != listen.port() {
        let way = match (server.forwarding, dialect) {
            (Forwarding::Nat, Dialect::Toml) => "forwarding `nat`",
            (Forwarding::Direct, Dialect::Toml) => "forwarding `direct`",
            (Forwarding::Tunnel, Dialect::Toml) => "forwarding `tunnel`",
            (Forwarding::Nat, Dialect::Keepalived) => "`lb_kind NAT`",
            (Forwarding::Direct, Dialect::Keepalived) => "`lb_kind DR`",
            (Forwarding::Tunnel, Dialect::Keepalived) => "`lb_kind TUN`",
        };
        let text = format!("{way} keeps the port: {} instead of {}", address.port(), listen.port());
        report.error(span, "port-differs", text).help(match dialect {
            Dialect::Toml => "leave the port out, or forward by nat",
            Dialect::Keepalived => "give it the port of the virtual_server, or use `lb_kind NAT`",
        });
    }
    if !is_reached(built, server) {
        let by_proxy = built.protocol == Protocol::Tcp;
        report.error(span, "server-family", "server and service are of different families").help(
            match (dialect, by_proxy) {
                (Dialect::Toml, true) => {
                    "forward by nat and leave `backend` out, or forward through a tunnel"
                }
                (Dialect::Toml, false) => {
                    "give it an address of the service's family, or forward through a tunnel"
                }
                (Dialect::Keepalived, true) => "use `lb_kind NAT` or `lb_kind TUN`",
                (Dialect::Keepalived, false) => {
                    "give it an address of the virtual_server's family, or use `lb_kind TUN`"
                }
            },
        );
    }
}

/// I-018.
fn sends_to(address: IpAddr) -> bool {
    let local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !local && !address.is_unspecified() && !address.is_multicast()
}

pub(super) fn distinct_listeners(all: &Parsed, plan: &Plan, report: &mut Report) {
    let mut seen: HashMap<(Listener, Protocol), Span> = HashMap::new();
    for (parsed, built) in all.services.iter().zip(&plan.services) {
        let Some(at) = parsed.listen.given() else { continue };
        match seen.entry((built.listen, built.protocol)) {
            Entry::Occupied(first) => {
                let text = format!("{} is listened on twice", built.listen);
                report.error(at.span, "duplicate-listen", text).see("first", *first.get());
            }
            Entry::Vacant(first) => {
                first.insert(at.span);
            }
        }
    }
}
