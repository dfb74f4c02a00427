//! What must hold of all that a node says: adverts, transitions and hooks, in their order.
//!
//! | rule | says |
//! |---|---|
//! | `wire` | the priority sent is the effective one, or 0 by one that gives up (V-226) |
//! | `wake` | a master silent for longer than its peers wait says nothing more as master (V-241) |
//! | `timer` | no backup takes over before its exact down interval has passed (V-140..V-145, V-213) |
//! | `source` | adverts leave from the node's own address with hop limit 255 (V-050) |
//! | `start` | before its start delay is over an instance takes no part (V-148) |
//! | `repair` | the end of a conflict is told, and the addresses announced again |
//! | `hook` | each transition has its hook, in order, when the kernel is as the hook expects it |

use std::net::IpAddr;
use std::time::Duration;

use locum_engine::{Event, EventKind, HookRun, InstanceId, OutgoingAdvert, Output, Owner};
use locum_vrrp::{Cause, Preempt, Role, Version};

use crate::adapter::View;
use crate::judge::{Drain, Farewell, Watch, read};
use crate::lan::Frame;
use crate::node::Stimulus;
use crate::place::sender_address;
use crate::takeover::exact_skew;
use crate::virtual_router::VirtualRouter;
use crate::wire;
use crate::world::World;

