//! One engine as its node sees it, and the clock between the two.
//!
//! The clock is where four faults are planted: [`Plant::Skew`] lets it jump ahead at the end of a
//! backup's wait by what whole centiseconds would cut off the skew, so that the down timer runs out
//! early by exactly that; [`Plant::Oversleep`] takes out of it what the process was paused for;
//! [`Plant::Sluggish`] calls a backup an interval late, and [`Plant::Undecided`] a candidate.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use locum_engine::status::RefusedSnapshot;
use locum_engine::{Engine, InstanceId, Output, Owner};
use locum_plan::{Name, Plan};
use locum_vrrp::{Priority, Role, Time, timers};

use crate::node::Stimulus;
use crate::objector::Objector;
use crate::plant::{Plant, Scene, distort, tamper};

/// What status says about one instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    pub instance: Name,
    pub role: Role,
    pub priority: Priority,
    /// Addresses it says the kernel refused, and those it says the kernel does not let go of.
    pub refused: Vec<IpAddr>,
    pub withdrawals_pending: Vec<IpAddr>,
    /// What it says others have put there and is left alone.
    pub unwanted: Vec<String>,
    /// It has proposed its mastership and waits for an answer.
    pub is_candidate: bool,
}

impl View {
    /// What no harmless input changes.
    pub fn standing(&self) -> (&Name, Role, Priority, &[IpAddr], &[IpAddr]) {
        (&self.instance, self.role, self.priority, &self.refused, &self.withdrawals_pending)
    }
}

#[derive(Default)]
pub struct Adapter {
    engine: Engine,
    /// What the engine was last told; it never hears an earlier time.
    latest: Time,
    jump: Option<Jump>,
    /// What the clock lags behind true time.
    slept: Duration,
    /// How late the timer is.
    lag: Duration,
    pub views: Vec<View>,
    /// Of all instances this process has had.
    names: BTreeMap<InstanceId, Name>,
    /// Services that status says are not served.
    pub unserved: Vec<Name>,
    /// Services that have recovered and do not count for it yet.
    pub held_back: Vec<Name>,
    /// Instances that status says cannot serve all, with their roles.
    unfit: BTreeMap<InstanceId, Role>,
    /// By true time.
    pub deadline: Option<Time>,
    pub objector: Objector,
    /// What the engine promises itself and does not keep.
    pub broken: Option<String>,
}

/// [`Plant::Undecided`]: longer than any candidate waits.
const PROCRASTINATION: Duration = Duration::from_millis(700);

/// The clock's lie at the end of a backup's wait.
#[derive(Clone, Copy, Debug)]
struct Jump {
    at: Time,
    to: Time,
}

impl Adapter {
    /// One stimulus, full drain. `plan` is the node's, for the plants that need to know it.
    pub fn handle(
        &mut self,
        now: Time,
        stimulus: &Stimulus,
        plan: &Plan,
        plant: Option<Plant>,
    ) -> Vec<Output> {
        let is_reload = !self.views.is_empty();
        let is_backup = self.is_backup();
        let scene = Scene { plan, names: &self.names, is_reload, is_backup, unfit: &self.unfit };
        let distorted = plant.and_then(|plant| distort(plant, stimulus, scene));
        let stimulus = distorted.as_ref().unwrap_or(stimulus);
        let clock = now - self.slept;
        let jumped = self.jump.filter(|jump| clock >= jump.at).map_or(clock, |jump| jump.to);
        self.latest = self.latest.max(clock).max(jumped);
        let mut outputs = Vec::new();
        self.engine.handle_under(&mut self.objector, self.latest, stimulus.input(), &mut outputs);
        self.broken = self.engine.check_invariants().err();
        self.look();
        let deadline = outputs.iter().rev().find_map(|output| match output {
            Output::Deadline(deadline) => *deadline,
            _ => None,
        });
        self.jump = None;
        if let Some(plant) = plant {
            let scene =
                Scene { plan, names: &self.names, is_reload, is_backup, unfit: &self.unfit };
            tamper(plant, stimulus, scene, &mut outputs);
            self.lag = Duration::ZERO;
            if self.is_backup() && plant == Plant::Skew {
                self.jump = deadline.and_then(|deadline| self.skewed(plan, deadline));
            } else if self.is_backup() && plant == Plant::Sluggish {
                let intervals = plan.instances.iter().map(|i| i.router.interval.as_duration());
                self.lag = intervals.max().unwrap_or_default();
            } else if plant == Plant::Undecided && self.has_candidate() {
                self.lag = PROCRASTINATION;
            }
        }
        self.deadline = deadline.map(|deadline| deadline + self.slept);
        outputs
    }

