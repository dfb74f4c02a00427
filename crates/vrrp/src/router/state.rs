//! The states of a router; each owns the deadlines that it alone has.

use std::net::IpAddr;
use std::time::Duration;

use crate::announce::Schedule;
use crate::role::{Cause, Role};
use crate::settings::Priority;
use crate::time::Time;

/// The master last heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Master {
    pub address: IpAddr,
    pub priority: Priority,
    pub heard: Time,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum RouterState {
    /// `eligible` once nothing but the start delay stands in the way.
    Initialize {
        eligible: bool,
    },
    Stopped,
    Fault,
    Backup(Waiting),
    /// Short, and larger than those that last: apart, as a resignation and a conflict are.
    Candidate(Box<Candidacy>),
    Master(Mastership),
    Resigning(Box<Resignation>),
}

/// A backup's down timer: `restarted + length of wait`, so that a changed priority moves it (V-146).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Waiting {
    pub(super) restarted: Time,
    pub(super) wait: Wait,
    /// A lower master that was ignored since the last accepted advert.
    pub(super) lower: Option<(IpAddr, Priority)>,
    /// Until then lower masters are left alone (V-171).
    pub(super) preempt_at: Option<Time>,
    /// This node slept through a down interval and listens for one more.
    pub(super) listened_again: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// 3 × M + skew.
    Down,
    /// This master has released: skew alone (V-212), or long enough for it to take back what it has
    /// only offered (V-282). `former` is how good it was, where that is known; `last` is when it
    /// said so last.
    Released { peer: IpAddr, former: Option<Priority>, last: Time },
    /// One interval: configured to start as master (V-172).
    Eager,
}

/// A mastership that has been asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Candidacy {
    pub(super) cause: Cause,
    /// It becomes master then, unless the answer has come.
    pub(super) until: Time,
    /// The down timer that has run out.
    pub(super) waiting: Waiting,
    /// What it has been until now, if no backup, and why it is a backup unless it becomes master.
    pub(super) from: Option<(Role, Cause)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mastership {
    pub(super) next_advert: Time,
    pub(super) last_advert: Time,
    /// Earliest answer to a lower master (V-231).
    pub(super) answer_at: Time,
    /// Earliest announcement because of one (G-013).
    pub(super) announce_at: Time,
    pub(super) schedule: Schedule,
    pub(super) conflict: Option<Box<Conflict>>,
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
    /// How much longer they answer if it turns out to be for good (V-284).
    pub(super) longer: Duration,
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
    /// Backup if someone took over, else master again: a switchover or an offer.
    Yield,
    Fault,
    Stopped,
}

/// Another owner, heard by an owner that is master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rival {
    pub(super) heard: Time,
    pub(super) concede_at: Time,
}

impl Waiting {
    pub(super) fn new(restarted: Time, wait: Wait) -> Self {
        Self { restarted, wait, lower: None, preempt_at: None, listened_again: false }
    }
}

impl Mastership {
    /// V-059: from the previous deadline, so that lateness does not add up.
    pub(super) fn advertised(&mut self, now: Time, interval: Duration) {
        self.last_advert = now;
        let next = self.next_advert + interval;
        self.next_advert = if next > now { next } else { now + interval };
    }
}
