//! Decide everything: all routers, trackers and services of one node.
//!
//! `(state, now, Input) → ordered Outputs, the last of them a Deadline`. Pure: no clock, socket,
//! file, random number or log. The whole product is the two enums below.
//!
//! ```text
//!   packet ───────────►  ┌───────────────────────────────┐ ──► Advertise  sent at once
//!   timeout ──────────►  │ routers   role, priority      │ ──► Apply{seq} wanted addresses
//!   probe outcome ────►  │ trackers  rise, fall, weight  │ ──► Serve{seq} wanted services
//!   link, addresses ──►  │ services  health              │ ──► Announce   after Apply{seq}
//!   applied, sent ────►  │ plan                          │ ──► Notify     log, history, API
//!   command ──────────►  │                               │ ──► Hook       queued per instance
//!   plan ─────────────►  └───────────────────────────────┘ ──► Probe, Listen, Masters, Reply, Stopped
//!                                                          ──► Deadline   always last
//! ```
//!
//! Contract: feed one `Input`, take every `Output` in order until `Deadline`, then feed the next.
//! A late, early or repeated `Timeout` is harmless. *Levels* (`Apply`, `Serve`, `Probe`, `Listen`,
//! `Masters`) say what should be true and may be applied twice; *edges* (`Advertise`, `Announce`, `Notify`,
//! `Hook`) happen once.

mod announce;
mod commands;
mod drain;
mod eligibility;
mod explain;
pub mod facts;
mod fault;
mod groups;
mod hooks;
mod index;
mod input;
mod instance;
mod instances;
mod listening;
mod output;
mod packets;
mod probes;
mod reload;
mod results;
mod service;
mod services;
pub mod status;
mod tracker;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use locum_plan::{Name, Outcome, Plan};
use locum_vrrp::counters::Counters;
use locum_vrrp::{Event as RouterEvent, Time};

pub use facts::{Fact, FactKey, HeldAddress, Removal, Whose};
pub use fault::{Fault, PriorityCause, PriorityPart};
pub use input::{
    Asked, Command, CommandId, Inherited, Input, LinkState, Packet, Refusal, Run, SendReport,
    Target,
};
pub use output::{
    Announcement, Datagram, Event, EventKind, HookRun, Listen, Masters, Output, Owner, ProbeChange,
    ProbeId, Reply, Seq,
};

use announce::rate::RateLimiter;
use eligibility::effective;
pub use instances::InstanceId;
use instances::Instances;
use listening::MasterSources;
use probes::{Asker, ProbeTable};
use services::Services;
use tracker::{Change, Trackers};

/// One node's decisions.
#[derive(Debug, Default)]
pub struct Engine {
    plan: Option<Arc<Plan>>,
    links: HashMap<Name, LinkState>,
    instances: Instances,
    trackers: Trackers,
    services: Services,
    probes: ProbeTable,
    /// Announcements whose rate is limited.
    rate: RateLimiter,
    /// What an earlier run left and no instance of the plan has.
    orphans: Vec<Fact>,
    /// When to withdraw them (again), and the number of the last try.
    orphans_at: Option<Time>,
    orphans_seq: Seq,
    /// Counters of what no instance matched, by interface.
    unmatched: HashMap<Name, Counters>,
    listening: Vec<Listen>,
    masters: MasterSources,
    seq: Seq,
    events: u64,
    /// Notifications of this drain.
    notes: Vec<Event>,
    /// Something other than a role change may alter what is served or listened to.
    levels_touched: bool,
    stopping: bool,
    stopped: bool,
}

impl Engine {
    /// A node that does nothing until its first [`Input::Plan`].
    pub fn new() -> Self {
        Self::default()
    }

