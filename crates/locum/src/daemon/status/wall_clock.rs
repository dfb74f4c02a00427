//! From the engine's clock to the time of day, so that the same moment always reads the same.
//!
//! The two clocks are read one after the other, so each reading of their distance is off by the
//! time between, which is long when the thread is not run. One distance is kept, and measured anew
//! only when the time of day was set or has drifted: a `since` in the status then changes when
//! something happened, and not otherwise.

use std::time::{Duration, SystemTime};

use locum_vrrp::Time;

/// Less than a person sees.
const MAX_DRIFT: Duration = Duration::from_millis(10);

/// What the time of day was when the engine's clock was zero.
#[derive(Debug)]
pub struct WallClock {
    zero: SystemTime,
}

impl Default for WallClock {
    fn default() -> Self {
        Self { zero: SystemTime::UNIX_EPOCH }
    }
}

impl WallClock {
    /// The time of day, and the engine's clock before and after it was read. False for a reading
    /// that took too long to be worth anything; the next one may be better.
    pub fn measure(&mut self, before: Time, wall: SystemTime, after: Time) -> bool {
        let is_rough = after.since(before) > MAX_DRIFT;
        if is_rough && self.zero != SystemTime::UNIX_EPOCH {
            return false;
        }
        let zero = wall.checked_sub(before.since(Time::ZERO)).unwrap_or(SystemTime::UNIX_EPOCH);
        let drift = match zero.duration_since(self.zero) {
            Ok(ahead) => ahead,
            Err(behind) => behind.duration(),
        };
        // The reading itself may be off by as much as is let pass above.
        if drift > MAX_DRIFT * 2 {
            self.zero = zero;
        }
        !is_rough
    }

    /// The time of day `age` before `time`.
    pub fn before(&self, time: Time, age: Duration) -> SystemTime {
        let moment = time.since(Time::ZERO).saturating_sub(age);
        self.zero.checked_add(moment).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Time {
        Time::ZERO + Duration::from_micros(us)
    }

    #[test]
    fn the_same_moment_reads_the_same_until_the_clock_is_set() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut clock = WallClock::default();
        assert!(clock.measure(at(5_000_000), wall, at(5_000_001)));
        let moment = clock.before(at(5_000_000), Duration::from_secs(2));
        assert_eq!(moment, wall - Duration::from_secs(2));
        // A second later the reading is two milliseconds off.
        assert!(clock.measure(at(6_000_000), wall + Duration::from_millis(1002), at(6_002_000)));
        assert_eq!(clock.before(at(6_000_000), Duration::from_secs(3)), moment);
        // One that was interrupted for half a second changes nothing.
        let late = wall + Duration::from_millis(1500);
        assert!(!clock.measure(at(6_000_000), late, at(6_500_000)));
        assert_eq!(clock.before(at(6_000_000), Duration::from_secs(3)), moment);
        // The time of day was set an hour back.
        assert!(clock.measure(at(7_000_000), wall - Duration::from_secs(3598), at(7_000_001)));
        let set = clock.before(at(7_000_000), Duration::from_secs(4));
        assert_eq!(set, moment - Duration::from_secs(3600));
    }
}
