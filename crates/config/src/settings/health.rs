//! `health` of services and servers, and the checker blocks of a `real_server`: what a server is asked.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::toml::de::DeValue;
use locum_plan::{Command, CommandLine, Question};

use crate::dialect::Dialect;
use crate::field::Field;
use crate::settings::command::ARGV;
use crate::settings::form::{
    COUNT, Form, SWITCH, Schema, TEXT, TIME, ip_address, list, toml_only, whole_u16,
};
use crate::settings::kinds::{self, ParsedKinds};
use crate::settings::question::{self, Beside, PATH, ParsedQuestion};
use crate::settings::row::{Block, Keyword, Noun, PartRow, Row, Setting, Unset, field};
use crate::span::{At, Report, Span};
use crate::toml::reader::{Key, Reader, Value};
use crate::values;

/// One health check of the servers it is of.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedHealth {
    /// What the kinds below and `asked` come to.
    pub question: Field<Question>,
    pub tcp: Field<bool>,
    pub http: Field<Vec<String>>,
    pub https: Field<Vec<String>>,
    pub kinds: ParsedKinds,
    pub agent: Field<bool>,
    pub script: Field<CommandLine>,
    pub user: Field<String>,
    pub group: Field<String>,
    pub weighs: Field<bool>,
    pub file: Field<PathBuf>,
    pub factor: Field<i32>,
    /// What `script` and `file` come to, in place of a question.
    pub local: Field<LocalCheck>,
    pub asked: ParsedQuestion,
    /// Address and port to ask; the server's own when absent.
    pub address: Field<IpAddr>,
    pub port: Field<u16>,
    pub interval: Field<Duration>,
    pub timeout: Field<Duration>,
    pub rise: Field<u32>,
    pub fall: Field<u32>,
}

/// A check of a server that asks something on this host.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum LocalCheck {
    Script { command: Command, is_weighing: bool },
    File { path: PathBuf, factor: i32 },
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
    about: "A health check of a server. It asks one thing: `tcp`, `http`, `https`, `dns`, `smtp`, \
            `udp`, `ping`, `mysql`, `postgres`, `redis`, `grpc`, `agent`, `script` or `file`.",
    rows: &[
        &TCP,
        &HTTP,
        &HTTPS,
        &kind(&kinds::DNS),
        &kind(&kinds::SMTP),
        &kind(&kinds::UDP),
        &kind(&kinds::PING),
        &kind(&kinds::MYSQL),
        &kind(&kinds::POSTGRES),
        &kind(&kinds::REDIS),
        &kind(&kinds::GRPC),
        &AGENT,
        &SCRIPT,
        &FILE,
        &asked(&question::EXPECT),
        &asked(&question::HOST),
        &asked(&question::METHOD),
        &asked(&question::PAYLOAD),
        &asked(&question::VERSION),
        &asked(&question::BODY),
        &asked(&question::REGEX),
        &asked(&question::SHA256),
        &asked(&question::MD5),
        &asked(&question::SNI),
        &asked(&question::VERIFY),
        &asked(&question::CA),
        &asked(&question::CERTIFICATE),
        &asked(&question::KEY),
        &kind(&kinds::RECORD),
        &kind(&kinds::OVER_TCP),
        &kind(&kinds::HELO),
        &kind(&kinds::REPLY),
        &kind(&kinds::REPLY_MIN),
        &kind(&kinds::REPLY_MAX),
        &kind(&kinds::PASSWORD),
        &kind(&kinds::TLS),
        &USER,
        &GROUP,
        &WEIGHS,
        &FACTOR,
        &HEALTH_ADDRESS,
        &HEALTH_PORT,
        &asked(&question::SOURCE),
        &asked(&question::INTERFACE),
        &asked(&question::MARK),
        &HEALTH_INTERVAL,
        &HEALTH_TIMEOUT,
        &HEALTH_RISE,
        &HEALTH_FALL,
        &asked(&question::RETRY_DELAY),
        &asked(&question::WARM_UP),
    ],
};

/// A setting of the question, of a health check.
const fn asked(row: &'static dyn Row<ParsedQuestion>) -> PartRow<ParsedHealth, ParsedQuestion> {
    const BLOCKS: &[Block] = &[Block::Checker, Block::RealServer, Block::VirtualServer];
    PartRow::new(row, |health| &health.asked, |health| &mut health.asked, BLOCKS)
}

