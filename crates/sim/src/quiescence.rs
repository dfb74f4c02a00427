//! When nothing has gone wrong for long enough, and what a planned handover owes.
//!
//! Quiescence is a matter of time: [`World::disturb`] says until when something is wrong, and one bound
//! later the cluster has to be at rest ([`crate::rest`]), at every event, until the next
//! disturbance. What lasts and can be judged while it does, such as a partition, a dead node or a
//! lost link, disturbs when it begins and when it ends.
//!
//! | rule | says |
//! |---|---|
//! | `handover` | during a planned handover some node holds each address at every moment (V-240) |

use std::net::IpAddr;
use std::time::Duration;

use locum_vrrp::{Preempt, Role, Time, Version};

use crate::scenario::Scenario;
use crate::virtual_router::VirtualRouter;
use crate::world::World;

/// What a resigning master holds its addresses for, after its successor spoke, twice over; and
/// what queues, kernels and monitors take.
const SLACK: Duration = Duration::from_millis(900);

/// The longest an engine waits before it asks a kernel again that has refused.
const RETRY: Duration = Duration::from_secs(41);

#[derive(Debug)]
pub struct Quiescence {
    bound: Duration,
    check_time: Duration,
    server_time: Duration,
    start_time: Duration,
    disturbed_until: Time,
    disturbances: u64,
    handovers: Vec<Handover>,
    /// When a kernel last refused by temper.
    refused_at: Option<Time>,
    /// Since when each node's process is gone.
    pub gone: Vec<Option<Time>>,
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

impl Quiescence {
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
        let check_time = check_time.unwrap_or_default();
        let services = scenario.routers.iter().filter_map(|router| router.service.as_ref());
        let servers = services.flat_map(|service| &service.servers);
        let health = servers.flat_map(|server| &server.health);
        // Runs that are needed, and one more for a master to believe them.
        let server_time = health.map(|one| (one.probe.interval + one.probe.timeout) * 4).max();
        let server_time = server_time.unwrap_or_default();
        Self {
            bound,
            check_time,
            server_time,
            start_time: check_time.max(server_time) + scenario.start_delay(),
            refused_at: None,
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

    /// What the servers of a service need to be counted as up or down.
    pub fn server_time(&self) -> Duration {
        self.server_time
    }

    /// What a process that starts needs before it takes part.
    pub fn start_time(&self) -> Duration {
        self.start_time
    }

    /// A kernel refuses something it will allow later.
    pub fn refused(&mut self, now: Time) {
        self.refused_at = Some(now);
    }

    /// Until when an engine may stay out because of a refusal.
    pub fn retried(&self, now: Time) -> Time {
        self.refused_at.map_or(now, |at| now.max(at + RETRY))
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
        self.quiescence.disturbed_until = until;
        self.quiescence.disturbances += 1;
        self.quiescence.healed = true;
    }

    /// Something is wrong, until then.
    pub fn disturb(&mut self, until: Time) {
        self.quiescence.disturbed_until = self.quiescence.disturbed_until.max(until).max(self.now);
        self.quiescence.disturbances += 1;
    }

    /// What one engine does not believe yet changes something later.
    pub fn await_belief(&mut self) {
        if self.is_held_back() {
            self.quiescence.disturbed_until = self.quiescence.disturbed_until.max(self.now);
        }
    }

    pub fn is_settled(&self) -> bool {
        self.now > self.quiescence.disturbed_until + self.quiescence.bound
    }

    /// The running nodes this one shares a quiet LAN with on this link, itself among them. `None`
    /// when it hears or is heard by some of the others badly or in one direction only.
    pub fn part_of(&self, node: usize, link: usize) -> Option<Vec<usize>> {
        let up =
            |node: &usize| self.nodes[*node].is_running() && self.nodes[*node].links[link].running;
        let lan = &self.lans[link];
        let mut part = Vec::new();
        for other in (0..self.nodes.len()).filter(up) {
            if other == node || lan.joins(node, other) {
                part.push(other);
            } else if !lan.parts(node, other) {
                return None;
            }
        }
        let mut pairs = part.iter().flat_map(|one| part.iter().map(move |other| (one, other)));
        pairs.all(|(one, other)| one == other || lan.joins(*one, *other)).then_some(part)
    }

    /// Version 2 discards what has another interval: who shares this node's, itself among them.
    pub fn peers_among(&self, part: &[usize], node: usize, router: &VirtualRouter) -> Vec<usize> {
        let hears = |other: &usize| match router.version {
            Version::V2 => self.interval(*other, router) == self.interval(node, router),
            Version::V3 => true,
        };
        part.iter().copied().filter(hears).collect()
    }

    /// Those who hear each other's adverts of this virtual router, if everything is at rest.
    pub fn quiescent_part(&self, node: usize, router: &VirtualRouter) -> Option<Vec<usize>> {
        let host = &self.nodes[node];
        if !self.is_settled() || !host.is_running() || !host.links[router.link].running {
            return None;
        }
        let part = self.part_of(node, router.link)?;
        Some(self.peers_among(&part, node, router))
    }

    /// Notes that `node` is about to give up its mastership of this virtual router, or of all, on
    /// purpose. It is judged when it begins in quiescence and there is somebody to take over.
    pub fn plan_handover(&mut self, node: usize, only: Option<usize>) {
        for (index, router) in self.scenario.routers.iter().enumerate() {
            let Some(part) = self.quiescent_part(node, router) else { continue };
            let role = |of: usize| self.nodes[of].adapter.view(&router.name).map(|v| v.role);
            let successor = part.iter().any(|other| {
                *other != node
                    && role(*other) == Some(Role::Backup)
                    && self.nodes[*other].is_healthy()
            });
            let meant = only.is_none_or(|only| only == index);
            if meant && successor && role(node) == Some(Role::Master) {
                self.quiescence.handovers.push(Handover {
                    addresses: self.willing(router),
                    began: self.now,
                    until: self.now + self.quiescence.bound,
                    disturbance: self.quiescence.disturbances,
                });
            }
        }
    }

    /// The addresses that no kernel refuses for reasons of its own.
    fn willing(&self, router: &VirtualRouter) -> Vec<IpAddr> {
        let is_free =
            |address: &&IpAddr| !self.nodes.iter().any(|node| node.stubborn.contains(*address));
        router.addresses.iter().filter(is_free).copied().collect()
    }

    pub fn judge_handovers(&mut self) {
        let (now, current) = (self.now, self.quiescence.disturbances);
        self.quiescence.handovers.retain(|h| h.until > now && h.disturbance == current);
        let lost = self
            .quiescence
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
}
