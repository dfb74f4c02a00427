//! The probe thread and the handle that other threads hold.

use std::collections::HashMap;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use locum_plan::{Outcome, Probe, Verdict};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::error;

use crate::checker::Shared;
use crate::schedule;
use crate::spawn::Launcher;

/// Scripts that may be starting at a time. So many programs on a dead file server have to hang
/// before healthy scripts have to wait; also the limit of forks at once.
const MAX_STARTS: usize = 32;

/// Outcomes between the probes and `report`. A probe waits when it is full, which only happens
/// within one turn of the thread that empties it.
const OUTCOMES: usize = 64;

/// Passes after passes, which nobody waits for, are reported together and no more often than this:
/// of thousands each would wake up its reader for itself.
const GATHER: Duration = Duration::from_millis(10);

/// The first run of a probe comes this much later for every probe there is already, so that
/// thousands do not stay in step for ever; nothing to notice with a few.
const SPREAD_STEP: Duration = Duration::from_micros(250);

/// No first run waits longer than this, nor longer than its interval.
const SPREAD_LIMIT: Duration = Duration::from_millis(500);

/// Handle of the probe thread. Dropping it stops every probe, kills what they run and ends the
/// thread.
#[derive(Debug)]
pub struct Probes {
    /// Unbounded, since the election thread sends and must never wait. What it can hold is one
    /// stop and one start per probe and plan, and the receiver does nothing that takes time.
    changes: Option<UnboundedSender<Change>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Change {
    Start { id: u32, spec: Probe },
    Stop { id: u32 },
}

impl Probes {
    /// Starts the thread. `report` is called on it with the probe's id after every run, and at once
    /// but for a pass after a pass, which may come some milliseconds later and with others. It must
    /// not block, since all probes share the thread. Fails when the thread or its event queue cannot
    /// be had.
    ///
    /// Scripts inherit the calling thread's scheduling and blocked signals: call before it takes a
    /// real-time priority and before it blocks any signal.
    pub fn spawn(report: impl FnMut(Vec<(u32, Outcome)>) + Send + 'static) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let thread = thread::Builder::new()
            .name("locum-probes".into())
            .spawn(move || serve(runtime, receiver, report))?;
        Ok(Self { changes: Some(sender), thread: Some(thread) })
    }

    /// Runs `spec` from now on under this id, at once (of thousands, within half a second) and
    /// then every interval; replaces a probe that has the id already. Never blocks.
    pub fn start(&self, id: u32, spec: Probe) {
        self.send(Change::Start { id, spec });
    }

    /// Ends this probe and kills what it is running. An outcome that was reported just before may
    /// still be on its way; afterwards there are none. Unknown ids are ignored. Never blocks.
    pub fn stop(&self, id: u32) {
        self.send(Change::Stop { id });
    }