/// A setting of the kinds, of a health check.
const fn kind(row: &'static dyn Row<ParsedKinds>) -> PartRow<ParsedHealth, ParsedKinds> {
    PartRow::new(row, |health| &health.kinds, |health| &mut health.kinds, &[Block::Checker])
}

static AGENT: OfHealth<bool> = Setting::new(
    "agent",
    SWITCH,
    field!(ParsedHealth, bool, agent),
    Unset::Nothing("false"),
    "An agent of the server, as HAProxy has them, says whether it is up and how much it takes; on \
     a `port` of its own.",
);

static SCRIPT: OfHealth<CommandLine> = Setting::new(
    "script",
    ARGV,
    field!(ParsedHealth, CommandLine, script),
    Unset::Nothing("none"),
    "A program that must exit with status 0. It finds its server in LOCUM_ADDRESS and LOCUM_PORT.",
)
.keywords(&[Keyword::Own(Block::Checker, "misc_path")]);

static USER: OfHealth<String> = Setting::new(
    "user",
    TEXT,
    field!(ParsedHealth, String, user),
    Unset::Nothing("the daemon's own"),
    "With `script`: user to run it as.",
)
.keywords(&[Keyword::Own(Block::Checker, "user")]);

static GROUP: OfHealth<String> = Setting::new(
    "group",
    TEXT,
    field!(ParsedHealth, String, group),
    Unset::Nothing("that of the user"),
    "With `script`: group to run it as.",
);

static WEIGHS: OfHealth<bool> = Setting::new(
    "weighs",
    SWITCH,
    field!(ParsedHealth, bool, weighs),
    Unset::Value(|_| false, "most scripts say yes or no"),
    "With `script`: a status from 2 to 255 passes too, and is the weight of the server and 2 more.",
)
.keywords(&[Keyword::Own(Block::Checker, "misc_dynamic")]);

static FILE: OfHealth<PathBuf> = Setting::new(
    "file",
    PATH,
    field!(ParsedHealth, PathBuf, file),
    Unset::Nothing("none"),
    "A file with a number in it, which must be 0; a file that is not there has 0.",
);

static FACTOR: OfHealth<i32> = Setting::new(
    "factor",
    Form::Whole {
        low: -65_535,
        high: 65_535,
        make: |number| i32::try_from(number).ok(),
        number: |factor| i64::from(*factor),
    },
    field!(ParsedHealth, i32, factor),
    Unset::Value(|_| 0, "the file says yes or no"),
    "With `file`: any number passes, and this many times it is added to the weight of the server.",
);

static TCP: OfHealth<bool> = Setting::new(
    "tcp",
    SWITCH,
    field!(ParsedHealth, bool, tcp),
    Unset::Nothing("false"),
    "The server must accept a connection.",
);

/// `"/health"`, or a list of paths.
const PATHS: Form<Vec<String>> = toml_only(
    "a path, as in \"/health\", or a list of them",
    Schema::Any(&[Schema::Text, Schema::List(&Schema::Text)]),
    |reader, value, key| {
        let DeValue::Array(_) = value.get_ref() else {
            return reader.parsed(value, key, values::http_path).map(|path| vec![path]);
        };
        let paths =
            reader.each(value, key, |reader, item| reader.parsed(item, key, values::http_path))?;
        if paths.is_empty() {
            reader.bad_value(value, key, "the list is empty: nothing would be asked");
            return None;
        }
        Some(paths.into_iter().map(|at| at.value).collect())
    },
    |paths| paths.join(", "),
);

static HTTP: OfHealth<Vec<String>> = Setting::new(
    "http",
    PATHS,
    field!(ParsedHealth, Vec<String>, http),
    Unset::Nothing("none"),
    "The server must answer this path, or each of these, as the settings below say.",
)
.keywords(&[Keyword::Own(Block::Checker, "url")]);

static HTTPS: OfHealth<Vec<String>> = Setting::new(
    "https",
    PATHS,
    field!(ParsedHealth, Vec<String>, https),
    Unset::Nothing("none"),
    "As `http`, with TLS.",
);

static HEALTH_ADDRESS: OfHealth<IpAddr> = Setting::new(
    "address",
    ip_address("an address in quotes"),
    field!(ParsedHealth, IpAddr, address),
    Unset::Nothing("the server's own"),
    "Address to ask.",
)
.keywords(&[Keyword::Plain(Block::Checker, "connect_ip")]);

