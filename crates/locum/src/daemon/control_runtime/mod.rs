//! The control runtime: signals, the control socket, reloads, hooks, log and history.
//!
//! One task owns all of it and decides nothing about elections. What may take time (reading a
//! configuration, a hook, a question to another thread) runs beside it and comes back as a
//! [`Done`].

mod hooks;
mod order_book;
mod outbox;
mod reading;
mod reload;
mod server_orders;
mod state;
mod status_requests;
mod taking_up;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use locum_control::{Call, Record, Request, Response};
use locum_engine::{Event, HookRun, OperatorCommand, Reply, RunMode, Successor, Target};
use tokio::sync::mpsc::{self, Receiver, UnboundedReceiver};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::Level;

use super::applier::Job;
use super::balancer_thread::BalancerJob;
use super::election::ElectionReport;
use super::host::control_socket::SocketChange;
use super::host::signals::{Signal, Signals};
use super::inbox::Message;
use super::status::wall_clock::WallClock;
use crate::text::{event as event_text, hook as hook_text};
use hooks::{HookEnd, HookQueues, HookResult};
pub use order_book::OrderBook;
use outbox::{OFFER_AGAIN, Outbox};
use state::{Done, Reload, StatusRequests, StopPhase, answer_busy};

pub use state::{ControlRuntime, Handles};

/// A stop waits for the successor at most twice the largest skew, 82 s at the longest interval of
/// version 3, and must end before a service manager loses its patience after 90 s.
const STOP_LIMIT: Duration = Duration::from_secs(84);

/// After everything is handed over: time for stop hooks, and for the balancer's processes to end.
const FINISH_LIMIT: Duration = Duration::from_secs(5);

/// How often the run directory, the log and the history are inspected.
const INSPECTION: Duration = Duration::from_secs(1);

/// How long the work of a start or a reload goes on after it has ended here: an election, the first
/// checks, announcements.
const SETTLING: Duration = Duration::from_secs(5);

/// Hooks running at a time, over all instances: more at once end no sooner, since each is a fork and
/// an exec, and would fill the task limit and the memory of a small host when thousands of instances
/// change their role together.
const MAX_RUNNING_HOOKS: usize = 64;

/// What comes in.
pub struct Channels {
    pub reports: Receiver<ElectionReport>,
    /// Unbounded: emptied at every turn.
    pub hooks: UnboundedReceiver<HookRun>,
    pub calls: Receiver<Call>,
    pub signals: Signals,
    pub stopped: oneshot::Receiver<()>,
}

/// How the daemon ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Everything was handed over.
    Clean,
    /// A second signal, or the time was up.
    Forced,
}

impl ControlRuntime {
    pub fn new(handles: Handles, order_book: OrderBook) -> Self {
        let (done, finished) = mpsc::unbounded_channel();
        let now = SystemTime::now();
        Self {
            hooks: HookQueues::new(handles.plan.hooks.timeout, MAX_RUNNING_HOOKS),
            done,
            finished,
            started: now,
            configured: now,
            reload: Reload::default(),
            outbox: Outbox::new(handles.inbox.clone()),
            order_book,
            wall: WallClock::default(),
            status_requests: StatusRequests::default(),
            phase: StopPhase::Running,
            log_is_lost: false,
            settles: Some(Instant::now() + SETTLING),
            handles,
        }
    }

