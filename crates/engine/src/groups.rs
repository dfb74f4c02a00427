//! A router proposes, the engine grants: who else has a say when an instance would become master.
//!
//! The answer comes in the drain in which the router asks (V-270), so that where nobody has a say
//! nothing waits. Whoever has one (a group that moves together, an arbiter, a service that must be
//! ready first) objects here; a candidate that gets no answer becomes master at its bound (V-273).

use locum_vrrp::{Event as RouterEvent, Time};

use crate::engine::Engine;
use crate::ids::InstanceId;

impl Engine {
    /// Answers those that ask. Nobody else has a say yet, so all are granted.
    pub(crate) fn answer_candidates(&mut self, now: Time, dirty: &[InstanceId]) {
        for id in dirty {
            if self.instances[*id].router.candidate().is_some() {
                self.instances.touch(*id).feed(now, RouterEvent::Grant);
            }
        }
    }
}
