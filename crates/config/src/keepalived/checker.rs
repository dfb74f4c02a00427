//! `TCP_CHECK` and `HTTP_GET`: the health checks of a real server.

use crate::keepalived::blocks::Statement;
use crate::keepalived::keywords::{Row, Shape, accept, ignore, refuse, set};
use crate::keepalived::lowering::{Lowering, Target, without_settings};
use crate::parsed::ParsedHealth;
use crate::settings::check::success;
use crate::settings::health::HEALTH;
use crate::settings::keywords;
use crate::settings::row::Block;
use crate::span::Span;
use crate::values;
use locum_plan::{Question, StatusRange};

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
    refuse("SSL_GET", "use TCP_CHECK, which asks whether the port is open"),
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
}

/// What a checker block says.
#[derive(Clone, Debug)]
pub(super) struct CheckerDraft {
    kind: Kind,
    pub span: Span,
    pub health: ParsedHealth,
    host: Option<String>,
    urls: Vec<Url>,
}

impl CheckerDraft {
    fn read(lowering: &mut Lowering<'_>, kind: Kind, what: &str, statement: &Statement) -> Self {
        let mut draft = Self {
            kind,
            span: statement.span(),
            health: ParsedHealth::default(),
            host: None,
            urls: Vec::new(),
        };
        let block = statement.block.as_deref().unwrap_or_default();
        lowering.run(what, ROWS, &mut draft, block);
        draft
    }

    /// What it asks; `virtual_host` is the one of the servers around it.
    pub fn question(
        &self,
        lowering: &mut Lowering<'_>,
        virtual_host: Option<&String>,
    ) -> Option<Question> {
        match self.kind {
            Kind::Tcp => Some(Question::Tcp),
            Kind::Http => http(lowering, self, virtual_host),
        }
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

without_settings!(Url);

#[derive(Clone, Debug)]
struct Url {
    span: Span,
    path: Option<String>,
    expect: Vec<StatusRange>,
    host: Option<String>,
}

pub(super) const ROWS: &[Row<CheckerDraft>] = &[
    set("virtualhost", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.host = host(lowering, statement);
    }),
    set("url", Shape::Block(0, 0), url),
    ignore("delay_before_retry", "a failed check is repeated after delay_loop"),
    accept("warmup"),
    accept("alpha"),
    accept("log_all_failures"),
    accept("fast_recovery"),
    accept("http_protocol"),
    refuse("connect_ip", "the check asks the server's own address"),
    refuse("bindto", "remove it"),
    refuse("bind_if", "remove it"),
    refuse("bind_port", "remove it"),
    refuse("fwmark", "remove it"),
    refuse("enable_sni", "use TCP_CHECK"),
    refuse("sni_name", "use TCP_CHECK"),
];

const URL: &[Row<Url>] = &[
    set("path", Shape::Line(1, 1), |lowering, draft, statement| {
        let Some(word) = statement.arguments().first() else { return };
        match values::http_path(&word.text) {
            Ok(path) => draft.path = Some(path),
            Err(reason) => lowering.bad_value(word, reason),
        }
    }),
    set("status_code", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        for word in statement.arguments() {
            match values::status_range(&word.text) {
                Ok(range) => draft.expect.push(range),
                Err(reason) => lowering.bad_value(word, reason),
            }
        }
    }),
    set("virtualhost", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.host = host(lowering, statement);
    }),
    refuse("digest", "check the status code instead"),
    refuse("regex", "check the status code instead"),
    refuse("regex_no_match", "check the status code instead"),
    refuse("regex_options", "check the status code instead"),
    refuse("regex_stack", "check the status code instead"),
    refuse("regex_min_offset", "check the status code instead"),
    refuse("regex_max_offset", "check the status code instead"),
    accept("tls_compliant"),
];

fn host(lowering: &mut Lowering<'_>, statement: &Statement) -> Option<String> {
    let word = statement.arguments().first()?;
    match values::http_host(&word.text) {
        Ok(host) => Some(host),
        Err(reason) => {
            lowering.bad_value(word, reason);
            None
        }
    }
}

fn url(lowering: &mut Lowering<'_>, draft: &mut CheckerDraft, statement: &Statement) {
    let span = statement.span();
    let mut url = Url { span, path: None, expect: Vec::new(), host: None };
    let block = statement.block.as_deref().unwrap_or_default();
    lowering.run("a url", URL, &mut url, block);
    draft.urls.push(url);
}

fn http(
    lowering: &mut Lowering<'_>,
    draft: &CheckerDraft,
    virtual_host: Option<&String>,
) -> Option<Question> {
    if let Some(second) = draft.urls.get(1) {
        let text = "more than one url in a check is not supported yet";
        lowering.report.error(second.span, "unsupported", text).help("keep the most telling one");
        return None;
    }
    let Some(url) = draft.urls.first() else {
        lowering.report.error(draft.span, "missing-key", "an HTTP_GET needs a `url` block");
        return None;
    };
    let expect = match url.expect.is_empty() {
        true => success(),
        false => url.expect.clone(),
    };
    Some(Question::Http {
        path: url.path.clone().unwrap_or_else(|| "/".to_owned()),
        host: url.host.as_ref().or(draft.host.as_ref()).or(virtual_host).cloned(),
        expect,
    })
}
