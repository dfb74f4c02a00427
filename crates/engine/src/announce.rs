//! Announce what is in place and answers.
//!
//! | module | owns |
//! |---|---|
//! | here | when a burst may go: it waits for the kernel and for the services of the instance, up to a bound |
//! | `burst` | what waits |
//! | `rate` | announcements that keep a distance on their interface (G-015) |
//! | `own_address` | the address of this node itself, after a fault |
//!
//! A host that is told too early sends to a node that does not answer yet; one that is told too
//! late goes on sending to one that does not answer any more. So a burst waits until the kernel has
//! put every address in place (G-020) and every service of the instance answers. The wait for
//! services is bounded by [`Router::ready_limit`], because a service that cannot be served must not
//! keep the others away. An address that is not in place is never announced; it follows when it is.
//!
//! [`Router::ready_limit`]: locum_vrrp::Router::ready_limit

pub mod burst;
mod own_address;
pub mod rate;

use std::net::IpAddr;

use locum_plan::Name;
use locum_vrrp::frame::{ArpForm, Speaker, gratuitous_arp, neighbor_advertisement};
use locum_vrrp::{Profile, Role, RouterAction, Time};

use crate::announce::burst::PendingAnnouncement;
use crate::announce::rate::WaitingFrame;
use crate::engine::Engine;
use crate::facts::HeldAddress;
use crate::ids::InstanceId;
use crate::input::LinkState;
use crate::instance::InstanceState;
use crate::instances::Instances;
use crate::output::{Announcement, Awaited, EventKind, Output};

impl Engine {
    /// The bursts that routers asked for, once they may go.
    pub(crate) fn drain_announcements(&mut self, now: Time, id: InstanceId, out: &mut Vec<Output>) {
        let state = &self.instances[id];
        let repeats = state.actions.iter().filter_map(|action| match action {
            RouterAction::Announce { repeat } => Some(*repeat),
            RouterAction::Advertise { .. }
            | RouterAction::Propose { .. }
            | RouterAction::Changed { .. }
            | RouterAction::ConflictBegan { .. }
            | RouterAction::ConflictEnded { .. }
            | RouterAction::ClaimChanged { .. }
            | RouterAction::Late { .. } => None,
        });
        let repeat = repeats.max().unwrap_or(0);
        let is_master = state.router.role() == Role::Master;
        if !is_master || repeat == 0 && !state.announce.is_some() {
            // A router that has left master has nothing to announce (G-016).
            if state.announce.is_some() {
                self.instances.touch(id).announce = PendingAnnouncement::default();
            }
            return;
        }
        let awaits_kernel = state.facts().is_awaited();
        let service = self.services.awaited(state.name());
        let state = self.instances.touch(id);
        state.announce.add(repeat, now);
        let limit = state.router.ready_limit();
        let Some(burst) = &mut state.announce.0 else { return };
        let (repeat, waited) = (burst.repeat, now.since(burst.since));
        let is_waiting = awaits_kernel || service.is_some() && !burst.is_overdue;
        if is_waiting && (burst.is_overdue || waited < limit) {
            return;
        }
        if awaits_kernel {
            // What is in place goes, the rest follows.
            burst.is_overdue = true;
        } else {
            state.announce = PendingAnnouncement::default();
        }
        self.announce_now(now, id, repeat, out);
        if is_waiting {
            let awaited = match service {
                Some(name) if !awaits_kernel => Awaited::Service(name),
                Some(_) | None => Awaited::Addresses,
            };
            let name = self.instances[id].name().clone();
            self.note(Some(name), EventKind::AnnouncedUnready { waited, awaited });
        }
    }

    fn announce_now(&mut self, now: Time, id: InstanceId, repeat: u8, out: &mut Vec<Output>) {
        self.limit_rate(now, id, repeat);
        let state = &self.instances[id];
        let all = state.addresses_in_place();
        let at_once = all.filter(|held| rate::gap(state, held.address.address).is_zero());
        let once: Vec<Announcement> =
            at_once.filter_map(|held| self.announcement(state, held)).collect();
        let mut frames = Vec::with_capacity(once.len() * usize::from(repeat));
        for _ in 0..repeat {
            frames.extend(once.iter().cloned());
        }
        if frames.is_empty() {
            return;
        }
        let until = now + state.router.shortest_takeover();
        out.push(Output::Announce { instance: id, until, frames });
    }

    /// `None` on hardware that has no use for it (G-018), is not there, or cannot be heard (G-020).
    pub(crate) fn announcement(
        &self,
        state: &InstanceState,
        held: &HeldAddress,
    ) -> Option<Announcement> {
        let link = self.links.get(&held.interface).filter(|link| link.running)?;
        let mac = link.mac?;
        let address = held.address.address;
        let frame = match address {
            IpAddr::V4(v4) => gratuitous_arp(mac, v4, arp_form(state)),
            IpAddr::V6(v6) => neighbor_advertisement(mac, v6, speaker(state, link)),
        };
        let (interface, interface_index) = (held.interface.clone(), link.index);
        Some(Announcement { interface, interface_index, address, frame: frame.into() })
    }

    /// Queues the addresses of an instance whose rate is limited; the others may leave at once.
    pub(crate) fn limit_rate(&mut self, now: Time, id: InstanceId, left: u8) {
        let state = &self.instances[id];
        for held in state.addresses_in_place() {
            let address = held.address.address;
            let gap = rate::gap(state, address);
            if !gap.is_zero() {
                let waiting = WaitingFrame { instance: id, address, left, gap };
                self.rate.add(now, &held.interface, waiting);
            }
        }
    }

    pub(crate) fn drain_rate_limited(&mut self, now: Time, out: &mut Vec<Output>) {
        if !std::mem::take(&mut self.rate.may_send) {
            return;
        }
        let instances = &self.instances;
        let is_held = |id: InstanceId, interface: &Name, address: IpAddr| {
            held(instances, id, interface, address).is_some()
        };
        for (id, interface, address) in self.rate.take_due(now, is_held) {
            let Some((state, held)) = held(&self.instances, id, &interface, address) else {
                continue;
            };
            out.extend(self.announcement(state, held).map(|frame| Output::Announce {
                instance: id,
                until: now + state.router.shortest_takeover(),
                frames: vec![frame],
            }));
        }
    }
}

/// The instance, which is master, with the address as it holds it.
fn held<'a>(
    instances: &'a Instances,
    id: InstanceId,
    interface: &Name,
    address: IpAddr,
) -> Option<(&'a InstanceState, &'a HeldAddress)> {
    let state = instances.get(id).filter(|state| state.router.role() == Role::Master)?;
    let mut all = state.addresses_in_place();
    let held = all.find(|held| held.interface == *interface && held.address.address == address)?;
    Some((state, held))
}

/// G-003.
fn arp_form(state: &InstanceState) -> ArpForm {
    match state.router.settings().profile {
        Profile::Interop => ArpForm::RequestBroadcast,
        Profile::Strict => ArpForm::RequestSelf,
    }
}

/// G-006.
fn speaker(state: &InstanceState, link: &LinkState) -> Speaker {
    match (state.router.settings().profile, link.forwards_v6) {
        (Profile::Strict, _) | (Profile::Interop, true) => Speaker::Router,
        (Profile::Interop, false) => Speaker::Host,
    }
}
