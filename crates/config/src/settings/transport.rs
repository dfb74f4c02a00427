//! How adverts travel: unicast, its peers, and the password of version 2.

use std::net::IpAddr;

use crate::dialect::Dialect;
use ::toml::de::DeValue;
use locum_vrrp::UnicastPeer;

use crate::field::Field;
use crate::settings::form::{Form, SWITCH, Schema, ip_address, list, octet, text};
use crate::settings::row::{Block, Keyword, Noun, Setting, Unset, field};
use crate::span::{At, Span};
use crate::toml::reader::{Key, Reader, Value};

/// A password of version 2.
#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedAuth {
    /// Where the authentication stands; `None` when there is none.
    pub span: Option<Span>,
    /// The one type there is was named.
    pub simple: Field<()>,
    pub password: Field<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedUnicast {
    /// What says that adverts go to peers one by one; `None` when they do not.
    pub span: Option<Span>,
    pub peers: Field<Vec<At<UnicastPeer>>>,
    pub ttl: Field<u8>,
    pub ttl_check: Field<bool>,
    pub check_source: Field<bool>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedPeer {
    pub address: Field<IpAddr>,
    pub min_ttl: Field<u8>,
    pub max_ttl: Field<u8>,
}

pub(crate) static UNICAST: Noun<ParsedUnicast> = Noun {
    name: "unicast",
    head: "unicast = { … }",
    what: "the unicast settings",
    about: "Adverts that are sent to each peer by itself, where multicast does not pass.",
    rows: &[&PEERS, &TTL, &TTL_CHECK, &CHECK_SOURCE],
};

static PEERS: Setting<ParsedUnicast, Vec<At<UnicastPeer>>> = Setting::new(
    "peers",
    list(
        "a list of addresses, as in [\"192.0.2.2\"]",
        Schema::List(&Schema::Any(&[Schema::Text, Schema::Table("peer")])),
        |reader, value, key| reader.each(value, key, |reader, item| peer(reader, item, key)),
    ),
    field!(ParsedUnicast, Vec<At<UnicastPeer>>, peers),
    Unset::Nothing("the addresses of the other nodes"),
    "Whom adverts are sent to. The list may be the same on all nodes: a node leaves out itself.",
)
.per_node()
.keywords(&[Keyword::Own(Block::Instance, "unicast_peer")]);

/// V-322.
pub(crate) static TTL: Setting<ParsedUnicast, u8> = Setting::new(
    "ttl",
    octet(1..=255),
    field!(ParsedUnicast, u8, ttl),
    Unset::Value(|_| 255, "a peer can then check that the sender is on its link"),
    "Hop limit that adverts are sent with.",
)
.keywords(&[Keyword::Own(Block::Instance, "unicast_ttl")]);

/// Whether the hop limit of a peer must be 255 where its entry says nothing else.
static TTL_CHECK: Setting<ParsedUnicast, bool> = Setting::new(
    "ttl_check",
    SWITCH,
    field!(ParsedUnicast, bool, ttl_check),
    Unset::Follows(
        "true, unless `ttl` is less than 255 or `check_source` is false",
        "what a router has forwarded comes from elsewhere; peers that are routed send with \
         another `ttl`, or need this to be false",
    ),
    "Adverts of peers must arrive with hop limit 255, so that no router has forwarded them. \
     `min_ttl` or `max_ttl` of a peer go before it. Where hop limits are checked, so is the source.",
);

/// V-331: a keepalived.conf keeps to keepalived's meaning.
static CHECK_SOURCE: Setting<ParsedUnicast, bool> = Setting::new(
    "check_source",
    SWITCH,
    field!(ParsedUnicast, bool, check_source),
    Unset::Follows(
        "true; in a keepalived.conf only with `vrrp_strict`",
        "whoever can reach this host could otherwise take its addresses away",
    ),
    "Adverts are accepted from the configured peers only.",
)
.keywords(&[
    Keyword::Plain(Block::Instance, "check_unicast_src"),
    Keyword::Plain(Block::Globals, "vrrp_check_unicast_src"),
]);

impl ParsedUnicast {
    /// Whether only the configured peers are believed, where nothing says so.
    pub const fn checks_source_by_default(dialect: Dialect, is_strict: bool) -> bool {
        match dialect {
            Dialect::Toml => true,
            Dialect::Keepalived => is_strict,
        }
    }

    /// Hop limits of an advert that are accepted of a peer whose entry names none; `None` is any.
    pub fn accepted_ttl(&self, dialect: Dialect) -> Option<(u8, u8)> {
        let is_checked = match (dialect, self.ttl_check.value()) {
            (_, Some(is_checked)) => *is_checked,
            (Dialect::Toml, None) => {
                let believes_all = self.check_source.value() == Some(&false);
                TTL.of(self, dialect) == u8::MAX && !believes_all
            }
            (Dialect::Keepalived, None) => false,
        };
        is_checked.then_some((u8::MAX, u8::MAX))
    }
}

pub(crate) static PEER: Noun<ParsedPeer> = Noun {
    name: "peer",
    head: "peers = [{ … }]",
    what: "a peer",
    about: "A peer with hop limits of its own.",
    rows: &[&PEER_ADDRESS, &MIN_TTL, &MAX_TTL],
};

static PEER_ADDRESS: Setting<ParsedPeer, IpAddr> = Setting::new(
    "address",
    ip_address("an IP address in quotes"),
    field!(ParsedPeer, IpAddr, address),
    Unset::Required,
    "Its address.",
);

static MIN_TTL: Setting<ParsedPeer, u8> = Setting::new(
    "min_ttl",
    octet(1..=255),
    field!(ParsedPeer, u8, min_ttl),
    Unset::Nothing("1 when `max_ttl` is given, else what `ttl_check` says"),
    "The least hop limit accepted of it.",
);

static MAX_TTL: Setting<ParsedPeer, u8> = Setting::new(
    "max_ttl",
    octet(1..=255),
    field!(ParsedPeer, u8, max_ttl),
    Unset::Nothing("255 when `min_ttl` is given, else what `ttl_check` says"),
    "The greatest hop limit accepted of it.",
);

fn peer(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<UnicastPeer> {
    if let DeValue::String(_) = value.get_ref() {
        let address = reader.parsed(value, key, |text| {
            text.parse().map_err(|_| format!("`{text}` is not an IP address"))
        })?;
        return Some(UnicastPeer { address, ttl: None });
    }
    let shape = "a list of IP addresses in quotes, or of tables with `address`";
    let mut table = ParsedPeer::default();
    let span = PEER.open(reader, value, Key { shape, ..key }, &mut table)?;
    if table.address.is_absent() {
        reader.report.error(span, "missing-key", "a peer has no `address`");
    }
    let ttl = match (table.min_ttl.value().copied(), table.max_ttl.value().copied()) {
        (None, None) => None,
        (low, high) => Some((low.unwrap_or(1), high.unwrap_or(u8::MAX))),
    };
    if ttl.is_some_and(|(low, high)| low > high) {
        reader.report.error(span, "bad-value", "`min_ttl` is above `max_ttl`");
    }
    Some(UnicastPeer { address: *table.address.value()?, ttl })
}

pub(crate) static AUTH: Noun<ParsedAuth> = Noun {
    name: "auth",
    head: "auth = { … }",
    what: "the authentication",
    about: "A password in the adverts of version 2. It keeps out accidents, not people.",
    rows: &[&AUTH_TYPE, &PASSWORD],
};

static AUTH_TYPE: Setting<ParsedAuth, ()> = Setting::new(
    "type",
    Form::Words(&[("simple", ())]),
    field!(ParsedAuth, (), simple),
    Unset::Required,
    "Its type. There is one.",
)
.keywords(&[Keyword::Own(Block::Instance, "auth_type")]);

static PASSWORD: Setting<ParsedAuth, String> = Setting::new(
    "password",
    text("1 to 8 characters in quotes"),
    field!(ParsedAuth, String, password),
    Unset::Required,
    "The password: 8 octets on the wire, the rest is cut off.",
)
.keywords(&[Keyword::Own(Block::Instance, "auth_pass")]);
