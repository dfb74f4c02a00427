//! What is looked at again and again, and how often that may be.

use std::time::{Duration, Instant};

use locum_kernel::clock;

/// A look that costs much is made less often, so that it takes no more of a processor than one part
/// in this many.
const SHARE: u32 = 50;

/// The next one comes by then, whatever the last one cost: what has not been looked at for longer is
/// not known, and one dear look (the first one, a cold disk) says little of the next.
const LONGEST: Duration = Duration::from_secs(5);

/// The last look at something that is looked at again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LookRound {
    at: Instant,
    /// On a processor. A machine that stood still meanwhile was not kept busy by the look.
    cost: Duration,
}

impl LookRound {
    /// A look that was made for another reason.
    pub(crate) fn free(at: Instant) -> Self {
        Self { at, cost: Duration::ZERO }
    }

    /// `look` begins at `at`.
    pub(crate) fn made<T>(at: Instant, look: impl FnOnce() -> T) -> (Self, T) {
        let begun = clock::thread_time();
        let found = look();
        (Self { at, cost: clock::thread_time().saturating_sub(begun) }, found)
    }

    /// How long the next one may wait, where they are made so often.
    pub(crate) fn wait(self, interval: Duration, now: Instant) -> Duration {
        let rest = (self.cost * SHARE).min(LONGEST);
        (self.at + interval.max(rest)).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    #[test]
    fn a_look_that_was_kept_waiting_delays_the_next_no_more_than_any_other() {
        let now = Instant::now();
        let (_sender, nothing) = mpsc::channel::<()>();
        let (round, ()) = LookRound::made(now, || {
            nothing.recv_timeout(INTERVAL).expect_err("nobody sends");
        });
        assert!(round.wait(INTERVAL, now) < INTERVAL * 10, "{round:?}");
    }

    #[test]
    fn a_dear_look_is_made_less_often_and_not_seldom() {
        let at = Instant::now();
        let wait = |cost, interval| LookRound { at, cost }.wait(interval, at);
        assert_eq!(wait(Duration::from_millis(1), INTERVAL), INTERVAL);
        assert_eq!(wait(Duration::from_millis(20), INTERVAL), Duration::from_secs(1));
        assert_eq!(wait(Duration::from_secs(10), INTERVAL), LONGEST);
        assert_eq!(wait(Duration::from_secs(10), LONGEST * 2), LONGEST * 2);
    }
}
