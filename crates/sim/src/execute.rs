//! Feed one input, take every output, do it: what the daemon's threads do, on simulated time.

use std::sync::Arc;
use std::time::Duration;

use locum_engine::{
    Announcement, Asked, Fact, FactKey, OutgoingAdvert, Output, Owner, ProbeChange, Refusal,
    Removal, SendReport, Seq,
};
use locum_plan::Name;
use locum_vrrp::{Family, Time};

use crate::applier::{Job, QUEUE_LIMIT, Temper};
use crate::judge::{Drain, OWN_WORD};
use crate::kernel::Kernel;
use crate::lan::Frame;
use crate::node::{Process, Stimulus};
use crate::place::link_of;
use crate::plant::Plant;
use crate::trace::{describe_output, describe_stimulus};
use crate::virtual_router::VirtualRouter;
use crate::wire;
use crate::world::{Happening, World};

/// The longest a service that has failed takes until it answers.
pub const SLOWEST_RECOVERY: Duration = Duration::from_secs(2);

/// As many inputs wait for a stopped process in the daemon.
const UNHEARD_LIMIT: usize = 1024;

impl World {
    /// Brings something to a node's process, in whatever condition that is.
    pub fn stimulate(&mut self, node: usize, stimulus: Stimulus) {
        let host = &mut self.nodes[node];
        match (host.process, stimulus) {
            (Process::Gone, _) | (Process::Paused, Stimulus::Timeout) => {}
            (Process::Paused, Stimulus::Packet(frame)) => host.keep(frame),
            (Process::Paused, other) => {
                host.unheard.push_back(other);
                let length = host.unheard.len();
                if length > UNHEARD_LIMIT {
                    self.blame(Some(node), "bounded", format!("{length} inputs wait"));
                }
            }
            (Process::Running, stimulus) => self.feed(node, &stimulus),
        }
    }

    fn feed(&mut self, node: usize, stimulus: &Stimulus) {
        if self.violation.is_some() {
            return;
        }
        let host = &mut self.nodes[node];
        let before = host.adapter.views.clone();
        let previous = Arc::clone(&host.plan);
        let due = host.adapter.deadline.is_some_and(|deadline| deadline <= self.now);
        if let Stimulus::Plan(plan, _) = stimulus {
            host.plan = plan.clone();
        }
        let outputs = host.adapter.handle(self.now, stimulus, &host.plan, self.plant);
        let name = self.name(node);
        self.trace.line(self.now, &name, || {
            let outputs: Vec<String> = outputs.iter().map(describe_output).collect();
            format!("{} -> {}", describe_stimulus(stimulus), outputs.join(", "))
        });
        if let Some(broken) = self.nodes[node].adapter.broken.take() {
            self.blame(Some(node), OWN_WORD, broken);
        }
        let drain =
            Drain { stimulus, before: &before, previous: &previous, outputs: &outputs, due };
        self.judge_drain(node, drain);
        if let Stimulus::Plan(plan, _) = stimulus {
            self.nodes[node].applied_plan = Some(plan.clone());
        }
        for output in outputs {
            self.execute(node, output);
        }
        self.note_waiting(node);
        self.set_timer(node);
        self.await_decision(node);
        self.judge_node(node);
    }

    /// Whoever has a say in something decides later: the engine asks again in any drain.
    fn await_decision(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        let (life, at) = (host.life, host.adapter.objector.decides_at());
        let at = at.map(|at| at.max(self.now));
        if host.decision != at {
            host.decision = at;
            if let Some(at) = at {
                let stimulus = Stimulus::Timeout;
                self.schedule.add(at, Happening::Reach { node, life, stimulus });
            }
        }
    }

