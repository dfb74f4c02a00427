//! From the snapshots of the engine and the balancer to the status document.

use std::time::{Duration, SystemTime};

use locum_balancer::{BalancedState, BalancerStatus, CarriedOctets, ProcessState};
use locum_control::status::{
    Adjustment, CheckStatus, Counter, DiscardedStatus, HaproxyStatus, HeldBackStatus,
    InstanceStatus, PeerStatus, ProcessStatus, QuorumState, RefusedAddress, ServedFitness,
    ServerStatus, ServiceStatus, SorryStatus, StatusDocument, TrafficStatus, UnfitObject,
    Unmatched,
};
use locum_engine::ServerOrder;
use locum_engine::status as engine;
use locum_engine::status::NodeSnapshot;
use locum_plan::{Name, Plan, Protocol, QuorumUnit, Tracked, listeners_in_words};
use locum_vrrp::{Family, HeldBack, Role, Time, Version};

use super::rfc8347;
use super::wall_clock::WallClock;
use crate::text::millis;
use crate::text::problem::problems;

/// What the document is made of.
pub struct StatusInputs<'a> {
    pub engine: &'a NodeSnapshot,
    /// `None` when the balancer did not answer in time.
    pub balancer: Option<&'a BalancerStatus>,
    pub plan: &'a Plan,
    pub config: &'a str,
    pub started: SystemTime,
    pub configured: SystemTime,
    pub dropped: u64,
    pub now: SystemTime,
    /// When `engine` was taken.
    pub taken: Time,
    pub wall: &'a WallClock,
}

pub fn compose(from: &StatusInputs<'_>) -> StatusDocument {
    let ago = |age| rfc3339(from.wall.before(from.taken, age));
    let nothing = BalancerStatus::default();
    let balancer = from.balancer.unwrap_or(&nothing);
    let status = from.engine;
    let mut document = StatusDocument {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        node: from.plan.node.to_string(),
        now: rfc3339(from.now),
        started: rfc3339(from.started),
        config: from.config.to_owned(),
        digest: from.plan.digest.clone(),
        configured: rfc3339(from.configured),
        stopping: status.stopping,
        healthy: true,
        problems: Vec::new(),
        instances: status.instances.iter().map(|one| instance(one, from.taken, &ago)).collect(),
        checks: status.checks.iter().map(|one| check(one, ago(one.level_age))).collect(),
        services: status
            .services
            .iter()
            .map(|one| service(one, from.plan, balancer, &ago))
            .collect(),
        haproxy: status.haproxy.iter().map(|one| haproxy(one, from.plan, balancer, &ago)).collect(),
        processes: balancer.processes.iter().map(process).collect(),
        unmatched: status.unmatched.iter().map(unmatched).collect(),
        dropped: from.dropped,
    };
    document.problems = problems(&document, from.balancer.is_none());
    document.healthy = document.problems.is_empty();
    document
}

/// `ago` says when it was so long ago.
fn instance(
    from: &engine::InstanceSnapshot,
    taken: Time,
    ago: &dyn Fn(Duration) -> String,
) -> InstanceStatus {
    let standard = &from.standard;
    let up = standard.up_age.map(ago);
    let peer = from.master.as_ref().map(|peer| PeerStatus {
        address: peer.address,
        priority: peer.priority.0,
        unfit: peer.is_unfit,
        heard_ms: millis(peer.heard_ago),
    });
    let master = match from.role {
        Role::Master => from.source,
        Role::Backup | Role::Resigning => peer.as_ref().map(|peer| peer.address),
        Role::Initialize | Role::Fault => None,
    };
    InstanceStatus {
        name: from.name.to_string(),
        interface: from.interface.to_string(),
        vrid: from.vrid.get(),
        family: match from.family {
            Family::V4 => "ipv4".to_owned(),
            Family::V6 => "ipv6".to_owned(),
        },
        version: match from.version {
            Version::V2 => 2,
            Version::V3 => 3,
        },
        role: from.role.word().to_owned(),
        since: ago(from.role_age),
        since_ms: millis(from.role_age),
        cause: from.cause.clone(),
        cause_kind: from.cause_word.to_owned(),
        base_priority: from.base_priority.0,
        effective_priority: from.priority.0,
        adjustments: from
            .adjustments
            .iter()
            .map(|part| Adjustment { name: part.object.to_string(), value: part.part })
            .collect(),
        faults: from.faults.iter().map(ToString::to_string).collect(),
        unfit: from.unfit.iter().map(unfit).collect(),
        offer_in_ms: from.offer_in.map(millis),
        held_back: from.held_back.map(|held| held_back(held, taken)),
        yielded: from.yielded,
        interval_ms: millis(from.interval),
        source: from.source,
        master,
        peer,
        discarded: from.discarded.as_ref().map(|other| DiscardedStatus {
            source: other.source,
            reason: other.reason.clone(),
            heard_ms: millis(other.heard_ago),
        }),
        nowhere: from.differing.as_ref().map_or_else(Vec::new, |all| all.ours_only.clone()),
        lacking: from.differing.as_ref().map_or_else(Vec::new, |all| all.theirs_only.clone()),
        addresses: from
            .addresses
            .iter()
            .map(|(address, prefix)| format!("{address}/{prefix}"))
            .collect(),
        holds_addresses: from.holds_addresses,
        missing: missing(&from.refused),
        stuck: from.withdrawals_pending.iter().map(refused).collect(),
        unwanted: from.unwanted.clone(),
        apply_late: from.is_apply_late,
        healed: from.healed,
        leaving: from.leaving,
        rfc8347: rfc8347::leaves(from.role, standard, from.master.as_ref(), up),
        counters: counters(&from.counters),
    }
}

