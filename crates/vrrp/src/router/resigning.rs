//! A router that has given up its mastership on the wire and answers until the successor does:
//! make before break (V-240).

use std::time::Duration;

use super::Router;
use super::event::RouterAction;
use super::state::{After, Resignation, RouterState, Wait, Waiting};
use crate::receive::Heard;
use crate::report::LastEvent;
use crate::role::Cause;
use crate::settings::{Fitness, Priority, Profile};
use crate::time::Time;
use crate::timers;

impl Router {
    /// V-223: the sender is master from now on. No release is sent (V-233).
    pub(super) fn step_down(&mut self, now: Time, heard: &Heard, out: &mut Vec<RouterAction>) {
        self.report.last_event = LastEvent::HigherPriorityBackup;
        // V-232. Whoever else hears it learns its interval, which must be that of the winner.
        let is_alike = heard.interval == self.settings.interval;
        let is_strict = self.settings.profile == Profile::Strict;
        if self.settings.answer_higher && is_alike && !is_strict {
            out.push(RouterAction::Advertise { priority: self.priority });
        }
        self.accept(now, heard);
        let cause = Cause::HigherPriority { peer: heard.source, priority: heard.priority };
        let resignation = Resignation {
            cause: cause.clone(),
            until: now + timers::handover(&self.settings),
            again: None,
            longer: Duration::ZERO,
            answered: true,
            then: After::Backup,
            waiting: Waiting::new(now, Wait::Down),
        };
        self.enter(now, RouterState::Resigning(Box::new(resignation)), cause, out);
    }

    pub(super) fn resigning_timeout(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        let RouterState::Resigning(resignation) = &mut self.state else { return };
        if now < resignation.until {
            if resignation.again.take_if(|again| *again <= now).is_some() {
                out.push(RouterAction::Advertise { priority: Priority::RELEASE });
            }
            return;
        }
        let resignation = Resignation::clone(resignation);
        self.release(now, resignation, out);
    }

    /// The end of a resignation: the addresses are free to go, or come back for want of a successor.
    pub(super) fn release(
        &mut self,
        now: Time,
        resignation: Resignation,
        out: &mut Vec<RouterAction>,
    ) {
        let Resignation { cause, answered, then, waiting, .. } = resignation;
        match then {
            After::Stopped => self.enter(now, RouterState::Stopped, cause, out),
            After::Fault => self.enter(now, RouterState::Fault, cause, out),
            After::Yield if !answered => self.enter_master(now, Cause::NoSuccessor, out),
            After::Yield | After::Backup => {
                self.enter(now, RouterState::Backup(waiting), cause, out)
            }
        }
    }

    pub(super) fn resigning_heard(&mut self, now: Time, heard: &Heard) {
        let is_release = heard.is_release();
        // Two that resign at once are no successors of each other.
        if is_release && !matches!(&self.state, RouterState::Resigning(r) if r.answered) {
            return;
        }
        let wait = self.wait_after(now, heard, None);
        self.accept(now, heard);
        let RouterState::Resigning(resignation) = &mut self.state else { return };
        resignation.waiting = Waiting::new(now, wait);
        if !resignation.answered {
            resignation.answered = true;
            resignation.again = None;
            resignation.until = now + timers::handover(&self.settings);
        }
    }

    /// V-240: release on the wire, keep answering. Every release restarts the skew timers of those
    /// who hear it, so the second one waits until the first must have been lost.
    /// `claim` is what it has just advertised instead of its own priority.
    pub(super) fn resign(
        &mut self,
        now: Time,
        cause: Cause,
        then: After,
        claim: Option<Priority>,
        out: &mut Vec<RouterAction>,
    ) {
        let (version, interval) = (self.settings.version, self.settings.interval);
        out.push(RouterAction::Advertise { priority: Priority::RELEASE });
        // V-284: what an unfit router releases looks like an offer, and so does what a fit one
        // releases that has claimed to offer.
        let is_offer = claim.is_some() == (self.fitness == Fitness::Fit);
        let longer = match is_offer {
            true => timers::longest_skew(version, interval) + timers::HANDOVER_MARGIN,
            false => Duration::ZERO,
        };
        let mut resignation = Resignation {
            cause: cause.clone(),
            until: now + timers::take_back(version, interval),
            longer,
            again: Some(now + timers::longest_skew(version, interval)),
            answered: false,
            then,
            waiting: Waiting::new(now, Wait::Down),
        };
        if resignation.then != After::Yield {
            resignation.answer_longer();
        }
        self.enter(now, RouterState::Resigning(Box::new(resignation)), cause, out);
    }
}

impl Resignation {
    /// What this node could not serve was offered, and nobody has taken it (V-283).
    pub(super) fn is_open_offer(&self) -> bool {
        let is_offer = matches!(self.cause, Cause::Unfit { .. });
        is_offer && self.then == After::Yield && !self.answered
    }

    /// V-284: it is for good, and unfit peers may take it for an offer that they let pass.
    pub(super) fn answer_longer(&mut self) {
        let longer = std::mem::take(&mut self.longer);
        if !self.answered {
            self.until += longer;
        }
    }
}
