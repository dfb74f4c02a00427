//! What goes along with a question to an address, in checks of instances and of servers alike: what
//! must be answered, and where the question comes from.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ::toml::de::DeValue;
use locum_plan::{
    BodyDigest, BodyPattern, CheckSource, HttpMethod, HttpPage, HttpQuestion, HttpVersion, Name,
    StatusRange, Tls, Trust,
};

use crate::dialect::Dialect;
use crate::field::Field;
use crate::settings::form::{Form, SWITCH, Schema, TEXT, TIME, text, toml_only, whole};
use crate::settings::row::{Block, Keyword, Setting, Unset, field};
use crate::span::{At, Report};
use crate::toml::reader::{Key, Reader, Value};
use crate::values;

/// The settings of a question that are not its kind.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedQuestion {
    pub expect: Field<Vec<StatusRange>>,
    pub host: Field<String>,
    pub method: Field<HttpMethod>,
    pub payload: Field<String>,
    pub version: Field<HttpVersion>,
    pub body: Field<String>,
    pub regex: Field<String>,
    pub sha256: Field<BodyDigest>,
    pub md5: Field<BodyDigest>,
    pub sni: Field<String>,
    pub verify: Field<bool>,
    pub ca: Field<PathBuf>,
    pub certificate: Field<PathBuf>,
    pub key: Field<PathBuf>,
    pub source: Field<(IpAddr, u16)>,
    pub interface: Field<String>,
    pub mark: Field<u32>,
    pub retry_delay: Field<Duration>,
    pub warm_up: Field<Duration>,
}

type OfQuestion<T> = Setting<ParsedQuestion, T>;

pub(super) static EXPECT: OfQuestion<Vec<StatusRange>> = Setting::new(
    "expect",
    EXPECT_FORM,
    field!(ParsedQuestion, Vec<StatusRange>, expect),
    Unset::Value(|_| success(), "the codes of success"),
    "Of a page: status codes that are a success. Redirects are not followed.",
);

pub(super) static HOST: OfQuestion<String> = Setting::new(
    "host",
    toml_only(
        "a host name in quotes",
        Schema::Text,
        |reader, value, key| reader.parsed(value, key, values::http_host),
        String::clone,
    ),
    field!(ParsedQuestion, String, host),
    Unset::Nothing("the address that is asked"),
    "Of a page: value of the Host header.",
)
.keywords(&[Keyword::Own(Block::Checker, "virtualhost")]);

pub(super) static METHOD: OfQuestion<HttpMethod> = Setting::new(
    "method",
    Form::Words(&[
        ("GET", HttpMethod::Get),
        ("HEAD", HttpMethod::Head),
        ("POST", HttpMethod::Post),
    ]),
    field!(ParsedQuestion, HttpMethod, method),
    Unset::Value(|_| HttpMethod::Get, "what every server answers"),
    "Of a page: how it is asked for.",
);

pub(super) static PAYLOAD: OfQuestion<String> = Setting::new(
    "payload",
    TEXT,
    field!(ParsedQuestion, String, payload),
    Unset::Nothing("nothing"),
    "With `method = \"POST\"`: what is sent.",
);

pub(super) static VERSION: OfQuestion<HttpVersion> = Setting::new(
    "version",
    Form::Words(&[
        ("1.0", HttpVersion::Http10),
        ("1.1", HttpVersion::Http11),
        ("2", HttpVersion::Http2),
    ]),
    field!(ParsedQuestion, HttpVersion, version),
    Unset::Value(|_| HttpVersion::Http11, "what every server speaks"),
    "Of a page: the version of HTTP. \"2\" is by ALPN with https, and with prior knowledge without.",
)
.keywords(&[Keyword::Own(Block::Checker, "http_protocol")]);

pub(super) static BODY: OfQuestion<String> = Setting::new(
    "body",
    TEXT,
    field!(ParsedQuestion, String, body),
    Unset::Nothing("none"),
    "Of a page: text that must stand in the first MiB of its body.",
);

pub(super) static REGEX: OfQuestion<String> = Setting::new(
    "regex",
    toml_only(
        "a regular expression in quotes",
        Schema::Text,
        |reader, value, key| {
            reader.parsed(value, key, |text| regex(text).map(|()| text.to_owned()))
        },
        String::clone,
    ),
    field!(ParsedQuestion, String, regex),
    Unset::Nothing("none"),
    "Of a page: what the first MiB of its body must match, in the syntax of Rust's regex, which has \
     no look-around and no back-references.",
);

