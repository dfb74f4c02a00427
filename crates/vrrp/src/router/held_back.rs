//! Why a router stays what it is although it could do better: the decision that nobody sees, because
//! nothing happens.

use super::Router;
use super::state::RouterState;
use crate::role::HeldBack;
use crate::settings::Preempt;

impl Router {
    /// `None` while nothing but better routers, or its role, keeps it from being master.
    pub fn held_back(&self) -> Option<HeldBack> {
        let waiting = match &self.state {
            RouterState::Initialize { eligible: true } => {
                return Some(HeldBack::StartDelay { until: self.start_until });
            }
            RouterState::Backup(waiting) => waiting,
            RouterState::Initialize { eligible: false }
            | RouterState::Stopped
            | RouterState::Fault
            | RouterState::Candidate(_)
            | RouterState::Master(_)
            | RouterState::Resigning(_) => return None,
        };
        if let Some((at, _)) = self.refused() {
            return Some(HeldBack::Refused { at });
        }
        if self.lets_pass(waiting.wait) {
            return Some(HeldBack::LetsPass { until: self.down_at(waiting) });
        }
        // The master last accepted: of a lower one that was ignored nothing is known here.
        let master = self.master.filter(|master| master.priority.0 != 0)?;
        if master.priority >= self.priority {
            return None;
        }
        match self.settings.preempt {
            _ if self.yielded => Some(HeldBack::Yielded),
            _ if self.priority.is_owner() => None,
            _ if self.fitness.leaves(master.priority) => Some(HeldBack::Unfit),
            Preempt::Never => Some(HeldBack::NoPreempt),
            Preempt::After(_) => waiting.preempt_at.map(|until| HeldBack::PreemptDelay { until }),
        }
    }
}
