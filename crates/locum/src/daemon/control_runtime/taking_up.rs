//! What a reload came to beyond the plan: HAProxies start anew, listeners are opened, and both may be
//! refused when whoever asked has long had an answer. So the answer waits for them, for a bounded time.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use locum_control::{Record, Response};
use locum_plan::{Name, Plan};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::state::{ControlRuntime, Done, TakenUp};
use crate::daemon::balancer_thread::{BalancerJob, Settled};
use crate::daemon::inbox::{InboxSender, Message};
use crate::text::reload;
use crate::text::served::{ObjectKind, Situation, predicate};

/// A HAProxy that has to get its ports from another one is given two seconds for it, and its file is
/// checked first. With what reading may take, less than a client waits.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// What it is about.
pub struct PendingReload {
    /// The plan was sent then.
    pub since: Instant,
    /// Services that the reload added or changed.
    pub services: Vec<Name>,
    pub haproxy: Vec<Name>,
    /// So far; ends without its line.
    pub message: String,
    /// Of that, what concerns no instance.
    pub differences: String,
    pub answer: Option<oneshot::Sender<Response>>,
}

impl PendingReload {
    pub fn of(before: &Plan, after: &Plan, since: Instant, message: String) -> Self {
        let is_same = |name: &Name| {
            let of = |plan: &Plan| plan.services.iter().position(|one| one.name == *name);
            let (old, new) = (of(before), of(after));
            old.is_some() && old.map(|at| &before.services[at]) == new.map(|at| &after.services[at])
        };
        let services = after.services.iter().map(|one| &one.name);
        Self {
            since,
            services: services.filter(|name| !is_same(name)).cloned().collect(),
            haproxy: after.haproxy.iter().map(|file| file.name.clone()).collect(),
            message,
            differences: reload::differences(before, after),
            answer: None,
        }
    }

    /// Nothing is served that could be late or refused.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.haproxy.is_empty()
    }

    /// What has come of it.
    pub async fn settle(self, inbox: InboxSender, balancer: SyncSender<BalancerJob>) -> TakenUp {
        let settled = timeout(SETTLE_LIMIT, ask(self.since, inbox, balancer)).await;
        self.judge(settled.ok().flatten().as_ref())
    }

    /// Without an answer in time nothing is known.
    pub fn judge(self, settled: Option<&Settled>) -> TakenUp {
        let Self { services, haproxy, message, differences, answer, .. } = self;
        let mut lines = Vec::new();
        let (mut is_incomplete, mut is_change) = (false, reload::has_changes(&differences));
        let is_anything = !services.is_empty() || !haproxy.is_empty();
        if settled.is_none() && is_anything {
            is_incomplete = true;
            lines.push("what is served is still being changed: look at `locum status`".to_owned());
        }
        if let Some(settled) = settled {
            for name in &haproxy {
                let process = settled.processes.iter().find(|process| process.name == *name);
                let notes: Vec<String> = settled
                    .notes
                    .iter()
                    .filter(|note| note.name == *name)
                    .map(|note| note.text.clone())
                    .collect();
                let Some(taken) = reload::files_taken(process, &notes) else { continue };
                is_incomplete |= taken.is_missing();
                is_change |= taken != reload::FilesTaken::Same;
                lines.push(reload::files_line(name, &taken));
            }
            let failed = settled.failed.iter().filter(|(name, _)| services.contains(name));
            for (name, error) in failed {
                is_incomplete = true;
                let what = predicate(Situation::Unanswered, ObjectKind::Service, true);
                lines.push(format!("service {name} {what}: {error}"));
            }
        }
        let mut text = vec![format!("{message}{differences}")];
        text.extend(lines.iter().cloned());
        let mut log: Vec<String> = Vec::new();
        if is_incomplete || is_change {
            log.extend(differences.strip_prefix("; ").map(str::to_owned));
            log.append(&mut lines);
        }
        let response = Response::Done { message: text.join("\n"), incomplete: is_incomplete };
        TakenUp { log: log.join("; "), is_incomplete, response, answer }
    }
}

/// The balancer's word when it has the new level and nothing of it changes any more; `None` without
/// one.
async fn ask(
    since: Instant,
    inbox: InboxSender,
    balancer: SyncSender<BalancerJob>,
) -> Option<Settled> {
    // The reply to the plan comes before its level: behind another answer the balancer has both.
    let (status, taken) = oneshot::channel();
    inbox.try_send(Message::Status { answer: status }).ok()?;
    taken.await.ok()?;
    let (answer, settled) = oneshot::channel();
    balancer.try_send(BalancerJob::Settle { since, answer }).ok()?;
    settled.await.ok()
}

impl ControlRuntime {
    /// The answer to a reload waits until it is known what came of it.
    pub(super) fn await_taking_up(&self, awaited: PendingReload) {
        if awaited.is_empty() {
            let _ = self.done.send(Done::TakenUp(awaited.judge(None)));
            return;
        }
        let (inbox, balancer) = (self.handles.inbox.clone(), self.handles.balancer.clone());
        let done = self.done.clone();
        tokio::spawn(async move {
            let _ = done.send(Done::TakenUp(awaited.settle(inbox, balancer).await));
        });
    }

