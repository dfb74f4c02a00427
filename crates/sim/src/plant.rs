//! Faults put there on purpose, so that every rule is seen to break.
//!
//! A planted fault never touches the engine: it distorts what goes in or what comes out, and so is
//! what a wrong daemon around a right engine, or a wrong line in it, would look like from outside.
//! [`Plant::rule`] names the rule that has to find it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use locum_engine::{
    Event, EventKind, Fact, FactKey, InstanceId, LinkState, OperatorCommand, Output, Whose,
};
use locum_plan::{Instance, Lease, Name, Plan, Verdict};
use locum_vrrp::{Role, Version, Vrid};

use crate::lan::Frame;
use crate::node::{SERVER_FAILS, Stimulus};
use crate::place::INTERFACES;
use crate::wire;

/// A fault put there on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Plant {
    /// The skew is truncated to whole centiseconds.
    Skew,
    /// Addresses are announced before they are applied.
    AnnounceEarly,
    /// A master that resigns withdraws at once.
    NoHold,
    /// Addresses are added and never removed.
    KeepAddress,
    /// What has begun to be served is served for ever.
    ServeOn,
    /// The clock stands still while the process does.
    Oversleep,
    /// Adverts carry the configured priority, not the effective one.
    StalePriority,
    /// A failing check is reported as passing.
    LostProbe,
    /// A reload hands over something else than what is written.
    ReloadRewrites,
    /// Damaged adverts, and those of another version 2 interval, are made to look right.
    Gullible,
    /// Adverts leave with hop limit 254.
    HopLimit,
    /// A stop ends the process at once.
    StopEarly,
    /// Every level for the kernel is told twice.
    Repeat,
    /// Nothing reaches the sockets of the first node.
    Deaf,
    /// Backups hear every advert as a better one.
    Meek,
    /// Nobody is told that an address is gone.
    Unhealed,
    /// Leases are granted eight times over.
    LongLease,
    /// A backup's timer runs an interval late.
    Sluggish,
    /// A backup takes its own interval for its master's.
    Unlearned,
    /// A new process is not told what the old one left.
    Amnesia,
    /// Nobody hears of the end of a conflict.
    Unrepaired,
    /// The applier says done before it has begun.
    AckEarly,
    /// The start delay is left out.
    Impatient,
    /// A service that was refused is reported as served.
    ServeOptimist,
    /// An address that was refused is reported as held.
    HideRefusal,
    /// A report of frames that left is taken for the loss of an address.
    Mistaken,
    /// Services are reported as answering when they have only begun.
    ServeEager,
    /// An answer that comes late is taken for a refusal.
    SlowIsFault,
    /// A candidate's timer runs late.
    Undecided,
    /// What others have put there is said to be removed, and stays.
    Hospitable,
    /// Masters do not see their servers fail.
    Clinging,
    /// A backup that cannot serve takes no part any more.
    Sulking,
    /// Backups do not hear that what a master releases is an offer.
    Greedy,
    /// Servers are served with the weights of the plan, whatever an operator has ordered.
    Disobedient,
}

impl Plant {
    /// The rule that finds it.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Skew | Self::Unlearned => "timer",
            Self::AnnounceEarly => "announce",
            Self::NoHold => "handover",
            Self::KeepAddress => "withdraw",
            Self::ServeOn => "serve",
            Self::Oversleep => "wake",
            Self::StalePriority => "wire",
            Self::LostProbe => "effective",
            Self::ReloadRewrites => "reload",
            Self::Gullible => "discard",
            Self::HopLimit => "source",
            Self::StopEarly => "stopped",
            Self::Repeat => "bounded",
            Self::Deaf => "one-master",
            Self::Meek => "right-master",
            Self::Unhealed => "holder",
            Self::LongLease => "dead-holder",
            Self::Sluggish => "silence",
            Self::Amnesia => "adopt",
            Self::Unrepaired => "repair",
            Self::AckEarly => "hook",
            Self::Impatient => "start",
            Self::Mistaken => "report",
            Self::ServeOptimist | Self::HideRefusal => "degraded",
            Self::ServeEager => "ready",
            Self::SlowIsFault => "fault",
            Self::Undecided => "candidate",
            Self::Hospitable => "foreign",
            Self::Clinging => "unfit-master",
            Self::Sulking => "unfit-stands",
            Self::Greedy => "common",
            Self::Disobedient => "order",
        }
    }
}

