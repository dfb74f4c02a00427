//! `[[service]]` and `virtual_server`: a balanced service and its servers.

use std::time::Duration;

use locum_plan::{
    BackendChoice, BackendKind, Command, Encapsulation, FailedServer, Forwarding, HeaderVersion,
    Listener, Protocol, ServiceLimits, SourceNetwork, Standby,
};
use locum_vrrp::Family;

use crate::dialect::Dialect;
use crate::field::Field;
use crate::settings::command::COMMANDS;
use crate::settings::form::{COUNT, Form, SWITCH, Schema, TIME, list, text, toml_only, whole};
use crate::settings::health::{HEALTHS, ParsedHealth};
use crate::settings::http::{HTTP_FORM, ParsedHttp};
use crate::settings::introduction::{self, ParsedIntroduction};
use crate::settings::limits::{self, ParsedLimits};
use crate::settings::listen::{FAMILY_FORM, LISTENERS};
use crate::settings::persistence::{PERSISTENCE_FORM, ParsedPersistence};
use crate::settings::row::{Block, Keyword, NameRow, Noun, Setting, Unset, field};
use crate::settings::server::{
    FAILED_FORM, FORWARDING_FORM, ParsedServer, ParsedSorry, SERVERS_FORM, SORRY_FORM,
};
use crate::settings::tls::{CLIENT_TLS_FORM, ParsedClientTls, ParsedServerTls, SERVER_TLS_FORM};
use crate::settings::tunnel::ENCAPSULATION;
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
    pub listen: Field<Vec<At<Listener>>>,
    pub fwmark: Field<u32>,
    /// Of the mark.
    pub family: Field<Family>,
    pub protocol: Field<Protocol>,
    pub backend: Field<BackendChoice>,
    pub scheduler: Field<String>,
    pub scheduler_flags: Field<Vec<At<String>>>,
    pub persistence: Field<ParsedPersistence>,
    pub one_packet: Field<bool>,
    pub forwarding: Field<Forwarding>,
    pub tunnel: Field<Encapsulation>,
    /// Of every server that has none of its own.
    pub health: Field<Vec<At<ParsedHealth>>>,
    pub failed: Field<FailedServer>,
    pub standby: Field<Standby>,
    pub drain: Field<Duration>,
    pub quorum: Field<u32>,
    pub hysteresis: Field<u32>,
    pub quorum_up: Field<Vec<At<Command>>>,
    pub quorum_down: Field<Vec<At<Command>>>,
    pub sorry: Field<ParsedSorry>,
    pub alpha: Field<bool>,
    pub omega: Field<bool>,
    pub warm_up: Field<Duration>,
    pub slow_start: Field<Duration>,
    pub limits: ParsedLimits,
    pub http: Field<ParsedHttp>,
    pub tls: Field<ParsedClientTls>,
    pub server_tls: Field<ParsedServerTls>,
    pub introduction: ParsedIntroduction,
    pub servers: Field<Vec<At<ParsedServer>>>,
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
        &FWMARK,
        &FAMILY,
        &PROTOCOL,
        &BACKEND,
        &SCHEDULER,
        &SCHEDULER_FLAGS,
        &PERSISTENCE,
        &ONE_PACKET,
        &FORWARDING,
        &TUNNEL,
        &SERVICE_HEALTH,
        &FAILED,
        &STANDBY,
        &DRAIN,
        &MAX_CONNECTIONS,
        &MAX_CONNECTIONS_PER_SERVER,
        &MAX_CONNECTIONS_PER_SOURCE,
        &MAX_WAITING,
        &QUEUE_TIMEOUT,
        &CONNECT_TIMEOUT,
        &IDLE_TIMEOUT,
        &HALF_CLOSED_TIMEOUT,
        &SEND_PROXY,
        &ACCEPT_PROXY,
        &QUORUM,
        &HYSTERESIS,
        &QUORUM_UP,
        &QUORUM_DOWN,
        &SORRY,
        &ALPHA,
        &OMEGA,
        &WARM_UP,
        &SLOW_START,
        &HTTP,
        &TLS,
        &SERVER_TLS,
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

static LISTEN: OfService<Vec<At<Listener>>> = Setting::new(
    "listen",
    LISTENERS,
    field!(ParsedService, Vec<At<Listener>>, listen),
    Unset::Nothing("nowhere; with `fwmark`, or where routes of others lead to it, that is enough"),
    "Addresses and ports that clients connect to. One service may have several: its servers, their \
     health and its quorum are the same for all. Port 0 is every port, with IPVS and `persistence`.",
);

