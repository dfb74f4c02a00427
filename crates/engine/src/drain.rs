//! From what the routers did to outputs, in the one order that is safe: adverts, addresses,
//! services, announcements, notifications and hooks, then the deadline.

use std::net::IpAddr;
use std::sync::Arc;

use locum_plan::{Name, Tracked};
use locum_vrrp::{Role, RouterAction, Time};

use crate::eligibility;
use crate::engine::Engine;
use crate::explain;
use crate::facts::{Fact, Removal, Whose};
use crate::fault::PriorityCause;
use crate::hooks::{self, HookContext};
use crate::ids::InstanceId;
use crate::ids::Owner;
use crate::instance::{Departure, InstanceLink};
use crate::listening;
use crate::output::{EventKind, HookRun, Output};
use crate::results::UNOWNED_PAUSE;
use crate::services::Holding;

impl Engine {
    pub(crate) fn drain(&mut self, now: Time, out: &mut Vec<Output>) {
        let dirty = self.instances.take_dirty();
        for id in &dirty {
            self.drain_adverts(now, *id, out);
        }
        for id in &dirty {
            self.drain_facts(now, *id, out);
        }
        self.drain_unowned(now, out);
        let roles_changed = self.role_changed(&dirty);
        if roles_changed || self.levels_touched {
            let is_over = self.stopping && self.instances.all_finished(&dirty);
            self.drain_services(now, is_over, out);
        }
        for id in &dirty {
            self.drain_announcements(now, *id, out);
            self.drain_own_address(now, *id, out);
        }
        if roles_changed && self.rate.deadline().is_some() {
            let is_master = |id: &InstanceId| self.instances[*id].router.role() == Role::Master;
            let left: Vec<InstanceId> = dirty.iter().copied().filter(|id| !is_master(id)).collect();
            self.rate.forget(&left);
        }
        self.drain_rate_limited(now, out);
        let mut hooks = std::mem::take(&mut self.hooks);
        for id in &dirty {
            let runs = self.drain_transitions(*id);
            let state = self.instances.touch(*id);
            hooks.extend(state.take_ready_hooks(runs));
            if let Some(waited) = state.facts_mut().take_lateness(now) {
                let name = state.name().clone();
                self.note(Some(name), EventKind::ApplyLate { waited });
            }
        }
        for (object, by) in self.strained.take_due(now) {
            self.note(None, EventKind::Strained { object, by });
        }
        out.extend(std::mem::take(&mut self.notes).into_iter().map(Output::Notify));
        out.extend(hooks.into_iter().map(Output::Hook));
        self.follow_masters(&dirty);
        let gone = self.remove_gone(now, &dirty);
        let is_done = |id: &InstanceId| {
            self.instances.get(*id).is_some_and(|one| one.leaving && one.router.is_finished())
        };
        if self.levels_touched || gone || roles_changed && dirty.iter().any(is_done) {
            self.drain_listening(out);
        }
        self.masters.drain(out);
        self.levels_touched = false;
        for id in &dirty {
            self.instances.settle(*id);
        }
        if self.stopping && !self.stopped && self.instances.all_gone() {
            self.stopped = true;
            let hooks = self.last_hooks();
            out.extend(std::mem::take(&mut self.notes).into_iter().map(Output::Notify));
            out.extend(hooks.into_iter().map(Output::Hook));
            out.push(Output::Stopped);
        }
        debug_assert_eq!(self.check_touched(&dirty), Ok(()), "what the engine promises itself");
        self.instances.give_back(dirty);
        let steps = self.services.deadline().filter(|_| !self.stopped);
        let deadlines = [
            self.instances.deadline(),
            self.unowned_at,
            self.rate.deadline(),
            self.strained.deadline(),
            steps,
        ];
        out.push(Output::Deadline(deadlines.into_iter().flatten().min()));
    }

