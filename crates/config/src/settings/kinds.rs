//! The kinds of questions beside TCP and HTTP, with what belongs to each: DNS, mail, datagrams, ping,
//! databases, gRPC.

use std::sync::Arc;

use ::toml::de::DeValue;
use locum_plan::{
    DnsQuestion, DnsRecord, GrpcQuestion, PostgresUser, Question, UdpQuestion, UdpReply,
};

use crate::dialect::Dialect;
use crate::field::Field;
use crate::settings::form::{Form, SWITCH, Schema, TEXT, text, toml_only, whole};
use crate::settings::question::{Beside, ParsedQuestion};
use crate::settings::row::{Block, Keyword, Setting, Unset, field};
use crate::span::Report;

/// Who logs in to a database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ParsedLogin {
    Nobody,
    User(String),
}

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedKinds {
    pub dns: Field<String>,
    pub record: Field<DnsRecord>,
    pub over_tcp: Field<bool>,
    pub smtp: Field<bool>,
    pub helo: Field<String>,
    pub udp: Field<Vec<u8>>,
    pub reply: Field<Vec<(u8, u8)>>,
    pub reply_min: Field<u32>,
    pub reply_max: Field<u32>,
    pub ping: Field<bool>,
    pub mysql: Field<ParsedLogin>,
    pub postgres: Field<ParsedLogin>,
    pub redis: Field<bool>,
    pub password: Field<String>,
    pub grpc: Field<String>,
    pub tls: Field<bool>,
}

type OfKinds<T> = Setting<ParsedKinds, T>;

pub(super) static DNS: OfKinds<String> = Setting::new(
    "dns",
    toml_only(
        "a name in quotes, as in \"www.example.com\"",
        Schema::Text,
        |reader, value, key| reader.parsed(value, key, name),
        String::clone,
    ),
    field!(ParsedKinds, String, dns),
    Unset::Nothing("none"),
    "A name that DNS must answer with a record.",
)
.keywords(&[Keyword::Own(Block::Checker, "name")]);

pub(super) static RECORD: OfKinds<DnsRecord> = Setting::new(
    "type",
    Form::Words(RECORDS),
    field!(ParsedKinds, DnsRecord, record),
    Unset::Value(
        |dialect| match dialect {
            Dialect::Toml => DnsRecord::A,
            Dialect::Keepalived => DnsRecord::Soa,
        },
        "what clients ask for most",
    ),
    "With `dns`: kind of the record.",
)
.keywords(&[Keyword::Own(Block::Checker, "type")]);

/// Kinds of records by name.
pub(crate) const RECORDS: &[(&str, DnsRecord)] = &[
    ("A", DnsRecord::A),
    ("NS", DnsRecord::Ns),
    ("CNAME", DnsRecord::Cname),
    ("SOA", DnsRecord::Soa),
    ("PTR", DnsRecord::Ptr),
    ("MX", DnsRecord::Mx),
    ("TXT", DnsRecord::Txt),
    ("AAAA", DnsRecord::Aaaa),
    ("SRV", DnsRecord::Srv),
];

pub(super) static OVER_TCP: OfKinds<bool> = Setting::new(
    "over_tcp",
    SWITCH,
    field!(ParsedKinds, bool, over_tcp),
    Unset::Value(|_| false, "answers that are too long for a datagram come over TCP anyway"),
    "With `dns`: ask over TCP.",
);

pub(super) static SMTP: OfKinds<bool> = Setting::new(
    "smtp",
    SWITCH,
    field!(ParsedKinds, bool, smtp),
    Unset::Nothing("false"),
    "A mail server must greet and answer EHLO or HELO.",
);

pub(super) static HELO: OfKinds<String> = Setting::new(
    "helo",
    toml_only(
        "a host name in quotes",
        Schema::Text,
        |reader, value, key| reader.parsed(value, key, crate::values::http_host),
        String::clone,
    ),
    field!(ParsedKinds, String, helo),
    Unset::Value(|_| "locum.invalid".to_owned(), "a name that is nobody's"),
    "With `smtp`: name that it is greeted with.",
)
.keywords(&[Keyword::Own(Block::Checker, "helo_name")]);

