//! Which instance a datagram is for.

use std::collections::HashMap;
use std::net::IpAddr;

use locum_plan::Name;
use locum_vrrp::{Family, Transport, Vrid};

use crate::instance::{InstanceState, Key};

/// Positions of the instances by what tells them apart on the wire (V-003). Unicast instances with
/// disjoint sets of peers may share a VRID; the sender decides between them (V-332).
///
/// Interface first, so that a lookup for every advert borrows the name.
#[derive(Debug, Default)]
pub struct InstanceIndex(HashMap<Name, HashMap<(Family, Vrid), Vec<usize>>>);

impl InstanceIndex {
    /// A leaving instance comes after its successor, which takes what both could hear.
    pub fn of(instances: &[InstanceState]) -> Self {
        let mut index = Self::default();
        for leaving in [false, true] {
            let all = instances.iter().enumerate();
            for (at, state) in all.filter(|(_, state)| state.leaving == leaving) {
                let Key { interface, family, vrid } = Key::of(&state.instance);
                let on_interface = index.0.entry(interface).or_default();
                on_interface.entry((family, vrid)).or_default().push(at);
            }
        }
        index
    }

    /// The instance that knows the sender as its peer, else the first: it says what is wrong.
    pub fn find(
        &self,
        interface: &str,
        vrid: Vrid,
        source: IpAddr,
        instances: &[InstanceState],
    ) -> Option<usize> {
        let all = self.0.get(interface)?.get(&(Family::of(&source), vrid))?;
        let known = all.iter().find(|at| instances.get(**at).is_some_and(|s| knows(s, source)));
        known.or(all.first()).copied()
    }
}

fn knows(state: &InstanceState, source: IpAddr) -> bool {
    match &state.router.settings().transport {
        Transport::Multicast { .. } => true,
        Transport::Unicast { peers, .. } => peers.iter().any(|peer| peer.address == source),
    }
}
