//! The checkers of a real server: `TCP_CHECK`, `HTTP_GET`, `SSL_GET`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::keepalived::blocks::Statement;
use crate::keepalived::keywords::{Row, Shape, accept, refuse, set};
use crate::keepalived::lowering::{Lowering, Target};
use crate::keepalived::url::{Url, host};
use crate::parsed::{Field, ParsedHealth};
use crate::settings::health::HEALTH;
use crate::settings::keywords;
use crate::settings::row::Block;
use crate::span::{At, Span};
use locum_plan::{HttpQuestion, HttpVersion, Question, Tls, Trust};

/// The checks of one server.
pub(super) type Checkers = Vec<CheckerDraft>;

const SCRIPTED: &str = "use TCP_CHECK or HTTP_GET";

/// The blocks of a real server that are checks.
pub(super) const BLOCKS: &[Row<Checkers>] = &[
    set("TCP_CHECK", Shape::Block(0, 0), |lowering, checkers, statement| {
        checkers.push(CheckerDraft::read(lowering, Kind::Tcp, "a TCP_CHECK", statement));
    }),
    set("HTTP_GET", Shape::Block(0, 0), |lowering, checkers, statement| {
        checkers.push(CheckerDraft::read(lowering, Kind::Http, "an HTTP_GET", statement));
    }),
    set("SSL_GET", Shape::Block(0, 0), |lowering, checkers, statement| {
        checkers.push(CheckerDraft::read(lowering, Kind::Https, "an SSL_GET", statement));
    }),
    refuse("MISC_CHECK", SCRIPTED),
    refuse("SMTP_CHECK", SCRIPTED),
    refuse("DNS_CHECK", SCRIPTED),
    refuse("UDP_CHECK", SCRIPTED),
    refuse("PING_CHECK", SCRIPTED),
    refuse("BFD_CHECK", SCRIPTED),
    refuse("FILE_CHECK", SCRIPTED),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Tcp,
    Http,
    Https,
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
    urls: Vec<Url>,
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
        };
        let block = statement.block.as_deref().unwrap_or_default();
        lowering.run(what, ROWS, &mut draft, block);
        draft.health.asked.source = draft.source(lowering);
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
                lowering.report.error(port.span, "missing-argument", text);
                Field::Bad
            }
            (None, None) => Field::Absent,
        }
    }

    /// What it asks; `virtual_host` is the one of the servers around it.
    pub fn question(
        &self,
        lowering: &mut Lowering<'_>,
        virtual_host: Option<&String>,
    ) -> Option<Question> {
        match self.kind {
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
        let delay = match self.kind {
            Kind::Tcp => Duration::from_secs(1),
            Kind::Http | Kind::Https => Duration::from_secs(3),
        };
        if check.asked.retry_delay.is_absent() {
            check.asked.retry_delay = Field::Given(At::new(delay, self.span));
        }
    }

    fn pages(
        &self,
        lowering: &mut Lowering<'_>,
        virtual_host: Option<&String>,
        tls: Option<Tls>,
        what: &str,
    ) -> Option<Question> {
        if self.urls.is_empty() {
            let text = format!("{what} needs a `url` block");
            lowering.report.error(self.span, "missing-key", text);
            return None;
        }
        let host = self.host.as_ref().or(virtual_host);
        let pages = self.urls.iter().map(|url| url.page(host)).collect();
        Some(Question::Http(Arc::new(HttpQuestion { pages, version: self.version, tls })))
    }
}

impl Target for CheckerDraft {
    fn setting(&mut self, lowering: &mut Lowering<'_>, statement: &Statement) -> bool {
        HEALTH.lower(lowering, Block::Checker, statement, &mut self.health)
    }

    fn keywords() -> Vec<&'static str> {
        keywords(Block::Checker)
    }
}

pub(super) const ROWS: &[Row<CheckerDraft>] = &[
    set("virtualhost", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.host = host(lowering, statement);
    }),
    set("url", Shape::Block(0, 0), |lowering, draft, statement| {
        draft.urls.push(Url::read(lowering, statement));
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
    accept("alpha"),
    accept("log_all_failures"),
    // All pages are asked in one run, of a server that is down too.
    accept("fast_recovery"),
    accept("tls_compliant"),
];
