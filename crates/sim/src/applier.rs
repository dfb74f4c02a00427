//! One node's applier and balancer: they do what the engine asked, in order, in their own time.
//!
//! They decide nothing. They die with their process; what they did to the kernel stays.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{Announcement, Fact, InstanceId, Owner, Removal, Seq};
use locum_plan::{Activity, Name, WantedServices};

use locum_vrrp::Time;

use crate::random::Random;

/// More jobs than this per instance mean that the engine asks faster than a kernel answers.
pub const QUEUE_LIMIT: usize = 32;

#[derive(Clone, PartialEq, Debug)]
pub enum Job {
    Apply { seq: Seq, owner: Owner, hold: Arc<[Fact]>, drop: Vec<Removal> },
    Announce { instance: InstanceId, until: Time, frames: Vec<Announcement> },
}

/// How the kernel takes what it is given now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Temper {
    /// The longest one job takes.
    pub latency: Duration,
    /// Per mille of `Apply`s of which nothing is done.
    pub refusal: u32,
    /// Per mille of addresses that are refused while others are done.
    pub partial: u32,
    /// Per mille of answers to an `Apply` that nobody hears.
    pub unheard: u32,
    /// Per mille of services that the balancer cannot serve.
    pub unserved: u32,
    /// The longest a service takes from having begun until it answers or fails.
    pub warm_up: Duration,
}

impl Temper {
    /// As netlink is on an idle machine.
    pub const IDLE: Self = Self {
        latency: Duration::from_micros(300),
        refusal: 0,
        partial: 0,
        unheard: 0,
        unserved: 0,
        warm_up: Duration::ZERO,
    };
}

#[derive(Debug)]
pub struct Applier {
    /// With the time each was asked for.
    pub queue: VecDeque<(Time, Job)>,
    /// The head of the queue is being done.
    pub busy: bool,
    /// It was finished while the process was paused, and is yet to take effect.
    pub stalled: bool,
    pub temper: Temper,
}

impl Default for Applier {
    fn default() -> Self {
        Self { queue: VecDeque::new(), busy: false, stalled: false, temper: Temper::IDLE }
    }
}

impl Applier {
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.busy
    }

    /// A level replaces one of the same owner that has not begun: it says all that the other said.
    pub fn add(&mut self, now: Time, job: Job) {
        if let Job::Apply { owner, .. } = &job {
            let begun = usize::from(self.busy);
            let same = |(_, other): &(Time, Job)| matches!(other, Job::Apply { owner: of, .. } if of == owner);
            let at = self.queue.iter().skip(begun).position(same);
            at.and_then(|at| self.queue.remove(begun + at));
        }
        self.queue.push_back((now, job));
    }

    /// How long netlink, or the balancer, takes for one change now.
    pub fn latency(&self, random: &mut Random) -> Duration {
        random.span_between(self.temper.latency / 10, self.temper.latency)
    }

    /// How long the head of the queue takes: frames leave at once whatever netlink does.
    pub fn job_latency(&self, random: &mut Random) -> Duration {
        match self.queue.front() {
            Some((_, Job::Announce { .. })) => random.span(Temper::IDLE.latency),
            Some((_, Job::Apply { .. })) | None => self.latency(random),
        }
    }

    pub fn refuses(&self, random: &mut Random) -> bool {
        self.temper.refusal > 0 && random.per_mille(self.temper.refusal)
    }

    /// The answer to what was just done is lost.
    pub fn loses_answer(&self, random: &mut Random) -> bool {
        self.temper.unheard > 0 && random.per_mille(self.temper.unheard)
    }

    /// As [`Self::refuses`], for one address.
    pub fn refuses_one(&self, random: &mut Random) -> bool {
        self.temper.partial > 0 && random.per_mille(self.temper.partial)
    }

    /// The process is gone, and what it had not done with it.
    pub fn forget(&mut self) {
        self.queue.clear();
        self.busy = false;
        self.stalled = false;
    }
}

/// The service side: the newest wanted set replaces one that has not begun. What it cannot serve
/// it tells once, and goes on trying.
#[derive(Default, Debug)]
pub struct Balancer {
    /// What it serves, but for what it cannot, and for what does not answer yet.
    wanted: Option<Arc<WantedServices>>,
    unserved: Vec<Name>,
    /// What it could not serve whatever it is asked for.
    broken: BTreeSet<Name>,
    pending: Vec<Name>,
    /// Number of the level last finished.
    finished: Seq,
    begun: Option<(Seq, Arc<WantedServices>)>,
    waiting: Option<(Seq, Arc<WantedServices>)>,
}

impl Balancer {
    pub fn ask(&mut self, seq: Seq, wanted: Arc<WantedServices>) {
        self.waiting = Some((seq, wanted));
    }

    /// Begins with what waits; true when it does.
    pub fn begin(&mut self) -> bool {
        if self.begun.is_some() {
            return false;
        }
        self.begun = self.waiting.take();
        self.begun.is_some()
    }

