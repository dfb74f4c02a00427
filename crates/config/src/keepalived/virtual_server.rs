//! `virtual_server` and its `real_server` blocks: a balanced service.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use crate::keepalived::blocks::Statement;
use crate::keepalived::checker::{BLOCKS, Checkers};
use crate::keepalived::correct;
use crate::keepalived::globals::FileDraft;
use crate::keepalived::keywords::{KeywordRow, Shape, accept, dead, ignore, set};
use crate::keepalived::lexer::Word;
use crate::keepalived::lowering::{BlockTarget, LINE_IGNORED, Lowering, put};
use crate::keepalived::server_group::mark;
use crate::parsed::{Field, ParsedHealth, ParsedServer, ParsedService};
use crate::settings::health::HEALTH;
use crate::settings::keywords;
use crate::settings::persistence::{PERSISTENCE, ParsedPersistence};
use crate::settings::row::Block;
use crate::settings::server::{ParsedSorry, SERVER};
use crate::settings::service::SERVICE;
use crate::settings::tunnel::{ParsedTunnel, TYPES};
use crate::span::{At, Span};
use locum_plan::{
    Command, Encapsulation, FailedServer, Forwarding, Listener, Protocol, TunnelChecksum,
};
use locum_vrrp::Family;

pub(super) struct ServiceDraft {
    parsed: ParsedService,
    persistence: ParsedPersistence,
    /// Where it was first spoken of.
    persists: Option<Span>,
    sorry: ParsedSorry,
    host: Option<String>,
    /// What servers are that do not say otherwise.
    server: ParsedServer,
    /// What checks are that do not say otherwise.
    health: ParsedHealth,
    servers: Vec<ServerDraft>,
}

impl BlockTarget for ServiceDraft {
    fn setting(&mut self, lowering: &mut Lowering<'_>, statement: &Statement) -> bool {
        const BLOCK: Block = Block::VirtualServer;
        SERVICE.lower(lowering, BLOCK, statement, &mut self.parsed)
            || SERVER.lower(lowering, BLOCK, statement, &mut self.server)
            || HEALTH.lower(lowering, BLOCK, statement, &mut self.health)
            || PERSISTENCE.lower(lowering, BLOCK, statement, &mut self.persistence)
    }

    fn keywords() -> Vec<&'static str> {
        keywords(Block::VirtualServer)
    }
}

pub(super) struct ServerDraft {
    parsed: ParsedServer,
    host: Option<String>,
    /// What its checks are that do not say otherwise.
    health: ParsedHealth,
    checkers: Checkers,
}

