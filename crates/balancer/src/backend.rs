//! What every backend can do: the seam behind which IPVS, the proxy and HAProxy are alike.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use locum_plan::{BackendKind, Name, WantedServices};

use crate::status::BalancerStatus;

/// Where the balancer works, and as what it starts the proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BalancerSettings {
    /// Holds the proxy's socket and the files that remember what is ours; must exist.
    pub run_dir: PathBuf,
    /// The main binary: the proxy is `PROGRAM proxy …`.
    pub locum_program: PathBuf,
}

/// A service or HAProxy that could not be served, and why, for a person.
pub type ServeError = (Name, String);

/// How far the wanted level has come. What is in none of the lists answers its clients, or, where it
/// is not to serve, could.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Neither answering nor failed yet; of what is not to serve, not looked at yet.
    pub pending: Vec<Name>,
    /// Not served as wanted, or could not be, each name once, and tried again.
    pub failed: Vec<ServeError>,
    /// What an operator has to know of something that serves: it is overloaded, a change of it cannot
    /// be taken up, it would not start again, some clients get no answer. Shown and counted, and never
    /// a reason to serve elsewhere: whoever moves a crowd has it again. None that failed.
    pub strained: Vec<ServeError>,
}

/// For the log: a process was adopted, restarted or had to be killed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// The HAProxy, or the backend.
    pub name: Name,
    pub text: String,
}

/// Serves its share of the wanted level.
///
/// A backend is level-triggered and remembers the last share: [`Backend::tick`] goes on with it
/// after a failure, a crash of a process, or a deadline. [`Backend::apply`] does what can be done
/// without waiting for a process to start; [`Backend::progress`] says what is left.
pub(crate) trait Backend {
    /// Which services of the plan it can be given; `None` when it serves files of the user's own.
    fn kind(&self) -> Option<BackendKind>;

    /// Whether this host has what the backend needs, or else why not. Asked only before a service is
    /// given to it by choice, since asking may load a kernel module.
    fn available(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Make what this backend serves exactly `share`.
    fn apply(&mut self, share: WantedServices, now: Instant);

    /// Look after what runs.
    fn tick(&mut self, now: Instant);

    /// How long from `now` the next tick may wait; `None` when nothing runs and nothing is wanted.
    fn next_tick(&self, now: Instant) -> Option<Duration>;

    /// Add what is not served yet or cannot be.
    fn progress(&self, progress: &mut Progress);

    /// What is worth a line in the log since the last call.
    fn take_notes(&mut self) -> Vec<Note>;

    /// Add what this backend serves and runs.
    fn status(&mut self, status: &mut BalancerStatus);
}
