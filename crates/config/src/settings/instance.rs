//! `[[instance]]` and `vrrp_instance`: a virtual router with its addresses, trackers and hooks.

use std::net::IpAddr;
use std::time::Duration;

use ::toml::de::DeValue;
use locum_plan::{Command, Lease, Name, Track, VirtualAddress};
use locum_vrrp::{ChecksumForm, ChecksumMode, Family, Preempt, Profile, Version, Vrid};

use crate::dialect::Dialect;
use crate::duration;
use crate::field::Field;
use crate::settings::address::ADDRESSES;
use crate::settings::command::{COMMANDS, ParsedHooks};
use crate::settings::form::{Form, SWITCH, Schema, TIME, ip_address, octet, text, toml_only};
use crate::settings::row::{Block, Keyword, NameRow, Nested, Noun, Setting, Unset, field};
use crate::settings::track::TRACKS;
use crate::settings::track_services::{TRACK_SERVICES_FORM, TrackServices};
use crate::settings::transport::ParsedAuth;
use crate::settings::transport::ParsedUnicast;
use crate::settings::transport::{AUTH, UNICAST};
use crate::span::{At, Span};
use crate::toml::reader::{Key, Reader, Value};

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedInstance {
    /// The block's head, for what is missing in it.
    pub span: Span,
    pub name: At<String>,
    pub interface: Field<String>,
    pub vrid: Field<Vrid>,
    pub version: Field<Version>,
    pub profile: Field<Profile>,
    pub priority: Field<u8>,
    /// Of all nodes, this one among them, as far as the file says.
    pub priorities: Vec<(Name, u8)>,
    pub interval: Field<Duration>,
    pub preempt: Field<Preempt>,
    pub addresses: Field<Vec<At<VirtualAddress>>>,
    pub excluded: Field<Vec<At<VirtualAddress>>>,
    /// Family to assume when there is no address to tell.
    pub family: Field<Family>,
    /// The operator said that no advertised address is meant.
    pub without_addresses: bool,
    pub auth: ParsedAuth,
    pub transport: Field<TransportKind>,
    pub group: Field<IpAddr>,
    pub unicast: ParsedUnicast,
    pub source: Field<IpAddr>,
    pub checksum: Field<ChecksumMode>,
    pub down_multiplier: Field<u8>,
    pub announce: ParsedAnnounce,
    pub answer_lower: Field<bool>,
    pub answer_higher: Field<bool>,
    pub owner_ignores_adverts: Field<bool>,
    pub start_delay: Field<Duration>,
    pub lease: Field<Lease>,
    pub keep_connections: Field<bool>,
    pub track: Field<Vec<At<Track>>>,
    pub track_services: Field<TrackServices>,
    pub hooks: ParsedHooks,
}