/// The node as a distortion finds it.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub plan: &'a Plan,
    pub names: &'a BTreeMap<InstanceId, Name>,
    /// It had a plan before this stimulus.
    pub is_reload: bool,
    /// All of its instances are backups.
    pub is_backup: bool,
    /// What it cannot serve all of, with its role.
    pub unfit: &'a BTreeMap<InstanceId, Role>,
}

impl<'a> Scene<'a> {
    fn instance(self, id: InstanceId) -> Option<&'a Instance> {
        let name = self.names.get(&id)?;
        self.plan.instances.iter().map(Arc::as_ref).find(|instance| instance.name == *name)
    }
}

/// What the engine is told instead; `None` leaves the stimulus as it is.
pub fn distort(plant: Plant, stimulus: &Stimulus, scene: Scene<'_>) -> Option<Stimulus> {
    match stimulus {
        Stimulus::Packet(frame) => distort_packet(plant, frame, scene),
        Stimulus::FactLost(_) => (plant == Plant::Unhealed).then_some(Stimulus::Timeout),
        Stimulus::Probed(probe, outcome) => {
            let is_server = outcome.detail == SERVER_FAILS;
            let is_lost = plant == Plant::LostProbe && !is_server
                || plant == Plant::Clinging && is_server && !scene.is_backup;
            is_lost.then(|| {
                let mut outcome = outcome.clone();
                outcome.verdict = Verdict::Pass;
                Stimulus::Probed(*probe, outcome)
            })
        }
        Stimulus::Served(seq, pending, failed) => match plant {
            Plant::ServeOptimist => Some(Stimulus::Served(*seq, pending.clone(), Vec::new())),
            Plant::ServeEager => Some(Stimulus::Served(*seq, Vec::new(), failed.clone())),
            _ => None,
        },
        Stimulus::Plan(plan, inherited) => match plant {
            Plant::Amnesia => Some(Stimulus::Plan(Arc::clone(plan), Vec::new())),
            Plant::Impatient => Some(Stimulus::Plan(
                edited(plan, |instance| {
                    Arc::make_mut(&mut instance.router).start_delay = Duration::ZERO;
                }),
                inherited.clone(),
            )),
            Plant::ReloadRewrites if scene.is_reload => Some(Stimulus::Plan(
                edited(plan, |instance| instance.lease = Lease::Fixed(Duration::from_secs(5))),
                inherited.clone(),
            )),
            _ => None,
        },
        Stimulus::Applied(seq, owner, _) => {
            (plant == Plant::HideRefusal).then(|| Stimulus::Applied(*seq, *owner, Ok(Vec::new())))
        }
        Stimulus::Sent(id, _) if plant == Plant::Mistaken => {
            let instance = scene.instance(*id)?;
            let address = instance.router.addresses.first()?;
            let (interface, address) = (instance.interface.clone(), *address);
            Some(Stimulus::FactLost(FactKey::Address { interface, address }))
        }
        Stimulus::Timeout if plant == Plant::Sulking => {
            let mut unfit = scene.unfit.iter().filter(|(_, role)| **role == Role::Backup);
            let (id, _) = unfit.next()?;
            Some(Stimulus::Link(gone(scene.instance(*id)?.interface.clone())))
        }
        Stimulus::Timeout | Stimulus::Link(_) | Stimulus::Sent(..) | Stimulus::Command(..) => None,
    }
}

/// A link that has been removed.
fn gone(name: Name) -> LinkState {
    let (index, mtu, running, forwards_v6) = (0, 0, false, false);
    LinkState { name, index, running, mac: None, mtu, addresses: Vec::new(), forwards_v6 }
}

fn distort_packet(plant: Plant, frame: &Frame, scene: Scene<'_>) -> Option<Stimulus> {
    let settings = &addressee(scene.plan, frame)?.router;
    let mut changed = frame.clone();
    let start = wire::header_length(frame.family);
    let message = &mut changed.bytes[start..];
    let priority = *message.get(wire::PRIORITY)?;
    match plant {
        Plant::Greedy if scene.is_backup && priority > 0 => {
            let policy = addressee(scene.plan, frame)?.policy()?;
            if priority > policy.ranking.offer().0 {
                return None;
            }
            wire::rewrite(message, wire::PRIORITY, 254);
        }
        Plant::Meek if scene.is_backup && priority > 0 => {
            wire::rewrite(message, wire::PRIORITY, 254);
        }
        Plant::Unlearned if settings.version == Version::V3 => {
            wire::rewrite_interval(Version::V3, message, settings.interval.centis());
        }
        Plant::Gullible => {
            if let Some(damage) = frame.damage {
                let offset = damage.position - start;
                let now = message[offset];
                wire::correct(message, offset, damage.was, now);
            } else if settings.version == Version::V2 {
                wire::rewrite_interval(Version::V2, message, settings.interval.centis());
            }
        }
        _ => return None,
    }
    Some(Stimulus::Packet(changed))
}