    /// Until the daemon shall end.
    pub async fn run(mut self, mut channels: Channels) -> Ending {
        let plan = Arc::clone(&self.handles.plan);
        let started = Record::Started {
            node: plan.node.to_string(),
            config: self.handles.origin.path(),
            digest: plan.digest.clone(),
        };
        let version = env!("CARGO_PKG_VERSION");
        let path = self.handles.origin.path();
        let text = format!("locum {version} started as node {} with {path}", plan.node);
        self.remember(text, started);
        let mut inspect = interval(INSPECTION);
        inspect.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(ending) =
                self.ending(channels.reports.is_empty() && channels.hooks.is_empty())
            {
                self.remember("locum ended".to_owned(), Record::Ended {});
                self.handles.socket.close().await;
                return ending;
            }
            let limit = self.phase.until();
            tokio::select! {
                Some(report) = channels.reports.recv() => self.take_report(report),
                Some(run) = channels.hooks.recv() => {
                    self.hooks.push(run);
                    while let Ok(run) = channels.hooks.try_recv() {
                        self.hooks.push(run);
                    }
                }
                result = self.hooks.next_result() => self.take_hook_result(result),
                Some(done) = self.finished.recv() => self.take_done(done),
                Some(call) = channels.calls.recv() => self.take_call(call),
                signal = channels.signals.next() => match (signal, self.phase) {
                    (Signal::Stop, StopPhase::Running) => self.begin_stop(None),
                    (Signal::Stop, StopPhase::Stopping { .. } | StopPhase::Finishing { .. }) => {
                        tracing::warn!("asked twice to stop: ending at once");
                        return Ending::Forced;
                    }
                    (Signal::Reload, _) => self.begin_reload(None),
                    (Signal::Unused(name), _) => tracing::warn!(
                        "{name} does nothing: use `locum status` and `locum history`, \
                         with --json for programs"
                    ),
                },
                _ = &mut channels.stopped, if self.phase.awaits_engine() => self.begin_finish(),
                () = sleep(OFFER_AGAIN), if !self.outbox.is_empty() => self.outbox.offer(),
                _ = inspect.tick() => self.inspect().await,
                () = sleep_until(limit.unwrap_or_else(Instant::now)), if limit.is_some() => {}
            }
        }
    }

    /// Whether commands still find this daemon, and a second one would; whether what it writes
    /// arrives.
    async fn inspect(&mut self) {
        self.handles.history.catch_up();
        self.inspect_the_log();
        if self.settles.is_some_and(|at| at <= Instant::now()) {
            self.settles = None;
            if let Err(error) = locum_kernel::memory::release_text() {
                tracing::debug!("more memory stays with the process: {error}");
            }
        }
        self.handles.namespace_lock.drain_backlog();
        match self.handles.socket.keep().await {
            Some(SocketChange::Restored(text)) => {
                tracing::warn!("{text}");
                self.handles.history.reopen();
                self.handles.history.push(0, None, text, Record::Note {});
            }
            Some(SocketChange::Lost(text)) => {
                tracing::error!("{text}");
                self.handles.history.push(0, None, text, Record::Note {});
            }
            None => {}
        }
    }

    /// A log that cannot be written cannot say so itself.
    fn inspect_the_log(&mut self) {
        let failure = self.handles.log.failure();
        if failure.is_some() == self.log_is_lost {
            return;
        }
        self.log_is_lost = failure.is_some();
        let text = match failure {
            Some(error) => format!("log lines cannot be written to standard error: {error}"),
            None => "log lines are written again".to_owned(),
        };
        self.handles.history.push(0, None, text, Record::Note {});
    }

    /// Whether everything is done, or the time is up.
    fn ending(&self, queues_are_empty: bool) -> Option<Ending> {
        let late = self.phase.until().is_some_and(|until| until <= Instant::now());
        match self.phase {
            StopPhase::Running => None,
            StopPhase::Stopping { .. } if late => {
                tracing::error!("the handover did not end in time: ending without");
                Some(Ending::Forced)
            }
            StopPhase::Stopping { .. } => None,
            StopPhase::Finishing { .. } if late => {
                tracing::warn!("hooks or services did not end in time: going without them");
                let waiting = self.hooks.waiting();
                if waiting > 0 {
                    tracing::error!("{waiting} hooks were not run: the time for them was up");
                }
                Some(Ending::Clean)
            }
            StopPhase::Finishing { balancer_is_idle, .. } => {
                let idle = balancer_is_idle && queues_are_empty && self.hooks.is_idle();
                idle.then_some(Ending::Clean)
            }
        }
    }

    fn take_report(&mut self, report: ElectionReport) {
        match report {
            ElectionReport::Event(event) => self.take_event(&event),
            ElectionReport::Socket(failure) => {
                tracing::warn!("{failure}");
                self.handles.history.push(0, None, failure, Record::Note {});
            }
        }
    }

    fn take_event(&mut self, event: &Event) {
        let text = event_text::sentence(event);
        let number = event.number;
        match event_text::level(&event.kind) {
            Level::ERROR => tracing::error!(event = number, "{text}"),
            Level::WARN => tracing::warn!(event = number, "{text}"),
            _ => tracing::info!(event = number, "{text}"),
        }
        let record = event_text::record(&event.kind);
        self.handles.history.push(number, event.instance.as_deref(), text, record);
    }

    fn take_hook_result(&mut self, result: HookResult) {
        let HookResult { run, end } = result;
        let (took, output, (outcome, detail)) = match end {
            HookEnd::Ran(ran) => (ran.took, ran.output, hook_text::ran(&ran.end)),
            HookEnd::Superseded { by } => {
                (Duration::ZERO, String::new(), hook_text::superseded(by))
            }
            HookEnd::Postponed(reason) => {
                (Duration::ZERO, String::new(), hook_text::postponed(&reason))
            }
        };
        let text = format!("({}) hook {}: {detail}", run.owner, run.command);
        if outcome == "ok" || outcome == "superseded" {
            tracing::info!(event = run.event, "{text}");
        } else {
            tracing::warn!(event = run.event, output = output.trim_end(), "{text}");
        }
        let record = Record::Hook {
            command: run.command.to_string(),
            outcome: outcome.to_owned(),
            detail,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            output,
        };
        self.handles.history.push(
            run.event,
            run.owner.instance().map(|name| &**name),
            text,
            record,
        );
    }

    fn take_call(&mut self, call: Call) {
        let Call { request, answer } = call;
        match request {
            Request::Status => self.begin_status(answer),
            Request::Reload => self.begin_reload(Some(answer)),
            Request::Stop => match self.phase {
                StopPhase::Running => self.begin_stop(Some(answer)),
                StopPhase::Stopping { .. } | StopPhase::Finishing { .. } => {
                    let message = "stopping already".to_owned();
                    let _ = answer.send(Response::Done { message, incomplete: false });
                }
            },
            Request::Switchover { instance, to, dry_run, force } => {
                let target =
                    instance.map_or(Target::All, |name| Target::Instance(name.as_str().into()));
                let to = to.map(|node| node.as_str().into());
                let run = if dry_run { RunMode::Dry } else { RunMode::Real };
                let successor = if force { Successor::Any } else { Successor::Fit };
                self.command(
                    OperatorCommand::Switchover { target, to, run, successor },
                    Some(answer),
                );
            }
            Request::Server { service, server, order, over_ms } => {
                self.order_server(&service, &server, order, over_ms, answer);
            }
            Request::History { since_ms } => {
                let entries = self.handles.history.since(since_ms.unwrap_or(0));
                // Whoever asked may have gone away; so everywhere below.
                let _ = answer.send(Response::History { entries });
            }
        }
    }

    fn begin_stop(&mut self, answer: Option<oneshot::Sender<Response>>) {
        self.phase = StopPhase::Stopping { until: Instant::now() + STOP_LIMIT };
        let (reply, replied) = oneshot::channel();
        self.outbox.send(Message::Command { command: OperatorCommand::Stop, answer: reply });
        pass_on(replied, answer);
    }

    /// Everything is handed over: hooks and the balancer's processes may end.
    fn begin_finish(&mut self) {
        let until = Instant::now() + FINISH_LIMIT;
        self.phase = StopPhase::Finishing { until, balancer_is_idle: false };
        let (idle, is_idle) = oneshot::channel();
        let (flush, flushed) = oneshot::channel();
        let asked = self.handles.balancer.try_send(BalancerJob::Idle(idle)).is_ok()
            && self.handles.applier.try_send(Job::Flush(flush)).is_ok();
        let done = self.done.clone();
        tokio::spawn(async move {
            if asked {
                let _ = (is_idle.await, flushed.await);
            }
            let _ = done.send(Done::BalancerIdle);
        });
    }

    fn command(&mut self, command: OperatorCommand, answer: Option<oneshot::Sender<Response>>) {
        let (reply, replied) = oneshot::channel();
        if self.handles.inbox.try_send(Message::Command { command, answer: reply }).is_err() {
            return answer_busy(answer);
        }
        pass_on(replied, answer);
    }

    fn take_done(&mut self, done: Done) {
        match done {
            Done::Loaded(reading, answer) => self.end_reload(reading, answer),
            Done::Sent(sent) => self.end_sending(sent),
            Done::TakenUp(taken) => self.end_taking_up(taken),
            Done::Ordered(ordered) => self.end_ordering(ordered),
            Done::Status(status) => self.end_status(&status.0, status.1.as_ref()),
            Done::BalancerIdle => {
                if let StopPhase::Finishing { until, .. } = self.phase {
                    self.phase = StopPhase::Finishing { until, balancer_is_idle: true };
                }
            }
        }
    }

    /// What the daemon as a whole does.
    fn remember(&mut self, text: String, record: Record) {
        tracing::info!("{text}");
        self.handles.history.push(0, None, text, record);
    }
}

/// The engine's reply, when it comes, to whoever asked.
fn pass_on(replied: oneshot::Receiver<Reply>, answer: Option<oneshot::Sender<Response>>) {
    let Some(answer) = answer else { return };
    tokio::spawn(async move {
        let response = match replied.await {
            Ok(Reply::Ok(message)) => Response::Done { message, incomplete: false },
            Ok(Reply::Refused(reason)) => Response::Refused { reason },
            Err(_) => Response::Error { message: "the daemon is ending".to_owned() },
        };
        let _ = answer.send(response);
    });
}
