//! Feed one input, take every output, do it: what the daemon's threads do, on simulated time.

use locum_config::plan::Name;
use locum_engine::{Datagram, HeldAddress, Output, ProbeChange, Seq};
use locum_vrrp::Family;

use crate::adapter::Plant;
use crate::applier::{Job, QUEUE_LIMIT};
use crate::lan::Parcel;
use crate::node::{Process, Stimulus};
use crate::trace::{describe_output, describe_stimulus};
use crate::wire;
use crate::world::{Happening, World};

impl World {
    /// Brings something to a node's process, in whatever condition that is.
    pub fn stimulate(&mut self, node: usize, stimulus: Stimulus) {
        let host = &mut self.nodes[node];
        match (host.process, stimulus) {
            (Process::Gone, _) | (Process::Paused, Stimulus::Timeout) => {}
            (Process::Paused, Stimulus::Packet(parcel)) => host.keep(parcel),
            (Process::Paused, other) => host.unheard.push_back(other),
            (Process::Running, stimulus) => self.feed(node, &stimulus),
        }
    }

    fn feed(&mut self, node: usize, stimulus: &Stimulus) {
        if self.violation.is_some() {
            return;
        }
        let host = &mut self.nodes[node];
        let before = host.adapter.views.clone();
        let due = host.adapter.deadline.is_some_and(|deadline| deadline <= self.now);
        if let Stimulus::Plan(plan, _) = stimulus {
            host.plan = plan.clone();
        }
        let outputs = host.adapter.handle(self.now, stimulus.input(), &host.plan, self.plant);
        let name = self.name(node);
        self.trace.line(self.now, &name, || {
            let outputs: Vec<String> = outputs.iter().map(describe_output).collect();
            format!("{} -> {}", describe_stimulus(stimulus), outputs.join(", "))
        });
        self.judge_drain(node, stimulus, &before, &outputs, due);
        if let Stimulus::Plan(plan, _) = stimulus {
            self.nodes[node].applied_plan = Some(plan.clone());
        }
        for output in outputs {
            self.execute(node, output);
        }
        self.set_timer(node);
        self.judge_node(node);
    }

    fn execute(&mut self, node: usize, output: Output) {
        match output {
            Output::Advertise(datagram) => self.advertise(node, datagram),
            Output::Apply { seq, instance, hold, drop } => {
                self.enqueue(node, Job::Apply { seq, instance, hold, drop });
            }
            Output::Announce { after, until, frames, .. } => {
                if self.plant == Some(Plant::AnnounceEarly) {
                    self.announced(node, &frames);
                } else {
                    self.enqueue(node, Job::Announce { after, until, frames });
                }
            }
            Output::Serve { seq, wanted } => {
                self.nodes[node].balancer.waiting = Some((seq, wanted));
                self.next_service(node);
            }
            Output::Probe(ProbeChange::Start { probe, spec }) => {
                let host = &mut self.nodes[node];
                let life = host.life;
                let first = self.now + self.random.span(spec.interval.min(spec.timeout));
                if host.probes.insert(probe, spec).is_none() {
                    self.schedule.add(first, Happening::Probe { node, life, probe });
                }
            }
            Output::Probe(ProbeChange::Stop { probe }) => {
                self.nodes[node].probes.remove(&probe);
            }
            Output::Listen(sockets) => {
                let families = sockets.into_iter().map(|(_, family, _)| family);
                self.nodes[node].listens = families.collect();
            }
            Output::Stopped => self.stopped(node),
            Output::Notify(_) | Output::Hook(_) | Output::Reply { .. } | Output::Deadline(_) => {}
        }
    }