/// What comes out instead, in place.
pub fn tamper(plant: Plant, stimulus: &Stimulus, scene: Scene<'_>, outputs: &mut Vec<Output>) {
    let is_stop = matches!(stimulus, Stimulus::Command(_, OperatorCommand::Stop));
    match plant {
        Plant::StopEarly if is_stop => outputs.insert(outputs.len() - 1, Output::Stopped),
        Plant::Unrepaired => {
            let is_conflict = |event: &Event| matches!(event.kind, EventKind::Conflict { .. });
            let conflicts = outputs.iter().filter_map(|output| match output {
                Output::Notify(event) if is_conflict(event) => Some(event.number),
                _ => None,
            });
            let conflicts: Vec<u64> = conflicts.collect();
            outputs.retain(|output| match output {
                Output::Notify(event) => !conflicts.contains(&event.number),
                Output::Hook(hook) => !conflicts.contains(&hook.event),
                _ => true,
            });
        }
        Plant::Repeat => {
            let is_apply = |output: &Output| matches!(output, Output::Apply { .. });
            if let Some(at) = outputs.iter().position(is_apply) {
                outputs.insert(at, outputs[at].clone());
            }
        }
        _ => outputs.iter_mut().for_each(|output| tamper_one(plant, scene, output)),
    }
}

fn tamper_one(plant: Plant, scene: Scene<'_>, output: &mut Output) {
    match (plant, output) {
        (Plant::HopLimit, Output::Advertise(datagram)) => datagram.ttl = 254,
        (Plant::StalePriority, Output::Advertise(datagram)) => {
            let ours = scene.instance(datagram.instance);
            let is_release = datagram.message.get(wire::PRIORITY) == Some(&0);
            if let (Some(instance), false) = (ours, is_release) {
                let stale = instance.router.priority.0;
                wire::rewrite(&mut datagram.message, wire::PRIORITY, stale);
            }
        }
        (Plant::KeepAddress, Output::Apply { drop, .. }) => drop.clear(),
        (Plant::Hospitable, Output::Apply { drop, .. }) => {
            drop.retain(|removal| removal.whose == Whose::Ours);
        }
        (Plant::Disobedient, Output::Serve { wanted, .. }) => {
            for service in &mut Arc::make_mut(wanted).services {
                let service = Arc::make_mut(service);
                for server in &mut service.servers {
                    let mut planned = service.service.servers.iter();
                    let planned = planned.find(|planned| planned.address == server.address);
                    server.weight = planned.map_or(server.weight, |planned| planned.weight);
                }
            }
        }
        (Plant::LongLease, Output::Apply { hold, .. }) => {
            let longer = hold.iter().cloned().map(|mut fact| {
                if let Fact::Address(held) = &mut fact {
                    held.lease_seconds = held.lease_seconds.map(|seconds| seconds * 8);
                }
                fact
            });
            *hold = longer.collect();
        }
        _ => {}
    }
}

/// The instance that an advert is for, by interface, family and VRID.
fn addressee<'a>(plan: &'a Plan, frame: &Frame) -> Option<&'a Instance> {
    let message = frame.bytes.get(wire::header_length(frame.family)..)?;
    let vrid = Vrid::new(*message.get(1)?)?;
    plan.instances.iter().map(Arc::as_ref).find(|instance| {
        (instance.router.vrid, instance.router.family) == (vrid, frame.family)
            && &*instance.interface == INTERFACES[frame.link]
    })
}

fn edited(plan: &Arc<Plan>, edit: impl Fn(&mut Instance)) -> Arc<Plan> {
    let mut plan = Plan::clone(plan);
    plan.instances.iter_mut().map(Arc::make_mut).for_each(edit);
    Arc::new(plan)
}
