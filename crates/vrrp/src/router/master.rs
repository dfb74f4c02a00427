//! The master: its adverts and announcements, and what it hears of others.

use std::time::Duration;

use super::Router;
use super::event::RouterAction;
use super::state::{Conflict, Mastership, RouterState};
use crate::announce::{self, Schedule};
use crate::receive::Heard;
use crate::report::LastEvent;
use crate::role::Cause;
use crate::settings::{Profile, Version};
use crate::time::Time;

/// Lateness of an advert, in intervals, that is reported: a peer with the usual patience has given
/// up. One with that patience itself does not come so far, because it has lost its mastership
/// (V-241).
const LATE_INTERVALS: u32 = 2;

/// Least time between announcements because of a lower master: hosts need one, not a storm, and a
/// conflict may last.
const CONFLICT_PAUSE: Duration = Duration::from_secs(1);

impl Router {
    /// V-055: the advert first, then (by the level) the addresses, then their announcement.
    pub(super) fn enter_master(&mut self, now: Time, cause: Cause, out: &mut Vec<RouterAction>) {
        let interval = self.settings.interval.as_duration();
        out.push(RouterAction::Advertise { priority: self.priority });
        self.yielded = false;
        let mastership = Mastership {
            next_advert: now + interval,
            last_advert: now,
            answer_at: now,
            announce_at: now,
            schedule: Schedule::promoted(&self.settings, now),
            conflict: None,
            rival: None,
        };
        let reason = &mut self.report.new_master_reason;
        *reason = cause.new_master_reason(*reason);
        self.enter(now, RouterState::Master(mastership), cause, out);
        out.push(RouterAction::Announce { repeat: announce::burst(&self.settings) });
    }

    pub(super) fn master_timeout(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        let interval = self.settings.interval.as_duration();
        let priority = self.priority;
        let RouterState::Master(mastership) = &mut self.state else { return };
        if now >= mastership.next_advert {
            out.push(RouterAction::Advertise { priority });
            let by = now.since(mastership.next_advert);
            if by > interval * LATE_INTERVALS {
                out.push(RouterAction::Late { by });
            }
            mastership.advertised(now, interval);
        }
        let repeat = mastership.schedule.take_due(&self.settings, now);
        if repeat > 0 {
            out.push(RouterAction::Announce { repeat });
        }
        let over = mastership.conflict.take_if(|conflict| conflict.quiet_at <= now);
        if let Some(Conflict { peer, priority, .. }) = over.map(|conflict| *conflict) {
            out.push(RouterAction::ConflictEnded { peer, priority });
            out.push(RouterAction::Announce { repeat: announce::burst(&self.settings) });
        }
    }

    pub(super) fn master_heard(&mut self, now: Time, heard: &Heard, out: &mut Vec<RouterAction>) {
        if self.ignores_as_owner() {
            return;
        }
        if heard.is_release() {
            self.released_heard(now, out);
        } else if self.loses_to(heard) {
            self.step_down(now, heard, out);
        } else if self.rival_persists(now, heard) {
            self.concede(heard.source, out);
            self.step_down(now, heard, out);
        } else if self.is_farewell(now, heard) {
            self.report.last_event = LastEvent::LowerPriorityMaster;
        } else {
            self.worse_heard(now, heard, out);
        }
    }

    /// V-232: the last advert of the master from which this one has just taken over. One that is
    /// master still says so again an interval later.
    fn is_farewell(&self, now: Time, heard: &Heard) -> bool {
        let interval = self.settings.interval.as_duration().min(heard.interval.as_duration());
        let is_predecessor = match &self.cause {
            Cause::Preempted { peer, .. } => *peer == heard.source,
            // It has not listened for one.
            Cause::Owner => true,
            Cause::Startup
            | Cause::MasterSilent { .. }
            | Cause::PriorityZero { .. }
            | Cause::Adopted
            | Cause::HigherPriority { .. }
            | Cause::Switchover
            | Cause::NoSuccessor
            | Cause::Fault { .. }
            | Cause::FaultCleared
            | Cause::Stopped
            | Cause::Removed
            | Cause::LeaseExpired
            | Cause::Unfit { .. } => false,
        };
        is_predecessor && now < self.since + interval && self.settings.profile != Profile::Strict
    }

    /// V-222, at most once per half interval so that a forger cannot make us flood (V-231).
    pub(super) fn released_heard(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        let interval = self.settings.interval.as_duration();
        let RouterState::Master(mastership) = &mut self.state else { return };
        if now >= mastership.answer_at {
            mastership.answer_at = now + interval / 2;
            self.advertise(now, out);
        }
    }

    /// V-165: the source of the packet decides between equals.
    pub(super) fn loses_to(&self, heard: &Heard) -> bool {
        heard.priority > self.priority
            || (heard.priority == self.priority
                && self.source.is_some_and(|own| heard.source > own))
    }

    /// V-224, G-013: tell the lower master that we are here, and the hosts it has misled.
    pub(super) fn worse_heard(&mut self, now: Time, heard: &Heard, out: &mut Vec<RouterAction>) {
        let interval = self.settings.interval.as_duration();
        let quiet_at = now + self.shortest_takeover().max(heard.interval.as_duration() * 3);
        let is_strict = self.settings.profile == Profile::Strict;
        // RFC 3768 §6.4.3 discards; RFC 9568 §6.4.3 answers, and lets the timer run on.
        let discards = is_strict && self.settings.version == Version::V2;
        let answers = self.settings.answer_lower && !discards;
        let priority = self.priority;
        self.report.last_event = LastEvent::LowerPriorityMaster;
        let RouterState::Master(mastership) = &mut self.state else { return };
        let began = mastership.conflict.is_none();
        let conflict = Conflict { peer: heard.source, priority: heard.priority, quiet_at };
        mastership.conflict = Some(Box::new(conflict));
        if now >= mastership.answer_at {
            mastership.answer_at = now + interval / 2;
            if answers {
                out.push(RouterAction::Advertise { priority });
                mastership.last_advert = now;
                if !is_strict {
                    mastership.next_advert = now + interval;
                }
            }
        }
        if now >= mastership.announce_at && !is_strict {
            mastership.announce_at = now + CONFLICT_PAUSE;
            let repeat = mastership.schedule.conflict(&self.settings, now);
            if repeat > 0 {
                out.push(RouterAction::Announce { repeat });
            }
        }
        if began {
            out.push(RouterAction::ConflictBegan { peer: heard.source, priority: heard.priority });
        }
    }

    /// One advert as master, outside the schedule.
    pub(super) fn advertise(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        let interval = self.settings.interval.as_duration();
        if let RouterState::Master(mastership) = &mut self.state {
            out.push(RouterAction::Advertise { priority: self.priority });
            mastership.last_advert = now;
            mastership.next_advert = now + interval;
        }
    }
}
