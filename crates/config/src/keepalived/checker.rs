//! `TCP_CHECK` and `HTTP_GET`: the health checks of a real server.

use crate::defaults;
use crate::keepalived::Lowering;
use crate::keepalived::blocks::Statement;
use crate::keepalived::keywords::{Row, Shape, accept, ignore, refuse, set};
use crate::span::{At, Span};
use crate::values;
use locum_plan::{HealthKind, StatusRange};

/// What a checker block says, before the virtual server's timers are known.
#[derive(Clone, Default, Debug)]
pub(super) struct CheckerDraft {
    pub connect_timeout: Option<At<std::time::Duration>>,
    pub retry: Option<At<u32>>,
    pub delay_loop: Option<At<std::time::Duration>>,
    pub port: Option<At<u16>>,
    pub host: Option<String>,
    pub urls: Vec<Url>,
}

#[derive(Clone, Debug)]
pub(super) struct Url {
    span: Span,
    path: Option<String>,
    expect: Vec<StatusRange>,
    host: Option<String>,
}

const MAX_RETRY: i64 = 1_000;

pub(super) const ROWS: &[Row<CheckerDraft>] = &[
    set("connect_timeout", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.connect_timeout = lowering.first_seconds(statement);
    }),
    set("retry", Shape::Line(1, 1), retry),
    set("nb_get_retry", Shape::Line(1, 1), retry),
    set("delay_loop", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.delay_loop = lowering.first_seconds(statement);
    }),
    set("connect_port", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.port = lowering.first_number(statement, 1..=65_535);
    }),
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

fn retry(lowering: &mut Lowering<'_>, draft: &mut CheckerDraft, statement: &Statement) {
    draft.retry = lowering.first_number(statement, 0..=MAX_RETRY);
}

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

/// The checker as a health check; `virtual_host` is the one of the servers around it.
pub(super) fn http(
    lowering: &mut Lowering<'_>,
    draft: &CheckerDraft,
    span: Span,
    virtual_host: Option<&String>,
) -> Option<HealthKind> {
    if let Some(second) = draft.urls.get(1) {
        let text = "more than one url in a check is not supported yet";
        lowering.report.error(second.span, "unsupported", text).help("keep the most telling one");
        return None;
    }
    let Some(url) = draft.urls.first() else {
        lowering.report.error(span, "missing-key", "an HTTP_GET needs a `url` block");
        return None;
    };
    let (first, last) = defaults::HTTP_SUCCESS;
    let expect = match url.expect.is_empty() {
        true => vec![StatusRange { first, last }],
        false => url.expect.clone(),
    };
    Some(HealthKind::Http {
        path: url.path.clone().unwrap_or_else(|| "/".to_owned()),
        host: url.host.as_ref().or(draft.host.as_ref()).or(virtual_host).cloned(),
        expect,
    })
}
