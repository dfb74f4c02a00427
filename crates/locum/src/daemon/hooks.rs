//! Hooks: one queue per instance, one run at a time, in order.
//!
//! A hook says which state an instance is in. While one runs, newer events may make waiting ones
//! meaningless: an event none of whose hooks has begun is dropped when a newer one of the same
//! instance comes, and the history says so. So at most two events per instance are ever queued:
//! the one that runs and the latest.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use locum_check::{End, Ran, run_command};
use locum_engine::HookRun;
use locum_plan::Name;
use tokio::sync::mpsc::UnboundedSender;

/// What became of one hook.
#[derive(Debug)]
pub struct HookResult {
    pub run: HookRun,
    pub end: HookEnd,
}

#[derive(Debug)]
pub enum HookEnd {
    Ran(Ran),
    /// Never begun: this event came first.
    Superseded {
        by: u64,
    },
}

/// All queues. Owned by the control runtime; hooks run as tasks on it.
pub struct Hooks {
    queues: HashMap<Name, Queue>,
    /// Bounded by the queues: one result for each run that was queued.
    results: UnboundedSender<HookResult>,
    timeout: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<HookRun>,
    /// Event of the run under way.
    running: Option<u64>,
}

impl Hooks {
    /// `timeout` is the longest a hook may run.
    pub fn new(results: UnboundedSender<HookResult>, timeout: Duration) -> Self {
        Self { queues: HashMap::new(), results, timeout }
    }

    /// For hooks that begin from now on.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Queues a run, and begins it when its instance has none under way.
    pub fn push(&mut self, run: HookRun) {
        let queue = self.queues.entry(run.instance.clone()).or_default();
        for old in queue.supersede(run.event) {
            let end = HookEnd::Superseded { by: run.event };
            // The receiver lives as long as this does.
            let _ = self.results.send(HookResult { run: old, end });
        }
        let instance = run.instance.clone();
        queue.waiting.push_back(run);
        self.begin(&instance);
    }

    /// A run of this instance has ended: begins the next.
    pub fn ended(&mut self, instance: &Name) {
        if let Some(queue) = self.queues.get_mut(instance) {
            queue.running = None;
        }
        self.begin(instance);
    }

    /// Nothing runs and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.queues.is_empty()
    }

    fn begin(&mut self, instance: &Name) {
        let Some(queue) = self.queues.get_mut(instance) else { return };
        if queue.running.is_some() {
            return;
        }
        let Some(run) = queue.waiting.pop_front() else {
            self.queues.remove(instance);
            return;
        };
        queue.running = Some(run.event);
        let results = self.results.clone();
        let timeout = self.timeout;
        tokio::spawn(async move {
            let ran = run_command(&run.command, &run.environment, timeout).await;
            let _ = results.send(HookResult { run, end: HookEnd::Ran(ran) });
        });
    }
}

impl Queue {
    /// Takes out what waits for events before `event`, except the rest of the one under way.
    fn supersede(&mut self, event: u64) -> Vec<HookRun> {
        let running = self.running;
        let (old, kept): (Vec<_>, Vec<_>) = self
            .waiting
            .drain(..)
            .partition(|waiting| waiting.event != event && Some(waiting.event) != running);
        self.waiting = kept.into();
        old
    }
}

/// Word for programs and sentence for people.
pub fn describe(end: &HookEnd) -> (&'static str, String) {
    match end {
        HookEnd::Superseded { by } => ("superseded", format!("not run: event {by} came first")),
        HookEnd::Ran(ran) => match &ran.end {
            End::Exited(0) => ("ok", "exited with status 0".to_owned()),
            End::Exited(status) => ("failed", format!("exited with status {status}")),
            End::Signalled(signal) => ("failed", format!("killed by signal {signal}")),
            End::TimedOut(limit) => {
                ("timed-out", format!("killed after {}", humantime::format_duration(*limit)))
            }
            End::CannotRun(reason) => ("cannot-run", reason.clone()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use locum_plan::Command;

    fn run(event: u64, word: &str) -> HookRun {
        HookRun {
            instance: "web".into(),
            command: Command::argv(["true", word]),
            environment: Vec::new(),
            event,
        }
    }

    fn waiting(queue: &Queue) -> Vec<u64> {
        queue.waiting.iter().map(|run| run.event).collect()
    }

    #[test]
    fn an_event_that_has_not_begun_gives_way_to_a_newer_one() {
        let mut queue = Queue {
            waiting: [run(4, "generic"), run(5, "state"), run(5, "generic")].into(),
            running: Some(4),
        };
        let old: Vec<u64> = queue.supersede(6).iter().map(|run| run.event).collect();
        assert_eq!(old, [5, 5]);
        assert_eq!(waiting(&queue), [4], "the event under way is finished");
    }

    #[tokio::test]
    async fn one_hook_of_an_instance_runs_at_a_time_in_order() {
        let (results, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let mut hooks = Hooks::new(results, Duration::from_secs(10));
        // The slow one ends when the other one has run.
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let mark = mark.to_str().unwrap();
        let waits = ["sh", "-c", "until test -e \"$0\"; do sleep 0.01; done", mark];
        let slow = HookRun { command: Command::argv(waits), ..run(1, "") };
        let touches = Command::argv(["touch", mark]);
        let other = HookRun { instance: "other".into(), command: touches, ..run(2, "") };
        hooks.push(slow.clone());
        hooks.push(run(1, "second"));
        hooks.push(other.clone());
        let mut order = Vec::new();
        while !hooks.is_idle() {
            let result = ended.recv().await.unwrap();
            hooks.ended(&result.run.instance);
            let in_time = matches!(&result.end, HookEnd::Ran(ran) if ran.end == End::Exited(0));
            assert!(in_time, "{result:?}");
            order.push(result.run);
        }
        order.retain(|run| *run != other);
        assert_eq!(order, [slow, run(1, "second")]);
    }

    #[test]
    fn all_hooks_of_one_event_stay() {
        let mut queue = Queue { waiting: [run(5, "state")].into(), running: Some(4) };
        assert!(queue.supersede(5).is_empty());
        assert_eq!(waiting(&queue), [5]);
    }
}
