//! Announcements that keep a distance on their interface (G-015).
//!
//! ```text
//!   burst ──► queue of (interface, ARP or NA) ──► one frame ──gap──► one frame ──gap──► …
//!                 ▲                                  │
//!                 └──── what is left of its count ◄──┘
//! ```
//!
//! The queue turns: every address is announced once, then each again (G-011), whichever instance it
//! belongs to. An address that waits already is announced as often as the larger of both bursts
//! says. What no master holds any more leaves the queue (G-016). A frame is built when its time
//! comes, and only in a drain that timers began: a node that slept must have lost what it lost
//! before it announces anything.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use locum_plan::Name;
use locum_vrrp::{Family, Role, Time};

use crate::Engine;
use crate::instance::InstanceState;
use crate::output::{HeldAddress, Output};

/// The queues, one per interface and kind of frame.
#[derive(Debug, Default)]
pub struct Pacer {
    lanes: BTreeMap<(Name, Family), Lane>,
    /// This drain was begun by timers.
    pub may_send: bool,
}

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Waiting>,
    /// When the next frame may leave.
    free_at: Time,
}

#[derive(Debug)]
struct Waiting {
    address: IpAddr,
    /// At least 1.
    left: u8,
    /// From this frame to the next.
    gap: Duration,
}

impl Pacer {
    /// `repeat` is at least 1.
    fn add(&mut self, now: Time, interface: &Name, address: IpAddr, repeat: u8, gap: Duration) {
        let key = (interface.clone(), Family::of(&address));
        let lane = self.lanes.entry(key).or_default();
        if lane.queue.is_empty() {
            lane.free_at = lane.free_at.max(now);
        }
        match lane.queue.iter_mut().find(|waiting| waiting.address == address) {
            Some(waiting) => {
                waiting.left = waiting.left.max(repeat);
                waiting.gap = gap;
            }
            None => lane.queue.push_back(Waiting { address, left: repeat, gap }),
        }
    }

    fn retain(&mut self, now: Time, is_held: impl Fn(&Name, IpAddr) -> bool) {
        self.lanes.retain(|(interface, _), lane| {
            lane.queue.retain(|waiting| is_held(interface, waiting.address));
            !lane.queue.is_empty() || now < lane.free_at
        });
    }

    /// The frames whose time has come, at most one per queue.
    fn take_due(&mut self, now: Time) -> Vec<(Name, IpAddr)> {
        let mut due = Vec::new();
        for ((interface, _), lane) in &mut self.lanes {
            if now < lane.free_at {
                continue;
            }
            let Some(mut waiting) = lane.queue.pop_front() else { continue };
            due.push((interface.clone(), waiting.address));
            lane.free_at = now + waiting.gap;
            waiting.left -= 1;
            if waiting.left > 0 {
                lane.queue.push_back(waiting);
            }
        }
        due
    }

    /// When a frame may leave next.
    pub fn deadline(&self) -> Option<Time> {
        let busy = self.lanes.values().filter(|lane| !lane.queue.is_empty());
        busy.map(|lane| lane.free_at).min()
    }
}

impl Engine {
    /// Queues the addresses of an instance that keep a distance; the others may leave at once.
    pub(crate) fn pace(&mut self, now: Time, at: usize, repeat: u8) {
        let state = &self.instances[at];
        for held in state.kernel().present() {
            let address = held.address.address;
            let gap = gap(state, address);
            if !gap.is_zero() {
                self.pacer.add(now, &held.interface, address, repeat, gap);
            }
        }
    }

    /// After roles or the plan have changed.
    pub(crate) fn forget_paced(&mut self, now: Time) {
        let instances = &self.instances;
        self.pacer
            .retain(now, |interface, address| holder(instances, interface, address).is_some());
    }

    pub(crate) fn drain_paced(&mut self, now: Time, out: &mut Vec<Output>) {
        if !std::mem::take(&mut self.pacer.may_send) {
            return;
        }
        for (interface, address) in self.pacer.take_due(now) {
            let holder = holder(&self.instances, &interface, address);
            let Some((state, held)) = holder else { continue };
            out.extend(self.announcement(state, held).map(|frame| Output::Announce {
                instance: state.name().clone(),
                after: state.seq(),
                until: now + state.router.shortest_takeover(),
                frames: vec![frame],
            }));
        }
    }
}

/// The master that holds this address, with the address as it holds it.
fn holder<'a>(
    instances: &'a [InstanceState],
    interface: &Name,
    address: IpAddr,
) -> Option<(&'a InstanceState, &'a HeldAddress)> {
    let mut masters = instances.iter().filter(|state| state.router.role() == Role::Master);
    masters.find_map(|state| {
        let mut all = state.kernel().present();
        let is_it =
            |held: &&HeldAddress| held.interface == *interface && held.address.address == address;
        all.find(is_it).map(|held| (state, held))
    })
}

/// Zero is none.
pub fn gap(state: &InstanceState, address: IpAddr) -> Duration {
    let announce = &state.router.settings().announce;
    match Family::of(&address) {
        Family::V4 => announce.garp_interval,
        Family::V6 => announce.gna_interval,
    }
}
