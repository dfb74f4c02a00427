//! `tls` and `server_tls`: how clients and servers are spoken to by TLS.

use std::path::PathBuf;

use crate::field::Field;
use crate::settings::form::{Form, SWITCH, Schema, list, toml_only};
use crate::settings::question::{PATH, absolute};
use crate::settings::row::{Noun, Setting, Unset, field};
use crate::span::At;
use crate::toml::reader::{Key, Reader, Value};

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedClientTls {
    pub certificates: Field<Vec<At<PathBuf>>>,
    pub ports: Field<Vec<At<u16>>>,
    pub alpn: Field<Vec<At<String>>>,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedServerTls {
    pub name: Field<String>,
    pub ca: Field<PathBuf>,
    pub verify: Field<bool>,
}

/// Each is a word in a line of HAProxy, which has 64, and they need two.
const MOST_CERTIFICATES: usize = 24;

pub(crate) const CLIENT_TLS_FORM: Form<ParsedClientTls> = toml_only(
    "a table, as in { certificates = [\"/etc/ssl/www.pem\"] }",
    Schema::Table("tls"),
    |reader, value, key| {
        let mut parsed = ParsedClientTls::default();
        let span = CLIENT_TLS.open(reader, value, key, &mut parsed)?;
        if parsed.certificates.is_absent() {
            reader.report.error(span, "missing-key", "`tls` has no `certificates`");
        }
        parsed.certificates.given()?;
        Some(parsed)
    },
    |_| String::new(),
);

pub(crate) const SERVER_TLS_FORM: Form<ParsedServerTls> = toml_only(
    "a table, as in { name = \"www.internal\" }",
    Schema::Table("server_tls"),
    |reader, value, key| {
        let mut parsed = ParsedServerTls::default();
        SERVER_TLS.open(reader, value, key, &mut parsed)?;
        let is_bad = parsed.name.is_bad() || parsed.ca.is_bad() || parsed.verify.is_bad();
        (!is_bad).then_some(parsed)
    },
    |_| String::new(),
);

pub(crate) static CLIENT_TLS: Noun<ParsedClientTls> = Noun {
    name: "tls",
    head: "tls = { … }",
    what: "a `tls`",
    about: "With HAProxy: clients speak TLS, which ends here.",
    rows: &[&CERTIFICATES, &PORTS, &ALPN],
};

static CERTIFICATES: Setting<ParsedClientTls, Vec<At<PathBuf>>> = Setting::new(
    "certificates",
    list(
        "a list of files, as in [\"/etc/ssl/www.pem\"]",
        Schema::List(&Schema::Text),
        certificates,
    ),
    field!(ParsedClientTls, Vec<At<PathBuf>>, certificates),
    Unset::Required,
    "Files in PEM, each with a certificate, its chain and its key, or directories of such files. A \
     client gets the one for the name that it asks (SNI), else the first. A renewed one is taken up \
     by a reload; a node where one is missing cannot serve.",
);

static PORTS: Setting<ParsedClientTls, Vec<At<u16>>> = Setting::new(
    "ports",
    list(
        "a list of ports, as in [443]",
        Schema::List(&Schema::Whole(1, 65_535)),
        |reader, value, key| {
            let all = reader.each(value, key, |reader, item| {
                reader.integer(item, key, 1..=65_535).and_then(|port| u16::try_from(port).ok())
            })?;
            if all.is_empty() {
                reader.bad_value(value, key, "without a port nobody speaks TLS");
                return None;
            }
            Some(all)
        },
    ),
    field!(ParsedClientTls, Vec<At<u16>>, ports),
    Unset::Nothing("all that the service listens on"),
    "Ports at which TLS is spoken, where it is not all of them.",
);

static ALPN: Setting<ParsedClientTls, Vec<At<String>>> = Setting::new(
    "alpn",
    list(
        "a list of protocols, as in [\"h2\", \"http/1.1\"]",
        Schema::List(&Schema::Text),
        |reader, value, key| reader.each(value, key, |reader, item| protocol(reader, item, key)),
    ),
    field!(ParsedClientTls, Vec<At<String>>, alpn),
    Unset::Nothing("[\"h2\", \"http/1.1\"] with `http`, else none"),
    "Protocols that clients may choose from, the preferred one first; an empty list is none.",
);

pub(crate) static SERVER_TLS: Noun<ParsedServerTls> = Noun {
    name: "server_tls",
    head: "server_tls = { … }",
    what: "a `server_tls`",
    about: "With HAProxy: servers are spoken to by TLS. Health checks are not: they ask as `health` says, \
            as in `https = \"/health\"`.",
    rows: &[&SERVER_NAME, &CA, &VERIFY],
};

static SERVER_NAME: Setting<ParsedServerTls, String> = Setting::new(
    "name",
    toml_only("a host name in quotes", Schema::Text, host_name, String::clone),
    field!(ParsedServerTls, String, name),
    Unset::Nothing("none; a certificate is not verified without"),
    "The name that servers are asked for (SNI), and that their certificates must be for.",
);

static CA: Setting<ParsedServerTls, PathBuf> = Setting::new(
    "ca",
    PATH,
    field!(ParsedServerTls, PathBuf, ca),
    Unset::Nothing("those that the host trusts"),
    "File with the certificates of the authorities, in PEM.",
);

pub(crate) static VERIFY: Setting<ParsedServerTls, bool> = Setting::new(
    "verify",
    SWITCH,
    field!(ParsedServerTls, bool, verify),
    Unset::Value(|_| true, "whoever can answer for a server could read all"),
    "Whether the certificates of servers are verified.",
);

fn certificates(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: Key<'_>,
) -> Option<Vec<At<PathBuf>>> {
    let all = reader.each(value, key, |reader, item| reader.parsed(item, key, absolute))?;
    if all.is_empty() || all.len() > MOST_CERTIFICATES {
        let text = format!("there are 1 to {MOST_CERTIFICATES}: a directory may hold more");
        reader.bad_value(value, key, &text);
        return None;
    }
    Some(all)
}

fn protocol(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<String> {
    reader.parsed(value, key, |text| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "/.-_".contains(c);
        match (1..=32).contains(&text.len()) && text.chars().all(fits) {
            true => Ok(text.to_owned()),
            false => Err("a protocol has letters, digits, and `/.-_`".to_owned()),
        }
    })
}

/// As TLS takes it: no address, which it has no name for.
fn host_name(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<String> {
    reader.parsed(value, key, |text| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = text.chars().any(|c| c.is_ascii_alphabetic());
        match is_name && text.len() <= 253 && text.chars().all(fits) {
            true => Ok(text.to_owned()),
            false => Err("it is not a host name".to_owned()),
        }
    })
}
