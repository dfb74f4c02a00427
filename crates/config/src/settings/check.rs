//! `[check.NAME]` and `vrrp_script`: what decides whether a node is fit.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use locum_plan::{Checker, Command, CommandLine, Question, Weight};

use crate::dialect::Dialect;
use crate::field::Field;
use crate::settings::command::{ARGV, SHELL_LINE};
use crate::settings::form::{COUNT, Form, SWITCH, Schema, TEXT, TIME, toml_only};
use crate::settings::kinds::{self, ParsedKinds};
use crate::settings::question::{self, Beside, ParsedQuestion};
use crate::settings::row::{Block, Keyword, Noun, PartRow, Row, Setting, Unset, field};
use crate::settings::track::WEIGHT_FORM;
use crate::span::{At, Report, Span};
use crate::values;

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedCheck {
    pub span: Span,
    pub name: At<String>,
    /// What `asked` comes to.
    pub checker: Field<Checker>,
    pub asked: CheckerChoice,
    pub interval: Field<Duration>,
    pub timeout: Field<Duration>,
    pub rise: Field<u32>,
    pub fall: Field<u32>,
    pub weight: Field<Weight>,
    pub starts_failed: Field<bool>,
}

/// The ways to ask something, one of which is to be chosen, and what goes along with some of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckerChoice {
    pub script: Field<CommandLine>,
    pub shell: Field<CommandLine>,
    pub process: Field<String>,
    pub tcp: Field<SocketAddr>,
    pub http: Field<Url>,
    pub question: ParsedQuestion,
    pub kinds: ParsedKinds,
    /// Who is asked by `kinds`; without a port it is that of the kind.
    pub address: Field<(IpAddr, u16)>,
    pub user: Field<String>,
    pub group: Field<String>,
}

/// A URL whose host is an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Url {
    pub target: SocketAddr,
    pub is_encrypted: bool,
    pub path: String,
    /// Value of the Host header, where it is another than the address.
    pub host: Option<String>,
}

type OfCheck<T> = Setting<ParsedCheck, T>;

pub(crate) static CHECK: Noun<ParsedCheck> = Noun {
    name: "check",
    head: "[check.NAME]",
    what: "a check",
    about: "What decides whether a node is fit. It asks one thing: `script`, `shell`, `process`, \
            `tcp` or `http`, or at an `address` `dns`, `smtp`, `udp`, `ping`, `mysql`, `postgres`, \
            `redis` or `grpc`.",
    rows: &[
        &SCRIPT,
        &SHELL,
        &PROCESS,
        &TCP,
        &HTTP,
        &ADDRESS,
        &kind(&kinds::DNS),
        &kind(&kinds::SMTP),
        &kind(&kinds::UDP),
        &kind(&kinds::PING),
        &kind(&kinds::MYSQL),
        &kind(&kinds::POSTGRES),
        &kind(&kinds::REDIS),
        &kind(&kinds::GRPC),
        &kind(&kinds::RECORD),
        &kind(&kinds::OVER_TCP),
        &kind(&kinds::HELO),
        &kind(&kinds::REPLY),
        &kind(&kinds::REPLY_MIN),
        &kind(&kinds::REPLY_MAX),
        &kind(&kinds::PASSWORD),
        &kind(&kinds::TLS),
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
        &asked(&question::SOURCE),
        &asked(&question::INTERFACE),
        &asked(&question::MARK),
        &INTERVAL,
        &TIMEOUT,
        &RISE,
        &FALL,
        &asked(&question::RETRY_DELAY),
        &asked(&question::WARM_UP),
        &WEIGHT,
        &USER,
        &GROUP,
        &STARTS_FAILED,
    ],
};

/// A setting of the question, of a check.
const fn asked(row: &'static dyn Row<ParsedQuestion>) -> PartRow<ParsedCheck, ParsedQuestion> {
    PartRow::new(row, |check| &check.asked.question, |check| &mut check.asked.question, &[])
}

/// A setting of the kinds, of a check.
const fn kind(row: &'static dyn Row<ParsedKinds>) -> PartRow<ParsedCheck, ParsedKinds> {
    PartRow::new(row, |check| &check.asked.kinds, |check| &mut check.asked.kinds, &[])
}

