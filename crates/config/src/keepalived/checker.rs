//! The checkers of a real server, [`BLOCKS`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::dialect::Dialect;
use crate::keepalived::blocks::Statement;
use crate::keepalived::keywords::{KeywordRow, Shape, accept, refuse, set};
use crate::keepalived::lowering::{BlockTarget, Lowering, put};
use crate::keepalived::url::{UrlBlock, host};
use crate::parsed::{Field, ParsedHealth};
use crate::settings::health::{HEALTH, HEALTH_INTERVAL, LocalCheck};
use crate::settings::row::Block;
use crate::settings::{keywords, kinds};
use crate::span::{At, Span};
use locum_plan::{Command, HttpQuestion, HttpVersion, Question, Tls, Trust};

/// The checks of one server.
pub(super) type Checkers = Vec<CheckerDraft>;

/// The blocks of a real server that are checks.
pub(super) const BLOCKS: &[KeywordRow<Checkers>] = &[
    set("TCP_CHECK", Shape::Block(0, 0), |lowering, checkers, statement| {
        checkers.push(CheckerDraft::read(lowering, Kind::Tcp, "a TCP_CHECK", statement));
    }),
    set("HTTP_GET", Shape::Block(0, 0), |lowering, checkers, statement| {
        checkers.push(CheckerDraft::read(lowering, Kind::Http, "an HTTP_GET", statement));
    }),
    set("SSL_GET", Shape::Block(0, 0), |lowering, checkers, statement| {
        checkers.push(CheckerDraft::read(lowering, Kind::Https, "an SSL_GET", statement));
    }),
    set("MISC_CHECK", Shape::Block(0, 0), |lowering, checkers, statement| {
        checkers.push(CheckerDraft::read(lowering, Kind::Misc, "a MISC_CHECK", statement));
    }),
    set("SMTP_CHECK", Shape::Block(0, 0), |lowering, checkers, statement| {
        checkers.push(CheckerDraft::read(lowering, Kind::Smtp, "an SMTP_CHECK", statement));
    }),
    set("DNS_CHECK", Shape::Block(0, 0), |lowering, checkers, statement| {
        checkers.push(CheckerDraft::read(lowering, Kind::Dns, "a DNS_CHECK", statement));
    }),
    set("UDP_CHECK", Shape::Block(0, 0), |lowering, checkers, statement| {
        checkers.push(CheckerDraft::read(lowering, Kind::Udp, "a UDP_CHECK", statement));
    }),
    set("PING_CHECK", Shape::Block(0, 0), |lowering, checkers, statement| {
        checkers.push(CheckerDraft::read(lowering, Kind::Ping, "a PING_CHECK", statement));
    }),
    refuse("BFD_CHECK", "use PING_CHECK or TCP_CHECK"),
    refuse("FILE_CHECK", "use a MISC_CHECK that reads the file"),
];

const CHECK_LEFT_OUT: &str = "the check is left out";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Tcp,
    Http,
    Https,
    Misc,
    Smtp,
    Dns,
    Udp,
    Ping,
}

/// What a checker block says.
#[derive(Clone, Debug)]
pub(super) struct CheckerDraft {
    kind: Kind,
    pub span: Span,
    pub health: ParsedHealth,
    host: Option<String>,
    version: HttpVersion,
    sends_name: bool,
    name: Option<String>,
    source: Option<At<IpAddr>>,
    port: Option<At<u16>>,
    urls: Vec<UrlBlock>,
    /// There are some, usable or not.
    has_urls: bool,
    command: Option<At<Command>>,
    user: Option<(String, Option<String>)>,
    misc_timeout: Option<At<Duration>>,
}

impl CheckerDraft {
    fn read(lowering: &mut Lowering<'_>, kind: Kind, what: &str, statement: &Statement) -> Self {
        let mut draft = Self {
            kind,
            span: statement.span(),
            health: ParsedHealth::default(),
            host: None,
            version: HttpVersion::Http10,
            sends_name: false,
            name: None,
            source: None,
            port: None,
            urls: Vec::new(),
            has_urls: false,
            command: None,
            user: None,
            misc_timeout: None,
        };
        let block = statement.block.as_deref().unwrap_or_default();
        lowering.run(what, ROWS, &mut draft, block);
        draft.health.asked.source = draft.source(lowering);
        if draft.kind == Kind::Dns && draft.health.kinds.dns.is_absent() {
            draft.health.kinds.dns = Field::Given(At::new(".".to_owned(), draft.span));
        }
        if draft.kind == Kind::Udp && draft.health.kinds.udp.is_absent() {
            draft.health.kinds.udp = Field::Given(At::new(Vec::new(), draft.span));
        }
        draft
    }

