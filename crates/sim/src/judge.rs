//! What must hold after every event, whatever goes wrong.
//!
//! The rules are those of the specification, computed again here from the wire and the kernel, not
//! read from the engine, except for a router's role and effective priority. [`crate::plant::Plant`]
//! breaks each of them.
//!
//! | rule | says |
//! |---|---|
//! | `bounded` | queues stay short, timeouts make progress, numbers rise |
//! | `reload` | a reload without change does nothing, and one with a change nothing to the others |
//! | `discard` | a damaged advert, or one of another version 2 interval, changes nothing (V-127) |
//! | `degraded` | what kernel or balancer refuse stands in status, and nothing else does |
//! | `report` | what the balancer and the sockets report changes no role and no address |
//!
//! What is sent is judged in [`crate::output_rules`], what is held in [`crate::holding`], what waits for
//! others in [`crate::readiness`], what an operator has ordered in [`crate::orders`].

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{EventKind, Fact, Output, Owner, Seq};
use locum_plan::{Name, Plan};
use locum_vrrp::{Role, Time, Version};

use crate::adapter::View;
use crate::lan::Frame;
use crate::node::Stimulus;
use crate::virtual_router::VirtualRouter;
use crate::wire;
use crate::world::World;

/// More outputs than this for one input is a flood; each instance may have a handful.
const OUTPUT_LIMIT: usize = 64;

/// Every rule, by the name that a violation has.
pub const RULES: [&str; 32] = [
    "adopt",
    "announce",
    "bounded",
    "candidate",
    "common",
    "dead-holder",
    "degraded",
    "discard",
    "effective",
    "fault",
    "foreign",
    "handover",
    "holder",
    "hook",
    "one-master",
    "order",
    "ready",
    "reload",
    "repair",
    "report",
    "right-master",
    "serve",
    "silence",
    "source",
    "start",
    "stopped",
    "timer",
    "unfit-master",
    "unfit-stands",
    "wake",
    "wire",
    "withdraw",
];

/// The rule of what the engine promises itself. No fault around it can break that, so it is no rule
/// of the list: what it promises is broken in its own tests.
pub const OWN_WORD: &str = "own-word";

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
    /// The last advert it sent as master, and the interval that this one told.
    pub advertised: Option<(Time, Duration)>,
    /// The last advert a backup had to accept, and whether it was a farewell.
    pub heard: Option<(Time, Farewell)>,
    /// The interval that such adverts taught it (V-142).
    pub learned: Option<Duration>,
    /// Handed over by command, and not master since.
    pub yielded: bool,
    /// The kernel did not do the last `Apply`, or did not let go of something.
    pub refused: bool,
    pub question: Question,
    /// Those that were refused when they were last asked for.
    pub refused_addresses: BTreeSet<IpAddr>,
    /// When its process, or a reload, began it.
    pub born: Option<Time>,
    /// It took over what an earlier process had left.
    pub adopted: bool,
    /// When a conflict is over, unless another lower master is heard.
    pub quiet_at: Option<Time>,
    /// Hooks that have to run: the event, and the role it led to.
    pub hooks: VecDeque<(u64, Role)>,
    /// When its kernel last refused something that it asked to hold.
    pub refused_at: Option<Time>,
    /// Since when it is master, and what its next announcement waits for is not there.
    pub master_since: Option<Time>,
    pub unready_since: Option<Time>,
    /// Since when it is a candidate.
    pub candidate_since: Option<Time>,
    /// When it went on as master because nobody had taken what it gave up; what it offers soon after
    /// that stands.
    pub taken_back: Option<Time>,
    /// Since when nothing that it cannot serve counts against it.
    pub fit_since: Option<Time>,
}

/// What its kernel was last asked, by an `Apply` and those after it that say the same.
#[derive(Clone, Default, Debug)]
pub struct Question {
    /// Number of the first of them.
    pub first: Seq,
    pub hold: Arc<[Fact]>,
    /// No answer has reached the engine.
    pub is_open: bool,
    /// Something of it has been lost since, so that the next `Apply` is about something else.
    pub is_stale: bool,
}

impl Question {
    pub fn holds(&self, address: IpAddr) -> bool {
        self.addresses().any(|held| held == address)
    }

