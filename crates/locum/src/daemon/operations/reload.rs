//! A reload is a transaction: read beside the loop, then all of it takes effect or nothing.

use std::sync::Arc;
use std::time::SystemTime;

use locum_config::{Loaded, Plan, Severity};
use locum_control::{Record, Response};
use tokio::sync::oneshot;

use super::{Done, Operations, Phase, answer_busy};
use crate::daemon::inbox::Message;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reload {
    Idle,
    /// A file is being read; `again` when another was asked for meanwhile by a signal.
    Reading {
        again: bool,
    },
}

impl Operations {
    pub(super) fn begin_reload(&mut self, answer: Option<oneshot::Sender<Response>>) {
        let refuse = |answer: Option<oneshot::Sender<Response>>, reason: &str| {
            if let Some(answer) = answer {
                let _ = answer.send(Response::Refused { reason: reason.to_owned() });
            }
        };
        match (self.reload, self.phase) {
            (Reload::Idle, Phase::Running) => {}
            (Reload::Reading { .. }, Phase::Running) => {
                // A signal cannot be told to come again.
                self.reload = Reload::Reading { again: answer.is_none() };
                return refuse(answer, "another reload is under way: try again");
            }
            (_, Phase::Stopping { .. } | Phase::Finishing { .. }) => {
                return refuse(answer, "the daemon is stopping");
            }
        }
        self.reload = Reload::Reading { again: false };
        let origin = self.tools.origin.clone();
        let done = self.done.clone();
        tokio::spawn(async move {
            // Files may lie on a slow or dead file system: not on this thread.
            let loaded = tokio::task::spawn_blocking(move || origin.load()).await;
            if let Ok(loaded) = loaded {
                let _ = done.send(Done::Loaded(loaded, answer));
            }
        });
    }

    pub(super) fn end_reload(&mut self, loaded: Loaded, answer: Option<oneshot::Sender<Response>>) {
        let again = self.reload == Reload::Reading { again: true };
        self.reload = Reload::Idle;
        for diagnostic in &loaded.diagnostics {
            match diagnostic.severity {
                Severity::Error => tracing::error!("{}", diagnostic.headline()),
                Severity::Warning => tracing::warn!("{}", diagnostic.headline()),
            }
        }
        match loaded.plan {
            None => {
                let reason = loaded.diagnostics.to_string();
                let text = "configuration refused: the running one stays".to_owned();
                tracing::error!("{text}");
                let record = Record::ReloadRefused { reason: reason.clone() };
                self.tools.history.push(0, None, text.clone(), record);
                if let Some(answer) = answer {
                    let reason = format!("{reason}{text}");
                    let _ = answer.send(Response::Refused { reason });
                }
            }
            Some(plan) => self.put_in_effect(plan, answer),
        }
        if again {
            self.begin_reload(None);
        }
    }

    fn put_in_effect(&mut self, plan: Arc<Plan>, answer: Option<oneshot::Sender<Response>>) {
        let (reply, replied) = oneshot::channel();
        let message =
            Message::Plan { plan: Arc::clone(&plan), inherited: Vec::new(), answer: reply };
        if self.tools.inbox.try_send(message).is_err() {
            return answer_busy(answer);
        }
        self.hooks.set_timeout(plan.hooks.timeout);
        self.tools.plan = plan;
        self.configured = SystemTime::now();
        self.desk.forget();
        tokio::spawn(async move {
            let response = match replied.await {
                Ok(message) => Response::Done { message },
                Err(_) => Response::Error { message: "the daemon is ending".to_owned() },
            };
            if let Some(answer) = answer {
                let _ = answer.send(response);
            }
        });
    }
}
