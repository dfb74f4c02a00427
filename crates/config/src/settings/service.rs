//! `[[service]]` and `virtual_server`: a balanced service, its servers and their health checks.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ::toml::de::DeValue;
use locum_plan::{
    Backend, BackendKind, FailedServer, Forwarding, Protocol, Question, ServiceLimits, Standby,
    StatusRange,
};

use crate::dialect::Dialect;
use crate::field::Field;
use crate::settings::check::{EXPECT_FORM, HOST_FORM, success};
use crate::settings::form::{COUNT, Form, SWITCH, Schema, TIME, list, text, toml_only, whole};
use crate::settings::limits::{self, ParsedLimits};
use crate::settings::row::{Block, Keyword, NameRow, Noun, Setting, Unset, field};
use crate::span::{At, Span};
use crate::toml::reader::{Key, Reader, Value};
use crate::values;

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

/// One health check of the servers it is of.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedHealth {
    /// What `tcp` and `http` come to.
    pub question: Field<Question>,
    pub tcp: Field<bool>,
    pub http: Field<String>,
    pub expect: Field<Vec<StatusRange>>,
    pub host: Field<String>,
    /// Port to ask; the server's own when absent.
    pub port: Field<u16>,
    pub interval: Field<Duration>,
    pub timeout: Field<Duration>,
    pub rise: Field<u32>,
    pub fall: Field<u32>,
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

type OfHealth<T> = Setting<ParsedHealth, T>;

/// One health check, or a list of them.
const HEALTHS: Form<Vec<At<ParsedHealth>>> = list(
    "\"tcp\", a table as in { http = \"/health\", interval = \"2s\" }, or a list of them",
    Schema::Any(&[
        Schema::Text,
        Schema::Table("health"),
        Schema::List(&Schema::Any(&[Schema::Text, Schema::Table("health")])),
    ]),
    |reader, value, key| match value.get_ref() {
        DeValue::Array(_) => reader.each(value, key, |reader, item| health(reader, item, key)),
        _other => {
            let span = reader.span(value.span());
            health(reader, value, key).map(|health| vec![At::new(health, span)])
        }
    },
);

pub(crate) static HEALTH: Noun<ParsedHealth> = Noun {
    name: "health",
    head: "health = { … }",
    what: "a health check",
    about: "A health check of a server. It asks one thing: `tcp` or `http`.",
    rows: &[
        &TCP,
        &HTTP,
        &HEALTH_EXPECT,
        &HEALTH_HOST,
        &HEALTH_PORT,
        &HEALTH_INTERVAL,
        &HEALTH_TIMEOUT,
        &HEALTH_RISE,
        &HEALTH_FALL,
    ],
};

static TCP: OfHealth<bool> = Setting::new(
    "tcp",
    SWITCH,
    field!(ParsedHealth, bool, tcp),
    Unset::Nothing("false"),
    "The server must accept a connection.",
);

static HTTP: OfHealth<String> = Setting::new(
    "http",
    toml_only(
        "a path, as in \"/health\"",
        Schema::Text,
        |reader, value, key| reader.parsed(value, key, values::http_path),
        String::clone,
    ),
    field!(ParsedHealth, String, http),
    Unset::Nothing("none"),
    "The server must answer this path.",
)
.keywords(&[Keyword::Own(Block::Checker, "url")]);

static HEALTH_EXPECT: OfHealth<Vec<StatusRange>> = Setting::new(
    "expect",
    EXPECT_FORM,
    field!(ParsedHealth, Vec<StatusRange>, expect),
    Unset::Value(|_| success(), "the codes of success"),
    "With `http`: status codes that are a success.",
);

static HEALTH_HOST: OfHealth<String> = Setting::new(
    "host",
    HOST_FORM,
    field!(ParsedHealth, String, host),
    Unset::Nothing("the address of the server"),
    "With `http`: value of the Host header.",
)
.keywords(&[Keyword::Own(Block::Checker, "virtualhost")]);

static HEALTH_PORT: OfHealth<u16> = Setting::new(
    "port",
    Form::Whole {
        low: 1,
        high: 65_535,
        make: |number| u16::try_from(number).ok(),
        number: |port| i64::from(*port),
    },
    field!(ParsedHealth, u16, port),
    Unset::Nothing("the server's own"),
    "Port to ask.",
)
.keywords(&[Keyword::Plain(Block::Checker, "connect_port")]);

pub(crate) static HEALTH_INTERVAL: OfHealth<Duration> = Setting::new(
    "interval",
    TIME,
    field!(ParsedHealth, Duration, interval),
    Unset::Value(
        |dialect| match dialect {
            Dialect::Toml => Duration::from_secs(2),
            Dialect::Keepalived => Duration::from_secs(60),
        },
        "a failed server is seen after `fall` of them",
    ),
    "Time from the start of one run to the start of the next.",
)
.keywords(&[
    Keyword::Plain(Block::Checker, "delay_loop"),
    Keyword::Plain(Block::RealServer, "delay_loop"),
    Keyword::Plain(Block::VirtualServer, "delay_loop"),
]);

