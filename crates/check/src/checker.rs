//! Each kind of checker in a file of its own: one run of it, to its outcome.

mod dial;
mod http;
mod process;
mod script;
mod tcp;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_plan::{CheckSource, Checker, Outcome, Probe, Question, ReportedWeight, Verdict};
use tokio::time::{self, Instant};

use crate::spawn::Launcher;
use process::ProcessTable;

pub use script::{End, Ran};
pub(crate) use script::{Reaping, UNKILLABLE_AFTER};

/// What the runs of all probes share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) processes: Arc<ProcessTable>,
    pub(crate) launcher: Launcher,
    patterns: Arc<http::Patterns>,
    certificates: Arc<tls::Configurations>,
}

impl Shared {
    pub(crate) fn new(launcher: Launcher) -> Self {
        Self {
            processes: ProcessTable::new(),
            launcher,
            patterns: Arc::default(),
            certificates: Arc::default(),
        }
    }
}

/// One run; the second part is there when a killed script is not gone yet.
pub(crate) async fn run(spec: &Probe, shared: &Shared) -> (Outcome, Option<Reaping>) {
    match &spec.kind {
        Checker::Script(command) => script::probe(&shared.launcher, command, spec.timeout).await,
        Checker::Process { name } => {
            (process::probe(&shared.processes, name, spec.timeout).await, None)
        }
        Checker::Ask { target, question, origin } => {
            let whom = Whom { target: *target, origin: origin.as_deref() };
            (ask(whom, question, spec.timeout, shared).await, None)
        }
    }
}

/// Who is asked, and from where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whom<'a> {
    pub(crate) target: SocketAddr,
    pub(crate) origin: Option<&'a CheckSource>,
}

/// What a run has found out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    verdict: Verdict,
    detail: String,
    weight: Option<ReportedWeight>,
}

impl Answer {
    pub(crate) fn pass(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Pass, detail: detail.into(), weight: None }
    }

    pub(crate) fn fail(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, detail: detail.into(), weight: None }
    }

    /// Nothing was learnt of the target: the reason is on this host.
    pub(crate) fn unasked(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::CannotRun, detail: detail.into(), weight: None }
    }
}

/// What a run is waiting for, for the detail of one that waits too long.
pub(crate) type WaitingFor = &'static str;

const CONNECTING: WaitingFor = "no answer to connect";

/// One run against an address, at most as long as this. Nothing of it goes on afterwards.
async fn ask(whom: Whom<'_>, question: &Question, timeout: Duration, shared: &Shared) -> Outcome {
    let begin = Instant::now();
    let mut stage = CONNECTING;
    let run = async {
        match question {
            Question::Tcp => tcp::probe(whom).await,
            // Boxed: all probes share one future type, and most of the time none of them runs.
            Question::Http(question) => {
                Box::pin(http::probe(whom, question, shared, &mut stage)).await
            }
        }
    };
    let answer = time::timeout_at(begin + timeout, run).await;
    let Answer { verdict, detail, weight } =
        answer.unwrap_or_else(|_| Answer::fail(format!("{stage}: timed out after {timeout:?}")));
    Outcome { verdict, detail, took: begin.elapsed(), weight }
}
