//! A new plan: what is the same goes on undisturbed, what differs changes in place, what is gone
//! hands over first.

use std::sync::Arc;

use locum_plan as plan;
use locum_plan::{Name, Plan, VirtualAddress};
use locum_vrrp::{Cause, Event as RouterEvent, Time};

use crate::fault::PriorityCause;
use crate::input::Inherited;
use crate::instance::{InstanceState, Key};
use crate::output::{EventKind, HeldAddress, Output};
use crate::probes::Asker;
use crate::service::ServiceState;
use crate::{Engine, is_up};

#[derive(Default)]
struct Tally {
    added: usize,
    changed: usize,
    removed: usize,
    unchanged: usize,
}

impl Engine {
    pub(crate) fn on_plan(
        &mut self,
        now: Time,
        plan: Arc<Plan>,
        inherited: Vec<Inherited>,
        out: &mut Vec<Output>,
    ) {
        if self.stopping {
            return;
        }
        let links = &self.links;
        self.trackers.replace(&plan, &|name| links.get(name).is_some_and(is_up), now);
        self.replace_services(now, &plan);
        let tally = self.replace_instances(now, &plan);
        self.plan = Some(Arc::clone(&plan));
        self.replace_probes(out);
        self.inherit(now, inherited);
        self.levels_touched = true;
        self.serve_again = true;
        self.reindex();
        let Tally { added, changed, removed, unchanged } = tally;
        self.note(None, EventKind::Reloaded { added, changed, removed, unchanged });
        self.review_all(now);
    }

    fn replace_probes(&mut self, out: &mut Vec<Output>) {
        let checks = self.trackers.checks();
        let checks = checks.map(|(at, check, _)| (&check.probe, Asker::Tracker(at)));
        let services = self.services.iter().enumerate();
        let servers = services.flat_map(|(service, state)| {
            let servers = state.servers.iter().enumerate();
            servers.filter_map(move |(server, state)| {
                Some((state.probe.as_ref()?, Asker::Server { service, server }))
            })
        });
        self.probes.set(checks.chain(servers), out);
    }

    fn replace_services(&mut self, now: Time, plan: &Plan) {
        let old = std::mem::take(&mut self.services);
        let keep = |service: &plan::Service| {
            let known = old.iter().find(|state| state.service.name == service.name);
            match known {
                Some(state) if *state.service == *service => state.clone(),
                Some(_) | None => ServiceState::new(service, known, now),
            }
        };
        self.services = plan.services.iter().map(keep).collect();
    }

    fn replace_instances(&mut self, now: Time, plan: &Plan) -> Tally {
        let mut tally = Tally::default();
        let mut old = std::mem::take(&mut self.instances);
        for instance in &plan.instances {
            let key = Key::of(instance);
            let instance = Arc::new(instance.clone());
            let Some(at) = former(&old, &key, &instance.name, plan) else {
                tally.added += 1;
                self.instances.push(InstanceState::new(instance, now));
                continue;
            };
            let mut state = old.swap_remove(at);
            let was_leaving = state.leaving;
            if was_leaving {
                state.leaving = false;
                state.feed(now, RouterEvent::Resume);
            }
            let before = state.router.priority();
            let adjustment = self.judge(&instance, state.presume_up).adjustment();
            let differs = state.replace(&instance, adjustment, now);
            if was_leaving {
                tally.added += 1;
            } else if differs {
                tally.changed += 1;
            } else {
                tally.unchanged += 1;
            }
            let after = state.router.priority();
            if before != after {
                let why = PriorityCause::Reload;
                let kind = EventKind::Priority { from: before, to: after, why };
                self.note(Some(instance.name.clone()), kind);
            }
            self.instances.push(state);
        }
        for mut state in old {
            if !state.leaving {
                tally.removed += 1;
                state.leaving = true;
                state.feed(now, RouterEvent::Stop(Cause::Removed));
            }
            self.instances.push(state);
        }
        tally
    }

    /// What an earlier run left: an instance whose address has a valid lease goes on as master;
    /// all else is withdrawn (V-242).
    fn inherit(&mut self, now: Time, inherited: Vec<Inherited>) {
        for found in inherited {
            let Inherited { interface, address, prefix, valid_seconds } = found;
            let owner = self.instances.iter_mut().find(|state| {
                let mut addresses = state.instance.addresses.iter();
                !state.leaving
                    && addresses.any(|a| {
                        let device = a.device.as_ref().unwrap_or(&state.instance.interface);
                        a.address == address && *device == interface
                    })
            });
            let held = HeldAddress {
                interface: interface.clone(),
                address: VirtualAddress::new(address, prefix),
                lease_seconds: None,
            };
            let (name, kept) = match owner {
                Some(state) => {
                    let kept = state.is_adoptable(valid_seconds);
                    state.adoptable |= kept;
                    state.add_leftovers([held]);
                    (Some(state.name().clone()), kept)
                }
                None => {
                    self.orphans.push(held);
                    self.orphans_at = Some(now);
                    (None, false)
                }
            };
            self.note(name, EventKind::Adopted { address, interface, kept });
        }
    }
}

/// The state of an instance before the reload: its key says which, whatever it was called. Where
/// unicast instances share a key (V-332) each keeps to its name.
fn former(old: &[InstanceState], key: &Key, name: &Name, plan: &Plan) -> Option<usize> {
    let alike = |state: &InstanceState| Key::of(&state.instance) == *key;
    let is_claimed = |state: &InstanceState| {
        plan.instances.iter().any(|other| other.name == *state.name() && Key::of(other) == *key)
    };
    let named = old.iter().position(|state| alike(state) && state.name() == name);
    named.or_else(|| old.iter().position(|state| alike(state) && !is_claimed(state)))
}