static ADDRESS: OfCheck<(IpAddr, u16)> = Setting::new(
    "address",
    toml_only(
        "an address in quotes, with or without a port",
        Schema::Text,
        |reader, value, key| reader.parsed(value, key, question::address_and_port),
        |(address, _)| address.to_string(),
    ),
    field!(ParsedCheck, (IpAddr, u16), asked.address),
    Unset::Nothing("none"),
    "With `dns`, `smtp` and the others below: who is asked. Without a port it is the usual one.",
);

static SCRIPT: OfCheck<CommandLine> = Setting::new(
    "script",
    ARGV,
    field!(ParsedCheck, CommandLine, asked.script),
    Unset::Nothing("none"),
    "A program and its arguments, which succeeds when it exits with status 0. No shell reads them.",
)
.keywords(&[Keyword::Own(Block::Script, "script")]);

static SHELL: OfCheck<CommandLine> = Setting::new(
    "shell",
    SHELL_LINE,
    field!(ParsedCheck, CommandLine, asked.shell),
    Unset::Nothing("none"),
    "A line that `/bin/sh -c` runs.",
);

static PROCESS: OfCheck<String> = Setting::new(
    "process",
    toml_only(
        "the name of a process in quotes",
        Schema::Text,
        |reader, value, key| {
            reader.parsed(value, key, |text| {
                if text.is_empty() || text.contains(['/', '\0']) {
                    Err(format!("`{text}` is not the name of a process, as `ps -o comm` shows it"))
                } else {
                    Ok(text.to_owned())
                }
            })
        },
        String::clone,
    ),
    field!(ParsedCheck, String, asked.process),
    Unset::Nothing("none"),
    "A process of this name, which must be there.",
);

static TCP: OfCheck<SocketAddr> = Setting::new(
    "tcp",
    toml_only(
        "an address and a port, as in \"127.0.0.1:80\"",
        Schema::Text,
        |reader, value, key| reader.parsed(value, key, socket),
        ToString::to_string,
    ),
    field!(ParsedCheck, SocketAddr, asked.tcp),
    Unset::Nothing("none"),
    "An address and a port that must accept a connection.",
);

pub(super) const URL: Form<Url> = toml_only(
    "a URL, as in \"http://127.0.0.1:8080/health\"",
    Schema::Text,
    |reader, value, key| reader.parsed(value, key, url),
    |url| url.path.clone(),
);

static HTTP: OfCheck<Url> = Setting::new(
    "http",
    URL,
    field!(ParsedCheck, Url, asked.http),
    Unset::Nothing("none"),
    "A page that must be answered, of http or https. Its host is an address: names are not looked \
     up.",
);

/// What a failover waits for in the worst case; a process check costs microseconds.
pub(crate) static INTERVAL: OfCheck<Duration> = Setting::new(
    "interval",
    TIME,
    field!(ParsedCheck, Duration, interval),
    Unset::Value(|_| Duration::from_secs(1), "keepalived's own; a failover waits for it"),
    "Time from the start of one run to the start of the next.",
)
.keywords(&[Keyword::Plain(Block::Script, "interval")]);

static TIMEOUT: OfCheck<Duration> = Setting::new(
    "timeout",
    TIME,
    field!(ParsedCheck, Duration, timeout),
    Unset::Follows(
        "`interval`, at most \"5s\"; in a keepalived.conf `interval`",
        "runs never overlap, and a local one that takes longer is hung, however rarely it runs",
    ),
    "A run that takes longer has failed.",
)
.keywords(&[Keyword::Plain(Block::Script, "timeout")]);

impl ParsedCheck {
    /// The time-out, or what follows from the interval.
    pub fn timeout(&self, dialect: Dialect) -> Duration {
        const LONGEST: Duration = Duration::from_secs(5);
        let interval = INTERVAL.of(self, dialect);
        let default = match dialect {
            Dialect::Toml => interval.min(LONGEST),
            Dialect::Keepalived => interval,
        };
        self.timeout.value().copied().unwrap_or(default)
    }
}

