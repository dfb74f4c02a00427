//! Rules between the keys of one table, where TOML has several keys for one thing.

use crate::parsed::{Asked, Field, ParsedInstance, TransportKind};
use crate::settings::check::success;
use crate::span::{Report, Span};
use locum_plan::{Checker, Command, CommandLine};

/// `transport = "unicast"`, `unicast = {…}`, or both: where it is said, if it is.
pub(super) fn transport(report: &mut Report, instance: &mut ParsedInstance) {
    let kind = instance.transport.value().copied();
    if let (Some(TransportKind::Multicast), Some(span)) = (kind, instance.unicast.span) {
        let text = "`unicast` goes with `transport = \"unicast\"`";
        report.error(span, "transport-conflict", text);
        instance.unicast.span = None;
        return;
    }
    if let (Some(TransportKind::Unicast), None) = (kind, instance.unicast.span) {
        instance.unicast.span = instance.transport.given().map(|at| at.span);
    }
    if let (Some(_), Some(group)) = (instance.unicast.span, instance.group.given()) {
        report.error(group.span, "transport-conflict", "`group` goes with multicast");
    }
}

/// Exactly one of the kinds of checkers. `table` is where the check stands.
pub(super) fn checker(report: &mut Report, table: Span, asked: &Asked) -> Field<Checker> {
    let as_user = |line: CommandLine| {
        let (user, group) = (asked.user.value().cloned(), asked.group.value().cloned());
        Checker::Script(Command { line, user, group })
    };
    let kinds: [(&str, Field<Checker>); 5] = [
        ("script", asked.script.clone().map(as_user)),
        ("shell", asked.shell.clone().map(as_user)),
        ("process", asked.process.clone().map(|name| Checker::Process { name })),
        ("tcp", asked.tcp.clone().map(|target| Checker::Tcp { target })),
        (
            "http",
            asked.http.clone().map(|url| Checker::Http {
                target: url.target,
                path: url.path,
                host: asked.host.value().cloned().or(url.host),
                expect: asked.expect.value().cloned().unwrap_or_else(success),
            }),
        ),
    ];
    let mut written = kinds.into_iter().filter(|(_, field)| !field.is_absent());
    let Some((kind, field)) = written.next() else { return Field::Absent };
    if let Some((other, _)) = written.next() {
        let text = format!("a check asks one thing: `{kind}` or `{other}`, not both");
        report.error(table, "two-probes", text);
        return Field::Bad;
    }
    let is_http = kind == "http";
    let is_command = kind == "script" || kind == "shell";
    for (name, span, fits) in [
        ("host", asked.host.given().map(|at| at.span), is_http),
        ("expect", asked.expect.given().map(|at| at.span), is_http),
        ("user", asked.user.given().map(|at| at.span), is_command),
        ("group", asked.group.given().map(|at| at.span), is_command),
    ] {
        if let (Some(span), false) = (span, fits) {
            let text = format!("`{name}` means nothing beside `{kind}`");
            report.error(span, "misplaced-key", text);
        }
    }
    field
}
