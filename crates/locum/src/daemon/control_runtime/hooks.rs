//! Hooks: one queue for each owner (an instance, a service, a server), one run at a time, in order; so
//! many at a time over all of them.
//!
//! A hook says which state its owner is in. While one runs or waits for a place, newer events may
//! make waiting ones meaningless: an event none of whose hooks has begun is dropped when a newer one
//! of the same owner comes, and the history says so. So at most two events per owner are ever
//! queued, the one that runs and the latest, and the latest always runs. A hook for which the system
//! has no process left is tried again until it has, or until a newer event comes.
//!
//! ```text
//!   push ──► queue of the owner ──► line of owners ──► one of `places` ──► next_result
//!            two events at most     one entry each     running
//! ```

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use locum_check::{End, Launcher, Ran};
use locum_engine::{HookOwner, HookRun};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::sleep;

/// Hooks that may be starting at a time: one whose program lies on a dead file system, or whose user
/// is looked up in a dead directory, must not hold up those of others.
const MAX_STARTS: usize = 32;

/// Pause before a hook is tried again that the system had no room for: a script that uses up a task
/// limit is not helped by more who ask, and a service manager's view of a role may wait a second.
const TRY_AGAIN: Duration = Duration::from_secs(1);

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
    /// Not yet begun, since the system has no room for it: it is tried again. Said once per event.
    Postponed(String),
}

/// What the tasks of hooks report.
#[derive(Debug)]
enum HookReport {
    Ended(HookRun, Ran),
    Superseded(HookRun, u64),
    /// The pause of this owner is over.
    TryAgain(HookOwner),
}

/// All queues. Owned by the control runtime; hooks run as tasks on it.
pub struct HookQueues {
    queues: HashMap<HookOwner, HookQueue>,
    /// Owners whose next hook waits for a place, in the order they came.
    line: VecDeque<HookOwner>,
    running: usize,
    /// How many may run at a time.
    places: usize,
    /// Bounded by the queues: one report for each run that was queued, and one for each pause.
    sender: UnboundedSender<HookReport>,
    reports: UnboundedReceiver<HookReport>,
    timeout: Duration,
    launcher: Launcher,
    try_again: Duration,
}

/// The hooks of one owner; gone when there is none.
#[derive(Debug, Default)]
struct HookQueue {
    waiting: VecDeque<HookRun>,
    state: HookState,
    /// Event whose first hook has been run: its other ones follow, whatever comes meanwhile.
    begun: Option<u64>,
    /// Event known to be postponed.
    postponed: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum HookState {
    #[default]
    Idle,
    InLine,
    Running,
    /// Until [`HookReport::TryAgain`].
    Pausing,
}

impl HookQueues {
    /// `timeout` is the longest a hook may run, `places` how many may at a time.
    pub fn new(timeout: Duration, places: usize) -> Self {
        let (sender, reports) = mpsc::unbounded_channel();
        Self {
            queues: HashMap::new(),
            line: VecDeque::new(),
            running: 0,
            places,
            sender,
            reports,
            timeout,
            launcher: Launcher::new(MAX_STARTS),
            try_again: TRY_AGAIN,
        }
    }

    /// For hooks that begin from now on.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Queues a run, and begins it when its owner has none under way and there is a place.
    pub fn push(&mut self, run: HookRun) {
        let queue = self.queues.entry(run.owner.clone()).or_default();
        for old in queue.supersede(run.event) {
            // The receiver is ours.
            let _ = self.sender.send(HookReport::Superseded(old, run.event));
        }
        if queue.state == HookState::Idle {
            queue.state = HookState::InLine;
            self.line.push_back(run.owner.clone());
        }
        queue.waiting.push_back(run);
        self.begin();
    }

    /// What became of the next hook; the one after it begins. Cancel-safe.
    pub async fn next_result(&mut self) -> HookResult {
        loop {
            let result = match self.reports.recv().await {
                Some(HookReport::Ended(run, Ran { end: End::NoRoom(reason), .. })) => {
                    self.postpone(run, reason)
                }
                Some(HookReport::Ended(run, ran)) => {
                    self.leave_place(&run.owner);
                    Some(HookResult { run, end: HookEnd::Ran(ran) })
                }
                Some(HookReport::Superseded(run, by)) => {
                    Some(HookResult { run, end: HookEnd::Superseded { by } })
                }
                Some(HookReport::TryAgain(owner)) => {
                    self.queue_up(&owner);
                    None
                }
                // Not while a sender is ours.
                None => std::future::pending().await,
            };
            self.begin();
            if let Some(result) = result {
                return result;
            }
        }
    }

    /// Nothing runs and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.queues.is_empty() && self.reports.is_empty()
    }

