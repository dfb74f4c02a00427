//! What must hold after every event, whatever goes wrong.
//!
//! The rules are those of the specification, computed again here from the wire and the kernel, not
//! read from the engine, except for a router's role and effective priority.
//!
//! | rule | says |
//! |---|---|
//! | `announce` | no address is announced that this node does not hold (G-020, G-016) |
//! | `withdraw` | a node that is not master holds no address once its queue is drained (V-250) |
//! | `serve` | and serves nothing that belongs to the master |
//! | `wake` | a master silent for longer than its peers wait says nothing more as master (V-241) |
//! | `wire` | the priority sent is the effective one, or 0 by one that gives up (V-226) |
//! | `timer` | no backup takes over before its exact down interval has passed (V-140, V-141, V-213) |
//! | `reload` | a reload without change does nothing |
//! | `discard` | a damaged advert changes nothing (V-127) |
//! | `source` | adverts leave from the node's own address with hop limit 255 (V-050) |
//! | `stopped` | a process that may end has withdrawn everything (V-240) |
//! | `bounded` | queues stay short, timeouts make progress, numbers rise |

use std::fmt;
use std::time::Duration;

use locum_config::plan::{Activity, WantedServices};
use locum_engine::{Announcement, Datagram, EventKind, Output};
use locum_vrrp::{Cause, Preempt, Role, Time};

use crate::adapter::View;
use crate::lan::Parcel;
use crate::node::{Node, Stimulus};
use crate::scenario::{VirtualRouter, sender_address};
use crate::takeover::exact_skew;
use crate::wire;
use crate::world::World;

/// More outputs than this for one input is a flood; each instance may have a handful.
const OUTPUT_LIMIT: usize = 64;

/// A rule that did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub at: Time,
    pub node: Option<usize>,
    pub rule: &'static str,
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.at)?;
        if let Some(node) = self.node {
            write!(f, "lb{} ", node + 1)?;
        }
        write!(f, "breaks rule {}: {}", self.rule, self.detail)
    }
}

/// What the oracle remembers of one virtual router on one node.
#[derive(Clone, Default, Debug)]
pub struct Watch {
    /// The last advert it sent as master.
    pub advertised: Option<Time>,
    /// The last advert a backup had to accept, and whether it was a farewell.
    heard: Option<(Time, Farewell)>,
    /// Handed over by command, and not master since.
    pub yielded: bool,
    /// The kernel refused the last `Apply`.
    pub refused: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Farewell {
    Yes,
    No,
}

impl World {
    /// The first broken rule ends the run.
    pub fn blame(&mut self, node: Option<usize>, rule: &'static str, detail: String) {
        if self.violation.is_none() {
            let violation = Violation { at: self.now, node, rule, detail };
            self.trace.line(self.now, "-", || format!("VIOLATION {violation}"));
            self.violation = Some(violation);
        }
    }

    pub fn forget_watches(&mut self, node: usize) {
        self.watches[node].fill_with(Watch::default);
    }

    /// The outputs of one input. `due`: a deadline had come, so a timeout would have acted too.
    pub fn judge_drain(
        &mut self,
        node: usize,
        stimulus: &Stimulus,
        before: &[View],
        outputs: &[Output],
        due: bool,
    ) {
        self.judge_form(node, outputs);
        if !due {
            self.judge_harmless(node, stimulus, before, outputs);
        }
        let routers = self.scenario.routers.clone();
        for (index, router) in routers.iter().enumerate() {
            let was = before.iter().find(|view| view.instance == router.name).cloned();
            if let (Stimulus::Packet(parcel), Some(was)) = (stimulus, &was) {
                self.note_heard(node, index, router, parcel, was);
            }
            self.judge_router(node, index, router, was.as_ref(), outputs);
        }
    }

    /// The shape of every drain: bounded, numbers rising, the deadline last.
    fn judge_form(&mut self, node: usize, outputs: &[Output]) {
        let deadlines = outputs.iter().filter(|o| matches!(o, Output::Deadline(_))).count();
        if deadlines != 1 || !matches!(outputs.last(), Some(Output::Deadline(_))) {
            self.blame(Some(node), "bounded", "a drain does not end with its deadline".to_owned());
        }
        if outputs.len() > OUTPUT_LIMIT * self.scenario.routers.len() {
            self.blame(Some(node), "bounded", format!("{} outputs at once", outputs.len()));
        }
        for output in outputs {
            let host = &mut self.nodes[node];
            let (last, seq) = match output {
                Output::Apply { seq, .. } => (&mut host.last_apply, *seq),
                Output::Serve { seq, .. } => (&mut host.last_serve, *seq),
                _ => continue,
            };
            let last = std::mem::replace(last, seq);
            if seq <= last {
                self.blame(Some(node), "bounded", format!("number {seq} after {last}"));
            }
        }
    }

