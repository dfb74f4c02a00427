//! A router that holds the addresses: the master, and the one that resigns but still answers.

use std::net::IpAddr;
use std::time::Duration;

use super::owner::Rival;
use super::{Action, HANDOVER_MARGIN, Router, State, Wait, Waiting};
use crate::announce::{self, Schedule};
use crate::receive::Heard;
use crate::report::{LastEvent, NewMasterReason};
use crate::role::Cause;
use crate::settings::{Priority, Profile, Version};
use crate::time::Time;

/// Lateness of an advert, in intervals, that is told: a peer with the usual patience has given up.
/// One with that patience itself does not come so far, because it has lost its mastership (V-241).
const LATE_INTERVALS: u32 = 2;

/// Least time between announcements because of a lower master: hosts need one, not a storm, and a
/// conflict may last.
const CONFLICT_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mastership {
    pub(super) next_advert: Time,
    pub(super) last_advert: Time,
    /// Earliest answer to a lower master (V-231).
    pub(super) answer_at: Time,
    /// Earliest announcement because of one (G-013).
    pub(super) announce_at: Time,
    pub(super) schedule: Schedule,
    pub(super) conflict: Option<Conflict>,
    pub(super) rival: Option<Rival>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Conflict {
    pub(super) peer: IpAddr,
    pub(super) priority: Priority,
    pub(super) quiet_at: Time,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Resignation {
    pub(super) cause: Cause,
    /// Addresses answer until then.
    pub(super) until: Time,
    /// Second priority-0 advert if nobody has answered by then.
    pub(super) again: Option<Time>,
    /// The successor has been heard.
    pub(super) answered: bool,
    /// What to be afterwards.
    pub(super) then: After,
    /// The down timer to go on with, kept from the moment of resignation.
    pub(super) waiting: Waiting,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum After {
    Backup,
    /// Backup if someone took over, else master again.
    Yield,
    Fault,
    Stopped,
}

impl Router {
    /// V-055: the advert first, then (by the level) the addresses, then their announcement.
    pub(super) fn enter_master(&mut self, now: Time, cause: Cause, out: &mut Vec<Action>) {
        let interval = self.settings.interval.as_duration();
        out.push(Action::Advertise { priority: self.priority });
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
        *reason = NewMasterReason::of(&cause, *reason);
        self.enter(now, State::Master(mastership), cause, out);
        out.push(Action::Announce { repeat: announce::burst(&self.settings) });
    }

    pub(super) fn master_timeout(&mut self, now: Time, out: &mut Vec<Action>) {
        let interval = self.settings.interval.as_duration();
        let priority = self.priority;
        let State::Master(mastership) = &mut self.state else { return };
        if now >= mastership.next_advert {
            out.push(Action::Advertise { priority });
            let by = now.since(mastership.next_advert);
            if by > interval * LATE_INTERVALS {
                out.push(Action::Late { by });
            }
            mastership.advertised(now, interval);
        }
        let repeat = mastership.schedule.take_due(&self.settings, now);
        if repeat > 0 {
            out.push(Action::Announce { repeat });
        }
        let over = mastership.conflict.take_if(|conflict| conflict.quiet_at <= now);
        if let Some(Conflict { peer, priority, .. }) = over {
            out.push(Action::ConflictEnded { peer, priority });
            out.push(Action::Announce { repeat: announce::burst(&self.settings) });
        }
    }

    pub(super) fn resigning_timeout(&mut self, now: Time, out: &mut Vec<Action>) {
        let State::Resigning(resignation) = &mut self.state else { return };
        if now < resignation.until {
            if resignation.again.take_if(|again| *again <= now).is_some() {
                out.push(Action::Advertise { priority: Priority::RELEASE });
            }
            return;
        }
        let resignation = resignation.clone();
        self.release(now, resignation, out);
    }

    /// The end of a resignation: the addresses are free to go, or come back for want of an heir.
    pub(super) fn release(&mut self, now: Time, resignation: Resignation, out: &mut Vec<Action>) {
        let Resignation { cause, answered, then, waiting, .. } = resignation;
        match then {
            After::Stopped => self.enter(now, State::Stopped, cause, out),
            After::Fault => self.enter(now, State::Fault, cause, out),
            After::Yield if !answered => self.enter_master(now, Cause::NoSuccessor, out),
            After::Yield | After::Backup => self.enter(now, State::Backup(waiting), cause, out),
        }
    }

    pub(super) fn master_heard(&mut self, now: Time, heard: &Heard, out: &mut Vec<Action>) {
        if self.ignores_as_owner() {
            return;
        }
        if heard.priority == Priority::RELEASE {
            self.released_heard(now, out);
        } else if self.loses_to(heard) {
            self.step_down(now, heard, out);
        } else if self.outstayed_by(now, heard) {
            self.concede(heard.source, out);
            self.step_down(now, heard, out);
        } else {
            self.worse_heard(now, heard, out);
        }
    }

    /// V-223: the sender is master from now on. No release is sent (V-233).
    fn step_down(&mut self, now: Time, heard: &Heard, out: &mut Vec<Action>) {
        self.report.last_event = LastEvent::HigherPriorityBackup;
        if self.settings.answer_higher {
            out.push(Action::Advertise { priority: self.priority });
        }
        self.accept(now, heard);
        let cause = Cause::HigherPriority { peer: heard.source, priority: heard.priority };
        let resignation = Resignation {
            cause: cause.clone(),
            until: now + HANDOVER_MARGIN,
            again: None,
            answered: true,
            then: After::Backup,
            waiting: Waiting::new(now, Wait::Down),
        };
        self.enter(now, State::Resigning(resignation), cause, out);
    }

    /// V-222, at most once per half interval so that a forger cannot make us flood (V-231).
    pub(super) fn released_heard(&mut self, now: Time, out: &mut Vec<Action>) {
        let interval = self.settings.interval.as_duration();
        let State::Master(mastership) = &mut self.state else { return };
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
    pub(super) fn worse_heard(&mut self, now: Time, heard: &Heard, out: &mut Vec<Action>) {
        let interval = self.settings.interval.as_duration();
        let quiet_at = now + self.shortest_takeover().max(heard.interval.as_duration() * 3);
        let is_strict = self.settings.profile == Profile::Strict;
        // RFC 3768 §6.4.3 discards; RFC 9568 §6.4.3 answers, and lets the timer run on.
        let discards = is_strict && self.settings.version == Version::V2;
        let answers = self.settings.answer_lower && !discards;
        let priority = self.priority;
        self.report.last_event = LastEvent::LowerPriorityMaster;
        let State::Master(mastership) = &mut self.state else { return };
        let began = mastership.conflict.is_none();
        let conflict = Conflict { peer: heard.source, priority: heard.priority, quiet_at };
        mastership.conflict = Some(conflict);
        if now >= mastership.answer_at {
            mastership.answer_at = now + interval / 2;
            if answers {
                out.push(Action::Advertise { priority });
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
                out.push(Action::Announce { repeat });
            }
        }
        if began {
            out.push(Action::ConflictBegan { peer: heard.source, priority: heard.priority });
        }
    }

    pub(super) fn resigning_heard(&mut self, now: Time, heard: &Heard) {
        let is_release = heard.priority == Priority::RELEASE;
        // Two that resign at once are no heirs to each other.
        if is_release && !matches!(&self.state, State::Resigning(r) if r.answered) {
            return;
        }
        self.accept(now, heard);
        let wait = self.wait_after(heard);
        let State::Resigning(resignation) = &mut self.state else { return };
        resignation.waiting = Waiting::new(now, wait);
        if !resignation.answered {
            resignation.answered = true;
            resignation.again = None;
            resignation.until = resignation.until.min(now + HANDOVER_MARGIN);
        }
    }

    /// V-240: release on the wire, keep answering. Every release restarts the skew timers of those
    /// who hear it, so the second one waits until the first must have been lost.
    pub(super) fn resign(&mut self, now: Time, cause: Cause, then: After, out: &mut Vec<Action>) {
        let longest_skew = match self.settings.version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.settings.interval.as_duration(),
        };
        out.push(Action::Advertise { priority: Priority::RELEASE });
        let resignation = Resignation {
            cause: cause.clone(),
            until: now + longest_skew * 2 + HANDOVER_MARGIN,
            again: Some(now + longest_skew),
            answered: false,
            then,
            waiting: Waiting::new(now, Wait::Down),
        };
        self.enter(now, State::Resigning(resignation), cause, out);
    }

    /// One advert as master, outside the schedule.
    pub(super) fn advertise(&mut self, now: Time, out: &mut Vec<Action>) {
        let interval = self.settings.interval.as_duration();
        if let State::Master(mastership) = &mut self.state {
            out.push(Action::Advertise { priority: self.priority });
            mastership.last_advert = now;
            mastership.next_advert = now + interval;
        }
    }
}

impl Mastership {
    /// V-059: from the previous deadline, so that lateness does not add up.
    fn advertised(&mut self, now: Time, interval: Duration) {
        self.last_advert = now;
        let next = self.next_advert + interval;
        self.next_advert = if next > now { next } else { now + interval };
    }
}
