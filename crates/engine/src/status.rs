//! A snapshot of the node for operators: plain values, taken at one moment.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use locum_plan::{Activity, Listener, Name, Quorum, Tracked};
use locum_vrrp::{
    ChecksumForm, Family, HeldBack, Priority, Role, RouterReport, Time, Version, Vrid,
};

use crate::engine::Engine;
use crate::explain;
use crate::facts::{Fact, Facts};
use crate::fault::{Fault, PriorityPart};
use crate::fitness::{Aspect, FORGIVEN};
use crate::ids::InstanceId;
use crate::instance::{Discarded, InstanceState};
use crate::order::ServerOrder;

/// Everything `locum status` shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSnapshot {
    pub node: Option<Name>,
    /// SHA-256 of the configuration text.
    pub digest: Option<String>,
    pub stopping: bool,
    pub instances: Vec<InstanceSnapshot>,
    pub checks: Vec<CheckSnapshot>,
    pub services: Vec<ServiceSnapshot>,
    pub haproxy: Vec<HaproxySnapshot>,
    /// Counters of datagrams no instance matched, by interface: those that are not zero.
    pub unmatched: Vec<(Name, Vec<(&'static str, u64)>)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstanceSnapshot {
    pub id: InstanceId,
    pub name: Name,
    pub interface: Name,
    pub vrid: Vrid,
    pub family: Family,
    pub version: Version,
    pub role: Role,
    /// How long the role is what it is.
    pub role_age: Duration,
    /// A candidate: it is master after this long if nobody answers (V-273).
    pub candidate: Option<Duration>,
    /// Why it is; the text of the log and the history.
    pub cause: String,
    /// The same as a word.
    pub cause_word: &'static str,
    pub base_priority: Priority,
    pub priority: Priority,
    /// What makes the difference.
    pub adjustments: Vec<PriorityPart>,
    /// Why it cannot take part; empty when it can.
    pub faults: Vec<Fault>,
    /// What it cannot serve here, the heaviest first, each with what is missing. Empty too where
    /// nothing of it decides.
    pub unfit: Vec<(Tracked, String)>,
    /// Until it offers its mastership again because of that; `None` unless it is master.
    pub offer_in: Option<Duration>,
    /// What keeps it from being master although it could be.
    pub held_back: Option<HeldBack>,
    /// Handed over by the operator: the peer keeps it while it lives.
    pub yielded: bool,
    pub interval: Duration,
    /// Source of our adverts.
    pub source: Option<IpAddr>,
    pub master: Option<PeerSnapshot>,
    /// A router whose adverts are being discarded: it may be master too.
    pub discarded: Option<DiscardedSnapshot>,
    /// The master has other addresses than this instance; `None` unless it is a backup.
    pub differing: Option<DifferingSnapshot>,
    pub checksum_form: ChecksumForm,
    /// Addresses of the configuration with their prefix length, and whether this node holds them.
    pub addresses: Vec<(IpAddr, u8)>,
    pub holds_addresses: bool,
    /// What the kernel refused of all that it shall have, while addresses are held.
    pub refused: Vec<RefusedSnapshot>,
    /// What this node must not have and the kernel does not let go of.
    pub withdrawals_pending: Vec<RefusedSnapshot>,
    /// Addresses that somebody put here, where this node is not master: `ADDRESS/PREFIX on LINK`.
    pub unwanted: Vec<String>,
    /// The kernel has not answered for more than a second.
    pub is_apply_late: bool,
    /// Times an address that someone removed was put back.
    pub healed: u64,
    /// Being removed by a reload.
    pub leaving: bool,
    pub standard: StandardSnapshot,
    pub counters: Vec<(&'static str, u64)>,
}

/// Another router that this instance hears and does not believe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiscardedSnapshot {
    pub source: IpAddr,
    /// What is wrong with its last advert.
    pub reason: String,
    pub heard_ago: Duration,
}

/// Addresses that only one of two nodes has: while the other one is master they are nowhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DifferingSnapshot {
    pub master: IpAddr,
    pub ours_only: Vec<IpAddr>,
    pub theirs_only: Vec<IpAddr>,
}

