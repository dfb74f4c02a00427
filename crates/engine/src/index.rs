//! Which instance a datagram is for.

use std::collections::HashMap;
use std::net::IpAddr;

use locum_plan::Name;
use locum_vrrp::{Family, Vrid};

use crate::ids::InstanceId;
use crate::instance::{InstanceState, Key};

/// The instances by what tells them apart on the wire (V-003). Unicast instances with
/// disjoint sets of peers may share a VRID; the sender decides between them (V-332).
///
/// Interface first, so that a lookup for every advert borrows the name.
#[derive(Debug, Default)]
pub struct InstanceIndex(HashMap<Name, HashMap<(Family, Vrid), Vec<InstanceId>>>);

impl InstanceIndex {
    /// Those that come first take what several could hear: an instance of the plan before one that
    /// leaves.
    pub fn of<'a>(instances: impl Iterator<Item = &'a InstanceState>) -> Self {
        let mut index = Self::default();
        for state in instances {
            let Key { interface, family, vrid } = Key::of(&state.instance);
            let on_interface = index.0.entry(interface).or_default();
            on_interface.entry((family, vrid)).or_default().push(state.id);
        }
        index
    }

    /// All that have this key.
    pub fn of_key(&self, key: &Key) -> &[InstanceId] {
        let on_interface = self.0.get(&key.interface);
        let all = on_interface.and_then(|all| all.get(&(key.family, key.vrid)));
        all.map_or(&[], Vec::as_slice)
    }

    /// The first that `hears` the sender, else the first of all: it says what is wrong.
    pub fn find(
        &self,
        interface: &str,
        vrid: Vrid,
        source: IpAddr,
        hears: impl Fn(InstanceId) -> bool,
    ) -> Option<InstanceId> {
        let all = self.0.get(interface)?.get(&(Family::of(&source), vrid))?;
        let known = all.iter().find(|id| hears(**id));
        known.or(all.first()).copied()
    }
}