/// What clients miss. Without a handover connections begin anew, and it would be over in a moment:
/// the history has it, and nobody has to come for it.
fn missing(all: &[engine::RefusedSnapshot]) -> Vec<RefusedAddress> {
    let lasting = all.iter().filter(|one| one.fact.handover().is_none());
    lasting.map(refused).collect()
}

fn refused(from: &engine::RefusedSnapshot) -> RefusedAddress {
    RefusedAddress {
        address: from.fact.what(),
        interface: from.fact.interface().to_string(),
        error: from.error.clone(),
        again_ms: from.again_in.map_or(0, millis),
    }
}

fn check(from: &engine::CheckSnapshot, since: String) -> CheckStatus {
    CheckStatus {
        name: from.name.to_string(),
        up: from.up,
        detail: from.detail.clone(),
        since,
        since_ms: millis(from.level_age),
        ignored: from.ignored,
    }
}

fn held_back(from: HeldBack, taken: Time) -> HeldBackStatus {
    let (reason, until) = match from {
        HeldBack::StartDelay { until } => ("start-delay", Some(until)),
        HeldBack::Refused { at: _ } => ("refused", None),
        HeldBack::LetsPass { until } => ("lets-pass", Some(until)),
        HeldBack::Yielded => ("yielded", None),
        HeldBack::Unfit => ("unfit", None),
        HeldBack::NoPreempt => ("no-preempt", None),
        HeldBack::PreemptDelay { until } => ("preempt-delay", Some(until)),
    };
    let left_ms = until.map(|until| millis(until.since(taken)));
    HeldBackStatus { reason: reason.to_owned(), left_ms }
}

fn unfit((object, detail): &(Tracked, String)) -> UnfitObject {
    UnfitObject { object: object.to_string(), detail: detail.clone() }
}

fn fitness(from: &engine::FitnessSnapshot, ago: &dyn Fn(Duration) -> String) -> ServedFitness {
    ServedFitness {
        aspect: from.aspect.word().to_owned(),
        holds: from.holds,
        populated: from.populated,
        detail: from.detail.clone(),
        since: ago(from.age),
        since_ms: millis(from.age),
        hold_ms: from.hold.map(millis),
        losses: from.losses,
    }
}

fn traffic(octets: CarriedOctets) -> TrafficStatus {
    TrafficStatus {
        octets_in: octets.inward,
        octets_out: octets.outward,
        octets_in_rate: octets.a_second.map(|(inward, _)| inward),
        octets_out_rate: octets.a_second.map(|(_, outward)| outward),
    }
}

