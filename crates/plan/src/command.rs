//! Programs to run.

use std::fmt;

/// A program to run, as an argument vector or, where asked for, through a shell.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Command {
    pub line: CommandLine,
    /// User to run as; the daemon's own when `None`.
    pub user: Option<String>,
    pub group: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum CommandLine {
    /// Program and arguments, never empty.
    Argv(Vec<String>),
    /// Handed to `/bin/sh -c`.
    Shell(String),
}

/// Programs that are run when something turns: a server that comes up or goes down, the quorum of a
/// service that is reached or lost.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct TurnHooks {
    pub up: Vec<Command>,
    pub down: Vec<Command>,
}

impl Command {
    pub fn argv(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let words = words.into_iter().map(Into::into).collect();
        Self { line: CommandLine::Argv(words), user: None, group: None }
    }
}

/// As an operator would type it.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.line {
            CommandLine::Argv(words) => f.write_str(&words.join(" ")),
            CommandLine::Shell(line) => f.write_str(line),
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}