    /// `bindto` and `bind_port`.
    fn source(&self, lowering: &mut Lowering<'_>) -> Field<(IpAddr, u16)> {
        match (&self.source, &self.port) {
            (Some(source), port) => {
                let port = port.as_ref().map_or(0, |port| port.value);
                Field::Given(At::new((source.value, port), source.span))
            }
            (None, Some(port)) => {
                let text = "`bind_port` needs the address of a `bindto` here";
                lowering.report.error(port.span, "unsupported", text);
                Field::Bad
            }
            (None, None) => Field::Absent,
        }
    }

    /// The check; `virtual_host` is the one of the servers around it.
    pub fn check(
        &self,
        lowering: &mut Lowering<'_>,
        virtual_host: Option<&String>,
    ) -> Option<ParsedHealth> {
        let mut check = self.health.clone();
        if self.kind == Kind::Misc {
            check.local = Field::Given(At::new(self.script(lowering)?, self.span));
        } else {
            let question = self.question(lowering, virtual_host)?;
            check.question = Field::Given(At::new(question, self.span));
        }
        Some(check)
    }

    fn script(&self, lowering: &mut Lowering<'_>) -> Option<LocalCheck> {
        let Some(command) = &self.command else {
            let text = "a MISC_CHECK needs a `misc_path`";
            lowering.report.forgiven(self.span, "missing-argument", text, CHECK_LEFT_OUT);
            return None;
        };
        let mut command = command.value.clone();
        if let Some((user, group)) = &self.user {
            (command.user, command.group) = (Some(user.clone()), group.clone());
        }
        let is_weighing = self.health.weighs.value().copied().unwrap_or(false);
        Some(LocalCheck::Script { command, is_weighing })
    }

    fn question(
        &self,
        lowering: &mut Lowering<'_>,
        virtual_host: Option<&String>,
    ) -> Option<Question> {
        let mut of_kind = |kind: &str| {
            let (kinds, asked) = (&self.health.kinds, &self.health.asked);
            let found = kinds.question(kind, asked, Dialect::Keepalived, lowering.report);
            found.map(|(question, _)| question)
        };
        match self.kind {
            Kind::Misc => None,
            Kind::Smtp => of_kind("smtp"),
            Kind::Dns => of_kind("dns"),
            Kind::Udp => of_kind("udp"),
            Kind::Ping => Some(Question::Ping),
            Kind::Tcp => Some(Question::Tcp),
            Kind::Http => self.pages(lowering, virtual_host, None, "an HTTP_GET"),
            Kind::Https => {
                let tls = Tls {
                    name: self.name.clone(),
                    sends_name: self.sends_name || self.name.is_some(),
                    trust: Trust::Anybody,
                    identity: None,
                };
                self.pages(lowering, virtual_host, Some(tls), "an SSL_GET")
            }
        }
    }

    /// What keepalived means where nobody around it says otherwise.
    pub fn fill(&self, check: &mut ParsedHealth) {
        let at = |delay| Field::Given(At::new(Duration::from_secs(delay), self.span));
        if check.asked.retry_delay.is_absent() {
            check.asked.retry_delay = match self.kind {
                // Its delay_loop.
                Kind::Dns => Field::Absent,
                Kind::Http | Kind::Https => at(3),
                Kind::Tcp | Kind::Misc | Kind::Smtp | Kind::Udp | Kind::Ping => at(1),
            };
        }
        if check.fall.is_absent() {
            check.fall = match self.kind {
                Kind::Dns => Field::Given(At::new(4, self.span)),
                Kind::Misc => Field::Given(At::new(1, self.span)),
                _ => Field::Absent,
            };
        }
        if self.kind == Kind::Misc {
            check.timeout = match &self.misc_timeout {
                Some(timeout) => Field::Given(timeout.clone()),
                None => {
                    let interval = HEALTH_INTERVAL.of(check, Dialect::Keepalived);
                    Field::Given(At::new(interval, self.span))
                }
            };
        }
    }

    fn pages(
        &self,
        lowering: &mut Lowering<'_>,
        virtual_host: Option<&String>,
        tls: Option<Tls>,
        what: &str,
    ) -> Option<Question> {
        if self.urls.is_empty() && self.has_urls {
            return None;
        }
        if self.urls.is_empty() {
            let text = format!("{what} needs a `url` block");
            lowering.report.forgiven(self.span, "missing-key", text, CHECK_LEFT_OUT);
            return None;
        }
        let host = self.host.as_ref().or(virtual_host);
        let pages = self.urls.iter().map(|url| url.page(host)).collect();
        Some(Question::Http(Arc::new(HttpQuestion { pages, version: self.version, tls })))
    }
}

