//! `virtual_server` and its `real_server` blocks: a balanced service.

use std::net::{IpAddr, SocketAddr};

use crate::keepalived::blocks::Statement;
use crate::keepalived::checker::{BLOCKS, Checkers};
use crate::keepalived::globals::FileDraft;
use crate::keepalived::keywords::{Row, Shape, accept, ignore, refuse, set};
use crate::keepalived::lexer::Word;
use crate::keepalived::lowering::{Lowering, Target};
use crate::parsed::{Field, ParsedHealth, ParsedServer, ParsedService};
use crate::settings::health::HEALTH;
use crate::settings::keywords;
use crate::settings::row::Block;
use crate::settings::service::{SERVER, SERVICE};
use crate::span::{At, Span};
use locum_plan::{FailedServer, Forwarding, Protocol};

pub(super) struct ServiceDraft {
    parsed: ParsedService,
    host: Option<String>,
    /// What servers are that do not say otherwise.
    server: ParsedServer,
    /// What checks are that do not say otherwise.
    health: ParsedHealth,
    servers: Vec<ServerDraft>,
}

impl Target for ServiceDraft {
    fn setting(&mut self, lowering: &mut Lowering<'_>, statement: &Statement) -> bool {
        const BLOCK: Block = Block::VirtualServer;
        SERVICE.lower(lowering, BLOCK, statement, &mut self.parsed)
            || SERVER.lower(lowering, BLOCK, statement, &mut self.server)
            || HEALTH.lower(lowering, BLOCK, statement, &mut self.health)
    }

    fn keywords() -> Vec<&'static str> {
        keywords(Block::VirtualServer)
    }
}

pub(super) struct ServerDraft {
    parsed: ParsedServer,
    inhibit: Option<Span>,
    host: Option<String>,
    /// What its checks are that do not say otherwise.
    health: ParsedHealth,
    checkers: Checkers,
}

impl Target for ServerDraft {
    fn setting(&mut self, lowering: &mut Lowering<'_>, statement: &Statement) -> bool {
        const BLOCK: Block = Block::RealServer;
        SERVER.lower(lowering, BLOCK, statement, &mut self.parsed)
            || HEALTH.lower(lowering, BLOCK, statement, &mut self.health)
            || lowering.by(BLOCKS, &mut self.checkers, statement)
    }

    fn keywords() -> Vec<&'static str> {
        let blocks = BLOCKS.iter().map(|row| row.name);
        keywords(Block::RealServer).into_iter().chain(blocks).collect()
    }
}

const QUORUM: &str = "a service is served while one server is alive";
const EVENTS: &str = "use `locum history --json`";
const SORRY: &str = "remove it: no server waits until all others are down; a HAProxy in front can have \
                     one (`backup`)";

pub(super) const ROWS: &[Row<ServiceDraft>] = &[
    set("lb_kind", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        draft.parsed.forwarding = forwarding(lowering, statement).into();
    }),
    set("lvs_method", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        draft.parsed.forwarding = forwarding(lowering, statement).into();
    }),
    set("protocol", Shape::Line(1, 1), |lowering, draft, statement| {
        let Some(word) = statement.arguments().first() else { return };
        let protocol = match word.text.as_str() {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            other => {
                let text = format!("protocol `{other}` is not supported: TCP or UDP");
                lowering.bad_value(word, text);
                return;
            }
        };
        draft.parsed.protocol = Field::Given(At::new(protocol, word.span));
    }),
    set("virtualhost", Shape::Line(1, 1), |_, draft, statement| {
        draft.host = statement.arguments().first().map(|word| word.text.clone());
    }),
    set("inhibit_on_failure", Shape::Line(0, 0), |_, draft, statement| {
        draft.parsed.failed = Field::Given(At::new(FailedServer::Quiesce, statement.span()));
    }),
    set("real_server", Shape::Block(1, 2), real_server),
    ignore("delay_before_retry", "a failed check is repeated after delay_loop"),
    ignore("persistence_timeout", "clients are not kept on one server yet"),
    ignore("persistence_granularity", "clients are not kept on one server yet"),
    ignore("persistence_engine", "clients are not kept on one server yet"),
    accept("ip_family"),
    accept("warmup"),
    accept("alpha"),
    accept("omega"),
    accept("smtp_alert"),
    ignore("ha_suspend", "checks run on every node, so that a takeover knows the servers"),
    ignore("quorum", QUORUM),
    ignore("hysteresis", QUORUM),
    ignore("quorum_up", EVENTS),
    ignore("quorum_down", EVENTS),
    refuse("sorry_server", SORRY),
    refuse("sorry_server_inhibit", SORRY),
    refuse("sorry_server_lvs_method", SORRY),
    refuse("ops", "remove it"),
    refuse("hashed", "remove it"),
    refuse("flag-1", "remove it"),
    refuse("flag-2", "remove it"),
    refuse("flag-3", "remove it"),
    refuse("sh-port", "remove it"),
    refuse("sh-fallback", "remove it"),
    refuse("mh-port", "remove it"),
    refuse("mh-fallback", "remove it"),
];