pub(crate) static RISE: OfCheck<u32> = Setting::new(
    "rise",
    COUNT,
    field!(ParsedCheck, u32, rise),
    Unset::Value(two_or_one, "one lost packet or one slow fork moves no address"),
    "Successes in a row until it is up.",
)
.keywords(&[Keyword::Plain(Block::Script, "rise")]);

pub(crate) static FALL: OfCheck<u32> = Setting::new(
    "fall",
    COUNT,
    field!(ParsedCheck, u32, fall),
    Unset::Value(two_or_one, "one lost packet or one slow fork moves no address"),
    "Failures in a row until it is down.",
)
.keywords(&[Keyword::Plain(Block::Script, "fall")]);

/// keepalived decides by one result unless told otherwise.
const fn two_or_one(dialect: Dialect) -> u32 {
    match dialect {
        Dialect::Toml => 2,
        Dialect::Keepalived => 1,
    }
}

pub(crate) static WEIGHT: OfCheck<Weight> = Setting::new(
    "weight",
    WEIGHT_FORM,
    field!(ParsedCheck, Weight, weight),
    Unset::Value(
        |_| Weight { value: 0, reverse: false },
        "a check that says nothing else makes its node unfit",
    ),
    "What it does to priorities: 0 failing is a fault, a positive one is added while up, a negative \
     one is subtracted while down.",
)
.keywords(&[Keyword::Own(Block::Script, "weight")]);

static USER: OfCheck<String> = Setting::new(
    "user",
    TEXT,
    field!(ParsedCheck, String, asked.user),
    Unset::Nothing("the daemon's own"),
    "With `script` or `shell`: user to run it as.",
)
.keywords(&[Keyword::Own(Block::Script, "user"), Keyword::Own(Block::Globals, "script_user")]);

static GROUP: OfCheck<String> = Setting::new(
    "group",
    TEXT,
    field!(ParsedCheck, String, asked.group),
    Unset::Nothing("that of the user"),
    "With `script` or `shell`: group to run it as.",
);

pub(crate) static STARTS_FAILED: OfCheck<bool> = Setting::new(
    "starts_failed",
    SWITCH,
    field!(ParsedCheck, bool, starts_failed),
    Unset::Value(|_| false, "the first result decides at once"),
    "It starts down and needs `rise` successes.",
)
.keywords(&[Keyword::Plain(Block::Script, "init_fail")]);

impl CheckerChoice {
    /// Exactly one of the kinds of checkers. `table` is where the check stands.
    pub fn checker(&self, report: &mut Report, table: Span) -> Field<Checker> {
        let asked = self;
        let own = [
            ("script", asked.script.clone().map(|_| ())),
            ("shell", asked.shell.clone().map(|_| ())),
            ("process", asked.process.clone().map(|_| ())),
            ("tcp", asked.tcp.clone().map(|_| ())),
            ("http", asked.http.clone().map(|_| ())),
        ];
        let mut written =
            own.into_iter().chain(asked.kinds.chosen()).filter(|(_, field)| !field.is_absent());
        let Some((kind, field)) = written.next() else { return Field::Absent };
        if let Some((other, _)) = written.next() {
            let text = format!("a check asks one thing: `{kind}` or `{other}`, not both");
            report.error(table, "two-probes", text);
            return Field::Bad;
        }
        let Some(at) = field.given() else { return Field::Bad };
        let Some((checker, beside)) = asked.of_kind(kind, at.span, report) else {
            return Field::Bad;
        };
        let is_encrypted = asked.http.value().is_some_and(|url| url.is_encrypted);
        let named = if is_encrypted { "https" } else { kind };
        asked.question.misplaced(named, beside, report);
        asked.kinds.misplaced(kind, report);
        let is_command = kind == "script" || kind == "shell";
        let is_of_kinds = asked.kinds.chosen().iter().any(|(chosen, _)| *chosen == kind);
        let written = [
            ("user", asked.user.span(), is_command),
            ("group", asked.group.span(), is_command),
            ("address", asked.address.span(), is_of_kinds),
        ];
        report.misplaced(kind, written);
        Field::Given(At::new(checker, at.span))
    }