    fn send(&self, change: Change) {
        let sent = self.changes.as_ref().is_some_and(|changes| changes.send(change).is_ok());
        if !sent {
            // Only after a panic in `report`; the checks stand still from then on.
            error!("the probe thread is gone: restart the daemon");
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.changes = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the probe thread had died before it was stopped");
        }
    }
}

fn serve(
    runtime: Runtime,
    changes: UnboundedReceiver<Change>,
    report: impl FnMut(Vec<(u32, Outcome)>) + Send,
) {
    runtime.block_on(ProbeSet::new(report).run(changes));
    // Scripts that are running are killed when their tasks are dropped here.
    runtime.shutdown_background();
}

/// An outcome on its way from a probe's task. The generation differs from that of an earlier probe
/// with the same id.
#[derive(Debug)]
struct Ended {
    id: u32,
    generation: u64,
    outcome: Outcome,
}

/// Owner of all probes, on the probe thread.
struct ProbeSet<R> {
    report: R,
    probes: HashMap<u32, Running>,
    generation: u64,
    shared: Shared,
    outcomes: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
    /// Passes that wait for company, until then.
    gathered: Vec<(u32, Outcome)>,
    reported: Instant,
}

struct Running {
    generation: u64,
    /// Its last outcome was one.
    passes: bool,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<R: FnMut(Vec<(u32, Outcome)>)> ProbeSet<R> {
    fn new(report: R) -> Self {
        Self {
            report,
            probes: HashMap::new(),
            generation: 0,
            shared: Shared::new(Launcher::new(MAX_STARTS)),
            outcomes: mpsc::channel(OUTCOMES),
            gathered: Vec::new(),
            reported: Instant::now(),
        }
    }

    async fn run(mut self, mut changes: UnboundedReceiver<Change>) {
        loop {
            tokio::select! {
                biased;
                change = changes.recv() => match change {
                    Some(Change::Start { id, spec }) => self.start(id, spec),
                    Some(Change::Stop { id }) => self.stop(id),
                    None => return,
                },
                Some(ended) = self.outcomes.1.recv() => self.pass_on(ended),
                () = tokio::time::sleep_until(self.reported + GATHER),
                    if !self.gathered.is_empty() => self.report(),
            }
        }
    }

    fn stop(&mut self, id: u32) {
        self.probes.remove(&id);
        self.gathered.retain(|(of, _)| *of != id);
    }

    fn start(&mut self, id: u32, spec: Probe) {
        self.stop(id);
        self.generation += 1;
        let generation = self.generation;
        let first = match spec.warm_up {
            Duration::ZERO => spread(self.probes.len(), spec.interval),
            warm_up => scatter(generation, warm_up),
        };
        let first = Instant::now() + first;
        let sender = self.outcomes.0.clone();
        let report = move |outcome| {
            let sender = sender.clone();
            async move {
                // The receiver outlives the tasks; when it is gone, so is the reader.
                let _thread_is_ending = sender.send(Ended { id, generation, outcome }).await;
            }
        };
        let shared = self.shared.clone();
        let task = tokio::spawn(schedule::repeat(id, spec, first, shared, report)).abort_handle();
        self.probes.insert(id, Running { generation, passes: false, task });
    }

    fn pass_on(&mut self, ended: Ended) {
        let Ended { id, generation, outcome } = ended;
        let current = self.probes.get_mut(&id).filter(|one| one.generation == generation);
        let Some(current) = current else { return };
        let passes = outcome.verdict == Verdict::Pass;
        let is_awaited = !(passes && current.passes);
        current.passes = passes;
        self.gathered.push((id, outcome));
        if is_awaited || self.reported.elapsed() >= GATHER {
            self.report();
        }
    }

    fn report(&mut self) {
        self.reported = Instant::now();
        (self.report)(std::mem::take(&mut self.gathered));
    }
}

/// How long the first run waits when so many probes are there already.
fn spread(probes: usize, interval: Duration) -> Duration {
    let limit = SPREAD_LIMIT.min(interval).as_micros().max(1);
    let offset = (SPREAD_STEP.as_micros() * probes as u128) % limit;
    Duration::from_micros(u64::try_from(offset).unwrap_or(0))
}

/// A time within this for each number, far from that of its neighbours.
fn scatter(number: u64, within: Duration) -> Duration {
    // Multiples of the golden ratio lie evenly on a circle, however many there are.
    let turn = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let nanos = (within.as_nanos() * u128::from(turn)) >> 32;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_pass_after_a_pass_waits_for_company_and_nothing_else_does() {
        const VERDICTS: [Verdict; 6] = [
            Verdict::Pass,
            Verdict::Pass,
            Verdict::Pass,
            Verdict::Fail,
            Verdict::Fail,
            Verdict::Pass,
        ];
        let reports = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&reports);
        let report = move |all: Vec<_>| to.lock().expect("no other thread").push(all.len());
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let mut set = ProbeSet::new(report);
            let task = tokio::spawn(async {}).abort_handle();
            set.probes.insert(1, Running { generation: 0, passes: false, task });
            for verdict in VERDICTS {
                // As soon after the last report as can be.
                set.reported = Instant::now() + GATHER;
                let took = Duration::ZERO;
                let outcome = Outcome { verdict, detail: String::new(), took, weight: None };
                set.pass_on(Ended { id: 1, generation: 0, outcome });
            }
            set.stop(1);
            assert!(set.gathered.is_empty());
        });
        assert_eq!(*reports.lock().expect("no other thread"), [1, 3, 1, 1]);
    }

    #[test]
    fn first_runs_of_a_warm_up_lie_evenly_within_it() {
        let within = Duration::from_secs(60);
        for count in [2_u64, 10, 1000] {
            let mut times: Vec<_> = (1..=count).map(|number| scatter(number, within)).collect();
            times.sort_unstable();
            assert!(times.iter().all(|time| *time < within));
            let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("a gap");
            assert!(gap < within * 3 / u32::try_from(count).expect("few"), "{count}: {gap:?}");
        }
    }

    #[test]
    fn first_runs_of_a_few_probes_are_at_once_and_of_thousands_within_the_limit() {
        let second = Duration::from_secs(1);
        assert_eq!(spread(0, second), Duration::ZERO);
        assert!(spread(20, second) <= Duration::from_millis(5));
        let short = Duration::from_millis(20);
        for probes in 0..10_000 {
            assert!(spread(probes, second) < SPREAD_LIMIT);
            assert!(spread(probes, short) < short);
        }
        assert_eq!(spread(7, Duration::ZERO), Duration::ZERO);
    }
}
