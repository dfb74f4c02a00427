//! Rules that need more than one field: the plan stands beside what was parsed, entry by entry, so that
//! every finding has its place.

mod common;
mod fitness;
mod http;
mod instance;
mod ipvs;
mod listen;
mod loops;
mod master_only;
mod quorum;
mod servers;
mod service;
mod weights;

use std::collections::{HashMap, HashSet};

pub(crate) use instance::capacity;

use crate::dialect::Dialect;
use crate::need::NeedKind;
use crate::parsed::{Parsed, ParsedCheck, ParsedHaproxy};
use crate::settings::node::HAPROXY_PROGRAM;
use crate::span::{At, Report, Span};
use crate::validate::common::{command_needs, known_instance, question_needs, timing};
use locum_plan::{Checker, Plan, Tracked, weight_of};

/// Reports what is wrong with a plan, and notes what it needs from the host.
pub(crate) fn validate(parsed: &Parsed, plan: &Plan, report: &mut Report) {
    if let Some(timeout) = parsed.hooks.timeout.given().filter(|at| at.value.is_zero()) {
        report.error(timeout.span, "zero-timeout", "the timeout of hooks is longer than 0");
    }
    unique(parsed.instances.iter().map(|one| &one.name), "instance", report);
    unique(parsed.checks.iter().map(|one| &one.name), "check", report);
    unique(parsed.services.iter().map(|one| &one.name), "service", report);
    unique(parsed.haproxy.iter().map(|one| &one.name), "haproxy", report);
    for (one, built) in parsed.instances.iter().zip(&plan.instances) {
        instance::validate(one, built, parsed.dialect, report);
        weights::validate(one, built, plan, report);
        fitness::validate(one, built, plan, parsed.dialect, report);
    }
    instance::distinct_routers(parsed, plan, report);
    instance::distinct_addresses(parsed, report);
    tracked(parsed, report);
    owners(parsed, plan, report);
    for (one, built) in parsed.checks.iter().zip(&plan.checks) {
        check(one, built, report);
    }
    for (one, built) in parsed.services.iter().zip(&plan.services) {
        service::validate(one, built, plan, parsed.dialect, report);
    }
    http::routes(parsed, plan, report);
    listen::distinct(parsed, plan, report);
    master_only::validate(parsed, plan, report);
    for one in &parsed.haproxy {
        haproxy(one, parsed, report);
    }
    ipvs::validate(parsed, plan, report);
    if plan.instances.is_empty() && plan.services.is_empty() && plan.haproxy.is_empty() {
        nothing_to_do(parsed, report);
    }
}

/// A file with nothing but checks is a fragment. One with nothing at all is the wrong one, or was
/// cut off by a full disk: a reload of it would let go of every address. keepalived takes it.
fn nothing_to_do(parsed: &Parsed, report: &mut Report) {
    if !parsed.checks.is_empty() || report.diagnostics.has_errors() {
        return;
    }
    let whole = Span { file: 0, start: 0, end: 0 };
    let text = "the configuration defines no instance and no service";
    match parsed.dialect {
        Dialect::Toml => report
            .error(whole, "empty", text)
            .help("is it the right file, and whole? `locum stop` ends a daemon in order"),
        Dialect::Keepalived => report.warning(whole, "empty", text),
    };
}

/// Longest name of anything, in octets: names appear in table columns and environment variables.
const MAX_NAME: usize = 128;

fn unique<'a>(names: impl Iterator<Item = &'a At<String>>, kind: &str, report: &mut Report) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for name in names {
        let value = name.value.as_str();
        if value.is_empty() || value.len() > MAX_NAME || value.chars().any(char::is_control) {
            let text = format!("the name of a {kind} has 1 to {MAX_NAME} printable characters");
            report.error(name.span, "bad-name", text);
        } else if let Some(first) = seen.get(value) {
            let text = format!("{kind} `{value}` is defined twice");
            report.error(name.span, "duplicate-name", text).see("first defined", *first);
        } else {
            seen.insert(value, name.span);
        }
    }
}