    /// Inputs that must not matter: an unchanged plan, a damaged datagram.
    fn judge_harmless(
        &mut self,
        node: usize,
        stimulus: &Stimulus,
        before: &[View],
        outputs: &[Output],
    ) {
        let host = &self.nodes[node];
        let rule = match stimulus {
            Stimulus::Plan(plan, _) if host.applied_plan.as_ref() == Some(plan) => "reload",
            Stimulus::Packet(parcel) if parcel.damaged => "discard",
            _ => return,
        };
        let newest = host.balancer.newest();
        let act = outputs.iter().find(|output| match output {
            Output::Notify(_) | Output::Deadline(_) | Output::Listen(_) => false,
            Output::Serve { wanted, .. } => newest != Some(&**wanted),
            Output::Advertise(_)
            | Output::Apply { .. }
            | Output::Announce { .. }
            | Output::Hook(_)
            | Output::Probe(_)
            | Output::Reply { .. }
            | Output::Stopped => true,
        });
        if let Some(output) = act {
            let detail = crate::trace::describe_output(output);
            self.blame(Some(node), rule, format!("it is answered by {detail}"));
        } else if host.adapter.views != before {
            self.blame(Some(node), rule, "a role or priority changed".to_owned());
        }
    }

    /// V-213, V-212: what restarts a backup's wait, by the letter.
    fn note_heard(
        &mut self,
        node: usize,
        index: usize,
        router: &VirtualRouter,
        parcel: &Parcel,
        was: &View,
    ) {
        let message = parcel.bytes.get(wire::header_length(parcel.family)..).unwrap_or_default();
        let Some(advert) = wire::read(router.version, message) else { return };
        let ours = parcel.family == router.family && advert.vrid == router.vrid.get();
        if parcel.damaged || !ours || was.role != Role::Backup {
            return;
        }
        let accepts_lower = router.preempts[node] == Preempt::Never && !was.priority.is_owner();
        let farewell = if advert.priority == 0 { Farewell::Yes } else { Farewell::No };
        if farewell == Farewell::Yes || advert.priority >= was.priority.0 || accepts_lower {
            self.watches[node][index].heard = Some((self.now, farewell));
        }
    }

    /// One virtual router's outputs, in their order.
    fn judge_router(
        &mut self,
        node: usize,
        index: usize,
        router: &VirtualRouter,
        was: Option<&View>,
        outputs: &[Output],
    ) {
        let is = self.nodes[node].adapter.view(&router.name).cloned();
        let mut role = was.map_or(Role::Initialize, |view| view.role);
        for output in outputs {
            match output {
                Output::Advertise(datagram) if datagram.instance == router.name => {
                    self.judge_advert(node, index, router, role, is.as_ref(), datagram);
                }
                Output::Notify(event) if event.instance.as_ref() == Some(&router.name) => {
                    let EventKind::Transition { from, to, cause, .. } = &event.kind else {
                        continue;
                    };
                    if *to == Role::Master {
                        self.judge_takeover(node, index, router, *from, cause);
                    }
                    let watch = &mut self.watches[node][index];
                    watch.yielded =
                        *to != Role::Master && (watch.yielded || *cause == Cause::Switchover);
                    if *to != Role::Backup || *from != Role::Backup {
                        watch.heard = None;
                    }
                    role = *to;
                }
                _ => {}
            }
        }
        let now_role = is.map_or(Role::Initialize, |view| view.role);
        if role != now_role {
            let detail =
                format!("{} is {now_role:?} without a transition from {role:?}", router.name);
            self.blame(Some(node), "wire", detail);
        }
    }

