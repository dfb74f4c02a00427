//! From what the routers did to outputs, in the one order that is safe: adverts, addresses,
//! services, announcements, notifications and hooks, then the deadline.

use std::net::IpAddr;
use std::sync::Arc;

use locum_plan::{Name, WantedHaproxy, WantedServices};
use locum_vrrp::frame::{ArpForm, Speaker, gratuitous_arp, neighbor_advertisement};
use locum_vrrp::{Action, Event as RouterEvent, Profile, Role, Time};

use crate::Engine;
use crate::explain;
use crate::fault::PriorityCause;
use crate::hooks::{self, HookContext};
use crate::index::InstanceIndex;
use crate::input::LinkState;
use crate::instance::{InstanceState, Link};
use crate::listening;
use crate::output::{Announcement, EventKind, HeldAddress, HookRun, Output};
use crate::pacing;

impl Engine {
    pub(crate) fn drain(&mut self, now: Time, out: &mut Vec<Output>) {
        let touched: Vec<usize> =
            (0..self.instances.len()).filter(|at| self.instances[*at].touched).collect();
        self.answer_candidates(now, &touched);
        for at in &touched {
            self.drain_levels(now, *at, out);
        }
        self.drain_orphans(now, out);
        let levels_may_differ = self.levels_touched || self.role_changed(&touched);
        if levels_may_differ {
            self.drain_services(out);
        }
        for at in &touched {
            self.drain_announcements(now, *at, out);
            self.drain_own_address(now, *at, out);
        }
        if levels_may_differ {
            self.forget_paced(now);
        }
        self.drain_paced(now, out);
        let mut hooks = Vec::new();
        for at in &touched {
            let runs = self.drain_transitions(*at);
            hooks.extend(self.instances[*at].ripe_hooks(runs));
        }
        out.extend(self.notes.drain(..).map(Output::Notify));
        out.extend(hooks.into_iter().map(Output::Hook));
        if levels_may_differ {
            self.drain_listening(out);
        }
        self.drain_masters(&touched, out);
        self.levels_touched = false;
        for at in touched {
            self.instances[at].touched = false;
            self.deadlines[at] = self.instances[at].deadline();
        }
        self.remove_gone();
        if self.stopping && !self.stopped && self.instances.iter().all(InstanceState::is_gone) {
            self.stopped = true;
            out.push(Output::Stopped);
        }
        let deadlines = self.deadlines.iter().chain([&self.orphans_at]).flatten().copied();
        out.push(Output::Deadline(deadlines.chain(self.pacer.deadline()).min()));
    }

    /// Each router that would become master asks here (V-270), in the drain in which it does. Nobody
    /// else has a say, so all are granted.
    fn answer_candidates(&mut self, now: Time, touched: &[usize]) {
        for at in touched {
            let state = &mut self.instances[*at];
            if state.router.candidate().is_some() {
                state.feed(now, RouterEvent::Grant);
            }
        }
    }

    /// Under a name no instance can have.
    fn drain_orphans(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.orphans.is_empty() || self.orphans_at.is_none_or(|at| now < at) {
            return;
        }
        self.orphans_at = None;
        self.seq += 1;
        self.orphans_seq = self.seq;
        let drop = self.orphans.clone();
        out.push(Output::Apply { seq: self.seq, instance: "".into(), hold: Vec::new(), drop });
    }

    fn role_changed(&self, touched: &[usize]) -> bool {
        let mut actions = touched.iter().flat_map(|at| &self.instances[*at].actions);
        actions.any(|action| matches!(action, Action::Changed { .. }))
    }

    fn drain_levels(&mut self, now: Time, at: usize, out: &mut Vec<Output>) {
        let (before, rest) = self.instances.split_at_mut(at);
        let Some((state, after)) = rest.split_first_mut() else { return };
        let others = || before.iter().chain(after.iter());
        let claimed = |held: &HeldAddress| {
            others().filter(|other| other.router.holds_addresses()).any(|other| {
                let home = &other.instance.interface;
                other.instance.addresses.iter().any(|a| {
                    a.address == held.address.address
                        && a.device.as_ref().unwrap_or(home) == &held.interface
                })
            })
        };
        let interface = state.instance.interface.clone();
        let known = self.links.get(&interface);
        let settings = state.router.settings();
        let link = Link {
            index: known.map_or(0, |link| link.index),
            source: known.and_then(|link| crate::eligibility::source(settings, link, &self.links)),
        };
        state.drain_levels(now, link, &mut self.seq, &claimed, out);
    }

