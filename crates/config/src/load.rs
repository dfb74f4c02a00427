//! From a path to a plan: read, recognise the dialect, run its front-end, assemble, validate.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use crate::dialect::Dialect;
use crate::need::{Need, NeedKind};
use crate::parsed::LateInterfaces;
use crate::source::{self, BYTE_ORDER_MARK, Source};
use crate::span::{Report, Span};
use crate::{assemble, keepalived, toml, validate};
use locum_plan::Plan;

/// What became of a configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Present exactly when no diagnostic is an error; warnings may remain.
    pub plan: Option<Arc<Plan>>,
    /// Sorted by file and position.
    pub diagnostics: Diagnostics,
    /// What this plan asks of the host, with the place that asks: for `check --host`, which turns
    /// an unmet one into a [`Diagnostic::at`] that place.
    pub needs: Vec<Need>,
}

pub(crate) fn load(source: &dyn Source, path: &str, context: &Context<'_>) -> Loaded {
    let mut report = Report::default();
    let mut digest = Sha256::new();
    let parsed = match source::read(source, path) {
        Err(reason) => {
            let place = Place::file(path);
            let finding = Diagnostic::at(place, Severity::Error, "unreadable", reason.to_string());
            report.diagnostics.push(finding.with_help("restore it, or name another with -c FILE"));
            None
        }
        Ok(octets) => {
            let text = String::from_utf8_lossy(&octets).into_owned();
            match dialect(&text) {
                Dialect::Toml => {
                    digest.update(&octets);
                    let file = report.add_file(path, text);
                    match valid_utf8(&octets, file, &mut report) {
                        true => toml::read(file, context, &mut report),
                        false => None,
                    }
                }
                Dialect::Keepalived => {
                    keepalived::read(source, path, octets, context, &mut digest, &mut report)
                }
            }
        }
    };
    let plan = parsed.map(|mut parsed| {
        assemble::fill_from_nodes(&mut parsed);
        assemble::fitness::resolve_tracks(&mut parsed);
        let plan = assemble::assemble(&parsed, hex::encode(digest.finalize()), &mut report);
        validate::validate(&parsed, &plan, &mut report);
        if parsed.late_interfaces == LateInterfaces::Expected {
            let late =
                report.needs.iter_mut().filter(|need| matches!(need.kind, NeedKind::Interface(_)));
            late.for_each(|need| need.severity = Severity::Warning);
        }
        plan
    });
    let Report { mut diagnostics, needs, .. } = report;
    diagnostics.sort();
    let plan = plan.filter(|_| !diagnostics.has_errors()).map(Arc::new);
    Loaded { plan, diagnostics, needs }
}

fn valid_utf8(octets: &[u8], file: u32, report: &mut Report) -> bool {
    match std::str::from_utf8(octets) {
        Ok(_) => true,
        Err(error) => {
            // What precedes the fault is unchanged in the text shown, so positions agree.
            let start = error.valid_up_to() as u32;
            let span = Span { file, start, end: start + 1 };
            report.error(span, "not-utf8", "the text is not UTF-8 from here on");
            false
        }
    }
}

/// Which front-end reads this: each line that only one of them could mean is a vote. An empty
/// file is ours.
fn dialect(text: &str) -> Dialect {
    let (mut toml, mut keepalived) = (0usize, 0usize);
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    for line in text.lines() {
        let line = line.trim();
        let code = line.split(['#', '!']).next().unwrap_or_default().trim_end();
        if line.starts_with('[') || assigns(line) {
            toml += 1;
        } else if line.starts_with(['!', '@', '$', '~'])
            || (code.ends_with('{') && !code.contains('='))
            || code.split_whitespace().next().is_some_and(keepalived::is_top_level)
        {
            keepalived += 1;
        }
    }
    if keepalived > toml { Dialect::Keepalived } else { Dialect::Toml }
}

/// `key = …`, with a bare, quoted or dotted key.
fn assigns(line: &str) -> bool {
    let Some((key, _)) = line.split_once('=') else { return false };
    let key = key.trim();
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'');
    !key.is_empty() && key.chars().all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dialect_follows_from_the_content() {
        let cases = [
            ("", Dialect::Toml),
            ("# only a comment\n", Dialect::Toml),
            ("[[instance]]\nname = \"a\"\n", Dialect::Toml),
            ("! Configuration\nglobal_defs {\n}\n", Dialect::Keepalived),
            ("vrrp_script a\n{\n script \"x\"\n}\n", Dialect::Keepalived),
            ("include /etc/keepalived/conf.d/*.conf\n", Dialect::Keepalived),
            ("$A=1\nvrrp_instance $A { state MASTER }\n", Dialect::Keepalived),
            ("\u{feff}global_defs {\n}\n", Dialect::Keepalived),
        ];
        for (text, expected) in cases {
            assert_eq!(dialect(text), expected, "{text:?}");
        }
    }
}