pub(super) const REAL_SERVER: &[Row<ServerDraft>] = &[
    set("lb_kind", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        draft.parsed.forwarding = forwarding(lowering, statement).into();
    }),
    set("lvs_method", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        draft.parsed.forwarding = forwarding(lowering, statement).into();
    }),
    set("inhibit_on_failure", Shape::Line(0, 0), |_, draft, statement| {
        draft.inhibit = Some(statement.span());
    }),
    set("virtualhost", Shape::Line(1, 1), |_, draft, statement| {
        draft.host = statement.arguments().first().map(|word| word.text.clone());
    }),
    ignore("delay_before_retry", "a failed check is repeated after delay_loop"),
    ignore("uthreshold", "connections to a server are not limited yet"),
    ignore("lthreshold", "connections to a server are not limited yet"),
    ignore("notify_up", EVENTS),
    ignore("notify_down", EVENTS),
    accept("warmup"),
    accept("alpha"),
    accept("log_all_failures"),
    accept("smtp_alert"),
];

fn forwarding(lowering: &mut Lowering<'_>, statement: &Statement) -> Option<At<Forwarding>> {
    let (word, rest) = statement.arguments().split_first()?;
    let forwarding = match word.text.as_str() {
        "NAT" => Forwarding::Nat,
        "DR" => Forwarding::Direct,
        "TUN" => Forwarding::Tunnel,
        other => {
            let text = format!("`{other}` is not a way of forwarding: NAT, DR or TUN");
            lowering.bad_value(word, text);
            return None;
        }
    };
    if let Some(option) = rest.first()
        && !rest.iter().map(|word| word.text.as_str()).eq(["type", "ipip"])
    {
        let text = "tunnels other than ipip are not supported yet";
        lowering.report.error(option.span, "unsupported", text);
    }
    Some(At::new(forwarding, word.span))
}

fn real_server(lowering: &mut Lowering<'_>, draft: &mut ServiceDraft, statement: &Statement) {
    let (address, port) = endpoint(lowering, statement.arguments());
    let place = |at: At<IpAddr>| at.map(|address| (address, port));
    let mut server = ServerDraft {
        parsed: ParsedServer { address: address.map(place).into(), ..ParsedServer::default() },
        inhibit: None,
        host: None,
        health: ParsedHealth::default(),
        checkers: Vec::new(),
    };
    let block = statement.block.as_deref().unwrap_or_default();
    lowering.run("a real_server", REAL_SERVER, &mut server, block);
    draft.servers.push(server);
}

/// `ADDRESS [PORT]`.
fn endpoint(lowering: &mut Lowering<'_>, words: &[Word]) -> (Option<At<IpAddr>>, Option<u16>) {
    let address = words.first().and_then(|word| lowering.ip_address(word));
    let port = words.get(1).and_then(|word| lowering.number(word, 0..=65_535));
    (address, port.and_then(|at| u16::try_from(at.value).ok()))
}

