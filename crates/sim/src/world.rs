//! The whole simulated LAN: nodes, wire and the queue of what will happen next.
//!
//! ```text
//!   schedule ──► step ──► stimulate(node) ──► engine ──► outputs ──► execute ──► schedule
//!                                                │                      │
//!                                                └──── judged after every event ────► Violation
//! ```

use std::time::Duration;

use locum_vrrp::Time;

use crate::faults::Undo;
use crate::fitness::Common;
use crate::judge::{Violation, Watch};
use crate::lan::{Frame, Lan};
use crate::node::{Node, Process, Stimulus};
use crate::place::{INTERFACES, node_name};
use crate::plant::Plant;
use crate::quiescence::Quiescence;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::takeover::Takeovers;
use crate::trace::Trace;
use crate::virtual_router::Edit;

/// Simulated time does not begin at zero, so that no subtraction hides behind it.
const BEGIN: Time = Time::from_nanos(1_000_000_000_000);

/// A run with more happenings than this does not end by itself: an engine that spins.
const HAPPENING_LIMIT: u64 = 2_000_000;

/// Timeouts in a row at one moment before it counts as spinning.
pub const SPIN_LIMIT: u32 = 64;

/// What will happen.
#[derive(Debug)]
pub enum Happening {
    Arrive {
        to: usize,
        frame: Frame,
    },
    Timer {
        node: usize,
        life: u32,
        at: Time,
    },
    /// Something reaches the engine of this process.
    Reach {
        node: usize,
        life: u32,
        stimulus: Stimulus,
    },
    JobDone {
        node: usize,
        life: u32,
    },
    Served {
        node: usize,
        life: u32,
    },
    /// What its balancer has begun to serve answers, fails or recovers.
    Answers {
        node: usize,
        life: u32,
    },
    Probe {
        node: usize,
        life: u32,
        probe: locum_engine::ProbeId,
    },
    Sweep {
        node: usize,
    },
    Start {
        node: usize,
    },
    Fault,
    Undo(Undo),
    HealAll,
    End,
}

pub struct World {
    pub now: Time,
    pub random: Random,
    pub scenario: Scenario,
    pub schedule: Schedule<Happening>,
    /// By link.
    pub lans: Vec<Lan>,
    pub nodes: Vec<Node>,
    /// By node, then by virtual router.
    pub watches: Vec<Vec<Watch>>,
    pub quiescence: Quiescence,
    pub takeovers: Takeovers,
    /// What all nodes have lost at once.
    pub common: Option<Common>,
    pub trace: Trace,
    pub plant: Option<Plant>,
    pub violation: Option<Violation>,
    pub faults_left: usize,
    /// The last moment a timeout was fed, and how often at it.
    pub spin: (Time, u32),
    pub commands: u64,
    pub happenings: u64,
}

impl World {
    /// Everything follows from the seed.
    pub fn new(seed: u64, plant: Option<Plant>, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::new(&mut random);
        let nodes: Vec<Node> = (0..scenario.nodes)
            .map(|number| {
                let edits = vec![Edit::default(); scenario.routers.len()];
                let plan = scenario.plan(number, &edits);
                Node::new(number, scenario.links, edits, plan)
            })
            .collect();
        let watches = vec![vec![Watch::default(); scenario.routers.len()]; scenario.nodes];
        let mut world = Self {
            now: BEGIN,
            lans: (0..scenario.links)
                .map(|_| Lan::new(scenario.nodes, scenario.delay, scenario.jitter))
                .collect(),
            quiescence: Quiescence::new(&scenario, BEGIN),
            takeovers: Takeovers::default(),
            common: None,
            faults_left: scenario.faults,
            random,
            scenario,
            schedule: Schedule::default(),
            nodes,
            watches,
            trace,
            plant,
            violation: None,
            spin: (BEGIN, 0),
            commands: 0,
            happenings: 0,
        };
        world.begin();
        world
    }

    /// Nodes start within one interval of each other; the first fault may hit the first election.
    fn begin(&mut self) {
        let interval = self.scenario.longest_interval();
        for node in 0..self.nodes.len() {
            let at = self.now + self.random.span(interval);
            self.schedule.add(at, Happening::Start { node });
        }
        self.disturb(self.now + interval + self.quiescence.start_time());
        let first = self.now + self.random.span(interval * 12);
        self.schedule.add(first, Happening::Fault);
        let nodes = self.scenario.nodes;
        for router in &self.scenario.routers {
            self.trace.line(self.now, "-", || {
                let service = router.service.as_ref().map(|service| &service.name);
                format!(
                    "scenario {nodes} nodes, {} on {}: vrid {} {:?} {:?} {:?} unicast={} priorities {:?} preempt {:?} delay {:?} lease {:?} addresses {:?} stray {:?} tracks {:?} check {:?} service {service:?}",
                    router.name,
                    INTERFACES[router.link],
                    router.vrid.get(),
                    router.version,
                    router.family,
                    router.intervals,
                    router.unicast,
                    router.priorities,
                    router.preempts,
                    router.start_delay,
                    router.lease,
                    router.addresses,
                    router.stray,
                    router.tracked.map(|(link, weight)| (link, weight.value)),
                    router.check.as_ref().map(|check| check.weight.value),
                )
            });
        }
    }

    /// Runs to its end, or to the first violation.
    pub fn run(&mut self) {
        while self.violation.is_none() && self.step() {}
    }