pub(super) static SHA256: OfQuestion<BodyDigest> = Setting::new(
    "sha256",
    digest("64 hexadecimal digits in quotes, as sha256sum prints them", |reader, value, key| {
        reader.parsed(value, key, |text| values::digest(text).map(BodyDigest::Sha256))
    }),
    field!(ParsedQuestion, BodyDigest, sha256),
    Unset::Nothing("none"),
    "Of a page: SHA-256 of its body, which has at most 16 MiB.",
);

pub(super) static MD5: OfQuestion<BodyDigest> = Setting::new(
    "md5",
    digest("32 hexadecimal digits in quotes, as md5sum prints them", |reader, value, key| {
        reader.parsed(value, key, |text| values::digest(text).map(BodyDigest::Md5))
    }),
    field!(ParsedQuestion, BodyDigest, md5),
    Unset::Nothing("none"),
    "Of a page: MD5 of its body, which has at most 16 MiB; what keepalived's genhash prints.",
);

const fn digest(
    shape: &'static str,
    toml: fn(&mut Reader<'_>, &Value<'_>, Key<'_>) -> Option<BodyDigest>,
) -> Form<BodyDigest> {
    toml_only(shape, Schema::Text, toml, |_| String::new())
}

pub(super) static SNI: OfQuestion<String> = Setting::new(
    "sni",
    text("a host name in quotes"),
    field!(ParsedQuestion, String, sni),
    Unset::Nothing("the name in `host`, else none, and the certificate is for the address"),
    "With https: name that is sent, and that the certificate must be for.",
);

pub(super) static VERIFY: OfQuestion<bool> = Setting::new(
    "verify",
    SWITCH,
    field!(ParsedQuestion, bool, verify),
    Unset::Value(|_| true, "a client of the server would refuse a bad certificate"),
    "With https: whether the certificate is verified. SSL_GET does not.",
);

pub(super) const PATH: Form<PathBuf> = toml_only(
    "the path of a file in quotes",
    Schema::Text,
    |reader, value, key| reader.parsed(value, key, absolute),
    |path| path.display().to_string(),
);

/// A path from the root on.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    if text.chars().any(char::is_control) {
        Err("a path has printable characters".to_owned())
    } else if !text.starts_with('/') {
        Err(format!("`{text}` is not an absolute path"))
    } else {
        Ok(PathBuf::from(text))
    }
}

pub(super) static CA: OfQuestion<PathBuf> = Setting::new(
    "ca",
    PATH,
    field!(ParsedQuestion, PathBuf, ca),
    Unset::Nothing("those that the host trusts"),
    "With https: file with the certificates of the authorities, in PEM. It is read again every \
     minute, as the two below.",
);

pub(super) static CERTIFICATE: OfQuestion<PathBuf> = Setting::new(
    "certificate",
    PATH,
    field!(ParsedQuestion, PathBuf, certificate),
    Unset::Nothing("none"),
    "With https: file with our own certificate, in PEM.",
);

pub(super) static KEY: OfQuestion<PathBuf> = Setting::new(
    "key",
    PATH,
    field!(ParsedQuestion, PathBuf, key),
    Unset::Nothing("none"),
    "With `certificate`: file with its key, in PEM.",
);

pub(super) static SOURCE: OfQuestion<(IpAddr, u16)> = Setting::new(
    "source",
    toml_only(
        "an address of this host in quotes, with or without a port",
        Schema::Text,
        |reader, value, key| reader.parsed(value, key, address_and_port),
        |(address, _)| address.to_string(),
    ),
    field!(ParsedQuestion, (IpAddr, u16), source),
    Unset::Nothing("what the kernel chooses"),
    "Address to ask from.",
)
.keywords(&[Keyword::Own(Block::Checker, "bindto"), Keyword::Own(Block::Checker, "bind_port")]);

pub(super) static INTERFACE: OfQuestion<String> = Setting::new(
    "interface",
    text("the name of an interface in quotes"),
    field!(ParsedQuestion, String, interface),
    Unset::Nothing("what the routes say"),
    "Interface to ask from (SO_BINDTODEVICE).",
)
.keywords(&[Keyword::Plain(Block::Checker, "bind_if")]);

