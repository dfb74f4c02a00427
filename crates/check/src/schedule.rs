//! When a probe runs: on absolute times, never twice at once.
//!
//! ```text
//!   slot 0        slot 1        slot 2        slot 3
//!   |─run──|      |─run──────────────────|    |─run─|      slot 2 is skipped: its time was
//!                               ^ busy                     over when slot 1 had ended
//! ```
//! Slots are multiples of the interval from the first one, so a slow run does not move those
//! after it. A failed run that is repeated sooner begins them anew.

use std::future::Future;
use std::time::Duration;

use locum_plan::{Outcome, Probe, Verdict};
use tokio::time::{self, Instant};
use tracing::warn;

use crate::checker::{self, Shared, UNKILLABLE_AFTER};

/// A run may begin this part of the interval late (as after one that took the whole interval);
/// later it is skipped.
const LATE_FRACTION: u32 = 4;

/// Floor for the interval. A plan that asks for less would keep the host busy with asking.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// In so many steps of it [`UNKILLABLE_AFTER`] is waited for: while this thread does not run, the task
/// that reaps does not either, so a pause of whatever length counts as one step.
const PATIENCE_STEPS: u32 = 20;

/// Runs `spec` for ever; `report` is awaited with every outcome.
pub(crate) async fn repeat<F: Future<Output = ()>>(
    id: u32,
    spec: Probe,
    first: Instant,
    shared: Shared,
    mut report: impl FnMut(Outcome) -> F,
) {
    let mut slots = Slots { next: first, interval: spec.interval.max(SHORTEST_INTERVAL) };
    let mut skipped = 0;
    let mut warned = false;
    let mut failures: u32 = 0;
    loop {
        time::sleep_until(slots.next).await;
        // Boxed: thousands wait most of the time, and what a run needs is there only while it runs.
        let (mut outcome, reaping) = Box::pin(checker::run(&spec, &shared)).await;
        let took = outcome.took;
        failures = match outcome.verdict {
            Verdict::Pass => 0,
            Verdict::Fail => failures.saturating_add(1),
            Verdict::CannotRun => failures,
        };
        let is_failed = outcome.verdict == Verdict::Fail;
        if skipped > 0 {
            outcome.detail.push_str(&skip_note(skipped));
        }
        report(outcome).await;
        if let Some(reaping) = reaping {
            Box::pin(wait_reaped(reaping, &slots, &mut report)).await;
        }
        skipped = match spec.retry {
            Some(retry) if is_failed && failures <= retry.times => {
                slots.next = Instant::now() + retry.delay.max(SHORTEST_INTERVAL);
                0
            }
            Some(_) | None => slots.advance(Instant::now()),
        };
        if skipped > 0 && !warned {
            warned = true;
            warn!(
                probe = id, kind = %spec.kind, ?took, interval = ?spec.interval,
                "a probe takes longer than its interval: runs are skipped (said once)"
            );
        }
    }
}

/// Waits until a killed run is gone. Once it is plain that the kernel does not let it go, each slot
/// that passes is reported as failed: while the old run is there, no new one may begin.
async fn wait_reaped<F: Future<Output = ()>, T>(
    reaping: impl Future<Output = T>,
    slots: &Slots,
    report: &mut impl FnMut(Outcome) -> F,
) {
    tokio::pin!(reaping);
    let begin = Instant::now();
    let mut slots = slots.clone();
    for _ in 0..PATIENCE_STEPS {
        tokio::select! {
            biased;
            _ = &mut reaping => return,
            () = time::sleep(UNKILLABLE_AFTER / PATIENCE_STEPS) => {}
        }
    }
    slots.advance(Instant::now());
    loop {
        tokio::select! {
            biased;
            _ = &mut reaping => return,
            () = time::sleep_until(slots.next) => {}
        }
        let since = begin.elapsed().as_secs();
        let detail = format!("not run: the run before was killed {since}s ago and is still there");
        report(Outcome { verdict: Verdict::Fail, detail, took: Duration::ZERO, weight: None })
            .await;
        slots.advance(Instant::now());
    }
}

fn skip_note(skipped: u64) -> String {
    let runs = if skipped == 1 { "run" } else { "runs" };
    format!(" ({skipped} {runs} skipped before: the last one took too long)")
}

/// The absolute times of one probe.
#[derive(Clone, Debug)]
struct Slots {
    next: Instant,
    /// Above zero.
    interval: Duration,
}

