//! Which instance a datagram is for.

use std::collections::HashMap;
use std::net::IpAddr;

use locum_vrrp::Transport;

use crate::instance::{InstanceState, Key};

/// Positions of the instances by what tells them apart on the wire (V-003). Unicast instances with
/// disjoint sets of peers may share a VRID; the sender decides between them (V-332).
#[derive(Debug, Default)]
pub struct InstanceIndex(HashMap<Key, Vec<usize>>);

impl InstanceIndex {
    /// A leaving instance comes after its successor, which takes what both could hear.
    pub fn of(instances: &[InstanceState]) -> Self {
        let mut index: HashMap<Key, Vec<usize>> = HashMap::new();
        for leaving in [false, true] {
            let all = instances.iter().enumerate();
            for (at, state) in all.filter(|(_, state)| state.leaving == leaving) {
                index.entry(Key::of(&state.instance)).or_default().push(at);
            }
        }
        Self(index)
    }

    /// The instance that knows the sender as its peer, else the first: it says what is wrong.
    pub fn find(&self, key: &Key, source: IpAddr, instances: &[InstanceState]) -> Option<usize> {
        let all = self.0.get(key)?;
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