    fn execute(&mut self, node: usize, output: Output) {
        match output {
            Output::Advertise(datagram) => self.advertise(node, datagram),
            Output::Apply { seq, owner, hold, drop } => {
                if self.plant == Some(Plant::AnnounceEarly) {
                    self.announced(node, &premature(&hold));
                }
                if self.plant == Some(Plant::AckEarly) {
                    let life = self.nodes[node].life;
                    let stimulus = Stimulus::Applied(seq, owner, Ok(Vec::new()));
                    self.schedule.add(self.now, Happening::Reach { node, life, stimulus });
                }
                self.enqueue(node, Job::Apply { seq, owner, hold, drop });
            }
            Output::Announce { instance, until, frames } => {
                self.enqueue(node, Job::Announce { instance, until, frames });
            }
            Output::Serve { seq, wanted } => {
                self.nodes[node].balancer.ask(seq, wanted);
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
                self.nodes[node].listens.clear();
                for listen in sockets {
                    let Some(link) = link_of(&listen.interface) else { continue };
                    let groups = listen.groups.into_iter().map(Some).chain([None]);
                    let heard = groups.map(|group| (link, listen.family, group));
                    self.nodes[node].listens.extend(heard);
                }
            }
            Output::Stopped => self.stopped(node),
            // Simulated sockets lose nothing to other senders.
            Output::Masters(_)
            | Output::Notify(_)
            | Output::Hook(_)
            | Output::Reply { .. }
            | Output::Deadline(_) => {}
        }
    }