static FWMARK: OfService<u32> = Setting::new(
    "fwmark",
    whole(1, u32::MAX),
    field!(ParsedService, u32, fwmark),
    Unset::Nothing("none"),
    "Serve the packets that a packet filter has given this mark, with IPVS.",
);

pub(crate) static FAMILY: OfService<Family> = Setting::new(
    "family",
    FAMILY_FORM,
    field!(ParsedService, Family, family),
    Unset::Value(|_| Family::V4, "most marks are given to IPv4"),
    "With `fwmark`: of which packets it is the mark.",
);

pub(crate) static PROTOCOL: OfService<Protocol> = Setting::new(
    "protocol",
    Form::Words(&[("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)]),
    field!(ParsedService, Protocol, protocol),
    Unset::Value(|_| Protocol::Tcp, "most services are TCP"),
    "Transport protocol; \"sctp\" needs IPVS or nftables. A virtual_server without `protocol` is UDP.",
)
.keywords(&[Keyword::Own(Block::VirtualServer, "protocol")]);

pub(crate) static BACKEND: OfService<BackendChoice> = Setting::new(
    "backend",
    toml_only(
        "\"auto\", \"ipvs\", \"nftables\", \"proxy\" or \"haproxy\"",
        Schema::Text,
        backend,
        |backend| match backend {
            BackendChoice::Auto => "\"auto\"".to_owned(),
            BackendChoice::Only(kind) => format!("\"{}\"", kind.name()),
        },
    ),
    field!(ParsedService, BackendChoice, backend),
    Unset::Value(
        |_| BackendChoice::Auto,
        "the kernel's balancer carries more, but not every host has it",
    ),
    "What balances: \"auto\" is the first of IPVS, nftables and the built-in proxy that can do what \
     the service asks and has on this host all that it needs; \"haproxy\" runs the HAProxy of the \
     host with a configuration made from the service, which `locum service show-haproxy` prints.",
);

pub(crate) static SCHEDULER: OfService<String> = Setting::new(
    "scheduler",
    text("the name of a scheduler, as in \"wlc\""),
    field!(ParsedService, String, scheduler),
    Unset::Value(|_| "wlc".to_owned(), "weighted least connections: keepalived's own"),
    "How a server is chosen: rr, wrr, lc, wlc, sed, nq, fo, ovf, sh or mh; with nftables rr, wrr, sh \
     or mh; with HAProxy all but sed, nq and ovf; with IPVS any that the kernel has.",
)
.keywords(&[
    Keyword::Plain(Block::VirtualServer, "lb_algo"),
    Keyword::Plain(Block::VirtualServer, "lvs_sched"),
]);

static SCHEDULER_FLAGS: OfService<Vec<At<String>>> = Setting::new(
    "scheduler_flags",
    list(
        "a list of words, as in [\"sh-port\", \"sh-fallback\"]",
        Schema::List(&Schema::Text),
        |reader, value, key| reader.each(value, key, |reader, item| reader.text(item, key)),
    ),
    field!(ParsedService, Vec<At<String>>, scheduler_flags),
    Unset::Nothing("none"),
    "Options of the scheduler, with IPVS: sh-port, sh-fallback, mh-port, mh-fallback, or flag-1 to \
     flag-3.",
)
.keywords(&[
    Keyword::Own(Block::VirtualServer, "flag-1"),
    Keyword::Own(Block::VirtualServer, "flag-2"),
    Keyword::Own(Block::VirtualServer, "flag-3"),
    Keyword::Own(Block::VirtualServer, "sh-port"),
    Keyword::Own(Block::VirtualServer, "sh-fallback"),
    Keyword::Own(Block::VirtualServer, "mh-port"),
    Keyword::Own(Block::VirtualServer, "mh-fallback"),
]);

static PERSISTENCE: OfService<ParsedPersistence> = Setting::new(
    "persistence",
    PERSISTENCE_FORM,
    field!(ParsedService, ParsedPersistence, persistence),
    Unset::Nothing("a client may come to another server each time"),
    "Keep each client on the server that it came to first.",
);

static ONE_PACKET: OfService<bool> = Setting::new(
    "one_packet",
    SWITCH,
    field!(ParsedService, bool, one_packet),
    Unset::Nothing("datagrams of one client port go to one server"),
    "With UDP: choose a server for each datagram, as many small questions from few clients need.",
)
.keywords(&[Keyword::Plain(Block::VirtualServer, "ops")]);

static TUNNEL: OfService<Encapsulation> = Setting::new(
    "tunnel",
    ENCAPSULATION,
    field!(ParsedService, Encapsulation, tunnel),
    Unset::Nothing("\"ipip\""),
    "With `forwarding = \"tunnel\"`: how packets are wrapped for the servers.",
);

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
    FAILED_FORM,
    field!(ParsedService, FailedServer, failed),
    Unset::Value(|_| FailedServer::Remove, "what does not answer will not finish either"),
    "What becomes of a server that fails: \"remove\" ends its connections, \"quiesce\" lets them go on.",
)
.keywords(&[Keyword::Own(Block::VirtualServer, "inhibit_on_failure")]);

pub(crate) const STANDBY_FORM: Form<Standby> =
    Form::Words(&[("cold", Standby::Cold), ("warm", Standby::Warm)]);

pub(crate) static STANDBY: OfService<Standby> = Setting::new(
    "standby",
    STANDBY_FORM,
    field!(ParsedService, Standby, standby),
    Unset::Follows(
        "\"cold\"; with HAProxy \"warm\"",
        "a backup that runs nothing can break nothing, and a HAProxy takes its time to start",
    ),
    "Whether the proxy or HAProxy runs on a backup as well.",
);

pub(crate) static DRAIN: OfService<Duration> = Setting::new(
    "drain",
    TIME,
    field!(ParsedService, Duration, drain),
    Unset::Value(
        |_| Duration::from_secs(30),
        "long enough for most downloads, short enough to wait for",
    ),
    "How long the proxy lets connections go on after it lost its role, or their server the \
     configuration, or another process took its place, as after an upgrade. Those of a server that fails end at once. A server of weight 0 keeps its connections. Clients of UDP are given to \
     another server with their next datagram, and answers that come late are passed on. \
     HAProxy: after it lost its role; connections to a server that left are cut at once.",
);

static MAX_CONNECTIONS: OfService<u32> =
    limits::max_connections(field!(ParsedService, u32, limits.connections));

static MAX_CONNECTIONS_PER_SERVER: OfService<u32> =
    limits::max_connections_per_server(field!(ParsedService, u32, limits.per_server));

static MAX_CONNECTIONS_PER_SOURCE: OfService<u32> =
    limits::max_connections_per_source(field!(ParsedService, u32, limits.per_source));

static MAX_WAITING: OfService<u32> =
    limits::max_waiting(field!(ParsedService, u32, limits.waiting));

static QUEUE_TIMEOUT: OfService<Duration> =
    limits::queue_timeout(field!(ParsedService, Duration, limits.queue));

static CONNECT_TIMEOUT: OfService<Duration> =
    limits::connect_timeout(field!(ParsedService, Duration, limits.connect));

static IDLE_TIMEOUT: OfService<Duration> =
    limits::idle_timeout(field!(ParsedService, Duration, limits.idle));

static HALF_CLOSED_TIMEOUT: OfService<Duration> =
    limits::half_closed_timeout(field!(ParsedService, Duration, limits.half_closed));

static SEND_PROXY: OfService<HeaderVersion> =
    introduction::send_proxy(field!(ParsedService, HeaderVersion, introduction.sent));

static ACCEPT_PROXY: OfService<Vec<At<SourceNetwork>>> = introduction::accept_proxy(field!(
    ParsedService,
    Vec<At<SourceNetwork>>,
    introduction.accepted
));

impl ParsedService {
    pub fn limits(&self, dialect: Dialect) -> ServiceLimits {
        ServiceLimits {
            connections: self.limits.connections.value().copied(),
            per_server: self.limits.per_server.value().copied(),
            per_source: self.limits.per_source.value().copied(),
            waiting: self.limits.waiting.value().copied(),
            queue: QUEUE_TIMEOUT.of(self, dialect),
            connect: CONNECT_TIMEOUT.of(self, dialect),
            idle: match self.protocol.value() {
                Some(Protocol::Udp) if self.limits.idle.is_absent() => {
                    ServiceLimits::DATAGRAMS_IDLE
                }
                Some(_) | None => IDLE_TIMEOUT.of(self, dialect),
            },
            half_closed: HALF_CLOSED_TIMEOUT.of(self, dialect),
        }
    }
}

pub(crate) static QUORUM: OfService<u32> = Setting::new(
    "quorum",
    COUNT,
    field!(ParsedService, u32, quorum),
    Unset::Value(|_| 1, "one server answers more clients than none"),
    "Servers that must be up here for this node to be one that can serve it. In a keepalived.conf \
     their weights are summed.",
)
.keywords(&[Keyword::Plain(Block::VirtualServer, "quorum")]);

pub(crate) static HYSTERESIS: OfService<u32> = Setting::new(
    "hysteresis",
    whole(0, 1_000_000),
    field!(ParsedService, u32, hysteresis),
    Unset::Value(|_| 0, "with few servers each one counts"),
    "The quorum is lost below `quorum` less this, and reached again at `quorum` plus this.",
)
.keywords(&[Keyword::Plain(Block::VirtualServer, "hysteresis")]);

static QUORUM_UP: OfService<Vec<At<Command>>> = Setting::new(
    "quorum_up",
    COMMANDS,
    field!(ParsedService, Vec<At<Command>>, quorum_up),
    Unset::Nothing("none"),
    "Programs that are run when the quorum is reached again; LOCUM_SERVICE is the service.",
)
.keywords(&[Keyword::Own(Block::VirtualServer, "quorum_up")]);

static QUORUM_DOWN: OfService<Vec<At<Command>>> = Setting::new(
    "quorum_down",
    COMMANDS,
    field!(ParsedService, Vec<At<Command>>, quorum_down),
    Unset::Nothing("none"),
    "Programs that are run when the quorum is lost; LOCUM_SERVICE is the service.",
)
.keywords(&[Keyword::Own(Block::VirtualServer, "quorum_down")]);

static SORRY: OfService<ParsedSorry> = Setting::new(
    "sorry",
    SORRY_FORM,
    field!(ParsedService, ParsedSorry, sorry),
    Unset::Nothing("the servers that are left keep the clients"),
    "Server that has the clients while the quorum is lost. In the election a service on it counts as \
     one that cannot be served.",
)
.keywords(&[Keyword::Own(Block::VirtualServer, "sorry_server")]);

pub(crate) static ALPHA: OfService<bool> = Setting::new(
    "alpha",
    SWITCH,
    field!(ParsedService, bool, alpha),
    Unset::Value(|_| false, "a new master must not start empty"),
    "Servers are down until their checks have passed, and not up until one fails.",
)
.keywords(&[Keyword::Plain(Block::VirtualServer, "alpha")]);

pub(crate) static OMEGA: OfService<bool> = Setting::new(
    "omega",
    SWITCH,
    field!(ParsedService, bool, omega),
    Unset::Value(|_| false, "a daemon that is restarted leaves its servers as they are"),
    "When the daemon stops, `notify_down` of what is up and `quorum_down` are run.",
)
.keywords(&[Keyword::Plain(Block::VirtualServer, "omega")]);

pub(crate) static WARM_UP: OfService<Duration> = Setting::new(
    "warm_up",
    TIME,
    field!(ParsedService, Duration, warm_up),
    Unset::Value(|_| Duration::ZERO, "what is not known of a server is known soon"),
    "The first checks of its servers are spread over this time after the start.",
)
.keywords(&[Keyword::Plain(Block::VirtualServer, "warmup")]);

pub(crate) static SLOW_START: OfService<Duration> = Setting::new(
    "slow_start",
    TIME,
    field!(ParsedService, Duration, slow_start),
    Unset::Value(|_| Duration::ZERO, "most servers are at their best at once"),
    "A server that came up gets its weight in ten steps over this time.",
);

static HTTP: OfService<ParsedHttp> = Setting::new(
    "http",
    HTTP_FORM,
    field!(ParsedService, ParsedHttp, http),
    Unset::Nothing("connections are passed on, whatever is said on them"),
    "With HAProxy: look at each request, route it, keep its client on a server.",
);

static TLS: OfService<ParsedClientTls> = Setting::new(
    "tls",
    CLIENT_TLS_FORM,
    field!(ParsedService, ParsedClientTls, tls),
    Unset::Nothing("TLS of clients is passed on as it is"),
    "With HAProxy: end the TLS of clients.",
);

static SERVER_TLS: OfService<ParsedServerTls> = Setting::new(
    "server_tls",
    SERVER_TLS_FORM,
    field!(ParsedService, ParsedServerTls, server_tls),
    Unset::Nothing("servers get what clients say, or what `tls` has left of it"),
    "With HAProxy: speak TLS to the servers.",
);

static SERVERS: OfService<Vec<At<ParsedServer>>> = Setting::new(
    "servers",
    SERVERS_FORM,
    field!(ParsedService, Vec<At<ParsedServer>>, servers),
    Unset::Required,
    "Servers that clients are sent to.",
)
.keywords(&[Keyword::Own(Block::VirtualServer, "real_server")]);

fn backend(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<BackendChoice> {
    let named = BackendKind::ALL.into_iter().map(|kind| (kind.name(), BackendChoice::Only(kind)));
    let words: Vec<_> = [("auto", BackendChoice::Auto)].into_iter().chain(named).collect();
    reader.word(value, key, &words)
}
