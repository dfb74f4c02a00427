//! The state machine of one virtual router: RFC 9568 §6.4 with the extensions of
//! SPEC.md §8.
//!
//! `(state, now, RouterEvent) → RouterActions`; what the router wants to be true at any moment is read from
//! [`Router::holds_addresses`] and [`Router::deadline`]. Timers are deadlines inside the state, so
//! a late, early or repeated [`RouterEvent::Timeout`] is harmless.
//!
//! ```text
//!               eligible          down timer             granted
//!   Initialize ─────────► Backup ────────────► Candidate ───────► Master
//!      │  ▲                ▲ ▲ ▲   refused, better advert │          │ better advert, stop,
//!      ▼  │ cleared        │ │ └──────────────────────────┘          ▼ switchover, tracker fault
//!     Fault ───────────────┘ └──────────── released ──────────── Resigning
//! ```
//!
//! An owner is a candidate as soon as it is eligible. `Candidate` asks whoever drives the router
//! (V-270); to everybody else it is what it was before, as a rule a backup.
//!
//! `Resigning` is make before break (V-240): mastership is given up on the wire, but the addresses
//! answer until the successor has been heard and has had time to announce them.

mod backup;
mod candidate;
mod event;
mod held_back;
mod master;
mod owner;
mod resigning;
mod state;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::event::{RouterAction, RouterEvent};
pub use self::state::Master;

use self::state::{After, RouterState, Wait, Waiting};
use crate::datagram::Datagram;
use crate::discard::Discard;
use crate::receive::{self, Accepted, Heard};
use crate::report::{LastEvent, LinkCondition, RouterReport};
use crate::role::{Cause, Role};
use crate::settings::{
    ChecksumForm, ChecksumMode, Fitness, Interval, Priority, RouterSettings, Version,
};
use crate::time::Time;
use crate::timers;

/// A checksum form learnt from a peer is kept for this many intervals (V-043).
const FORM_HOLD_INTERVALS: u32 = 10;

/// One virtual router.
#[derive(Clone, Debug)]
pub struct Router {
    settings: Arc<RouterSettings>,
    /// Effective priority, 1..=255.
    priority: Priority,
    /// The other owner to whom this one has conceded (V-176).
    conceded: Option<IpAddr>,
    /// The master's interval: our own until learnt (V-142).
    active_interval: Interval,
    form: ChecksumForm,
    form_learnt: Option<Time>,
    /// Handed over by the operator: leave it to the peer while the peer lives.
    yielded: bool,
    fitness: Fitness,
    /// Address our adverts leave from: the tie break between equals (V-166).
    source: Option<IpAddr>,
    /// The mastership last proposed, when it was refused.
    refused: Option<Box<(Time, Cause)>>,
    start_until: Time,
    state: RouterState,
    since: Time,
    cause: Cause,
    up_since: Option<Time>,
    master: Option<Master>,
    /// The best of several that were masters at once: the others yield to it.
    strongest: Option<Master>,
    report: RouterReport,
}

impl Router {
    /// A router that takes no part until [`RouterEvent::Eligible`].
    pub fn new(settings: impl Into<Arc<RouterSettings>>, now: Time) -> Self {
        let settings = settings.into();
        Self {
            priority: settings.priority,
            conceded: None,
            active_interval: settings.interval,
            form: initial_form(settings.checksum),
            form_learnt: None,
            yielded: false,
            fitness: Fitness::Fit,
            source: settings.source,
            refused: None,
            start_until: now + settings.start_delay,
            state: RouterState::Initialize { eligible: false },
            since: now,
            cause: Cause::Startup,
            up_since: None,
            master: None,
            strongest: None,
            report: RouterReport::default(),
            settings,
        }
    }

    pub fn settings(&self) -> &RouterSettings {
        &self.settings
    }

    pub fn role(&self) -> Role {
        match &self.state {
            RouterState::Initialize { .. } | RouterState::Stopped => Role::Initialize,
            RouterState::Fault => Role::Fault,
            RouterState::Backup(_) => Role::Backup,
            RouterState::Candidate(candidacy) => {
                candidacy.from.as_ref().map_or(Role::Backup, |(from, _)| *from)
            }
            RouterState::Master(_) => Role::Master,
            RouterState::Resigning(_) => Role::Resigning,
        }
    }

    /// Since when the role is what it is, and why.
    pub fn since(&self) -> (Time, &Cause) {
        (self.since, &self.cause)
    }

    /// Since when it takes part, whatever its role; `None` while it does not. The `up-datetime` of
    /// RFC 8347 (V-402).
    pub fn up_since(&self) -> Option<Time> {
        self.up_since
    }