    /// To be held.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.hold.iter().filter_map(Fact::address).map(|held| held.address.address)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Farewell {
    Yes,
    No,
}

/// One input of a node and what came of it.
#[derive(Clone, Copy)]
pub struct Drain<'a> {
    pub stimulus: &'a Stimulus,
    /// Status and plan before it.
    pub before: &'a [View],
    pub previous: &'a Plan,
    pub outputs: &'a [Output],
    /// A deadline had come, so a timeout would have acted too.
    pub due: bool,
}

impl World {
    /// The first broken rule ends the run.
    pub fn blame(&mut self, node: Option<usize>, rule: &'static str, detail: String) {
        assert!(RULES.contains(&rule) || rule == OWN_WORD, "{rule} is listed");
        if self.violation.is_none() {
            let violation = Violation { at: self.now, node, rule, detail };
            self.trace.line(self.now, "-", || format!("VIOLATION {violation}"));
            self.violation = Some(violation);
        }
    }

    pub fn forget_watches(&mut self, node: usize) {
        self.watches[node].fill_with(Watch::default);
    }

    /// The outputs of one input.
    pub fn judge_drain(&mut self, node: usize, drain: Drain<'_>) {
        self.judge_form(node, drain.outputs);
        // Any input puts the question of a candidate again.
        let is_asking = drain.before.iter().any(|view| view.is_candidate);
        if !drain.due && !is_asking {
            self.judge_harmless(node, drain);
        }
        if let Stimulus::Served(seq, pending, failed) = drain.stimulus {
            self.judge_served(node, *seq, (pending, failed), drain.outputs);
        }
        self.judge_orders(node, drain);
        let is_first = self.nodes[node].applied_plan.is_none();
        if let (Stimulus::Plan(_, found), true) = (drain.stimulus, is_first) {
            self.judge_adoption(node, found, drain.outputs);
        }
        let routers = std::mem::take(&mut self.scenario.routers);
        for (index, router) in routers.iter().enumerate() {
            self.judge_outputs(node, index, router, drain);
        }
        self.scenario.routers = routers;
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
            let (last, number) = match output {
                Output::Apply { seq, .. } => (&mut host.last_apply, *seq),
                Output::Serve { seq, .. } => (&mut host.last_serve, *seq),
                Output::Notify(event) => (&mut host.last_event, event.number),
                _ => continue,
            };
            let last = std::mem::replace(last, number);
            if number <= last {
                self.blame(Some(node), "bounded", format!("number {number} after {last}"));
            }
        }
    }

    /// Inputs that must not matter: an unchanged plan, an advert that is none.
    fn judge_harmless(&mut self, node: usize, drain: Drain<'_>) {
        let Drain { stimulus, before, previous, outputs, .. } = drain;
        let host = &self.nodes[node];
        let rule = match stimulus {
            Stimulus::Plan(plan, _) if host.applied_plan.as_ref() == Some(plan) => "reload",
            Stimulus::Plan(plan, _) if host.applied_plan.is_some() => {
                return self.judge_untouched(node, previous, plan, outputs);
            }
            Stimulus::Packet(frame) if self.is_discarded(node, frame) => "discard",
            // It has a say where what is served decides.
            Stimulus::Served(..) if host.plan.instances.iter().any(|i| i.fitness.is_some()) => {
                return;
            }
            Stimulus::Served(..) | Stimulus::Sent(..) => "report",
            _ => return,
        };
        let act = outputs.iter().find(|output| match output {
            Output::Notify(_) | Output::Deadline(_) => false,
            Output::Reply { .. } => !matches!(stimulus, Stimulus::Plan(..)),
            // It may have waited for the services.
            Output::Announce { .. } => !matches!(stimulus, Stimulus::Served(..)),
            Output::Serve { .. }
            | Output::Listen(_)
            | Output::Masters(_)
            | Output::Advertise(_)
            | Output::Apply { .. }
            | Output::Hook(_)
            | Output::Probe(_)
            | Output::Stopped => true,
        });
        if let Some(output) = act {
            let detail = crate::trace::describe_output(output);
            self.blame(Some(node), rule, format!("it is answered by {detail}"));
        } else if !host
            .adapter
            .views
            .iter()
            .map(View::standing)
            .eq(before.iter().map(View::standing))
        {
            self.blame(Some(node), rule, "a role or priority changed".to_owned());
        }
    }

    /// A reload leaves alone what is the same in both plans.
    fn judge_untouched(&mut self, node: usize, old: &Plan, new: &Plan, outputs: &[Output]) {
        let is_same = |name: &Name| {
            let of = |plan: &Plan| plan.instances.iter().position(|i| i.name == *name);
            let (Some(was), Some(is)) = (of(old), of(new)) else { return false };
            old.instances[was] == new.instances[is]
        };
        let adapter = &self.nodes[node].adapter;
        let touched = outputs.iter().find(|output| match output {
            Output::Advertise(datagram) => adapter.name_of(datagram.instance).is_some_and(is_same),
            Output::Apply { owner: Owner::Instance(id), .. } => {
                adapter.name_of(*id).is_some_and(is_same)
            }
            Output::Hook(hook) => hook.owner.instance().is_some_and(is_same),
            Output::Notify(event) => event.instance.as_ref().is_some_and(is_same),
            _ => false,
        });
        if let Some(output) = touched {
            let detail = crate::trace::describe_output(output);
            self.blame(Some(node), "reload", format!("what did not change: {detail}"));
        }
    }

    /// V-107, V-117: a receiver must not act on it.
    fn is_discarded(&self, node: usize, frame: &Frame) -> bool {
        // One that is being removed goes on with the interval it had.
        let plan = &self.nodes[node].plan.instances;
        let is_planned = |router: &VirtualRouter| plan.iter().any(|one| one.name == router.name);
        let is_foreign = || {
            let mut routers = self.scenario.routers.iter();
            routers.any(|router| {
                router.version == Version::V2
                    && is_planned(router)
                    && read(router, frame)
                        .is_some_and(|advert| advert.interval() != self.interval(node, router))
            })
        };
        frame.damage.is_some() || is_foreign()
    }

    /// The balancer has answered: status and history say what it could not do.
    fn judge_served(
        &mut self,
        node: usize,
        seq: u64,
        (pending, failed): (&[Name], &[(Name, String)]),
        outputs: &[Output],
    ) {
        let host = &self.nodes[node];
        if seq != host.last_serve {
            return;
        }
        let refused: Vec<&Name> = failed.iter().map(|(name, _)| name).collect();
        let known =
            |name: &&&Name| host.plan.services.iter().any(|service| service.name == ***name);
        let hidden =
            refused.iter().filter(known).find(|name| !host.adapter.unserved.contains(name));
        // What has failed before and is tried again has not recovered.
        let has_recovered = |name: &&Name| !refused.contains(name) && !pending.contains(name);
        let stale = host.adapter.unserved.iter().find(has_recovered);
        let reported = outputs.iter().filter(|output| {
            matches!(output, Output::Notify(event) if matches!(
                event.kind,
                EventKind::Fitness { holds: false, .. }
            ))
        });
        let detail = if let Some(name) = hidden {
            format!("{name} is not served and status does not say so")
        } else if let Some(name) = stale {
            format!("{name} is served and status says it is not")
        } else if reported.count() > refused.len() {
            "more failures are told than there are".to_owned()
        } else {
            return;
        };
        self.blame(Some(node), "degraded", detail);
    }

    /// The advertisement interval that this node's process was last told.
    pub fn interval(&self, node: usize, router: &VirtualRouter) -> Duration {
        let mut known = self.nodes[node].plan.instances.iter();
        let known = known.find(|instance| instance.name == router.name);
        let interval = known.map_or(router.intervals[node], |known| known.router.interval);
        interval.as_duration()
    }
}

/// What a frame says to this virtual router; `None` when it is for another.
pub fn read(router: &VirtualRouter, frame: &Frame) -> Option<wire::Advert> {
    let message = frame.bytes.get(wire::header_length(frame.family)..)?;
    let advert = wire::read(router.version, message)?;
    let is_ours = (frame.link, frame.family) == (router.link, router.family);
    (is_ours && advert.vrid == router.vrid.get()).then_some(advert)
}
