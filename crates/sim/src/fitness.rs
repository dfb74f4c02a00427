//! What a node cannot serve: how that goes wrong, and what must hold meanwhile.
//!
//! | rule | says |
//! |---|---|
//! | `unfit-master` | at rest no node is master that cannot serve while a peer can, which has been trusted to since before |
//! | `unfit-stands` | a node that cannot serve takes part all the same |
//! | `common` | what all nodes lose at once moves no mastership, nor does its end, unless the holder knows of it last |

use std::time::Duration;

use locum_vrrp::{Role, Time};

use crate::faults::Undo;
use crate::node::Process;
use crate::virtual_router::VirtualRouter;
use crate::world::{Happening, World};

/// Times a flapping service comes and goes.
const FLAPS: u32 = 8;

/// An engine that has seen a service fail and recover believes it no later than this.
const LONGEST_HOLD: Duration = Duration::from_secs(300);

/// The first time it waits for so long, then twice as long each time.
const FIRST_HOLD: Duration = Duration::from_secs(2);

/// An engine takes the offer of a failure that was soon over back, and then no other for so long.
const FORGIVEN: Duration = Duration::from_secs(600);

/// What of a service is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    /// The node cannot serve it.
    Service,
    /// No server answers the node.
    Servers,
}

/// A loss that all nodes have.
#[derive(Clone, Debug)]
pub struct Common {
    router: usize,
    holder: usize,
    /// It is judged while no other disturbance comes.
    disturbance: u64,
    is_over: bool,
}

impl World {
    /// The virtual routers whose service decides.
    fn deciding(&self) -> Vec<usize> {
        let routers = self.scenario.routers.iter().enumerate();
        routers.filter(|(_, router)| router.follows_service).map(|(index, _)| index).collect()
    }

    fn pick_lack(&mut self, router: usize) -> Lack {
        let service = self.scenario.routers[router].service.as_ref();
        let is_checked = service.is_some_and(|one| !one.servers[0].health.is_empty());
        match is_checked && !self.random.one_in(3) {
            true => Lack::Servers,
            false => Lack::Service,
        }
    }

    /// One node cannot serve, for a while.
    pub fn make_unfit(&mut self, node: usize, until: Time) {
        let deciding = self.deciding();
        if deciding.is_empty() {
            return;
        }
        let router = self.random.pick(&deciding);
        let lack = self.pick_lack(router);
        // What comes and goes is a fault of its own: this one is judged while it lasts.
        let judged = self.now + self.quiescence.server_time() + self.quiescence.bound();
        let until = if self.random.one_in(4) { until } else { until + judged.since(self.now) };
        self.lose(node, router, lack, true);
        let undo = Undo::Fitness { node, router, lack };
        self.schedule.add(until, Happening::Undo(undo));
    }

    /// All nodes cannot, from one moment on. It ends everywhere at once, or on one after the other.
    pub fn make_all_unfit(&mut self, until: Time) {
        let deciding = self.deciding();
        if deciding.is_empty() {
            return;
        }
        let router = self.random.pick(&deciding);
        let lack = self.pick_lack(router);
        let holder = self.common_holder(router);
        for node in 0..self.nodes.len() {
            self.lose(node, router, lack, true);
        }
        let disturbance = self.quiescence.disturbances();
        self.common = holder.map(|holder| Common { router, holder, disturbance, is_over: false });
        if self.random.one_in(2) {
            self.schedule.add(until, Happening::Undo(Undo::CommonFitness { router, lack }));
            return;
        }
        for node in 0..self.nodes.len() {
            let late = self.random.span(Duration::from_secs(3));
            let undo = Undo::Fitness { node, router, lack };
            self.schedule.add(until + late, Happening::Undo(undo));
        }
    }

    /// Its service comes and goes.
    pub fn make_flap(&mut self, node: usize) {
        let deciding = self.deciding();
        if !deciding.is_empty() {
            let router = self.random.pick(&deciding);
            self.flap(node, router, FLAPS);
        }
    }

