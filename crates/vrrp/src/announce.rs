//! When a master announces its addresses by gratuitous ARP or unsolicited NA (G-011..G-017).
//!
//! The schedule is owned by the master state and dies with it, so that no announcement can
//! outlive a mastership (G-016).

use std::time::Duration;

use crate::settings::{Family, Profile, RouterSettings};
use crate::time::Time;
use crate::timers;

/// After a handover both directors answer for a moment. A host that resolved the address in that
/// moment may have learnt the old one last; a single announcement, this long after the old one must
/// have withdrawn, corrects it (G-026).
const SETTLE_DELAY: Duration = Duration::from_millis(150);

/// MAX_NEIGHBOR_ADVERTISEMENT and RetransTimer of RFC 4861 §7.2.6 and §10: so many unsolicited
/// advertisements of one address, so far apart (G-017).
const MAX_NEIGHBOR_ADVERTISEMENT: u8 = 3;
const RETRANS_TIMER: Duration = Duration::from_secs(1);

/// Pending announcements of one master.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    settle: Option<Time>,
    second: Option<Time>,
    after_conflict: Option<Time>,
    refresh: Option<Time>,
    sparse: Option<Sparse>,
}

/// The rest of a burst where RFC 4861 allows no bursts: single announcements, far apart.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sparse {
    at: Time,
    /// At least 1.
    left: u8,
}

/// Frames per address of a burst that leaves at once: all of it, or the first of few (G-017).
pub fn burst(settings: &RouterSettings) -> u8 {
    let repeat = settings.announce.repeat;
    if is_sparse(settings) { repeat.min(1) } else { repeat }
}

impl Schedule {
    /// For a router that becomes master at `now`; the first [`burst`] is the caller's to send.
    pub fn promoted(settings: &RouterSettings, now: Time) -> Self {
        let announce = &settings.announce;
        let sparse = Sparse::after_first(settings, now);
        let is_sparse = is_sparse(settings);
        let quiet = if is_sparse {
            RETRANS_TIMER * MAX_NEIGHBOR_ADVERTISEMENT.into()
        } else {
            Duration::ZERO
        };
        let refresh = (!announce.refresh.is_zero())
            .then(|| now + announce.delay.max(quiet) + period(settings));
        Self {
            settle: (!is_sparse).then(|| now + timers::handover(settings) + SETTLE_DELAY),
            second: after(now, announce.delay).filter(|_| !is_sparse),
            after_conflict: None,
            refresh,
            sparse,
        }
    }

    /// A lower-priority master was heard and its hosts misled: announce again, twice (G-013).
    /// Returns the frames per address to send now.
    pub fn conflict(&mut self, settings: &RouterSettings, now: Time) -> u8 {
        let announce = &settings.announce;
        self.after_conflict = self.after_conflict.or(after(now, announce.lower_priority_delay));
        announce.lower_priority_repeat
    }

    /// The addresses of a master have changed: a second burst follows for the new ones (G-012).
    /// Returns the frames per address to send now.
    pub fn extended(&mut self, settings: &RouterSettings, now: Time) -> u8 {
        if is_sparse(settings) {
            self.sparse = Sparse::after_first(settings, now);
        } else {
            self.second = after(now, settings.announce.delay);
        }
        burst(settings)
    }

    /// Frames per address that are due at `now`; 0 is nothing due. What is due is taken.
    pub fn take_due(&mut self, settings: &RouterSettings, now: Time) -> u8 {
        let announce = &settings.announce;
        let mut repeat = 0;
        if is_due(self.settle, now) {
            self.settle = None;
            repeat = 1;
        }
        if is_due(self.second, now) {
            self.second = None;
            repeat = repeat.max(announce.repeat);
        }
        if is_due(self.after_conflict, now) {
            self.after_conflict = None;
            repeat = repeat.max(announce.lower_priority_repeat);
        }
        if let Some(sparse) = self.sparse.take_if(|sparse| sparse.at <= now) {
            repeat = 1;
            self.sparse = sparse.next(now);
        }
        if let Some(at) = self.refresh
            && at <= now
        {
            let next = at + period(settings);
            self.refresh = Some(if next > now { next } else { now + period(settings) });
            repeat = repeat.max(announce.refresh_repeat);
        }
        if is_sparse(settings) { repeat.min(1) } else { repeat }
    }

