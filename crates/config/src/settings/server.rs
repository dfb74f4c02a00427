//! The servers of a service, and the one for when they are gone.

use std::net::IpAddr;
use std::time::Duration;

use ::toml::de::DeValue;
use locum_plan::{Command, Encapsulation, FailedServer, Forwarding, MAX_WEIGHT};

use crate::field::Field;
use crate::keepalived::blocks::Statement;
use crate::keepalived::lowering::Lowering;
use crate::settings::command::COMMANDS;
use crate::settings::form::{Form, SWITCH, Schema, TIME, list, toml_only, whole};
use crate::settings::health::{HEALTHS, ParsedHealth};
use crate::settings::introduction::{self, ServerHeader};
use crate::settings::row::{Block, Keyword, Noun, Setting, Unset, field};
use crate::settings::tunnel::ENCAPSULATION;
use crate::span::At;
use crate::toml::reader::{Key, Reader, Value};
use crate::values;

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedServer {
    /// Without a port it is the service's own.
    pub address: Field<(IpAddr, Option<u16>)>,
    pub weight: Field<u32>,
    pub forwarding: Field<Forwarding>,
    pub tunnel: Field<Encapsulation>,
    pub failed: Field<FailedServer>,
    pub max_connections: Field<u32>,
    pub min_connections: Field<u32>,
    pub introduced: Field<ServerHeader>,
    pub alpha: Field<bool>,
    pub warm_up: Field<Duration>,
    pub up: Field<Vec<At<Command>>>,
    pub down: Field<Vec<At<Command>>>,
    /// Its own checks, in place of the service's.
    pub health: Field<Vec<At<ParsedHealth>>>,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedSorry {
    /// Without a port it is the service's own.
    pub address: Field<(IpAddr, Option<u16>)>,
    pub forwarding: Field<Forwarding>,
    pub tunnel: Field<Encapsulation>,
    pub unused: Field<FailedServer>,
}

pub(crate) const SERVERS_FORM: Form<Vec<At<ParsedServer>>> = list(
    "a list of tables, as in [{ address = \"10.0.0.1:80\", weight = 1 }]",
    Schema::List(&Schema::Any(&[Schema::Text, Schema::Table("server")])),
    |reader, value, key| reader.each(value, key, |reader, item| server(reader, item, key)),
);

pub(crate) const SORRY_FORM: Form<ParsedSorry> = toml_only(
    "the address of a server, or a table as in { address = \"10.0.0.9:80\" }",
    Schema::Any(&[Schema::Text, Schema::Table("sorry")]),
    sorry,
    |_| String::new(),
);

pub(crate) const FORWARDING_FORM: Form<Forwarding> = Form::Words(&[
    ("nat", Forwarding::Nat),
    ("direct", Forwarding::Direct),
    ("tunnel", Forwarding::Tunnel),
]);

pub(crate) const FAILED_FORM: Form<FailedServer> =
    Form::Words(&[("remove", FailedServer::Remove), ("quiesce", FailedServer::Quiesce)]);

const ADDRESS_FORM: Form<(IpAddr, Option<u16>)> = toml_only(
    "an address, with a port where it is not the service's",
    Schema::Text,
    |reader, value, key| reader.parsed(value, key, values::address_and_port),
    |(address, _)| address.to_string(),
);

/// What the kernel can count to is more; this is more than any host can have.
const CONNECTIONS: Form<u32> = whole(1, MOST_CONNECTIONS as u32);
const MOST_CONNECTIONS: i64 = 100_000_000;

type OfServer<T> = Setting<ParsedServer, T>;

pub(crate) static SERVER: Noun<ParsedServer> = Noun {
    name: "server",
    head: "servers = [{ … }]",
    what: "a server",
    about: "A server of a service.",
    rows: &[
        &ADDRESS,
        &WEIGHT,
        &FORWARDING,
        &TUNNEL,
        &FAILED,
        &MAX_CONNECTIONS,
        &MIN_CONNECTIONS,
        &SEND_PROXY,
        &ALPHA,
        &WARM_UP,
        &NOTIFY_UP,
        &NOTIFY_DOWN,
        &HEALTH,
    ],
};

static ADDRESS: OfServer<(IpAddr, Option<u16>)> = Setting::new(
    "address",
    ADDRESS_FORM,
    field!(ParsedServer, (IpAddr, Option<u16>), address),
    Unset::Required,
    "Its address, and its port where that is not the service's. Of a service with several ports, or \
     with none of its own, a server without a port has the one that the client asked for.",
);

pub(crate) static WEIGHT: OfServer<u32> = Setting::new(
    "weight",
    whole(0, MAX_WEIGHT),
    field!(ParsedServer, u32, weight),
    Unset::Value(|_| 1, "all servers alike"),
    "Its share of the clients; 0 takes no new connections and keeps those it has.",
)
.keywords(&[
    Keyword::Plain(Block::RealServer, "weight"),
    Keyword::Plain(Block::VirtualServer, "weight"),
]);

static FORWARDING: OfServer<Forwarding> = Setting::new(
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

static TUNNEL: OfServer<Encapsulation> = Setting::new(
    "tunnel",
    ENCAPSULATION,
    field!(ParsedServer, Encapsulation, tunnel),
    Unset::Nothing("that of the service"),
    "With `forwarding = \"tunnel\"`: how packets are wrapped for this server.",
);

static FAILED: OfServer<FailedServer> = Setting::new(
    "failed",
    FAILED_FORM,
    field!(ParsedServer, FailedServer, failed),
    Unset::Nothing("that of the service"),
    "What becomes of this server when it fails.",
)
.keywords(&[Keyword::Own(Block::RealServer, "inhibit_on_failure")]);

static MAX_CONNECTIONS: OfServer<u32> = Setting::new(
    "max_connections",
    CONNECTIONS,
    field!(ParsedServer, u32, max_connections),
    Unset::Nothing("no limit"),
    "With so many connections it gets no new ones.",
)
.keywords(&[
    Keyword::By(Block::RealServer, "uthreshold", threshold),
    Keyword::By(Block::VirtualServer, "uthreshold", threshold),
]);

static MIN_CONNECTIONS: OfServer<u32> = Setting::new(
    "min_connections",
    CONNECTIONS,
    field!(ParsedServer, u32, min_connections),
    Unset::Nothing("three quarters of `max_connections`, as the kernel has it"),
    "Once it had the most, it gets new ones when it has fewer than this.",
)
.keywords(&[
    Keyword::By(Block::RealServer, "lthreshold", threshold),
    Keyword::By(Block::VirtualServer, "lthreshold", threshold),
]);

/// 0 is no limit, to keepalived as to the kernel.
fn threshold(lowering: &mut Lowering<'_>, statement: &Statement) -> Option<At<u32>> {
    lowering.first_number(statement, 0..=MOST_CONNECTIONS)
}

static SEND_PROXY: OfServer<ServerHeader> =
    introduction::send_proxy_to(field!(ParsedServer, ServerHeader, introduced));

static ALPHA: OfServer<bool> = Setting::new(
    "alpha",
    SWITCH,
    field!(ParsedServer, bool, alpha),
    Unset::Nothing("that of the service"),
    "It is down until its checks have passed, and not up until one fails.",
)
.keywords(&[Keyword::Plain(Block::RealServer, "alpha")]);

static WARM_UP: OfServer<Duration> = Setting::new(
    "warm_up",
    TIME,
    field!(ParsedServer, Duration, warm_up),
    Unset::Nothing("that of the service"),
    "Its first check is at most this long after the start.",
)
.keywords(&[Keyword::Plain(Block::RealServer, "warmup")]);

static NOTIFY_UP: OfServer<Vec<At<Command>>> = Setting::new(
    "notify_up",
    COMMANDS,
    field!(ParsedServer, Vec<At<Command>>, up),
    Unset::Nothing("none"),
    "Programs that are run when it comes up; LOCUM_SERVER is its address.",
)
.keywords(&[Keyword::Own(Block::RealServer, "notify_up")]);

static NOTIFY_DOWN: OfServer<Vec<At<Command>>> = Setting::new(
    "notify_down",
    COMMANDS,
    field!(ParsedServer, Vec<At<Command>>, down),
    Unset::Nothing("none"),
    "Programs that are run when it goes down; LOCUM_SERVER is its address.",
)
.keywords(&[Keyword::Own(Block::RealServer, "notify_down")]);

static HEALTH: OfServer<Vec<At<ParsedHealth>>> = Setting::new(
    "health",
    HEALTHS,
    field!(ParsedServer, Vec<At<ParsedHealth>>, health),
    Unset::Nothing("those of the service"),
    "Its own health checks, in place of those of the service.",
)
.keywords(&[
    Keyword::Own(Block::RealServer, "TCP_CHECK"),
    Keyword::Own(Block::RealServer, "HTTP_GET"),
    Keyword::Own(Block::RealServer, "SSL_GET"),
    Keyword::Own(Block::RealServer, "MISC_CHECK"),
    Keyword::Own(Block::RealServer, "SMTP_CHECK"),
    Keyword::Own(Block::RealServer, "DNS_CHECK"),
    Keyword::Own(Block::RealServer, "UDP_CHECK"),
    Keyword::Own(Block::RealServer, "PING_CHECK"),
]);

type OfSorry<T> = Setting<ParsedSorry, T>;

pub(crate) static SORRY: Noun<ParsedSorry> = Noun {
    name: "sorry",
    head: "sorry = { … }",
    what: "a sorry server",
    about: "The server that has the clients of a service while its quorum is lost. Nobody checks it.",
    rows: &[&SORRY_ADDRESS, &SORRY_FORWARDING, &SORRY_TUNNEL, &SORRY_UNUSED],
};

static SORRY_ADDRESS: OfSorry<(IpAddr, Option<u16>)> = Setting::new(
    "address",
    ADDRESS_FORM,
    field!(ParsedSorry, (IpAddr, Option<u16>), address),
    Unset::Required,
    "Its address, and its port where that is not the service's.",
);

static SORRY_FORWARDING: OfSorry<Forwarding> = Setting::new(
    "forwarding",
    FORWARDING_FORM,
    field!(ParsedSorry, Forwarding, forwarding),
    Unset::Nothing("that of the service"),
    "How packets reach it.",
)
.keywords(&[Keyword::Own(Block::VirtualServer, "sorry_server_lvs_method")]);

static SORRY_TUNNEL: OfSorry<Encapsulation> = Setting::new(
    "tunnel",
    ENCAPSULATION,
    field!(ParsedSorry, Encapsulation, tunnel),
    Unset::Nothing("that of the service"),
    "With `forwarding = \"tunnel\"`: how packets are wrapped for it.",
);

pub(crate) static SORRY_UNUSED: OfSorry<FailedServer> = Setting::new(
    "unused",
    FAILED_FORM,
    field!(ParsedSorry, FailedServer, unused),
    Unset::Value(|_| FailedServer::Remove, "its clients come back to the service"),
    "What becomes of it when the quorum is reached again: \"remove\" ends its connections, \"quiesce\" \
     lets them go on.",
)
.keywords(&[Keyword::Own(Block::VirtualServer, "sorry_server_inhibit")]);

/// `"10.0.0.1:80"`, or a table with more to say.
fn server(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<ParsedServer> {
    let mut server = ParsedServer::default();
    if let DeValue::String(_) = value.get_ref() {
        let span = reader.span(value.span());
        let address = reader.parsed(value, key, values::address_and_port)?;
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

fn sorry(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<ParsedSorry> {
    let mut sorry = ParsedSorry::default();
    if let DeValue::String(_) = value.get_ref() {
        let span = reader.span(value.span());
        let address = reader.parsed(value, key, values::address_and_port)?;
        sorry.address = Field::Given(At::new(address, span));
        return Some(sorry);
    }
    let span = SORRY.open(reader, value, key, &mut sorry)?;
    if sorry.address.is_absent() {
        reader.report.error(span, "missing-key", "a sorry server has no `address`");
    }
    sorry.address.given()?;
    Some(sorry)
}
