//! A router that waits: what it hears of the master, and when it takes over.

use std::time::Duration;

use super::Router;
use super::event::Action;
use super::state::{State, Wait, Waiting};
use crate::receive::Heard;
use crate::report::LastEvent;
use crate::role::Cause;
use crate::settings::{Preempt, Priority};
use crate::time::Time;
use crate::timers;

impl Router {
    pub(super) fn backup_timeout(&mut self, now: Time, out: &mut Vec<Action>) {
        let State::Backup(waiting) = &self.state else { return };
        let due = self.down_at(waiting);
        if now < due {
            return;
        }
        // A backup that sleeps through a whole down interval cannot tell a silent master from its
        // own absence: it listens once more before it judges.
        if now > due + self.down_interval() && !waiting.listened_again {
            let waiting = waiting.clone();
            self.state = State::Backup(Waiting {
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
        let State::Backup(waiting) = &self.state else { return };
        let mut waiting = waiting.clone();
        self.restarts_down_timer(now, heard, &mut waiting);
        self.state = State::Backup(waiting);
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
                self.report.last_event = LastEvent::LowerPriorityMaster;
                return false;
            }
        }
        if heard.priority >= own {
            waiting.preempt_at = None;
        }
        self.accept(now, heard);
        waiting.restarted = now;
        waiting.wait = self.wait_after(heard);
        waiting.lower = None;
        waiting.listened_again = false;
        true
    }

    pub(super) fn wait_after(&self, heard: &Heard) -> Wait {
        if heard.is_release() { Wait::Skew(heard.source) } else { Wait::Down }
    }

    pub(super) fn enter_backup(
        &mut self,
        now: Time,
        wait: Wait,
        cause: Cause,
        out: &mut Vec<Action>,
    ) {
        self.enter(now, State::Backup(Waiting::new(now, wait)), cause, out);
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
        let length = match waiting.wait {
            Wait::Down => self.down_interval(),
            Wait::Skew(_) => self.skew(),
            Wait::Eager => {
                // The skew of a priority one below the owner's: A + 1/256 (V-172).
                let version = self.settings.version;
                let skew = timers::skew(version, Priority::OWNER, self.settings.interval);
                self.settings.interval.as_duration() + skew
            }
        };
        waiting.restarted + length
    }

    /// V-237: why a down timer that has run out makes a master.
    pub(super) fn takeover_cause(&self, waiting: &Waiting) -> Cause {
        match (waiting.wait, waiting.lower) {
            (Wait::Skew(peer), _) => Cause::PriorityZero { peer },
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
