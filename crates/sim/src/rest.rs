//! What must hold while nothing has gone wrong for long enough, and of the dead at any time.
//!
//! | rule | says |
//! |---|---|
//! | `one-master` | each connected part of the LAN with a healthy node has exactly one master (V-239) |
//! | `right-master` | it is the one with the highest priority, unless preemption is off or it has yielded, and none that must be in fault |
//! | `effective` | every priority is the configured one and what checks and links make of it (V-161) |
//! | `holder` | the master holds every address, with its lease, and nobody else in its part does |
//! | `serve` | the master serves what it is to serve, unless its balancer cannot |
//! | `bounded` | no job waits for its applier for long |
//! | `hook` | no hook is still to come |
//! | `dead-holder` | the kernel of a dead node has let its addresses go |

use std::time::Duration;

use locum_plan::{Lease, Weight};
use locum_vrrp::{Preempt, Role};

use crate::kernel::SWEEP;
use crate::node::Process;
use crate::virtual_router::VirtualRouter;
use crate::world::World;

/// Longer than the slowest kernel takes for all that may wait when everything is at rest.
const JOB_LIMIT: Duration = Duration::from_secs(5);

type Verdict = Result<(), (&'static str, String)>;

impl World {
    /// After every event.
    pub fn judge_settled(&mut self) {
        if self.violation.is_some() {
            return;
        }
        self.await_belief();
        self.judge_common();
        self.judge_handovers();
        self.judge_silence();
        self.judge_waiting();
        let verdict = self
            .judge_dead()
            .and_then(|()| if self.is_settled() { self.judge_rest() } else { Ok(()) });
        if let Err((rule, detail)) = verdict {
            self.blame(None, rule, detail);
        }
    }

    fn judge_rest(&self) -> Verdict {
        for node in 0..self.nodes.len() {
            self.judge_quiet(node)?;
        }
        for link in 0..self.scenario.links {
            self.judge_link(link)?;
        }
        Ok(())
    }

    /// Each part of this link's LAN that can be judged.
    fn judge_link(&self, link: usize) -> Verdict {
        let mut seen = vec![false; self.nodes.len()];
        for node in 0..self.nodes.len() {
            let up = self.nodes[node].is_running() && self.nodes[node].links[link].running;
            if seen[node] || !up {
                continue;
            }
            let Some(part) = self.part_of(node, link) else { return Ok(()) };
            for member in &part {
                seen[*member] = true;
            }
            let routers = self.scenario.routers.iter().enumerate();
            for (index, router) in routers.filter(|(_, router)| router.link == link) {
                self.judge_part(index, router, &part)?;
            }
        }
        Ok(())
    }

    /// One virtual router, among those who hear each other.
    fn judge_part(&self, index: usize, router: &VirtualRouter, part: &[usize]) -> Verdict {
        let mut judged = Vec::new();
        for node in part {
            if judged.contains(node) {
                continue;
            }
            let peers = self.peers_among(part, *node, router);
            judged.extend(peers.iter().copied());
            let candidates = peers.iter().copied().filter(|peer| self.stands(*peer, index, router));
            let candidates: Vec<usize> = candidates.collect();
            let role = |node: usize| self.nodes[node].adapter.view(&router.name).map(|v| v.role);
            // One that cannot serve offers its place now and then, and takes it back.
            let is_offering = |node: usize| {
                role(node) == Some(Role::Resigning) && self.counts_as_unfit(node, index, router)
            };
            let is_master = |node: &usize| role(*node) == Some(Role::Master) || is_offering(*node);
            let masters: Vec<usize> = peers.iter().copied().filter(is_master).collect();
            self.judge_fitness(index, router, masters.first().copied(), &peers)?;
            for peer in &peers {
                self.judge_effective(*peer, index, router)?;
            }
            if let Some(unfit) = masters.iter().find(|master| !candidates.contains(master)) {
                let detail = format!("{}: {} must not be master", router.name, self.name(*unfit));
                return Err(("right-master", detail));
            }
            if candidates.is_empty() {
                continue;
            }
            let [master] = masters[..] else {
                let roles = peers.iter().map(|node| (self.name(*node), role(*node)));
                let detail = format!("{}: {:?}", router.name, roles.collect::<Vec<_>>());
                return Err(("one-master", detail));
            };
            self.judge_right(index, router, master, &candidates)?;
            self.judge_holder(index, router, master, &peers)?;
        }
        Ok(())
    }

    /// Nothing but its priority decides about this node.
    pub fn stands(&self, node: usize, index: usize, router: &VirtualRouter) -> bool {
        let host = &self.nodes[node];
        let check = router.check.as_ref();
        let fails = !host.check_passes && check.is_some_and(|check| check.weight.value == 0);
        let misses =
            |(link, Weight { value, .. }): (usize, Weight)| value == 0 && !host.links[link].running;
        !host.edits[index].removed
            && !fails
            && !router.tracked.is_some_and(misses)
            && router.links().all(|link| host.links[link].index != 0)
    }

    fn judge_effective(&self, node: usize, index: usize, router: &VirtualRouter) -> Verdict {
        let host = &self.nodes[node];
        let Some(view) = host.adapter.view(&router.name) else { return Ok(()) };
        let part = |weight: Weight, up: bool| {
            let applies = (weight.value > 0) == up;
            if applies { i32::from(weight.value) } else { 0 }
        };
        let base = host.edits[index].priority.unwrap_or(router.priorities[node]);
        let check = router.check.as_ref().map_or(0, |c| part(c.weight, host.check_passes));
        let tracked = router.tracked.map_or(0, |(link, w)| part(w, host.links[link].running));
        let expected = match base {
            // Of two owners one concedes (V-176).
            255 if view.priority.0 == 254 && self.has_owner_beside(node, index, router) => 254,
            255 => 255,
            _ if self.counts_as_unfit(node, index, router) => {
                let ranking = router.ranking(node, &host.edits[index]);
                ranking.map_or(0, |ranking| i32::from(ranking.unfit(1).0.0))
            }
            _ => (i32::from(base) + check + tracked).clamp(1, 254),
        };
        if i32::from(view.priority.0) == expected || host.edits[index].removed {
            return Ok(());
        }
        let (name, is) = (self.name(node), view.priority.0);
        Err(("effective", format!("{name} {} has priority {is}, not {expected}", router.name)))
    }

    /// Another node is configured to own the addresses too.
    fn has_owner_beside(&self, node: usize, index: usize, router: &VirtualRouter) -> bool {
        (0..self.nodes.len()).filter(|other| *other != node).any(|other| {
            let edited = self.nodes[other].edits[index].priority;
            edited.unwrap_or(router.priorities[other]) == 255
        })
    }

    fn judge_right(
        &self,
        index: usize,
        router: &VirtualRouter,
        master: usize,
        candidates: &[usize],
    ) -> Verdict {
        let priority =
            |node: usize| self.nodes[node].adapter.view(&router.name).map(|v| v.priority);
        for other in candidates {
            let owner = priority(*other).is_some_and(|priority| priority.is_owner());
            let holds_back = match router.preempts[*other] {
                _ if self.watches[*other][index].yielded => true,
                // V-281.
                _ if self.counts_as_unfit(*other, index, router) => true,
                Preempt::Never => !owner,
                Preempt::After(_) => false,
            };
            if priority(*other) > priority(master) && !holds_back {
                let detail = format!(
                    "{}: {} is master with {:?} and leaves {} with {:?} backup",
                    router.name,
                    self.name(master),
                    priority(master),
                    self.name(*other),
                    priority(*other),
                );
                return Err(("right-master", detail));
            }
        }
        Ok(())
    }

    fn judge_holder(
        &self,
        index: usize,
        router: &VirtualRouter,
        master: usize,
        peers: &[usize],
    ) -> Verdict {
        let (host, name) = (&self.nodes[master], self.name(master));
        let wrong = |detail| Err(("holder", detail));
        for (position, address) in router.addresses.iter().enumerate() {
            let on = router.device_of(position);
            if !host.kernel.holds_on(&on, *address) {
                if host.stubborn.contains(address) {
                    continue;
                }
                return wrong(format!("master {name} does not hold {address} on {on}"));
            }
            if host.kernel.leases(*address) == (router.lease == Lease::Off) {
                return wrong(format!("{name} holds {address} without its lease"));
            }
            let holds = |node: &&usize| self.nodes[**node].kernel.holds(*address);
            if let Some(second) = peers.iter().filter(|node| **node != master).find(holds) {
                let second = self.name(*second);
                return wrong(format!("{name} is master and {second} holds {address} too"));
            }
        }
        let extra = router.extra_address();
        if host.kernel.holds(extra) != host.edits[index].extended {
            return wrong(format!("{name} has {extra} as it was before a reload"));
        }
        let is_served = router.service.as_ref().is_none_or(|service| {
            let balancer = &host.balancer;
            balancer.serves(&router.name)
                || balancer.unserved().contains(&service.name)
                || balancer.pending().contains(&service.name)
        });
        if host.balancer.is_idle() && !is_served {
            return Err((
                "serve",
                format!("{name} is master of {} and does not serve", router.name),
            ));
        }
        Ok(())
    }

    /// A node at rest has done what it was asked.
    fn judge_quiet(&self, node: usize) -> Verdict {
        let host = &self.nodes[node];
        if !host.is_running() {
            return Ok(());
        }
        if let Some((since, job)) = host.applier.queue.front()
            && self.now.since(*since) > JOB_LIMIT
        {
            return Err((
                "bounded",
                format!("{} waits since {since} for {job:?}", self.name(node)),
            ));
        }
        let waits = self.watches[node].iter().position(|watch| !watch.hooks.is_empty());
        let waits = waits.filter(|_| host.is_drained());
        match waits.map(|index| (&self.scenario.routers[index], &self.watches[node][index].hooks)) {
            Some((router, hooks)) => {
                let (name, router) = (self.name(node), &router.name);
                Err(("hook", format!("{name} {router} has not run the hooks of {hooks:?}")))
            }
            None => Ok(()),
        }
    }

    /// A dead node's addresses are gone one lease and one sweep after its death.
    fn judge_dead(&self) -> Verdict {
        for node in 0..self.nodes.len() {
            let (Process::Gone, Some(since)) =
                (self.nodes[node].process, self.quiescence.gone[node])
            else {
                continue;
            };
            for router in &self.scenario.routers {
                let lease = match router.lease {
                    Lease::Off => continue,
                    Lease::Fixed(lease) => lease,
                    // The shortest takeover in whole seconds, at least 1.
                    Lease::Auto => {
                        let shortest = self.interval(node, router) * 3;
                        Duration::from_secs(shortest.as_secs().max(1))
                    }
                };
                let kernel = &self.nodes[node].kernel;
                let held = router.addresses.iter().find(|address| kernel.holds(**address));
                if let Some(held) = held.filter(|_| self.now > since + lease + SWEEP) {
                    let name = self.name(node);
                    let detail = format!("{name} is dead since {since} and holds {held}");
                    return Err(("dead-holder", detail));
                }
            }
        }
        Ok(())
    }

    /// The run is over: the cluster must have come to rest.
    pub fn judge_end(&mut self) {
        if !self.is_settled() {
            self.blame(None, "one-master", "the run ends disturbed".to_owned());
            return;
        }
        self.judge_settled();
    }
}