    /// What this node serves follows the addresses it holds; a newer level replaces an older one.
    fn drain_services(&mut self, out: &mut Vec<Output>) {
        let (instances, stopped) = (&self.instances, self.stopped);
        let holds = |instance: &Option<Name>| {
            instance.as_ref().is_none_or(|name| {
                instances.iter().any(|s| s.name() == name && s.router.holds_addresses())
            }) && !stopped
        };
        let lease = |instance: &Option<Name>| {
            let mut all = instances.iter().filter(|state| !state.leaving);
            all.find(|state| Some(state.name()) == instance.as_ref())?.lease()
        };
        let services = self.services.iter_mut();
        let services = services.filter_map(|state| {
            let instance = &state.service.instance;
            let (holds, lease) = (holds(instance), lease(instance));
            state.wanted(holds, lease)
        });
        let services = services.collect();
        let files = self.plan.iter().flat_map(|plan| &plan.haproxy);
        let haproxy = files
            .filter_map(|file| {
                let activity = file.standby.activity(holds(&file.instance))?;
                Some(WantedHaproxy { file: Arc::new(file.clone()), activity })
            })
            .collect();
        let mut wanted = WantedServices { services, haproxy };
        if self.stopping && self.instances.iter().all(|s| s.router.is_finished()) {
            wanted = WantedServices::default();
        }
        // The first level is always told: an earlier run may have left something serving.
        // So is the one after a reload when it names files: their text may have changed.
        let may_differ = self.serve_seq == 0 || !wanted.haproxy.is_empty();
        let tells = std::mem::take(&mut self.serve_again) && may_differ;
        if wanted != *self.served || tells {
            self.serve_seq += 1;
            self.served = Arc::new(wanted);
            let wanted = Arc::clone(&self.served);
            out.push(Output::Serve { seq: self.serve_seq, wanted });
        }
    }

    fn drain_announcements(&mut self, now: Time, at: usize, out: &mut Vec<Output>) {
        let state = &self.instances[at];
        let repeats = state.actions.iter().filter_map(|action| match action {
            Action::Announce { repeat } => Some(*repeat),
            Action::Advertise { .. }
            | Action::Propose { .. }
            | Action::Changed { .. }
            | Action::ConflictBegan { .. }
            | Action::ConflictEnded { .. }
            | Action::ClaimChanged { .. }
            | Action::Late { .. } => None,
        });
        let repeat = repeats.max().unwrap_or(0);
        // A router that left master in the same drain has nothing to announce (G-016).
        if repeat == 0 || state.router.role() != Role::Master {
            return;
        }
        self.pace(now, at, repeat);
        let state = &self.instances[at];
        let present = state.kernel().present();
        let at_once = present.filter(|held| pacing::gap(state, held.address.address).is_zero());
        let once: Vec<Announcement> =
            at_once.filter_map(|held| self.announcement(state, held)).collect();
        let mut frames = Vec::with_capacity(once.len() * usize::from(repeat));
        for _ in 0..repeat {
            frames.extend(once.iter().cloned());
        }
        if frames.is_empty() {
            return;
        }
        let after = state.seq();
        let until = now + state.router.shortest_takeover();
        let instance = state.name().clone();
        out.push(Output::Announce { instance, after, until, frames });
    }

    /// `None` on hardware that has no use for it (G-018), is not there, or cannot be heard (G-020).
    pub(crate) fn announcement(
        &self,
        state: &InstanceState,
        held: &HeldAddress,
    ) -> Option<Announcement> {
        let link = self.links.get(&held.interface).filter(|link| link.running)?;
        let mac = link.mac?;
        let address = held.address.address;
        let frame = match address {
            IpAddr::V4(v4) => gratuitous_arp(mac, v4, arp_form(state)),
            IpAddr::V6(v6) => neighbor_advertisement(mac, v6, speaker(state, link)),
        };
        let (interface, interface_index) = (held.interface.clone(), link.index);
        Some(Announcement { interface, interface_index, address, frame })
    }