    /// When [`Self::take_due`] has something next.
    pub fn deadline(&self) -> Option<Time> {
        let sparse = self.sparse.as_ref().map(|sparse| sparse.at);
        [self.settle, self.second, self.after_conflict, self.refresh, sparse]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Sparse {
    /// What follows the first announcement, which leaves at `now`.
    fn after_first(settings: &RouterSettings, now: Time) -> Option<Self> {
        let all = settings.announce.repeat.min(MAX_NEIGHBOR_ADVERTISEMENT);
        let first = Self { at: now, left: all };
        if is_sparse(settings) { first.next(now) } else { None }
    }

    /// From when it was sent, not from when it was due: a late one must not come close to the next.
    fn next(self, sent: Time) -> Option<Self> {
        let left = self.left.saturating_sub(1);
        (left > 0).then(|| Self { at: sent + RETRANS_TIMER, left })
    }
}

/// G-017: the strict profile keeps to RFC 4861, which knows no bursts.
fn is_sparse(settings: &RouterSettings) -> bool {
    matches!((settings.profile, settings.family), (Profile::Strict, Family::V6))
}

fn period(settings: &RouterSettings) -> Duration {
    let refresh = settings.announce.refresh;
    if is_sparse(settings) { refresh.max(RETRANS_TIMER) } else { refresh }
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
    use crate::settings::{AnnounceSettings, Version, Vrid};

    fn seconds(n: u64) -> Time {
        Time::ZERO + Duration::from_secs(n)
    }

    fn router(announce: AnnounceSettings) -> RouterSettings {
        let vrid = Vrid::new(51).unwrap();
        let announce = announce.into();
        RouterSettings { announce, ..RouterSettings::new(vrid, Family::V4, Version::V3) }
    }

    /// Seconds and frames per address of every announcement after the first burst.
    fn announced(settings: &RouterSettings, last: u64) -> Vec<(f64, u8)> {
        let mut schedule = Schedule::promoted(settings, Time::ZERO);
        let mut all = Vec::new();
        while let Some(at) = schedule.deadline().filter(|at| *at <= seconds(last)) {
            all.push((at.since(Time::ZERO).as_secs_f64(), schedule.take_due(settings, at)));
        }
        all
    }

    /// G-012.
    #[test]
    fn second_burst_comes_after_the_delay_and_once() {
        let settings = router(AnnounceSettings::default());
        assert_eq!(burst(&settings), 5, "G-011");
        assert_eq!(announced(&settings, 100), [(0.55, 1), (5.0, 5)]);
        let once = router(AnnounceSettings { delay: Duration::ZERO, ..Default::default() });
        assert_eq!(announced(&once, 100), [(0.55, 1)]);
    }

    /// G-014.
    #[test]
    fn refresh_starts_after_delay_and_refresh_and_repeats() {
        let refresh = Duration::from_secs(60);
        let announce = AnnounceSettings { refresh, refresh_repeat: 2, ..Default::default() };
        let all = announced(&router(announce), 130);
        assert_eq!(all, [(0.55, 1), (5.0, 5), (65.0, 2), (125.0, 2)]);
    }

    #[test]
    fn a_refresh_that_is_late_by_many_periods_is_sent_once() {
        let refresh = Duration::from_secs(1);
        let announce = AnnounceSettings { refresh, delay: Duration::ZERO, ..Default::default() };
        let settings = router(announce);
        let mut schedule = Schedule::promoted(&settings, seconds(0));
        assert_eq!(schedule.take_due(&settings, seconds(100)), 1);
        assert_eq!(schedule.deadline(), Some(seconds(101)));
    }

    /// G-013.
    #[test]
    fn a_conflict_adds_a_burst_now_and_one_after_its_delay() {
        let settings = router(AnnounceSettings { delay: Duration::ZERO, ..Default::default() });
        let mut schedule = Schedule::promoted(&settings, seconds(0));
        schedule.take_due(&settings, seconds(1));
        assert_eq!(schedule.conflict(&settings, seconds(20)), 5);
        assert_eq!(schedule.take_due(&settings, seconds(25)), 5);
        assert_eq!(schedule.deadline(), None);
    }

    /// G-017.
    #[test]
    fn strict_ipv6_announces_three_times_a_second_apart() {
        let strict = |announce| RouterSettings {
            profile: Profile::Strict,
            family: Family::V6,
            ..router(announce)
        };
        let settings = strict(AnnounceSettings::default());
        assert_eq!(burst(&settings), 1);
        assert_eq!(announced(&settings, 100), [(1.0, 1), (2.0, 1)]);
        let four = RouterSettings { family: Family::V4, ..settings };
        assert_eq!(announced(&four, 100), [(0.55, 1), (5.0, 5)], "ARP knows no such limit");
        let few = strict(AnnounceSettings { repeat: 2, ..Default::default() });
        assert_eq!(announced(&few, 100), [(1.0, 1)]);
        let none = strict(AnnounceSettings { repeat: 0, ..Default::default() });
        assert_eq!((burst(&none), announced(&none, 100)), (0, vec![]));
        let refreshed = strict(AnnounceSettings {
            delay: Duration::ZERO,
            refresh: Duration::from_millis(100),
            refresh_repeat: 9,
            ..Default::default()
        });
        assert_eq!(announced(&refreshed, 5), [(1.0, 1), (2.0, 1), (4.0, 1), (5.0, 1)]);
    }

    /// G-017: one that is late moves the next, also when an address is added meanwhile.
    #[test]
    fn strict_ipv6_keeps_its_distance_when_late() {
        let vrid = Vrid::new(51).unwrap();
        let mut settings = RouterSettings::new(vrid, Family::V6, Version::V3);
        settings.profile = Profile::Strict;
        let mut schedule = Schedule::promoted(&settings, seconds(0));
        assert_eq!(schedule.take_due(&settings, seconds(9)), 1);
        assert_eq!(schedule.deadline(), Some(seconds(10)));
        assert_eq!(schedule.extended(&settings, seconds(20)), 1);
        assert_eq!(schedule.deadline(), Some(seconds(21)));
    }
}
