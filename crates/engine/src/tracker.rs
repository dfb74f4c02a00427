//! Checks that decide priority: rise, fall and weight.

use locum_plan::{Check, Dialect, Name, Outcome, Verdict, Weight};
use locum_vrrp::Time;

/// One probe result after another becomes up or down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Level {
    /// `None` until the first result.
    pub up: Option<bool>,
    /// Consecutive results that contradict `up`.
    streak: u32,
    pub since: Time,
    /// A run has ended since this process began.
    pub reported: bool,
    /// What the last run said.
    pub detail: String,
}

/// Consecutive results that turn a level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thresholds {
    pub rise: u32,
    pub fall: u32,
}

impl Level {
    /// `up` is `Some(false)` for a check that has to earn its first success.
    pub fn new(up: Option<bool>, now: Time) -> Self {
        Self { up, streak: 0, since: now, reported: false, detail: String::new() }
    }

    /// One more result; `true` when the level is another now. The first result decides at once.
    pub fn record(&mut self, passed: bool, thresholds: Thresholds, now: Time) -> bool {
        self.reported = true;
        match self.up {
            Some(up) if up == passed => {
                self.streak = 0;
                false
            }
            None => {
                self.turn(passed, now);
                true
            }
            Some(_) => {
                self.streak += 1;
                let needed = if passed { thresholds.rise } else { thresholds.fall };
                if self.streak < needed {
                    return false;
                }
                self.turn(passed, now);
                true
            }
        }
    }

    fn turn(&mut self, up: bool, now: Time) {
        self.up = Some(up);
        self.streak = 0;
        self.since = now;
    }
}

/// A check of the plan with its state.
#[derive(Clone, Debug)]
pub struct Tracker {
    pub check: Check,
    pub level: Level,
    /// keepalived stops tracking a script that cannot be run; in its dialect so do we.
    pub ignored: bool,
}

impl Tracker {
    pub fn new(check: Check, now: Time) -> Self {
        let up = check.starts_failed.then_some(false);
        Self { check, level: Level::new(up, now), ignored: false }
    }

    pub fn name(&self) -> &Name {
        &self.check.name
    }

    /// One result; says what changed for the instances that track it.
    pub fn record(&mut self, outcome: &Outcome, dialect: Dialect, now: Time) -> Change {
        self.level.detail.clone_from(&outcome.detail);
        let passed = match (outcome.verdict, dialect) {
            (Verdict::CannotRun, Dialect::Keepalived) => {
                let was_ignored = std::mem::replace(&mut self.ignored, true);
                return if was_ignored { Change::None } else { Change::Ignored };
            }
            (Verdict::Pass, _) => true,
            (Verdict::Fail | Verdict::CannotRun, _) => false,
        };
        let was_ignored = std::mem::replace(&mut self.ignored, false);
        let is_first = !self.level.reported;
        let thresholds = Thresholds { rise: self.check.rise, fall: self.check.fall };
        let turned = self.level.record(passed, thresholds, now);
        match (turned || was_ignored, is_first) {
            (true, _) => Change::Turned,
            (false, true) => Change::Reported,
            (false, false) => Change::None,
        }
    }
}

/// What a result did to a tracker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    None,
    Turned,
    /// The first result: it only confirms, but nobody need presume any more.
    Reported,
    /// The program cannot be run and keepalived's meaning is to go on without it.
    Ignored,
}

/// What one tracked object does to an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Added to the base priority.
    Adjust(i32),
    /// The instance may not take part.
    Fault,
    /// Nothing is known yet, and without it the instance may not start.
    Unknown,
}

/// Weight 0 is all or nothing; a positive weight is added while up, a negative one subtracted
/// while down; `reverse` swaps up and down for weight 0 and flips the sign otherwise.
pub fn effect(weight: Weight, up: Option<bool>) -> Effect {
    let value = i32::from(weight.value);
    match up {
        None if value == 0 => Effect::Unknown,
        None => Effect::Adjust(0),
        Some(up) if value == 0 => {
            if up == weight.reverse {
                Effect::Fault
            } else {
                Effect::Adjust(0)
            }
        }
        Some(up) => {
            let applies = (value > 0) == up;
            let signed = if weight.reverse { -value } else { value };
            Effect::Adjust(if applies { signed } else { 0 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RISE_2_FALL_3: Thresholds = Thresholds { rise: 2, fall: 3 };

    #[test]
    fn the_first_result_decides_whatever_rise_and_fall_say() {
        let mut level = Level::new(None, Time::ZERO);
        assert!(level.record(false, RISE_2_FALL_3, Time::ZERO));
        assert_eq!(level.up, Some(false));
    }

    #[test]
    fn fall_counts_consecutive_failures_only() {
        let mut level = Level::new(Some(true), Time::ZERO);
        for passed in [false, false, true, false, false] {
            assert!(!level.record(passed, RISE_2_FALL_3, Time::ZERO));
        }
        assert!(level.record(false, RISE_2_FALL_3, Time::ZERO));
        assert_eq!(level.up, Some(false));
    }

    #[test]
    fn a_check_that_starts_failed_needs_rise_successes() {
        let mut level = Level::new(Some(false), Time::ZERO);
        assert!(!level.record(true, RISE_2_FALL_3, Time::ZERO));
        assert!(level.record(true, RISE_2_FALL_3, Time::ZERO));
    }

    #[test]
    fn weights_follow_keepalived() {
        let weight = |value, reverse| Weight { value, reverse };
        let cases = [
            (weight(0, false), Some(true), Effect::Adjust(0)),
            (weight(0, false), Some(false), Effect::Fault),
            (weight(0, false), None, Effect::Unknown),
            (weight(0, true), Some(true), Effect::Fault),
            (weight(0, true), Some(false), Effect::Adjust(0)),
            (weight(2, false), Some(true), Effect::Adjust(2)),
            (weight(2, false), Some(false), Effect::Adjust(0)),
            (weight(2, false), None, Effect::Adjust(0)),
            (weight(-2, false), Some(true), Effect::Adjust(0)),
            (weight(-2, false), Some(false), Effect::Adjust(-2)),
            (weight(2, true), Some(true), Effect::Adjust(-2)),
            (weight(-2, true), Some(false), Effect::Adjust(2)),
        ];
        for (weight, up, expected) in cases {
            assert_eq!(effect(weight, up), expected, "{weight:?} {up:?}");
        }
    }
}