    pub(super) fn end_taking_up(&mut self, taken: TakenUp) {
        let TakenUp { log, is_incomplete, response, answer } = taken;
        self.review_orders();
        if !log.is_empty() {
            let text = format!("the reload: {log}");
            if is_incomplete {
                tracing::warn!("{text}");
            } else {
                tracing::info!("{text}");
            }
            self.handles.history.push(0, None, text, Record::Note {});
        }
        if let Some(answer) = answer {
            let _ = answer.send(response);
        }
    }
}

#[cfg(test)]
mod tests {
    use locum_balancer::{Note, ProcessState, SupervisedProcess};

    use super::*;

    fn awaited() -> PendingReload {
        PendingReload {
            since: Instant::now(),
            services: vec!["www".into()],
            haproxy: vec!["front".into()],
            message: "configuration in effect: 0 added, 0 changed, 0 removed, 1 unchanged".into(),
            differences: "; services: 1 changed (www); haproxy: 1 unchanged".into(),
            answer: None,
        }
    }

    fn process(is_refused: bool, error: Option<&str>) -> SupervisedProcess {
        SupervisedProcess {
            name: "front".into(),
            backend: "haproxy",
            state: ProcessState::Running,
            is_changing: false,
            is_refused,
            pid: Some(12),
            restarts: 0,
            error: error.map(str::to_owned),
        }
    }

    fn settled(process: SupervisedProcess, note: Option<&str>) -> Settled {
        let note = note.map(|text| Note { name: "front".into(), text: text.into() });
        Settled { notes: note.into_iter().collect(), processes: vec![process], failed: Vec::new() }
    }

    fn said(taken: &TakenUp) -> (Vec<String>, bool) {
        match &taken.response {
            Response::Done { message, incomplete } => {
                (message.lines().skip(1).map(str::to_owned).collect(), *incomplete)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_four_numbers_come_first_and_the_rest_behind_them() {
        let taken = awaited().judge(Some(&settled(process(false, None), None)));
        let Response::Done { message, incomplete } = &taken.response else { panic!("done") };
        let first = "configuration in effect: 0 added, 0 changed, 0 removed, 1 unchanged; \
                     services: 1 changed (www); haproxy: 1 unchanged\n";
        assert!(message.starts_with(first) && !incomplete, "{message}");
        assert!(taken.log.starts_with("services: 1 changed (www)"), "{}", taken.log);
    }

    /// Case: the port of the changed file was taken, and the command said "1 unchanged".
    #[test]
    fn a_change_that_haproxy_refuses_later_is_said_and_the_reload_is_not_whole() {
        let refused = process(true, Some("haproxy does not start: cannot bind :8081"));
        let taken = awaited().judge(Some(&settled(refused, None)));
        let expected = "haproxy front: its files are NOT taken up, and tried again until they are: \
                        haproxy does not start: cannot bind :8081";
        assert_eq!(said(&taken), (vec![expected.to_owned()], true));
        assert!(taken.is_incomplete && taken.log.contains(expected));
    }

    #[test]
    fn files_that_were_taken_up_are_named_and_those_that_were_not_changed_too() {
        let note = "haproxy (pid 12) has taken over from pid 9 with the changed /etc/site.pem";
        let taken = awaited().judge(Some(&settled(process(false, None), Some(note))));
        assert_eq!(said(&taken), (vec![format!("haproxy front: {note}")], false));
        let mut nothing = awaited();
        (nothing.services, nothing.differences) = (Vec::new(), "; haproxy: 1 unchanged".into());
        let taken = nothing.judge(Some(&settled(process(false, None), None)));
        let same = "haproxy front: runs on, its files say what they said".to_owned();
        assert_eq!((said(&taken), &*taken.log), ((vec![same], false), ""), "nothing to remember");
    }

    #[test]
    fn a_changed_service_that_cannot_listen_is_said_and_one_that_failed_before_is_not() {
        let mut settled = settled(process(false, None), None);
        let error = "address in use".to_owned();
        settled.failed = vec![("mail".into(), error.clone()), ("www".into(), error)];
        let (lines, incomplete) = said(&awaited().judge(Some(&settled)));
        assert_eq!(lines[1], "service www does not answer its clients: address in use");
        assert_eq!((lines.len(), incomplete), (2, true));
        let (lines, incomplete) = said(&awaited().judge(None));
        assert!(lines[0].contains("still being changed") && incomplete, "{lines:?}");
    }

    #[test]
    fn services_that_are_the_same_are_not_waited_for() {
        let plan = Plan::default();
        let mut after = Plan::default();
        let file = |name: &str| locum_plan::HaproxyFile {
            name: name.into(),
            instance: None,
            config: "/etc/haproxy.cfg".into(),
            program: "haproxy".into(),
            standby: locum_plan::Standby::Cold,
            answer: None,
        };
        assert!(PendingReload::of(&plan, &after, Instant::now(), String::new()).is_empty());
        after.haproxy.push(file("front"));
        let awaited = PendingReload::of(&plan, &after, Instant::now(), String::new());
        assert_eq!(awaited.differences, "; haproxy: 1 added (front)");
    }
}