pub(super) static UDP: OfKinds<Vec<u8>> = Setting::new(
    "udp",
    toml_only(
        "text in quotes, or hexadecimal digits as in \"0x1a2b\"",
        Schema::Text,
        |reader, value, key| reader.parsed(value, key, octets),
        |octets| format!("0x{}", hex::encode(octets)),
    ),
    field!(ParsedKinds, Vec<u8>, udp),
    Unset::Nothing("none"),
    "A datagram with this in it, which must not be refused.",
)
.keywords(&[Keyword::Own(Block::Checker, "payload")]);

pub(super) static REPLY: OfKinds<Vec<(u8, u8)>> = Setting::new(
    "reply",
    toml_only(
        "text in quotes, or hexadecimal digits with x for any, as in \"0x1axx2b\"",
        Schema::Text,
        |reader, value, key| reader.parsed(value, key, pattern),
        |_| String::new(),
    ),
    field!(ParsedKinds, Vec<(u8, u8)>, reply),
    Unset::Nothing("nothing has to come back"),
    "With `udp`: how the answer must begin; \"\" is any answer.",
)
.keywords(&[Keyword::Own(Block::Checker, "require_reply")]);

pub(super) static REPLY_MIN: OfKinds<u32> = Setting::new(
    "reply_min",
    whole(0, 65_535),
    field!(ParsedKinds, u32, reply_min),
    Unset::Value(|_| 0, "any"),
    "With `reply`: octets of the shortest answer that is one.",
)
.keywords(&[Keyword::Plain(Block::Checker, "min_reply_length")]);

pub(super) static REPLY_MAX: OfKinds<u32> = Setting::new(
    "reply_max",
    whole(0, 65_535),
    field!(ParsedKinds, u32, reply_max),
    Unset::Nothing("no limit"),
    "With `reply`: octets of the longest answer that is one.",
)
.keywords(&[Keyword::Plain(Block::Checker, "max_reply_length")]);

pub(super) static PING: OfKinds<bool> = Setting::new(
    "ping",
    SWITCH,
    field!(ParsedKinds, bool, ping),
    Unset::Nothing("false"),
    "An ICMP echo request must be answered.",
);

const LOGIN_SCHEMA: Schema = Schema::Any(&[Schema::Boolean, Schema::Text]);

pub(super) static MYSQL: OfKinds<ParsedLogin> = Setting::new(
    "mysql",
    toml_only("true, or a user without a password in quotes", LOGIN_SCHEMA, login, |_| {
        String::new()
    }),
    field!(ParsedKinds, ParsedLogin, mysql),
    Unset::Nothing("none"),
    "MySQL or MariaDB must greet, and let this user in.",
);

pub(super) static POSTGRES: OfKinds<ParsedLogin> = Setting::new(
    "postgres",
    toml_only("true, or \"USER/DATABASE\"", LOGIN_SCHEMA, login, |_| String::new()),
    field!(ParsedKinds, ParsedLogin, postgres),
    Unset::Nothing("none"),
    "PostgreSQL must take connections, and those of this user up to the password.",
);

pub(super) static REDIS: OfKinds<bool> = Setting::new(
    "redis",
    SWITCH,
    field!(ParsedKinds, bool, redis),
    Unset::Nothing("false"),
    "Redis must answer PING.",
);

pub(super) static PASSWORD: OfKinds<String> = Setting::new(
    "password",
    TEXT,
    field!(ParsedKinds, String, password),
    Unset::Nothing("none"),
    "With `redis`: what AUTH is given.",
);

pub(super) static GRPC: OfKinds<String> = Setting::new(
    "grpc",
    text("the name of a service in quotes, or \"\" for the server as a whole"),
    field!(ParsedKinds, String, grpc),
    Unset::Nothing("none"),
    "gRPC's health protocol must answer SERVING for this service.",
);

pub(super) static TLS: OfKinds<bool> = Setting::new(
    "tls",
    SWITCH,
    field!(ParsedKinds, bool, tls),
    Unset::Value(|_| false, "most servers of gRPC behind a balancer speak without"),
    "With `grpc`: whether it is encrypted.",
);