impl ParsedInstance {
    /// An instance of which only the name is known.
    pub fn new(span: Span, name: At<String>) -> Self {
        Self { span, name, ..Self::default() }
    }
}

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedAnnounce {
    pub repeat: Field<u8>,
    pub delay: Field<Duration>,
    pub refresh: Field<Duration>,
    pub refresh_repeat: Field<u8>,
    pub lower_priority_repeat: Field<u8>,
    pub lower_priority_delay: Field<Duration>,
    pub garp_interval: Field<Duration>,
    pub gna_interval: Field<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TransportKind {
    Multicast,
    Unicast,
}

type OfInstance<T> = Setting<ParsedInstance, T>;

pub(crate) static INSTANCE: Noun<ParsedInstance> = Noun {
    name: "instance",
    head: "[[instance]]",
    what: "an instance",
    about: "A virtual router: it elects a master, and the master holds the addresses.",
    rows: &[
        &NameRow { about: "Name of the instance in findings, hooks and the status." },
        &INTERFACE,
        &VRID,
        &VERSION,
        &PROFILE,
        &PRIORITY,
        &INTERVAL,
        &PREEMPT,
        &VIRTUAL_ADDRESSES,
        &EXCLUDED_ADDRESSES,
        &TRANSPORT,
        &UNICAST_TABLE,
        &GROUP,
        &SOURCE,
        &AUTH_TABLE,
        &CHECKSUM,
        &DOWN_MULTIPLIER,
        &ANNOUNCE_TABLE,
        &ANSWER_LOWER,
        &ANSWER_HIGHER,
        &OWNER_IGNORES_ADVERTS,
        &START_DELAY,
        &LEASE,
        &KEEP_CONNECTIONS,
        &TRACK,
        &TRACK_SERVICES,
        &NOTIFY,
        &NOTIFY_MASTER,
        &NOTIFY_BACKUP,
        &NOTIFY_FAULT,
        &NOTIFY_STOP,
    ],
};

static INTERFACE: OfInstance<String> = Setting::new(
    "interface",
    text("the name of an interface in quotes"),
    field!(ParsedInstance, String, interface),
    Unset::Required,
    "Interface of the adverts, and of the addresses that name no other.",
)
.per_node()
.keywords(&[Keyword::Plain(Block::Instance, "interface")]);

static VRID: OfInstance<Vrid> = Setting::new(
    "vrid",
    Form::Whole {
        low: 1,
        high: 255,
        make: |number| u8::try_from(number).ok().and_then(Vrid::new),
        number: |vrid| i64::from(vrid.get()),
    },
    field!(ParsedInstance, Vrid, vrid),
    Unset::Required,
    "Number of the virtual router, the same on all its nodes and unique on the network.",
)
.keywords(&[Keyword::Plain(Block::Instance, "virtual_router_id")]);

pub(crate) static VERSION: OfInstance<Version> = Setting::new(
    "version",
    VERSION_FORM,
    field!(ParsedInstance, Version, version),
    Unset::Value(
        |dialect| match dialect {
            Dialect::Toml => Version::V3,
            Dialect::Keepalived => Version::V2,
        },
        "version 3 has intervals below a second and peers that follow the master's; IPv6 exists in \
         version 3 only; a keepalived.conf means what its peers expect on the wire",
    ),
    "VRRP version: 2 for old peers, IPv4 only.",
)
.keywords(&[
    Keyword::Plain(Block::Instance, "version"),
    Keyword::Own(Block::Globals, "vrrp_version"),
]);

pub(crate) const VERSION_FORM: Form<Version> = Form::Whole {
    low: 2,
    high: 3,
    make: |number| Some(if number == 2 { Version::V2 } else { Version::V3 }),
    number: |version| match version {
        Version::V2 => 2,
        Version::V3 => 3,
    },
};

pub(crate) static PROFILE: OfInstance<Profile> = Setting::new(
    "profile",
    Form::Words(&[("interop", Profile::Interop), ("strict", Profile::Strict)]),
    field!(ParsedInstance, Profile, profile),
    Unset::Value(|_| Profile::Interop, "peers of other makers are understood"),
    "\"strict\" holds to the letter of the RFCs, also where peers commonly do not.",
)
.keywords(&[
    Keyword::Own(Block::Instance, "strict_mode"),
    Keyword::Own(Block::Globals, "vrrp_strict"),
]);

pub(crate) static PRIORITY: OfInstance<u8> = Setting::new(
    "priority",
    octet(1..=255),
    field!(ParsedInstance, u8, priority),
    Unset::Value(|_| 100, "the RFCs' own"),
    "The highest becomes master; 255 is for a node that owns the addresses.",
)
.per_node()
.keywords(&[Keyword::Plain(Block::Instance, "priority")]);

pub(crate) static INTERVAL: OfInstance<Duration> = Setting::new(
    "advert_interval",
    TIME,
    field!(ParsedInstance, Duration, interval),
    Unset::Value(|_| Duration::from_secs(1), "the RFCs' own"),
    "Time between adverts: version 2 from \"1s\" to \"255s\" in whole seconds, version 3 from \
     \"10ms\" to \"40950ms\" in steps of 10ms. A dead master is replaced after three of them.",
)
.keywords(&[Keyword::Own(Block::Instance, "advert_int")]);

pub(crate) static PREEMPT: OfInstance<Preempt> = Setting::new(
    "preempt",
    toml_only(
        "true, false, or the delay before it, as in \"30s\"",
        Schema::Any(&[Schema::Boolean, Schema::Duration]),
        |reader, value, key| match value.get_ref() {
            DeValue::Boolean(true) => Some(Preempt::After(Duration::ZERO)),
            DeValue::Boolean(false) => Some(Preempt::Never),
            _other => reader.duration(value, key).map(Preempt::After),
        },
        |preempt| match preempt {
            Preempt::Never => "false".to_owned(),
            Preempt::After(delay) if delay.is_zero() => "true".to_owned(),
            Preempt::After(delay) => format!("\"{}\"", duration::spell(*delay)),
        },
    ),
    field!(ParsedInstance, Preempt, preempt),
    Unset::Value(|_| Preempt::After(Duration::ZERO), "the RFCs' own"),
    "Whether a node with a higher priority takes over from a master that works, and after what \
     delay.",
)
.per_node()
.keywords(&[
    Keyword::Own(Block::Instance, "nopreempt"),
    Keyword::Own(Block::Instance, "preempt"),
    Keyword::Own(Block::Instance, "preempt_delay"),
]);

static VIRTUAL_ADDRESSES: OfInstance<Vec<At<VirtualAddress>>> = Setting::new(
    "addresses",
    ADDRESSES,
    field!(ParsedInstance, Vec<At<VirtualAddress>>, addresses),
    Unset::Required,
    "Addresses that the master holds and advertises, of one family.",
)
.keywords(&[Keyword::Own(Block::Instance, "virtual_ipaddress")]);

static EXCLUDED_ADDRESSES: OfInstance<Vec<At<VirtualAddress>>> = Setting::new(
    "excluded_addresses",
    ADDRESSES,
    field!(ParsedInstance, Vec<At<VirtualAddress>>, excluded),
    Unset::Nothing("none"),
    "Addresses that the master holds and announces, but does not advertise.",
)
.keywords(&[Keyword::Own(Block::Instance, "virtual_ipaddress_excluded")]);

static TRANSPORT: OfInstance<TransportKind> = Setting::new(
    "transport",
    Form::Words(&[("multicast", TransportKind::Multicast), ("unicast", TransportKind::Unicast)]),
    field!(ParsedInstance, TransportKind, transport),
    Unset::Follows("\"multicast\", unless `unicast` is set", "the RFCs know no other"),
    "How adverts travel. \"unicast\" sends them to the addresses of the other nodes.",
);

static UNICAST_TABLE: Nested<ParsedInstance, ParsedUnicast> = Nested::new(
    "unicast",
    "a table, as in { peers = [\"192.0.2.2\"] }",
    &UNICAST,
    |instance| &instance.unicast,
    |instance| &mut instance.unicast,
    |unicast, span| unicast.span = Some(span),
    "Peers and hop limits of unicast adverts.",
);

static GROUP: OfInstance<IpAddr> = Setting::new(
    "group",
    ip_address("a multicast address in quotes"),
    field!(ParsedInstance, IpAddr, group),
    Unset::Nothing("224.0.0.18, for IPv6 ff02::12"),
    "Multicast group of the adverts.",
)
.keywords(&[
    Keyword::Plain(Block::Instance, "mcast_dst_ip"),
    Keyword::Own(Block::Globals, "vrrp_mcast_group4"),
    Keyword::Own(Block::Globals, "vrrp_mcast_group6"),
]);

static SOURCE: OfInstance<IpAddr> = Setting::new(
    "source",
    ip_address("an IP address in quotes"),
    field!(ParsedInstance, IpAddr, source),
    Unset::Nothing(
        "the interface's first address that is not virtual, for IPv6 the first link-local one; \
         with unicast this node's own address",
    ),
    "Address that adverts leave from.",
)
.per_node()
.keywords(&[
    Keyword::Plain(Block::Instance, "mcast_src_ip"),
    Keyword::Own(Block::Instance, "unicast_src_ip"),
]);

static AUTH_TABLE: Nested<ParsedInstance, ParsedAuth> = Nested::new(
    "auth",
    "a table, as in { type = \"simple\", password = \"secret\" }",
    &AUTH,
    |instance| &instance.auth,
    |instance| &mut instance.auth,
    |auth, span| auth.span = Some(span),
    "Password of version 2.",
);

pub(crate) static CHECKSUM: OfInstance<ChecksumMode> = Setting::new(
    "checksum",
    Form::Words(&[
        ("auto", ChecksumMode::Auto(ChecksumForm::Pseudo)),
        ("pseudo", ChecksumMode::Pinned(ChecksumForm::Pseudo)),
        ("message", ChecksumMode::Pinned(ChecksumForm::Message)),
    ]),
    field!(ParsedInstance, ChecksumMode, checksum),
    Unset::Value(
        |_| ChecksumMode::Auto(ChecksumForm::Pseudo),
        "begins as most peers do, and follows the master heard",
    ),
    "What the checksum of version 3 covers over IPv4: with the addresses (RFC 5798) or the message \
     alone (RFC 9568).",
)
.keywords(&[Keyword::Own(Block::Instance, "v3_checksum_as_v2")]);

pub(crate) static DOWN_MULTIPLIER: OfInstance<u8> = Setting::new(
    "down_multiplier",
    octet(1..=100),
    field!(ParsedInstance, u8, down_multiplier),
    Unset::Value(|_| 3, "the RFCs' own"),
    "Adverts that are missed before the master counts as dead.",
)
.keywords(&[
    Keyword::Plain(Block::Instance, "down_timer_adverts"),
    Keyword::Plain(Block::Globals, "vrrp_down_timer_adverts"),
]);

static ANNOUNCE_TABLE: Nested<ParsedInstance, ParsedAnnounce> = Nested::new(
    "announce",
    "a table, as in { repeat = 5 }",
    &ANNOUNCE,
    |instance| &instance.announce,
    |instance| &mut instance.announce,
    |_, _| {},
    "How a new master tells hosts and switches where the addresses are.",
);

pub(crate) static ANSWER_LOWER: OfInstance<bool> = Setting::new(
    "answer_lower",
    SWITCH,
    field!(ParsedInstance, bool, answer_lower),
    Unset::Value(|_| true, "the other one yields sooner"),
    "A master answers an advert of lower priority at once.",
)
.keywords(&[
    Keyword::By(Block::Instance, "lower_prio_no_advert", |lowering, statement| {
        lowering.switch(statement).map(|at| at.map(|is_silent| !is_silent))
    }),
    Keyword::By(Block::Globals, "vrrp_lower_prio_no_advert", |lowering, statement| {
        lowering.switch(statement).map(|at| at.map(|is_silent| !is_silent))
    }),
]);

pub(crate) static ANSWER_HIGHER: OfInstance<bool> = Setting::new(
    "answer_higher",
    SWITCH,
    field!(ParsedInstance, bool, answer_higher),
    Unset::Value(|_| true, "after a partition the winner may know of no other master"),
    "A master that hears a higher priority sends one more advert before it steps down, so that the \
     other one announces its addresses again.",
)
.keywords(&[
    Keyword::Plain(Block::Instance, "higher_prio_send_advert"),
    Keyword::Plain(Block::Globals, "vrrp_higher_prio_send_advert"),
]);

pub(crate) static OWNER_IGNORES_ADVERTS: OfInstance<bool> = Setting::new(
    "owner_ignores_adverts",
    SWITCH,
    field!(ParsedInstance, bool, owner_ignores_adverts),
    Unset::Value(|_| false, "two owners would both stay master"),
    "An owner of the addresses (priority 255) discards every advert it hears.",
)
.keywords(&[
    Keyword::Plain(Block::Instance, "owner_ignore_adverts"),
    Keyword::Plain(Block::Globals, "vrrp_owner_ignore_adverts"),
]);

pub(crate) static START_DELAY: OfInstance<Duration> = Setting::new(
    "start_delay",
    TIME,
    field!(ParsedInstance, Duration, start_delay),
    Unset::Value(|_| Duration::ZERO, "most switches forward at once"),
    "Time after the start in which the instance neither hears nor sends.",
)
.per_node()
.keywords(&[Keyword::Plain(Block::Globals, "vrrp_startup_delay")]);

pub(crate) static LEASE: OfInstance<Lease> = Setting::new(
    "vip_lease",
    toml_only(
        "\"auto\", \"off\", or whole seconds as in \"3s\"",
        Schema::Any(&[Schema::Text]),
        lease,
        |lease| match lease {
            Lease::Auto => "\"auto\"".to_owned(),
            Lease::Off => "\"off\"".to_owned(),
            Lease::Fixed(length) => format!("\"{}\"", duration::spell(*length)),
        },
    ),
    field!(ParsedInstance, Lease, lease),
    Unset::Value(|_| Lease::Auto, "a node whose daemon is dead never keeps an address"),
    "How long the kernel keeps the addresses when nobody renews them: \"auto\" is the shortest time \
     in which a peer takes over, \"off\" is for ever.",
);

pub(crate) static KEEP_CONNECTIONS: OfInstance<bool> = Setting::new(
    "keep_connections",
    SWITCH,
    field!(ParsedInstance, bool, keep_connections),
    Unset::Value(
        |dialect| dialect == Dialect::Toml,
        "a planned handover cuts no request; keepalived's peers let go at once",
    ),
    "A new master hands TCP connections that began at its predecessor to it, by a table of its own \
     in nftables, for the moment in which that still answers (some 350ms at an interval of 1s).",
);

fn lease(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<Lease> {
    reader.parsed(value, key, |text| match text {
        "auto" => Ok(Lease::Auto),
        "off" => Ok(Lease::Off),
        other => {
            let length = duration::parse(other)?;
            let is_whole = length.subsec_nanos() == 0 && !length.is_zero();
            is_whole.then_some(Lease::Fixed(length)).ok_or_else(|| {
                "the kernel counts address lifetimes in whole seconds, from 1".to_owned()
            })
        }
    })
}

static TRACK: OfInstance<Vec<At<Track>>> = Setting::new(
    "track",
    TRACKS,
    field!(ParsedInstance, Vec<At<Track>>, track),
    Unset::Nothing("its own interface alone, which is always tracked"),
    "Checks and interfaces that decide whether this node may take part, and with what priority; \
     services and HAProxies that do so by a weight, or are followed whoever serves them.",
)
.keywords(&[
    Keyword::Own(Block::Instance, "track_script"),
    Keyword::Own(Block::Instance, "track_interface"),
]);

static TRACK_SERVICES: OfInstance<TrackServices> = Setting::new(
    "track_services",
    TRACK_SERVICES_FORM,
    field!(ParsedInstance, TrackServices, track_services),
    Unset::Value(
        |dialect| match dialect {
            Dialect::Toml => TrackServices::All,
            Dialect::Keepalived => TrackServices::Nothing,
        },
        "an address whose clients nobody answers is worth nothing; keepalived's election knows no \
         services",
    ),
    "Whether the services and HAProxies of this instance decide where it is: a node that can serve \
     them goes before one that cannot, whatever their priorities, and of several services a node \
     that can serve more of them, by weight; 0 is not followed. What no node can serve moves \
     nothing.",
);

type HookCommands = Vec<At<Command>>;

static NOTIFY: OfInstance<HookCommands> = Setting::new(
    "notify",
    COMMANDS,
    field!(ParsedInstance, HookCommands, hooks.any),
    Unset::Nothing("none"),
    "Hooks that run at every change, with INSTANCE, the name, the state and the priority as \
     arguments.",
)
.keywords(&[Keyword::Own(Block::Instance, "notify")]);

static NOTIFY_MASTER: OfInstance<HookCommands> = Setting::new(
    "notify_master",
    COMMANDS,
    field!(ParsedInstance, HookCommands, hooks.master),
    Unset::Nothing("none"),
    "Hooks that run when this node has become master and the addresses are in place.",
)
.keywords(&[Keyword::Own(Block::Instance, "notify_master")]);

static NOTIFY_BACKUP: OfInstance<HookCommands> = Setting::new(
    "notify_backup",
    COMMANDS,
    field!(ParsedInstance, HookCommands, hooks.backup),
    Unset::Nothing("none"),
    "Hooks that run when this node has become backup and the addresses are gone.",
)
.keywords(&[Keyword::Own(Block::Instance, "notify_backup")]);

static NOTIFY_FAULT: OfInstance<HookCommands> = Setting::new(
    "notify_fault",
    COMMANDS,
    field!(ParsedInstance, HookCommands, hooks.fault),
    Unset::Nothing("none"),
    "Hooks that run when this node cannot take part any more.",
)
.keywords(&[Keyword::Own(Block::Instance, "notify_fault")]);

static NOTIFY_STOP: OfInstance<HookCommands> = Setting::new(
    "notify_stop",
    COMMANDS,
    field!(ParsedInstance, HookCommands, hooks.stop),
    Unset::Nothing("none"),
    "Hooks that run when the instance ends.",
)
.keywords(&[Keyword::Own(Block::Instance, "notify_stop")]);

type OfAnnounce<T> = Setting<ParsedAnnounce, T>;

pub(crate) static ANNOUNCE: Noun<ParsedAnnounce> = Noun {
    name: "announce",
    head: "announce = { … }",
    what: "the announcement settings",
    about: "Gratuitous ARP and unsolicited neighbour advertisements of a master.",
    rows: &[
        &REPEAT,
        &DELAY,
        &REFRESH,
        &REFRESH_REPEAT,
        &LOWER_PRIORITY_REPEAT,
        &LOWER_PRIORITY_DELAY,
        &GARP_INTERVAL,
        &GNA_INTERVAL,
    ],
};

pub(crate) static REPEAT: OfAnnounce<u8> = Setting::new(
    "repeat",
    octet(0..=255),
    field!(ParsedAnnounce, u8, repeat),
    Unset::Value(|_| 5, "one or two may be lost on a busy network"),
    "Announcements of each address at once.",
)
.keywords(&[
    Keyword::Plain(Block::Instance, "garp_master_repeat"),
    Keyword::Plain(Block::Globals, "vrrp_garp_master_repeat"),
]);

pub(crate) static DELAY: OfAnnounce<Duration> = Setting::new(
    "delay",
    TIME,
    field!(ParsedAnnounce, Duration, delay),
    Unset::Value(|_| Duration::from_secs(5), "hosts and switches that were not ready hear it then"),
    "Time until the same number is sent once more; \"0s\" is never.",
)
.keywords(&[
    Keyword::Plain(Block::Instance, "garp_master_delay"),
    Keyword::Plain(Block::Globals, "vrrp_garp_master_delay"),
]);

pub(crate) static REFRESH: OfAnnounce<Duration> = Setting::new(
    "refresh",
    TIME,
    field!(ParsedAnnounce, Duration, refresh),
    Unset::Value(|_| Duration::ZERO, "caches are right as long as nothing changes"),
    "Time between repetitions while it stays master; \"0s\" is never.",
)
.keywords(&[
    Keyword::Plain(Block::Instance, "garp_master_refresh"),
    Keyword::Plain(Block::Globals, "vrrp_garp_master_refresh"),
]);

pub(crate) static REFRESH_REPEAT: OfAnnounce<u8> = Setting::new(
    "refresh_repeat",
    octet(0..=255),
    field!(ParsedAnnounce, u8, refresh_repeat),
    Unset::Value(|_| 1, "the next one comes soon enough"),
    "Announcements of each address at each repetition.",
)
.keywords(&[
    Keyword::Plain(Block::Instance, "garp_master_refresh_repeat"),
    Keyword::Plain(Block::Globals, "vrrp_garp_master_refresh_repeat"),
]);

static LOWER_PRIORITY_REPEAT: OfAnnounce<u8> = Setting::new(
    "lower_priority_repeat",
    octet(0..=255),
    field!(ParsedAnnounce, u8, lower_priority_repeat),
    Unset::Follows("`repeat`", "caches are as wrong as after a promotion"),
    "Announcements of each address after a master of lower priority was heard.",
)
.keywords(&[
    Keyword::Plain(Block::Instance, "garp_lower_prio_repeat"),
    Keyword::Plain(Block::Globals, "vrrp_garp_lower_prio_repeat"),
]);

static LOWER_PRIORITY_DELAY: OfAnnounce<Duration> = Setting::new(
    "lower_priority_delay",
    TIME,
    field!(ParsedAnnounce, Duration, lower_priority_delay),
    Unset::Follows("`delay`", "caches are as wrong as after a promotion"),
    "Time until the same number is sent once more.",
)
.keywords(&[
    Keyword::Plain(Block::Instance, "garp_lower_prio_delay"),
    Keyword::Plain(Block::Globals, "vrrp_garp_lower_prio_delay"),
]);

pub(crate) static GARP_INTERVAL: OfAnnounce<Duration> = Setting::new(
    "garp_interval",
    TIME,
    field!(ParsedAnnounce, Duration, garp_interval),
    Unset::Value(|_| Duration::ZERO, "hosts and switches bear a burst"),
    "Least time between two gratuitous ARPs of one interface.",
)
.keywords(&[Keyword::Plain(Block::Globals, "vrrp_garp_interval")]);

pub(crate) static GNA_INTERVAL: OfAnnounce<Duration> = Setting::new(
    "gna_interval",
    TIME,
    field!(ParsedAnnounce, Duration, gna_interval),
    Unset::Value(|_| Duration::ZERO, "hosts and switches bear a burst"),
    "Least time between two neighbour advertisements of one interface.",
)
.keywords(&[Keyword::Plain(Block::Globals, "vrrp_gna_interval")]);
