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
use locum_vrrp::{Family, Time};

use crate::ids::InstanceId;
use crate::instance::InstanceState;

/// The queues, one per interface and kind of frame.
#[derive(Debug, Default)]
pub struct RateLimiter {
    queues: BTreeMap<(Name, Family), FrameQueue>,
    /// This drain was begun by timers.
    pub may_send: bool,
}

#[derive(Debug, Default)]
struct FrameQueue {
    frames: VecDeque<WaitingFrame>,
    /// When the next frame may leave.
    free_at: Time,
}

#[derive(Debug)]
pub struct WaitingFrame {
    pub instance: InstanceId,
    pub address: IpAddr,
    /// At least 1.
    pub left: u8,
    /// From this frame to the next.
    pub gap: Duration,
}

impl RateLimiter {
    /// `waiting.left` is at least 1.
    pub fn add(&mut self, now: Time, interface: &Name, new: WaitingFrame) {
        let key = (interface.clone(), Family::of(&new.address));
        let queue = self.queues.entry(key).or_default();
        if queue.frames.is_empty() {
            queue.free_at = queue.free_at.max(now);
        }
        let same =
            |old: &&mut WaitingFrame| (old.instance, old.address) == (new.instance, new.address);
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
    pub fn take_due(
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

    /// The instances whose frames wait.
    pub fn waiting(&self) -> impl Iterator<Item = InstanceId> {
        self.queues.values().flat_map(|queue| queue.frames.iter().map(|frame| frame.instance))
    }

    /// When a frame may leave next.
    pub fn deadline(&self) -> Option<Time> {
        let busy = self.queues.values().filter(|queue| !queue.frames.is_empty());
        busy.map(|queue| queue.free_at).min()
    }
}

/// Zero is none.
pub fn gap(state: &InstanceState, address: IpAddr) -> Duration {
    let announce = &state.router.settings().announce;
    match Family::of(&address) {
        Family::V4 => announce.garp_interval,
        Family::V6 => announce.gna_interval,
    }
}