impl ParsedKinds {
    /// Those that are chosen, by their keys.
    pub fn chosen(&self) -> Vec<(&'static str, Field<()>)> {
        fn given<T: Clone>(field: &Field<T>) -> Field<()> {
            field.clone().map(|_| ())
        }
        fn switch(field: &Field<bool>) -> Field<()> {
            match field.value() {
                Some(false) => Field::Absent,
                Some(true) | None => given(field),
            }
        }
        let all = [
            ("dns", given(&self.dns)),
            ("smtp", switch(&self.smtp)),
            ("udp", given(&self.udp)),
            ("ping", switch(&self.ping)),
            ("mysql", given(&self.mysql)),
            ("postgres", given(&self.postgres)),
            ("redis", switch(&self.redis)),
            ("grpc", given(&self.grpc)),
        ];
        all.into_iter().filter(|(_, field)| !field.is_absent()).collect()
    }

    /// What this kind asks; `None` where it is none of these or has been refused.
    pub fn question(
        &self,
        kind: &str,
        asked: &ParsedQuestion,
        dialect: Dialect,
        report: &mut Report,
    ) -> Option<(Question, &'static [Beside])> {
        let plain: &[Beside] = &[Beside::Network];
        Some(match kind {
            "dns" => {
                let question = DnsQuestion {
                    name: self.dns.value()?.clone(),
                    record: RECORD.of(self, dialect),
                    is_tcp: OVER_TCP.of(self, dialect),
                };
                (Question::Dns(Arc::new(question)), plain)
            }
            "smtp" => (Question::Smtp { helo: HELO.of(self, dialect).into() }, plain),
            "udp" => (Question::Udp(Arc::new(self.udp(dialect, report)?)), plain),
            "ping" => (Question::Ping, plain),
            "mysql" => {
                let user = match self.mysql.value()? {
                    ParsedLogin::Nobody => None,
                    ParsedLogin::User(user) => Some(user.as_str().into()),
                };
                (Question::Mysql { user }, plain)
            }
            "postgres" => {
                let user = match self.postgres.value()? {
                    ParsedLogin::Nobody => None,
                    ParsedLogin::User(text) => {
                        let (user, database) = text.split_once('/').unwrap_or((text, text));
                        let (user, database) = (user.to_owned(), database.to_owned());
                        Some(Arc::new(PostgresUser { user, database }))
                    }
                };
                (Question::Postgres { user }, plain)
            }
            "redis" => {
                let password = self.password.value().map(|text| text.as_str().into());
                (Question::Redis { password }, plain)
            }
            "grpc" => {
                let is_encrypted = TLS.of(self, dialect);
                let question = GrpcQuestion {
                    service: self.grpc.value()?.clone(),
                    host: asked.host.value().cloned(),
                    tls: is_encrypted.then(|| asked.tls(report)),
                };
                let at = self.grpc.given()?.span;
                if question.service.len() > 127 {
                    let text = "the name of a service of gRPC has at most 127 octets";
                    report.error(at, "bad-value", text);
                }
                let beside: &[Beside] = match is_encrypted {
                    true => &[Beside::Network, Beside::Host, Beside::Tls],
                    false => &[Beside::Network, Beside::Host],
                };
                (Question::Grpc(Arc::new(question)), beside)
            }
            _ => return None,
        })
    }

    fn udp(&self, dialect: Dialect, report: &mut Report) -> Option<UdpQuestion> {
        let payload = self.udp.value()?.clone();
        let (least, most) = (REPLY_MIN.of(self, dialect), self.reply_max.value().copied());
        if let (Some(most), Some(at)) = (most, self.reply_max.given())
            && most < least
        {
            let text =
                format!("the longest answer is shorter than the shortest, which has {least}");
            report.error(at.span, "bad-value", text);
        }
        let is_wanted = [self.reply_min.is_absent(), self.reply_max.is_absent()] != [true, true];
        let reply = match self.reply.value() {
            None if !is_wanted => None,
            pattern => Some(UdpReply {
                pattern: pattern.cloned().unwrap_or_default(),
                shortest: least as usize,
                longest: most.map(|most| most as usize),
            }),
        };
        Some(UdpQuestion { payload, reply })
    }

