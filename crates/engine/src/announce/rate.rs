//! Announcements at a limited rate: a gap between two on one interface (G-015).
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
use crate::facts::HeldAddress;
use crate::instance::InstanceState;
use crate::instances::{InstanceId, Instances};
use crate::output::Output;

/// The queues, one per interface and kind of frame.
#[derive(Debug, Default)]
pub struct RateLimiter {
    queues: BTreeMap<(Name, Family), Queue>,
    /// This drain was begun by timers.
    pub may_send: bool,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Waiting>,
    /// When the next frame may leave.
    free_at: Time,
}

#[derive(Debug)]
struct Waiting {
    instance: InstanceId,
    address: IpAddr,
    /// At least 1.
    left: u8,
    /// From this frame to the next.
    gap: Duration,
}

impl RateLimiter {
    /// `waiting.left` is at least 1.
    fn add(&mut self, now: Time, interface: &Name, new: Waiting) {
        let key = (interface.clone(), Family::of(&new.address));
        let queue = self.queues.entry(key).or_default();
        if queue.frames.is_empty() {
            queue.free_at = queue.free_at.max(now);
        }
        let same = |old: &&mut Waiting| (old.instance, old.address) == (new.instance, new.address);
        match queue.frames.iter_mut().find(same) {
            Some(old) => {
                old.left = old.left.max(new.left);
                old.gap = new.gap;
            }
            None => queue.frames.push_back(new),
        }
    }

    /// The frames whose time has come, at most one per queue. What is not held any more leaves its
    /// queue without taking a turn.
    fn take_due(
        &mut self,
        now: Time,
        is_held: impl Fn(InstanceId, &Name, IpAddr) -> bool,
    ) -> Vec<(InstanceId, Name, IpAddr)> {
        let mut due = Vec::new();
        self.queues.retain(|(interface, _), queue| {
            while now >= queue.free_at
                && let Some(mut waiting) = queue.frames.pop_front()
            {
                if !is_held(waiting.instance, interface, waiting.address) {
                    continue;
                }
                due.push((waiting.instance, interface.clone(), waiting.address));
                queue.free_at = now + waiting.gap;
                waiting.left -= 1;
                if waiting.left > 0 {
                    queue.frames.push_back(waiting);
                }
            }
            !queue.frames.is_empty() || now < queue.free_at
        });
        due
    }

    /// What waits for these is not to be announced any more.
    pub fn forget(&mut self, left: &[InstanceId]) {
        for queue in self.queues.values_mut() {
            queue.frames.retain(|waiting| !left.contains(&waiting.instance));
        }
    }

    /// When a frame may leave next.
    pub fn deadline(&self) -> Option<Time> {
        let busy = self.queues.values().filter(|queue| !queue.frames.is_empty());
        busy.map(|queue| queue.free_at).min()
    }
}

impl Engine {
    /// Queues the addresses of an instance whose rate is limited; the others may leave at once.
    pub(crate) fn limit_rate(&mut self, now: Time, id: InstanceId, left: u8) {
        let state = &self.instances[id];
        for held in state.addresses_in_place() {
            let address = held.address.address;
            let gap = gap(state, address);
            if !gap.is_zero() {
                let waiting = Waiting { instance: id, address, left, gap };
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

/// Zero is none.
pub fn gap(state: &InstanceState, address: IpAddr) -> Duration {
    let announce = &state.router.settings().announce;
    match Family::of(&address) {
        Family::V4 => announce.garp_interval,
        Family::V6 => announce.gna_interval,
    }
}