    fn advertise(&mut self, node: usize, datagram: OutgoingAdvert) {
        if self.plant == Some(Plant::NoHold) && datagram.message.get(2) == Some(&0) {
            let name = self.nodes[node].adapter.name_of(datagram.instance).cloned();
            self.withdraw_at_once(node, &name.unwrap_or_default());
        }
        let OutgoingAdvert { interface, source, destination, ttl, message, .. } = datagram;
        let Some(link) = link_of(&interface) else { return };
        if !self.nodes[node].links[link].running {
            return;
        }
        let family = Family::of(&destination);
        let bytes = wire::wrap(source, destination, ttl, &message);
        let frame = Frame {
            from: node,
            link,
            family,
            source,
            destination,
            hop_limit: ttl,
            bytes,
            damage: None,
        };
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            let own = &self.nodes[to].links[link].addresses;
            let meant = destination.is_multicast() || own.contains(&destination);
            if !meant {
                continue;
            }
            for arrival in self.lans[link].carry(&mut self.random, to, &frame) {
                let happening = Happening::Arrive { to, frame: arrival.frame };
                self.schedule.add(self.now + arrival.after, happening);
            }
        }
    }

    /// [`Plant::NoHold`]: the addresses go with the farewell.
    fn withdraw_at_once(&mut self, node: usize, instance: &str) {
        let host = &mut self.nodes[node];
        let ours = host.plan.instances.iter().filter(|i| &*i.name == instance);
        for (home, held) in ours.flat_map(|i| i.addresses.iter().map(|a| (&i.interface, a))) {
            let on = held.device().unwrap_or(home);
            host.kernel.remove(on, held.address);
        }
    }

    fn enqueue(&mut self, node: usize, job: Job) {
        let applier = &mut self.nodes[node].applier;
        applier.add(self.now, job);
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
        let Some((since, job)) = host.applier.queue.pop_front() else { return };
        match job {
            Job::Announce { instance, until, frames } => {
                if self.now <= until && !frames.is_empty() {
                    self.announced(node, &frames);
                    let report = report_of(&frames);
                    self.stimulate(node, Stimulus::Sent(instance, report));
                }
            }
            Job::Apply { seq, owner, hold, drop } => {
                let level = Level { seq, owner, hold: &hold, drop: &drop };
                self.apply(node, since, level);
            }
        }
        self.next_job(node);
        self.judge_node(node);
    }

    fn apply(&mut self, node: usize, asked: Time, level: Level<'_>) {
        let Level { seq, owner, hold, drop } = level;
        let result = self.change_kernel(node, hold, drop);
        let is_stuck = |refusal: &Refusal| refusal.asked == Asked::Drop;
        let refused = result.as_ref().map_or(true, |refusals| refusals.iter().any(is_stuck));
        let adapter = &self.nodes[node].adapter;
        let mut routers = self.scenario.routers.iter();
        match routers.position(|router| adapter.is_of(owner, &router.name)) {
            Some(index) => {
                let watch = &mut self.watches[node][index];
                watch.refused = refused;
                let is_refusal = |refusal: &Refusal| refusal.asked == Asked::Hold;
                if result.as_ref().map_or(true, |refusals| refusals.iter().any(is_refusal)) {
                    watch.refused_at = Some(self.now);
                }
            }
            // What an earlier process has left and no instance has.
            None => self.nodes[node].unowned_refused = refused,
        }
        let name = self.name(node);
        self.trace.line(self.now, &name, || {
            let held: Vec<_> =
                self.nodes[node].kernel.addresses().map(|(_, a)| a.to_string()).collect();
            format!("kernel apply #{seq} {owner:?}, now holds {held:?}")
        });
        let is_lost = self.nodes[node].applier.loses_answer(&mut self.random);
        let is_late = self.now.since(asked) > Duration::from_secs(1);
        let result = match self.plant {
            // The plant has told already.
            Some(Plant::AckEarly) => return,
            Some(Plant::SlowIsFault) if is_late => Err("timed out".to_owned()),
            _ => result,
        };
        if !is_lost {
            self.stimulate(node, Stimulus::Applied(seq, owner, result));
        }
    }

    /// What the kernel makes of it, fact by fact.
    fn change_kernel(
        &mut self,
        node: usize,
        hold: &[Fact],
        drop: &[Removal],
    ) -> Result<Vec<Refusal>, String> {
        if self.nodes[node].applier.refuses(&mut self.random) {
            self.quiescence.refused(self.now);
            return Err("no buffer space available".to_owned());
        }
        let mut refusals = Vec::new();
        for Removal { fact, whose } in drop.iter().filter(|one| Kernel::models(&one.fact)) {
            let host = &mut self.nodes[node];
            if host.applier.refuses_one(&mut self.random) {
                refusals.push(refusal(Asked::Drop, fact, "device or resource busy"));
                continue;
            }
            if host.kernel.withdraw(fact, *whose) {
                self.report_link(node, fact.interface());
            }
        }
        for fact in hold.iter().filter(|fact| Kernel::models(fact)) {
            let host = &mut self.nodes[node];
            let link = link_of(fact.interface()).map(|link| &host.links[link]);
            if link.is_none_or(|link| link.index == 0) {
                refusals.push(refusal(Asked::Hold, fact, "no such device"));
                continue;
            }
            let address = fact.key().address();
            let is_stubborn = address.is_some_and(|address| host.stubborn.contains(&address));
            if is_stubborn || host.applier.refuses_one(&mut self.random) {
                self.quiescence.refused(self.now);
                refusals.push(refusal(Asked::Hold, fact, "permission denied"));
                continue;
            }
            let (swept, is_seen) = host.kernel.hold(self.now, fact, &mut self.random);
            if let Some(at) = swept {
                self.schedule.add(at, Happening::Sweep { node });
            }
            if is_seen {
                self.report_link(node, fact.interface());
            }
        }
        Ok(refusals)
    }

    fn next_service(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        if host.balancer.begin() {
            let life = host.life;
            let latency = host.applier.latency(&mut self.random);
            self.schedule.add(self.now + latency, Happening::Served { node, life });
        }
    }

    pub fn served(&mut self, node: usize, life: u32) {
        let serves_on = self.plant == Some(Plant::ServeOn);
        let host = &mut self.nodes[node];
        if host.life != life {
            return;
        }
        let Temper { unserved, warm_up, .. } = host.applier.temper;
        let random = &mut self.random;
        let was_serving = host.plan.instances.iter().any(|i| host.balancer.serves(&i.name));
        let finished = if serves_on && was_serving {
            host.balancer.skip()
        } else {
            let routers = &self.scenario.routers;
            let refuses =
                |name: &Name| unserved > 0 && !decides(routers, name) && random.per_mille(unserved);
            host.balancer.finish(!warm_up.is_zero(), refuses)
        };
        if finished.is_some() {
            if !host.balancer.pending().is_empty() {
                let at = self.now + self.random.span(warm_up);
                self.schedule.add(at, Happening::Answers { node, life });
            }
            self.report_services(node);
            self.next_service(node);
        }
    }

    /// What has begun to be served answers, or fails and recovers later.
    pub fn services_go_on(&mut self, node: usize, life: u32) {
        let host = &mut self.nodes[node];
        if host.life != life {
            return;
        }
        let (routers, fails) = (&self.scenario.routers, self.random.one_in(3));
        if host.balancer.go_on(|name| fails && !decides(routers, name)) {
            let at = self.now + self.random.span(SLOWEST_RECOVERY);
            self.schedule.add(at, Happening::Answers { node, life });
        }
        self.report_services(node);
    }

    /// The level last finished has come this far.
    pub fn report_services(&mut self, node: usize) {
        let balancer = &self.nodes[node].balancer;
        let refused = balancer.unserved().iter();
        let refused = refused.map(|name| (name.clone(), "no backend available".to_owned()));
        let (pending, refused) = (balancer.pending().to_vec(), refused.collect());
        let seq = balancer.finished();
        self.stimulate(node, Stimulus::Served(seq, pending, refused));
        self.judge_node(node);
    }

    /// The monitor tells of a link that has other addresses than before.
    pub fn report_link(&mut self, node: usize, interface: &str) {
        let Some(link) = link_of(interface) else { return };
        let host = &self.nodes[node];
        if host.links[link].index == 0 {
            return;
        }
        let (life, states) = (host.life, host.reported_links(link));
        for state in states {
            let stimulus = Stimulus::Link(state);
            self.schedule.add(self.now, Happening::Reach { node, life, stimulus });
        }
    }

    /// The kernel removes what has outlived its lease, and its monitor tells.
    pub fn sweep(&mut self, node: usize) {
        for (interface, address) in self.nodes[node].kernel.sweep(self.now) {
            // A running engine is about to learn of it; a paused one must not announce on waking.
            if self.nodes[node].is_running() {
                self.nodes[node].kernel.note_taken(address);
            } else {
                self.nodes[node].kernel.note_lapsed(address);
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
        let stimulus = Stimulus::FactLost(FactKey::Address { interface, address });
        self.schedule.add(at, Happening::Reach { node, life, stimulus });
    }

    fn stopped(&mut self, node: usize) {
        self.judge_stopped(node);
        self.nodes[node].end_process();
        self.forget_watches(node);
        self.quiescence.died(self.now, node);
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

/// What becomes of this service has a say in the election: [`crate::fitness`] breaks it.
fn decides(routers: &[VirtualRouter], service: &Name) -> bool {
    let of =
        |router: &&VirtualRouter| router.service.as_ref().is_some_and(|own| own.name == *service);
    routers.iter().find(of).is_some_and(|router| router.follows_service)
}

/// One level for the kernel.
struct Level<'a> {
    seq: Seq,
    owner: Owner,
    hold: &'a [Fact],
    drop: &'a [Removal],
}

fn refusal(asked: Asked, fact: &Fact, error: &str) -> Refusal {
    Refusal { asked, key: fact.key(), error: error.to_owned() }
}

/// [`Plant::AnnounceEarly`]: what the kernel is asked for is announced before it has it.
fn premature(hold: &[Fact]) -> Vec<Announcement> {
    let frame = |fact: &Fact| {
        let held = fact.address()?;
        let (interface, address) = (held.interface.clone(), held.address.address);
        Some(Announcement { interface, interface_index: 0, address, frame: Arc::default() })
    };
    hold.iter().filter_map(frame).collect()
}

/// All of them have left.
fn report_of(frames: &[Announcement]) -> SendReport {
    let garp = frames.iter().filter(|frame| frame.address.is_ipv4()).count() as u64;
    SendReport { garp, na: frames.len() as u64 - garp, ..SendReport::default() }
}
