//! A router that would become master and asks first (V-270..V-274).
//!
//! Whoever drives the router may have a reason against it that no router knows: a member of its
//! group is in fault, or somebody else decides. It answers [`RouterEvent::Grant`](super::RouterEvent::Grant) or
//! [`RouterEvent::Refuse`](super::RouterEvent::Refuse), as a rule in the same moment. Until then the candidate is
//! a backup to everybody else: it holds nothing, sends nothing, and hears adverts, the master's
//! among them.
//!
//! Two ways into mastership do not ask, because waiting would break what holds at the moment:
//! adoption (V-242) goes on with addresses that answer and whose lease is running out, and a
//! release that nobody took (V-240) is taken back by a router that has not let go.

use super::Router;
use super::event::RouterAction;
use super::state::{Candidacy, RouterState, Wait, Waiting};
use crate::receive::Heard;
use crate::role::{Cause, Role};
use crate::time::Time;

impl Router {
    /// V-270: asks to become master because of `cause`. `waiting` is the down timer that a better
    /// advert goes on with; `from` is what the router has been, if no backup, and why it would be
    /// one now.
    pub(super) fn propose(
        &mut self,
        now: Time,
        cause: Cause,
        waiting: Waiting,
        from: Option<(Role, Cause)>,
        out: &mut Vec<RouterAction>,
    ) {
        let until = now + self.ready_limit();
        self.refused = None;
        let candidacy = Candidacy { cause: cause.clone(), until, waiting, from };
        self.state = RouterState::Candidate(Box::new(candidacy));
        out.push(RouterAction::Propose { cause });
    }

    /// V-273: an answer that does not come is a grant. After a sleep the candidate judges no better
    /// than a backup that has slept: it listens once more.
    pub(super) fn candidate_timeout(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        let RouterState::Candidate(candidacy) = &self.state else { return };
        if now < candidacy.until {
            return;
        }
        let has_listened = candidacy.waiting.listened_again;
        if now > candidacy.until + self.down_interval() && !has_listened {
            let waiting = Waiting { listened_again: true, ..Waiting::new(now, Wait::Down) };
            self.withdraw_candidacy(now, waiting, out);
            return;
        }
        self.on_grant(now, out);
    }

    /// V-271. A late answer finds no candidate and changes nothing.
    pub(super) fn on_grant(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        if let RouterState::Candidate(candidacy) = &self.state {
            let cause = candidacy.cause.clone();
            self.enter_master(now, cause, out);
        }
    }

    /// V-272: a backup that listens for a whole down interval before it asks again.
    pub(super) fn on_refuse(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        if let RouterState::Candidate(candidacy) = &self.state {
            let refused = (now, candidacy.cause.clone());
            self.withdraw_candidacy(now, Waiting::new(now, Wait::Down), out);
            self.refused = Some(Box::new(refused));
        }
    }

    /// V-274: what a backup accepts ends the candidacy. A release does not: there is one reason more
    /// to become master.
    pub(super) fn candidate_heard(
        &mut self,
        now: Time,
        heard: &Heard,
        out: &mut Vec<RouterAction>,
    ) {
        if heard.is_release() {
            return;
        }
        let RouterState::Candidate(candidacy) = &mut self.state else { return };
        let mut waiting = candidacy.waiting.clone();
        if self.restarts_down_timer(now, heard, &mut waiting) {
            self.withdraw_candidacy(now, waiting, out);
        } else if let RouterState::Candidate(candidacy) = &mut self.state {
            candidacy.waiting = waiting;
        }
    }

    /// It is a backup again. One that was none before says now that it has become one.
    fn withdraw_candidacy(&mut self, now: Time, waiting: Waiting, out: &mut Vec<RouterAction>) {
        let RouterState::Candidate(candidacy) = &self.state else { return };
        match candidacy.from.clone() {
            Some((_, cause)) => self.enter(now, RouterState::Backup(waiting), cause, out),
            None => self.state = RouterState::Backup(waiting),
        }
    }
}
