//! A router that waits: what it hears of the master, and when it takes over.

use std::net::IpAddr;
use std::time::Duration;

use super::Router;
use super::event::RouterAction;
use super::state::{RouterState, Wait, Waiting};
use crate::receive::Heard;
use crate::report::LastEvent;
use crate::role::Cause;
use crate::settings::{Preempt, Priority};
use crate::time::Time;
use crate::timers;

impl Router {
    pub(super) fn backup_timeout(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        let RouterState::Backup(waiting) = &self.state else { return };
        let due = self.down_at(waiting);
        if now < due {
            return;
        }
        // A backup that sleeps through a whole down interval cannot tell a silent master from its
        // own absence: it listens once more before it judges.
        if now > due + self.down_interval() && !waiting.listened_again {
            let waiting = waiting.clone();
            self.state = RouterState::Backup(Waiting {
                restarted: now,
                wait: Wait::Down,
                listened_again: true,
                ..waiting
            });
            return;
        }
        let waiting = waiting.clone();
        let cause = self.takeover_cause(&waiting);
        self.report.last_event = self.takeover_event(&waiting);
        // An owner conceded to is gone, or it would have been heard.
        self.reclaim(out);
        self.propose(now, cause, waiting, None, out);
    }

    pub(super) fn backup_heard(&mut self, now: Time, heard: &Heard) {
        let RouterState::Backup(waiting) = &self.state else { return };
        let mut waiting = waiting.clone();
        self.restarts_down_timer(now, heard, &mut waiting);
        self.state = RouterState::Backup(waiting);
    }

    /// Whether the sender is accepted as the master (V-170, V-171): the down timer starts anew then.
    pub(super) fn restarts_down_timer(
        &mut self,
        now: Time,
        heard: &Heard,
        waiting: &mut Waiting,
    ) -> bool {
        let own = self.priority;
        let accepts_lower = match self.settings.preempt {
            _ if self.yielded => true,
            _ if own.is_owner() => false,
            // V-281.
            _ if self.fitness.leaves(heard.priority) => true,
            Preempt::Never => true,
            Preempt::After(_) => false,
        };
        let delay = match self.settings.preempt {
            Preempt::After(delay) if !own.is_owner() && !delay.is_zero() => Some(delay),
            Preempt::After(_) | Preempt::Never => None,
        };
        let is_lower = heard.priority < own && !heard.is_release();
        if is_lower && !accepts_lower {
            let held_back =
                delay.is_some_and(|delay| now < *waiting.preempt_at.get_or_insert(now + delay));
            if !held_back {
                // V-214: ignored, the timer runs on.
                waiting.lower = Some((heard.source, heard.priority));
                self.note_strongest(now, heard);
                self.report.last_event = LastEvent::LowerPriorityMaster;
                return false;
            }
        }
        if heard.priority >= own {
            waiting.preempt_at = None;
        }
        let is_repeated = match waiting.wait {
            Wait::Released { peer, .. } => heard.is_release() && peer == heard.source,
            Wait::Down | Wait::Eager => false,
        };
        let wait = match waiting.wait {
            Wait::Released { peer, former, .. } if is_repeated => {
                Wait::Released { peer, former, last: now }
            }
            _ => self.wait_after(now, heard, waiting.lower),
        };
        self.accept(now, heard);
        // The second release of one resignation takes nothing back later (V-240).
        if !(is_repeated && self.lets_pass(wait)) {
            waiting.restarted = now;
        }
        waiting.wait = wait;
        waiting.lower = None;
        waiting.listened_again = false;
        true
    }

    /// Before [`accept`](Router::accept): how good the master was counts. `lower` is a master that
    /// was ignored.
    pub(super) fn wait_after(
        &self,
        now: Time,
        heard: &Heard,
        lower: Option<(IpAddr, Priority)>,
    ) -> Wait {
        if !heard.is_release() {
            return Wait::Down;
        }
        let masters = [self.strongest, self.master].into_iter().flatten();
        let mut known =
            lower.into_iter().chain(masters.map(|master| (master.address, master.priority)));
        let former = known.find(|(address, _)| *address == heard.source);
        let former = former.map(|(_, priority)| priority);
        Wait::Released { peer: heard.source, former, last: now }
    }

    /// V-282: what it waits for is on offer to nodes that can serve, and this one cannot.
    pub(super) fn lets_pass(&self, wait: Wait) -> bool {
        match wait {
            Wait::Released { former, .. } => {
                former.is_some_and(|former| self.fitness.passes(former))
            }
            Wait::Down | Wait::Eager => false,
        }
    }

    pub(super) fn enter_backup(
        &mut self,
        now: Time,
        wait: Wait,
        cause: Cause,
        out: &mut Vec<RouterAction>,
    ) {
        self.enter(now, RouterState::Backup(Waiting::new(now, wait)), cause, out);
    }

    /// Active_Down_Interval as it is now: silence after which this router takes over.
    pub fn down_interval(&self) -> Duration {
        timers::down_interval(
            self.settings.version,
            self.priority,
            self.active_interval,
            self.settings.down_multiplier,
        )
    }

    /// Skew_Time as it is now.
    pub fn skew(&self) -> Duration {
        timers::skew(self.settings.version, self.priority, self.active_interval)
    }

    pub(super) fn down_at(&self, waiting: &Waiting) -> Time {
        match waiting.wait {
            Wait::Down => waiting.restarted + self.down_interval(),
            Wait::Released { .. } if self.lets_pass(waiting.wait) => {
                let taken_back = timers::take_back(self.settings.version, self.active_interval);
                waiting.restarted + taken_back + self.skew()
            }
            // Also where the first release was let pass by one that can serve meanwhile: it takes its
            // turn among the others.
            Wait::Released { last, .. } => last + self.skew(),
            Wait::Eager => {
                // The skew of a priority one below the owner's: A + 1/256 (V-172).
                let version = self.settings.version;
                let skew = timers::skew(version, Priority::OWNER, self.settings.interval);
                waiting.restarted + self.settings.interval.as_duration() + skew
            }
        }
    }

    /// V-237: why a down timer that has run out makes a master.
    pub(super) fn takeover_cause(&self, waiting: &Waiting) -> Cause {
        match (waiting.wait, waiting.lower) {
            // It has not come back, and does not answer any more.
            (Wait::Released { peer, .. }, _) if self.lets_pass(waiting.wait) => {
                Cause::MasterSilent { last: Some(peer) }
            }
            (Wait::Released { peer, .. }, _) => Cause::PriorityZero { peer },
            (Wait::Down | Wait::Eager, Some((peer, priority))) => {
                Cause::Preempted { peer, priority }
            }
            (Wait::Down | Wait::Eager, None) => {
                Cause::MasterSilent { last: self.master.map(|master| master.address) }
            }
        }
    }

    /// V-238: what the end of a down timer is called.
    pub(super) fn takeover_event(&self, waiting: &Waiting) -> LastEvent {
        match (waiting.lower, waiting.preempt_at) {
            (Some(_), _) if self.priority.is_owner() => LastEvent::OwnerPreempt,
            (Some(_), Some(_)) => LastEvent::PreemptHoldTimeout,
            (Some(_), None) | (None, _) => LastEvent::MasterTimeout,
        }
    }
}