impl BlockTarget for ServerDraft {
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

pub(super) const ROWS: &[KeywordRow<ServiceDraft>] = &[
    set("lb_kind", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        let parsed = &mut draft.parsed;
        forwarding(lowering, statement, &mut parsed.forwarding, &mut parsed.tunnel);
    }),
    set("lvs_method", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        let parsed = &mut draft.parsed;
        forwarding(lowering, statement, &mut parsed.forwarding, &mut parsed.tunnel);
    }),
    set("protocol", Shape::Line(1, 1), |lowering, draft, statement| {
        let Some(word) = statement.arguments().first() else { return };
        let protocol = match word.text.to_ascii_uppercase().as_str() {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            other => {
                let text = format!("`{other}` is not a protocol: TCP, UDP or SCTP");
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
    set("persistence_timeout", Shape::Line(0, 1), |lowering, draft, statement| {
        if !statement.arguments().is_empty() {
            put(&mut draft.persistence.timeout, lowering.first_seconds(statement));
        }
        draft.persists = draft.persists.or(Some(statement.span()));
    }),
    set("sorry_server", Shape::Line(1, 2), |lowering, draft, statement| {
        let (address, port) = endpoint(lowering, statement.arguments());
        let span = statement.span();
        put(&mut draft.sorry.address, address.map(|at| At::new((at.value, port), span)));
    }),
    set("sorry_server_inhibit", Shape::Line(0, 0), |_, draft, statement| {
        draft.sorry.unused = Field::Given(At::new(FailedServer::Quiesce, statement.span()));
    }),
    set("sorry_server_lvs_method", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        let sorry = &mut draft.sorry;
        forwarding(lowering, statement, &mut sorry.forwarding, &mut sorry.tunnel);
    }),
    set("quorum_up", Shape::Line(1, 3), |lowering, draft, statement| {
        add_hook(lowering, statement, &mut draft.parsed.quorum_up);
    }),
    set("quorum_down", Shape::Line(1, 3), |lowering, draft, statement| {
        add_hook(lowering, statement, &mut draft.parsed.quorum_down);
    }),
    set("flag-1", Shape::Line(0, 0), flag),
    set("flag-2", Shape::Line(0, 0), flag),
    set("flag-3", Shape::Line(0, 0), flag),
    set("sh-port", Shape::Line(0, 0), flag),
    set("sh-fallback", Shape::Line(0, 0), flag),
    set("mh-port", Shape::Line(0, 0), flag),
    set("mh-fallback", Shape::Line(0, 0), flag),
    // The kernel's own: it says whether the service is in its table.
    accept("hashed", "the kernel sets it"),
    set("ip_family", Shape::Line(1, 1), ip_family),
    accept("smtp_alert", "no mail is sent; use notify scripts"),
    accept("snmp_name", "there is no SNMP agent"),
    dead("nat_mask"),
    ignore("ha_suspend", "checks run on every node, so that a takeover knows the servers"),
];

/// Of a mark, which has no address to say it.
fn ip_family(lowering: &mut Lowering<'_>, draft: &mut ServiceDraft, statement: &Statement) {
    let Some(word) = statement.arguments().first() else { return };
    let own = match word.text.as_str() {
        "inet" => Family::V4,
        "inet6" => Family::V6,
        other => {
            lowering.bad_value(word, format!("`{other}` is not a family: inet or inet6"));
            return;
        }
    };
    let listeners = draft.parsed.listen.given_mut();
    for at in listeners.into_iter().flat_map(|list| &mut list.value) {
        if let Listener::Fwmark { family, .. } = &mut at.value {
            *family = own;
        }
    }
}

fn flag(_: &mut Lowering<'_>, draft: &mut ServiceDraft, statement: &Statement) {
    let (word, span) = (statement.keyword().text.clone(), statement.span());
    draft.parsed.scheduler_flags.extend([At::new(word, span)], span);
}

fn add_hook(
    lowering: &mut Lowering<'_>,
    statement: &Statement,
    hooks: &mut Field<Vec<At<Command>>>,
) {
    hooks.extend(lowering.hook(statement), statement.span());
}

pub(super) const REAL_SERVER: &[KeywordRow<ServerDraft>] = &[
    set("lb_kind", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        let parsed = &mut draft.parsed;
        forwarding(lowering, statement, &mut parsed.forwarding, &mut parsed.tunnel);
    }),
    set("lvs_method", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        let parsed = &mut draft.parsed;
        forwarding(lowering, statement, &mut parsed.forwarding, &mut parsed.tunnel);
    }),
    set("inhibit_on_failure", Shape::Line(0, 0), |_, draft, statement| {
        draft.parsed.failed = Field::Given(At::new(FailedServer::Quiesce, statement.span()));
    }),
    set("notify_up", Shape::Line(1, 3), |lowering, draft, statement| {
        add_hook(lowering, statement, &mut draft.parsed.up);
    }),
    set("notify_down", Shape::Line(1, 3), |lowering, draft, statement| {
        add_hook(lowering, statement, &mut draft.parsed.down);
    }),
    set("virtualhost", Shape::Line(1, 1), |_, draft, statement| {
        draft.host = statement.arguments().first().map(|word| word.text.clone());
    }),
    accept("log_all_failures", "`locum history` has the turns of every server"),
    accept("smtp_alert", "no mail is sent; use notify scripts"),
];

/// `NAT`, `DR`, or `TUN [type ipip|gue port N|gre] [nocsum|csum|remcsum]`.
fn forwarding(
    lowering: &mut Lowering<'_>,
    statement: &Statement,
    way: &mut Field<Forwarding>,
    wrapped: &mut Field<Encapsulation>,
) {
    let Some((word, rest)) = statement.arguments().split_first() else { return };
    let forwarding = match word.text.as_str() {
        "NAT" => Forwarding::Nat,
        "DR" => Forwarding::Direct,
        "TUN" => Forwarding::Tunnel,
        other => {
            let text = format!("`{other}` is not a way of forwarding: NAT, DR or TUN");
            let finding = lowering.report.forgiven(word.span, "bad-value", text, LINE_IGNORED);
            drop(finding.suggest(other, ["NAT", "DR", "TUN"]));
            return;
        }
    };
    *way = Field::Given(At::new(forwarding, word.span));
    *wrapped = Field::Absent;
    match (forwarding, rest) {
        (_, []) => {}
        (Forwarding::Tunnel, _) => put(wrapped, tunnel(lowering, statement, rest)),
        (Forwarding::Nat | Forwarding::Direct, [option, ..]) => {
            let text = format!("`{}` is for TUN", option.text);
            lowering.report.forgiven(option.span, "bad-value", text, "the word is ignored");
        }
    }
}

