//! A router proposes, the engine grants: who else has a say when an instance would become master.
//!
//! The answer comes in the drain in which the router asks (V-270), so that where nobody has a say
//! nothing waits. Whoever has one (a group that moves together, an arbiter, a service that must be
//! ready first) objects here; a candidate that gets no answer becomes master at its bound (V-273).

use locum_vrrp::Event as RouterEvent;

use crate::ids::InstanceId;
use crate::instances::Instances;

/// Who has a say beside the routers.
#[derive(Debug, Default)]
pub struct Groups;

impl Groups {
    /// What the routers of this drain are told. Nobody else has a say yet, so all that ask are
    /// granted.
    pub fn decide(
        &self,
        touched: &[InstanceId],
        instances: &Instances,
    ) -> Vec<(InstanceId, RouterEvent<'static>)> {
        let asks = |id: &&InstanceId| instances[**id].router.candidate().is_some();
        touched.iter().filter(asks).map(|id| (*id, RouterEvent::Grant)).collect()
    }
}