    /// The clock does not count this long.
    pub fn sleep(&mut self, span: Duration) {
        self.slept += span;
        self.deadline = self.deadline.map(|deadline| deadline + span);
    }

    /// When the node's timer fires, by true time.
    pub fn timer(&self) -> Option<Time> {
        self.jump.map(|jump| jump.at).or(self.deadline).map(|at| at + self.lag)
    }

    pub fn view(&self, instance: &str) -> Option<&View> {
        self.views.iter().find(|view| &*view.instance == instance)
    }

    pub fn name_of(&self, id: InstanceId) -> Option<&Name> {
        self.names.get(&id)
    }

    /// On behalf of the instance of this name.
    pub fn is_of(&self, owner: Owner, name: &Name) -> bool {
        match owner {
            Owner::Instance(id) => self.name_of(id) == Some(name),
            Owner::Nobody => false,
        }
    }

    fn has_candidate(&self) -> bool {
        self.views.iter().any(|view| view.is_candidate)
    }

    fn is_backup(&self) -> bool {
        !self.views.is_empty() && self.views.iter().all(|view| view.role == Role::Backup)
    }

    fn look(&mut self) {
        let status = self.engine.status(self.latest);
        let names = status.instances.iter().map(|instance| (instance.id, instance.name.clone()));
        self.names.extend(names);
        self.views.clear();
        self.views.extend(status.instances.iter().map(|instance| View {
            instance: instance.name.clone(),
            role: instance.role,
            priority: instance.priority,
            refused: addresses(&instance.refused),
            withdrawals_pending: addresses(&instance.withdrawals_pending),
            unwanted: instance.unwanted.clone(),
            is_candidate: instance.candidate.is_some(),
        }));
        let views = &self.views;
        self.objector
            .retain(|name| views.iter().any(|view| view.instance == *name && view.is_candidate));
        self.unserved.clear();
        let unserved = status.services.iter().filter(|service| service.error.is_some());
        self.unserved.extend(unserved.map(|service| service.name.clone()));
        let unfit = status.instances.iter().filter(|instance| !instance.unfit.is_empty());
        self.unfit = unfit.map(|instance| (instance.id, instance.role)).collect();
        let held = status.services.iter().filter(|service| service.fitness.hold.is_some());
        self.held_back = held.map(|service| service.name.clone()).collect();
    }

    /// [`Plant::Skew`]: the jump before this deadline.
    fn skewed(&self, plan: &Plan, deadline: Time) -> Option<Jump> {
        if deadline <= self.latest {
            return None;
        }
        let cut_off = self.views.iter().filter_map(|view| {
            let router = &plan.instances.iter().find(|i| i.name == view.instance)?.router;
            Some(sub_centisecond(timers::skew(router.version, view.priority, router.interval)))
        });
        let at = deadline - cut_off.min().unwrap_or_default();
        Some(Jump { at: at.max(self.latest), to: deadline })
    }
}

/// The addresses among these.
fn addresses(refused: &[RefusedSnapshot]) -> Vec<IpAddr> {
    refused.iter().filter_map(|one| one.fact.key().address()).collect()
}

/// What truncation to whole centiseconds loses.
fn sub_centisecond(skew: Duration) -> Duration {
    Duration::from_nanos(skew.as_nanos() as u64 % 10_000_000)
}