    /// How many have not begun.
    pub fn waiting(&self) -> usize {
        self.queues.values().map(|queue| queue.waiting.len()).sum()
    }

    /// A run of this owner has ended: its next one gets in line.
    fn leave_place(&mut self, owner: &HookOwner) {
        self.running -= 1;
        self.queue_up(owner);
    }

    fn queue_up(&mut self, owner: &HookOwner) {
        let Some(queue) = self.queues.get_mut(owner) else { return };
        if queue.waiting.is_empty() {
            self.queues.remove(owner);
        } else {
            queue.state = HookState::InLine;
            self.line.push_back(owner.clone());
        }
    }

    /// The system had no room for `run`: it waits, unless a newer event came meanwhile.
    fn postpone(&mut self, run: HookRun, reason: String) -> Option<HookResult> {
        let queue = self.queues.get_mut(&run.owner)?;
        let newest = queue.waiting.back().map_or(run.event, |waiting| waiting.event);
        if newest != run.event {
            self.leave_place(&run.owner);
            return Some(HookResult { run, end: HookEnd::Superseded { by: newest } });
        }
        self.running -= 1;
        queue.state = HookState::Pausing;
        queue.begun = None;
        let is_new = queue.postponed.replace(run.event) != Some(run.event);
        let result =
            is_new.then(|| HookResult { run: run.clone(), end: HookEnd::Postponed(reason) });
        let (sender, owner, pause) = (self.sender.clone(), run.owner.clone(), self.try_again);
        queue.waiting.push_front(run);
        tokio::spawn(async move {
            sleep(pause).await;
            let _ = sender.send(HookReport::TryAgain(owner));
        });
        result
    }

    /// Gives the places there are to those first in line.
    fn begin(&mut self) {
        while let Some(run) = self.next_run() {
            let sender = self.sender.clone();
            let (launcher, timeout) = (self.launcher.clone(), self.timeout);
            tokio::spawn(async move {
                let ran = launcher.run(&run.command, &run.environment, timeout).await;
                let _ = sender.send(HookReport::Ended(run, ran));
            });
        }
    }

    /// The first in line, if there is a place for it; it has it then.
    fn next_run(&mut self) -> Option<HookRun> {
        while self.running < self.places {
            let owner = self.line.pop_front()?;
            let Some(queue) = self.queues.get_mut(&owner) else { continue };
            let Some(run) = queue.waiting.pop_front() else { continue };
            queue.state = HookState::Running;
            queue.begun = Some(run.event);
            self.running += 1;
            return Some(run);
        }
        None
    }
}

