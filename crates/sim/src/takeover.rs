//! How fast a master that dies is replaced.
//!
//! Rule `silence`: one that dies, sleeps or is cut off while all is quiet is replaced within 3 × A + the best backup's skew, and
//! what the wire and the timer add. The rule `timer` bounds the same moment from below, so that no
//! two backups whose waits differ take over together (V-141).

use std::time::Duration;

use locum_vrrp::{Role, Time, Version};

use crate::world::World;

/// The takeovers that have to come.
#[derive(Default, Debug)]
pub struct Takeovers {
    expected: Vec<Expected>,
}

#[derive(Clone, Debug)]
struct Expected {
    router: usize,
    part: Vec<usize>,
    by: Time,
    disturbance: u64,
}

impl World {
    /// This node is about to fall silent while all is quiet, on one link or on all: whoever is best among the
    /// others has to replace it.
    pub fn expect_takeovers(&mut self, node: usize, link: Option<usize>) {
        for (index, router) in self.scenario.routers.iter().enumerate() {
            if link.is_some_and(|link| link != router.link) {
                continue;
            }
            let Some(part) = self.quiescent_part(node, router) else { continue };
            let view = |of: usize| self.nodes[of].adapter.view(&router.name);
            if view(node).map(|view| view.role) != Some(Role::Master) {
                continue;
            }
            let others = part.iter().filter(|other| **other != node);
            let best = others
                .filter_map(|other| view(*other))
                .filter(|view| view.role == Role::Backup)
                .map(|view| view.priority.0)
                .max();
            let Some(best) = best else { continue };
            let interval = self.interval(node, router);
            let wait = interval * 3 + exact_skew(router.version, interval, best);
            let by = self.now + self.lans[router.link].longest() + wait + self.scenario.tardiness;
            let part = part.iter().copied().filter(|other| *other != node).collect();
            // What silences it is the next disturbance.
            let disturbance = self.quiescence.disturbances() + 1;
            self.takeovers.expected.push(Expected { router: index, part, by, disturbance });
        }
    }

    pub fn judge_silence(&mut self) {
        let current = self.quiescence.disturbances();
        self.takeovers.expected.retain(|expected| expected.disturbance >= current);
        let now = self.now;
        let Some(at) = self.takeovers.expected.iter().position(|e| now > e.by) else { return };
        let expected = self.takeovers.expected.swap_remove(at);
        let name = self.scenario.routers[expected.router].name.clone();
        let is_master = |node: &usize| {
            self.nodes[*node].adapter.view(&name).is_some_and(|view| view.role == Role::Master)
        };
        if expected.disturbance == current && !expected.part.iter().any(is_master) {
            let detail = format!("{name} has had no master since before {}", expected.by);
            self.blame(None, "silence", detail);
        }
    }
}

/// Spec §6, in nanoseconds, rounded down. `interval` is the master's.
pub fn exact_skew(version: Version, interval: Duration, priority: u8) -> Duration {
    let whole = match version {
        Version::V2 => Duration::from_secs(1),
        Version::V3 => interval,
    };
    Duration::from_nanos(whole.as_nanos() as u64 * (256 - u64::from(priority)) / 256)
}
