//! Rules of the servers of a service.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use locum_plan::{
    BackendChoice, Capabilities, Forwarding, Listener, Plan, Server, Service, SorryServer,
    WantedServer,
};

use crate::dialect::Dialect;
use crate::parsed::{Field, ParsedServer, ParsedService};
use crate::span::{Report, Span};
use crate::validate::common::{command_needs, strict_in_toml};
use crate::validate::loops::way_back;

pub(super) fn validate(
    parsed: &ParsedService,
    built: &Service,
    plan: &Plan,
    dialect: Dialect,
    report: &mut Report,
) {
    tunnel_is_used(&parsed.tunnel, built.servers.iter().map(|one| one.forwarding), report);
    if parsed.servers.is_bad() {
        return;
    }
    if built.servers.is_empty() {
        let text = format!("service `{}` has no servers", built.name);
        strict_in_toml(dialect, parsed.span, "no-servers", text, report);
        return;
    }
    // What only routes lead to listens nowhere.
    let listens = parsed.listen.given().is_some()
        || parsed.fwmark.given().is_some()
        || built.listen.is_empty();
    let mut seen: HashMap<SocketAddr, Span> = HashMap::new();
    for (parsed_server, server) in parsed.servers.list().iter().zip(&built.servers) {
        let at = &parsed_server.value;
        let span = at.address.given().map_or(parsed_server.span, |at| at.span);
        if let Some(first) = seen.insert(server.address, span) {
            let text = format!("server {} is listed twice", server.address);
            report.error(span, "duplicate-server", text).see("first", first);
        }
        if listens {
            fits(&server.wanted(), span, built, dialect, report);
            comes_back(server.address, span, built, plan, dialect, report);
        }
        own_settings(at, server, report);
        asked_port(at, server, span, report);
    }
    if let (Some(at), Some(sorry)) = (parsed.sorry.given(), &built.sorry) {
        let span = at.value.address.given().map_or(at.span, |at| at.span);
        if listens {
            sorry_fits(sorry, span, &seen, built, dialect, report);
            comes_back(sorry.address, span, built, plan, dialect, report);
        }
        tunnel_is_used(&at.value.tunnel, [sorry.forwarding].into_iter(), report);
    }
    if built.servers.iter().all(|server| server.weight == 0) {
        let text = format!("every server of service `{}` has weight 0", built.name);
        report.warning(parsed.span, "all-weights-zero", text);
    }
}

/// What a server has of its own.
fn own_settings(parsed: &ParsedServer, server: &Server, report: &mut Report) {
    tunnel_is_used(&parsed.tunnel, [server.forwarding].into_iter(), report);
    for at in parsed.up.list().iter().chain(parsed.down.list()) {
        command_needs(&at.value, at.span, report);
    }
    let hooks = parsed.up.given().or(parsed.down.given());
    if let Some(at) = hooks.filter(|_| server.health.is_empty()) {
        let text = "nobody checks this server: these programs are never run";
        report.warning(at.span, "without-effect", text).help("give it a `health` check");
    }
    if let Some(min) = parsed.min_connections.given() {
        match server.bounds.max {
            None => {
                let text = "a least number of connections is for a server that has a most";
                report.error(min.span, "connection-bounds", text);
            }
            Some(max) if min.value > max => {
                let text =
                    format!("{} is more than the most that the server has, {max}", min.value);
                report.error(min.span, "connection-bounds", text);
            }
            Some(_) => {}
        }
    }
}

/// What asks a server without a port has to know one.
fn asked_port(parsed: &ParsedServer, server: &Server, span: Span, report: &mut Report) {
    let asks_nowhere = server
        .health
        .iter()
        .any(|health| health.probe.kind.target().is_some_and(|target| target.port() == 0));
    if asks_nowhere && !parsed.address.is_bad() {
        let text = format!("the check of server {} needs a port to ask", server.address.ip());
        report.error(span, "missing-port", text).help("give the check a port of its own");
    }
}

