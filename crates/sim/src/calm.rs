//! What must hold when nothing has gone wrong for long enough, and during a planned handover.
//!
//! Calm is a matter of time: [`World::disturb`] says until when something is wrong, and one bound
//! later the cluster has to be at rest, at every event, until the next disturbance.
//!
//! | rule | says |
//! |---|---|
//! | `one-master` | each connected part of the LAN with a healthy node has exactly one master (V-239) |
//! | `right-master` | it is the one with the highest priority, unless preemption is off or it has yielded |
//! | `holder` | the master holds every address, with its lease, and nobody else in its part does |
//! | `dead-holder` | the kernel of a dead node has let its addresses go |
//! | `handover` | during a planned handover some node holds each address at every moment (V-240) |

use std::net::IpAddr;
use std::time::Duration;

use locum_config::plan::Lease;
use locum_vrrp::{Preempt, Role, Time};

use crate::kernel::SWEEP;
use crate::node::Process;
use crate::scenario::{Scenario, VirtualRouter};
use crate::world::World;

/// What a resigning master holds its addresses for, after its successor spoke, twice over; and
/// what queues, kernels and monitors take.
const SLACK: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub struct Calm {
    bound: Duration,
    check_time: Duration,
    disturbed_until: Time,
    disturbances: u64,
    handovers: Vec<Handover>,
    /// Since when each node's process is gone.
    gone: Vec<Option<Time>>,
    /// The kinds of fault this seed uses.
    pub kinds: Vec<usize>,
    /// Everything is healed: what is still planned to go wrong or right does not happen.
    pub healed: bool,
}

#[derive(Clone, Debug)]
struct Handover {
    addresses: Vec<IpAddr>,
    began: Time,
    until: Time,
    /// It is judged while no other disturbance comes.
    disturbance: u64,
}

impl Calm {
    pub fn new(scenario: &Scenario, now: Time) -> Self {
        let preempt_delay = scenario.routers.iter().flat_map(|r| &r.preempts).map(|p| match p {
            Preempt::After(delay) => *delay,
            Preempt::Never => Duration::ZERO,
        });
        let preempt_delay = preempt_delay.max().unwrap_or_default();
        // A whole down interval, 4 × A at most; one advert more for the loser to hear the winner.
        let down = scenario.longest_interval() * 5;
        // While a preempt delay runs the lower master is accepted, and the wait begins anew after it.
        let preempted = if preempt_delay.is_zero() { Duration::ZERO } else { preempt_delay + down };
        let bound = down + preempted + SLACK;
        let checks = scenario.routers.iter().filter_map(|router| router.check.as_ref());
        let check_time = checks.map(|check| (check.probe.interval + check.probe.timeout) * 4).max();
        Self {
            bound,
            check_time: check_time.unwrap_or_default(),
            disturbed_until: now,
            disturbances: 0,
            handovers: Vec::new(),
            gone: vec![None; scenario.nodes],
            kinds: Vec::new(),
            healed: false,
        }
    }

    /// From the end of the last disturbance to rest.
    pub fn bound(&self) -> Duration {
        self.bound
    }

    /// What a check needs to rise or fall.
    pub fn check_time(&self) -> Duration {
        self.check_time
    }

    /// How often something went wrong or right so far.
    pub fn disturbances(&self) -> u64 {
        self.disturbances
    }

    pub fn died(&mut self, now: Time, node: usize) {
        self.gone[node] = Some(now);
    }

    /// The disturbance just noted is the handover's own.
    pub fn allow_handover(&mut self, now: Time) {
        for handover in &mut self.handovers {
            if handover.began == now {
                handover.disturbance = self.disturbances;
            }
        }
    }
}

impl World {
    /// Nothing is wrong any more, but for what takes its time: until then.
    pub fn heal(&mut self, until: Time) {
        self.calm.disturbed_until = until;
        self.calm.disturbances += 1;
        self.calm.healed = true;
    }

    /// Something is wrong, until then.
    pub fn disturb(&mut self, until: Time) {
        self.calm.disturbed_until = self.calm.disturbed_until.max(until).max(self.now);
        self.calm.disturbances += 1;
    }

    fn is_settled(&self) -> bool {
        self.now > self.calm.disturbed_until + self.calm.bound
    }

    /// The running nodes this one shares a quiet LAN with, itself among them. `None` when it hears
    /// or is heard by some of the others badly or in one direction only.
    fn part_of(&self, node: usize) -> Option<Vec<usize>> {
        let up = |node: &usize| self.nodes[*node].is_running() && self.nodes[*node].link.running;
        let mut part = Vec::new();
        for other in (0..self.nodes.len()).filter(up) {
            if other == node || self.lan.joins(node, other) {
                part.push(other);
            } else if !self.lan.parts(node, other) {
                return None;
            }
        }
        let whole = part
            .iter()
            .all(|one| part.iter().all(|other| one == other || self.lan.joins(*one, *other)));
        whole.then_some(part)
    }

    /// [`Self::part_of`], if everything has come to rest.
    pub fn calm_part(&self, node: usize) -> Option<Vec<usize>> {
        let calm = self.is_settled() && self.nodes[node].is_running();
        if calm { self.part_of(node) } else { None }
    }

