//! A program to run, as a hook or as a check.

use ::toml::de::DeValue;
use locum_plan::{Command, CommandLine};

use crate::field::Field;
use crate::settings::form::{Form, Schema, TEXT, list, toml_only};
use crate::settings::row::{Noun, Setting, Unset, field};
use crate::span::At;
use crate::toml::reader::{Key, Reader, Value};

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedCommand {
    pub script: Field<CommandLine>,
    pub shell: Field<CommandLine>,
    pub user: Field<String>,
    pub group: Field<String>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedHooks {
    pub master: Field<Vec<At<Command>>>,
    pub backup: Field<Vec<At<Command>>>,
    pub fault: Field<Vec<At<Command>>>,
    pub stop: Field<Vec<At<Command>>>,
    pub any: Field<Vec<At<Command>>>,
}

impl ParsedHooks {
    pub fn all(&self) -> impl Iterator<Item = &At<Command>> {
        let lists = [&self.master, &self.backup, &self.fault, &self.stop, &self.any];
        lists.into_iter().flat_map(Field::list)
    }
}

/// A list of hooks: programs, word lists, or tables with a user. One program may stand alone.
pub(crate) const COMMANDS: Form<Vec<At<Command>>> = list(
    "a list of programs, each a path or a list of words",
    Schema::Any(&[
        Schema::Text,
        Schema::Table("command"),
        Schema::List(&Schema::Any(&[
            Schema::Text,
            Schema::List(&Schema::Text),
            Schema::Table("command"),
        ])),
    ]),
    |reader, value, key| match value.get_ref() {
        DeValue::String(_) | DeValue::Table(_) => {
            let span = reader.span(value.span());
            command(reader, value, key).map(|command| vec![At::new(command, span)])
        }
        _other => reader.each(value, key, |reader, item| command(reader, item, key)),
    },
);

/// A program and its arguments, or a program alone.
pub(crate) const ARGV: Form<CommandLine> = toml_only(
    "a list of words, as in [\"/usr/bin/curl\", \"-sf\", \"URL\"]",
    Schema::Any(&[Schema::Text, Schema::List(&Schema::Text)]),
    argv,
    |_| String::new(),
);

pub(crate) const SHELL_LINE: Form<CommandLine> =
    toml_only("a line for /bin/sh in quotes", Schema::Text, shell, |_| String::new());

pub(crate) static COMMAND: Noun<ParsedCommand> = Noun {
    name: "command",
    head: "notify = [{ … }]",
    what: "a command",
    about: "A hook that is run as another user, or by a shell. It has either `script` or `shell`.",
    rows: &[&SCRIPT, &SHELL, &USER, &GROUP],
};

static SCRIPT: Setting<ParsedCommand, CommandLine> = Setting::new(
    "script",
    ARGV,
    field!(ParsedCommand, CommandLine, script),
    Unset::Nothing("none"),
    "A program and its arguments; no shell reads them.",
);

static SHELL: Setting<ParsedCommand, CommandLine> = Setting::new(
    "shell",
    SHELL_LINE,
    field!(ParsedCommand, CommandLine, shell),
    Unset::Nothing("none"),
    "A line that `/bin/sh -c` runs.",
);

static USER: Setting<ParsedCommand, String> = Setting::new(
    "user",
    TEXT,
    field!(ParsedCommand, String, user),
    Unset::Nothing("the daemon's own"),
    "User to run it as.",
);

static GROUP: Setting<ParsedCommand, String> = Setting::new(
    "group",
    TEXT,
    field!(ParsedCommand, String, group),
    Unset::Nothing("that of the user"),
    "Group to run it as.",
);

fn command(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<Command> {
    if !matches!(value.get_ref(), DeValue::Table(_)) {
        let line = argv(reader, value, key)?;
        return Some(Command { line, user: None, group: None });
    }
    let mut table = ParsedCommand::default();
    let span = COMMAND.open(reader, value, key, &mut table)?;
    if table.script.is_absent() == table.shell.is_absent() {
        reader.report.error(span, "bad-command", "a command has either `script` or `shell`");
        return None;
    }
    Some(Command {
        line: table.script.into_given().or(table.shell.into_given())?.value,
        user: table.user.value().cloned(),
        group: table.group.value().cloned(),
    })
}

fn argv(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<CommandLine> {
    if let DeValue::String(program) = value.get_ref() {
        let reason = if program.is_empty() {
            "the program is empty".to_owned()
        } else if program.contains(char::is_whitespace) {
            let words: Vec<String> =
                program.split_whitespace().map(|word| format!("{word:?}")).collect();
            format!("no shell splits this: write [{}]", words.join(", "))
        } else {
            return Some(CommandLine::Argv(vec![program.clone().into_owned()]));
        };
        reader.bad_value(value, key, &reason);
        return None;
    }
    let words = reader.each(value, key, |reader, item| reader.text(item, key))?;
    let words: Vec<String> = words.into_iter().map(|at| at.value).collect();
    if words.first().is_none_or(String::is_empty) {
        reader.bad_value(value, key, "the program is missing");
        return None;
    }
    if words.iter().any(|word| word.contains('\0')) {
        reader.bad_value(value, key, "an argument contains a zero octet");
        return None;
    }
    Some(CommandLine::Argv(words))
}

fn shell(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<CommandLine> {
    reader.parsed(value, key, |text| {
        if text.trim().is_empty() || text.contains('\0') {
            Err("the line is empty".to_owned())
        } else {
            Ok(CommandLine::Shell(text.to_owned()))
        }
    })
}
