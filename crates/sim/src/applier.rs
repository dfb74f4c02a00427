//! One node's applier and balancer: they do what the engine asked, in order, in their own time.
//!
//! They decide nothing. They die with their process; what they did to the kernel stays.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use locum_config::plan::{Name, WantedServices};
use locum_engine::{Announcement, HeldAddress, Seq};

use locum_vrrp::Time;

use crate::random::Random;

/// More jobs than this per instance mean that the engine asks faster than a kernel answers.
pub const QUEUE_LIMIT: usize = 32;

#[derive(Clone, PartialEq, Debug)]
pub enum Job {
    Apply { seq: Seq, instance: Name, hold: Vec<HeldAddress>, drop: Vec<HeldAddress> },
    Announce { after: Seq, until: Time, frames: Vec<Announcement> },
}

/// How the kernel takes what it is given now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Temper {
    /// The longest one job takes.
    pub latency: Duration,
    /// Per mille of `Apply`s that are refused.
    pub refusal: u32,
}

impl Temper {
    /// As netlink is on an idle machine.
    pub const CALM: Self = Self { latency: Duration::from_micros(300), refusal: 0 };
}

#[derive(Debug)]
pub struct Applier {
    pub queue: VecDeque<Job>,
    /// The head of the queue is being done.
    pub busy: bool,
    /// It was finished while the process was paused, and is yet to take effect.
    pub stalled: bool,
    pub temper: Temper,
    /// How each `Apply` that may still be referred to went, by its number.
    went_well: BTreeMap<Seq, bool>,
}

impl Default for Applier {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            busy: false,
            stalled: false,
            temper: Temper::CALM,
            went_well: BTreeMap::new(),
        }
    }
}

impl Applier {
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.busy
    }

    /// How long netlink, or the balancer, takes for one change now.
    pub fn latency(&self, random: &mut Random) -> Duration {
        random.span_between(self.temper.latency / 10, self.temper.latency)
    }

    /// How long the head of the queue takes: frames leave at once whatever netlink does.
    pub fn job_latency(&self, random: &mut Random) -> Duration {
        match self.queue.front() {
            Some(Job::Announce { .. }) => random.span(Temper::CALM.latency),
            Some(Job::Apply { .. }) | None => self.latency(random),
        }
    }

    pub fn refuses(&self, random: &mut Random) -> bool {
        self.temper.refusal > 0 && random.per_mille(self.temper.refusal)
    }

    pub fn record(&mut self, seq: Seq, well: bool) {
        self.went_well.insert(seq, well);
    }

    /// `Announce` is sent only after an `Apply` that was done.
    pub fn went_well(&self, seq: Seq) -> bool {
        self.went_well.get(&seq).copied().unwrap_or(false)
    }

    /// The process is gone, and what it had not done with it.
    pub fn forget(&mut self) {
        self.queue.clear();
        self.busy = false;
        self.stalled = false;
        self.went_well.clear();
    }
}

/// The service side: the newest wanted set replaces one that has not begun.
#[derive(Default, Debug)]
pub struct Balancer {
    pub serving: Option<Arc<WantedServices>>,
    pub begun: Option<(Seq, Arc<WantedServices>)>,
    pub waiting: Option<(Seq, Arc<WantedServices>)>,
}

impl Balancer {
    /// What was last asked for.
    pub fn newest(&self) -> Option<&WantedServices> {
        let asked = self.waiting.as_ref().or(self.begun.as_ref());
        asked.map(|(_, wanted)| &**wanted).or(self.serving.as_deref())
    }

    pub fn is_idle(&self) -> bool {
        self.begun.is_none() && self.waiting.is_none()
    }

    /// Serves what it has begun with; returns its number.
    pub fn finish(&mut self) -> Option<Seq> {
        let (seq, wanted) = self.begun.take()?;
        self.serving = Some(wanted);
        Some(seq)
    }

    pub fn forget(&mut self) {
        *self = Self { serving: self.serving.take(), ..Self::default() };
    }
}
