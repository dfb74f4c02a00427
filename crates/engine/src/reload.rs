//! A new plan: what is the same goes on undisturbed, what differs changes in place, what is gone
//! hands over first.

use std::collections::HashSet;
use std::sync::Arc;

use locum_plan as plan;
use locum_plan::{Name, Plan};
use locum_vrrp::{Cause, RouterEvent, Time};

use crate::engine::{Engine, is_up};
use crate::explain;
use crate::fault::PriorityCause;
use crate::ids::CommandId;
use crate::ids::InstanceId;
use crate::input::Inherited;
use crate::instance::{InstanceState, RouterKey};
use crate::instances::Instances;
use crate::output::{EventKind, Output, Reply};
use crate::probes::Subscriber;

#[derive(Default)]
struct ReloadTally {
    added: usize,
    changed: usize,
    removed: usize,
    unchanged: usize,
}

impl Engine {
    pub(crate) fn on_plan(
        &mut self,
        now: Time,
        id: CommandId,
        plan: Arc<Plan>,
        inherited: Vec<Inherited>,
        out: &mut Vec<Output>,
    ) {
        if self.stopping {
            let why = "this node is stopping and takes no new configuration";
            return out.push(Output::Reply { id, reply: Reply::Refused(why.to_owned()) });
        }
        let links = &self.links;
        self.trackers.replace(&plan, &|name| links.get(name).is_some_and(is_up), now);
        self.services.replace(now, &plan);
        self.strained.retain(|object| self.trackers.get(object).is_some());
        for at in 0..plan.services.len() {
            self.turn_quorum(now, at);
            self.note_population(now, at);
        }
        let tally = self.replace_instances(now, &plan);
        self.plan = Some(Arc::clone(&plan));
        self.replace_probes(out);
        self.entrust_unowned();
        self.inherit(now, inherited);
        self.levels_touched = true;
        let ReloadTally { added, changed, removed, unchanged } = tally;
        let reply = Reply::Ok(explain::reloaded(added, changed, removed, unchanged));
        out.push(Output::Reply { id, reply });
        self.note(None, EventKind::Reloaded { added, changed, removed, unchanged });
        self.review_all(now);
    }

    fn replace_probes(&mut self, out: &mut Vec<Output>) {
        let probes = self.trackers.probes().map(|(at, probe)| (probe, Subscriber::Tracker(at)));
        let services = self.services.iter().enumerate();
        let servers = services.flat_map(|(service, state)| {
            let servers = state.servers.iter().enumerate();
            servers.flat_map(move |(server, state)| {
                let all = state.server.health.iter().enumerate();
                all.map(move |(check, health)| {
                    (&health.probe, Subscriber::Server { service, server, check })
                })
            })
        });
        self.probes.set(probes.chain(servers), out);
    }

    fn replace_instances(&mut self, now: Time, plan: &Plan) -> ReloadTally {
        let mut tally = ReloadTally::default();
        let mut old: HashSet<InstanceId> = self.instances.ids().into_iter().collect();
        let mut order = Vec::with_capacity(plan.instances.len());
        let former = Former::of(plan);
        for instance in &plan.instances {
            let Some(id) = former.find(&self.instances, instance, &old) else {
                tally.added += 1;
                let instance = Arc::clone(instance);
                order.push(self.instances.insert(|id| InstanceState::new(id, instance, now)));
                continue;
            };
            old.remove(&id);
            order.push(id);
            let state = self.instances.touch(id);
            let was_leaving = std::mem::take(&mut state.leaving);
            if was_leaving {
                state.feed(now, RouterEvent::Resume);
            }
            let (before, perspective) = (state.router.priority(), state.perspective(now));
            let adjustment = self.judge(instance, perspective).adjustment();
            let state = self.instances.touch(id);
            let differs = state.replace(instance, adjustment, now);
            let after = state.router.priority();
            match (was_leaving, differs) {
                (true, _) => tally.added += 1,
                (false, true) => tally.changed += 1,
                (false, false) => tally.unchanged += 1,
            }
            if before != after {
                let why = PriorityCause::Reload;
                let kind = EventKind::Priority { from: before, to: after, why };
                self.note(Some(instance.name.clone()), kind);
            }
        }
        for id in self.instances.ids().into_iter().filter(|id| old.contains(id)) {
            let state = self.instances.touch(id);
            if !state.leaving {
                tally.removed += 1;
                state.leaving = true;
                state.feed(now, RouterEvent::Stop(Cause::Removed));
            }
            order.push(id);
        }
        self.instances.set_order(order);
        self.follow_trackers();
        tally
    }

    /// What the kernel did not let go of for an instance that has left is up to the one that has the
    /// fact now.
    fn entrust_unowned(&mut self) {
        for fact in std::mem::take(&mut self.unowned) {
            let stays = |id: &InstanceId| !self.instances[*id].leaving;
            let owner = self.instances.of_fact(&fact.key()).find(stays);
            match owner {
                Some(id) => self.instances.touch(id).inherit(fact),
                None => self.unowned.push(fact),
            }
        }
    }

    /// What an earlier run left: an instance whose address has a valid lease goes on as master;
    /// all else is withdrawn (V-242).
    fn inherit(&mut self, now: Time, inherited: Vec<Inherited>) {
        for found in inherited {
            let Inherited { fact, valid_seconds } = found;
            let key = fact.key();
            let stays = |id: &InstanceId| !self.instances[*id].leaving;
            let owner = self.instances.of_fact(&key).find(stays);
            let (name, kept) = match owner {
                Some(id) => {
                    let state = self.instances.touch(id);
                    let kept = state.is_adoptable(valid_seconds);
                    state.adoptable |= kept;
                    state.inherit(fact);
                    (Some(state.name().clone()), kept)
                }
                None => {
                    self.unowned.push(fact);
                    self.unowned_at = Some(now);
                    (None, false)
                }
            };
            self.note(name, EventKind::Adopted { key, kept });
        }
    }
}

/// Which instance of the former plan one of the new plan is: its key says so, whatever it was
/// called. Where unicast instances share a key (V-332) each keeps to its name.
struct Former(HashSet<(Name, RouterKey)>);

impl Former {
    fn of(plan: &Plan) -> Self {
        let all = plan.instances.iter();
        Self(all.map(|instance| (instance.name.clone(), RouterKey::of(instance))).collect())
    }

    fn find(
        &self,
        instances: &Instances,
        instance: &plan::Instance,
        left: &HashSet<InstanceId>,
    ) -> Option<InstanceId> {
        let key = RouterKey::of(instance);
        let alike = || instances.of_key(&key).filter(|id| left.contains(id));
        let name_of = |id: InstanceId| instances[id].name().clone();
        let named = alike().find(|id| name_of(*id) == instance.name);
        named.or_else(|| alike().find(|id| !self.0.contains(&(name_of(*id), key.clone()))))
    }
}