fn tunnel(
    lowering: &mut Lowering<'_>,
    statement: &Statement,
    options: &[Word],
) -> Option<At<Encapsulation>> {
    let mut parsed = ParsedTunnel::default();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let checksum = match option.text.as_str() {
            "type" => {
                let word = options.next();
                let found = word.and_then(|word| TYPES.iter().find(|(name, _)| *name == word.text));
                let Some((_, kind)) = found else {
                    let word = word.unwrap_or(option);
                    lowering.bad_value(word, "`type` needs ipip, gue or gre");
                    return None;
                };
                parsed.kind = Field::Given(At::new(*kind, option.span));
                continue;
            }
            "port" => {
                let Some(word) = options.next() else {
                    lowering.bad_value(option, "`port` needs a number");
                    return None;
                };
                let port = NonZeroU16::new(lowering.number(word, 1..=65_535)?.value);
                put(&mut parsed.port, port.map(|port| At::new(port, word.span)));
                continue;
            }
            "nocsum" => TunnelChecksum::None,
            "csum" => TunnelChecksum::Full,
            "remcsum" => TunnelChecksum::Remote,
            other => {
                let text = format!(
                    "`{other}` is not an option of a tunnel: type, port, nocsum, csum or remcsum"
                );
                lowering.bad_value(option, text);
                return None;
            }
        };
        parsed.checksum = Field::Given(At::new(checksum, option.span));
    }
    let span = statement.span();
    parsed.encapsulation(span, lowering.report).map(|tunnel| At::new(tunnel, span))
}

fn real_server(lowering: &mut Lowering<'_>, draft: &mut ServiceDraft, statement: &Statement) {
    let words = statement.arguments();
    let address = words.first().and_then(|word| lowering.of_block(|it| it.host(word)));
    let port = match words.get(1) {
        Some(word) => lowering.of_block(|it| it.number(word, 0..=65_535)).map(|at| Some(at.value)),
        None => Some(None),
    };
    let mut parsed = ParsedServer::default();
    if let (Some(address), Some(port)) = (address, port) {
        parsed.address = Field::Given(address.map(|address| (address, port)));
    }
    let mut server =
        ServerDraft { parsed, host: None, health: ParsedHealth::default(), checkers: Vec::new() };
    let block = statement.block.as_deref().unwrap_or_default();
    lowering.run("a real_server", REAL_SERVER, &mut server, block);
    draft.servers.push(server);
}

/// `ADDRESS [PORT]`.
fn endpoint(lowering: &mut Lowering<'_>, words: &[Word]) -> (Option<At<IpAddr>>, Option<u16>) {
    let address = words.first().and_then(|word| lowering.host(word));
    let port = words.get(1).and_then(|word| lowering.number(word, 0..=65_535));
    (address, port.map(|at| at.value))
}

pub(super) fn read(lowering: &mut Lowering<'_>, file: &mut FileDraft, statement: &Statement) {
    let words = statement.arguments();
    let Some(first) = words.first() else { return };
    let span = statement.span();
    let listen = match first.text.as_str() {
        "fwmark" => match mark(lowering, statement, words.get(1..).unwrap_or_default()) {
            Some(listener) => Field::Given(At::new(vec![listener], span)),
            None => Field::Bad,
        },
        "group" => of_group(lowering, file, statement),
        _ => of_address(lowering, statement),
    };
    let label = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    let mut draft = ServiceDraft::new(At::new(label, span), listen);
    let block = statement.block.as_deref().unwrap_or_default();
    lowering.run("a virtual_server", ROWS, &mut draft, block);
    let mut service = finish(lowering, draft);
    // One that listens nowhere has been reported where it says so.
    if service.listen.is_bad() {
        return;
    }
    if correct::service(&mut service, lowering.report) {
        file.parsed.services.push(service);
    }
}

type Listeners = Field<Vec<At<Listener>>>;

fn of_address(lowering: &mut Lowering<'_>, statement: &Statement) -> Listeners {
    let (words, span) = (statement.arguments(), statement.span());
    // Without a port it is every port; what follows the port keepalived does not look at.
    if let Some(extra) = words.get(2) {
        let text = "`virtual_server` does not take this argument";
        lowering.report.forgiven(extra.span, "extra-argument", text, "the rest is ignored");
    }
    let address = words.first().and_then(|word| lowering.of_block(|it| it.host(word)));
    let port = match words.get(1) {
        Some(word) => lowering.of_block(|it| it.number(word, 0..=65_535)).map(|at| at.value),
        None => Some(0),
    };
    match (address, port) {
        (Some(address), Some(port)) => {
            let listener = Listener::Address(SocketAddr::new(address.value, port));
            Field::Given(At::new(vec![At::new(listener, span)], span))
        }
        (Some(_) | None, _) => Field::Bad,
    }
}

