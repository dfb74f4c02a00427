//! Each kind of checker in a file of its own: one run of it, to its outcome.

mod http;
mod process;
mod script;
mod tcp;

use std::sync::Arc;

use locum_plan::{Checker, Outcome, Probe, Question};

use crate::spawn::Launcher;
use process::ProcessTable;

pub use script::{End, Ran};
pub(crate) use script::{Reaping, UNKILLABLE_AFTER};

/// What the runs of all probes share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) processes: Arc<ProcessTable>,
    pub(crate) launcher: Launcher,
}

impl Shared {
    pub(crate) fn new(launcher: Launcher) -> Self {
        Self { processes: ProcessTable::new(), launcher }
    }
}

/// One run; the second part is there when a killed script is not gone yet.
pub(crate) async fn run(spec: &Probe, shared: &Shared) -> (Outcome, Option<Reaping>) {
    match &spec.kind {
        Checker::Script(command) => script::probe(&shared.launcher, command, spec.timeout).await,
        Checker::Process { name } => {
            (process::probe(&shared.processes, name, spec.timeout).await, None)
        }
        Checker::Ask { target, question: Question::Tcp } => {
            (tcp::probe(*target, spec.timeout).await, None)
        }
        Checker::Ask { target, question: Question::Http { path, host, expect } } => {
            let get = http::Get { target: *target, path, host: host.as_deref(), expect };
            (http::probe(get, spec.timeout).await, None)
        }
    }
}