    /// Notes that `node` is about to give up its mastership of this virtual router, or of all, on
    /// purpose. It is judged when it begins in calm and there is somebody to take over.
    pub fn plan_handover(&mut self, node: usize, only: Option<usize>) {
        let Some(part) = self.calm_part(node) else { return };
        for (index, router) in self.scenario.routers.iter().enumerate() {
            let role = |of: usize| self.nodes[of].adapter.view(&router.name).map(|v| v.role);
            let successor = part.iter().any(|other| {
                *other != node
                    && role(*other) == Some(Role::Backup)
                    && self.nodes[*other].is_healthy()
            });
            let meant = only.is_none_or(|only| only == index);
            if meant && successor && role(node) == Some(Role::Master) {
                self.calm.handovers.push(Handover {
                    addresses: router.addresses.clone(),
                    began: self.now,
                    until: self.now + self.calm.bound,
                    disturbance: self.calm.disturbances,
                });
            }
        }
    }

    /// After every event.
    pub fn judge_settled(&mut self) {
        if self.violation.is_some() {
            return;
        }
        self.judge_handovers();
        self.judge_silence();
        if !self.is_settled() {
            return;
        }
        let mut seen = vec![false; self.nodes.len()];
        for node in 0..self.nodes.len() {
            let up = self.nodes[node].is_running() && self.nodes[node].link.running;
            if seen[node] || !up {
                continue;
            }
            let Some(part) = self.part_of(node) else { return };
            for member in &part {
                seen[*member] = true;
            }
            for router in 0..self.scenario.routers.len() {
                if let Err((rule, detail)) = self.judge_part(router, &part) {
                    self.blame(None, rule, detail);
                    return;
                }
            }
        }
        self.judge_dead();
    }

    fn judge_handovers(&mut self) {
        let (now, current) = (self.now, self.calm.disturbances);
        self.calm.handovers.retain(|h| h.until > now && h.disturbance == current);
        let lost = self
            .calm
            .handovers
            .iter()
            .flat_map(|handover| &handover.addresses)
            .find(|address| !self.nodes.iter().any(|node| node.kernel.holds(**address)))
            .copied();
        if let Some(address) = lost {
            let detail = format!("nobody holds {address} during a planned handover");
            self.blame(None, "handover", detail);
        }
    }

    fn judge_part(&self, index: usize, part: &[usize]) -> Result<(), (&'static str, String)> {
        let router = &self.scenario.routers[index];
        let stands = |node: &&usize| {
            let host = &self.nodes[**node];
            let faulty = router.check.as_ref().is_some_and(|c| c.weight.value == 0);
            !host.edits.removed[index] && (host.check_passes || !faulty)
        };
        let candidates: Vec<usize> = part.iter().filter(stands).copied().collect();
        if candidates.is_empty() {
            return Ok(());
        }
        let role = |node: usize| self.nodes[node].adapter.view(&router.name).map(|view| view.role);
        let masters: Vec<usize> =
            part.iter().copied().filter(|node| role(*node) == Some(Role::Master)).collect();
        let [master] = masters[..] else {
            let roles: Vec<_> = part.iter().map(|node| (self.name(*node), role(*node))).collect();
            return Err(("one-master", format!("{}: {roles:?}", router.name)));
        };
        self.judge_right(index, router, master, &candidates)?;
        self.judge_holder(router, master, part)
    }

    fn judge_right(
        &self,
        index: usize,
        router: &VirtualRouter,
        master: usize,
        candidates: &[usize],
    ) -> Result<(), (&'static str, String)> {
        let priority =
            |node: usize| self.nodes[node].adapter.view(&router.name).map(|v| v.priority);
        for other in candidates {
            let owner = priority(*other).is_some_and(|priority| priority.is_owner());
            let holds_back = match router.preempts[*other] {
                _ if self.watches[*other][index].yielded => true,
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
        router: &VirtualRouter,
        master: usize,
        part: &[usize],
    ) -> Result<(), (&'static str, String)> {
        for address in &router.addresses {
            let kernel = &self.nodes[master].kernel;
            let name = self.name(master);
            if !kernel.holds(*address) {
                return Err(("holder", format!("master {name} does not hold {address}")));
            }
            if kernel.leases(*address) == (router.lease == Lease::Off) {
                return Err(("holder", format!("{name} holds {address} without its lease")));
            }
            let second = part
                .iter()
                .find(|node| **node != master && self.nodes[**node].kernel.holds(*address));
            if let Some(second) = second {
                let detail =
                    format!("{name} is master and {} holds {address} too", self.name(*second));
                return Err(("holder", detail));
            }
        }
        Ok(())
    }

    /// A dead node's addresses are gone one lease and one sweep after its death.
    fn judge_dead(&mut self) {
        for node in 0..self.nodes.len() {
            let (Process::Gone, Some(since)) = (self.nodes[node].process, self.calm.gone[node])
            else {
                continue;
            };
            for router in &self.scenario.routers {
                let lease = match router.lease {
                    Lease::Off => continue,
                    Lease::Fixed(lease) => lease,
                    // The shortest takeover in whole seconds, at least 1.
                    Lease::Auto => {
                        let shortest = router.interval.as_duration() * 3;
                        Duration::from_secs(shortest.as_secs().max(1) + 1)
                    }
                };
                let kernel = &self.nodes[node].kernel;
                let held = router.addresses.iter().find(|address| kernel.holds(**address));
                if let Some(held) = held.filter(|_| self.now > since + lease + SWEEP) {
                    let detail = format!("dead since {since} and holds {held}");
                    self.blame(Some(node), "dead-holder", detail);
                    return;
                }
            }
        }
    }

    /// The run is over: the cluster must have come to rest.
    pub fn judge_end(&mut self) {
        if !self.is_settled() {
            let until = self.calm.disturbed_until;
            self.blame(None, "one-master", format!("the run ends disturbed, until {until}"));
            return;
        }
        self.judge_settled();
    }
}