    /// What was last asked for.
    pub fn newest(&self) -> Option<&WantedServices> {
        let asked = self.waiting.as_ref().or(self.begun.as_ref());
        asked.map(|(_, wanted)| &**wanted).or(self.wanted.as_deref())
    }

    pub fn is_idle(&self) -> bool {
        self.begun.is_none() && self.waiting.is_none()
    }

    /// Serves what it has begun with, but for what `refuses` says; returns its number. What it has
    /// not served before does not answer yet when `is_slow`.
    pub fn finish(&mut self, is_slow: bool, refuses: impl FnMut(&Name) -> bool) -> Option<Seq> {
        let (seq, wanted) = self.begun.take()?;
        let is_broken = |name: &Name| self.broken.contains(name);
        let names = active(&wanted).map(|(name, _)| name.clone());
        let names: Vec<Name> = names.filter(|name| !is_broken(name)).collect();
        let (mut unserved, served): (Vec<Name>, Vec<Name>) = names.into_iter().partition(refuses);
        let all = wanted.services.iter().map(|one| &one.service.name);
        unserved.extend(all.filter(|name| is_broken(name)).cloned());
        let pends = |name: &Name| self.pending.contains(name) || is_slow && !self.answers(name);
        self.pending = served.into_iter().filter(pends).collect();
        self.unserved = unserved;
        self.wanted = Some(wanted);
        self.finished = seq;
        Some(seq)
    }

    /// Number of the level last finished, by this process.
    pub fn finished(&self) -> Seq {
        self.finished
    }

    /// What does not answer yet does, or fails; what has failed by then recovers. True when it has
    /// to be called again.
    pub fn go_on(&mut self, fails: impl Fn(&Name) -> bool) -> bool {
        let begun = std::mem::take(&mut self.pending);
        let failed: Vec<Name> = begun.into_iter().filter(|name| fails(name)).collect();
        let has_failed = !failed.is_empty();
        self.recover();
        self.unserved.extend(failed);
        has_failed
    }

    /// From now on this service cannot be served here, or can again.
    pub fn break_service(&mut self, service: &Name, is_broken: bool) {
        self.unserved.retain(|name| name != service);
        self.pending.retain(|name| name != service);
        if !is_broken {
            self.broken.remove(service);
            return;
        }
        self.broken.insert(service.clone());
        let mut wanted = self.wanted.iter().flat_map(|wanted| &wanted.services);
        if wanted.any(|one| one.service.name == *service) {
            self.unserved.push(service.clone());
        }
    }

    /// Forgets what it has begun with, and goes on as before.
    pub fn skip(&mut self) -> Option<Seq> {
        let (seq, _) = self.begun.take()?;
        self.finished = seq;
        Some(seq)
    }

    /// What it has begun to serve and does not answer yet.
    pub fn pending(&self) -> &[Name] {
        &self.pending
    }

    /// What the last finished level could not be served of.
    pub fn unserved(&self) -> &[Name] {
        &self.unserved
    }

    /// Tries again what it could not, and can.
    pub fn recover(&mut self) {
        self.unserved.retain(|name| self.broken.contains(name));
    }

    /// Serves something that belongs to the master of this instance.
    pub fn serves(&self, instance: &Name) -> bool {
        let mut all = self.wanted.iter().flat_map(|wanted| active(wanted));
        all.any(|(name, of)| of == Some(instance) && self.answers(name))
    }

    /// Whoever connects to this service is answered.
    fn answers(&self, service: &Name) -> bool {
        let mut all = self.wanted.iter().flat_map(|wanted| active(wanted));
        all.any(|(name, _)| name == service)
            && !self.unserved.contains(service)
            && !self.pending.contains(service)
    }

    /// A service of this instance that `wanted`, or the newest level, wants to serve and that
    /// neither answers nor has failed.
    pub fn awaited(&self, wanted: Option<&WantedServices>, instance: &Name) -> Option<Name> {
        let mut all = wanted.or_else(|| self.newest()).into_iter().flat_map(active);
        // What it did before it was asked for, or does before it comes to that, says nothing of what
        // it will.
        let is_active =
            |level: &WantedServices, name: &Name| active(level).any(|(active, _)| active == name);
        let has_begun = |name: &Name| {
            let begun = self.begun.as_ref().map(|(_, level)| &**level);
            self.wanted.as_deref().is_some_and(|level| is_active(level, name))
                && begun.is_none_or(|level| is_active(level, name))
        };
        let is_awaited =
            |name: &Name| !has_begun(name) || !self.answers(name) && !self.unserved.contains(name);
        let found = all.find(|(name, of)| *of == Some(instance) && is_awaited(name));
        found.map(|(name, _)| name.clone())
    }

    pub fn forget(&mut self) {
        self.begun = None;
        self.waiting = None;
        self.pending.clear();
        self.finished = 0;
    }
}

/// Names of what a level serves, with the instance each belongs to.
fn active(wanted: &WantedServices) -> impl Iterator<Item = (&Name, Option<&Name>)> {
    let active = wanted.services.iter().filter(|one| one.activity == Activity::Active);
    active.map(|one| (&one.service.name, one.service.instance.as_ref()))
}
