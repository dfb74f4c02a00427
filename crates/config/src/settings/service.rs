//! `[[service]]` and `virtual_server`: a balanced service and its servers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ::toml::de::DeValue;
use locum_plan::{
    Backend, BackendKind, FailedServer, Forwarding, Protocol, ServiceLimits, Standby,
};

use crate::dialect::Dialect;
use crate::field::Field;
use crate::settings::form::{COUNT, Form, Schema, TIME, list, text, toml_only, whole};
use crate::settings::health::{HEALTHS, ParsedHealth};
use crate::settings::limits::{self, ParsedLimits};
use crate::settings::row::{Block, Keyword, NameRow, Noun, Setting, Unset, field};
use crate::span::{At, Span};
use crate::toml::reader::{Key, Reader, Value};

/// When a service is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Serve {
    Master,
    Always,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedService {
    pub span: Span,
    pub name: At<String>,
    pub instance: Field<String>,
    pub serve: Field<Serve>,
    pub listen: Field<SocketAddr>,
    pub protocol: Field<Protocol>,
    pub backend: Field<Backend>,
    pub scheduler: Field<String>,
    pub forwarding: Field<Forwarding>,
    /// Of every server that has none of its own.
    pub health: Field<Vec<At<ParsedHealth>>>,
    pub failed: Field<FailedServer>,
    pub standby: Field<Standby>,
    pub drain: Field<Duration>,
    pub quorum: Field<u32>,
    pub limits: ParsedLimits,
    pub servers: Field<Vec<At<ParsedServer>>>,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedServer {
    /// Without a port it is the service's own.
    pub address: Field<(IpAddr, Option<u16>)>,
    pub weight: Field<u32>,
    pub forwarding: Field<Forwarding>,
    /// Its own checks, in place of the service's.
    pub health: Field<Vec<At<ParsedHealth>>>,
}

type OfService<T> = Setting<ParsedService, T>;

pub(crate) static SERVICE: Noun<ParsedService> = Noun {
    name: "service",
    head: "[[service]]",
    what: "a service",
    about: "A balanced service behind a virtual address, served by the node that is master.",
    rows: &[
        &NameRow { about: "Name of the service in findings and in the status." },
        &INSTANCE,
        &SERVE,
        &LISTEN,
        &PROTOCOL,
        &BACKEND,
        &SCHEDULER,
        &FORWARDING,
        &SERVICE_HEALTH,
        &FAILED,
        &STANDBY,
        &DRAIN,
        &MAX_CONNECTIONS,
        &MAX_CONNECTIONS_PER_SERVER,
        &MAX_CONNECTIONS_PER_SOURCE,
        &CONNECT_TIMEOUT,
        &IDLE_TIMEOUT,
        &HALF_CLOSED_TIMEOUT,
        &QUORUM,
        &SERVERS,
    ],
};

static INSTANCE: OfService<String> = Setting::new(
    "instance",
    text("the name of an instance in quotes"),
    field!(ParsedService, String, instance),
    Unset::Nothing("the one that has the address listened on"),
    "Instance whose master serves it.",
);

static SERVE: OfService<Serve> = Setting::new(
    "serve",
    Form::Words(&[("master", Serve::Master), ("always", Serve::Always)]),
    field!(ParsedService, Serve, serve),
    Unset::Nothing("\"master\"; in a keepalived.conf every node serves"),
    "Who serves it: the master of its instance, or every node.",
);

static LISTEN: OfService<SocketAddr> = Setting::new(
    "listen",
    toml_only(
        "an address and a port, as in \"192.0.2.10:80\"",
        Schema::Text,
        |reader, value, key| {
            reader.parsed(value, key, |text| {
                text.parse().map_err(|_| format!("`{text}` is not an IP address with a port"))
            })
        },
        ToString::to_string,
    ),
    field!(ParsedService, SocketAddr, listen),
    Unset::Required,
    "Address and port that clients connect to.",
);

pub(crate) static PROTOCOL: OfService<Protocol> = Setting::new(
    "protocol",
    Form::Words(&[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)]),
    field!(ParsedService, Protocol, protocol),
    Unset::Value(|_| Protocol::Tcp, "most services are TCP"),
    "Transport protocol; \"udp\" needs IPVS. A virtual_server without `protocol` is UDP.",
)
.keywords(&[Keyword::Own(Block::VirtualServer, "protocol")]);

pub(crate) static BACKEND: OfService<Backend> = Setting::new(
    "backend",
    toml_only("\"auto\", \"ipvs\" or \"proxy\"", Schema::Text, backend, |backend| match backend {
        Backend::Auto => "\"auto\"".to_owned(),
        Backend::Only(kind) => format!("\"{}\"", kind.name()),
    }),
    field!(ParsedService, Backend, backend),
    Unset::Value(
        |_| Backend::Auto,
        "the kernel's balancer carries more, but not every host has it",
    ),
    "What balances: \"auto\" is IPVS where this host has all that it needs, else the built-in proxy.",
);