fn service(
    from: &engine::ServiceSnapshot,
    plan: &Plan,
    balancer: &BalancerStatus,
    ago: &dyn Fn(Duration) -> String,
) -> ServiceStatus {
    let planned = plan.services.iter().find(|planned| planned.name == from.name);
    let served = balancer.services.iter().find(|served| served.name == from.name);
    let counted = |address| served?.servers.iter().find(|server| server.address == address);
    let connections_of = |address| counted(address).map_or(0, |server| server.active);
    ServiceStatus {
        name: from.name.to_string(),
        listen: listeners_in_words(&from.listen),
        protocol: planned.map_or(Protocol::Tcp, |planned| planned.protocol).name().to_owned(),
        scheduler: planned.map_or_else(String::new, |planned| planned.scheduler.name.clone()),
        active: from.active,
        backend: served.map(|served| served.backend.name().to_owned()),
        backend_choice: named(&balancer.choices, &from.name),
        state: match served.map(|served| served.state) {
            Some(BalancedState::Serving) => "serving",
            Some(BalancedState::Ready) => "ready",
            Some(BalancedState::Leaving) => "leaving",
            Some(BalancedState::Failed) => "failed",
            None => "idle",
        }
        .to_owned(),
        error: from.error.clone().or_else(|| served.and_then(|served| served.error.clone())),
        instance: planned.and_then(|planned| planned.instance.as_ref()).map(ToString::to_string),
        fitness: fitness(&from.fitness, ago),
        // A backend tells more of its own than it reports.
        strained: served
            .and_then(|served| served.strained.clone())
            .or_else(|| named(&balancer.strained, &from.name)),
        connections: served.map_or(0, |served| served.active),
        accepted: served.map_or(0, |served| served.accepted),
        waiting: served.and_then(|served| served.waiting),
        traffic: served.and_then(|served| served.octets).map(traffic),
        quorum: QuorumState {
            reached: from.quorum.reached,
            sum: from.quorum.sum,
            unit: match from.quorum.quorum.unit {
                QuorumUnit::Servers => "servers",
                QuorumUnit::Weight => "weight",
            }
            .to_owned(),
            quorum: from.quorum.quorum.level,
            hysteresis: from.quorum.quorum.hysteresis,
            shortage: from.quorum.shortage.clone(),
            since: ago(from.quorum.age),
            since_ms: millis(from.quorum.age),
        },
        sorry: from.sorry.map(|address| SorryStatus {
            address,
            in_use: from.sorry_in_use,
            connections: connections_of(address),
        }),
        servers: from
            .servers
            .iter()
            .map(|server| ServerStatus {
                address: server.address,
                weight: server.weight,
                up: server.up,
                detail: server.detail.clone(),
                unasked: server.is_unasked,
                connections: connections_of(server.address),
                weight_in_force: server.due_weight,
                ramp_percent: server.ramp_percent,
                order: server.order.map(|order| {
                    match order {
                        ServerOrder::Drain => "drain",
                        ServerOrder::Weight(_) => "weight",
                    }
                    .to_owned()
                }),
                inactive: counted(server.address).and_then(|server| server.inactive),
                connection_rate: counted(server.address).and_then(|server| server.connection_rate),
                traffic: counted(server.address).and_then(|server| server.octets).map(traffic),
            })
            .collect(),
    }
}

fn haproxy(
    from: &engine::HaproxySnapshot,
    plan: &Plan,
    balancer: &BalancerStatus,
    ago: &dyn Fn(Duration) -> String,
) -> HaproxyStatus {
    let planned = plan.haproxy.iter().find(|planned| planned.name == from.name);
    HaproxyStatus {
        name: from.name.to_string(),
        active: from.active,
        error: from.error.clone(),
        instance: planned.and_then(|planned| planned.instance.as_ref()).map(ToString::to_string),
        fitness: fitness(&from.fitness, ago),
        // Of whatever serves it, or of what a standby would lack.
        strained: named(&balancer.strained, &from.name),
    }
}

/// What is said of this one.
fn named(all: &[(Name, String)], of: &Name) -> Option<String> {
    all.iter().find(|(name, _)| name == of).map(|(_, text)| text.clone())
}

fn process(from: &locum_balancer::SupervisedProcess) -> ProcessStatus {
    ProcessStatus {
        name: from.name.to_string(),
        backend: from.backend.to_owned(),
        state: match from.state {
            ProcessState::Running => "running",
            ProcessState::Waiting { .. } => "waiting",
            ProcessState::Stopping => "stopping",
        }
        .to_owned(),
        pid: from.pid,
        restarts: from.restarts,
        error: from.error.clone(),
    }
}

fn unmatched((interface, counts): &(locum_plan::Name, Vec<(&'static str, u64)>)) -> Unmatched {
    Unmatched { interface: interface.to_string(), counters: counters(counts) }
}

fn counters(counts: &[(&'static str, u64)]) -> Vec<Counter> {
    let one =
        |(name, value): &(&'static str, u64)| Counter { name: (*name).to_owned(), value: *value };
    counts.iter().map(one).collect()
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use locum_engine::{Fact, Handover, HeldAddress};
    use locum_plan::VirtualAddress;
    use locum_vrrp::Time;

    use super::*;

    #[test]
    fn what_holds_a_router_back_has_the_time_that_is_left() {
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let held = |from| held_back(from, at(100));
        let delay = held(HeldBack::PreemptDelay { until: at(125) });
        assert_eq!((&*delay.reason, delay.left_ms), ("preempt-delay", Some(25_000)));
        assert_eq!(held(HeldBack::StartDelay { until: at(101) }).left_ms, Some(1_000));
        assert_eq!(held(HeldBack::NoPreempt).left_ms, None);
    }

    #[test]
    fn an_address_that_is_refused_is_missing_and_a_handover_is_not() {
        let address = [192, 0, 2, 10].into();
        let handover = Handover {
            interface: "eth0".into(),
            address,
            host: [192, 0, 2, 1].into(),
            until: Time::ZERO,
        };
        let held = HeldAddress {
            interface: "eth0".into(),
            address: VirtualAddress::new(address, 24),
            lease_seconds: None,
        };
        let facts = [Fact::Handover(Box::new(handover)), Fact::Address(held)];
        let refused = facts.map(|fact| engine::RefusedSnapshot {
            fact,
            error: "no such protocol".into(),
            again_in: None,
        });
        let missing = missing(&refused);
        let named: Vec<&str> = missing.iter().map(|one| &*one.address).collect();
        assert_eq!(named, ["192.0.2.10/24"]);
    }
}