    /// As [`Report::misplaced`].
    pub fn misplaced(&self, kind: &str, report: &mut Report) {
        let written = [
            ("type", self.record.span(), "dns"),
            ("over_tcp", self.over_tcp.span(), "dns"),
            ("helo", self.helo.span(), "smtp"),
            ("reply", self.reply.span(), "udp"),
            ("reply_min", self.reply_min.span(), "udp"),
            ("reply_max", self.reply_max.span(), "udp"),
            ("password", self.password.span(), "redis"),
            ("tls", self.tls.span(), "grpc"),
        ];
        report.misplaced(kind, written.map(|(name, span, home)| (name, span, home == kind)));
    }
}

/// The port that is asked where a check names none.
pub(super) fn default_port(kind: &str) -> Option<u16> {
    match kind {
        "dns" => Some(53),
        "smtp" => Some(25),
        "mysql" => Some(3306),
        "postgres" => Some(5432),
        "redis" => Some(6379),
        // Of a ping it means nothing.
        "ping" => Some(0),
        _ => None,
    }
}

/// A name of DNS: labels of 1 to 63 octets, or the root.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|octet| octet.is_ascii_graphic())
    };
    if (text == "." || bare.split('.').all(is_label)) && bare.len() <= 253 {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a name of DNS"))
    }
}

/// Text, or hexadecimal digits after 0x.
pub(crate) fn octets(text: &str) -> Result<Vec<u8>, String> {
    match text.strip_prefix("0x") {
        None => Ok(text.as_bytes().to_vec()),
        Some(digits) => hex::decode(digits)
            .map_err(|_| format!("`{text}` is not an even number of hexadecimal digits")),
    }
}

/// Text, or hexadecimal digits after 0x with x for any digit.
pub(crate) fn pattern(text: &str) -> Result<Vec<(u8, u8)>, String> {
    let Some(digits) = text.strip_prefix("0x") else {
        return Ok(text.bytes().map(|octet| (octet, 0xff)).collect());
    };
    let digit = |octet: u8| match octet {
        b'x' | b'X' => Some((0, 0)),
        octet => char::from(octet).to_digit(16).map(|digit| (digit as u8, 0x0f)),
    };
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let (high, low) = (digit(pair[0])?, digit(*pair.get(1)?)?);
        Some((high.0 << 4 | low.0, high.1 << 4 | low.1))
    });
    let pairs: Option<Vec<_>> = pairs.collect();
    pairs.ok_or_else(|| format!("`{text}` is not an even number of hexadecimal digits or x"))
}

fn login(
    reader: &mut crate::toml::reader::Reader<'_>,
    value: &crate::toml::reader::Value<'_>,
    key: crate::toml::reader::Key<'_>,
) -> Option<ParsedLogin> {
    match value.get_ref() {
        DeValue::Boolean(true) => Some(ParsedLogin::Nobody),
        DeValue::Boolean(false) => {
            reader.bad_value(value, key, "false asks nothing: leave it out");
            None
        }
        _other => reader.parsed(value, key, |text| {
            if text.is_empty() || text.contains('\0') {
                Err(format!("`{text}` is not the name of a user"))
            } else {
                Ok(ParsedLogin::User(text.to_owned()))
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_text_or_digits_with_wildcards() {
        assert_eq!(octets("ab"), Ok(vec![0x61, 0x62]));
        assert_eq!(octets("0x00fF"), Ok(vec![0, 0xff]));
        assert!(octets("0x123").is_err() && octets("0xzz").is_err());
        assert_eq!(pattern("0x1x2fxx"), Ok(vec![(0x10, 0xf0), (0x2f, 0xff), (0, 0)]));
        assert_eq!(pattern("A"), Ok(vec![(0x41, 0xff)]));
        assert!(pattern("0x1").is_err() && pattern("0x1g").is_err());
    }

    #[test]
    fn a_name_of_dns_has_labels_that_fit() {
        for good in ["www.example.com", "www.example.com.", ".", "_sip._udp.a"] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["", "..", "a..b", "a b", &"a".repeat(64), &"a.".repeat(128)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
