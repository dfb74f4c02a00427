//! What goes wrong, when, and how it is undone.
//!
//! A seed first chooses the kinds of fault it uses, so that some runs are all partitions and
//! others a little of everything; then each fault, its victim and its length. [`World::heal_all`]
//! ends them all, and after that the cluster has to come to rest.

use std::net::IpAddr;
use std::time::Duration;

use locum_engine::{Decision, OperatorCommand, RunMode, Successor, Target};
use locum_vrrp::{Role, Time};

use crate::applier::Temper;
use crate::fitness::Lack;
use crate::node::{Process, Stimulus};
use crate::objector::Mood;
use crate::place::{INTERFACES, link_of};
use crate::virtual_router::VirtualRouter;
use crate::world::{Happening, World};

/// How a fault ends.
#[derive(Clone, Debug)]
pub enum Undo {
    Wake(usize),
    /// By link.
    Lan(usize),
    /// A node's link.
    Link(usize, usize),
    Check(usize),
    Temper(usize),
    /// A node's kernel allows this address again.
    Stubborn(usize, IpAddr),
    /// Whoever has a say in this node's masterships grants at once again.
    Mood(usize),
    /// Puts a removed instance back.
    Instance(usize, usize),
    /// A node has again what its service needs; all have; or it comes and goes.
    Fitness {
        node: usize,
        router: usize,
        lack: Lack,
    },
    CommonFitness {
        router: usize,
        lack: Lack,
    },
    Flap {
        node: usize,
        router: usize,
        left: u32,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Crash,
    Pause,
    Partition,
    OneWay,
    Noise,
    LinkDown,
    LinkGone,
    Check,
    SlowApply,
    FailingApply,
    FailingServe,
    StubbornAddress,
    ReloadSame,
    ReloadPriority,
    ReloadInterval,
    ReloadAddresses,
    ReloadRemoval,
    Switchover,
    Stop,
    Thief,
    EarlyTimeout,
    CrawlingApply,
    LostAnswer,
    LateServe,
    Objection,
    Stranger,
    Unfit,
    AllUnfit,
    Flapping,
    Order,
}

/// Those that half of the scenarios have no use for come twice.
const EVERY_FAULT: [Fault; 32] = [
    Fault::Crash,
    Fault::Pause,
    Fault::Partition,
    Fault::OneWay,
    Fault::Noise,
    Fault::LinkDown,
    Fault::LinkGone,
    Fault::Check,
    Fault::SlowApply,
    Fault::FailingApply,
    Fault::FailingServe,
    Fault::StubbornAddress,
    Fault::ReloadSame,
    Fault::ReloadPriority,
    Fault::ReloadInterval,
    Fault::ReloadAddresses,
    Fault::ReloadRemoval,
    Fault::Switchover,
    Fault::Stop,
    Fault::Thief,
    Fault::EarlyTimeout,
    Fault::CrawlingApply,
    Fault::LostAnswer,
    Fault::LateServe,
    Fault::Objection,
    Fault::Stranger,
    Fault::Unfit,
    Fault::Unfit,
    Fault::AllUnfit,
    Fault::AllUnfit,
    Fault::Flapping,
    Fault::Order,
];

/// An address that was refused because of its link is asked for again that soon.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// A kernel that has other things to do, and one that hardly does anything.
const SLOW: Duration = Duration::from_millis(400);
const CRAWLING: Duration = Duration::from_secs(3);

/// What a kernel that has recovered may still be doing, and until an answer that was lost is asked
/// for again.
const SLOWEST: Duration = Duration::from_secs(5);

/// A service that has to start a process first, on a busy host.
const WARM_UP: Duration = Duration::from_secs(2);

impl World {
    /// The next fault, and the time of the one after it; after the last, everything is healed.
    pub fn fault_due(&mut self) {
        if self.faults_left == 0 {
            self.schedule.add(self.now, Happening::HealAll);
            return;
        }
        self.faults_left -= 1;
        let fault = self.choose();
        let victim = self.choose_victim();
        let length = self.choose_length();
        let name = self.name(victim);
        self.trace.line(self.now, &name, || format!("FAULT {fault:?} for {length:?}"));
        self.inject(fault, victim, length);
        let interval = self.scenario.longest_interval();
        let gap = match self.random.below(3) {
            0 => self.random.span(interval * 2),
            1 => self.random.span(interval * 8),
            _ => length + self.quiescence.bound() + self.random.span(interval * 8),
        };
        self.schedule.add(self.now + gap, Happening::Fault);
    }