    /// Effective priority.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The other router last accepted as master.
    pub fn master(&self) -> Option<Master> {
        self.master
    }

    /// Why it would become master, and when it does if nobody answers (V-270).
    pub fn candidate(&self) -> Option<(&Cause, Time)> {
        match &self.state {
            RouterState::Candidate(candidacy) => Some((&candidacy.cause, candidacy.until)),
            RouterState::Initialize { .. }
            | RouterState::Stopped
            | RouterState::Fault
            | RouterState::Backup(_)
            | RouterState::Master(_)
            | RouterState::Resigning(_) => None,
        }
    }

    /// When the last mastership it proposed was refused, and why it had proposed it; `None` once it
    /// has asked again or has another role.
    pub fn refused(&self) -> Option<(Time, &Cause)> {
        self.refused.as_deref().map(|(at, cause)| (*at, cause))
    }

    /// It hears adverts (V-109).
    fn listens(&self) -> bool {
        self.role().takes_part() || self.candidate().is_some()
    }

    /// Handed over by the operator and not master since.
    pub fn is_yielded(&self) -> bool {
        self.yielded
    }

    /// Whether its node can serve, as it was last told.
    pub fn fitness(&self) -> Fitness {
        self.fitness
    }

    /// Stopped, and nothing more to hold.
    pub fn is_finished(&self) -> bool {
        self.state == RouterState::Stopped
    }

    /// The address our adverts leave from now on, as the link has it.
    pub fn set_source(&mut self, source: Option<IpAddr>) {
        self.source = source;
    }

    /// Why it became master last, and what happened to it last.
    pub fn report(&self) -> RouterReport {
        self.report
    }

    /// The link as it is now, for [`RouterReport::last_event`]; whether the router may take part is said
    /// by [`RouterEvent::Eligible`] and [`RouterEvent::Fault`].
    pub fn observe_link(&mut self, link: LinkCondition) {
        self.report.observe_link(link);
    }

    /// The virtual addresses shall be in the kernel.
    pub fn holds_addresses(&self) -> bool {
        matches!(self.state, RouterState::Master(_) | RouterState::Resigning(_))
    }

    /// Checksum form of the adverts we send.
    pub fn form(&self) -> ChecksumForm {
        self.form
    }

    /// The shortest time any peer waits before it takes over from us (V-241).
    pub fn shortest_takeover(&self) -> Duration {
        timers::shortest_takeover(&self.settings)
    }

    /// Longest time from becoming master to being ready to serve (V-275): nobody waits longer for an
    /// answer (V-273), or for services before the addresses are announced, and a predecessor answers
    /// for as long (V-240).
    pub fn ready_limit(&self) -> Duration {
        timers::ready_limit(&self.settings)
    }

    /// How long a predecessor goes on answering after our first advert as master, if it has our
    /// settings (V-240).
    pub fn predecessor_answers(&self) -> Duration {
        timers::handover(&self.settings)
    }

    /// Addresses were added to a master: they are announced now, this often, and again later.
    pub fn announce_more(&mut self, now: Time) -> u8 {
        match &mut self.state {
            RouterState::Master(mastership) => mastership.schedule.extended(&self.settings, now),
            RouterState::Initialize { .. }
            | RouterState::Stopped
            | RouterState::Fault
            | RouterState::Backup(_)
            | RouterState::Candidate(_)
            | RouterState::Resigning(_) => 0,
        }
    }

