//! Our own address, announced when a unicast instance comes back from a fault.
//!
//! The master that goes on meanwhile sends to that address. If its link layer has forgotten us, or
//! our hardware address is another one now, its first adverts would wait for a resolution, and this
//! node would take its silence for death (V-333).

use std::net::IpAddr;

use locum_vrrp::frame::{ArpForm, Speaker, gratuitous_arp, neighbor_advertisement};
use locum_vrrp::{Role, RouterAction, Time, Transport};

use crate::engine::Engine;
use crate::ids::InstanceId;
use crate::output::{Announcement, Output};

impl Engine {
    pub(crate) fn drain_own_address(&self, now: Time, id: InstanceId, out: &mut Vec<Output>) {
        let state = &self.instances[id];
        let came_back = state.actions.iter().any(|action| {
            matches!(action, RouterAction::Changed { from: Role::Fault, to: Role::Backup, .. })
        });
        let settings = state.router.settings();
        if !came_back || matches!(settings.transport, Transport::Multicast { .. }) {
            return;
        }
        let Some(announcement) = self.own_announcement(id) else { return };
        out.push(Output::Announce {
            instance: id,
            until: now + state.router.shortest_takeover(),
            frames: vec![announcement],
        });
    }

    /// `None` where nothing is announced (G-018), or the source is on another link.
    fn own_announcement(&self, id: InstanceId) -> Option<Announcement> {
        let address = self.source_of(id)?;
        let link = self.links.get(&self.instances[id].instance.interface)?;
        let mac = link.mac.filter(|_| link.addresses.contains(&address))?;
        let speaker = if link.forwards_v6 { Speaker::Router } else { Speaker::Host };
        let frame = match address {
            IpAddr::V4(v4) => gratuitous_arp(mac, v4, ArpForm::RequestBroadcast),
            IpAddr::V6(v6) => neighbor_advertisement(mac, v6, speaker),
        };
        let (interface, interface_index) = (link.name.clone(), link.index);
        Some(Announcement { interface, interface_index, address, frame: frame.into() })
    }
}
