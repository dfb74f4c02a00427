//! Checks: what is asked, how often, and what a run of it says.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::command::Command;
use crate::name::Name;
use crate::question::{CheckSource, Question};
use crate::track::Weight;

/// A probe that adjusts priorities.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    pub name: Name,
    pub probe: Probe,
    /// Consecutive successes before it counts as up, at least 1.
    pub rise: u32,
    /// Consecutive failures before it counts as down, at least 1.
    pub fall: u32,
    pub weight: Weight,
    /// Starts down and needs `rise` successes, instead of taking the first result.
    pub starts_failed: bool,
    pub unrunnable: Unrunnable,
}

/// What a check counts as whose program cannot be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unrunnable {
    /// Failing: what nobody can ask about is not known to work.
    #[default]
    Fails,
    /// As if nobody tracked it, until it can be run for the first time: keepalived's meaning. One
    /// that has run and cannot be run any more has failed.
    LeftOut,
}

/// One health check of a server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Health {
    pub probe: Probe,
    /// Consecutive successes before it counts as up, at least 1.
    pub rise: u32,
    /// Consecutive failures before it counts as down, at least 1.
    pub fall: u32,
}

/// What to run, how often, and for how long at most.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Probe {
    pub kind: Checker,
    /// From the start of one run to the start of the next.
    pub interval: Duration,
    pub timeout: Duration,
    /// From the end of a failed run to the start of the next, in place of `interval`, while fewer
    /// runs in a row have failed than `fall` says.
    pub retry: Option<Retry>,
    /// The first run of each probe comes at a time of its own within this from the start.
    pub warm_up: Duration,
}

impl Probe {
    /// Begins at once, and waits the interval after every run.
    pub const fn new(kind: Checker, interval: Duration, timeout: Duration) -> Self {
        Self { kind, interval, timeout, retry: None, warm_up: Duration::ZERO }
    }
}

/// Failed runs that are repeated sooner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Retry {
    pub delay: Duration,
    /// So many failures in a row are followed by a run after `delay`; after more, the interval.
    pub times: u32,
}

/// How something is asked whether it works: a check of this host or of a server of a service.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Checker {
    /// Passes when it exits with status 0.
    Script(Command),
    /// Passes when it exits with status 0. It finds the server that it is about in LOCUM_ADDRESS
    /// and LOCUM_PORT.
    ServerScript {
        command: Arc<Command>,
        server: SocketAddr,
        /// It passes with a status from 2 as well, which is the weight of the server and 2 more.
        is_weighing: bool,
    },
    /// A number in a file, which is 0 where there is none: with the factor 0 it passes while the
    /// number is 0; else it passes, and the number times the factor is added to the weight.
    File { path: PathBuf, factor: i32 },
    /// Is a process of this name there? What `killall -0 NAME` asks, without a fork.
    Process { name: String },
    /// Passes when whoever has this address answers the question. `origin` is absent where the kernel chooses all of it.
    Ask { target: SocketAddr, question: Question, origin: Option<Arc<CheckSource>> },
}

impl Checker {
    /// Does it accept connections?
    pub const fn tcp(target: SocketAddr) -> Self {
        Self::ask(target, Question::Tcp)
    }

    /// Asked from wherever the kernel chooses.
    pub const fn ask(target: SocketAddr, question: Question) -> Self {
        Self::Ask { target, question, origin: None }
    }

    /// The address that is asked, or that a script is about; `None` for what looks at this host.
    pub const fn target(&self) -> Option<SocketAddr> {
        match self {
            Self::Ask { target, .. } => Some(*target),
            Self::ServerScript { server, .. } => Some(*server),
            Self::Script(_) | Self::File { .. } | Self::Process { .. } => None,
        }
    }
}

/// As operators read it in the log.
impl fmt::Display for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Script(command) => write!(f, "script {command}"),
            Self::ServerScript { command, server, .. } => write!(f, "script {command} of {server}"),
            Self::File { path, .. } => write!(f, "file {}", path.display()),
            Self::Process { name } => write!(f, "process {name}"),
            Self::Ask { target, question, .. } => question.describe(*target, f),
        }
    }
}

/// Outcome of one run of a probe, before rise and fall.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Why, for a person: "exited with status 1", "timed out after 2s", "connection refused".
    pub detail: String,
    /// Wall time of the run.
    pub took: Duration,
    /// What a run that passed says of its server's weight, where it says anything.
    pub weight: Option<ReportedWeight>,
}

/// How much a server can take, in its own words or those of whoever asked it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReportedWeight {
    /// In place of the configured weight.
    Absolute(u32),
    /// Of the configured weight; more than 100 is possible.
    Percent(u32),
    /// More or less than the configured weight, which does not go below 0.
    Added(i32),
}

impl ReportedWeight {
    /// The weight of a server that is configured with this one. A percentage is rounded up, so that
    /// only 0 percent takes a server all its clients.
    pub const fn of(self, configured: u32) -> u32 {
        match self {
            Self::Absolute(weight) => weight,
            Self::Percent(percent) => {
                let weight = (configured as u64 * percent as u64).div_ceil(100);
                if weight > u32::MAX as u64 { u32::MAX } else { weight as u32 }
            }
            Self::Added(change) => configured.saturating_add_signed(change),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Pass,
    Fail,
    /// The probe itself could not be run (no such program, no descriptor): a check counts as its
    /// [`Unrunnable`] says; of a server nothing was learnt, and it stays what it was.
    CannotRun,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reported_weight_replaces_or_scales_the_configured_one() {
        assert_eq!(ReportedWeight::Absolute(7).of(100), 7);
        assert_eq!(ReportedWeight::Percent(50).of(100), 50);
        assert_eq!(ReportedWeight::Percent(1).of(1), 1);
        assert_eq!(ReportedWeight::Percent(0).of(65_535), 0);
        assert_eq!(ReportedWeight::Added(-7).of(5), 0);
        assert_eq!(ReportedWeight::Added(7).of(5), 12);
        assert_eq!(ReportedWeight::Percent(u32::MAX).of(u32::MAX), u32::MAX);
    }
}