    /// When to feed [`RouterEvent::Timeout`] next.
    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            RouterState::Initialize { eligible } => eligible.then_some(self.start_until),
            RouterState::Stopped | RouterState::Fault => None,
            RouterState::Backup(waiting) => Some(self.down_at(waiting)),
            RouterState::Candidate(candidacy) => Some(candidacy.until),
            RouterState::Master(mastership) => [
                Some(mastership.next_advert),
                mastership.schedule.deadline(),
                mastership.conflict.as_ref().map(|conflict| conflict.quiet_at),
            ]
            .into_iter()
            .flatten()
            .min(),
            RouterState::Resigning(resignation) => {
                [resignation.again, Some(resignation.until)].into_iter().flatten().min()
            }
        }
    }

    /// One datagram that may be an advert: V-101 to V-121, and then what an accepted one does.
    ///
    /// # Errors
    /// The reason of the first step that fails; nothing has changed then (V-127).
    pub fn receive(
        &mut self,
        now: Time,
        datagram: &Datagram<'_>,
        out: &mut Vec<RouterAction>,
    ) -> Result<Accepted, Discard> {
        let verified = receive::verify(&self.settings, datagram)?;
        if !self.listens() {
            return Err(Discard::AdvertsIgnored);
        }
        let heard = verified.admit(&self.settings, self.source)?;
        let is_owner = self.priority.is_owner();
        let is_tie = heard.priority == self.priority && !is_owner;
        let other_form = heard.form.filter(|form| *form != self.form);
        let address = |router: &Self| router.master.map(|master| master.address);
        let before = address(self);
        self.handle(now, RouterEvent::Heard(&heard), out);
        let is_new_master = address(self) != before;
        Ok(Accepted { heard, is_tie, is_owner_conflict: is_owner, other_form, is_new_master })
    }

    /// One event; actions are appended in the order they are to be done.
    pub fn handle(&mut self, now: Time, event: RouterEvent<'_>, out: &mut Vec<RouterAction>) {
        self.check_wake_up_lease(now, out);
        match event {
            RouterEvent::Timeout => self.on_timeout(now, out),
            RouterEvent::Heard(heard) => self.on_heard(now, heard, out),
            RouterEvent::Eligible => self.on_eligible(now, out),
            RouterEvent::Fault { reasons, can_send } => self.on_fault(now, reasons, can_send, out),
            RouterEvent::Priority(priority) => self.on_priority(now, priority, out),
            RouterEvent::Adopt => self.on_adopt(now, out),
            RouterEvent::Grant => self.on_grant(now, out),
            RouterEvent::Refuse => self.on_refuse(now, out),
            RouterEvent::Stop(cause) => self.on_stop(now, cause, out),
            RouterEvent::Resume => self.on_resume(now),
            RouterEvent::Switchover { claim } => self.on_switchover(now, claim, out),
            RouterEvent::Fitness(fitness) => self.on_fitness(now, fitness, out),
            RouterEvent::Offer { reasons } => self.on_offer(now, reasons, out),
            RouterEvent::TakeBack => self.on_take_back(now, out),
            RouterEvent::Settings(settings, priority) => {
                self.set_priority(priority);
                self.on_settings(now, settings, out);
            }
        }
    }

    /// It was not running for as long as its peers wait, and does not know yet what that means: any
    /// event says so (V-241).
    pub fn has_overslept(&self, now: Time) -> bool {
        let limit = self.shortest_takeover();
        match &self.state {
            RouterState::Initialize { .. }
            | RouterState::Stopped
            | RouterState::Fault
            | RouterState::Backup(_)
            | RouterState::Candidate(_) => false,
            RouterState::Master(mastership) => now > mastership.last_advert + limit,
            RouterState::Resigning(resignation) => now > resignation.until + limit,
        }
    }

    /// A master that was not running for as long as its peers wait has lost its mastership,
    /// whatever its preempt setting, and says nothing more as master (V-241).
    fn check_wake_up_lease(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        if !self.has_overslept(now) {
            return;
        }
        match &self.state {
            RouterState::Resigning(resignation) if resignation.then == After::Stopped => {
                self.enter(now, RouterState::Stopped, Cause::Stopped, out);
            }
            RouterState::Resigning(resignation) if resignation.then == After::Fault => {
                let cause = resignation.cause.clone();
                self.enter(now, RouterState::Fault, cause, out);
            }
            RouterState::Initialize { .. }
            | RouterState::Stopped
            | RouterState::Fault
            | RouterState::Backup(_)
            | RouterState::Candidate(_)
            | RouterState::Master(_)
            | RouterState::Resigning(_) => {
                self.enter_backup(now, Wait::Down, Cause::LeaseExpired, out);
            }
        }
    }

    fn on_timeout(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        match &self.state {
            RouterState::Stopped | RouterState::Fault => {}
            RouterState::Initialize { eligible } => {
                if *eligible && now >= self.start_until {
                    self.begin(now, Cause::Startup, out);
                }
            }
            RouterState::Backup(_) => self.backup_timeout(now, out),
            RouterState::Candidate(_) => self.candidate_timeout(now, out),
            RouterState::Master(_) => self.master_timeout(now, out),
            RouterState::Resigning(_) => self.resigning_timeout(now, out),
        }
    }

    fn on_heard(&mut self, now: Time, heard: &Heard, out: &mut Vec<RouterAction>) {
        self.reclaim_from(heard, out);
        match &self.state {
            // V-109, V-202.
            RouterState::Initialize { .. } | RouterState::Stopped | RouterState::Fault => return,
            RouterState::Backup(_) => self.backup_heard(now, heard),
            RouterState::Candidate(_) => self.candidate_heard(now, heard, out),
            RouterState::Master(_) => self.master_heard(now, heard, out),
            RouterState::Resigning(_) => self.resigning_heard(now, heard),
        }
        self.learn_form(now, heard);
    }

    /// The sender is the master from now on (V-142, V-143). A release teaches no interval.
    fn accept(&mut self, now: Time, heard: &Heard) {
        if !heard.is_release() {
            self.active_interval = heard.interval;
        }
        self.master = Some(Master { address: heard.source, priority: heard.priority, heard: now });
        self.note_strongest(now, heard);
    }

    /// Masters that meet are heard in turn until all but the best have yielded, and then it is how good
    /// that one is that counts (V-282), whoever was heard last.
    fn note_strongest(&mut self, now: Time, heard: &Heard) {
        let lasts = |one: &Master| {
            let is_another = one.address != heard.source;
            is_another && one.priority > heard.priority && now < one.heard + self.down_interval()
        };
        if self.strongest.as_ref().is_some_and(lasts) {
            return;
        }
        let heard_now = Master { address: heard.source, priority: heard.priority, heard: now };
        self.strongest = Some(heard_now).filter(|_| !heard.is_release());
    }

    fn on_eligible(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        match &mut self.state {
            RouterState::Initialize { eligible } => {
                *eligible = true;
                if now >= self.start_until {
                    self.begin(now, Cause::Startup, out);
                }
            }
            RouterState::Fault if now < self.start_until => {
                self.enter(
                    now,
                    RouterState::Initialize { eligible: true },
                    Cause::FaultCleared,
                    out,
                );
            }
            RouterState::Fault => self.begin(now, Cause::FaultCleared, out),
            // What is still on offer comes back unless someone takes it.
            RouterState::Resigning(resignation) if resignation.then == After::Fault => {
                resignation.then = After::Yield;
            }
            RouterState::Stopped
            | RouterState::Backup(_)
            | RouterState::Candidate(_)
            | RouterState::Master(_)
            | RouterState::Resigning(_) => {}
        }
    }

    /// V-200, V-201: an owner would be master at once, everybody else listens first.
    fn begin(&mut self, now: Time, cause: Cause, out: &mut Vec<RouterAction>) {
        self.active_interval = self.settings.interval;
        if cause == Cause::Startup {
            self.report.last_event = LastEvent::Startup;
        }
        if self.priority.is_owner() && !self.yielded {
            if cause != Cause::Startup {
                self.report.last_event = LastEvent::OwnerPreempt;
            }
            let waiting = Waiting::new(now, Wait::Down);
            let from = Some((self.role(), cause));
            self.propose(now, Cause::Owner, waiting, from, out);
            return;
        }
        let eager = self.settings.start_eager && cause == Cause::Startup;
        self.enter_backup(now, if eager { Wait::Eager } else { Wait::Down }, cause, out);
    }

    fn on_fault(
        &mut self,
        now: Time,
        reasons: String,
        can_send: bool,
        out: &mut Vec<RouterAction>,
    ) {
        let cause = Cause::Fault { reasons };
        match &mut self.state {
            RouterState::Stopped => {}
            // The text of a fault may change while it lasts.
            RouterState::Fault => self.cause = cause,
            RouterState::Initialize { .. } | RouterState::Backup(_) | RouterState::Candidate(_) => {
                self.enter(now, RouterState::Fault, cause, out);
            }
            RouterState::Master(_) if can_send => self.resign(now, cause, After::Fault, None, out),
            RouterState::Resigning(resignation) if can_send => {
                if resignation.then != After::Stopped {
                    resignation.answer_longer();
                    resignation.then = After::Fault;
                    resignation.cause = cause;
                }
            }
            RouterState::Resigning(resignation) if resignation.then == After::Stopped => {
                self.enter(now, RouterState::Stopped, Cause::Stopped, out);
            }
            RouterState::Master(_) | RouterState::Resigning(_) => {
                self.enter(now, RouterState::Fault, cause, out)
            }
        }
    }

    /// V-226: the next advert carries it; a drop is advertised at once.
    fn on_priority(&mut self, now: Time, priority: Priority, out: &mut Vec<RouterAction>) {
        let before = self.priority;
        self.set_priority(priority);
        if self.priority < before && self.role() == Role::Master {
            self.advertise(now, out);
        }
    }

    fn on_adopt(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        if matches!(self.state, RouterState::Initialize { .. }) {
            self.enter_master(now, Cause::Adopted, out);
        }
    }

    fn on_stop(&mut self, now: Time, cause: Cause, out: &mut Vec<RouterAction>) {
        self.report.last_event = LastEvent::Shutdown;
        match &mut self.state {
            RouterState::Stopped => {}
            RouterState::Initialize { .. }
            | RouterState::Fault
            | RouterState::Backup(_)
            | RouterState::Candidate(_) => {
                self.enter(now, RouterState::Stopped, cause, out);
            }
            RouterState::Master(_) => self.resign(now, cause, After::Stopped, None, out),
            RouterState::Resigning(resignation) => {
                resignation.answer_longer();
                resignation.then = After::Stopped;
                resignation.cause = cause;
            }
        }
    }

    /// What is still on offer is taken back unless someone takes it.
    fn on_resume(&mut self, now: Time) {
        match &mut self.state {
            RouterState::Stopped => {
                self.state = RouterState::Initialize { eligible: false };
                self.since = now;
                self.cause = Cause::Startup;
            }
            RouterState::Resigning(resignation) if resignation.then == After::Stopped => {
                resignation.then = After::Yield;
            }
            RouterState::Initialize { .. }
            | RouterState::Fault
            | RouterState::Backup(_)
            | RouterState::Candidate(_)
            | RouterState::Master(_)
            | RouterState::Resigning(_) => {}
        }
    }

    fn on_switchover(&mut self, now: Time, claim: Option<Priority>, out: &mut Vec<RouterAction>) {
        if self.role() == Role::Master {
            self.yielded = true;
            out.extend(claim.map(|priority| RouterAction::Advertise { priority }));
            self.resign(now, Cause::Switchover, After::Yield, claim, out);
        }
    }

    /// V-283.
    fn on_offer(&mut self, now: Time, reasons: String, out: &mut Vec<RouterAction>) {
        if self.role() == Role::Master {
            self.resign(now, Cause::Unfit { reasons }, After::Yield, None, out);
        }
    }

    fn on_take_back(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        let is_open = matches!(&self.state, RouterState::Resigning(one) if one.is_open_offer());
        if is_open {
            self.enter_master(now, Cause::NoSuccessor, out);
        }
    }

    /// V-280: the priority that goes with it comes by itself. A Master that can serve again says so
    /// at once: until then its release would look like an offer (V-284).
    fn on_fitness(&mut self, now: Time, fitness: Fitness, out: &mut Vec<RouterAction>) {
        let recovers = self.fitness != Fitness::Fit && fitness == Fitness::Fit;
        self.fitness = fitness;
        if recovers && self.role() == Role::Master {
            self.advertise(now, out);
        }
    }

    fn on_settings(
        &mut self,
        now: Time,
        settings: Arc<RouterSettings>,
        out: &mut Vec<RouterAction>,
    ) {
        // A learnt interval is the master's, not ours to change (V-142). Version 2 learns none: its
        // masters have ours or are not heard.
        let learns = settings.version == Version::V3 && settings.version == self.settings.version;
        if self.master.is_none() || !learns {
            self.active_interval = settings.interval;
        }
        if self.settings.checksum != settings.checksum {
            self.form = initial_form(settings.checksum);
            self.form_learnt = None;
        }
        let (had, has) = (!self.settings.addresses.is_empty(), !settings.addresses.is_empty());
        self.report.observe_addresses(had, has);
        self.settings = settings;
        if self.role() == Role::Master {
            self.advertise(now, out);
        }
    }

    fn enter(&mut self, now: Time, state: RouterState, cause: Cause, out: &mut Vec<RouterAction>) {
        let from = self.role();
        self.state = state;
        self.since = now;
        self.cause = cause.clone();
        self.refused = None;
        let to = self.role();
        self.up_since = if to.takes_part() { self.up_since.or(Some(now)) } else { None };
        out.push(RouterAction::Changed { from, to, cause });
    }

    /// V-043, V-044: follow the form a peer checks with, not more often than it can matter.
    fn learn_form(&mut self, now: Time, heard: &Heard) {
        let (Some(form), ChecksumMode::Auto(_)) = (heard.form, self.settings.checksum) else {
            return;
        };
        let hold = self.settings.interval.as_duration() * FORM_HOLD_INTERVALS;
        let may_switch = self.form_learnt.is_none_or(|at| now >= at + hold);
        if form != self.form && may_switch {
            self.form = form;
            self.form_learnt = Some(now);
        }
    }
}

fn initial_form(mode: ChecksumMode) -> ChecksumForm {
    match mode {
        ChecksumMode::Pinned(form) | ChecksumMode::Auto(form) => form,
    }
}