pub(crate) static SCHEDULER: OfService<String> = Setting::new(
    "scheduler",
    text("the name of a scheduler, as in \"wlc\""),
    field!(ParsedService, String, scheduler),
    Unset::Value(|_| "wlc".to_owned(), "weighted least connections: keepalived's own"),
    "How a server is chosen: rr, wrr, lc, wlc or sh; with IPVS any that the kernel has.",
)
.keywords(&[
    Keyword::Plain(Block::VirtualServer, "lb_algo"),
    Keyword::Plain(Block::VirtualServer, "lvs_sched"),
]);

const FORWARDING_FORM: Form<Forwarding> = Form::Words(&[
    ("nat", Forwarding::Nat),
    ("direct", Forwarding::Direct),
    ("tunnel", Forwarding::Tunnel),
]);

pub(crate) static FORWARDING: OfService<Forwarding> = Setting::new(
    "forwarding",
    FORWARDING_FORM,
    field!(ParsedService, Forwarding, forwarding),
    Unset::Value(|_| Forwarding::Nat, "the one that works without preparing the servers"),
    "How packets reach the servers; \"direct\" and \"tunnel\" need IPVS.",
)
.keywords(&[
    Keyword::Own(Block::VirtualServer, "lb_kind"),
    Keyword::Own(Block::VirtualServer, "lvs_method"),
]);

static SERVICE_HEALTH: OfService<Vec<At<ParsedHealth>>> = Setting::new(
    "health",
    HEALTHS,
    field!(ParsedService, Vec<At<ParsedHealth>>, health),
    Unset::Nothing("none: every server counts as up"),
    "Health checks of every server that has none of its own. A server is up while all of them are.",
);

pub(crate) static FAILED: OfService<FailedServer> = Setting::new(
    "failed",
    Form::Words(&[("remove", FailedServer::Remove), ("quiesce", FailedServer::Quiesce)]),
    field!(ParsedService, FailedServer, failed),
    Unset::Value(|_| FailedServer::Remove, "what does not answer will not finish either"),
    "What becomes of a server that fails: \"remove\" ends its connections, with the proxy after \
     `drain`; \"quiesce\" lets them go on.",
)
.keywords(&[
    Keyword::Own(Block::VirtualServer, "inhibit_on_failure"),
    Keyword::Own(Block::RealServer, "inhibit_on_failure"),
]);

pub(crate) const STANDBY_FORM: Form<Standby> =
    Form::Words(&[("cold", Standby::Cold), ("warm", Standby::Warm)]);

pub(crate) static STANDBY: OfService<Standby> = Setting::new(
    "standby",
    STANDBY_FORM,
    field!(ParsedService, Standby, standby),
    Unset::Value(|_| Standby::Cold, "a backup that runs nothing can break nothing"),
    "Whether the proxy runs on a backup as well.",
);

pub(crate) static DRAIN: OfService<Duration> = Setting::new(
    "drain",
    TIME,
    field!(ParsedService, Duration, drain),
    Unset::Value(
        |_| Duration::from_secs(30),
        "long enough for most downloads, short enough to wait for",
    ),
    "How long the proxy lets connections go on after it lost its role or their server left, as one \
     that fails does. A server of weight 0 keeps its connections.",
);

static MAX_CONNECTIONS: OfService<u32> =
    limits::max_connections(field!(ParsedService, u32, limits.connections));

static MAX_CONNECTIONS_PER_SERVER: OfService<u32> =
    limits::max_connections_per_server(field!(ParsedService, u32, limits.per_server));

static MAX_CONNECTIONS_PER_SOURCE: OfService<u32> =
    limits::max_connections_per_source(field!(ParsedService, u32, limits.per_source));

static CONNECT_TIMEOUT: OfService<Duration> =
    limits::connect_timeout(field!(ParsedService, Duration, limits.connect));

static IDLE_TIMEOUT: OfService<Duration> =
    limits::idle_timeout(field!(ParsedService, Duration, limits.idle));

static HALF_CLOSED_TIMEOUT: OfService<Duration> =
    limits::half_closed_timeout(field!(ParsedService, Duration, limits.half_closed));

impl ParsedService {
    pub fn limits(&self, dialect: Dialect) -> ServiceLimits {
        ServiceLimits {
            connections: self.limits.connections.value().copied(),
            per_server: self.limits.per_server.value().copied(),
            per_source: self.limits.per_source.value().copied(),
            connect: CONNECT_TIMEOUT.of(self, dialect),
            idle: IDLE_TIMEOUT.of(self, dialect),
            half_closed: HALF_CLOSED_TIMEOUT.of(self, dialect),
        }
    }
}

