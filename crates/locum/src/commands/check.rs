//! `check`: what `run` would say about a configuration, and with `--host` about this machine.

use locum_config::{Diagnostics, Severity};
use serde::Serialize;

use super::host;
use crate::cli::CheckArgs;
use crate::configuration::Origin;
use crate::exit;
use crate::terminal::{complain, say, say_exactly};

/// The object of `check --json`.
#[derive(Serialize)]
struct CheckReport<'a> {
    config: String,
    /// Present when there are no errors: this node's name and the digest of all text read.
    node: Option<&'a str>,
    digest: Option<&'a str>,
    errors: usize,
    warnings: usize,
    diagnostics: &'a Diagnostics,
    /// With `--host`, where this is not root: whose rights the host was looked at with.
    #[serde(skip_serializing_if = "Option::is_none")]
    rights: Option<&'a str>,
}

pub fn run(options: &CheckArgs) -> u8 {
    let origin = Origin::as_typed(&options.configuration);
    let loaded = origin.load();
    let mut diagnostics = loaded.diagnostics.clone();
    if options.strict {
        diagnostics.forgive_nothing();
    }
    if options.host {
        host::check(&loaded, &origin.path(), &mut diagnostics);
        diagnostics.sort();
    }
    let rights = host::rights().filter(|_| options.host);
    let plan = loaded.plan.as_ref().filter(|_| !diagnostics.has_errors());
    let (errors, warnings) = (diagnostics.errors(), diagnostics.warnings());
    if options.json {
        let report = CheckReport {
            config: origin.path(),
            node: plan.map(|plan| &*plan.node),
            digest: plan.map(|plan| &*plan.digest),
            errors,
            warnings,
            diagnostics: &diagnostics,
            rights: rights.as_deref(),
        };
        match serde_json::to_string_pretty(&report) {
            Ok(text) => say_exactly(&format!("{text}\n")),
            Err(error) => complain(&format!("locum: {error}\n")),
        }
    } else {
        complain(&diagnostics.to_string());
        if let Some(rights) = &rights {
            complain(&format!("{rights}\n"));
        }
        match (plan, errors, warnings) {
            (Some(plan), 0, 0) => say(&format!("{}: fine for node {}\n", origin.path(), plan.node)),
            _ => complain(&format!(
                "{}: {}, {}\n",
                origin.path(),
                counted(errors, "error"),
                counted(warnings, "warning")
            )),
        }
    }
    match diagnostics.worst() {
        None => exit::OK,
        Some(Severity::Warning) => exit::WARNINGS,
        Some(Severity::Error) => exit::ERRORS,
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
