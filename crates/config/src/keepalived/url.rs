//! `url`: a page of an `HTTP_GET` or `SSL_GET`, and what must be answered.

use crate::keepalived::blocks::Statement;
use crate::keepalived::keywords::{KeywordRow, Shape, accept, set};
use crate::keepalived::lowering::{Lowering, without_settings};
use crate::settings::question::{regex, success};
use crate::span::Span;
use crate::values;
use locum_plan::{BodyDigest, BodyPattern, HttpPage, StatusRange};

#[derive(Clone, Debug)]
pub(super) struct UrlBlock {
    path: Option<String>,
    expect: Vec<StatusRange>,
    host: Option<String>,
    digest: Option<BodyDigest>,
    regex: Option<(Span, String)>,
    /// Letters of the flags that the options come to.
    flags: String,
    is_unwanted: bool,
    first: u32,
    last: Option<u32>,
}

without_settings!(UrlBlock);

impl UrlBlock {
    /// `None` without a path: keepalived passes over such a block.
    pub(super) fn read(lowering: &mut Lowering<'_>, statement: &Statement) -> Option<Self> {
        let mut url = Self {
            path: None,
            expect: Vec::new(),
            host: None,
            digest: None,
            regex: None,
            flags: String::new(),
            is_unwanted: false,
            first: 0,
            last: None,
        };
        let block = statement.block.as_deref().unwrap_or_default();
        lowering.run("a url", ROWS, &mut url, block);
        if url.path.is_none() {
            let text = "a url needs a `path`";
            let effect = "the block is ignored";
            lowering.report.forgiven(statement.span(), "missing-key", text, effect);
            return None;
        }
        url.flag(lowering);
        Some(url)
    }

    /// Puts the options before the expression, and looks whether it is one.
    fn flag(&mut self, lowering: &mut Lowering<'_>) {
        let flags = std::mem::take(&mut self.flags);
        let Some((span, text)) = &mut self.regex else { return };
        if !flags.is_empty() {
            *text = format!("(?{flags}){text}");
        }
        if let Err(reason) = regex(text) {
            lowering
                .report
                .error(*span, "bad-value", reason)
                .help("look-around and back-references of PCRE are not available");
        }
    }

    /// `host` is that of the check around it.
    pub(super) fn page(&self, host: Option<&String>) -> HttpPage {
        let pattern = self.regex.as_ref().map(|(_, regex)| BodyPattern {
            regex: regex.clone(),
            is_unwanted: self.is_unwanted,
            first: self.first,
            last: self.last,
        });
        HttpPage {
            path: self.path.clone().unwrap_or_else(|| "/".to_owned()),
            host: self.host.as_ref().or(host).cloned(),
            expect: if self.expect.is_empty() { success() } else { self.expect.clone() },
            pattern,
            digest: self.digest,
            ..HttpPage::default()
        }
    }
}

pub(super) const ROWS: &[KeywordRow<UrlBlock>] = &[
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
    set("digest", Shape::Line(1, 1), |lowering, draft, statement| {
        let Some(word) = statement.arguments().first() else { return };
        match values::digest(&word.text) {
            Ok(digest) => draft.digest = Some(BodyDigest::Md5(digest)),
            Err(reason) => lowering.bad_value(word, reason),
        }
    }),
    set("regex", Shape::Line(1, 1), |_, draft, statement| {
        let word = statement.arguments().first();
        draft.regex = word.map(|word| (word.span, word.text.clone()));
    }),
    set("regex_no_match", Shape::Line(0, 0), |_, draft, _| draft.is_unwanted = true),
    set("regex_options", Shape::Line(1, usize::MAX), options),
    set("regex_min_offset", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.first = lowering.first_number(statement, OFFSETS).map_or(0, |at| at.value);
    }),
    set("regex_max_offset", Shape::Line(1, 1), |lowering, draft, statement| {
        draft.last = lowering.first_number(statement, OFFSETS).map(|at| at.value);
    }),
    // Of the matcher of PCRE.
    accept("regex_stack", "of the matcher of PCRE"),
    accept("tls_compliant", "it always is"),
];

/// Within the part of a body that is searched.
const OFFSETS: std::ops::RangeInclusive<i64> = 0..=(1 << 20);

fn options(lowering: &mut Lowering<'_>, draft: &mut UrlBlock, statement: &Statement) {
    for word in statement.arguments() {
        match word.text.as_str() {
            "caseless" => draft.flags.push('i'),
            "multiline" => draft.flags.push('m'),
            "dotall" => draft.flags.push('s'),
            "extended" => draft.flags.push('x'),
            "ungreedy" => draft.flags.push('U'),
            // How PCRE goes about it, or what is so here anyway.
            "auto_callout" | "dollar_endonly" | "dupnames" | "never_backslash_c" | "never_ucp"
            | "never_utf" | "no_auto_capture" | "no_auto_possess" | "no_dotstar_anchor"
            | "no_start_optimize" | "no_start_optimise" | "ucp" | "utf" | "no_utf_check" => {}
            other => {
                let text = format!("`{other}` of regex_options is not supported");
                lowering.bad_value(word, text);
            }
        }
    }
    draft.flags = draft.flags.chars().fold(String::new(), |mut seen, flag| {
        if !seen.contains(flag) {
            seen.push(flag);
        }
        seen
    });
}

/// Of a `virtualhost`.
pub(super) fn host(lowering: &mut Lowering<'_>, statement: &Statement) -> Option<String> {
    let word = statement.arguments().first()?;
    match values::http_host(&word.text) {
        Ok(host) => Some(host),
        Err(reason) => {
            lowering.bad_value(word, reason);
            None
        }
    }
}
