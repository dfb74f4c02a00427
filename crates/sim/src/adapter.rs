//! One engine as its node sees it, and the faults that can be planted between the two.
//!
//! A planted fault never touches the engine: it is what a wrong daemon around a right engine, or
//! a wrong timer in it, would look like from outside. Each has an invariant that must find it.
//!
//! | plant | what is altered |
//! |---|---|
//! | [`Plant::Skew`] | while every instance is a backup, the node's clock jumps ahead at the end of the wait by what whole centiseconds would cut off the skew, so the down timer runs out early by exactly that |
//! | [`Plant::AnnounceEarly`] | `Announce` is executed when it is put out, not after its `Apply` |
//! | [`Plant::NoHold`] | an advert with priority 0 makes the node withdraw the addresses at once |

use std::time::Duration;

use locum_config::plan::{Name, Plan};
use locum_engine::{Engine, Input, Output};
use locum_vrrp::{Priority, Role, Time, timers};

/// A fault put there on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    Skew,
    AnnounceEarly,
    NoHold,
}

/// What status says about one instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    pub instance: Name,
    pub role: Role,
    pub priority: Priority,
}

#[derive(Default)]
pub struct Adapter {
    engine: Engine,
    /// What the engine was last told; it never hears an earlier time.
    told: Time,
    jump: Option<Jump>,
    pub views: Vec<View>,
    pub deadline: Option<Time>,
}

/// The clock's lie at the end of a backup's wait.
#[derive(Clone, Copy, Debug)]
struct Jump {
    at: Time,
    to: Time,
}

impl Adapter {
    /// One input, full drain. `plan` is the node's, for the plant that needs to know intervals.
    pub fn handle(
        &mut self,
        now: Time,
        input: Input<'_>,
        plan: &Plan,
        plant: Option<Plant>,
    ) -> Vec<Output> {
        let jumped = self.jump.filter(|jump| now >= jump.at).map_or(now, |jump| jump.to);
        self.told = self.told.max(now).max(jumped);
        let mut outputs = Vec::new();
        self.engine.handle(self.told, input, &mut outputs);
        self.look();
        self.deadline = outputs.iter().rev().find_map(|output| match output {
            Output::Deadline(deadline) => *deadline,
            _ => None,
        });
        self.jump = None;
        if plant == Some(Plant::Skew) {
            self.plant_skew(plan);
        }
        outputs
    }

    /// When the node's timer fires, by true time.
    pub fn timer(&self) -> Option<Time> {
        self.jump.map(|jump| jump.at).or(self.deadline)
    }

    pub fn view(&self, instance: &str) -> Option<&View> {
        self.views.iter().find(|view| &*view.instance == instance)
    }

    fn look(&mut self) {
        let status = self.engine.status(self.told);
        self.views.clear();
        self.views.extend(status.instances.iter().map(|instance| View {
            instance: instance.name.clone(),
            role: instance.role,
            priority: instance.priority,
        }));
    }

    fn plant_skew(&mut self, plan: &Plan) {
        let Some(to) = self.deadline.filter(|deadline| *deadline > self.told) else { return };
        if self.views.is_empty() || self.views.iter().any(|view| view.role != Role::Backup) {
            return;
        }
        let cut_off = self.views.iter().filter_map(|view| {
            let router = &plan.instances.iter().find(|i| i.name == view.instance)?.router;
            Some(sub_centisecond(timers::skew(router.version, view.priority, router.interval)))
        });
        let at = to - cut_off.min().unwrap_or_default();
        self.jump = Some(Jump { at: at.max(self.told), to });
    }
}

/// What truncation to whole centiseconds loses.
fn sub_centisecond(skew: Duration) -> Duration {
    Duration::from_nanos(skew.as_nanos() as u64 % 10_000_000)
}
