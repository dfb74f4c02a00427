//! `health` of services and servers, and the checker blocks of a `real_server`: what a server is asked.

use std::time::Duration;

use ::toml::de::DeValue;
use locum_plan::{Question, StatusRange};

use crate::dialect::Dialect;
use crate::field::Field;
use crate::settings::check::{EXPECT_FORM, HOST_FORM, success};
use crate::settings::form::{COUNT, Form, SWITCH, Schema, TIME, list, toml_only};
use crate::settings::row::{Block, Keyword, Noun, Setting, Unset, field};
use crate::span::{At, Span};
use crate::toml::reader::{Key, Reader, Value};
use crate::values;

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

type OfHealth<T> = Setting<ParsedHealth, T>;

/// One health check, or a list of them.
pub(super) const HEALTHS: Form<Vec<At<ParsedHealth>>> = list(
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
