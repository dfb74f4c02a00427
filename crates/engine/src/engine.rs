//! The engine: what a node knows, and what each input does to it.
//!
//! Each part of the state has an owner with a file of its own (`Instances`, `Trackers`, `Services`,
//! `ProbeTable`, `RateLimiter`); this file holds them together. The modules that carry out one kind
//! of input or output (`packets`, `commands`, `reload`, `results`, `drain`, ...) add their methods to
//! [`Engine`] and import it; it imports none of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use locum_plan as plan;
use locum_plan::{Name, Outcome, Plan, Tracked};
use locum_vrrp::counters::Counters;
use locum_vrrp::{RouterEvent, Time};

use crate::announce::rate::RateLimiter;
use crate::arbiter::{Arbiter, Unopposed};
use crate::eligibility::{self, Eligibility, Perspective, effective};
use crate::facts::{Fact, FactKey};
use crate::fault::{self, Fault, PriorityCause};
use crate::fitness::Aspect;
use crate::groups::Groups;
use crate::ids::{InstanceId, ProbeId, Seq};
use crate::input::{Input, LinkState};
use crate::instances::Instances;
use crate::listening::MasterSources;
use crate::offer::standpoint;
use crate::output::{Event, EventKind, HookRun, Listen, Output};
use crate::probes::{ProbeTable, Subscriber};
use crate::server::ServerCheck;
use crate::services::Services;
use crate::strain::StrainedObjects;
use crate::tracker::{TrackerChange, Trackers};

/// One node's decisions.
#[derive(Debug, Default)]
pub struct Engine {
    pub(crate) plan: Option<Arc<Plan>>,
    pub(crate) links: HashMap<Name, LinkState>,
    pub(crate) instances: Instances,
    pub(crate) groups: Groups,
    pub(crate) trackers: Trackers,
    pub(crate) services: Services,
    pub(crate) strained: StrainedObjects,
    pub(crate) probes: ProbeTable,
    /// Announcements whose rate is limited.
    pub(crate) rate: RateLimiter,
    /// What an earlier run left and no instance of the plan has.
    pub(crate) unowned: Vec<Fact>,
    /// When to withdraw them (again), and the number of the last try.
    pub(crate) unowned_at: Option<Time>,
    pub(crate) unowned_seq: Seq,
    /// Counters of what no instance matched, by interface.
    pub(crate) unmatched: HashMap<Name, Counters>,
    pub(crate) listening: Vec<Listen>,
    pub(crate) masters: MasterSources,
    pub(crate) seq: Seq,
    pub(crate) events: u64,
    /// Notifications of this drain.
    pub(crate) notes: Vec<Event>,
    /// Hooks of services and servers in this drain.
    pub(crate) hooks: Vec<HookRun>,
    /// Something other than a role change may alter what is served or listened to.
    pub(crate) levels_touched: bool,
    pub(crate) stopping: bool,
    pub(crate) stopped: bool,
}

impl Engine {
    /// A node that does nothing until its first [`Input::Plan`].
    pub fn new() -> Self {
        Self::default()
    }

    /// One input; outputs are appended in order, the last is `Deadline`.
    pub fn handle(&mut self, now: Time, input: Input<'_>, out: &mut Vec<Output>) {
        self.handle_under(&mut Unopposed, now, input, out);
    }

    /// As [`Engine::handle`], where `arbiter` has a say when an instance would become master.
    pub fn handle_under(
        &mut self,
        arbiter: &mut dyn Arbiter,
        now: Time,
        input: Input<'_>,
        out: &mut Vec<Output>,
    ) {
        match input {
            Input::Packet(packet) => self.on_packet(now, packet),
            Input::Timeout => {
                self.run_timers(now);
                self.rate.may_send = true;
            }
            Input::Probed { probe, outcome } => self.on_probed(now, probe, &outcome),
            Input::Link(link) => self.on_link(now, link),
            Input::FactLost { key, culprit } => self.on_fact_lost(now, key, culprit),
            Input::LinkGone { name } => self.on_link_gone(now, &name),
            Input::Applied { seq, owner, result } => self.on_applied(now, seq, owner, &result),
            Input::Sent { instance, report } => self.on_sent(instance, report),
            Input::Served { seq, pending, failed } => self.on_served(now, seq, &pending, failed),
            Input::Strained { strained } => self.strained.set(self.services.of_names(strained)),
            Input::Command { id, command } => self.on_command(now, id, command, out),
            Input::Orders(orders) => self.services.inherit(orders),
            Input::Plan { id, plan, inherited } => self.on_plan(now, id, plan, inherited, out),
        }
        self.wake_up(now);
        self.review_fitness(now);
        for (id, event) in self.groups.decide(now, arbiter, &self.instances) {
            self.instances.touch(id).feed(now, event);
        }
        self.review_fitness(now);
        self.drain(now, out);
    }