    /// What an earlier run left and nobody has.
    fn drain_unowned(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.unowned.is_empty() {
            // A plan has given it to an instance.
            self.unowned_at = None;
        }
        if self.unowned_at.is_none_or(|at| now < at) {
            return;
        }
        self.unowned_at = None;
        self.seq += 1;
        self.unowned_seq = self.seq;
        let drop =
            self.unowned.iter().map(|fact| Removal { fact: fact.clone(), whose: Whose::Ours });
        let (owner, hold, drop) = (Owner::Nobody, Arc::default(), drop.collect());
        out.push(Output::Apply { seq: self.seq, owner, hold, drop });
    }

    fn role_changed(&self, dirty: &[InstanceId]) -> bool {
        let mut actions = dirty.iter().flat_map(|id| &self.instances[*id].actions);
        actions.any(|action| matches!(action, RouterAction::Changed { .. }))
    }

    fn drain_adverts(&mut self, now: Time, id: InstanceId, out: &mut Vec<Output>) {
        let state = &self.instances[id];
        if !state.actions.iter().any(|action| matches!(action, RouterAction::Advertise { .. })) {
            return;
        }
        let link = self.links.get(state.speaks_on());
        let source =
            link.and_then(|link| eligibility::source(state.router.settings(), link, &self.links));
        let link = InstanceLink { index: link.map_or(0, |link| link.index), source };
        self.instances.touch(id).drain_adverts(now, link, out);
    }

    fn drain_facts(&mut self, now: Time, id: InstanceId, out: &mut Vec<Output>) {
        if self.role_changed(&[id]) {
            self.instances.touch(id).observe_unwanted(&self.links, now);
        }
        let seq = &mut self.seq;
        let expelled = self.instances.touch_among(id, |state, others| {
            let claimed = |fact: &Fact| others.hold(fact);
            state.drain_facts(now, seq, &claimed, out)
        });
        if expelled.is_empty() {
            return;
        }
        let name = self.instances[id].name().clone();
        for held in expelled.iter().filter_map(Fact::address) {
            let (address, interface) = (held.address.address, held.interface.clone());
            self.note(Some(name.clone()), EventKind::Expelled { address, interface });
        }
    }

    /// What this node serves follows the addresses it holds.
    fn drain_services(&mut self, now: Time, is_over: bool, out: &mut Vec<Output>) {
        self.services.settle_steps(now);
        let holding = |instance: Option<&Name>| match instance {
            _ if self.stopped => Holding::default(),
            None => Holding { is_here: true, lease: None },
            Some(name) => self.instances.holding(name),
        };
        self.services.drain(now, holding, is_over, out);
    }

    /// Notifications go to `notes`; the hooks they bring come back.
    fn drain_transitions(&mut self, id: InstanceId) -> Vec<HookRun> {
        let actions = std::mem::take(&mut self.instances.touch(id).actions);
        let mut runs = Vec::new();
        for action in actions {
            match action {
                RouterAction::Advertise { .. }
                | RouterAction::Announce { .. }
                | RouterAction::Propose { .. } => {}
                RouterAction::Changed { from, to, cause } => {
                    let state = self.instances.touch(id);
                    state.reported.clear_on_role_change();
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
                    let context = HookContext {
                        instance: name,
                        from,
                        to,
                        cause,
                        priority,
                        event,
                        unfit: self.unfit(id),
                        strained: &self.strained_of(name),
                    };
                    if !is_replaced {
                        runs.extend(hooks::runs(&instance.hooks, &context));
                    }
                }
                RouterAction::ConflictBegan { peer, priority } => {
                    let name = self.instances[id].name().clone();
                    let text = format!(
                        "another master with lower priority: {peer} advertises {}; \
                         answering and announcing until it yields",
                        priority.0
                    );
                    self.note(Some(name), EventKind::Note(text));
                }
                RouterAction::ConflictEnded { peer, priority } => {
                    runs.extend(self.repair(id, peer, priority));
                }
                RouterAction::ClaimChanged { from, to, peer } => {
                    let name = self.instances[id].name().clone();
                    let why = if to.is_owner() {
                        PriorityCause::OwnerReturns { peer }
                    } else {
                        PriorityCause::OwnerConcedes { peer }
                    };
                    self.note(Some(name), EventKind::Priority { from, to, why });
                }
                RouterAction::Late { by } => {
                    let name = self.instances[id].name().clone();
                    self.note(Some(name), EventKind::Note(explain::late(by)));
                }
            }
        }
        runs
    }

