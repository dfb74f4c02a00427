//! What must hold of all that waits for somebody else: for the kernel, for services, for whoever
//! has a say, for those who put addresses where they must not be.
//!
//! | rule | says |
//! |---|---|
//! | `ready` | a burst leaves when every address is in place and every service answers or has failed, or when the ready limit has passed (G-020, V-275) |
//! | `candidate` | a candidate is master or something else again within the ready limit (V-273) |
//! | `fault` | an instance is in fault for a reason that its host has, and none is that its kernel is slow |
//! | `foreign` | a virtual address that others add where this node is not master is removed or shown |

use std::net::IpAddr;
use std::time::Duration;

use locum_engine::Announcement;
use locum_plan::{Name, WantedServices, Weight};
use locum_vrrp::{Role, Time};

use crate::applier::Temper;
use crate::node::Node;
use crate::place::INTERFACES;
use crate::virtual_router::VirtualRouter;
use crate::world::World;

/// V-275, where peers are more patient.
const READY_LIMIT: Duration = Duration::from_millis(300);

/// The longest an instance stays out after its kernel has refused everything, and a moment more.
const REFUSAL_LIMIT: Duration = Duration::from_secs(41);

/// What removes a foreign address: a pause since the last one, a retry, and a kernel at work.
const EXPULSION_LIMIT: Duration = Duration::from_millis(2500);

impl World {
    /// A burst that the engine asks for. `level` are the services that it has asked for just before.
    pub fn judge_ready(
        &mut self,
        node: usize,
        index: usize,
        router: &VirtualRouter,
        level: Option<&WantedServices>,
        frames: &[Announcement],
    ) {
        // The node's own address waits for nobody.
        if frames.iter().all(|frame| !self.is_virtual(router, frame.address)) {
            return;
        }
        let Some(awaited) = self.awaited(node, index, router, level) else { return };
        let watch = &self.watches[node][index];
        let since = watch.unready_since.unwrap_or(self.now);
        let since = watch.master_since.map_or(self.now, |master| master.max(since));
        let (waited, limit) = (self.now.since(since), self.ready_limit(node, router));
        if waited < limit {
            let detail = format!("{} announces after {waited:?} without {awaited}", router.name);
            self.blame(Some(node), "ready", detail);
        }
    }

    /// What a burst of this instance has to wait for now, in words.
    fn awaited(
        &self,
        node: usize,
        index: usize,
        router: &VirtualRouter,
        level: Option<&WantedServices>,
    ) -> Option<String> {
        let (host, watch) = (&self.nodes[node], &self.watches[node][index]);
        let is_missing = |address: &IpAddr| {
            !host.kernel.holds(*address)
                && !host.kernel.was_lost(*address)
                && !watch.refused_addresses.contains(address)
        };
        if let Some(address) = watch.question.addresses().find(is_missing) {
            return Some(address.to_string());
        }
        host.balancer.awaited(level, &router.name).map(|name| name.to_string())
    }

    fn is_virtual(&self, router: &VirtualRouter, address: IpAddr) -> bool {
        router.addresses.contains(&address) || router.extra_address() == address
    }

    fn ready_limit(&self, node: usize, router: &VirtualRouter) -> Duration {
        READY_LIMIT.min(self.interval(node, router) * 3)
    }

    /// After each input of a node: since when its instances wait for something.
    pub fn note_waiting(&mut self, node: usize) {
        for index in 0..self.scenario.routers.len() {
            let router = &self.scenario.routers[index];
            let view = self.nodes[node].adapter.view(&router.name);
            let is_master = view.is_some_and(|view| view.role == Role::Master);
            let is_candidate = view.is_some_and(|view| view.is_candidate);
            let is_unready = self.awaited(node, index, router, None).is_some();
            let is_fit = !self.counts_as_unfit(node, index, router);
            let (now, watch) = (self.now, &mut self.watches[node][index]);
            let note = |since: &mut Option<Time>, is_so: bool| {
                *since = is_so.then(|| since.unwrap_or(now));
            };
            note(&mut watch.master_since, is_master);
            note(&mut watch.candidate_since, is_candidate);
            note(&mut watch.unready_since, is_unready);
            note(&mut watch.fit_since, is_fit);
        }
    }