    /// One input; outputs are appended in order, the last is `Deadline`.
    pub fn handle(&mut self, now: Time, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Packet(packet) => self.on_packet(now, packet),
            Input::Timeout => {
                self.run_timers(now);
                self.rate.may_send = true;
            }
            Input::Probed { probe, outcome } => self.on_probed(now, probe, &outcome),
            Input::Link(link) => self.on_link(now, link),
            Input::AddressLost { interface, address, culprit } => {
                self.on_address_lost(now, interface, address, culprit);
            }
            Input::LinkGone { name } => self.on_link_gone(now, &name),
            Input::Applied { seq, owner, result } => self.on_applied(now, seq, owner, &result),
            Input::Sent { instance, report } => self.on_sent(instance, report),
            Input::Served { seq, pending, failed } => self.on_served(seq, &pending, failed),
            Input::Command { id, command } => self.on_command(now, id, command, out),
            Input::Plan { id, plan, inherited } => self.on_plan(now, id, plan, inherited, out),
        }
        self.drain(now, out);
    }

    /// Every instance whose deadline has come. Nothing else runs timers: after a pause the adverts
    /// that wait in the sockets speak first (V-235).
    fn run_timers(&mut self, now: Time) {
        for id in self.instances.due(now) {
            let state = self.instances.touch(id);
            let was_pausing = state.facts().is_pausing();
            state.feed(now, RouterEvent::Timeout);
            if was_pausing && state.facts_mut().refusal(now).is_none() {
                self.review(now, id);
            }
        }
    }

    fn on_probed(&mut self, now: Time, probe: ProbeId, outcome: &Outcome) {
        for asker in self.probes.askers(probe) {
            match asker {
                Asker::Tracker(at) => self.on_checked(now, at, outcome),
                Asker::Server { service, server, check } => {
                    let Some(state) = self.services.get_mut(service) else { continue };
                    if !state.record(server, check, outcome, now) {
                        continue;
                    }
                    self.levels_touched = true;
                    let kind = EventKind::Server {
                        service: state.service.name.clone(),
                        server: state.servers[server].server.address,
                        up: state.servers[server].up() == Some(true),
                        detail: outcome.detail.clone(),
                    };
                    self.note(None, kind);
                }
            }
        }
    }

    fn on_checked(&mut self, now: Time, at: usize, outcome: &Outcome) {
        let change = self.trackers.record(at, outcome, now);
        let tracker = self.trackers.at(at);
        let detail = outcome.detail.clone();
        let kind = match change {
            Change::None => return,
            Change::Reported => None,
            Change::Turned => {
                let object = tracker.object.clone();
                let up = tracker.state.up == Some(true);
                Some(EventKind::Tracked { object, up, detail })
            }
            Change::Ignored => Some(EventKind::Note(format!(
                "{} cannot be run and is left out, as keepalived would: {detail}",
                tracker.object
            ))),
        };
        let dependents = tracker.dependents().to_vec();
        if let Some(kind) = kind {
            self.note(None, kind);
        }
        for instance in dependents {
            self.review(now, instance);
        }
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

    fn on_address_lost(
        &mut self,
        now: Time,
        interface: Name,
        address: IpAddr,
        culprit: Option<String>,
    ) {
        let key = FactKey::Address { interface: interface.clone(), address };
        let holders = self.instances.of_fact(&key).into_iter();
        let Some(id) = holders.into_iter().find(|id| self.instances[*id].facts().wants(&key))
        else {
            return;
        };
        let state = self.instances.touch(id);
        let name = state.name().clone();
        if state.lost(&key, now) {
            self.note(Some(name), EventKind::Healed { address, interface, culprit });
        }
    }

    fn review_all(&mut self, now: Time) {
        for id in self.instances.ids() {
            self.review(now, id);
            self.instances.touch(id).observe_unwanted(&self.links, now);
        }
    }

    /// Looks again at whether an instance may take part and with what priority.
    fn review(&mut self, now: Time, id: InstanceId) {
        let source = self.source_of(id);
        let instance = Arc::clone(&self.instances[id].instance);
        // Adopted instances go on with the checks as they were; the next result speaks for itself.
        let presumes = self.instances[id].presume_up || self.instances[id].adoptable;
        let verdict = self.judge(&instance, presumes);
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
        if from != to {
            let why = PriorityCause::Trackers(verdict.parts);
            let name = instance.name.clone();
            self.note(Some(name), EventKind::Priority { from, to, why });
        }
    }

    /// The address adverts of this instance leave from.
    fn source_of(&self, id: InstanceId) -> Option<IpAddr> {
        let state = &self.instances[id];
        let link = self.links.get(&state.instance.interface)?;
        eligibility::source(state.router.settings(), link, &self.links)
    }

    /// Adds a notification to this drain.
    fn note(&mut self, instance: Option<Name>, kind: EventKind) -> u64 {
        self.events += 1;
        self.notes.push(Event { number: self.events, instance, kind });
        self.events
    }
}

/// It is there and has a carrier.
fn is_up(link: &LinkState) -> bool {
    link.index != 0 && link.running
}

/// G-020: a device of addresses came up or has another hardware address, so that hosts must hear
/// from it again.
fn must_reannounce(before: &LinkState, now: &LinkState) -> bool {
    (before.index, before.running, before.mac) != (now.index, now.running, now.mac)
}
