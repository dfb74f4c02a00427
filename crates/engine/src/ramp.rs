//! A weight that rises or falls in steps.

use std::time::Duration;

use locum_vrrp::Time;

/// How many steps a weight takes from one value to another. A weight on its way is said in so many
/// parts of one, so that a weight of 1 has something to rise and to fall by.
pub const STEPS: u32 = 10;

/// On the way to a weight since `began`, for `over`; what the weight is at its end is not said here:
/// it may change on the way. Weights are in tenths (1 / [`STEPS`]), whatever the level has just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ramp {
    pub from: u32,
    pub began: Time,
    /// Above zero.
    pub over: Duration,
}

impl Ramp {
    /// How many steps have been taken, all of them in the end.
    fn step(&self, now: Time) -> u32 {
        let steps =
            now.since(self.began).as_nanos() * u128::from(STEPS) / self.over.as_nanos().max(1);
        u32::try_from(steps).unwrap_or(STEPS).min(STEPS)
    }

    /// The weight on the way to `to`, both in tenths. It is rounded towards the end, and the first step
    /// is taken at once: a server that is to have clients has some.
    pub fn weight(&self, to: u32, now: Time) -> u32 {
        let step = u64::from(self.step(now).max(1));
        let (from, to) = (u64::from(self.from), u64::from(to));
        let part = (to.abs_diff(from) * step).div_ceil(u64::from(STEPS));
        let weight = if to >= from { from + part } else { from - part };
        u32::try_from(weight).unwrap_or(u32::MAX)
    }

    /// The way to `to` is shorter than a whole weight for each step.
    pub fn is_short(&self, to: u32) -> bool {
        self.from.abs_diff(to) < STEPS * STEPS
    }

    /// How much of the way is done; `None` when it is all.
    pub fn percent(&self, now: Time) -> Option<u32> {
        let step = self.step(now).max(1);
        (step < STEPS).then_some(step * 100 / STEPS)
    }

    /// When the next step is taken; `None` after the last.
    pub fn next(&self, now: Time) -> Option<Time> {
        let step = self.step(now).max(1);
        // Rounded up, so that the step has been reached by then.
        let at = self.over.as_nanos() * u128::from(step + 1);
        let at = u64::try_from(at.div_ceil(u128::from(STEPS))).unwrap_or(u64::MAX);
        (step < STEPS).then(|| self.began + Duration::from_nanos(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_nanos(1_000_000_000);

    #[test]
    fn a_ramp_takes_ten_steps_and_each_at_its_time() {
        let ramp = Ramp { from: 0, began: START, over: Duration::from_secs(3) };
        let (mut now, mut weights) = (START, vec![ramp.weight(100, START)]);
        while let Some(next) = ramp.next(now) {
            assert!(next > now);
            now = next;
            weights.push(ramp.weight(100, now));
        }
        assert_eq!(weights, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
        assert_eq!(now, START + Duration::from_secs(3));
    }

    #[test]
    fn a_ramp_may_fall_and_reaches_its_end_exactly() {
        let ramp = Ramp { from: 7, began: START, over: Duration::from_secs(1) };
        assert!(ramp.is_short(0) && !ramp.is_short(107));
        let end = START + Duration::from_secs(1);
        assert_eq!((ramp.weight(0, START), ramp.weight(0, end)), (6, 0));
        assert_eq!((ramp.weight(8, START), ramp.weight(8, end)), (8, 8));
        assert_eq!((ramp.weight(7, START), ramp.next(end)), (7, None));
    }
}