    /// Every instance whose deadline has come. Nothing else runs timers: after a pause the adverts
    /// that wait in the sockets speak first (V-235).
    fn run_timers(&mut self, now: Time) {
        self.levels_touched |= self.services.deadline().is_some_and(|at| at <= now);
        for id in self.instances.due(now) {
            // What is lost by the clock counts for the advert of this moment.
            if self.instances[id].is_fitness_due(now) {
                self.review(now, id);
            }
            let state = self.instances.touch(id);
            let was_pausing = state.facts().is_pausing();
            state.feed(now, RouterEvent::Timeout);
            if was_pausing && state.facts_mut().refusal(now).is_none() {
                self.review(now, id);
            }
        }
    }

    /// After a pause any input may be the first, and a master of before must not go on as one because
    /// it spoke of something else (V-241).
    fn wake_up(&mut self, now: Time) {
        let has_overslept = |id: &InstanceId| {
            self.instances.get(*id).is_some_and(|state| state.router.has_overslept(now))
        };
        let late: Vec<InstanceId> =
            self.instances.touched().iter().copied().filter(has_overslept).collect();
        for id in late {
            self.instances.touch(id).feed(now, RouterEvent::Timeout);
        }
    }

    /// Those of this drain that have another role now, or something lost or recovered by the clock.
    fn review_fitness(&mut self, now: Time) {
        let is_due = |id: &InstanceId| {
            self.instances.get(*id).is_some_and(|state| state.is_fitness_due(now))
        };
        let due: Vec<InstanceId> =
            self.instances.touched().iter().copied().filter(is_due).collect();
        for id in due {
            self.review(now, id);
        }
    }

    fn on_probed(&mut self, now: Time, probe: ProbeId, outcome: &Outcome) {
        for subscriber in self.probes.subscribers(probe) {
            match subscriber {
                Subscriber::Tracker(at) => self.on_checked(now, at, outcome),
                Subscriber::Server { service, server, check } => {
                    self.on_server_probed(now, ServerCheck { service, server, check }, outcome);
                }
            }
        }
    }

    /// The health of servers of the service at this position has changed.
    pub(crate) fn note_population(&mut self, now: Time, at: usize) {
        let Some(state) = self.services.get_mut(at) else { return };
        let (object, population) =
            (Tracked::Service(state.service.name.clone()), state.population());
        let (holds, detail) = (population.is_enough, population.detail.clone());
        let mut before = None;
        let changed = self.trackers.serve(&object, now, |served| {
            before = served.population.as_ref().and_then(|all| all.is_enough);
            served.set_population(population, now)
        });
        let Some(dependents) = changed else { return };
        // What has been looked at for the first time is news only if it is bad.
        let kind =
            holds.filter(|holds| before.map_or(!holds, |before| before != *holds)).map(|holds| {
                let aspect = Aspect::Populated;
                EventKind::Fitness { object, aspect, holds, detail }
            });
        self.on_tracked(now, kind, dependents);
    }

    /// Something that these instances follow is another now.
    pub(crate) fn on_tracked(
        &mut self,
        now: Time,
        kind: Option<EventKind>,
        dependents: Vec<InstanceId>,
    ) {
        if let Some(kind) = kind {
            self.note(None, kind);
        }
        for instance in dependents {
            self.review(now, instance);
        }
    }

    fn on_checked(&mut self, now: Time, at: usize, outcome: &Outcome) {
        let change = self.trackers.record(at, outcome, now);
        let tracker = self.trackers.at(at);
        let detail = outcome.detail.clone();
        let kind = match change {
            TrackerChange::None => return,
            TrackerChange::Reported => None,
            TrackerChange::Turned => {
                let object = tracker.object.clone();
                let up = tracker.state.up == Some(true);
                Some(EventKind::Tracked { object, up, detail })
            }
            TrackerChange::Ignored => Some(EventKind::Note(format!(
                "{} cannot be run and is left out, as keepalived would: {detail}",
                tracker.object
            ))),
        };
        let dependents = tracker.dependents().to_vec();
        self.on_tracked(now, kind, dependents);
    }