    /// A third of the seeds use four kinds only, chosen by the first numbers they draw.
    fn choose(&mut self) -> Fault {
        let kinds = &mut self.quiescence.kinds;
        if kinds.is_empty() {
            let count = if self.random.one_in(3) { 4 } else { EVERY_FAULT.len() };
            *kinds = (0..count).map(|_| self.random.index(EVERY_FAULT.len())).collect();
        }
        let kind = self.random.pick(&self.quiescence.kinds);
        EVERY_FAULT[kind]
    }

    /// A master more often than not: that is where it hurts.
    fn choose_victim(&mut self) -> usize {
        let masters: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].adapter.views.iter().any(|v| v.role == Role::Master))
            .collect();
        if masters.is_empty() || self.random.one_in(3) {
            self.random.index(self.nodes.len())
        } else {
            self.random.pick(&masters)
        }
    }

    fn choose_length(&mut self) -> Duration {
        let interval = self.scenario.longest_interval();
        match self.random.below(7) {
            0 => self.random.span(interval),
            1 => self.random.span(interval * 3),
            2 => self.random.span_between(interval * 3, interval * 5),
            3 => self.random.span(interval * 10),
            4 => self.random.span(Duration::from_secs(4)),
            // Long enough to be judged while it lasts.
            _ => {
                self.quiescence.bound()
                    + self.quiescence.start_time()
                    + self.random.span(interval * 3)
            }
        }
    }

    fn inject(&mut self, fault: Fault, victim: usize, length: Duration) {
        let until = self.now + length;
        match fault {
            Fault::Crash if self.nodes[victim].process != Process::Gone => {
                self.expect_takeovers(victim, None);
                self.disturb(self.now);
                self.crash(victim);
                self.schedule.add(until, Happening::Start { node: victim });
            }
            Fault::Crash => {}
            Fault::Pause => {
                if self.nodes[victim].is_running() {
                    self.expect_takeovers(victim, None);
                    self.disturb(self.now);
                    self.pause(victim);
                    self.schedule.add(until, Happening::Undo(Undo::Wake(victim)));
                }
            }
            Fault::Partition | Fault::OneWay | Fault::Noise => {
                self.disturb_lan(fault, victim, until);
            }
            Fault::LinkDown | Fault::LinkGone => {
                let link = self.random.index(self.scenario.links);
                if self.nodes[victim].links[link].running {
                    self.expect_takeovers(victim, Some(link));
                }
                self.disturb(self.now);
                self.take_link(victim, link, fault == Fault::LinkGone);
                self.schedule.add(until, Happening::Undo(Undo::Link(victim, link)));
            }
            Fault::Check => {
                self.nodes[victim].check_passes = false;
                self.disturb(self.now + self.quiescence.check_time());
                self.schedule.add(until, Happening::Undo(Undo::Check(victim)));
            }
            Fault::SlowApply
            | Fault::CrawlingApply
            | Fault::LostAnswer
            | Fault::FailingApply
            | Fault::FailingServe
            | Fault::LateServe => self.sour(fault, victim, until),
            Fault::Objection => self.object(victim, until),
            Fault::Stranger => self.intrude(victim),
            Fault::Unfit => self.make_unfit(victim, until),
            Fault::AllUnfit => self.make_all_unfit(until),
            Fault::Flapping => self.make_flap(victim),
            Fault::StubbornAddress => self.make_stubborn(victim, until),
            Fault::ReloadSame
            | Fault::ReloadPriority
            | Fault::ReloadInterval
            | Fault::ReloadAddresses
            | Fault::ReloadRemoval => self.edit(fault, victim, until),
            Fault::Switchover => self.command_switchover(victim),
            // No disturbance: it is no matter of the election.
            Fault::Order => self.order_server(victim, length),
            Fault::Stop => {
                if self.nodes[victim].is_running() {
                    self.plan_handover(victim, None);
                    self.command(victim, OperatorCommand::Stop);
                    // A stop takes its hold first, then the host is down for a while.
                    let start = until + self.quiescence.bound();
                    self.disturb(start);
                    self.quiescence.allow_handover(self.now);
                    self.schedule.add(start, Happening::Start { node: victim });
                }
            }
            Fault::Thief => self.steal(victim),
            Fault::EarlyTimeout => self.stimulate(victim, Stimulus::Timeout),
        }
    }

    fn disturb_lan(&mut self, fault: Fault, victim: usize, until: Time) {
        let count = self.nodes.len();
        let link = self.random.index(self.scenario.links);
        match fault {
            Fault::Partition => {
                let other = self.random.index(count);
                self.lans[link].split(|node| node == victim || node == other);
            }
            Fault::OneWay => {
                let to = (victim + 1 + self.random.index(count - 1)) % count;
                self.lans[link].path(victim, to).blocked = true;
            }
            _ => {
                let interval = self.scenario.longest_interval();
                let (loss, duplication) = (self.random.below(500), self.random.below(200));
                let corruption = self.random.pick(&[0, 0, 100]);
                let jitter = self.random.span(interval * 2);
                for from in 0..count {
                    for to in 0..count {
                        let path = self.lans[link].path(from, to);
                        path.loss = loss as u32;
                        path.duplication = duplication as u32;
                        path.corruption = corruption;
                        path.jitter = jitter;
                    }
                }
            }
        }
        // Partitions are judged while they last; noise is not, and late frames outlive it.
        let late = self.scenario.longest_interval() * 2;
        let noisy_until = if fault == Fault::Partition { self.now } else { until + late };
        self.disturb(noisy_until);
        self.schedule.add(until, Happening::Undo(Undo::Lan(link)));
    }

    /// Kernel or balancer are not as they should be, for a while.
    fn sour(&mut self, fault: Fault, node: usize, until: Time) {
        let temper = &mut self.nodes[node].applier.temper;
        match fault {
            Fault::SlowApply => temper.latency = SLOW,
            Fault::CrawlingApply => temper.latency = CRAWLING,
            Fault::LostAnswer => temper.unheard = 500,
            Fault::LateServe => temper.warm_up = WARM_UP,
            Fault::FailingApply if self.random.one_in(2) => temper.partial = 500,
            Fault::FailingApply => temper.refusal = 700,
            _ => temper.unserved = 700,
        }
        // Who cannot serve is judged while it lasts: it must change nothing else.
        let is_of_services = matches!(fault, Fault::FailingServe | Fault::LateServe);
        let ends = if is_of_services { self.now } else { until };
        self.disturb(ends);
        self.schedule.add(until, Happening::Undo(Undo::Temper(node)));
    }

    /// Whoever has a say in this node's masterships decides late, never, or against them.
    fn object(&mut self, node: usize, until: Time) {
        let late = self.random.span(Duration::from_millis(600));
        let moods = [
            Mood::Slow(late, Decision::Grant),
            Mood::Slow(late, Decision::Refuse),
            Mood::Slow(Duration::ZERO, Decision::Refuse),
            Mood::Mute,
        ];
        self.nodes[node].adapter.objector.mood = self.random.pick(&moods);
        self.disturb(until);
        self.schedule.add(until, Happening::Undo(Undo::Mood(node)));
    }

    /// Another program adds a virtual address. Where it is held already nothing happens.
    fn intrude(&mut self, node: usize) {
        let router = &self.scenario.routers[self.random.index(self.scenario.routers.len())];
        let position = self.random.index(router.addresses.len());
        let (interface, address) = (router.device_of(position), router.addresses[position]);
        let host = &mut self.nodes[node];
        let is_there = link_of(&interface).is_some_and(|link| host.links[link].index != 0);
        if is_there && host.kernel.intrude(self.now, &interface, address) {
            self.report_link(node, &interface);
        }
    }

    /// One address of several is refused from now on, for a while or for good.
    fn make_stubborn(&mut self, node: usize, until: Time) {
        let router = &self.scenario.routers[self.random.index(self.scenario.routers.len())];
        // The same one each time, so that others are left.
        let Some(address) = router.addresses.get(1).copied() else { return };
        if !self.nodes[node].stubborn.insert(address) {
            return;
        }
        self.disturb(self.now);
        if !self.random.one_in(3) {
            self.schedule.add(until, Happening::Undo(Undo::Stubborn(node, address)));
        }
    }

    /// Carrier lost, or the device removed with everything on it.
    fn take_link(&mut self, node: usize, link: usize, gone: bool) {
        let host = &mut self.nodes[node];
        host.links[link].running = false;
        let lost = if gone { host.kernel.clear(INTERFACES[link]) } else { Vec::new() };
        if gone {
            host.links[link].index = 0;
        }
        let states = host.reported_links(link);
        for (interface, address) in lost {
            self.report_loss(node, interface, address);
        }
        for state in states {
            self.stimulate(node, Stimulus::Link(state));
        }
    }

    fn give_link(&mut self, node: usize, link: usize) {
        let state = &mut self.nodes[node].links[link];
        if state.running {
            return;
        }
        state.running = true;
        if state.index == 0 {
            state.index = 2 + self.happenings as u32 % 1000;
        }
        let states = self.nodes[node].reported_links(link);
        self.disturb(self.now + ASKED_AGAIN);
        for state in states {
            self.stimulate(node, Stimulus::Link(state));
        }
    }

    fn edit(&mut self, fault: Fault, node: usize, until: Time) {
        let router = self.random.index(self.scenario.routers.len());
        let VirtualRouter { paces, follows_service, .. } = &self.scenario.routers[router];
        let edit = &mut self.nodes[node].edits[router];
        match fault {
            Fault::ReloadPriority => {
                // The others do not know of it: it stays above what they compete with when they
                // cannot serve, whatever checks take from it.
                let lowest = if *follows_service { 130 } else { 1 };
                edit.priority = Some(self.random.between(lowest, 254) as u8);
            }
            Fault::ReloadInterval => edit.interval = Some(self.random.pick(paces)),
            Fault::ReloadAddresses => edit.extended ^= true,
            Fault::ReloadRemoval if !edit.removed => {
                self.plan_handover(node, Some(router));
                self.nodes[node].edits[router].removed = true;
                self.schedule.add(until, Happening::Undo(Undo::Instance(node, router)));
            }
            _ => {}
        }
        if fault != Fault::ReloadSame {
            self.disturb(self.now);
            if fault == Fault::ReloadRemoval {
                self.quiescence.allow_handover(self.now);
            }
        }
        self.reload(node);
    }

    /// Hands the node's process its plan as it is now written.
    fn reload(&mut self, node: usize) {
        if self.nodes[node].process != Process::Gone {
            let plan = self.scenario.plan(node, &self.nodes[node].edits);
            self.stimulate(node, Stimulus::Plan(plan, Vec::new()));
        }
    }

    pub fn command(&mut self, node: usize, command: OperatorCommand) {
        self.commands += 1;
        self.stimulate(node, Stimulus::Command(self.commands, command));
    }

    fn command_switchover(&mut self, node: usize) {
        if !self.nodes[node].is_running() {
            return;
        }
        let router = self.random.index(self.scenario.routers.len());
        let name = self.scenario.routers[router].name.clone();
        self.plan_handover(node, Some(router));
        let target = Target::Instance(name);
        self.command(
            node,
            OperatorCommand::Switchover {
                target,
                to: None,
                run: RunMode::Real,
                successor: Successor::Fit,
            },
        );
        self.disturb(self.now);
        self.quiescence.allow_handover(self.now);
    }

    /// Someone else deletes a virtual address.
    fn steal(&mut self, node: usize) {
        let held: Vec<_> =
            self.nodes[node].kernel.addresses().map(|(i, a)| (i.clone(), a)).collect();
        if held.is_empty() {
            return;
        }
        let (interface, address) = self.random.pick(&held);
        self.disturb(self.now);
        self.nodes[node].kernel.take(&interface, address);
        self.report_loss(node, interface, address);
    }

    pub fn undo(&mut self, undo: Undo) {
        if self.quiescence.healed {
            return;
        }
        self.trace.line(self.now, "-", || format!("UNDO {undo:?}"));
        match undo {
            Undo::Wake(node) => {
                // A reload may have waited with it.
                self.disturb(self.now + self.quiescence.start_time());
                self.wake(node);
            }
            Undo::Lan(link) => {
                self.lans[link].heal();
                self.disturb(self.now);
            }
            Undo::Link(node, link) => self.give_link(node, link),
            Undo::Check(node) => {
                self.nodes[node].check_passes = true;
                self.disturb(self.now + self.quiescence.check_time());
            }
            Undo::Temper(node) => {
                self.soothe(node);
                // What it has begun with takes its time.
                self.disturb(self.quiescence.retried(self.now).max(self.now + SLOWEST));
            }
            Undo::Mood(node) => {
                self.nodes[node].adapter.objector.mood = Mood::Willing;
                self.disturb(self.now);
            }
            Undo::Stubborn(node, address) => {
                self.nodes[node].stubborn.remove(&address);
                self.disturb(self.quiescence.retried(self.now));
            }
            Undo::Fitness { node, router, lack } => self.lose(node, router, lack, false),
            Undo::CommonFitness { router, lack } => self.end_common(router, lack),
            Undo::Flap { node, router, left } => self.flap(node, router, left),
            Undo::Instance(node, router) => {
                self.nodes[node].edits[router].removed = false;
                // Its check comes back with it, and both begin anew.
                self.disturb(self.now + self.quiescence.start_time());
                self.reload(node);
            }
        }
    }

    /// Kernel and balancer take what they are given, and the balancer has tried again.
    fn soothe(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        host.applier.temper = Temper::IDLE;
        host.balancer.recover();
    }

    /// Ends every fault but those that last for good. A node that crashed may stay dead, if others
    /// live: its lease must free the addresses.
    pub fn heal_all(&mut self) {
        self.trace.line(self.now, "-", || "HEAL".to_owned());
        for lan in &mut self.lans {
            lan.heal();
        }
        let any_runs = self.nodes.iter().any(|node| node.process != Process::Gone);
        for node in 0..self.nodes.len() {
            self.soothe(node);
            self.nodes[node].adapter.objector.mood = Mood::Willing;
            self.nodes[node].check_passes = true;
            for edit in &mut self.nodes[node].edits {
                edit.removed = false;
                edit.extended = false;
            }
            for link in 0..self.scenario.links {
                self.give_link(node, link);
            }
            self.wake(node);
            let stays_dead = any_runs && !self.holds_for_ever(node) && self.random.one_in(4);
            if self.nodes[node].process == Process::Gone && !stays_dead {
                self.start(node);
            } else {
                self.reload(node);
            }
        }
        let believed = self.now + self.heal_fitness();
        let asked = self.quiescence.retried(self.now).max(self.now + SLOWEST).max(believed);
        let until = asked + self.quiescence.start_time();
        self.heal(until);
        self.schedule.add(until + self.quiescence.bound() * 2, Happening::End);
    }

    fn holds_for_ever(&self, node: usize) -> bool {
        let kernel = &self.nodes[node].kernel;
        kernel.addresses().any(|(_, address)| !kernel.leases(address))
    }
}