static HEALTH_PORT: OfHealth<u16> = Setting::new(
    "port",
    whole_u16(1),
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
    choose(reader, span, &mut health)?;
    Some(health)
}

/// The one thing that is asked, with what goes along, put into `question` or `local`.
fn choose(reader: &mut Reader<'_>, span: Span, health: &mut ParsedHealth) -> Option<()> {
    fn switch(field: &Field<bool>) -> Field<()> {
        match field.value() {
            Some(false) => Field::Absent,
            Some(true) | None => field.clone().map(|_| ()),
        }
    }
    let own = [
        ("tcp", switch(&health.tcp)),
        ("http", health.http.clone().map(|_| ())),
        ("https", health.https.clone().map(|_| ())),
        ("agent", switch(&health.agent)),
        ("script", health.script.clone().map(|_| ())),
        ("file", health.file.clone().map(|_| ())),
    ];
    let kinds = own.into_iter().chain(health.kinds.chosen());
    let mut written = kinds.filter(|(_, field)| !field.is_absent());
    let Some((kind, field)) = written.next() else {
        let text =
            "a health check says nothing of what it asks: `tcp = true`, `http = \"/path\"`, …";
        reader.report.error(span, "missing-key", text);
        return None;
    };
    if let Some((other, _)) = written.next() {
        let text = format!("a health check asks one thing: `{kind}` or `{other}`, not both");
        reader.report.error(span, "two-probes", text);
        return None;
    }
    let at = field.given()?.span;
    let (question, beside) = ask(kind, health, reader.report)?;
    health.asked.misplaced(kind, beside, reader.report);
    health.kinds.misplaced(kind, reader.report);
    health.misplaced(kind, reader.report);
    if kind == "agent" && health.port.is_absent() {
        let text = "`agent` needs the `port` of the agent: clients are on the server's own";
        reader.report.error(at, "missing-key", text);
    }
    match question {
        Asks::Address(question) => health.question = Field::Given(At::new(question, at)),
        Asks::Local(check) => health.local = Field::Given(At::new(check, at)),
    }
    Some(())
}

enum Asks {
    Address(Question),
    Local(LocalCheck),
}

fn ask(
    kind: &str,
    health: &ParsedHealth,
    report: &mut Report,
) -> Option<(Asks, &'static [Beside])> {
    let pages = |paths: &Field<Vec<String>>| {
        paths.list().iter().map(|path| (path.clone(), None)).collect::<Vec<_>>()
    };
    Some(match kind {
        "tcp" => (Asks::Address(Question::Tcp), &[Beside::Network]),
        "http" => {
            let pages = health.asked.http(&pages(&health.http), false, report);
            let question = Question::Http(Arc::new(pages));
            (Asks::Address(question), &[Beside::Network, Beside::Host, Beside::Http])
        }
        "https" => {
            let pages = health.asked.http(&pages(&health.https), true, report);
            let question = Question::Http(Arc::new(pages));
            let beside = &[Beside::Network, Beside::Host, Beside::Http, Beside::Tls];
            (Asks::Address(question), beside)
        }
        "agent" => (Asks::Address(Question::Agent), &[Beside::Network]),
        "script" => {
            let command = Command {
                line: health.script.value()?.clone(),
                user: health.user.value().cloned(),
                group: health.group.value().cloned(),
            };
            let is_weighing = WEIGHS.of(health, Dialect::Toml);
            (Asks::Local(LocalCheck::Script { command, is_weighing }), &[])
        }
        "file" => {
            let path = health.file.value()?.clone();
            let factor = FACTOR.of(health, Dialect::Toml);
            (Asks::Local(LocalCheck::File { path, factor }), &[])
        }
        kind => {
            let (question, beside) =
                health.kinds.question(kind, &health.asked, Dialect::Toml, report)?;
            (Asks::Address(question), beside)
        }
    })
}

impl ParsedHealth {
    /// As [`Report::misplaced`].
    fn misplaced(&self, kind: &str, report: &mut Report) {
        let is_local = matches!(kind, "script" | "file");
        let written = [
            ("user", self.user.span(), kind == "script"),
            ("group", self.group.span(), kind == "script"),
            ("weighs", self.weighs.span(), kind == "script"),
            ("factor", self.factor.span(), kind == "file"),
            ("address", self.address.span(), !is_local),
            ("port", self.port.span(), !is_local && kind != "ping"),
        ];
        report.misplaced(kind, written);
    }
}