    fn on_link(&mut self, now: Time, link: LinkState) {
        let known = self.links.get(&link.name);
        if known == Some(&link) {
            return;
        }
        let is_new = |known: &LinkState| (known.index, known.running) != (link.index, link.running);
        let is_another = known.is_none_or(is_new);
        let is_announced = link.running && known.is_none_or(|known| must_reannounce(known, &link));
        self.links.insert(link.name.clone(), link.clone());
        self.follow_link(now, &link.name, is_another, is_announced);
    }

    fn on_link_gone(&mut self, now: Time, name: &Name) {
        if self.links.remove(name).is_some() {
            self.follow_link(now, name, true, false);
        }
    }

    /// The link with this name is another now.
    fn follow_link(&mut self, now: Time, name: &Name, is_another: bool, is_announced: bool) {
        for id in self.instances.ids() {
            let state = self.instances.touch(id);
            state.follow_link(name, is_another, now);
            if is_announced {
                state.announce_on(name);
            }
        }
        let is_up = self.links.get(name).is_some_and(is_up);
        self.trackers.set_link(name, is_up, now);
        self.review_all(now);
    }

    fn on_fact_lost(&mut self, now: Time, key: FactKey, culprit: Option<String>) {
        let holds = |id: &InstanceId| self.instances[*id].facts().wants(&key);
        let Some(id) = self.instances.of_fact(&key).find(holds) else { return };
        let state = self.instances.touch(id);
        let name = state.name().clone();
        if state.lost(&key, now) {
            self.note(Some(name), EventKind::Healed { key, culprit });
        }
    }

    pub(crate) fn review_all(&mut self, now: Time) {
        for id in self.instances.ids() {
            self.review(now, id);
            self.instances.touch(id).observe_unwanted(&self.links, now);
        }
    }

    /// Looks again at whether an instance may take part and with what priority.
    pub(crate) fn review(&mut self, now: Time, id: InstanceId) {
        let source = self.source_of(id);
        let instance = Arc::clone(&self.instances[id].instance);
        // Adopted instances go on with the checks as they were; the next result speaks for itself.
        let judged = standpoint(&self.instances[id].router);
        let verdict = self.judge(&instance, self.instances[id].perspective(now));
        let waits_for_reports = self.trackers.awaits(&instance.track);
        let state = self.instances.touch(id);
        state.presume_up &= waits_for_reports;
        state.router.set_source(source);
        state.router.observe_link(verdict.link);
        let can_send = verdict.can_send();
        let adjustment = verdict.adjustment();
        let mut faults = verdict.faults;
        if let Some(error) = state.facts_mut().refusal(now) {
            faults.push(Fault::AddressesRefused { error: error.to_owned() });
        }
        state.faults.clone_from(&faults);
        let from = state.router.priority();
        let to = effective(&state.router, adjustment);
        if from != to {
            state.feed(now, RouterEvent::Priority(to));
        }
        state.learn_fitness(&verdict.loss, now);
        let adoptable = std::mem::take(&mut state.adoptable);
        if !faults.is_empty() {
            let reasons = fault::sentence(&faults);
            state.feed(now, RouterEvent::Fault { reasons, can_send });
        } else if adoptable {
            state.presume_up = true;
            state.feed(now, RouterEvent::Adopt);
        } else if !verdict.is_unknown {
            state.feed(now, RouterEvent::Eligible);
        }
        state.follow_fitness(verdict.loss, judged, now);
        if from != to {
            let why = PriorityCause::Trackers(verdict.parts);
            let name = instance.name.clone();
            self.note(Some(name), EventKind::Priority { from, to, why });
        }
    }

    pub(crate) fn judge(&self, instance: &plan::Instance, perspective: Perspective) -> Eligibility {
        Eligibility::of(instance, &self.links, &self.trackers, perspective)
    }

    /// The address adverts of this instance leave from.
    pub(crate) fn source_of(&self, id: InstanceId) -> Option<IpAddr> {
        let state = &self.instances[id];
        let link = self.links.get(&state.instance.interface)?;
        eligibility::source(state.router.settings(), link, &self.links)
    }

    /// Adds a notification to this drain.
    pub(crate) fn note(&mut self, instance: Option<Name>, kind: EventKind) -> u64 {
        self.events += 1;
        self.notes.push(Event { number: self.events, instance, kind });
        self.events
    }
}

/// It is there and has a carrier.
pub(crate) fn is_up(link: &LinkState) -> bool {
    link.index != 0 && link.running
}

/// G-020: a device of addresses came up or has another hardware address, so that hosts must hear
/// from it again.
fn must_reannounce(before: &LinkState, now: &LinkState) -> bool {
    (before.index, before.running, before.mac) != (now.index, now.running, now.mac)
}
