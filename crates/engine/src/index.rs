//! Which instance a datagram is for.

use std::collections::HashMap;
use std::net::IpAddr;

use locum_plan::Name;
use locum_vrrp::{Family, Vrid};

use crate::ids::InstanceId;
use crate::instance::{InstanceState, RouterKey};
use crate::table::InstanceTable;

/// The instances by what tells them apart on the wire (V-003). Unicast instances with
/// disjoint sets of peers may share a VRID; the sender decides between them (V-332).
///
/// Interface first, so that a lookup for every advert borrows the name.
#[derive(Debug, Default)]
pub struct InstanceIndex(HashMap<Name, InstanceTable<(Family, Vrid)>>);

impl InstanceIndex {
    /// Those that come first take what several could hear: an instance of the plan before one that
    /// leaves.
    pub fn of<'a>(instances: impl Iterator<Item = &'a InstanceState>) -> Self {
        let mut all: HashMap<Name, Vec<_>> = HashMap::new();
        for state in instances {
            let RouterKey { interface, family, vrid } = RouterKey::of(&state.instance);
            all.entry(interface).or_default().push(((family, vrid), state.id));
        }
        Self(all.into_iter().map(|(name, pairs)| (name, pairs.into_iter().collect())).collect())
    }

    /// All that have this key.
    pub fn of_key<'a>(&'a self, key: &RouterKey) -> impl Iterator<Item = InstanceId> + use<'a> {
        let on_interface = self.0.get(&key.interface);
        let wire = (key.family, key.vrid);
        on_interface.map(|all| all.get(&wire)).into_iter().flatten()
    }

    /// All that can be found.
    pub fn ids(&self) -> impl Iterator<Item = InstanceId> {
        self.0.values().flat_map(InstanceTable::ids)
    }

    /// The first that `hears` the sender, else the first of all: it says what is wrong.
    pub fn find(
        &self,
        interface: &str,
        vrid: Vrid,
        source: IpAddr,
        hears: impl Fn(InstanceId) -> bool,
    ) -> Option<InstanceId> {
        let on_interface = self.0.get(interface)?;
        let wire = (Family::of(&source), vrid);
        let known = on_interface.get(&wire).find(|id| hears(*id));
        known.or_else(|| on_interface.get(&wire).next())
    }
}