/// A discarded advert is of no concern after this long without another, or after two down
/// intervals where those are longer.
const DISCARD_CONCERN: Duration = Duration::from_secs(10);

/// A fact that the kernel did not do as asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedSnapshot {
    pub fact: Fact,
    /// The kernel's words.
    pub error: String,
    /// Until it is asked again; `None` while it is being asked.
    pub again_in: Option<Duration>,
}

/// What RFC 8347 has leaves for (V-402).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandardSnapshot {
    /// By its configuration, also while it concedes to another owner.
    pub is_owner: bool,
    /// How long it has been taking part; `None` while it does not.
    pub up_age: Option<Duration>,
    pub down_interval: Duration,
    pub skew: Duration,
    pub report: RouterReport,
}

/// The other router last accepted as master.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSnapshot {
    pub address: IpAddr,
    pub priority: Priority,
    /// By its priority it cannot serve all either; `false` where what is served does not decide.
    pub is_unfit: bool,
    pub heard_ago: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckSnapshot {
    pub name: Name,
    /// `None` until the first result.
    pub up: Option<bool>,
    pub detail: String,
    pub level_age: Duration,
    /// It cannot be run and is left out, as keepalived does.
    pub ignored: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceSnapshot {
    pub name: Name,
    pub listen: Vec<Listener>,
    /// Served by this node now.
    pub active: bool,
    pub error: Option<String>,
    pub fitness: FitnessSnapshot,
    pub quorum: QuorumSnapshot,
    /// Where clients are sent while the quorum is lost.
    pub sorry: Option<SocketAddr>,
    /// It has them.
    pub sorry_in_use: bool,
    pub servers: Vec<ServerSnapshot>,
}

/// Whether a service has enough servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuorumSnapshot {
    pub reached: bool,
    /// What the servers that are sent clients are worth.
    pub sum: u32,
    pub quorum: Quorum,
    /// Why it is not reached; empty while it is.
    pub shortage: String,
    /// How long it has been as it is.
    pub age: Duration,
}

