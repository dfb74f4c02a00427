//! A reload is a transaction: read and judged beside the loop, by HAProxy too where it shall run,
//! then all of it takes effect or nothing.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use locum_config::{Loaded, Severity};
use locum_control::{Record, Response};
use locum_engine::Reply;
use locum_plan::Plan;
use tokio::sync::oneshot;

use super::SETTLING;
use super::reading::Reading;
use super::state::{ControlRuntime, Done, ReloadState, Sent, StopPhase};
use super::taking_up::PendingReload;
use crate::daemon::inbox::Message;

impl ControlRuntime {
    pub(super) fn begin_reload(&mut self, answer: Option<oneshot::Sender<Response>>) {
        match (self.reload.state, self.phase) {
            (ReloadState::Idle, StopPhase::Running) => {}
            (
                state @ (ReloadState::Reading { .. } | ReloadState::Sending { .. }),
                StopPhase::Running,
            ) => {
                // Whoever sent a signal does not hear that it must come again; whoever asked does.
                self.reload.state = if answer.is_none() { state.and_again() } else { state };
                return refuse(answer, "another reload is under way: try again");
            }
            (_, StopPhase::Stopping { .. } | StopPhase::Finishing { .. }) => {
                return refuse(answer, "the daemon is stopping");
            }
        }
        self.reload.state = ReloadState::Reading { again: false };
        let reading = self.reload.reader.clone().read(self.handles.origin.clone());
        let done = self.done.clone();
        tokio::spawn(async move {
            let _ = done.send(Done::Loaded(reading.await, answer));
        });
    }

    pub(super) fn end_reload(
        &mut self,
        reading: Reading,
        answer: Option<oneshot::Sender<Response>>,
    ) {
        match (reading, self.phase) {
            (_, StopPhase::Stopping { .. } | StopPhase::Finishing { .. }) => {
                refuse(answer, "the daemon is stopping");
                self.finish_reload();
            }
            (Ok(loaded), StopPhase::Running) => self.judge(loaded, answer),
            (Err(reason), StopPhase::Running) => self.give_up(&reason, answer),
        }
    }

    /// The engine has the plan, or is ending: what else follows the plan follows now.
    pub(super) fn end_sending(&mut self, sent: Sent) {
        let Sent { plan, since, engine, warnings, answer } = sent;
        let response = match engine {
            Some(Reply::Ok(message)) => {
                self.hooks.set_timeout(plan.hooks.timeout);
                let message = format!("{warnings}{message}");
                let awaited = PendingReload::of(&self.handles.plan, &plan, since, message);
                self.handles.plan = plan;
                self.configured = SystemTime::now();
                self.status_requests.forget();
                self.await_taking_up(PendingReload { answer, ..awaited });
                return self.finish_reload();
            }
            Some(Reply::Refused(reason)) => Response::Refused { reason },
            None => Response::Error { message: "the daemon is ending".to_owned() },
        };
        if let Some(answer) = answer {
            let _ = answer.send(response);
        }
        self.finish_reload();
    }

    /// Ends the reload under way, and begins the one that a signal asked for meanwhile.
    fn finish_reload(&mut self) {
        let again = match self.reload.state {
            ReloadState::Idle => false,
            ReloadState::Reading { again } | ReloadState::Sending { again } => again,
        };
        self.reload.state = ReloadState::Idle;
        self.settles = Some(tokio::time::Instant::now() + SETTLING);
        if again {
            self.begin_reload(None);
        }
    }

    fn judge(&mut self, loaded: Loaded, answer: Option<oneshot::Sender<Response>>) {
        for diagnostic in &loaded.diagnostics {
            match diagnostic.severity {
                Severity::Error => tracing::error!("{}", diagnostic.headline()),
                Severity::Warning => tracing::warn!("{}", diagnostic.headline()),
            }
        }
        match loaded.plan {
            None => self.reject(loaded.diagnostics.to_string(), answer),
            Some(plan) => self.put_in_effect(plan, loaded.diagnostics.to_string(), answer),
        }
    }

    /// Nothing could be read.
    fn give_up(&mut self, reason: &str, answer: Option<oneshot::Sender<Response>>) {
        tracing::error!("{reason}");
        self.reject(format!("{reason}\n"), answer);
    }

    /// `reason` ends with its line.
    fn reject(&mut self, reason: String, answer: Option<oneshot::Sender<Response>>) {
        let text = "configuration refused: the running one stays".to_owned();
        tracing::error!("{text}");
        let record = Record::ReloadRefused { reason: reason.clone() };
        self.handles.history.push(0, None, text.clone(), record);
        if let Some(answer) = answer {
            let reason = format!("{reason}{text}");
            let _ = answer.send(Response::Refused { reason });
        }
        self.finish_reload();
    }

    /// `warnings` end with their line.
    fn put_in_effect(
        &mut self,
        plan: Arc<Plan>,
        warnings: String,
        answer: Option<oneshot::Sender<Response>>,
    ) {
        let (reply, replied) = oneshot::channel();
        let since = Instant::now();
        let message =
            Message::Plan { plan: Arc::clone(&plan), inherited: Vec::new(), answer: reply };
        self.outbox.send(message);
        if let ReloadState::Reading { again } = self.reload.state {
            self.reload.state = ReloadState::Sending { again };
        }
        let done = self.done.clone();
        tokio::spawn(async move {
            let engine = replied.await.ok();
            let _ = done.send(Done::Sent(Sent { plan, since, engine, warnings, answer }));
        });
    }
}

fn refuse(answer: Option<oneshot::Sender<Response>>, reason: &str) {
    if let Some(answer) = answer {
        let _ = answer.send(Response::Refused { reason: reason.to_owned() });
    }
}