fn of_group(lowering: &mut Lowering<'_>, file: &FileDraft, statement: &Statement) -> Listeners {
    let Some(name) = statement.arguments().get(1) else {
        let text = "`virtual_server group` needs the name of a virtual_server_group";
        let span = statement.span();
        lowering.report.forgiven(span, "missing-argument", text, "the block is ignored");
        return Field::Bad;
    };
    match file.groups.iter().find(|group| group.name == name.text) {
        Some(group) => group.listeners.clone(),
        None => {
            let text = format!("there is no virtual_server_group `{}`", name.text);
            let known = file.groups.iter().map(|group| group.name.as_str());
            lowering
                .report
                .forgiven(name.span, "unknown-group", text, "the virtual_server is left out")
                .suggest(&name.text, known);
            Field::Bad
        }
    }
}

impl ServiceDraft {
    fn new(name: At<String>, listen: Listeners) -> Self {
        let span = name.span;
        Self {
            parsed: ParsedService { span, name, listen, ..ParsedService::default() },
            persistence: ParsedPersistence::default(),
            persists: None,
            sorry: ParsedSorry::default(),
            host: None,
            server: ParsedServer::default(),
            health: ParsedHealth::default(),
            servers: Vec::new(),
        }
    }
}

fn finish(lowering: &mut Lowering<'_>, draft: ServiceDraft) -> ParsedService {
    let ServiceDraft { parsed: mut service, host, server: template, health, servers, .. } = draft;
    let is_marked = |at: &At<Listener>| matches!(at.value, Listener::Fwmark { .. });
    let is_all_marked =
        !service.listen.list().is_empty() && service.listen.list().iter().all(is_marked);
    if service.protocol.is_absent() {
        let protocol = if is_all_marked { Protocol::Tcp } else { Protocol::Udp };
        if !is_all_marked {
            let text = "a virtual_server without `protocol` is UDP, as in keepalived";
            lowering.report.warning(service.span, "implied-udp", text).help("add `protocol TCP`");
        }
        service.protocol = Field::Given(At::new(protocol, service.span));
    }
    let protocol = service.protocol.value().copied().unwrap_or(Protocol::Tcp);
    service.name.value = format!("{} {}", service.name.value, protocol.name());
    persistence(lowering, &mut service, draft.persistence, draft.persists);
    sorry(lowering, &mut service, draft.sorry);
    let mut list = Vec::new();
    for ServerDraft { parsed: mut server, host: own_host, health: own_health, checkers } in servers
    {
        SERVER.inherit(&mut server, &template);
        let host = own_host.as_ref().or(host.as_ref());
        let checks = checkers.iter().filter_map(|checker| {
            let span = checker.span;
            let mut check = checker.check(lowering, host)?;
            HEALTH.inherit(&mut check, &own_health);
            HEALTH.inherit(&mut check, &health);
            checker.fill(&mut check);
            Some(At::new(check, span))
        });
        let checks: Vec<_> = checks.collect();
        if let Some(span) = server.address.span() {
            server.health.extend(checks, span);
            list.push(At::new(server, span));
        }
    }
    service.servers = Field::Given(At::new(list, service.span));
    service
}

/// A service on every port has clients that come back to their server, whatever the file says.
fn persistence(
    lowering: &mut Lowering<'_>,
    service: &mut ParsedService,
    parsed: ParsedPersistence,
    mut persists: Option<Span>,
) {
    let every_port = service.listen.list().iter().find(|at| match at.value {
        Listener::Address(_) | Listener::Range(_) => at.value.port().is_none(),
        Listener::Fwmark { .. } => false,
    });
    if let (Some(at), None) = (every_port, persists) {
        let text = "a virtual_server on port 0 has `persistence_timeout 360`, as in keepalived";
        lowering.report.warning(at.span, "implied-persistence", text);
        persists = Some(at.span);
    }
    let other = parsed.granularity.span();
    let other = other.or(parsed.engine.span());
    match (persists, other) {
        (Some(span), _) => service.persistence = Field::Given(At::new(parsed, span)),
        (None, Some(span)) => {
            let text = "clients are not kept on their server: there is no `persistence_timeout`";
            lowering.report.warning(span, "without-effect", text);
        }
        (None, None) => {}
    }
}

fn sorry(lowering: &mut Lowering<'_>, service: &mut ParsedService, parsed: ParsedSorry) {
    let way = parsed.forwarding.span();
    let other = parsed.unused.span().or(way);
    match (&parsed.address, other) {
        (Field::Absent, Some(span)) => {
            let text = "there is no `sorry_server` that this could be of";
            lowering.report.warning(span, "without-effect", text);
        }
        (Field::Absent, None) => {}
        (Field::Bad, _) => {}
        (Field::Given(at), _) => {
            let span = at.span;
            service.sorry = Field::Given(At::new(parsed, span));
        }
    }
}