impl HookQueue {
    /// Takes out what waits for events before `event`, except the rest of the one that has begun.
    fn supersede(&mut self, event: u64) -> Vec<HookRun> {
        let begun = self.begun;
        let (old, kept): (Vec<_>, Vec<_>) = self
            .waiting
            .drain(..)
            .partition(|waiting| waiting.event != event && Some(waiting.event) != begun);
        self.waiting = kept.into();
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use locum_plan::Command;

    #[test]
    fn an_event_that_has_not_begun_gives_way_to_a_newer_one() {
        let waiting = [run(4, "generic"), run(5, "state"), run(5, "generic")].into();
        let mut queue = HookQueue { waiting, begun: Some(4), ..HookQueue::default() };
        let old: Vec<u64> = queue.supersede(6).iter().map(|run| run.event).collect();
        assert_eq!(old, [5, 5]);
        assert_eq!(events(&queue), [4], "the event under way is finished");
    }

    #[test]
    fn all_hooks_of_one_event_stay() {
        let waiting = [run(5, "state")].into();
        let mut queue = HookQueue { waiting, begun: Some(4), ..HookQueue::default() };
        assert!(queue.supersede(5).is_empty());
        assert_eq!(events(&queue), [5]);
    }

    #[tokio::test]
    async fn one_hook_of_an_instance_runs_at_a_time_in_order() {
        let mut hooks = HookQueues::new(LONG, 8);
        // The slow one ends when the other one has run.
        let gate = Gate::new();
        let slow = HookRun { command: gate.wait(), ..run(1, "") };
        let other = HookRun { owner: instance("other"), command: gate.open(), ..run(2, "") };
        hooks.push(slow.clone());
        hooks.push(run(1, "second"));
        hooks.push(other.clone());
        let mut order = all_run(&mut hooks).await;
        order.retain(|run| *run != other);
        assert_eq!(order, [slow, run(1, "second")]);
    }

    #[tokio::test]
    async fn no_more_run_at_a_time_than_there_are_places_and_none_is_lost() {
        let mut hooks = HookQueues::new(LONG, 2);
        let gate = Gate::new();
        for number in 0..5 {
            let owner = instance(&format!("i{number}"));
            hooks.push(HookRun { owner, command: gate.wait(), ..run(number, "") });
        }
        assert_eq!((hooks.running, hooks.waiting()), (2, 3));
        // One of those that wait changes its state again, and again.
        for event in 5..100 {
            hooks.push(HookRun { owner: instance("i4"), ..run(event, "") });
        }
        assert_eq!((hooks.running, hooks.waiting()), (2, 3), "only its last state waits");
        for event in (4..99).map(Some) {
            let result = hooks.next_result().await;
            assert!(matches!(result.end, HookEnd::Superseded { .. }), "{result:?}");
            assert_eq!(Some(result.run.event), event);
        }
        gate.set();
        let mut ran: Vec<u64> = all_run(&mut hooks).await.iter().map(|run| run.event).collect();
        ran.sort_unstable();
        assert_eq!(ran, [0, 1, 2, 3, 99]);
        assert!(hooks.line.is_empty() && hooks.running == 0);
    }

    #[tokio::test]
    async fn the_last_state_runs_after_the_one_under_way_and_no_state_between() {
        let mut hooks = HookQueues::new(LONG, 1);
        let gate = Gate::new();
        hooks.push(HookRun { command: gate.wait(), ..run(1, "BACKUP") });
        hooks.push(run(2, "MASTER"));
        hooks.push(run(3, "BACKUP"));
        let between = hooks.next_result().await;
        assert!(matches!(between.end, HookEnd::Superseded { by: 3 }), "{between:?}");
        gate.set();
        let ran: Vec<u64> = all_run(&mut hooks).await.iter().map(|run| run.event).collect();
        assert_eq!(ran, [1, 3]);
    }

    /// What a system without room makes of the first in line.
    fn refuse(hooks: &mut HookQueues) {
        hooks.places = 1;
        let run = hooks.next_run().unwrap();
        hooks.places = 0;
        let (end, output) = (End::NoRoom("no process".into()), String::new());
        hooks
            .sender
            .send(HookReport::Ended(run, Ran { end, output, took: Duration::ZERO }))
            .unwrap();
    }

    #[tokio::test]
    async fn a_hook_that_finds_no_room_is_said_once_and_run_when_there_is() {
        let mut hooks = HookQueues::new(LONG, 0);
        hooks.try_again = Duration::from_millis(1);
        hooks.push(run(1, "state"));
        hooks.push(run(1, "generic"));
        refuse(&mut hooks);
        let result = hooks.next_result().await;
        assert!(matches!(result.end, HookEnd::Postponed(_)), "{result:?}");
        assert_eq!((hooks.running, hooks.waiting()), (0, 2), "it holds no place");
        hooks.places = 1;
        assert_eq!(all_run(&mut hooks).await, [run(1, "state"), run(1, "generic")]);
    }

    #[tokio::test]
    async fn a_hook_that_finds_no_room_gives_way_to_a_newer_state() {
        let mut hooks = HookQueues::new(LONG, 0);
        hooks.push(run(1, "BACKUP"));
        refuse(&mut hooks);
        hooks.push(run(2, "MASTER"));
        let result = hooks.next_result().await;
        assert!(matches!(result.end, HookEnd::Superseded { by: 2 }), "{result:?}");
        hooks.places = 1;
        hooks.begin();
        assert_eq!(all_run(&mut hooks).await, [run(2, "MASTER")]);
    }

    const LONG: Duration = Duration::from_secs(20);

    fn instance(name: &str) -> HookOwner {
        HookOwner::Instance(name.into())
    }

    fn run(event: u64, word: &str) -> HookRun {
        HookRun {
            owner: instance("web"),
            command: Command::argv(["true", word]),
            environment: Vec::new(),
            event,
        }
    }

    fn events(queue: &HookQueue) -> Vec<u64> {
        queue.waiting.iter().map(|run| run.event).collect()
    }

    /// Until nothing is left; every one must have run well.
    async fn all_run(hooks: &mut HookQueues) -> Vec<HookRun> {
        let mut order = Vec::new();
        while !hooks.is_idle() {
            let result = hooks.next_result().await;
            let went_well = matches!(&result.end, HookEnd::Ran(ran) if ran.end == End::Exited(0));
            assert!(went_well, "{result:?}");
            order.push(result.run);
        }
        order
    }

    /// A file that some hooks wait for.
    struct Gate(tempfile::TempDir);

    impl Gate {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> String {
            self.0.path().join("open").to_str().unwrap().to_owned()
        }

        fn wait(&self) -> Command {
            let line = "until test -e \"$0\"; do sleep 0.01; done";
            Command::argv(["sh", "-c", line, &self.path()])
        }

        fn open(&self) -> Command {
            Command::argv(["touch", &self.path()])
        }

        fn set(&self) {
            std::fs::write(self.path(), "").unwrap();
        }
    }
}
