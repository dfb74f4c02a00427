//! From a transition to the commands to run, with keepalived's arguments.

use std::net::IpAddr;

use locum_plan::{Command, CommandLine, Hooks, Name, Tracked};
use locum_vrrp::{Cause, Priority, Role};

use crate::output::{HookOwner, HookRun};

/// One transition as hooks see it.
#[derive(Debug)]
pub struct HookContext<'a> {
    pub instance: &'a Name,
    pub from: Role,
    pub to: Role,
    pub cause: &'a Cause,
    pub priority: Priority,
    pub event: u64,
    /// What this node cannot serve of the instance.
    pub unfit: &'a [(Tracked, String)],
    /// What of it is strained.
    pub strained: &'a [Tracked],
}

/// State hooks first, then the generic ones with `INSTANCE NAME STATE PRIORITY` appended. A
/// resignation runs none: the service must answer until it is over. Nor does its end where nobody
/// has taken over: no hook has said that anything ended.
pub fn runs(hooks: &Hooks, context: &HookContext<'_>) -> Vec<HookRun> {
    let (specific, state) = match context.to {
        Role::Master if context.from == Role::Resigning => return Vec::new(),
        Role::Master => (&hooks.master, "MASTER"),
        Role::Backup => (&hooks.backup, "BACKUP"),
        Role::Fault => (&hooks.fault, "FAULT"),
        Role::Initialize => (&hooks.stop, "STOP"),
        Role::Resigning => return Vec::new(),
    };
    let mut environment = [
        ("LOCUM_INSTANCE", context.instance.to_string()),
        ("LOCUM_STATE", state.to_owned()),
        ("LOCUM_PREVIOUS_STATE", context.from.to_string()),
        ("LOCUM_CAUSE", context.cause.to_string()),
        ("LOCUM_PRIORITY", context.priority.0.to_string()),
        ("LOCUM_EVENT", context.event.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec();
    let unfit: Vec<&Tracked> = context.unfit.iter().map(|(object, _)| object).collect();
    let strained: Vec<&Tracked> = context.strained.iter().collect();
    for (key, objects) in [("LOCUM_UNFIT", unfit), ("LOCUM_STRAINED", strained)] {
        if !objects.is_empty() {
            let list: Vec<String> = objects.iter().map(ToString::to_string).collect();
            environment.push((key.to_owned(), list.join(", ")));
        }
    }
    let arguments =
        ["INSTANCE", context.instance, state, &context.priority.0.to_string()].map(str::to_owned);
    let generic = hooks.any.iter().map(|hook| with_arguments(hook, &arguments));
    specific
        .iter()
        .cloned()
        .chain(generic)
        .map(|command| HookRun {
            owner: HookOwner::Instance(context.instance.clone()),
            command,
            environment: environment.clone(),
            event: context.event,
        })
        .collect()
}

/// Gives hooks the addresses that the kernel refused: `LOCUM_MISSING`, separated by spaces, not set
/// when all are in place.
pub fn add_refused(runs: &mut [HookRun], refused: &[IpAddr]) {
    if refused.is_empty() {
        return;
    }
    let list = refused.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    for run in runs {
        run.environment.push(("LOCUM_MISSING".to_owned(), list.clone()));
    }
}

fn with_arguments(command: &Command, arguments: &[String]) -> Command {
    let line = match &command.line {
        CommandLine::Argv(words) => {
            CommandLine::Argv(words.iter().chain(arguments).cloned().collect())
        }
        CommandLine::Shell(line) => {
            let quoted = arguments.iter().map(|word| quote(word));
            CommandLine::Shell(
                [line.clone()].into_iter().chain(quoted).collect::<Vec<_>>().join(" "),
            )
        }
    };
    Command { line, user: command.user.clone(), group: command.group.clone() }
}

/// For `/bin/sh`: an instance name may hold anything the configuration allows.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_hooks_get_keepalived_arguments_after_the_state_hooks() {
        let hooks = Hooks {
            master: vec![Command::argv(["/bin/m"])],
            any: vec![Command::argv(["/bin/any", "x"])],
            ..Hooks::default()
        };
        let name: Name = "web".into();
        let cause = Cause::Startup;
        let context = HookContext {
            instance: &name,
            from: Role::Backup,
            to: Role::Master,
            cause: &cause,
            priority: Priority(150),
            event: 7,
            unfit: &[],
            strained: &[],
        };
        let commands: Vec<String> =
            runs(&hooks, &context).iter().map(|run| run.command.to_string()).collect();
        assert_eq!(commands, ["/bin/m", "/bin/any x INSTANCE web MASTER 150"]);
        let resigning = HookContext { to: Role::Resigning, ..context };
        assert!(runs(&hooks, &resigning).is_empty());
        let taken_back = HookContext { from: Role::Resigning, to: Role::Master, ..resigning };
        assert!(runs(&hooks, &taken_back).is_empty(), "nothing had ended");
    }

    #[test]
    fn hooks_hear_what_cannot_be_served() {
        let hooks = Hooks { master: vec![Command::argv(["/bin/m"])], ..Hooks::default() };
        let name: Name = "web".into();
        let unfit = [
            (Tracked::Service("www".into()), String::new()),
            (Tracked::Haproxy("edge".into()), "it does not answer".to_owned()),
        ];
        let context = HookContext {
            instance: &name,
            from: Role::Backup,
            to: Role::Master,
            cause: &Cause::Startup,
            priority: Priority(2),
            event: 7,
            unfit: &unfit,
            strained: &[],
        };
        let last = runs(&hooks, &context)[0].environment.last().cloned();
        let expected = ("LOCUM_UNFIT".to_owned(), "service www, haproxy edge".to_owned());
        assert_eq!(last, Some(expected));
    }

    #[test]
    fn a_shell_hook_gets_its_arguments_quoted() {
        let line = CommandLine::Shell("logger".to_owned());
        let command = Command { line, user: None, group: None };
        let quoted = with_arguments(&command, &["it's".to_owned()]);
        assert_eq!(quoted.to_string(), "logger 'it'\\''s'");
    }
}