    /// The next happening; false when there is none.
    fn step(&mut self) -> bool {
        let Some((at, what)) = self.schedule.take_next() else { return false };
        debug_assert!(at >= self.now, "time does not run backwards");
        self.now = self.now.max(at);
        self.happenings += 1;
        if self.happenings > HAPPENING_LIMIT {
            self.blame(None, "bounded", "the run does not come to an end".to_owned());
            return false;
        }
        match what {
            Happening::End => {
                self.judge_end();
                return false;
            }
            Happening::Arrive { to, frame } => self.arrive(to, frame),
            Happening::Timer { node, life, at } => self.timer(node, life, at),
            Happening::Reach { node, life, stimulus } => {
                if self.nodes[node].life == life {
                    self.stimulate(node, stimulus);
                }
            }
            Happening::JobDone { node, life } => self.job_done(node, life),
            Happening::Served { node, life } => self.served(node, life),
            Happening::Answers { node, life } => self.services_go_on(node, life),
            Happening::Probe { node, life, probe } => self.probe(node, life, probe),
            Happening::Sweep { node } => self.sweep(node),
            Happening::Start { node } => {
                if !self.quiescence.healed {
                    self.start(node);
                }
            }
            Happening::Fault => self.fault_due(),
            Happening::Undo(undo) => self.undo(undo),
            Happening::HealAll => self.heal_all(),
        }
        self.judge_settled();
        true
    }

    fn arrive(&mut self, to: usize, frame: Frame) {
        let node = &self.nodes[to];
        if self.plant == Some(Plant::Deaf) && to == 0 {
            return;
        }
        if node.receives(frame.link, frame.family, frame.destination) {
            self.stimulate(to, Stimulus::Packet(frame));
        }
    }

    fn timer(&mut self, node: usize, life: u32, at: Time) {
        let host = &mut self.nodes[node];
        if host.life != life || host.timer != Some(at) || !host.is_running() {
            return;
        }
        host.timer = None;
        self.spin =
            if self.spin.0 == self.now { (self.now, self.spin.1 + 1) } else { (self.now, 0) };
        if self.spin.1 > SPIN_LIMIT * self.nodes.len() as u32 {
            self.blame(Some(node), "bounded", "asks for the same timeout for ever".to_owned());
            return;
        }
        self.stimulate(node, Stimulus::Timeout);
    }

    fn probe(&mut self, node: usize, life: u32, probe: locum_engine::ProbeId) {
        let host = &self.nodes[node];
        if host.life != life {
            return;
        }
        let Some(spec) = host.probes.get(&probe) else { return };
        let outcome = host.outcome(spec);
        let next = self.now + spec.interval;
        self.schedule.add(next, Happening::Probe { node, life, probe });
        // A paused process runs no probes: the one due is simply late.
        if self.nodes[node].is_running() {
            self.stimulate(node, Stimulus::Probed(probe, outcome));
        }
    }

    /// A process begins: it learns its link, then its plan and what an earlier one left.
    pub fn start(&mut self, node: usize) {
        if self.nodes[node].process != Process::Gone {
            return;
        }
        // Checks and start delays begin anew with the process.
        self.disturb(self.now + self.quiescence.start_time());
        let host = &mut self.nodes[node];
        host.process = Process::Running;
        let links: Vec<_> =
            (0..host.links.len()).flat_map(|link| host.reported_links(link)).collect();
        let plan = self.scenario.plan(node, &host.edits);
        host.plan = plan.clone();
        let inherited = host.kernel.inherited(self.now);
        self.forget_watches(node);
        for link in links {
            self.stimulate(node, Stimulus::Link(link));
        }
        self.stimulate(node, Stimulus::Plan(plan, inherited));
    }

    /// The process ends without a word; its host's kernel goes on.
    pub fn crash(&mut self, node: usize) {
        self.trace.line(self.now, &self.name(node), || "CRASH".to_owned());
        self.nodes[node].end_process();
        self.forget_watches(node);
        self.quiescence.died(self.now, node);
    }

    pub fn pause(&mut self, node: usize) {
        self.trace.line(self.now, &self.name(node), || "PAUSE".to_owned());
        self.nodes[node].process = Process::Paused;
        self.nodes[node].paused_at = self.now;
    }

    /// What has waited in the sockets comes first, then the rest, then the time.
    pub fn wake(&mut self, node: usize) {
        if self.nodes[node].process != Process::Paused {
            return;
        }
        self.trace.line(self.now, &self.name(node), || "WAKE".to_owned());
        let host = &mut self.nodes[node];
        host.process = Process::Running;
        if self.plant == Some(Plant::Oversleep) {
            host.adapter.sleep(self.now.since(host.paused_at));
        }
        host.timer = None;
        let unread = std::mem::take(&mut host.unread);
        let unheard = std::mem::take(&mut host.unheard);
        let life = host.life;
        for frame in unread {
            self.stimulate(node, Stimulus::Packet(frame));
        }
        for stimulus in unheard {
            self.stimulate(node, stimulus);
        }
        self.stimulate(node, Stimulus::Timeout);
        let host = &mut self.nodes[node];
        if std::mem::take(&mut host.applier.stalled) {
            let latency = host.applier.latency(&mut self.random);
            self.schedule.add(self.now + latency, Happening::JobDone { node, life });
        }
        self.next_job(node);
    }

    pub fn name(&self, node: usize) -> String {
        node_name(node).to_string()
    }

    /// A time in the near future, for what a kernel or monitor takes to tell.
    pub fn soon(&mut self) -> Time {
        self.now + self.random.span(Duration::from_micros(200))
    }
}