impl BlockTarget for CheckerDraft {
    fn setting(&mut self, lowering: &mut Lowering<'_>, statement: &Statement) -> bool {
        HEALTH.lower(lowering, Block::Checker, statement, &mut self.health)
    }

    fn keywords() -> Vec<&'static str> {
        keywords(Block::Checker)
    }
}

pub(super) const ROWS: &[KeywordRow<CheckerDraft>] = &[
    set("virtualhost", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.host = host(lowering, statement);
    }),
    set("url", Shape::Block(0, 0), |lowering, draft, statement| {
        draft.has_urls = true;
        draft.urls.extend(UrlBlock::read(lowering, statement));
    }),
    set("http_protocol", Shape::Line(1, 1), |lowering, draft, statement| {
        let Some(word) = statement.arguments().first() else { return };
        draft.version = match word.text.as_str() {
            // With `Connection: close`, which ours always has.
            "1.0" | "1.0C" | "1.0c" => HttpVersion::Http10,
            "1.1" => HttpVersion::Http11,
            other => {
                lowering.bad_value(word, format!("`{other}` is no version of HTTP: 1.0 or 1.1"));
                return;
            }
        };
    }),
    set("enable_sni", Shape::Line(0, 1), |lowering, draft, statement| {
        draft.sends_name = lowering.switch(statement).is_some_and(|at| at.value);
    }),
    set("sni_name", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.name = host(lowering, statement);
    }),
    set("bindto", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.source = lowering.first_address(statement);
    }),
    set("bind_port", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.port = lowering.first_number(statement, 1..=65_535);
    }),
    set("misc_path", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        draft.command = lowering.command(statement.arguments());
    }),
    set("misc_timeout", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.misc_timeout = lowering.first_seconds(statement);
    }),
    set("misc_dynamic", Shape::Line(0, 0), |_, draft, statement| {
        draft.health.weighs = Field::Given(At::new(true, statement.span()));
    }),
    set("user", Shape::Line(1, 2), |_, draft, statement| {
        let words = statement.arguments();
        let group = words.get(1).map(|word| word.text.clone());
        draft.user = words.first().map(|word| (word.text.clone(), group));
    }),
    set("helo_name", Shape::Line(1, 1), |lowering, draft, statement| {
        let name = host(lowering, statement);
        put(&mut draft.health.kinds.helo, name.map(|name| At::new(name, statement.span())));
    }),
    set("name", Shape::Line(1, 1), |lowering, draft, statement| {
        put(&mut draft.health.kinds.dns, word(lowering, statement, kinds::name));
    }),
    set("type", Shape::Line(1, 1), |lowering, draft, statement| {
        let record = word(lowering, statement, |text| {
            let wanted = text.to_ascii_uppercase();
            let found = kinds::RECORDS.iter().find(|(name, _)| *name == wanted);
            found
                .map(|(_, record)| *record)
                .ok_or_else(|| format!("`{text}` is not a kind of record that can be asked for"))
        });
        put(&mut draft.health.kinds.record, record);
    }),
    set("payload", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        let octets = digits(lowering, statement, kinds::octets);
        put(&mut draft.health.kinds.udp, octets);
    }),
    set("require_reply", Shape::Line(0, usize::MAX), |lowering, draft, statement| {
        let pattern = digits(lowering, statement, kinds::pattern);
        put(&mut draft.health.kinds.reply, pattern);
    }),
    refuse(
        "host",
        "write `connect_ip`, `connect_port`, `bindto` beside it, one SMTP_CHECK for each",
    ),
    accept("alpha", "of the server: set it there"),
    accept("log_all_failures", "`locum history` has the turns of every server"),
    // All pages are asked in one run, of a server that is down too.
    accept("fast_recovery", "all pages are asked in one run, of a server that is down too"),
    accept("tls_compliant", "it always is"),
];

/// The first argument, by this function.
fn word<T>(
    lowering: &mut Lowering<'_>,
    statement: &Statement,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<At<T>> {
    let word = statement.arguments().first()?;
    match read(&word.text) {
        Ok(value) => Some(At::new(value, word.span)),
        Err(reason) => {
            lowering.bad_value(word, reason);
            None
        }
    }
}

/// Hexadecimal digits, in one word or several.
fn digits<T>(
    lowering: &mut Lowering<'_>,
    statement: &Statement,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<At<T>> {
    let words = statement.arguments().iter().map(|word| word.text.as_str());
    let text: String = words.collect();
    match read(&format!("0x{text}")) {
        Ok(value) => Some(At::new(value, statement.span())),
        Err(reason) => {
            lowering.fault(statement.span(), "bad-value", reason);
            None
        }
    }
}
