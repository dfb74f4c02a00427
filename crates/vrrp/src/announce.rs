//! When a master announces its addresses by gratuitous ARP or unsolicited NA (G-011..G-016).
//!
//! The schedule is owned by the master state and dies with it, so that no announcement can
//! outlive a mastership (G-016).

use std::time::Duration;

use crate::settings::AnnounceSettings;
use crate::time::Time;

/// After a handover both directors answer for a moment. A host that resolved the address in that
/// moment may have learnt the old one last; this single announcement, after the old one is gone,
/// corrects it.
pub const SETTLE_DELAY: Duration = Duration::from_millis(250);

/// Pending announcements of one master.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    settle: Option<Time>,
    second: Option<Time>,
    after_conflict: Option<Time>,
    refresh: Option<Time>,
}

impl Schedule {
    /// For a router that becomes master at `now`; the first burst is the caller's to send.
    pub fn promoted(settings: &AnnounceSettings, now: Time) -> Self {
        let refresh =
            (!settings.refresh.is_zero()).then(|| now + settings.delay + settings.refresh);
        Self {
            settle: Some(now + SETTLE_DELAY),
            second: after(now, settings.delay),
            after_conflict: None,
            refresh,
        }
    }

    /// A lower-priority master was heard and its hosts misled: announce again, twice (G-013).
    /// Returns the frames per address to send now.
    pub fn conflict(&mut self, settings: &AnnounceSettings, now: Time) -> u8 {
        self.after_conflict = self.after_conflict.or(after(now, settings.lower_priority_delay));
        settings.lower_priority_repeat
    }

    /// The addresses of a master have changed: a second burst follows for the new ones (G-012).
    pub fn extended(&mut self, settings: &AnnounceSettings, now: Time) {
        self.second = after(now, settings.delay);
    }

    /// Frames per address that are due at `now`; 0 is nothing due. What is due is taken.
    pub fn take_due(&mut self, settings: &AnnounceSettings, now: Time) -> u8 {
        let mut repeat = 0;
        if is_due(self.settle, now) {
            self.settle = None;
            repeat = 1;
        }
        if is_due(self.second, now) {
            self.second = None;
            repeat = repeat.max(settings.repeat);
        }
        if is_due(self.after_conflict, now) {
            self.after_conflict = None;
            repeat = repeat.max(settings.lower_priority_repeat);
        }
        if let Some(at) = self.refresh
            && at <= now
        {
            let next = at + settings.refresh;
            self.refresh = Some(if next > now { next } else { now + settings.refresh });
            repeat = repeat.max(settings.refresh_repeat);
        }
        repeat
    }

    /// When [`Self::take_due`] has something next.
    pub fn deadline(&self) -> Option<Time> {
        [self.settle, self.second, self.after_conflict, self.refresh].into_iter().flatten().min()
    }
}

fn after(now: Time, delay: Duration) -> Option<Time> {
    (!delay.is_zero()).then(|| now + delay)
}

fn is_due(at: Option<Time>, now: Time) -> bool {
    at.is_some_and(|at| at <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Time {
        Time::ZERO + Duration::from_secs(n)
    }

    #[test]
    fn second_burst_comes_after_the_delay_and_once() {
        let settings = AnnounceSettings::default();
        let mut schedule = Schedule::promoted(&settings, seconds(10));
        assert_eq!(schedule.deadline(), Some(seconds(10) + SETTLE_DELAY));
        assert_eq!(schedule.take_due(&settings, seconds(10) + SETTLE_DELAY), 1);
        assert_eq!(schedule.take_due(&settings, seconds(14)), 0);
        assert_eq!(schedule.take_due(&settings, seconds(15)), 5);
        assert_eq!(schedule.take_due(&settings, seconds(15)), 0);
        assert_eq!(schedule.deadline(), None);
    }

    #[test]
    fn refresh_starts_after_delay_and_refresh_and_repeats() {
        let refresh = Duration::from_secs(60);
        let settings = AnnounceSettings { refresh, refresh_repeat: 2, ..Default::default() };
        let mut schedule = Schedule::promoted(&settings, seconds(0));
        assert_eq!(schedule.take_due(&settings, seconds(5)), 5);
        assert_eq!(schedule.take_due(&settings, seconds(64)), 0);
        assert_eq!(schedule.take_due(&settings, seconds(65)), 2);
        assert_eq!(schedule.deadline(), Some(seconds(125)));
    }

    #[test]
    fn a_refresh_that_is_late_by_many_periods_is_sent_once() {
        let refresh = Duration::from_secs(1);
        let settings = AnnounceSettings { refresh, delay: Duration::ZERO, ..Default::default() };
        let mut schedule = Schedule::promoted(&settings, seconds(0));
        assert_eq!(schedule.take_due(&settings, seconds(100)), 1);
        assert_eq!(schedule.deadline(), Some(seconds(101)));
    }

    #[test]
    fn a_conflict_adds_a_burst_now_and_one_after_its_delay() {
        let settings = AnnounceSettings { delay: Duration::ZERO, ..Default::default() };
        let mut schedule = Schedule::promoted(&settings, seconds(0));
        schedule.take_due(&settings, seconds(1));
        assert_eq!(schedule.conflict(&settings, seconds(20)), 5);
        assert_eq!(schedule.take_due(&settings, seconds(25)), 5);
        assert_eq!(schedule.deadline(), None);
    }
}