fn tunnel_is_used<T>(
    tunnel: &Field<T>,
    mut ways: impl Iterator<Item = Forwarding>,
    report: &mut Report,
) {
    if let Some(at) = tunnel.given()
        && !ways.any(|way| way == Forwarding::Tunnel)
    {
        let text = "packets are wrapped for servers that are forwarded to through a tunnel";
        let finding = report.warning(at.span, "without-effect", text);
        finding.help("set `forwarding = \"tunnel\"`, or leave it out");
    }
}

fn comes_back(
    server: SocketAddr,
    span: Span,
    built: &Service,
    plan: &Plan,
    dialect: Dialect,
    report: &mut Report,
) {
    let Some(way) = way_back(plan, built, server) else { return };
    let through = match &way[..] {
        [] => "is this service itself".to_owned(),
        way => format!("leads back to this service through `{}`", way.join("`, `")),
    };
    let text = format!(
        "server {server} {through}: a connection would go round until nothing is left to open one \
         with"
    );
    strict_in_toml(dialect, span, "service-loop", text, report);
}

fn sorry_fits(
    sorry: &SorryServer,
    span: Span,
    servers: &HashMap<SocketAddr, Span>,
    built: &Service,
    dialect: Dialect,
    report: &mut Report,
) {
    if let Some(first) = servers.get(&sorry.address) {
        let text = format!("the sorry server {} is one of the servers", sorry.address);
        report
            .error(span, "duplicate-server", text)
            .see("as a server", *first)
            .help("it is there for when they are gone");
    }
    fits(&sorry.wanted(), span, built, dialect, report);
}

fn fits(server: &WantedServer, span: Span, built: &Service, dialect: Dialect, report: &mut Report) {
    let address = server.address;
    if !sends_to(address.ip()) {
        report.error(span, "bad-server", "a server has a unicast address that is not link-local");
        return;
    }
    let has_one_port = Listener::common_port(&built.listen).is_some();
    if address.port() == 0 && (has_one_port || built.listen.is_empty()) {
        report.error(span, "port-zero", "a server has a port from 1 to 65535");
    }
    // I-016: these leave the packet as it is, so the server sees the service's port.
    let mut ports = built.listen.iter().filter_map(|one| one.port());
    let other = ports.find(|port| address.port() != 0 && *port != address.port());
    if let Some(listen) = other
        && server.forwarding != Forwarding::Nat
    {
        let way = match (server.forwarding, dialect) {
            (Forwarding::Nat, Dialect::Toml) => "forwarding `nat`",
            (Forwarding::Direct, Dialect::Toml) => "forwarding `direct`",
            (Forwarding::Tunnel, Dialect::Toml) => "forwarding `tunnel`",
            (Forwarding::Nat, Dialect::Keepalived) => "`lb_kind NAT`",
            (Forwarding::Direct, Dialect::Keepalived) => "`lb_kind DR`",
            (Forwarding::Tunnel, Dialect::Keepalived) => "`lb_kind TUN`",
        };
        let text = format!("{way} keeps the port: {} instead of {listen}", address.port());
        report.error(span, "port-differs", text).help(match dialect {
            Dialect::Toml => "leave the port out, or forward by nat",
            Dialect::Keepalived => "give it the port of the virtual_server, or use `lb_kind NAT`",
        });
    }
    if !is_reached(built, server) {
        let by_nat = BackendChoice::Auto.allowed().any(|backend| {
            backend.protocols.contains(&built.protocol)
                && backend.crosses_families.contains(&Forwarding::Nat)
        });
        report.error(span, "server-family", "server and service are of different families").help(
            match (dialect, by_nat) {
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

/// A server of the other address family needs a backend that crosses.
pub(super) fn is_reached(built: &Service, server: &WantedServer) -> bool {
    let crosses = |backend: &Capabilities| {
        backend.protocols.contains(&built.protocol)
            && backend.crosses_families.contains(&server.forwarding)
    };
    !built.crosses(server) || built.backend.allowed().any(crosses)
}

/// I-018.
fn sends_to(address: IpAddr) -> bool {
    let local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !local && !address.is_unspecified() && !address.is_multicast()
}