    pub fn flap(&mut self, node: usize, router: usize, left: u32) {
        self.lose(node, router, Lack::Service, left.is_multiple_of(2));
        if left > 1 {
            let next = self.now + self.random.span(Duration::from_millis(700));
            let undo = Undo::Flap { node, router, left: left - 1 };
            self.schedule.add(next, Happening::Undo(undo));
        }
    }

    /// The end of what all had lost.
    pub fn end_common(&mut self, router: usize, lack: Lack) {
        let current = self.quiescence.disturbances();
        let goes_on = self
            .common
            .take()
            .filter(|common| common.disturbance == current && common.router == router);
        for node in 0..self.nodes.len() {
            self.lose(node, router, lack, false);
        }
        let disturbance = self.quiescence.disturbances();
        self.common = goes_on.map(|common| Common { disturbance, is_over: true, ..common });
    }

    /// From now on the node lacks this, or has it again.
    pub fn lose(&mut self, node: usize, router: usize, lack: Lack, is_lost: bool) {
        let host = &mut self.nodes[node];
        let lost = &mut host.losses[router];
        let was_lost = lost.is_lost();
        let lacked = match lack {
            Lack::Service => std::mem::replace(&mut lost.is_broken, is_lost),
            Lack::Servers => std::mem::replace(&mut lost.is_starved, is_lost),
        };
        // An engine may see one end before it sees the other begin.
        lost.count += u32::from(is_lost && !lacked);
        if lost.is_lost() != was_lost {
            lost.since = self.now;
        }
        self.disturb(self.now + self.quiescence.server_time());
        let service = self.scenario.routers[router].service.as_ref();
        let Some(name) = service.map(|service| service.name.clone()) else { return };
        if lack == Lack::Service {
            let host = &mut self.nodes[node];
            host.balancer.break_service(&name, is_lost);
            if host.process != Process::Gone && host.balancer.finished() > 0 {
                self.report_services(node);
            }
        }
    }

    /// Everything is there again; returns how long engines may go on not to believe it.
    pub fn heal_fitness(&mut self) -> Duration {
        let mut longest = Duration::ZERO;
        for node in 0..self.nodes.len() {
            for router in 0..self.scenario.routers.len() {
                for lack in [Lack::Service, Lack::Servers] {
                    self.lose(node, router, lack, false);
                }
                let lost = &mut self.nodes[node].losses[router];
                let doublings = lost.count.saturating_sub(1).min(16);
                if lost.count > 0 {
                    longest = longest.max(FIRST_HOLD * 2_u32.pow(doublings));
                }
            }
        }
        self.common = None;
        longest.min(LONGEST_HOLD)
    }

    /// The one master of all nodes, in quiescence.
    fn common_holder(&self, router: usize) -> Option<usize> {
        let router = &self.scenario.routers[router];
        let is_master = |node: &usize| {
            let view = self.nodes[*node].adapter.view(&router.name);
            view.is_some_and(|view| view.role == Role::Master)
        };
        let holder = (0..self.nodes.len()).find(is_master)?;
        let part = self.quiescent_part(holder, router)?;
        let was_fit =
            self.nodes.iter().all(|host| !host.losses[usize::from(router.number)].is_lost());
        let stands = self.watches[holder][usize::from(router.number)]
            .taken_back
            .is_some_and(|at| self.now.since(at) < FORGIVEN);
        let is_fresh = was_fit && !stands && !self.is_held_back();
        // An owner is always fit.
        let decides = |node: usize| {
            let edit = &self.nodes[node].edits[usize::from(router.number)];
            router.ranking(node, edit).is_some()
        };
        let all = part.len() == self.nodes.len() && (0..self.nodes.len()).all(decides);
        (all && is_fresh).then_some(holder)
    }

    /// Some engine does not believe yet that what it has lost is there again.
    pub fn is_held_back(&self) -> bool {
        let routers = self.scenario.routers.iter().filter(|router| router.follows_service);
        let services = || routers.clone().filter_map(|router| router.service.as_ref());
        let running = self.nodes.iter().filter(|host| host.is_running());
        let mut held = running.flat_map(|host| &host.adapter.held_back);
        held.any(|name| services().any(|service| service.name == *name))
    }

