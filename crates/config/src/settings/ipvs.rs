//! `[ipvs]`: what a node asks of the kernel's load balancer as a whole.

use std::net::IpAddr;
use std::time::Duration;

use crate::dialect::Dialect;
use crate::duration;
use crate::field::Field;
use crate::settings::form::{Form, SWITCH, Schema, ip_address, octet, text, toml_only, whole_u16};
use crate::settings::row::{FieldAccess, Nested, Noun, Setting, Unset, field};
use crate::span::Span;
use crate::toml::reader::{Key, Reader, Value};

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedIpvs {
    pub tcp: Field<Duration>,
    pub tcp_fin: Field<Duration>,
    pub udp: Field<Duration>,
    pub expire_nodest_conn: Field<bool>,
    pub expire_quiescent_template: Field<bool>,
    pub conn_reuse_mode: Field<u8>,
    pub sync: ParsedSync,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedSync {
    /// Where the table is; `None` when there is none.
    pub span: Option<Span>,
    pub interface: Field<String>,
    pub instance: Field<String>,
    pub id: Field<u8>,
    pub longest: Field<u16>,
    pub group: Field<IpAddr>,
    pub port: Field<u16>,
    pub ttl: Field<u8>,
    pub threshold: Field<(u32, u32)>,
    pub refresh: Field<Duration>,
}

pub(crate) static IPVS: Noun<ParsedIpvs> = Noun {
    name: "ipvs",
    head: "[ipvs]",
    what: "the ipvs settings",
    about: "What all services of the kernel's load balancer have in common, while this node serves one.",
    rows: &[
        &TCP,
        &TCP_FIN,
        &UDP,
        &EXPIRE_NODEST_CONN,
        &EXPIRE_QUIESCENT_TEMPLATE,
        &CONN_REUSE_MODE,
        &SYNC_TABLE,
    ],
};

/// The kernel counts them in ticks of at most a millisecond, in 32 bits.
const MOST_SECONDS: u64 = 2_000_000;

const WHOLE_SECONDS: Form<Duration> = toml_only(
    "a duration in quotes of whole seconds, as in \"15m\"",
    Schema::Duration,
    |reader, value, key| {
        let time = reader.duration(value, key)?;
        let is_whole = time.subsec_nanos() == 0;
        if !is_whole || !(1..=MOST_SECONDS).contains(&time.as_secs()) {
            reader.bad_value(value, key, "the kernel takes whole seconds from 1 s to 2,000,000 s");
            return None;
        }
        Some(time)
    },
    |time| format!("\"{}\"", duration::spell(*time)),
);

const fn timeout(
    key: &'static str,
    place: FieldAccess<ParsedIpvs, Duration>,
    about: &'static str,
) -> Setting<ParsedIpvs, Duration> {
    Setting::new(key, WHOLE_SECONDS, place, Unset::Nothing("the kernel's"), about)
}

static TCP: Setting<ParsedIpvs, Duration> = timeout(
    "tcp_timeout",
    field!(ParsedIpvs, Duration, tcp),
    "How long IPVS remembers a TCP connection on which nothing moves. What it forgot is cut.",
);

static TCP_FIN: Setting<ParsedIpvs, Duration> = timeout(
    "tcp_fin_timeout",
    field!(ParsedIpvs, Duration, tcp_fin),
    "The same once one side has closed it.",
);

static UDP: Setting<ParsedIpvs, Duration> = timeout(
    "udp_timeout",
    field!(ParsedIpvs, Duration, udp),
    "How long a client's datagrams go to the same server when there is a pause between them.",
);

pub(crate) static EXPIRE_NODEST_CONN: Setting<ParsedIpvs, bool> = Setting::new(
    "expire_nodest_conn",
    SWITCH,
    field!(ParsedIpvs, bool, expire_nodest_conn),
    Unset::Value(
        |dialect| dialect == Dialect::Toml,
        "a client whose server has left the table would send into nothing until its time-out",
    ),
    "Connections of a server that has left the table end with their next packet, and the client may \
     come again (`net.ipv4.vs.expire_nodest_conn`). Put back when nothing is served any more.",
);

pub(crate) static EXPIRE_QUIESCENT_TEMPLATE: Setting<ParsedIpvs, bool> = Setting::new(
    "expire_quiescent_template",
    SWITCH,
    field!(ParsedIpvs, bool, expire_quiescent_template),
    Unset::Value(
        |dialect| dialect == Dialect::Toml,
        "a server without weight takes no new connections, of nobody",
    ),
    "Clients that persist with a server which has weight 0 now go to another one with their next \
     connection (`net.ipv4.vs.expire_quiescent_template`). Put back when nothing is served any more.",
);

static CONN_REUSE_MODE: Setting<ParsedIpvs, u8> = Setting::new(
    "conn_reuse_mode",
    octet(0..=7),
    field!(ParsedIpvs, u8, conn_reuse_mode),
    Unset::Nothing("the kernel's"),
    "What becomes of a connection whose client uses its port again \
     (`net.ipv4.vs.conn_reuse_mode`): 0 the same server, 1 another one may be chosen.",
);

static SYNC_TABLE: Nested<ParsedIpvs, ParsedSync> = Nested::new(
    "sync",
    "a table, as in [ipvs.sync]",
    &SYNC,
    |ipvs| &ipvs.sync,
    |ipvs| &mut ipvs.sync,
    |sync, span| sync.span = Some(span),
    "Connections of IPVS that go on after a failover.",
);

pub(crate) static SYNC: Noun<ParsedSync> = Noun {
    name: "sync",
    head: "[ipvs.sync]",
    what: "the synchronisation of connections",
    about: "The master sends its IPVS connections to the other directors, which take them over with \
            the addresses: established connections go on. The datagrams are not signed: use a network \
            that only directors are on.",
    rows: &[&INTERFACE, &INSTANCE, &ID, &GROUP, &PORT, &TTL, &LONGEST, &THRESHOLD, &REFRESH],
};

static INTERFACE: Setting<ParsedSync, String> = Setting::new(
    "interface",
    text("the name of an interface in quotes"),
    field!(ParsedSync, String, interface),
    Unset::Required,
    "The interface that leads to the other directors.",
)
.per_node();

static INSTANCE: Setting<ParsedSync, String> = Setting::new(
    "instance",
    text("the name of an instance in quotes"),
    field!(ParsedSync, String, instance),
    Unset::Required,
    "The director that is its master sends, the others listen.",
);

static ID: Setting<ParsedSync, u8> = Setting::new(
    "id",
    octet(1..=255),
    field!(ParsedSync, u8, id),
    Unset::Follows("the VRID of the instance", "pairs on one network have different ones anyway"),
    "The same on all directors of one group, and of no other on that network.",
);

static GROUP: Setting<ParsedSync, IpAddr> = Setting::new(
    "group",
    ip_address("a multicast address in quotes"),
    field!(ParsedSync, IpAddr, group),
    Unset::Nothing("224.0.0.81"),
    "Multicast group of the datagrams.",
);

static PORT: Setting<ParsedSync, u16> = Setting::new(
    "port",
    whole_u16(1),
    field!(ParsedSync, u16, port),
    Unset::Nothing("8848"),
    "UDP port of the datagrams.",
);

static TTL: Setting<ParsedSync, u8> = Setting::new(
    "ttl",
    octet(1..=255),
    field!(ParsedSync, u8, ttl),
    Unset::Nothing("1"),
    "Hop limit of the datagrams.",
);

/// Below this the kernel makes another number of it, and above what the headers leave of 65,535.
static LONGEST: Setting<ParsedSync, u16> = Setting::new(
    "max_length",
    Form::Whole {
        low: 1024,
        high: 65_487,
        make: |number| u16::try_from(number).ok(),
        number: |number| *number as i64,
    },
    field!(ParsedSync, u16, longest),
    Unset::Nothing("what fits into a frame"),
    "Octets of one datagram.",
);

static THRESHOLD: Setting<ParsedSync, (u32, u32)> = Setting::new(
    "threshold",
    toml_only(
        "two whole numbers, as in [3, 50], the first less than the second",
        Schema::List(&Schema::Whole(0, MOST_PACKETS)),
        read_threshold,
        |(first, every)| format!("[{first}, {every}]"),
    ),
    field!(ParsedSync, (u32, u32), threshold),
    Unset::Nothing("the kernel's, 3 and 50"),
    "After how many packets a connection is sent for the first time, and every how many again.",
);

const MOST_PACKETS: i64 = 1_000_000;

static REFRESH: Setting<ParsedSync, Duration> = Setting::new(
    "refresh",
    WHOLE_SECONDS,
    field!(ParsedSync, Duration, refresh),
    Unset::Nothing("the kernel's: by packets alone"),
    "How often a connection that stays as it is is sent again. Without it a quiet one is forgotten \
     by the listeners.",
);

fn read_threshold(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<(u32, u32)> {
    let read =
        |reader: &mut Reader<'_>, item: &Value<'_>| reader.integer(item, key, 0..=MOST_PACKETS);
    let numbers = reader.each(value, key, read)?;
    let numbers: Vec<u32> = numbers.iter().filter_map(|at| u32::try_from(at.value).ok()).collect();
    match numbers[..] {
        [first, every] if first < every => Some((first, every)),
        _ => {
            reader.bad_value(value, key, "these are not two numbers of which the first is less");
            None
        }
    }
}