pub(super) static MARK: OfQuestion<u32> = Setting::new(
    "mark",
    whole(1, u32::MAX),
    field!(ParsedQuestion, u32, mark),
    Unset::Nothing("none"),
    "Mark of the packets, for routing rules and filters (SO_MARK).",
)
.keywords(&[Keyword::Plain(Block::Checker, "fwmark")]);

pub(super) static RETRY_DELAY: OfQuestion<Duration> = Setting::new(
    "retry_delay",
    TIME,
    field!(ParsedQuestion, Duration, retry_delay),
    Unset::Nothing("`interval`; in a keepalived.conf \"1s\", of HTTP_GET and SSL_GET \"3s\""),
    "Time from a failed run to the next, until `fall` of them have failed.",
)
.keywords(&[
    Keyword::Plain(Block::Checker, "delay_before_retry"),
    Keyword::Plain(Block::RealServer, "delay_before_retry"),
    Keyword::Plain(Block::VirtualServer, "delay_before_retry"),
]);

pub(super) static WARM_UP: OfQuestion<Duration> = Setting::new(
    "warm_up",
    TIME,
    field!(ParsedQuestion, Duration, warm_up),
    Unset::Nothing("that of the server; of a check all begin within half a second"),
    "The first run comes at some time within this: thousands of checks spread over it.",
)
.keywords(&[Keyword::Plain(Block::Checker, "warmup")]);

/// What a question may have beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Beside {
    /// Of a page of HTTP.
    Http,
    /// Of what has hosts by name.
    Host,
    /// Of what is encrypted.
    Tls,
    /// Of whatever is asked over the network.
    Network,
}

impl ParsedQuestion {
    /// As [`Report::misplaced`].
    pub fn misplaced(&self, kind: &str, beside: &[Beside], report: &mut Report) {
        let written = [
            ("expect", self.expect.span(), Beside::Http),
            ("host", self.host.span(), Beside::Host),
            ("method", self.method.span(), Beside::Http),
            ("payload", self.payload.span(), Beside::Http),
            ("version", self.version.span(), Beside::Http),
            ("body", self.body.span(), Beside::Http),
            ("regex", self.regex.span(), Beside::Http),
            ("sha256", self.sha256.span(), Beside::Http),
            ("md5", self.md5.span(), Beside::Http),
            ("sni", self.sni.span(), Beside::Tls),
            ("verify", self.verify.span(), Beside::Tls),
            ("ca", self.ca.span(), Beside::Tls),
            ("certificate", self.certificate.span(), Beside::Tls),
            ("key", self.key.span(), Beside::Tls),
            ("source", self.source.span(), Beside::Network),
            ("interface", self.interface.span(), Beside::Network),
            ("mark", self.mark.span(), Beside::Network),
        ];
        let fits = |(name, span, needs)| (name, span, beside.contains(&needs));
        report.misplaced(kind, written.map(fits));
    }

    /// These pages, each with the host it has by itself, asked as the settings say.
    pub fn http(
        &self,
        pages: &[(String, Option<String>)],
        is_encrypted: bool,
        report: &mut Report,
    ) -> HttpQuestion {
        let digest = match (self.sha256.given(), self.md5.given()) {
            (Some(_), Some(second)) => {
                let text = "a page has one digest: `sha256` or `md5`, not both";
                report.error(second.span, "two-digests", text);
                None
            }
            (digest, other) => digest.or(other).map(|at| at.value),
        };
        let method = METHOD.of(self, Dialect::Toml);
        if let (Some(payload), false) = (self.payload.given(), method == HttpMethod::Post) {
            let text = "`payload` means nothing without `method = \"POST\"`";
            report.error(payload.span, "misplaced-key", text);
        }
        let body = [self.body.span(), self.regex.span()];
        if let (Some(span), HttpMethod::Head) = (body.into_iter().flatten().next(), method) {
            let text = "an answer to HEAD has no body";
            report.error(span, "misplaced-key", text);
        }
        let regex = self.regex.value();
        let pages = pages.iter().map(|(path, host)| HttpPage {
            method,
            path: path.clone(),
            host: self.host.value().or(host.as_ref()).cloned(),
            payload: self.payload.value().cloned(),
            expect: self.expect.value().cloned().unwrap_or_else(success),
            text: self.body.value().cloned(),
            pattern: regex.map(|regex| BodyPattern {
                regex: regex.clone(),
                is_unwanted: false,
                first: 0,
                last: None,
            }),
            digest,
        });
        HttpQuestion {
            pages: pages.collect(),
            version: VERSION.of(self, Dialect::Toml),
            tls: is_encrypted.then(|| self.tls(report)),
        }
    }

