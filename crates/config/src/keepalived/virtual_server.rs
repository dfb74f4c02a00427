//! `virtual_server` and its `real_server` blocks: a balanced service.

use std::net::{IpAddr, SocketAddr};

use crate::defaults;
use crate::keepalived::Lowering;
use crate::keepalived::blocks::Statement;
use crate::keepalived::checker::{self, CheckerDraft};
use crate::keepalived::keywords::{Row, Shape, accept, ignore, refuse, set};
use crate::keepalived::lexer::Word;
use crate::span::{At, Span};
use crate::wish::{Field, HealthWish, ServerWish, ServiceWish, Wishes};
use locum_plan::{FailedServer, Forwarding, HealthKind, Protocol};

/// Checks of one server: kind and place of the block, and what it says.
type Checkers = Vec<(Kind, Span, CheckerDraft)>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Tcp,
    Http,
}

pub(super) struct ServiceDraft {
    wish: ServiceWish,
    weight: Option<At<u32>>,
    host: Option<String>,
    /// Timers for checks that set none.
    timers: CheckerDraft,
    servers: Vec<ServerDraft>,
}

pub(super) struct ServerDraft {
    span: Span,
    address: Option<At<IpAddr>>,
    port: Option<u16>,
    weight: Option<At<u32>>,
    forwarding: Option<At<Forwarding>>,
    inhibit: Option<Span>,
    host: Option<String>,
    timers: CheckerDraft,
    checkers: Checkers,
}

const QUORUM: &str = "a service is served while one server is alive";
const EVENTS: &str = "use `locum history --json`";
const SORRY: &str = "list it among the servers, or put a page in front";
const SCRIPTED: &str = "use TCP_CHECK or HTTP_GET";

pub(super) const ROWS: &[Row<ServiceDraft>] = &[
    set("lb_algo", Shape::Line(1, 1), scheduler),
    set("lvs_sched", Shape::Line(1, 1), scheduler),
    set("lb_kind", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        draft.wish.forwarding = forwarding(lowering, statement);
    }),
    set("lvs_method", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        draft.wish.forwarding = forwarding(lowering, statement);
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
        draft.wish.protocol = Some(At::new(protocol, word.span));
    }),
    set("delay_loop", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.timers.delay_loop = lowering.first_seconds(statement);
    }),
    set("connect_timeout", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.timers.connect_timeout = lowering.first_seconds(statement);
    }),
    set("retry", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.timers.retry = lowering.first_number(statement, 0..=1_000);
    }),
    set("weight", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.weight = lowering.first_number(statement, 0..=65_535);
    }),
    set("virtualhost", Shape::Line(1, 1), |_, draft, statement| {
        draft.host = statement.arguments().first().map(|word| word.text.clone());
    }),
    set("inhibit_on_failure", Shape::Line(0, 0), |_, draft, statement| {
        draft.wish.failed = Some(At::new(FailedServer::Quiesce, statement.span()));
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
    set("weight", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.weight = lowering.first_number(statement, 0..=65_535);
    }),
    set("lb_kind", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        draft.forwarding = forwarding(lowering, statement);
    }),
    set("lvs_method", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        draft.forwarding = forwarding(lowering, statement);
    }),
    set("inhibit_on_failure", Shape::Line(0, 0), |_, draft, statement| {
        draft.inhibit = Some(statement.span());
    }),
    set("virtualhost", Shape::Line(1, 1), |_, draft, statement| {
        draft.host = statement.arguments().first().map(|word| word.text.clone());
    }),
    set("delay_loop", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.timers.delay_loop = lowering.first_seconds(statement);
    }),
    set("connect_timeout", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.timers.connect_timeout = lowering.first_seconds(statement);
    }),
    set("retry", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.timers.retry = lowering.first_number(statement, 0..=1_000);
    }),
    set("TCP_CHECK", Shape::Block(0, 0), |lowering, draft, statement| {
        check(lowering, draft, statement, Kind::Tcp);
    }),
    set("HTTP_GET", Shape::Block(0, 0), |lowering, draft, statement| {
        check(lowering, draft, statement, Kind::Http);
    }),
    refuse("SSL_GET", SCRIPTED),
    refuse("MISC_CHECK", SCRIPTED),
    refuse("SMTP_CHECK", SCRIPTED),
    refuse("DNS_CHECK", SCRIPTED),
    refuse("UDP_CHECK", SCRIPTED),
    refuse("PING_CHECK", SCRIPTED),
    refuse("BFD_CHECK", SCRIPTED),
    refuse("FILE_CHECK", SCRIPTED),
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

fn scheduler(_: &mut Lowering<'_>, draft: &mut ServiceDraft, statement: &Statement) {
    draft.wish.scheduler =
        statement.arguments().first().map(|word| At::new(word.text.clone(), word.span));
}

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

fn check(lowering: &mut Lowering<'_>, draft: &mut ServerDraft, statement: &Statement, kind: Kind) {
    let mut checker = CheckerDraft::default();
    let what = match kind {
        Kind::Tcp => "a TCP_CHECK",
        Kind::Http => "an HTTP_GET",
    };
    let block = statement.block.as_deref().unwrap_or_default();
    lowering.run(what, checker::ROWS, &mut checker, block);
    draft.checkers.push((kind, statement.span(), checker));
}

