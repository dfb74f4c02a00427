//! Each kind of checker in a file of its own: one run of it, to its outcome.

mod agent;
mod conversation;
mod database;
mod dial;
mod dns;
mod file;
mod grpc;
mod http;
mod ping;
mod process;
mod script;
mod smtp;
mod tcp;
mod tls;
mod udp;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use locum_plan::{CheckSource, Checker, Outcome, Probe, Question, ReportedWeight, Verdict};
use tokio::time::{self, Instant};

use crate::spawn::Launcher;
use process::ProcessTable;

pub use script::{End, Ran};
pub(crate) use script::{Reaping, UNKILLABLE_AFTER};

/// Files that are being read at a time: so many on disks that are stuck before others have to wait. Not
/// of the places for commands, so that no command waits for a disk that it does not need.
const READERS: usize = 32;

/// What the runs of all probes share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) processes: Arc<ProcessTable>,
    pub(crate) launcher: Launcher,
    readers: Launcher,
    paths: Arc<file::PathLocks>,
    patterns: Arc<http::Patterns>,
    certificates: Arc<tls::Configurations>,
}

impl Shared {
    pub(crate) fn new(launcher: Launcher) -> Self {
        Self {
            processes: ProcessTable::new(),
            launcher,
            readers: Launcher::new(READERS),
            paths: Arc::default(),
            patterns: Arc::default(),
            certificates: Arc::default(),
        }
    }
}

/// One run; the second part is there when a killed script is not gone yet.
pub(crate) async fn run(spec: &Probe, shared: &Shared) -> (Outcome, Option<Reaping>) {
    match &spec.kind {
        Checker::Script(command) => {
            let run =
                script::AskedScript { command, server: None, statuses: script::Statuses::Pass };
            Box::pin(script::probe(&shared.launcher, run, spec.timeout)).await
        }
        Checker::ServerScript { command, server, is_weighing } => {
            let statuses =
                if *is_weighing { script::Statuses::Weigh } else { script::Statuses::Pass };
            let run = script::AskedScript { command, server: Some(*server), statuses };
            Box::pin(script::probe(&shared.launcher, run, spec.timeout)).await
        }
        Checker::File { path, factor } => {
            (Box::pin(file::probe(shared, path, *factor, spec.timeout)).await, None)
        }
        Checker::Process { name } => {
            (Box::pin(process::probe(&shared.processes, name, spec.timeout)).await, None)
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

    fn after(self, took: Duration) -> Outcome {
        Outcome { verdict: self.verdict, detail: self.detail, took, weight: self.weight }
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
    let run = asking(whom, question, timeout, shared, &mut stage);
    let answer = time::timeout_at(begin + timeout, run).await;
    let answer =
        answer.unwrap_or_else(|_| Answer::fail(format!("{stage}: timed out after {timeout:?}")));
    answer.after(begin.elapsed())
}

/// Boxed, each kind in a box of its own size: thousands of probes wait most of the time, and what a
/// run needs is there only while it runs.
fn asking<'r>(
    whom: Whom<'r>,
    question: &'r Question,
    timeout: Duration,
    shared: &'r Shared,
    stage: &'r mut WaitingFor,
) -> Pin<Box<dyn Future<Output = Answer> + Send + 'r>> {
    match question {
        Question::Tcp => Box::pin(tcp::probe(whom)),
        Question::Http(question) => Box::pin(http::probe(whom, question, shared, stage)),
        Question::Dns(question) => {
            Box::pin(async move { either(dns::probe(whom, question, stage).await) })
        }
        Question::Smtp { helo } => {
            Box::pin(async move { either(smtp::probe(whom, helo, stage).await) })
        }
        Question::Udp(question) => {
            Box::pin(async move { either(udp::probe(whom, question, timeout, stage).await) })
        }
        Question::Ping => Box::pin(async move { either(ping::probe(whom, stage).await) }),
        Question::Mysql { user } => {
            Box::pin(async move { either(database::mysql(whom, user.as_deref(), stage).await) })
        }
        Question::Postgres { user } => {
            Box::pin(async move { either(database::postgres(whom, user.as_deref(), stage).await) })
        }
        Question::Redis { password } => {
            Box::pin(async move { either(database::redis(whom, password.as_deref(), stage).await) })
        }
        Question::Agent => Box::pin(async move { either(agent::probe(whom, stage).await) }),
        Question::Grpc(question) => {
            Box::pin(async move { either(grpc::probe(whom, question, shared, stage).await) })
        }
    }
}

/// Of a run that ends where something is wrong.
fn either(run: Result<Answer, Answer>) -> Answer {
    match run {
        Ok(answer) | Err(answer) => answer,
    }
}