    pub fn tls(&self, report: &mut Report) -> Tls {
        let trust = match (self.verify.value(), self.ca.given()) {
            (Some(false), Some(ca)) => {
                let text = "`ca` means nothing beside `verify = false`";
                report.error(ca.span, "misplaced-key", text);
                Trust::Anybody
            }
            (Some(false), None) => Trust::Anybody,
            (Some(true) | None, Some(ca)) => Trust::File(ca.value.clone()),
            (Some(true) | None, None) => Trust::System,
        };
        let identity = match (self.certificate.given(), self.key.given()) {
            (Some(certificate), Some(key)) => Some((certificate.value.clone(), key.value.clone())),
            (None, None) => None,
            (Some(alone), None) => {
                let text = "a `certificate` needs its `key`";
                report.error(alone.span, "missing-key", text);
                None
            }
            (None, Some(alone)) => {
                report.error(alone.span, "missing-key", "a `key` needs its `certificate`");
                None
            }
        };
        Tls { name: self.sni.value().cloned(), sends_name: true, trust, identity }
    }

    /// Where the question comes from; `None` is as the kernel chooses.
    pub fn origin(&self) -> Option<CheckSource> {
        let origin = CheckSource {
            source: self.source.value().map(|(address, port)| SocketAddr::new(*address, *port)),
            interface: self.interface.value().map(|name| Name::from(name.as_str())),
            mark: self.mark.value().copied(),
            header: None,
        };
        (origin != CheckSource::default()).then_some(origin)
    }
}

/// `200`, `"200-299"`, or a list of them.
const EXPECT_FORM: Form<Vec<StatusRange>> = toml_only(
    "a status code, a range as in \"200-299\", or a list of them",
    Schema::Any(&[
        Schema::Whole(100, 599),
        Schema::Text,
        Schema::List(&Schema::Any(&[Schema::Whole(100, 599), Schema::Text])),
    ]),
    expect,
    |ranges| {
        let one = |range: &StatusRange| format!("\"{}-{}\"", range.first, range.last);
        ranges.iter().map(one).collect::<Vec<_>>().join(", ")
    },
);

/// Status codes that are a success when the file names none: keepalived's too.
pub(crate) fn success() -> Vec<StatusRange> {
    vec![StatusRange { first: 200, last: 299 }]
}

fn expect(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<Vec<StatusRange>> {
    if !matches!(value.get_ref(), DeValue::Array(_)) {
        return status(reader, value, key).map(|range| vec![range]);
    }
    let ranges = reader.each(value, key, |reader, item| status(reader, item, key))?;
    if ranges.is_empty() {
        reader.bad_value(value, key, "the list is empty: nothing would be a success");
        return None;
    }
    Some(ranges.into_iter().map(|at: At<_>| at.value).collect())
}

fn status(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<StatusRange> {
    if let DeValue::Integer(_) = value.get_ref() {
        let code = u16::try_from(reader.integer(value, key, 100..=599)?).ok()?;
        return Some(StatusRange { first: code, last: code });
    }
    reader.parsed(value, key, values::status_range)
}

/// Port 0 where there is none.
pub(super) fn address_and_port(text: &str) -> Result<(IpAddr, u16), String> {
    values::address_and_port(text).map(|(address, port)| (address, port.unwrap_or(0)))
}

/// The text is one; the error says where it is not.
pub(crate) fn regex(text: &str) -> Result<(), String> {
    let compiled = regex::bytes::RegexBuilder::new(text).size_limit(values::REGEX_SIZE).build();
    compiled.map(|_| ()).map_err(|error| {
        let reason = error.to_string();
        // The last line says what, those before draw where.
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("`{text}` is not a regular expression: {reason}")
    })
}