    fn advertise(&mut self, node: usize, datagram: Datagram) {
        if self.plant == Some(Plant::NoHold) && datagram.message.get(2) == Some(&0) {
            self.withdraw_at_once(node, &datagram.instance);
        }
        if !self.nodes[node].link.running {
            return;
        }
        let Datagram { source, destination, ttl, message, .. } = datagram;
        let family = Family::of(&destination);
        let bytes = wire::wrap(source, destination, ttl, &message);
        let parcel = Parcel {
            from: node,
            family,
            source,
            destination,
            hop_limit: ttl,
            bytes,
            damaged: false,
        };
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            let own = &self.nodes[to].link.addresses;
            let meant = destination.is_multicast() || own.contains(&destination);
            if !meant {
                continue;
            }
            for arrival in self.lan.carry(&mut self.random, to, &parcel) {
                let happening = Happening::Arrive { to, parcel: arrival.parcel };
                self.schedule.add(self.now + arrival.after, happening);
            }
        }
    }

    /// [`Plant::NoHold`]: the addresses go with the farewell.
    fn withdraw_at_once(&mut self, node: usize, instance: &str) {
        let host = &mut self.nodes[node];
        let ours = host.plan.instances.iter().find(|i| &*i.name == instance);
        for held in ours.into_iter().flat_map(|i| &i.addresses) {
            host.kernel.remove(crate::scenario::INTERFACE, held.address);
        }
    }

    fn enqueue(&mut self, node: usize, job: Job) {
        let applier = &mut self.nodes[node].applier;
        applier.queue.push_back(job);
        let length = applier.queue.len();
        if length > QUEUE_LIMIT * self.scenario.routers.len() {
            self.blame(Some(node), "bounded", format!("{length} jobs wait for the applier"));
        }
        self.next_job(node);
    }

    /// Begins with the head of the applier's queue.
    pub fn next_job(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        if host.is_running() && !host.applier.busy && !host.applier.queue.is_empty() {
            host.applier.busy = true;
            let latency = host.applier.job_latency(&mut self.random);
            let life = host.life;
            self.schedule.add(self.now + latency, Happening::JobDone { node, life });
        }
    }

    pub fn job_done(&mut self, node: usize, life: u32) {
        let host = &mut self.nodes[node];
        if host.life != life {
            return;
        }
        if host.process == Process::Paused {
            host.applier.stalled = true;
            return;
        }
        host.applier.busy = false;
        let Some(job) = host.applier.queue.pop_front() else { return };
        match job {
            Job::Announce { after, until, frames } => {
                if self.now <= until && host.applier.went_well(after) {
                    self.announced(node, &frames);
                }
            }
            Job::Apply { seq, instance, hold, drop } => {
                self.apply(node, seq, instance, &hold, &drop);
            }
        }
        self.next_job(node);
        self.judge_node(node);
    }

    fn apply(
        &mut self,
        node: usize,
        seq: Seq,
        instance: Name,
        hold: &[HeldAddress],
        drop: &[HeldAddress],
    ) {
        let host = &mut self.nodes[node];
        let refusal = if !hold.is_empty() && host.link.index == 0 {
            Some("cannot add the address: no such device")
        } else if host.applier.refuses(&mut self.random) {
            Some("no buffer space available")
        } else {
            None
        };
        if refusal.is_none() {
            for gone in drop {
                host.kernel.remove(&gone.interface, gone.address.address);
            }
            for held in hold {
                if let Some(at) = host.kernel.add(self.now, held, &mut self.random) {
                    self.schedule.add(at, Happening::Sweep { node });
                }
            }
        }
        host.applier.record(seq, refusal.is_none());
        if let Some(index) = self.scenario.routers.iter().position(|r| r.name == instance) {
            self.watches[node][index].refused = refusal.is_some();
        }
        let name = self.name(node);
        self.trace.line(self.now, &name, || {
            let held: Vec<_> =
                self.nodes[node].kernel.addresses().map(|(_, a)| a.to_string()).collect();
            format!("kernel apply #{seq} {instance}, now holds {held:?}")
        });
        let result = refusal.map_or(Ok(()), |text| Err(text.to_owned()));
        self.stimulate(node, Stimulus::Applied(seq, instance, result));
    }

    fn next_service(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        if host.balancer.begun.is_none() {
            host.balancer.begun = host.balancer.waiting.take();
            if host.balancer.begun.is_some() {
                let life = host.life;
                let latency = host.applier.latency(&mut self.random);
                self.schedule.add(self.now + latency, Happening::Served { node, life });
            }
        }
    }

    pub fn served(&mut self, node: usize, life: u32) {
        let host = &mut self.nodes[node];
        if host.life != life {
            return;
        }
        if let Some(seq) = host.balancer.finish() {
            self.stimulate(node, Stimulus::Served(seq));
            self.next_service(node);
            self.judge_node(node);
        }
    }

    /// The kernel removes what has outlived its lease, and its monitor tells.
    pub fn sweep(&mut self, node: usize) {
        for (interface, address) in self.nodes[node].kernel.sweep(self.now) {
            // A running engine is about to learn of it; a paused one must not announce on waking.
            if self.nodes[node].is_running() {
                self.nodes[node].kernel.note_taken(address);
            }
            let name = self.name(node);
            self.trace.line(self.now, &name, || format!("kernel lease of {address} ran out"));
            self.report_loss(node, interface, address);
        }
    }

    /// The netlink monitor sees an address go that the applier did not remove.
    pub fn report_loss(&mut self, node: usize, interface: Name, address: std::net::IpAddr) {
        let life = self.nodes[node].life;
        let at = self.soon();
        let stimulus = Stimulus::AddressLost(interface, address);
        self.schedule.add(at, Happening::Reach { node, life, stimulus });
    }

    fn stopped(&mut self, node: usize) {
        self.judge_stopped(node);
        self.nodes[node].end_process();
        self.forget_watches(node);
        self.calm.died(self.now, node);
    }

    fn set_timer(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        let wanted = host.adapter.timer();
        if !host.is_running() || host.timer == wanted {
            return;
        }
        host.timer = wanted;
        if let Some(at) = wanted {
            let life = host.life;
            let late = self.random.span(self.scenario.tardiness);
            self.schedule.add(at.max(self.now) + late, Happening::Timer { node, life, at });
        }
    }
}