    fn judge_advert(
        &mut self,
        node: usize,
        index: usize,
        router: &VirtualRouter,
        role: Role,
        is: Option<&View>,
        datagram: &Datagram,
    ) {
        let own = sender_address(node, router);
        if datagram.source != own || datagram.ttl != 255 {
            let detail = format!("advert from {} with hop limit {}", datagram.source, datagram.ttl);
            self.blame(Some(node), "source", detail);
        }
        let Some(advert) = wire::read(router.version, &datagram.message) else {
            self.blame(Some(node), "wire", "an advert too short to be one".to_owned());
            return;
        };
        if advert.priority == 0 {
            if is.is_some_and(|view| view.role == Role::Master) {
                self.blame(Some(node), "wire", "a master says priority 0".to_owned());
            }
            return;
        }
        match is {
            Some(view) if view.role == Role::Master && view.priority.0 == advert.priority => {}
            _ => {
                let detail = format!("priority {} sent by {is:?}", advert.priority);
                self.blame(Some(node), "wire", detail);
            }
        }
        if advert.interval_ms != router.interval.as_duration().as_millis() as u64 {
            self.blame(Some(node), "wire", format!("interval {} ms sent", advert.interval_ms));
        }
        let watch = &mut self.watches[node][index];
        let silence = watch.advertised.map_or(Duration::ZERO, |last| self.now.since(last));
        watch.advertised = Some(self.now);
        let interval = router.interval.as_duration();
        if role == Role::Master && silence > interval * 3 + interval / 256 {
            self.blame(Some(node), "wake", format!("sent as master after {silence:?} of silence"));
        }
    }

    /// The down timer by the letter of the specification, from what was really delivered.
    fn judge_takeover(
        &mut self,
        node: usize,
        index: usize,
        router: &VirtualRouter,
        from: Role,
        cause: &Cause,
    ) {
        let by_timer = match cause {
            Cause::MasterSilent { .. } | Cause::PriorityZero { .. } | Cause::Preempted { .. } => {
                from == Role::Backup
            }
            _ => false,
        };
        let (Some((at, farewell)), true) = (self.watches[node][index].heard, by_timer) else {
            return;
        };
        let priority = self.nodes[node].adapter.view(&router.name).map_or(0, |v| v.priority.0);
        let wait = match farewell {
            Farewell::Yes => exact_skew(router, priority),
            Farewell::No => router.interval.as_duration() * 3 + exact_skew(router, priority),
        };
        let waited = self.now.since(at);
        if waited < wait {
            let detail =
                format!("{} took over after {waited:?}, had to wait {wait:?}", router.name);
            self.blame(Some(node), "timer", detail);
        }
    }

    /// What a node holds and serves, once it has done all it was asked to.
    pub fn judge_node(&mut self, node: usize) {
        let host = &self.nodes[node];
        // Before its first plan a process cannot know what is its own.
        if !host.is_drained() || host.applied_plan.is_none() {
            return;
        }
        for (index, router) in self.scenario.routers.iter().enumerate() {
            let role = host.adapter.view(&router.name).map_or(Role::Initialize, |view| view.role);
            if matches!(role, Role::Master | Role::Resigning) {
                continue;
            }
            let all = router.addresses.iter().copied().chain([router.extra_address()]);
            if let Some(held) = all.into_iter().find(|address| host.kernel.holds(*address)) {
                let refused = self.watches[node][index].refused;
                if !refused {
                    let detail = format!("{} is {role:?} and holds {held}", router.name);
                    self.blame(Some(node), "withdraw", detail);
                    return;
                }
            }
            if host.balancer.is_idle() && serves(host, router) {
                let detail = format!("{} is {role:?} and serves", router.name);
                self.blame(Some(node), "serve", detail);
                return;
            }
        }
    }

    /// Frames leave this node.
    pub fn announced(&mut self, node: usize, frames: &[Announcement]) {
        let kernel = &self.nodes[node].kernel;
        let is_wrong = |address| !kernel.holds(address) && !kernel.was_taken(address);
        let missing = frames.iter().find(|frame| is_wrong(frame.address)).cloned();
        let name = self.name(node);
        self.trace.line(self.now, &name, || format!("announces {} frames", frames.len()));
        if let Some(frame) = missing {
            let detail = format!("{} is announced and not held", frame.address);
            self.blame(Some(node), "announce", detail);
        }
    }

    /// A kernel that refuses withdrawals again and again is not waited for: the lease ends them.
    pub fn judge_stopped(&mut self, node: usize) {
        let is_refused = self.watches[node].iter().any(|watch| watch.refused);
        if !is_refused && !self.nodes[node].kernel.is_empty() {
            let held: Vec<_> = self.nodes[node].kernel.addresses().map(|(_, a)| a).collect();
            self.blame(Some(node), "stopped", format!("the process may end and holds {held:?}"));
        }
    }
}

fn serves(host: &Node, router: &VirtualRouter) -> bool {
    let active = |wanted: &WantedServices| {
        wanted.services.iter().any(|service| {
            service.service.instance.as_ref() == Some(&router.name)
                && service.activity == Activity::Active
        })
    };
    host.balancer.serving.as_deref().is_some_and(active)
}