    /// After every event.
    pub fn judge_common(&mut self) {
        let current = self.quiescence.disturbances();
        let Some(common) = self.common.clone().filter(|common| common.disturbance == current)
        else {
            self.common = None;
            return;
        };
        let router = self.scenario.routers[common.router].name.clone();
        let role = |node: usize| self.nodes[node].adapter.view(&router).map(|view| view.role);
        let mut others = (0..self.nodes.len()).filter(|node| *node != common.holder);
        let taken = others.find(|node| role(*node) == Some(Role::Master));
        if let Some(node) = taken {
            // What the holder offers is for whoever can serve again before it knows that it can itself.
            let (index, holder) = (common.router, common.holder);
            let lacks = self.nodes[node].losses[index].is_lost();
            if common.is_over && !lacks && self.believes_to_be_unfit(holder, index) {
                self.common = None;
                return;
            }
            let (node, holder) = (self.name(node), self.name(common.holder));
            let detail = format!("{router} moves from {holder} to {node}, and neither can serve");
            self.blame(None, "common", detail);
        }
    }

    /// By the priority with which it competes.
    fn believes_to_be_unfit(&self, node: usize, index: usize) -> bool {
        let router = &self.scenario.routers[index];
        let ranking = router.ranking(node, &self.nodes[node].edits[index]);
        let view = self.nodes[node].adapter.view(&router.name);
        view.zip(ranking).is_some_and(|(view, ranking)| ranking.is_unfit(view.priority))
    }

    /// What the engine of this node has to count for: the loss, or a hold after it.
    pub fn counts_as_unfit(&self, node: usize, index: usize, router: &VirtualRouter) -> bool {
        let host = &self.nodes[node];
        if router.ranking(node, &host.edits[index]).is_none() {
            return false;
        }
        let role = host.adapter.view(&router.name).map(|view| view.role);
        let is_incumbent = matches!(role, Some(Role::Master | Role::Resigning));
        let service = router.service.as_ref();
        let is_held = service.is_some_and(|own| host.adapter.held_back.contains(&own.name));
        host.losses[index].is_lost() || is_held && !is_incumbent
    }

    /// At rest: who is master, and who else takes part.
    pub fn judge_fitness(
        &self,
        index: usize,
        router: &VirtualRouter,
        master: Option<usize>,
        peers: &[usize],
    ) -> Result<(), (&'static str, String)> {
        let lost = |node: usize| self.nodes[node].losses[index];
        let decides = |node: usize| router.ranking(node, &self.nodes[node].edits[index]).is_some();
        for node in peers.iter().copied().filter(|node| decides(*node) && lost(*node).is_lost()) {
            let role = self.nodes[node].adapter.view(&router.name).map(|view| view.role);
            if matches!(role, Some(Role::Initialize | Role::Fault))
                && self.stands(node, index, router)
            {
                let name = self.name(node);
                let detail = format!("{name} cannot serve {} and is {role:?}", router.name);
                return Err(("unfit-stands", detail));
            }
        }
        let Some(master) = master.filter(|node| decides(*node) && lost(*node).is_lost()) else {
            return Ok(());
        };
        let since = lost(master).since;
        let better = peers.iter().copied().find(|node| {
            let role = self.nodes[*node].adapter.view(&router.name).map(|view| view.role);
            role == Some(Role::Backup)
                && !lost(*node).is_lost()
                && self.watches[*node][index].fit_since.is_some_and(|fit| fit < since)
                && self.stands(*node, index, router)
        });
        match better {
            Some(node) => {
                let (node, master) = (self.name(node), self.name(master));
                let detail = format!(
                    "{}: {master} cannot serve since {since} and is master; {node} can",
                    router.name
                );
                Err(("unfit-master", detail))
            }
            None => Ok(()),
        }
    }
}