/// Whether this node can serve something, and whether clients are answered where it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FitnessSnapshot {
    /// It is served here: `holds` is whether it answers, else whether it could be served.
    pub aspect: Aspect,
    /// `None` until somebody has looked.
    pub holds: Option<bool>,
    /// At least as many servers as its quorum take connections; `None` while nobody knows.
    pub populated: Option<bool>,
    /// What is missing; empty while nothing is.
    pub detail: String,
    /// How long it has been as it is.
    pub age: Duration,
    /// It has recovered, and does not count for it on a node that is not master for so long.
    pub hold: Option<Duration>,
    /// How often it was lost of late.
    pub losses: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerSnapshot {
    pub address: SocketAddr,
    /// As configured.
    pub weight: u32,
    /// What it shall have: its checks and an operator have a say. 0 while it is sent no clients, as it
    /// is down, or the sorry server has them.
    pub due_weight: u32,
    /// How far it has come on its way there, below 100; `None`: it is there.
    pub ramp_percent: Option<u32>,
    pub order: Option<ServerOrder>,
    /// `None`: nobody checks it, or not yet.
    pub up: Option<bool>,
    pub detail: String,
    /// This node could not ask it, and `detail` says why.
    pub is_unasked: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HaproxySnapshot {
    pub name: Name,
    pub active: bool,
    pub error: Option<String>,
    pub fitness: FitnessSnapshot,
}

impl FitnessSnapshot {
    /// Why it is not served, or could not be.
    fn error(&self) -> Option<String> {
        (self.holds == Some(false)).then(|| self.detail.clone())
    }

    fn unknown() -> Self {
        Self {
            aspect: Aspect::Capable,
            holds: None,
            populated: None,
            detail: String::new(),
            age: Duration::ZERO,
            hold: None,
            losses: 0,
        }
    }
}

fn discarded(state: &InstanceState, now: Time) -> Option<DiscardedSnapshot> {
    let Discarded { at, source, reason } = *state.discarded.as_deref()?;
    let heard_ago = now.since(at);
    let concern = DISCARD_CONCERN.max(2 * state.router.down_interval());
    let reason = format!("{} ({})", explain::discard(reason), reason.reason());
    (heard_ago <= concern).then_some(DiscardedSnapshot { source, reason, heard_ago })
}

fn differing(state: &InstanceState, now: Time) -> Option<DifferingSnapshot> {
    let differing = state.differing.as_deref()?;
    let is_heard = now.since(differing.at) <= 2 * state.router.down_interval();
    (is_heard && state.router.role() == Role::Backup).then(|| DifferingSnapshot {
        master: differing.source,
        ours_only: differing.ours_only.clone(),
        theirs_only: differing.theirs_only.clone(),
    })
}

impl Engine {
    /// The node as it is at `now`.
    pub fn status(&self, now: Time) -> NodeSnapshot {
        NodeSnapshot {
            node: self.plan.as_ref().map(|plan| plan.node.clone()),
            digest: self.plan.as_ref().map(|plan| plan.digest.clone()),
            stopping: self.stopping,
            instances: self
                .instances
                .iter()
                .map(|state| self.instance_status(state, now))
                .collect(),
            checks: self.check_status(now),
            services: self.service_status(now),
            haproxy: self.haproxy_status(now),
            unmatched: self.unmatched_status(),
        }
    }

    fn instance_status(&self, state: &InstanceState, now: Time) -> InstanceSnapshot {
        let settings = state.router.settings();
        let (since, cause) = state.router.since();
        let verdict = self.judge(&state.instance, state.perspective(now));
        let master = state.router.master().map(|master| PeerSnapshot {
            address: master.address,
            priority: master.priority,
            is_unfit: state
                .instance
                .policy()
                .is_some_and(|policy| policy.ranking.is_unfit(master.priority)),
            heard_ago: now.since(master.heard),
        });
        InstanceSnapshot {
            id: state.id,
            name: state.name().clone(),
            interface: state.instance.interface.clone(),
            vrid: settings.vrid,
            family: settings.family,
            version: settings.version,
            role: state.router.role(),
            role_age: now.since(since),
            candidate: state.router.candidate().map(|(_, until)| until.since(now)),
            cause: cause.to_string(),
            cause_word: cause.word(),
            base_priority: settings.priority,
            priority: state.router.priority(),
            adjustments: verdict.parts,
            faults: state.faults.clone(),
            unfit: verdict.loss.objects,
            offer_in: state.fitness.as_ref().and_then(|footing| footing.offer_in(now)),
            held_back: state.router.held_back(),
            yielded: state.router.is_yielded(),
            interval: settings.interval.as_duration(),
            source: self.source_of(state.id),
            master,
            discarded: discarded(state, now),
            differing: differing(state, now),
            checksum_form: state.router.form(),
            addresses: state.instance.addresses.iter().map(|a| (a.address, a.prefix)).collect(),
            holds_addresses: state.router.holds_addresses(),
            refused: refused(state.facts(), now),
            withdrawals_pending: withdrawals_pending(state.facts(), now),
            unwanted: state.facts().unwanted().map(ToString::to_string).collect(),
            is_apply_late: state.facts().is_late(),
            healed: state.healed,
            leaving: state.leaving,
            standard: StandardSnapshot {
                is_owner: settings.priority.is_owner(),
                up_age: state.router.up_since().map(|since| now.since(since)),
                down_interval: state.router.down_interval(),
                skew: state.router.skew(),
                report: state.router.report(),
            },
            counters: state.counters.iter().collect(),
        }
    }

    fn check_status(&self, now: Time) -> Vec<CheckSnapshot> {
        let all = self.trackers.checks().map(|(_, check, tracker)| CheckSnapshot {
            name: check.name.clone(),
            up: tracker.state.up,
            detail: tracker.state.detail.clone(),
            level_age: now.since(tracker.state.since),
            ignored: tracker.ignored,
        });
        all.collect()
    }

    fn fitness_status(&self, object: &Tracked, is_active: bool, now: Time) -> FitnessSnapshot {
        let Some(state) = self.trackers.served(object) else {
            // INVARIANT: whatever the plan serves is tracked; said of nothing, it is not known.
            return FitnessSnapshot::unknown();
        };
        let age = now.since(state.since);
        let is_held = state.losses > 0 && state.up() == Some(true) && !state.is_active;
        FitnessSnapshot {
            aspect: if is_active { Aspect::Answering } else { Aspect::Capable },
            holds: state.known(is_active),
            populated: state.population.as_ref().map_or(Some(true), |all| all.is_enough),
            detail: state.detail().to_owned(),
            age,
            hold: state.hold().checked_sub(age).filter(|left| is_held && !left.is_zero()),
            losses: if age < FORGIVEN { state.losses } else { 0 },
        }
    }

    fn service_status(&self, now: Time) -> Vec<ServiceSnapshot> {
        let activity = |name: &Name| {
            let mut level = self.services.level().services.iter();
            level.find(|one| one.service.name == *name).map(|one| one.activity)
        };
        let one = |state: &crate::service::ServiceState| {
            let name = &state.service.name;
            let activity = activity(name);
            let active = activity == Some(Activity::Active);
            let fitness = self.fitness_status(&Tracked::Service(name.clone()), active, now);
            let is_sorry = state.sorry_in_use().is_some();
            ServiceSnapshot {
                name: name.clone(),
                listen: state.service.listen.clone(),
                active,
                // Of what the level does not name any more nobody asks.
                error: activity.and_then(|_| fitness.error()),
                fitness,
                quorum: QuorumSnapshot {
                    reached: state.has_quorum,
                    sum: state.standing(),
                    quorum: state.service.quorum,
                    shortage: state.shortage(),
                    age: now.since(state.quorum_since),
                },
                sorry: state.service.sorry.as_ref().map(|sorry| sorry.address),
                sorry_in_use: is_sorry,
                servers: state
                    .servers
                    .iter()
                    .map(|server| ServerSnapshot {
                        address: server.server.address,
                        weight: server.server.weight,
                        due_weight: if is_sorry { 0 } else { server.due_while_live() },
                        ramp_percent: server.ramp.and_then(|ramp| ramp.percent(now)),
                        order: server.order,
                        up: server.up(),
                        detail: server.detail(),
                        is_unasked: server.is_unasked(),
                    })
                    .collect(),
            }
        };
        self.services.iter().map(one).collect()
    }

    fn haproxy_status(&self, now: Time) -> Vec<HaproxySnapshot> {
        let files = self.services.haproxy();
        let activity = |name: &Name| {
            let mut level = self.services.level().haproxy.iter();
            level.find(|one| one.file.name == *name).map(|one| one.activity)
        };
        let one = |file: &locum_plan::HaproxyFile| {
            let activity = activity(&file.name);
            let active = activity == Some(Activity::Active);
            let object = Tracked::Haproxy(file.name.clone());
            let fitness = self.fitness_status(&object, active, now);
            HaproxySnapshot {
                name: file.name.clone(),
                active,
                error: activity.and_then(|_| fitness.error()),
                fitness,
            }
        };
        files.map(one).collect()
    }

    fn unmatched_status(&self) -> Vec<(Name, Vec<(&'static str, u64)>)> {
        let mut all: Vec<_> = self
            .unmatched
            .iter()
            .map(|(name, counters)| {
                (name.clone(), counters.iter().filter(|(_, value)| *value > 0).collect())
            })
            .collect();
        all.sort();
        all
    }
}

fn refused(facts: &Facts, now: Time) -> Vec<RefusedSnapshot> {
    facts.refused().map(|one| refusal(&one.fact, &one.error, one.until(), now)).collect()
}

fn withdrawals_pending(facts: &Facts, now: Time) -> Vec<RefusedSnapshot> {
    let pending = facts.withdrawals_pending();
    pending.map(|(fact, error)| refusal(fact, error, facts.retry_at(), now)).collect()
}

fn refusal(fact: &Fact, error: &str, until: Option<Time>, now: Time) -> RefusedSnapshot {
    RefusedSnapshot {
        fact: fact.clone(),
        error: error.to_owned(),
        again_in: until.map(|until| until.since(now)),
    }
}
