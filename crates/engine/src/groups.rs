//! A router proposes, the engine grants: who else has a say when an instance would become master.
//!
//! The question is put in the drain in which the router asks (V-270), so that where nobody has a
//! say nothing waits. Whoever has one (a group that moves together, an arbiter, a service that must
//! be ready first) objects here; a candidate that gets no answer becomes master at its bound
//! (V-273).

use locum_vrrp::{RouterEvent, Time};

use crate::arbiter::{Arbiter, Decision};
use crate::ids::InstanceId;
use crate::instances::Instances;

/// Who has a say beside the routers.
#[derive(Debug, Default)]
pub struct Groups {
    /// Candidates whose question was deferred.
    undecided: Vec<InstanceId>,
}

impl Groups {
    /// What the routers that ask are told, and those that have asked before and got no answer.
    pub fn decide(
        &mut self,
        now: Time,
        arbiter: &mut dyn Arbiter,
        instances: &Instances,
    ) -> Vec<(InstanceId, RouterEvent<'static>)> {
        let asks = |id: &InstanceId| {
            instances.get(*id).is_some_and(|state| state.router.candidate().is_some())
        };
        let mut asking = std::mem::take(&mut self.undecided);
        asking.extend(instances.touched().iter().copied().filter(asks));
        asking.sort_unstable();
        asking.dedup();
        let mut answers = Vec::new();
        for id in asking {
            let Some(state) = instances.get(id) else { continue };
            let Some((cause, _)) = state.router.candidate() else { continue };
            match arbiter.decide(now, state.name(), cause) {
                Decision::Grant => answers.push((id, RouterEvent::Grant)),
                Decision::Refuse => answers.push((id, RouterEvent::Refuse)),
                Decision::Defer => self.undecided.push(id),
            }
        }
        answers
    }

    /// The question of this candidate was deferred, and is put again with the next input.
    pub fn is_undecided(&self, id: InstanceId) -> bool {
        self.undecided.contains(&id)
    }
}