    /// `at` is where the kind stands.
    fn of_kind(
        &self,
        kind: &str,
        at: Span,
        report: &mut Report,
    ) -> Option<(Checker, &'static [Beside])> {
        let ask = |target, question| Checker::Ask {
            target,
            question,
            origin: self.question.origin().map(Arc::new),
        };
        let as_user = |line: &CommandLine| {
            let (user, group) = (self.user.value().cloned(), self.group.value().cloned());
            Checker::Script(Command { line: line.clone(), user, group })
        };
        Some(match kind {
            "script" => (as_user(self.script.value()?), &[]),
            "shell" => (as_user(self.shell.value()?), &[]),
            "process" => (Checker::Process { name: self.process.value()?.clone() }, &[]),
            "tcp" => (ask(*self.tcp.value()?, Question::Tcp), &[Beside::Network]),
            "http" => {
                let url = self.http.value()?;
                let page = (url.path.clone(), url.host.clone());
                let pages = self.question.http(&[page], url.is_encrypted, report);
                let beside: &[Beside] = match url.is_encrypted {
                    true => &[Beside::Network, Beside::Host, Beside::Http, Beside::Tls],
                    false => &[Beside::Network, Beside::Host, Beside::Http],
                };
                (ask(url.target, Question::Http(Arc::new(pages))), beside)
            }
            kind => {
                let (question, beside) =
                    self.kinds.question(kind, &self.question, Dialect::Toml, report)?;
                (ask(self.target(kind, at, report)?, question), beside)
            }
        })
    }

    fn target(&self, kind: &str, at: Span, report: &mut Report) -> Option<SocketAddr> {
        let Some((address, port)) = self.address.value() else {
            if self.address.is_absent() {
                let text = format!("`{kind}` needs the `address` that is asked");
                report.error(at, "missing-key", text);
            }
            return None;
        };
        let port = match (port, kinds::default_port(kind)) {
            (0, Some(port)) => port,
            (0, None) => {
                let text = format!("`{kind}` needs an `address` with a port");
                report.error(at, "missing-key", text);
                return None;
            }
            (port, _) => *port,
        };
        Some(SocketAddr::new(*address, port))
    }
}

/// Address and port. Names are not looked up: a check must not wait for a resolver.
fn socket(text: &str) -> Result<SocketAddr, String> {
    let target = match text.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(|port| (Ipv4Addr::LOCALHOST, port).into()),
        None => text.parse::<SocketAddr>().ok(),
    };
    match target {
        Some(target) if target.port() != 0 => Ok(target),
        _ => Err(format!("`{text}` is not an IP address with a port")),
    }
}

fn url(text: &str) -> Result<Url, String> {
    let (rest, is_encrypted) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return Err(format!("`{text}` does not begin with http:// or https://")),
    };
    let port = if is_encrypted { 443 } else { 80 };
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let target = socket(authority).or_else(|reason| {
        let bare = authority.trim_start_matches('[').trim_end_matches(']');
        let address = if bare == "localhost" {
            Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
        } else {
            bare.parse::<IpAddr>().ok()
        };
        address.map(|address| SocketAddr::new(address, port)).ok_or(reason)
    })?;
    let host = authority.starts_with("localhost").then(|| authority.to_owned());
    Ok(Url { target, is_encrypted, path: values::http_path(path)?, host })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_an_address_and_defaults_to_the_port_of_its_scheme() {
        let parsed = |text: &str| url(text).map(|url| (url.target.to_string(), url.path));
        let ok = |target: &str, path: &str| Ok((target.to_owned(), path.to_owned()));
        assert_eq!(parsed("http://127.0.0.1:8080/health"), ok("127.0.0.1:8080", "/health"));
        assert_eq!(parsed("http://127.0.0.1"), ok("127.0.0.1:80", "/"));
        assert_eq!(parsed("http://[::1]/x?y=1"), ok("[::1]:80", "/x?y=1"));
        assert_eq!(parsed("http://localhost/health"), ok("127.0.0.1:80", "/health"));
        assert_eq!(parsed("http://localhost:81"), ok("127.0.0.1:81", "/"));
        assert_eq!(parsed("https://127.0.0.1/"), ok("127.0.0.1:443", "/"));
        assert!(parsed("ftp://127.0.0.1/").is_err());
        assert!(parsed("http://example.com/").is_err());
        assert!(parsed("http://127.0.0.1/a b").is_err());
    }
}