static HEALTH_TIMEOUT: OfHealth<Duration> = Setting::new(
    "timeout",
    TIME,
    field!(ParsedHealth, Duration, timeout),
    Unset::Follows(
        "`interval`, at most \"5s\"; in a keepalived.conf \"5s\"",
        "long enough for a TCP retransmission",
    ),
    "A run that takes longer has failed.",
)
.keywords(&[
    Keyword::Plain(Block::Checker, "connect_timeout"),
    Keyword::Plain(Block::RealServer, "connect_timeout"),
    Keyword::Plain(Block::VirtualServer, "connect_timeout"),
]);

impl ParsedHealth {
    /// The time-out, or what follows from the interval.
    pub fn timeout(&self, dialect: Dialect) -> Duration {
        const LONGEST: Duration = Duration::from_secs(5);
        let default = match dialect {
            Dialect::Toml => HEALTH_INTERVAL.of(self, dialect).min(LONGEST),
            Dialect::Keepalived => LONGEST,
        };
        self.timeout.value().copied().unwrap_or(default)
    }
}

pub(crate) static HEALTH_RISE: OfHealth<u32> = Setting::new(
    "rise",
    COUNT,
    field!(ParsedHealth, u32, rise),
    Unset::Value(
        |dialect| match dialect {
            Dialect::Toml => 2,
            Dialect::Keepalived => 1,
        },
        "the first good answer may come from a server that is half started",
    ),
    "Successes in a row until it is up.",
);

pub(crate) static HEALTH_FALL: OfHealth<u32> = Setting::new(
    "fall",
    COUNT,
    field!(ParsedHealth, u32, fall),
    Unset::Value(
        |dialect| match dialect {
            Dialect::Toml => 3,
            Dialect::Keepalived => 2,
        },
        "taking a server out shifts its load to the others; keepalived's `retry 1` is the second \
         failure",
    ),
    "Failures in a row until it is down.",
)
.keywords(&[
    Keyword::By(Block::Checker, "retry", retries),
    Keyword::By(Block::Checker, "nb_get_retry", retries),
    Keyword::By(Block::RealServer, "retry", retries),
    Keyword::By(Block::VirtualServer, "retry", retries),
]);

/// keepalived counts the tries after the first failure.
fn retries(
    lowering: &mut crate::keepalived::lowering::Lowering<'_>,
    statement: &crate::keepalived::blocks::Statement,
) -> Option<At<u32>> {
    const MOST: i64 = 1_000;
    let retries: At<u32> = lowering.first_number(statement, 0..=MOST)?;
    Some(retries.map(|retries| retries + 1))
}

fn health(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<ParsedHealth> {
    let span = reader.span(value.span());
    let mut health = ParsedHealth::default();
    if let DeValue::String(text) = value.get_ref()
        && text == "tcp"
    {
        health.question = Field::Given(At::new(Question::Tcp, span));
        return Some(health);
    }
    let span = HEALTH.open(reader, value, key, &mut health)?;
    let question = question(reader, span, &health)?;
    health.question = Field::Given(question);
    Some(health)
}

/// `tcp = true`, or `http = "/path"` with what goes along.
fn question(reader: &mut Reader<'_>, span: Span, health: &ParsedHealth) -> Option<At<Question>> {
    let wants_tcp = health.tcp.value() == Some(&true);
    match (wants_tcp, &health.http) {
        (true, Field::Absent) => {
            let misplaced = [
                ("expect", health.expect.given().map(|at| at.span)),
                ("host", health.host.given().map(|at| at.span)),
            ];
            for (name, span) in misplaced {
                if let Some(span) = span {
                    let text = format!("`{name}` means nothing beside `tcp`");
                    reader.report.error(span, "misplaced-key", text);
                }
            }
            health.tcp.given().map(|at| At::new(Question::Tcp, at.span))
        }
        (true, Field::Bad | Field::Given(_)) => {
            let text = "a health check asks one thing: `tcp` or `http`, not both";
            reader.report.error(span, "two-probes", text);
            None
        }
        (false, Field::Given(path)) => {
            let expect = HEALTH_EXPECT.of(health, Dialect::Toml);
            let host = health.host.value().cloned();
            let path = path.clone();
            Some(path.map(|path| Question::Http { path, host, expect }))
        }
        (false, Field::Bad) => None,
        (false, Field::Absent) => {
            if !health.tcp.is_bad() {
                let text = "a health check has neither `tcp = true` nor `http = \"/path\"`";
                reader.report.error(span, "missing-key", text);
            }
            None
        }
    }
}