impl World {
    /// One virtual router's outputs, in their order.
    pub fn judge_outputs(
        &mut self,
        node: usize,
        index: usize,
        router: &VirtualRouter,
        drain: Drain<'_>,
    ) {
        let was = drain.before.iter().find(|view| view.instance == router.name);
        let is = self.nodes[node].adapter.view(&router.name).cloned();
        match (was, &is) {
            (None, None) => return,
            (None, Some(_)) => {
                self.watches[node][index] = Watch { born: Some(self.now), ..Watch::default() };
            }
            (Some(_), _) => {}
        }
        match (drain.stimulus, was) {
            (Stimulus::Packet(frame), Some(was)) => {
                self.note_heard(node, index, router, frame, was);
            }
            (Stimulus::Applied(seq, owner, result), Some(_))
                if self.nodes[node].adapter.is_of(*owner, &router.name) =>
            {
                self.note_applied(node, index, router, *seq, result);
            }
            (Stimulus::FactLost(key), Some(_)) => {
                let watch = &mut self.watches[node][index];
                let is_stale = |address: IpAddr| {
                    !watch.refused_addresses.contains(&address) && watch.question.holds(address)
                };
                watch.question.is_stale |= key.address().is_some_and(is_stale);
            }
            _ => {}
        }
        let mut role = was.map_or(Role::Initialize, |view| view.role);
        let mut level = None;
        for output in drain.outputs {
            let is_of = |owner: Owner| self.nodes[node].adapter.is_of(owner, &router.name);
            match output {
                Output::Advertise(datagram) if is_of(Owner::Instance(datagram.instance)) => {
                    self.judge_advert(node, index, router, role, is.as_ref(), datagram);
                }
                Output::Apply { seq, owner, hold, .. } if is_of(*owner) => {
                    self.note_question(node, index, *seq, hold);
                    if role == Role::Master && !hold.is_empty() {
                        self.judge_awake(node, index, "holds its addresses");
                    }
                }
                Output::Serve { wanted, .. } => level = Some(&**wanted),
                Output::Announce { instance, frames, .. } if is_of(Owner::Instance(*instance)) => {
                    self.judge_frames(node, index, frames);
                    self.judge_ready(node, index, router, level, frames);
                }
                Output::Notify(event) if event.instance.as_ref() == Some(&router.name) => {
                    role = self.note_event(node, index, router, role, event);
                }
                Output::Hook(hook) if hook.owner.instance() == Some(&router.name) => {
                    self.judge_hook(node, index, router, is.as_ref(), hook);
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
        if !matches!(now_role, Role::Master | Role::Resigning) {
            self.watches[node][index].refused_addresses.clear();
        }
        if matches!(now_role, Role::Backup | Role::Master | Role::Resigning) {
            self.judge_start(node, index, router);
        }
        self.judge_repair(node, index, router, now_role, drain);
    }

    /// V-212, V-213, V-142: what restarts a backup's wait and what it learns, by the letter; and
    /// how long a master is in conflict.
    fn note_heard(
        &mut self,
        node: usize,
        index: usize,
        router: &VirtualRouter,
        frame: &Frame,
        was: &View,
    ) {
        let Some(advert) = read(router, frame) else { return };
        let own = self.interval(node, router);
        let is_foreign = router.version == Version::V2 && advert.interval() != own;
        if frame.damage.is_some() || is_foreign {
            return;
        }
        let watch = &mut self.watches[node][index];
        let ranks = (advert.priority, frame.source);
        let rank = (was.priority.0, sender_address(node, router));
        // V-232: a master that has just taken over may take it for a farewell, which begins no
        // conflict; one that has begun goes on.
        let is_fresh =
            watch.master_since.is_some_and(|since| self.now < since + own.min(advert.interval()));
        if was.role == Role::Master
            && advert.priority > 0
            && ranks <= rank
            && (!is_fresh || watch.quiet_at.is_some())
        {
            watch.quiet_at = Some(self.now + own.max(advert.interval()) * 3);
        }
        // A release does not end a candidacy (V-274).
        if was.role != Role::Backup || was.is_candidate && advert.priority == 0 {
            return;
        }
        let preempt = router.preempts[node];
        let accepts_lower =
            watch.yielded || (preempt == Preempt::Never && !was.priority.is_owner());
        let is_lower = advert.priority > 0 && advert.priority < was.priority.0;
        if is_lower && !accepts_lower {
            // A preempt delay may accept it all the same, or a node that cannot serve (V-281), which
            // is not followed here.
            if preempt != Preempt::After(Duration::ZERO) || router.follows_service {
                watch.heard = None;
                watch.learned = None;
            }
            return;
        }
        let farewell = if advert.priority == 0 { Farewell::Yes } else { Farewell::No };
        watch.heard = Some((self.now, farewell));
        if farewell == Farewell::No {
            watch.learned = Some(advert.interval());
        }
    }

    /// A notification about this virtual router; returns its role after it.
    fn note_event(
        &mut self,
        node: usize,
        index: usize,
        router: &VirtualRouter,
        role: Role,
        event: &Event,
    ) -> Role {
        let watch = &mut self.watches[node][index];
        match &event.kind {
            EventKind::Transition { from, to, cause, .. } => {
                if *from != role {
                    let detail = format!("{} leaves {from:?} and was {role:?}", router.name);
                    self.blame(Some(node), "wire", detail);
                    return *to;
                }
                let is_taken_back = (*from, *to) == (Role::Resigning, Role::Master);
                if *to != Role::Resigning && !is_taken_back {
                    watch.hooks.push_back((event.number, *to));
                }
                watch.adopted |= *cause == Cause::Adopted;
                if *to == Role::Master {
                    self.judge_takeover(node, index, router, *from, cause);
                }
                let watch = &mut self.watches[node][index];
                watch.yielded =
                    *to != Role::Master && (watch.yielded || *cause == Cause::Switchover);
                watch.taken_back = match (from, to) {
                    (Role::Resigning, Role::Master) => Some(self.now),
                    (_, Role::Master | Role::Resigning) => watch.taken_back,
                    _ => None,
                };
                if *to != Role::Backup || *from != Role::Backup {
                    watch.heard = None;
                    watch.learned = None;
                }
                *to
            }
            EventKind::Conflict { .. } => {
                watch.quiet_at = None;
                watch.hooks.push_back((event.number, Role::Master));
                role
            }
            _ => role,
        }
    }

    fn judge_advert(
        &mut self,
        node: usize,
        index: usize,
        router: &VirtualRouter,
        role: Role,
        is: Option<&View>,
        datagram: &OutgoingAdvert,
    ) {
        let own = sender_address(node, router);
        let is_astray = datagram.interface != router.speaks_on();
        if datagram.source != own || datagram.ttl != 255 || is_astray {
            let OutgoingAdvert { interface, source, ttl, .. } = datagram;
            let detail = format!("advert on {interface} from {source} with hop limit {ttl}");
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
        // One input may lower the priority of a master and make it resign: it says so in this order.
        let speaks = |view: &View| match view.role {
            Role::Master => true,
            Role::Resigning => role == Role::Master,
            Role::Initialize | Role::Backup | Role::Fault => false,
        };
        // V-282: what it says of an offer just before it.
        let ranking = router.ranking(node, &self.nodes[node].edits[index]);
        let says_offer = ranking.is_some_and(|ranking| ranking.offer().0 == advert.priority)
            && is.is_some_and(|view| view.role == Role::Resigning);
        let is_own = |view: &View| says_offer || view.priority.0 == advert.priority;
        if !is.is_some_and(|view| speaks(view) && is_own(view)) {
            let detail = format!("priority {} sent by {is:?}", advert.priority);
            self.blame(Some(node), "wire", detail);
        }
        let interval = self.interval(node, router);
        if advert.interval() != interval {
            self.blame(Some(node), "wire", format!("interval {} ms sent", advert.interval_ms));
        }
        if role == Role::Master {
            self.judge_awake(node, index, "advertises");
        }
        self.watches[node][index].advertised = Some((self.now, interval));
    }

    /// It takes part; only what an earlier process left may not wait.
    fn judge_start(&mut self, node: usize, index: usize, router: &VirtualRouter) {
        let watch = &self.watches[node][index];
        let until = watch.born.map(|born| born + router.start_delay);
        if !watch.adopted && until.is_some_and(|until| self.now < until) {
            let detail = format!("{} takes part before {until:?}", router.name);
            self.blame(Some(node), "start", detail);
        }
    }

    /// It does something as master: its peers must still have been waiting. To the 256th part of
    /// an interval, since the best of them waits that much longer.
    fn judge_awake(&mut self, node: usize, index: usize, what: &str) {
        let Some((last, interval)) = self.watches[node][index].advertised else { return };
        let silence = self.now.since(last);
        if silence > interval * 3 + interval / 256 {
            let detail = format!("a master {what} after {silence:?} of silence");
            self.blame(Some(node), "wake", detail);
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
        let watch = &self.watches[node][index];
        let (Some((at, farewell)), true) = (watch.heard, by_timer) else { return };
        // Unknown to this oracle after a farewell from a master it had never heard. Version 2 has
        // no other interval than the configured one, which a reload may have changed meanwhile.
        let learned = watch.learned.unwrap_or_else(|| router.shortest_interval());
        let interval = match router.version {
            Version::V2 => learned.min(self.interval(node, router)),
            Version::V3 => learned,
        };
        let priority = self.nodes[node].adapter.view(&router.name).map_or(0, |v| v.priority.0);
        let skew = exact_skew(router.version, interval, priority);
        let wait = match farewell {
            Farewell::Yes => skew,
            Farewell::No => interval * 3 + skew,
        };
        let waited = self.now.since(at);
        if waited < wait {
            let detail =
                format!("{} took over after {waited:?}, had to wait {wait:?}", router.name);
            self.blame(Some(node), "timer", detail);
        }
    }

    /// A master that heard lower ones says so when they have fallen silent, and announces.
    fn judge_repair(
        &mut self,
        node: usize,
        index: usize,
        router: &VirtualRouter,
        role: Role,
        drain: Drain<'_>,
    ) {
        let watch = &mut self.watches[node][index];
        if role != Role::Master {
            watch.quiet_at = None;
            return;
        }
        let is_timeout = matches!(drain.stimulus, Stimulus::Timeout);
        if is_timeout && watch.quiet_at.is_some_and(|at| at <= self.now) {
            let detail = format!("{} does not tell that a conflict is over", router.name);
            self.blame(Some(node), "repair", detail);
            return;
        }
        let ends = |output: &Output| {
            matches!(output, Output::Notify(event)
                if event.instance.as_ref() == Some(&router.name)
                    && matches!(event.kind, EventKind::Conflict { .. }))
        };
        let adapter = &self.nodes[node].adapter;
        let is_of = |id: InstanceId| adapter.is_of(Owner::Instance(id), &router.name);
        let announces = |output: &Output| matches!(output, Output::Announce { instance, .. } if is_of(*instance));
        // Where nobody can hear it nothing is announced (G-020).
        let links = &self.nodes[node].links;
        let is_heard = router.links().all(|link| links[link].running);
        // It waits for what is still to be put in place or to answer.
        let host = &self.nodes[node];
        let is_served = host.balancer.is_idle() && host.balancer.pending().is_empty();
        let is_answered = host.applier.is_idle() && !watch.question.is_open;
        let is_ready = is_answered && is_served;
        let outputs = drain.outputs;
        if is_heard && is_ready && outputs.iter().any(ends) && !outputs.iter().any(announces) {
            let detail = format!("{} announces nothing after a conflict", router.name);
            self.blame(Some(node), "repair", detail);
        }
    }

    fn judge_hook(
        &mut self,
        node: usize,
        index: usize,
        router: &VirtualRouter,
        is: Option<&View>,
        hook: &HookRun,
    ) {
        let watch = &mut self.watches[node][index];
        let expected = watch.hooks.pop_front();
        let Some((_, state)) = expected.filter(|(event, _)| *event == hook.event) else {
            let detail = format!("hook of event {}, expected {expected:?}", hook.event);
            self.blame(Some(node), "hook", detail);
            return;
        };
        // A kernel that refuses is not waited for, and only the last of several finds its state.
        let role = is.map_or(Role::Initialize, |view| view.role);
        if watch.refused || !watch.hooks.is_empty() || role != state {
            return;
        }
        let missing = &watch.refused_addresses;
        let kernel = &self.nodes[node].kernel;
        let held = |address: &IpAddr| kernel.holds(*address);
        let is_right = match state {
            Role::Master => {
                let excused = |a: &IpAddr| kernel.was_taken(*a) || missing.contains(a);
                router.addresses.iter().all(|a| held(a) || excused(a))
            }
            Role::Initialize | Role::Backup | Role::Fault => !router.addresses.iter().any(held),
            Role::Resigning => true,
        };
        if !is_right {
            let detail =
                format!("{} runs its {state:?} hook and the kernel is not so", router.name);
            self.blame(Some(node), "hook", detail);
        }
    }
}
