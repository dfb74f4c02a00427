//! How packets are wrapped for servers behind a tunnel.

use std::num::NonZeroU16;

use ::toml::de::DeValue;
use locum_plan::{Encapsulation, TunnelChecksum};

use crate::field::Field;
use crate::settings::form::{Form, Schema, toml_only};
use crate::settings::row::{Noun, Setting, Unset, field};
use crate::span::{At, Report, Span};
use crate::toml::reader::{Key, Reader, Value};

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedTunnel {
    pub kind: Field<TunnelType>,
    pub port: Field<NonZeroU16>,
    pub checksum: Field<TunnelChecksum>,
}

/// As it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TunnelType {
    Ipip,
    Gue,
    Gre,
}

pub(crate) const TYPES: &[(&str, TunnelType)] =
    &[("ipip", TunnelType::Ipip), ("gue", TunnelType::Gue), ("gre", TunnelType::Gre)];

pub(crate) const ENCAPSULATION: Form<Encapsulation> = toml_only(
    "\"ipip\", \"gre\", or a table as in { type = \"gue\", port = 6080 }",
    Schema::Any(&[Schema::Text, Schema::Table("tunnel")]),
    read,
    |tunnel| format!("\"{}\"", tunnel.name()),
);

pub(crate) static TUNNEL: Noun<ParsedTunnel> = Noun {
    name: "tunnel",
    head: "tunnel = { … }",
    what: "a tunnel",
    about: "How packets are wrapped for servers with `forwarding = \"tunnel\"`.",
    rows: &[&TYPE, &PORT, &CHECKSUM],
};

static TYPE: Setting<ParsedTunnel, TunnelType> = Setting::new(
    "type",
    Form::Words(TYPES),
    field!(ParsedTunnel, TunnelType, kind),
    Unset::Value(|_| TunnelType::Ipip, "every Linux server can unwrap it"),
    "Packets in packets (`ipip`), in UDP (`gue`), or in GRE (`gre`). The server may be of the other \
     address family than the service; it needs a link that unwraps: tunl0, sit0 (IPv6 in IPv4), \
     gre0, or for IPv4 in IPv6 one of type ip6tnl with mode any; and `ip fou add port PORT gue` for \
     `gue`.",
);

static PORT: Setting<ParsedTunnel, NonZeroU16> = Setting::new(
    "port",
    Form::Whole {
        low: 1,
        high: 65_535,
        make: |number| u16::try_from(number).ok().and_then(NonZeroU16::new),
        number: |port| i64::from(port.get()),
    },
    field!(ParsedTunnel, NonZeroU16, port),
    Unset::Nothing("none; `gue` needs one"),
    "With `gue`: UDP port that the server unwraps at.",
);

static CHECKSUM: Setting<ParsedTunnel, TunnelChecksum> = Setting::new(
    "checksum",
    Form::Words(&[
        ("none", TunnelChecksum::None),
        ("full", TunnelChecksum::Full),
        ("remote", TunnelChecksum::Remote),
    ]),
    field!(ParsedTunnel, TunnelChecksum, checksum),
    Unset::Value(|_| TunnelChecksum::None, "what is inside has its own"),
    "With `gue` and `gre`: checksum of the outer packet; \"remote\" is the remote checksum offload of \
     GUE. A server takes packets of GRE with a checksum at a link that was made with `icsum` alone, \
     and those without at one that was made without.",
);

fn read(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<Encapsulation> {
    let mut parsed = ParsedTunnel::default();
    let span = match value.get_ref() {
        DeValue::String(_) => {
            let span = reader.span(value.span());
            parsed.kind = Field::Given(At::new(reader.word(value, key, TYPES)?, span));
            span
        }
        _other => TUNNEL.open(reader, value, key, &mut parsed)?,
    };
    parsed.encapsulation(span, reader.report)
}

impl ParsedTunnel {
    /// What the three say together; `None` when they go together badly, which is reported at
    /// `span`.
    pub fn encapsulation(&self, span: Span, report: &mut Report) -> Option<Encapsulation> {
        let is_bad = self.kind.is_bad() || self.port.is_bad() || self.checksum.is_bad();
        if is_bad {
            return None;
        }
        let kind = self.kind.value().copied().unwrap_or(TunnelType::Ipip);
        let checksum = self.checksum.value().copied().unwrap_or_default();
        let misplaced = match kind {
            TunnelType::Ipip if !self.checksum.is_absent() => Some("a checksum"),
            TunnelType::Ipip | TunnelType::Gre if !self.port.is_absent() => Some("a port"),
            TunnelType::Gre if checksum == TunnelChecksum::Remote => Some("a remote checksum"),
            TunnelType::Ipip | TunnelType::Gue | TunnelType::Gre => None,
        };
        if let Some(what) = misplaced {
            let (name, _) = TYPES.iter().find(|(_, one)| *one == kind).unwrap_or(&TYPES[0]);
            let text = format!("a tunnel of type {name} has no {}", &what[2..]);
            report.error(span, "bad-tunnel", text);
            return None;
        }
        match (kind, self.port.value()) {
            (TunnelType::Ipip, _) => Some(Encapsulation::Ipip),
            (TunnelType::Gre, _) => Some(Encapsulation::Gre { checksum }),
            (TunnelType::Gue, Some(port)) => Some(Encapsulation::Gue { port: *port, checksum }),
            (TunnelType::Gue, None) => {
                let text = "a tunnel of type gue needs the UDP port that its servers unwrap at";
                report.error(span, "bad-tunnel", text);
                None
            }
        }
    }
}