    /// After every event, whatever it was.
    pub fn judge_waiting(&mut self) {
        for node in 0..self.nodes.len() {
            let host = &self.nodes[node];
            if !host.is_running() || !host.unheard.is_empty() {
                for watch in &mut self.watches[node] {
                    watch.candidate_since = watch.candidate_since.map(|_| self.now);
                }
                self.excuse_foreign(node, |_, _| true);
                continue;
            }
            let found = self.overdue_candidate(node).or_else(|| self.groundless_fault(node));
            if let Some((rule, detail)) = found {
                return self.blame(Some(node), rule, detail);
            }
            self.judge_foreign(node);
        }
    }

    fn overdue_candidate(&self, node: usize) -> Option<(&'static str, String)> {
        let routers = self.scenario.routers.iter().zip(&self.watches[node]);
        routers.into_iter().find_map(|(router, watch)| {
            let since = watch.candidate_since?;
            // A reload may have shortened the interval meanwhile.
            let limit = READY_LIMIT.min(router.longest_interval() * 3);
            let is_over = self.now > since + limit + self.scenario.tardiness;
            is_over.then(|| ("candidate", format!("{} is a candidate since {since}", router.name)))
        })
    }

    fn groundless_fault(&self, node: usize) -> Option<(&'static str, String)> {
        let host = &self.nodes[node];
        for (index, router) in self.scenario.routers.iter().enumerate() {
            let view = host.adapter.view(&router.name);
            // An owner that has recovered is a candidate, and until then what it was.
            if view.is_none_or(|view| view.role != Role::Fault || view.is_candidate) {
                continue;
            }
            let refused_at = self.watches[node][index].refused_at;
            let is_refused = refused_at.is_some_and(|at| self.now < at + REFUSAL_LIMIT);
            // A check needs time to rise or fall: it excuses as long as anything is unsettled.
            let has_check = router.check.as_ref().is_some_and(|check| check.weight.value == 0);
            let is_checked = has_check && !(host.check_passes && self.is_settled());
            if !is_refused && !is_checked && !lacks_link(host, router) {
                let is_unfit = self.counts_as_unfit(node, index, router);
                let rule = if is_unfit { "unfit-stands" } else { "fault" };
                return Some((rule, format!("{} is in fault without a reason", router.name)));
            }
        }
        None
    }

    fn judge_foreign(&mut self, node: usize) {
        let may_stay = |interface: &str, address: IpAddr, world: &Self| {
            let host = &world.nodes[node];
            let mut routers = world.scenario.routers.iter().enumerate();
            let Some((index, router)) = routers.find(|(_, r)| r.addresses.contains(&address))
            else {
                return true;
            };
            let Some(view) = host.adapter.view(&router.name) else { return true };
            let is_shown = view.withdrawals_pending.contains(&address)
                || view.unwanted.iter().any(|text| text.starts_with(&format!("{address}/")));
            let is_free = view.role == Role::Master
                || view.role == Role::Resigning
                || host.edits[index].priority.unwrap_or(router.priorities[node]) == 255;
            let is_slow = host.applier.temper != Temper::IDLE || !host.applier.is_idle();
            let is_gone = INTERFACES.iter().position(|name| *name == interface);
            let is_gone = is_gone.is_none_or(|link| host.links[link].index == 0);
            is_shown || is_free || is_slow || is_gone
        };
        let foreign: Vec<(Name, IpAddr, Time)> = self.nodes[node]
            .kernel
            .foreign()
            .map(|(on, a, since)| (on.clone(), a, since))
            .collect();
        for (interface, address, since) in foreign {
            if may_stay(&interface, address, self) {
                self.excuse_foreign(node, |on, of| *on == *interface && of == address);
            } else if self.now > since + EXPULSION_LIMIT {
                let detail = format!("{address} on {interface} is of others since {since}");
                self.blame(Some(node), "foreign", detail);
            }
        }
    }

    /// From now on counts for what others have put there.
    fn excuse_foreign(&mut self, node: usize, which: impl Fn(&str, IpAddr) -> bool) {
        let now = self.now;
        for ((interface, address), since) in self.nodes[node].kernel.foreign_mut() {
            if which(interface, *address) {
                *since = now;
            }
        }
    }
}

/// A link without which the instance may not take part is down or not there.
fn lacks_link(host: &Node, router: &VirtualRouter) -> bool {
    let is_up = |link: usize| host.links[link].running;
    let misses = |(link, Weight { value, .. }): (usize, Weight)| value == 0 && !is_up(link);
    !is_up(router.link)
        || router.links().any(|link| host.links[link].index == 0)
        || router.tracked.is_some_and(misses)
}