/// Every tracked check exists, and every check is tracked.
fn tracked(parsed: &Parsed, report: &mut Report) {
    let mut used: HashSet<&Tracked> = HashSet::new();
    for one in &parsed.instances {
        let mut here: HashMap<&Tracked, Span> = HashMap::new();
        for track in one.track.list() {
            let object = &track.value.object;
            if !is_known(parsed, object) {
                let (code, text) = match object {
                    Tracked::Check(name) => {
                        ("unknown-check", format!("there is no check `{name}`"))
                    }
                    Tracked::Service(_) | Tracked::Haproxy(_) | Tracked::Interface(_) => {
                        ("unknown-service", format!("there is no {object}"))
                    }
                };
                report.error(track.span, code, text).suggest(object.name(), alike(parsed, object));
            } else if let Some(first) = here.insert(object, track.span) {
                let text = format!("{object} is tracked twice by this instance");
                report.error(track.span, "duplicate-track", text).see("first", first);
            }
            used.insert(object);
        }
    }
    if report.diagnostics.has_errors() {
        // A track list that was refused may have named them.
        return;
    }
    for one in &parsed.checks {
        if !used.contains(&Tracked::Check(one.name.value.as_str().into())) {
            let list = match parsed.dialect {
                Dialect::Toml => "track",
                Dialect::Keepalived => "track_script",
            };
            let text = format!(
                "no instance tracks check `{}`: it runs and decides nothing",
                one.name.value
            );
            report
                .warning(one.name.span, "unused-check", text)
                .help(format!("name it in the `{list}` of an instance"));
        }
    }
}

fn is_known(parsed: &Parsed, object: &Tracked) -> bool {
    match object {
        Tracked::Check(name) => parsed.checks.iter().any(|one| *one.name.value == **name),
        Tracked::Service(name) => parsed.services.iter().any(|one| *one.name.value == **name),
        Tracked::Haproxy(name) => parsed.haproxy.iter().any(|one| *one.name.value == **name),
        // The host's to know.
        Tracked::Interface(_) => true,
    }
}

/// What it could have been. A bare name may be a check, a service or a HAProxy.
fn alike<'a>(parsed: &'a Parsed, object: &Tracked) -> Vec<&'a str> {
    let checks = || parsed.checks.iter().map(|one| one.name.value.as_str());
    let services = || parsed.services.iter().map(|one| one.name.value.as_str());
    let haproxy = || parsed.haproxy.iter().map(|one| one.name.value.as_str());
    match (object, parsed.dialect) {
        (Tracked::Check(_), Dialect::Toml) => checks().chain(services()).chain(haproxy()).collect(),
        (Tracked::Check(_), Dialect::Keepalived) => checks().collect(),
        (Tracked::Service(_), _) => services().collect(),
        (Tracked::Haproxy(_), _) => haproxy().collect(),
        (Tracked::Interface(_), _) => Vec::new(),
    }
}

/// V-161: an owner's priority stays 255, so a check can do no more to it than make it a fault.
fn owners(parsed: &Parsed, plan: &Plan, report: &mut Report) {
    for (one, built) in parsed.instances.iter().zip(&plan.instances) {
        if !built.router.priority.is_owner() {
            continue;
        }
        for track in one.track.list() {
            let object = &track.value.object;
            if weight_of(&track.value, &plan.checks).value != 0 {
                let text = format!(
                    "the priority of an owner (255) is never adjusted, so the weight of {object} \
                     does nothing"
                );
                report
                    .warning(track.span, "owner-weight", text)
                    .help("lower the priority, or give it weight 0 to make a failure a fault");
            }
        }
    }
}

fn check(one: &ParsedCheck, built: &locum_plan::Check, report: &mut Report) {
    timing(&one.interval, &one.timeout, built.probe.interval, report);
    question_needs(&one.asked.question, report);
    let Some(at) = one.checker.given() else { return };
    if let Checker::Script(command) = &at.value {
        command_needs(command, at.span, report);
    }
}

fn haproxy(one: &ParsedHaproxy, parsed: &Parsed, report: &mut Report) {
    known_instance(&one.instance, parsed.instances.iter().map(|i| &*i.name.value), report);
    if let Some(config) = one.config.given() {
        report.need(config.span, NeedKind::File(config.value.display().to_string()));
    }
    let span = one.program.given().map_or(one.name.span, |at| at.span);
    let program = HAPROXY_PROGRAM.of(one, parsed.dialect).display().to_string();
    report.need(span, NeedKind::Program(program));
}