impl Slots {
    /// Goes on to the first slot that is still worth running at `now`; the number of those
    /// skipped on the way.
    fn advance(&mut self, now: Instant) -> u64 {
        self.next += self.interval;
        let late = now.saturating_duration_since(self.next + self.interval / LATE_FRACTION);
        let skipped = late.as_nanos().div_ceil(self.interval.as_nanos());
        let skipped = u64::try_from(skipped).unwrap_or(u64::MAX);
        let gap = self.interval.as_nanos() as u64;
        self.next += Duration::from_nanos(gap.saturating_mul(skipped));
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::cell::RefCell;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn slots_are_absolute_and_a_late_end_skips_what_is_over() {
        let zero = Instant::now();
        let interval = 100 * MS;
        // (a run of slot 0 ended at, next slot, runs skipped), in milliseconds
        for (ended, next, skipped) in [
            (0, 100, 0),
            (99, 100, 0),
            (100, 100, 0),
            (125, 100, 0),
            (126, 200, 1),
            (199, 200, 1),
            (225, 200, 1),
            (226, 300, 2),
            (1_000_000, 1_000_000, 9_999),
        ] {
            let mut slots = Slots { next: zero, interval };
            assert_eq!(slots.advance(zero + ended * MS), skipped, "ended at {ended} ms");
            assert_eq!(slots.next, zero + next * MS, "ended at {ended} ms");
        }
    }

    #[test]
    fn runs_and_skipped_runs_add_up_to_the_time_that_passed() {
        let zero = Instant::now();
        let mut slots = Slots { next: zero, interval: 10 * MS };
        let mut counted = 0;
        for ended in [3, 14, 57, 58, 61, 200, 203, 999] {
            counted += 1 + slots.advance(zero + ended * MS);
        }
        assert_eq!(slots.next, zero + u32::try_from(counted).expect("few") * 10 * MS);
    }

    #[test]
    fn a_clock_that_looks_back_skips_nothing() {
        let zero = Instant::now();
        let mut slots = Slots { next: zero + 500 * MS, interval: 100 * MS };
        assert_eq!(slots.advance(zero), 0);
        assert_eq!(slots.next, zero + 600 * MS);
    }

    #[test]
    fn every_slot_of_a_run_that_cannot_be_killed_fails() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let begin = Instant::now();
            let slots = Slots { next: begin, interval: 100 * MS };
            let reported = RefCell::new(Vec::new());
            let (release, released) = tokio::sync::oneshot::channel();
            let release = RefCell::new(Some(release));
            let mut report = |outcome| {
                reported.borrow_mut().push((begin.elapsed(), outcome));
                let enough = reported.borrow().len() == 3;
                if enough && let Some(release) = release.take() {
                    release.send(()).expect("still waiting");
                }
                std::future::ready(())
            };
            wait_reaped(released, &slots, &mut report).await;
            let reported = reported.take();
            assert_eq!(reported.len(), 3);
            for (after, outcome) in reported {
                assert!(after >= UNKILLABLE_AFTER, "too early: {after:?}");
                assert_eq!(outcome.verdict, Verdict::Fail);
                // Two seconds, or more where this was not run for a while.
                let seconds = outcome.detail.strip_prefix("not run: the run before was killed ");
                let seconds =
                    seconds.and_then(|rest| rest.strip_suffix("s ago and is still there"));
                let seconds = seconds.and_then(|seconds| seconds.parse::<u64>().ok());
                assert!(seconds.is_some_and(|seconds| seconds >= 2), "{outcome:?}");
            }
        });
    }

    /// As when the daemon was stopped, or the host had no time for it.
    #[test]
    fn a_pause_of_this_thread_is_no_time_that_a_killed_run_had() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let begin = Instant::now();
            let slots = Slots { next: begin, interval: 10 * MS };
            let reaping = tokio::spawn(async {
                std::thread::sleep(UNKILLABLE_AFTER + 100 * MS);
                time::sleep(10 * MS).await;
            });
            let mut report = |outcome| -> std::future::Ready<()> { panic!("{outcome:?}") };
            wait_reaped(reaping, &slots, &mut report).await;
            assert!(begin.elapsed() > UNKILLABLE_AFTER);
        });
    }

    #[test]
    fn a_killed_run_that_is_gone_in_time_is_not_mentioned() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let slots = Slots { next: Instant::now(), interval: 10 * MS };
            let mut report = |outcome| -> std::future::Ready<()> { panic!("{outcome:?}") };
            wait_reaped(time::sleep(100 * MS), &slots, &mut report).await;
        });
    }
}