    /// A reload gave the name to another VRID or interface: the hooks are that one's now, and a
    /// late STOP must not end what its MASTER has begun.
    fn has_successor(&self, name: &Name) -> bool {
        self.instances.named(name).is_some_and(|id| !self.instances[id].leaving)
    }

    /// The master hook runs again: a floating-IP script of the other side may have run last.
    fn repair(
        &mut self,
        id: InstanceId,
        peer: IpAddr,
        peer_priority: locum_vrrp::Priority,
    ) -> Vec<HookRun> {
        let instance = Arc::clone(&self.instances[id].instance);
        let kind = EventKind::Conflict { peer, peer_priority };
        let event = self.note(Some(instance.name.clone()), kind);
        let router = &self.instances[id].router;
        let context = HookContext {
            instance: &instance.name,
            from: Role::Master,
            to: Role::Master,
            cause: router.since().1,
            priority: router.priority(),
            event,
            unfit: self.unfit(id),
            strained: &self.strained_of(&instance.name),
        };
        hooks::runs(&instance.hooks, &context)
    }

    /// What this node cannot serve of an instance.
    fn unfit(&self, id: InstanceId) -> &[(Tracked, String)] {
        self.instances[id].fitness.as_ref().map_or(&[], |footing| &footing.loss.objects)
    }

    /// What of an instance is strained.
    fn strained_of(&self, instance: &Name) -> Vec<Tracked> {
        let is_own = |object: &&Tracked| self.services.instance_of(object) == Some(instance);
        self.strained.iter().filter(is_own).cloned().collect()
    }

    fn drain_listening(&mut self, out: &mut Vec<Output>) {
        let all = || self.instances.iter().filter(|state| !state.router.is_finished());
        let heard = all().map(|state| (&state.instance.interface, state.router.settings()));
        let spoken = all().map(|state| (state.speaks_on(), state.router.settings().family));
        let wanted = listening::wanted(heard, spoken);
        if wanted != self.listening {
            self.listening.clone_from(&wanted);
            out.push(Output::Listen(wanted));
        }
    }

    fn follow_masters(&mut self, dirty: &[InstanceId]) {
        for id in dirty.iter().copied() {
            let Some(state) = self.instances.quietly(id) else { continue };
            let master = state.router.master().filter(|_| !state.router.is_finished());
            let master = master.map(|master| master.address);
            let before = std::mem::replace(&mut state.followed, master);
            let family = state.router.settings().family;
            self.masters.follow(&state.instance.interface, family, before, master);
        }
    }

    /// After the instances of this node are others.
    pub(crate) fn follow_trackers(&mut self) {
        let tracks = self.instances.iter().map(|state| (state.id, &*state.instance));
        self.trackers.follow(tracks);
    }

    /// Instances that have left the plan and handed over. `true` when there were any. What the kernel
    /// does not let go of for them stays ours to remove.
    fn remove_gone(&mut self, now: Time, dirty: &[InstanceId]) -> bool {
        let is_gone = |id: &&InstanceId| {
            let state = &self.instances[**id];
            state.leaving && state.departure() == Departure::Gone
        };
        let gone: Vec<InstanceId> = dirty.iter().filter(is_gone).copied().collect();
        if !gone.is_empty() {
            let left = gone.iter().flat_map(|id| self.instances[*id].facts().left());
            let left: Vec<Fact> = left.cloned().collect();
            if !left.is_empty() {
                self.unowned.extend(left);
                self.unowned_at = Some(now + UNOWNED_PAUSE);
            }
            self.instances.remove(&gone);
            self.follow_trackers();
        }
        !gone.is_empty()
    }
}