    /// Notifications go to `notes`; the hooks they bring come back.
    fn drain_transitions(&mut self, at: usize) -> Vec<HookRun> {
        let actions = std::mem::take(&mut self.instances[at].actions);
        let mut runs = Vec::new();
        for action in actions {
            match action {
                Action::Advertise { .. } | Action::Announce { .. } | Action::Propose { .. } => {}
                Action::Changed { from, to, cause } => {
                    let state = &mut self.instances[at];
                    state.told.clear();
                    let priority = state.router.priority();
                    if to == Role::Master {
                        state.counters.master_transitions += 1;
                    }
                    let kind = EventKind::Transition { from, to, cause: cause.clone(), priority };
                    let instance = Arc::clone(&state.instance);
                    let is_replaced = state.leaving && self.has_successor(&instance.name);
                    let event = self.note(Some(instance.name.clone()), kind);
                    let name = &instance.name;
                    let cause = &cause;
                    let context = HookContext { instance: name, from, to, cause, priority, event };
                    if !is_replaced {
                        runs.extend(hooks::runs(&instance.hooks, &context));
                    }
                }
                Action::ConflictBegan { peer, priority } => {
                    let name = self.instances[at].name().clone();
                    let text = format!(
                        "another master with lower priority: {peer} advertises {}; \
                         answering and announcing until it yields",
                        priority.0
                    );
                    self.note(Some(name), EventKind::Note(text));
                }
                Action::ConflictEnded { peer, priority } => {
                    runs.extend(self.repair(at, peer, priority));
                }
                Action::ClaimChanged { from, to, peer } => {
                    let name = self.instances[at].name().clone();
                    let why = if to.is_owner() {
                        PriorityCause::OwnerReturns { peer }
                    } else {
                        PriorityCause::OwnerConcedes { peer }
                    };
                    self.note(Some(name), EventKind::Priority { from, to, why });
                }
                Action::Late { by } => {
                    let name = self.instances[at].name().clone();
                    self.note(Some(name), EventKind::Note(explain::late(by)));
                }
            }
        }
        runs
    }

    /// A reload gave the name to another VRID or interface: the hooks are that one's now, and a
    /// late STOP must not end what its MASTER has begun.
    fn has_successor(&self, name: &Name) -> bool {
        self.instances.iter().any(|state| !state.leaving && state.name() == name)
    }

    /// The master hook runs again: a floating-IP script of the other side may have run last.
    fn repair(
        &mut self,
        at: usize,
        peer: IpAddr,
        peer_priority: locum_vrrp::Priority,
    ) -> Vec<HookRun> {
        let instance = Arc::clone(&self.instances[at].instance);
        let kind = EventKind::Conflict { peer, peer_priority };
        let event = self.note(Some(instance.name.clone()), kind);
        let router = &self.instances[at].router;
        let context = HookContext {
            instance: &instance.name,
            from: Role::Master,
            to: Role::Master,
            cause: router.since().1,
            priority: router.priority(),
            event,
        };
        hooks::runs(&instance.hooks, &context)
    }

    fn drain_listening(&mut self, out: &mut Vec<Output>) {
        let heard = self.instances.iter().filter(|state| !state.router.is_finished());
        let heard = heard.map(|state| (&state.instance.interface, state.router.settings()));
        let wanted = listening::wanted(heard);
        if wanted != self.listening {
            self.listening.clone_from(&wanted);
            out.push(Output::Listen(wanted));
        }
    }

    fn drain_masters(&mut self, touched: &[usize], out: &mut Vec<Output>) {
        for at in touched {
            let state = &mut self.instances[*at];
            let master = state.router.master().filter(|_| !state.router.is_finished());
            let master = master.map(|master| master.address);
            let before = std::mem::replace(&mut state.followed, master);
            let family = state.router.settings().family;
            self.masters.follow(&state.instance.interface, family, before, master);
        }
        self.masters.drain(out);
    }

    /// Instances that have left the plan and handed over.
    fn remove_gone(&mut self) {
        if !self.instances.iter().any(|state| state.leaving && state.is_gone()) {
            return;
        }
        self.instances.retain(|state| !(state.leaving && state.is_gone()));
        self.reindex();
    }

    /// After `instances` changed.
    pub(crate) fn reindex(&mut self) {
        self.deadlines = self.instances.iter().map(InstanceState::deadline).collect();
        self.index = InstanceIndex::of(&self.instances);
        self.trackers.follow(self.instances.iter().map(|state| &state.instance.track[..]));
    }
}

/// G-003.
fn arp_form(state: &InstanceState) -> ArpForm {
    match state.router.settings().profile {
        Profile::Interop => ArpForm::RequestBroadcast,
        Profile::Strict => ArpForm::RequestSelf,
    }
}

/// G-006.
fn speaker(state: &InstanceState, link: &LinkState) -> Speaker {
    match (state.router.settings().profile, link.forwards_v6) {
        (Profile::Strict, _) | (Profile::Interop, true) => Speaker::Router,
        (Profile::Interop, false) => Speaker::Host,
    }
}
