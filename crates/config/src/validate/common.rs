//! Rules that instances, services and checks have in common.

use std::time::Duration;

use locum_plan::{Capabilities, Command, CommandLine, Service};

use crate::dialect::Dialect;
use crate::need::NeedKind;
use crate::parsed::Field;
use crate::settings::question::ParsedQuestion;
use crate::span::{Finding, Report, Span};

/// What a command asks of the host.
pub(super) fn command_needs(command: &Command, span: Span, report: &mut Report) {
    match &command.line {
        CommandLine::Argv(words) => {
            if let Some(program) = words.first() {
                report.need(span, NeedKind::Program(program.clone()));
            }
        }
        CommandLine::Shell(_) => report.need(span, NeedKind::Program("/bin/sh".to_owned())),
    }
    if let Some(user) = &command.user {
        report.need(span, NeedKind::User(user.clone()));
    }
    if let Some(group) = &command.group {
        report.need(span, NeedKind::Group(group.clone()));
    }
}

/// What a question asks of the host that asks it.
pub(super) fn question_needs(asked: &ParsedQuestion, report: &mut Report) {
    if let Some(interface) = asked.interface.given() {
        report.need(interface.span, NeedKind::Interface(interface.value.clone()));
    }
    if let Some(source) = asked.source.given() {
        report.need(source.span, NeedKind::Address(source.value.0));
    }
    for file in [&asked.ca, &asked.certificate, &asked.key] {
        if let Some(file) = file.given() {
            report.need(file.span, NeedKind::File(file.value.display().to_string()));
        }
    }
}

/// How often something is asked, and how long it may take; `in_force` is the interval, also where
/// none is given.
pub(super) fn timing(
    interval: &Field<Duration>,
    timeout: &Field<Duration>,
    in_force: Duration,
    report: &mut Report,
) {
    if let Some(interval) = interval.given().filter(|at| at.value.is_zero()) {
        report.error(interval.span, "zero-interval", "the interval of a check is longer than 0");
    }
    let Some(timeout) = timeout.given() else { return };
    if timeout.value.is_zero() {
        report.error(timeout.span, "zero-timeout", "the timeout of a check is longer than 0");
    } else if timeout.value > in_force {
        let text = "the timeout is longer than the interval: a hung run makes others be skipped";
        report.warning(timeout.span, "timeout-over-interval", text);
    }
}

/// The instance that a service or HAProxy is for is one of those that there are.
pub(super) fn known_instance<'a>(
    named: &Field<String>,
    known: impl Iterator<Item = &'a str> + Clone,
    report: &mut Report,
) {
    let Some(named) = named.given() else { return };
    if !known.clone().any(|name| name == named.value) {
        let text = format!("there is no instance `{}`", named.value);
        report.error(named.span, "unknown-instance", text).suggest(&named.value, known);
    }
}

/// What our own files refuse and keepalived only remarks on.
pub(super) fn strict_in_toml<'r>(
    dialect: Dialect,
    span: Span,
    code: &'static str,
    text: String,
    report: &'r mut Report,
) -> Finding<'r> {
    match dialect {
        Dialect::Toml => report.error(span, code, text),
        Dialect::Keepalived => report.warning(span, code, text),
    }
}

/// Whether it holds of the backend, whichever it will be.
pub(super) fn always(built: &Service, holds: impl Fn(&Capabilities) -> bool) -> bool {
    let mut candidates = built.backend.candidates(built).into_iter();
    candidates.all(|kind| holds(kind.capabilities()))
}
