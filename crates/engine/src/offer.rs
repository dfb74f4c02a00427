//! When a master that cannot serve offers its mastership to whoever can.
//!
//! Nobody may be there to take it, so it offers again, after a pause that doubles. What it offered for
//! a failure that was over before anybody took it, it takes back: such a failure may have been
//! everybody's. One that comes and goes is offered again at once, and that stands.

use std::time::Duration;

use locum_vrrp::{Role, Router, Time};

use crate::fitness::{FORGIVEN, Loss};

/// After a promotion its announcements and the first word of its services come first.
const FIRST: Duration = Duration::from_millis(500);

const SHORTEST_PAUSE: Duration = Duration::from_secs(10);

const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// A master that could serve all for so long fails anew: its peers may have recovered as well.
const RECOVERED: Duration = Duration::from_secs(60);

/// How an instance stands whose services have a say.
#[derive(Debug, Default)]
pub struct Footing {
    /// What this node cannot serve of it.
    pub loss: Loss,
    pub offers: Offers,
    /// As who this was judged.
    judged: Option<Standpoint>,
    /// When to look again without any news.
    pub again: Option<Time>,
    /// When it offers its mastership next.
    offer_at: Option<Time>,
}

/// What to do with the mastership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OfferStep {
    Offer,
    TakeBack,
}

/// A role, and whether it is on the way to mastership.
pub type Standpoint = (Role, bool);

pub fn standpoint(router: &Router) -> Standpoint {
    (router.role(), router.candidate().is_some())
}

impl Footing {
    /// Its role is another than what it was judged for, or the time to look again has come.
    pub fn is_due(&self, router: &Router, now: Time) -> bool {
        self.judged != Some(standpoint(router)) || self.again.is_some_and(|again| again <= now)
    }

    /// Until it offers its mastership next.
    pub fn offer_in(&self, now: Time) -> Option<Duration> {
        self.offer_at.map(|at| at.since(now))
    }

    /// What it cannot serve now, as judged from there; returns what it is time for.
    pub fn follow(
        &mut self,
        loss: Loss,
        judged: Standpoint,
        router: &Router,
        now: Time,
    ) -> Option<OfferStep> {
        self.judged = Some(judged);
        self.again = loss.again;
        self.offer_at = None;
        self.loss = loss;
        match router.role() {
            // What is on offer may come back: the next pause depends on how often it has.
            Role::Resigning => {
                if self.loss.lost == 0 && self.offers.take_back(now) {
                    return Some(OfferStep::TakeBack);
                }
            }
            Role::Initialize | Role::Backup | Role::Fault => self.offers = Offers::default(),
            Role::Master if self.loss.lost == 0 => self.offers.recovered(now),
            Role::Master => {
                self.offers.relapsed(now);
                let lost = self.loss.lost;
                let due = self.offers.due(lost, router.since().0, now);
                if due <= now {
                    self.offers.made(lost, now);
                    self.judged = Some((Role::Resigning, false));
                    return Some(OfferStep::Offer);
                }
                self.offer_at = Some(due);
                self.again = [self.again, Some(due)].into_iter().flatten().min();
            }
        }
        None
    }
}

/// The offers of one mastership.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Offers {
    /// When it last offered, and how much was lost then at most.
    last: Option<(Time, u16)>,
    /// From the last offer to the next one.
    pause: Duration,
    /// Since when nothing is lost.
    fit_since: Option<Time>,
    /// When one was last taken back because the failure was over.
    taken_back: Option<Time>,
}

impl Offers {
    /// When the next one is due, while `lost`, which is not 0, stays lost. `since`: master since
    /// then.
    pub fn due(&self, lost: u16, since: Time, now: Time) -> Time {
        let next = match self.last {
            Some((at, most)) if lost <= most && now.since(at) < FORGIVEN => at + self.pause,
            Some(_) | None => Time::ZERO,
        };
        next.max(since + FIRST)
    }

    /// Nothing is lost any more.
    pub fn recovered(&mut self, now: Time) {
        self.fit_since.get_or_insert(now);
    }

    /// Something is lost, as it may have been before.
    pub fn relapsed(&mut self, now: Time) {
        if self.fit_since.take().is_some_and(|since| now.since(since) >= RECOVERED) {
            *self = Self { taken_back: self.taken_back, ..Self::default() };
        }
    }

    /// The failure for which it last offered is over, and the offer may still be open; `false` when
    /// that stands all the same.
    pub fn take_back(&mut self, now: Time) -> bool {
        let comes_and_goes = self.taken_back.is_some_and(|at| now.since(at) < FORGIVEN);
        if self.last.is_none() || comes_and_goes {
            return false;
        }
        self.taken_back = Some(now);
        // A relapse waits for nothing.
        self.pause = Duration::ZERO;
        true
    }

    pub fn made(&mut self, lost: u16, now: Time) {
        let last = self.last.filter(|(at, _)| now.since(*at) < FORGIVEN);
        self.pause = match last {
            Some(_) => (self.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE),
            None => SHORTEST_PAUSE,
        };
        self.last = Some((now, last.map_or(lost, |(_, most)| most.max(lost))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let mut offers = Offers::default();
        assert_eq!(offers.due(1, at(100), at(100)), at(100) + FIRST);
        let mut now = at(1000);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            assert!(offers.due(1, at(100), now) <= now);
            offers.made(1, now);
            let due = offers.due(1, at(100), now);
            pauses.push(due.since(now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn more_that_is_lost_is_offered_at_once_and_less_is_not() {
        let mut offers = Offers::default();
        offers.made(2, at(1000));
        assert_eq!(offers.due(1, at(100), at(1001)), at(1010));
        assert!(offers.due(3, at(100), at(1001)) <= at(1001));
        offers.made(3, at(1001));
        assert_eq!(offers.due(3, at(100), at(1001)), at(1021));
        assert_eq!(offers.due(2, at(100), at(1001)), at(1021));
    }

    /// A failure that flaps is not one offer per flap.
    #[test]
    fn a_failure_after_a_recovery_that_lasted_is_offered_at_once() {
        for (fit, forgets) in [(RECOVERED - Duration::from_secs(1), false), (RECOVERED, true)] {
            let mut offers = Offers::default();
            offers.made(1, at(1000));
            offers.made(1, at(1010));
            offers.recovered(at(1011));
            offers.recovered(at(1012));
            let now = at(1011) + fit;
            offers.pause = LONGEST_PAUSE;
            offers.relapsed(now);
            assert_eq!(offers.due(1, at(100), now) <= now, forgets, "{fit:?}");
        }
    }

    #[test]
    fn a_failure_that_is_soon_over_takes_its_offer_back_once() {
        let mut offers = Offers::default();
        assert!(!offers.take_back(at(1000)), "nothing was offered");
        offers.made(1, at(1000));
        assert!(offers.take_back(at(1001)));
        offers.recovered(at(1001));
        offers.relapsed(at(1003));
        assert!(offers.due(1, at(1001), at(1003)) <= at(1003), "at once");
        offers.made(1, at(1003));
        assert!(!offers.take_back(at(1004)), "that stands");
        assert_eq!(offers.due(1, at(1004), at(1004)), at(1003) + SHORTEST_PAUSE);
        let later = at(1001) + FORGIVEN;
        offers.made(1, later);
        assert!(offers.take_back(later));
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut offers = Offers::default();
        offers.made(1, at(1000));
        offers.made(1, at(1010));
        let later = at(1010) + FORGIVEN;
        assert!(offers.due(1, at(100), later) <= later);
        offers.made(1, later);
        assert_eq!(offers.due(1, at(100), later), later + SHORTEST_PAUSE);
    }
}
