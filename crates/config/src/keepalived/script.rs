//! `vrrp_script`: a check that adjusts priorities.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::keepalived::blocks::Statement;
use crate::keepalived::globals::FileDraft;
use crate::keepalived::keywords::{KeywordRow, Shape, accept, set};
use crate::keepalived::lowering::{BlockTarget, Lowering, put};
use crate::parsed::{Field, ParsedCheck};
use crate::settings::check::CHECK;
use crate::settings::keywords;
use crate::settings::row::Block;
use locum_plan::{Checker, Command, CommandLine};

pub(super) struct ScriptDraft {
    parsed: ParsedCheck,
    command: Field<Command>,
    user: Option<(String, Option<String>)>,
}

pub(super) const ROWS: &[KeywordRow<ScriptDraft>] = &[
    set("script", Shape::Line(1, usize::MAX), |lowering, draft, statement| {
        put(&mut draft.command, lowering.command(statement.arguments()));
    }),
    set("weight", Shape::Line(1, 2), |lowering, draft, statement| {
        let weight = lowering.weight(statement.keyword(), statement.arguments());
        put(&mut draft.parsed.weight, weight);
    }),
    set("user", Shape::Line(1, 2), |_, draft, statement| {
        let mut words = statement.arguments().iter().map(|word| word.text.clone());
        draft.user = words.next().map(|user| (user, words.next()));
    }),
    accept("log_all_failures", "`locum history` has the turns of every server"),
];

impl BlockTarget for ScriptDraft {
    fn setting(&mut self, lowering: &mut Lowering<'_>, statement: &Statement) -> bool {
        CHECK.lower(lowering, Block::Script, statement, &mut self.parsed)
    }

    fn keywords() -> Vec<&'static str> {
        keywords(Block::Script)
    }
}

pub(super) fn read(lowering: &mut Lowering<'_>, file: &mut FileDraft, statement: &Statement) {
    let Some(name) = lowering.only_name(statement) else { return };
    if let Some(first) = file.scripts.known.get(&name.value) {
        let text = format!("vrrp_script `{}` is defined twice", name.value);
        let effect = "the second block is ignored";
        let finding = lowering.report.forgiven(name.span, "duplicate-name", text, effect);
        return drop(finding.see("first defined", *first));
    }
    let check = ParsedCheck { span: statement.span(), name, ..ParsedCheck::default() };
    let mut draft = ScriptDraft { parsed: check, command: Field::Absent, user: None };
    let block = statement.block.as_deref().unwrap_or_default();
    lowering.run("a vrrp_script", ROWS, &mut draft, block);
    let ScriptDraft { parsed: mut check, command, user } = draft;
    check.checker = command.map(|mut command| {
        if let Some((name, group)) = user {
            command.user = Some(name);
            command.group = group;
        }
        checker(command)
    });
    for (time, key) in [(&mut check.interval, "interval"), (&mut check.timeout, "timeout")] {
        if let Some(at) = time.given_mut().filter(|at| at.value.is_zero()) {
            let text = format!("`{key}` is longer than 0");
            lowering.report.forgiven(at.span, "out-of-range", text, "it is 1 second");
            at.value = Duration::from_secs(1);
        }
    }
    if check.checker.is_absent() {
        let text = format!("vrrp_script `{}` does not say what to run", check.name.value);
        let finding = lowering.report.forgiven(check.span, "missing-key", text, "it is left out");
        drop(finding.help("add `script`"));
        file.scripts.left_out.insert(check.name.value);
        return;
    }
    file.scripts.known.insert(check.name.value.clone(), check.name.span);
    file.parsed.checks.push(check);
}

/// What the script asks, where we can ask it without a fork: `killall -0 NAME` whether a process
/// is there, `</dev/tcp/ADDRESS/PORT` whether a port answers.
fn checker(command: Command) -> Checker {
    match &command.line {
        CommandLine::Argv(words) => match process_asked(words) {
            Some(name) => Checker::Process { name: name.to_owned() },
            None => Checker::Script(command),
        },
        CommandLine::Shell(line) => match port_asked(line) {
            Some(target) => Checker::tcp(target),
            None => Checker::Script(command),
        },
    }
}

fn process_asked(words: &[String]) -> Option<&str> {
    let mut words = words.iter().map(String::as_str).filter(|word| *word != "-q");
    let program = words.next()?;
    let is_killall = program.rsplit('/').next() == Some("killall");
    let asks = matches!(words.next(), Some("-0"));
    let name = words.next().filter(|name| !name.is_empty() && !name.starts_with('-'))?;
    let alone = words.next().is_none();
    (is_killall && asks && alone && !name.contains('/')).then_some(name)
}

fn port_asked(line: &str) -> Option<SocketAddr> {
    let (host, port) = line.strip_prefix('<')?.trim().strip_prefix("/dev/tcp/")?.split_once('/')?;
    let address: IpAddr = match host {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        other => other.parse().ok()?,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn killall_with_signal_zero_asks_for_a_process() {
        let asked = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            process_asked(&words).map(str::to_owned)
        };
        assert_eq!(asked("killall -0 haproxy"), Some("haproxy".to_owned()));
        assert_eq!(asked("/usr/bin/killall -q -0 nginx"), Some("nginx".to_owned()));
        assert_eq!(asked("killall -9 haproxy"), None);
        assert_eq!(asked("killall -0 a b"), None);
        assert_eq!(asked("pidof haproxy"), None);
    }

    #[test]
    fn a_redirection_from_dev_tcp_asks_for_a_port() {
        assert_eq!(port_asked("</dev/tcp/127.0.0.1/80"), "127.0.0.1:80".parse().ok());
        assert_eq!(port_asked("< /dev/tcp/localhost/80"), "127.0.0.1:80".parse().ok());
        assert_eq!(port_asked("</dev/tcp/example.com/80"), None);
        assert_eq!(port_asked("<file"), None);
    }
}