fn real_server(lowering: &mut Lowering<'_>, draft: &mut ServiceDraft, statement: &Statement) {
    let (address, port) = endpoint(lowering, statement.arguments());
    let mut server = ServerDraft {
        span: statement.span(),
        address,
        port,
        weight: None,
        forwarding: None,
        inhibit: None,
        host: None,
        timers: CheckerDraft::default(),
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

pub(super) fn read(lowering: &mut Lowering<'_>, wishes: &mut Wishes, statement: &Statement) {
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
    let wish = finish(lowering, draft);
    wishes.services.push(wish);
}

impl ServiceDraft {
    fn new(name: At<String>, listen: Field<SocketAddr>) -> Self {
        let wish = ServiceWish {
            span: name.span,
            name,
            instance: None,
            serve: None,
            listen,
            protocol: None,
            backend: None,
            scheduler: None,
            forwarding: None,
            health: None,
            failed: None,
            standby: None,
            drain: None,
            servers: Field::Absent,
        };
        let timers = CheckerDraft::default();
        Self { wish, weight: None, host: None, timers, servers: Vec::new() }
    }
}

fn finish(lowering: &mut Lowering<'_>, draft: ServiceDraft) -> ServiceWish {
    let ServiceDraft { mut wish, weight, host, timers, servers } = draft;
    if wish.protocol.is_none() {
        let text = "a virtual_server without `protocol` is UDP, as in keepalived";
        lowering.report.warning(wish.span, "implied-udp", text).help("add `protocol TCP`");
        wish.protocol = Some(At::new(Protocol::Udp, wish.span));
    }
    let protocol = wish.protocol.as_ref().map_or(Protocol::Tcp, |at| at.value);
    wish.name.value = format!("{} {}", wish.name.value, protocol_name(protocol));
    let mut list = Vec::new();
    let mut usable = true;
    let mut checks: Vec<Option<HealthWish>> = Vec::new();
    for server in &servers {
        match &server.address {
            Some(address) => list.push(ServerWish {
                address: address.clone(),
                port: server.port,
                weight: server.weight.clone().or_else(|| weight.clone()),
            }),
            None => usable = false,
        }
        checks.push(health(lowering, server, &timers, host.as_ref()));
    }
    same_forwarding(lowering, &mut wish, &servers);
    same_failure(lowering, &mut wish, &servers);
    wish.health = one_health(lowering, &servers, &checks);
    wish.servers = match usable {
        true => Field::Given(At::new(list, wish.span)),
        false => Field::Bad,
    };
    wish
}

const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// A service forwards in one way; a server that names none follows the service.
fn same_forwarding(lowering: &mut Lowering<'_>, wish: &mut ServiceWish, servers: &[ServerDraft]) {
    let common = wish.forwarding.clone();
    let level = common.as_ref().map_or(defaults::FORWARDING, |at| at.value);
    let of = |server: &ServerDraft| server.forwarding.as_ref().map_or(level, |at| at.value);
    let Some((first, rest)) = servers.split_first() else { return };
    if let Some(other) = rest.iter().find(|server| of(server) != of(first)) {
        let text = "servers of one service that forward differently are not supported yet";
        lowering.report.error(other.span, "unsupported", text).see("the other", first.span);
    }
    wish.forwarding = first.forwarding.clone().or(common);
}

/// What becomes of a failed server is decided for the service.
fn same_failure(lowering: &mut Lowering<'_>, wish: &mut ServiceWish, servers: &[ServerDraft]) {
    let inhibited = servers.iter().filter_map(|server| server.inhibit);
    let (Some(span), count) = (inhibited.clone().next(), inhibited.count()) else { return };
    if count < servers.len() && wish.failed.is_none() {
        let text = "`inhibit_on_failure` of one server applies to all servers of the service";
        lowering.report.warning(span, "inhibit-all", text);
    }
    wish.failed = Some(At::new(FailedServer::Quiesce, span));
}

/// The check of one server, with the timers it inherits.
fn health(
    lowering: &mut Lowering<'_>,
    server: &ServerDraft,
    timers: &CheckerDraft,
    host: Option<&String>,
) -> Option<HealthWish> {
    if let Some((_, span, _)) = server.checkers.get(1) {
        let text = "more than one check of a server is not supported yet";
        lowering.report.error(*span, "unsupported", text).help("keep the most telling one");
        return None;
    }
    let (kind, span, checker) = server.checkers.first()?;
    let kind = match kind {
        Kind::Tcp => HealthKind::Tcp,
        Kind::Http => checker::http(lowering, checker, *span, server.host.as_ref().or(host))?,
    };
    let layers = [checker, &server.timers, timers];
    Some(HealthWish {
        kind: At::new(kind, *span),
        interval: layers.iter().find_map(|layer| layer.delay_loop.clone()),
        timeout: layers.iter().find_map(|layer| layer.connect_timeout.clone()),
        rise: None,
        fall: layers.iter().find_map(|layer| layer.retry.clone()).map(|at| at.map(|n| n + 1)),
        port: checker.port.clone(),
    })
}

/// The servers of a service share one check.
fn one_health(
    lowering: &mut Lowering<'_>,
    servers: &[ServerDraft],
    checks: &[Option<HealthWish>],
) -> Option<HealthWish> {
    let plain = |wish: &HealthWish| {
        (
            wish.kind.value.clone(),
            wish.interval.as_ref().map(|at| at.value),
            wish.timeout.as_ref().map(|at| at.value),
            wish.fall.as_ref().map(|at| at.value),
            wish.port.as_ref().map(|at| at.value),
        )
    };
    let first = checks.first()?;
    for (server, other) in servers.iter().zip(checks).skip(1) {
        if first.as_ref().map(plain) != other.as_ref().map(plain) {
            let text = "servers of one service with different checks are not supported yet";
            lowering
                .report
                .error(server.span, "unsupported", text)
                .help("give every real_server the same check");
            break;
        }
    }
    first.clone()
}
