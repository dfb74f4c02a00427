//! When to start again what failed.

use std::time::{Duration, Instant};

/// At once the first time, then after delays that double.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    retry_at: Option<Instant>,
}

impl Backoff {
    /// The first delay; the first retry of all comes without one.
    const SHORTEST: Duration = Duration::from_millis(250);
    /// Rare enough not to fill the log, often enough that a repaired host serves soon.
    const LONGEST: Duration = Duration::from_secs(30);
    /// After a run as long as this, a failure counts as the first one again.
    const STABLE: Duration = Duration::from_secs(30);

    /// It failed after running for `ran`; zero if it did not even start.
    pub(crate) fn fail(&mut self, now: Instant, ran: Duration) {
        if ran >= Self::STABLE {
            self.failures = 0;
        }
        let delay = match self.failures {
            0 => Duration::ZERO,
            failures => Self::SHORTEST.saturating_mul(1 << (failures - 1).min(10)),
        };
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + delay.min(Self::LONGEST));
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| now >= at)
    }

    /// `None` when nothing is waited for.
    pub(crate) fn retry_in(&self, now: Instant) -> Option<Duration> {
        self.retry_at.map(|at| at.saturating_duration_since(now))
    }

    /// It runs, or was changed, so that the next failure is another one.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// It was started: nothing is waited for, but the failures so far are not forgotten.
    pub(crate) fn started(&mut self) {
        self.retry_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_a_stable_run_forgets_them() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..10 {
            backoff.fail(now, Duration::ZERO);
            delays.push(backoff.retry_in(now).unwrap().as_millis());
        }
        assert_eq!(delays, [0, 250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        backoff.fail(now, Backoff::STABLE);
        assert!(backoff.is_due(now));
    }
}