pub(crate) static QUORUM: OfService<u32> = Setting::new(
    "quorum",
    COUNT,
    field!(ParsedService, u32, quorum),
    Unset::Value(|_| 1, "one server answers more clients than none"),
    "Servers that must be up here for this node to be one that can serve it.",
);

static SERVERS: OfService<Vec<At<ParsedServer>>> = Setting::new(
    "servers",
    list(
        "a list of tables, as in [{ address = \"10.0.0.1:80\", weight = 1 }]",
        Schema::List(&Schema::Any(&[Schema::Text, Schema::Table("server")])),
        |reader, value, key| reader.each(value, key, |reader, item| server(reader, item, key)),
    ),
    field!(ParsedService, Vec<At<ParsedServer>>, servers),
    Unset::Required,
    "Servers that clients are sent to.",
)
.keywords(&[Keyword::Own(Block::VirtualServer, "real_server")]);

fn backend(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<Backend> {
    if let DeValue::String(text) = value.get_ref() {
        let help = match text.as_ref() {
            "haproxy" => Some("run HAProxy from its own file with [[haproxy]]"),
            "nftables" => Some("use \"ipvs\", or \"proxy\" where the kernel has none"),
            _ => None,
        };
        if let Some(help) = help {
            let span = reader.span(value.span());
            let message = format!("the backend \"{text}\" is not available yet");
            reader.report.error(span, "backend-unavailable", message).help(help);
            return None;
        }
    }
    let named = BackendKind::ALL.into_iter().map(|kind| (kind.name(), Backend::Only(kind)));
    let words: Vec<_> = [("auto", Backend::Auto)].into_iter().chain(named).collect();
    reader.word(value, key, &words)
}

type OfServer<T> = Setting<ParsedServer, T>;

pub(crate) static SERVER: Noun<ParsedServer> = Noun {
    name: "server",
    head: "servers = [{ … }]",
    what: "a server",
    about: "A server of a service.",
    rows: &[&SERVER_ADDRESS, &SERVER_WEIGHT, &SERVER_FORWARDING, &SERVER_HEALTH],
};

static SERVER_ADDRESS: OfServer<(IpAddr, Option<u16>)> = Setting::new(
    "address",
    toml_only(
        "an address, with a port where it is not the service's",
        Schema::Text,
        |reader, value, key| reader.parsed(value, key, server_address),
        |(address, _)| address.to_string(),
    ),
    field!(ParsedServer, (IpAddr, Option<u16>), address),
    Unset::Required,
    "Its address, and its port where that is not the service's.",
);

pub(crate) static SERVER_WEIGHT: OfServer<u32> = Setting::new(
    "weight",
    whole(0, 65_535),
    field!(ParsedServer, u32, weight),
    Unset::Value(|_| 1, "all servers alike"),
    "Its share of the clients; 0 takes no new connections and keeps those it has.",
)
.keywords(&[
    Keyword::Plain(Block::RealServer, "weight"),
    Keyword::Plain(Block::VirtualServer, "weight"),
]);

static SERVER_FORWARDING: OfServer<Forwarding> = Setting::new(
    "forwarding",
    FORWARDING_FORM,
    field!(ParsedServer, Forwarding, forwarding),
    Unset::Nothing("that of the service"),
    "How packets reach this server, with IPVS.",
)
.keywords(&[
    Keyword::Own(Block::RealServer, "lb_kind"),
    Keyword::Own(Block::RealServer, "lvs_method"),
]);

static SERVER_HEALTH: OfServer<Vec<At<ParsedHealth>>> = Setting::new(
    "health",
    HEALTHS,
    field!(ParsedServer, Vec<At<ParsedHealth>>, health),
    Unset::Nothing("those of the service"),
    "Its own health checks, in place of those of the service.",
)
.keywords(&[
    Keyword::Own(Block::RealServer, "TCP_CHECK"),
    Keyword::Own(Block::RealServer, "HTTP_GET"),
]);

/// `"10.0.0.1:80"`, or a table with more to say.
fn server(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<ParsedServer> {
    let mut server = ParsedServer::default();
    if let DeValue::String(_) = value.get_ref() {
        let span = reader.span(value.span());
        let address = reader.parsed(value, key, server_address)?;
        server.address = Field::Given(At::new(address, span));
        return Some(server);
    }
    let span = SERVER.open(reader, value, key, &mut server)?;
    if server.address.is_absent() {
        reader.report.error(span, "missing-key", "a server has no `address`");
    }
    server.address.given()?;
    Some(server)
}

/// Address and port, or the address alone for the port of the service.
fn server_address(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Ok((socket.ip(), Some(socket.port())));
    }
    let address = text.parse::<IpAddr>();
    address
        .map(|address| (address, None))
        .map_err(|_| format!("`{text}` is not an IP address, with or without a port"))
}