pub(super) fn read(lowering: &mut Lowering<'_>, file: &mut FileDraft, statement: &Statement) {
    let words = statement.arguments();
    let Some(first) = words.first() else { return };
    if matches!(first.text.as_str(), "fwmark" | "group") {
        let text = format!("`virtual_server {}` is not supported yet", first.text);
        lowering
            .report
            .error(first.span, "unsupported", text)
            .help("write one virtual_server per address and port");
        return;
    }
    let (address, port) = endpoint(lowering, words.get(..2).unwrap_or(words));
    let span = statement.span();
    let listen = match (address, port) {
        (Some(address), Some(port)) => {
            Field::Given(At::new(SocketAddr::new(address.value, port), span))
        }
        (Some(_), None) if words.len() == 1 => {
            let text = "a virtual_server needs a port";
            lowering.report.error(span, "missing-argument", text);
            Field::Bad
        }
        (Some(_) | None, _) => Field::Bad,
    };
    let label = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    let mut draft = ServiceDraft::new(At::new(label, span), listen);
    let block = statement.block.as_deref().unwrap_or_default();
    lowering.run("a virtual_server", ROWS, &mut draft, block);
    let service = finish(lowering, draft);
    file.parsed.services.push(service);
}

impl ServiceDraft {
    fn new(name: At<String>, listen: Field<SocketAddr>) -> Self {
        let span = name.span;
        Self {
            parsed: ParsedService { span, name, listen, ..ParsedService::default() },
            host: None,
            server: ParsedServer::default(),
            health: ParsedHealth::default(),
            servers: Vec::new(),
        }
    }
}

fn finish(lowering: &mut Lowering<'_>, draft: ServiceDraft) -> ParsedService {
    let ServiceDraft { parsed: mut service, host, server: template, health, servers } = draft;
    if service.protocol.is_absent() {
        let text = "a virtual_server without `protocol` is UDP, as in keepalived";
        lowering.report.warning(service.span, "implied-udp", text).help("add `protocol TCP`");
        service.protocol = Field::Given(At::new(Protocol::Udp, service.span));
    }
    let protocol = service.protocol.value().copied().unwrap_or(Protocol::Tcp);
    service.name.value = format!("{} {}", service.name.value, protocol_name(protocol));
    same_failure(lowering, &mut service, &servers);
    let mut list = Vec::new();
    let mut is_usable = true;
    for ServerDraft { parsed: mut server, host: own_host, health: own_health, checkers, .. } in
        servers
    {
        SERVER.inherit(&mut server, &template);
        let host = own_host.as_ref().or(host.as_ref());
        let checks = checkers.iter().filter_map(|checker| {
            let span = checker.span;
            let question = checker.question(lowering, host)?;
            let mut check = checker.health.clone();
            check.question = Field::Given(At::new(question, span));
            HEALTH.inherit(&mut check, &own_health);
            HEALTH.inherit(&mut check, &health);
            Some(At::new(check, span))
        });
        let checks: Vec<_> = checks.collect();
        match server.address.given().map(|at| at.span) {
            Some(span) => {
                server.health.extend(checks, span);
                list.push(At::new(server, span));
            }
            None => is_usable = false,
        }
    }
    service.servers = match is_usable {
        true => Field::Given(At::new(list, service.span)),
        false => Field::Bad,
    };
    service
}

const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// What becomes of a failed server is decided for the service.
fn same_failure(lowering: &mut Lowering<'_>, service: &mut ParsedService, servers: &[ServerDraft]) {
    let inhibited = servers.iter().filter_map(|server| server.inhibit);
    let (Some(span), count) = (inhibited.clone().next(), inhibited.count()) else { return };
    if count < servers.len() && service.failed.is_absent() {
        let text = "`inhibit_on_failure` of one server applies to all servers of the service";
        lowering.report.warning(span, "inhibit-all", text);
    }
    service.failed = Field::Given(At::new(FailedServer::Quiesce, span));
}
