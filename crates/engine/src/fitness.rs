//! What a node can serve: of each service and HAProxy whether it could be served here, or answers,
//! and whether it has servers; and what that costs an instance in the election.
//!
//! A node sees its own failures only. That a failure which all have moves no address rests on who
//! believes what, and for how long: the *incumbent*, which holds the addresses, counts a loss later
//! than a *standby* does, and a recovery sooner. When an incumbent lets go of its mastership
//! because of a failure, a standby that has it too knows by then, and lets it pass. One that is
//! still finding out lets it pass for as long as that takes, a few seconds at most.

use std::time::Duration;

use locum_plan::{FitnessPolicy, Health, Ranking, Service, Tracked};
use locum_vrrp::{Fitness, Priority, Time};

use crate::fault::PriorityPart;

/// A standby that has recovered counts for what it was after this time, and after twice as long
/// with every relapse.
const FIRST_HOLD: Duration = Duration::from_secs(2);

const LONGEST_HOLD: Duration = Duration::from_secs(5 * 60);

/// Without a relapse for so long, what was before is forgotten.
pub const FORGIVEN: Duration = Duration::from_secs(10 * 60);

/// So long at most a standby is in doubt about what is looked at anew: then what was found before
/// counts until there is a verdict.
const LONGEST_DOUBT: Duration = Duration::from_secs(5);

/// By how much the runs of a check are late at most, besides a tenth of their interval.
const LATENESS: Duration = Duration::from_millis(100);

/// What must hold of an object for its clients to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Aspect {
    /// This node could serve it: all that it needs here is in place.
    Capable,
    /// This node serves it, and clients are answered.
    Answering,
    /// Enough of its servers are up as seen from here.
    Populated,
}

impl Aspect {
    pub fn word(self) -> &'static str {
        match self {
            Self::Capable => "capable",
            Self::Answering => "answering",
            Self::Populated => "populated",
        }
    }
}

/// Who asks: one that holds the addresses believes a loss later, and a recovery sooner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Incumbency {
    Incumbent,
    Standby,
}

/// The servers of a service, taken together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Population {
    /// At least as many as its quorum take connections; `None` while those that have not been heard
    /// of decide.
    pub is_enough: Option<bool>,
    /// It is, and would not be without those whose last check failed.
    pub is_doubtful: bool,
    /// How many there are, for a person; empty while there are enough.
    pub detail: String,
}

/// How far apart two nodes that ask the same may learn the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spread {
    /// From the first failed result on one node to the turn on the other, when both ask in the same
    /// rhythm, whoever began: nothing but lateness with a fall of 2 or more.
    grace: Duration,
    /// From the turn on one node to the turn on the other.
    turn: Duration,
}

impl Spread {
    pub fn of(service: &Service) -> Self {
        let checks = service.servers.iter().flat_map(|server| &server.health);
        let spreads = checks.map(|Health { probe, fall, .. }| {
            let lateness = probe.interval / 10 + LATENESS;
            let turn = probe.interval + lateness;
            Self { grace: if *fall > 1 { lateness } else { turn }, turn }
        });
        spreads.fold(Self::default(), |all, one| Self {
            grace: all.grace.max(one.grace),
            turn: all.turn.max(one.turn),
        })
    }
}

/// What is known of one object.
#[derive(Clone, Debug)]
pub struct ServedState {
    spread: Spread,
    /// Whether this node serves it: `serving` says then whether it answers, else whether it could
    /// be served.
    pub is_active: bool,
    /// `None` until somebody has looked.
    pub serving: Option<bool>,
    /// What `is_active` was when that was found.
    found_active: bool,
    /// Since when it is looked at anew, of what was found to be well: that may hold no more.
    doubted: Option<Time>,
    /// Why not.
    pub serving_detail: String,
    /// `None` for what has no servers of its own.
    pub population: Option<Population>,
    /// When `population` came to what it says.
    populated_since: Time,
    /// Since when clients would be answered, or not, with what is known: both aspects.
    pub since: Time,
    /// Losses of late.
    pub losses: u32,
}

impl ServedState {
    pub fn new(spread: Spread, now: Time) -> Self {
        Self {
            spread,
            is_active: false,
            serving: None,
            found_active: false,
            doubted: None,
            serving_detail: String::new(),
            population: None,
            populated_since: now,
            since: now,
            losses: 0,
        }
    }

    /// As another plan has the object.
    pub fn with(self, spread: Spread) -> Self {
        Self { spread, ..self }
    }

    /// Clients would be answered; `None` while nobody knows.
    pub fn up(&self) -> Option<bool> {
        let populated = self.population.as_ref().map_or(Some(true), |all| all.is_enough);
        match (self.serving, populated) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            (None | Some(true), None) | (None, Some(true)) => None,
        }
    }

    /// What is known of it as it is served now: that it could be served is no answer yet, and that it
    /// answered says not that it could be started again.
    pub fn known(&self, is_active: bool) -> Option<bool> {
        self.serving.filter(|holds| !holds || self.found_active == is_active)
    }

    /// What is missing, for a person; empty while nothing is.
    pub fn detail(&self) -> &str {
        match (self.serving, &self.population) {
            (Some(false), _) => &self.serving_detail,
            (None | Some(true), Some(all)) => &all.detail,
            (None | Some(true), None) => "",
        }
    }

    /// Whether it is served, or could be; `None` while that is being found out. `true` when that is
    /// news, or in doubt, or no longer.
    pub fn set_serving(
        &mut self,
        is_active: bool,
        holds: Option<bool>,
        detail: &str,
        now: Time,
    ) -> bool {
        let before = self.up();
        let is_new = holds.is_some() && (self.serving != holds || self.serving_detail != detail);
        self.is_active = is_active;
        if holds.is_some() {
            self.serving = holds;
            self.found_active = is_active;
            detail.clone_into(&mut self.serving_detail);
        }
        let was_doubted = self.doubted.is_some();
        self.doubted = match (holds, self.serving) {
            (None, Some(true)) => self.doubted.or(Some(now)),
            (None, None | Some(false)) | (Some(_), _) => None,
        };
        self.note(before, now);
        is_new || self.doubted.is_some() != was_doubted
    }

    /// Its servers are these now. `true` when they were others.
    pub fn set_population(&mut self, population: Population, now: Time) -> bool {
        let before = self.up();
        let known = self.population.as_ref();
        if known.map(|all| all.is_enough) != Some(population.is_enough) {
            self.populated_since = now;
        }
        let is_new = known != Some(&population);
        self.population = Some(population);
        self.note(before, now);
        is_new
    }

    fn note(&mut self, before: Option<bool>, now: Time) {
        let after = self.up();
        if before == after {
            return;
        }
        if after == Some(false) {
            let is_forgiven = now.since(self.since) >= FORGIVEN;
            self.losses = if is_forgiven { 1 } else { self.losses + 1 };
        }
        self.since = now;
    }

    /// How long a standby that has recovered does not count for what it was.
    pub fn hold(&self) -> Duration {
        let relapses = self.losses.saturating_sub(1).min(16);
        let damped =
            if self.losses == 0 { Duration::ZERO } else { FIRST_HOLD * 2_u32.pow(relapses) };
        damped.min(LONGEST_HOLD).max(self.spread.turn)
    }

    /// Until when a standby is in doubt about it. An incumbent will see whether it answers.
    fn doubt(&self, incumbency: Incumbency, now: Time) -> Option<Time> {
        match incumbency {
            Incumbency::Incumbent => None,
            Incumbency::Standby => {
                self.doubted.map(|since| since + LONGEST_DOUBT).filter(|until| now < *until)
            }
        }
    }

    /// Whether it counts as lost, and when that may change by itself.
    fn counts(&self, incumbency: Incumbency, now: Time) -> (bool, Option<Time>) {
        let is_enough = self.population.as_ref().map_or(Some(true), |all| all.is_enough);
        match incumbency {
            Incumbency::Incumbent if self.serving == Some(false) => (true, None),
            Incumbency::Incumbent if is_enough == Some(false) => {
                let due = self.populated_since + self.spread.grace;
                (now >= due, Some(due).filter(|due| now < *due))
            }
            Incumbency::Incumbent => (false, None),
            Incumbency::Standby if self.up() != Some(true) => (true, None),
            Incumbency::Standby if self.population.as_ref().is_some_and(|all| all.is_doubtful) => {
                (true, None)
            }
            Incumbency::Standby if self.losses > 0 => {
                let due = self.since + self.hold();
                (now < due, Some(due).filter(|due| now < *due))
            }
            Incumbency::Standby => (false, None),
        }
    }
}

/// What an instance cannot serve.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Loss {
    /// Weight of it all.
    pub lost: u16,
    /// Weight of what is not lost, and may turn out to be: the router is unfit because of it, so that
    /// an offer passes, and the priority is what it was.
    pub doubted: u16,
    /// The heaviest first, each with what is missing.
    pub objects: Vec<(Tracked, String)>,
    /// When it may be another without any news.
    pub again: Option<Time>,
}

impl Loss {
    /// `state` knows the objects.
    pub fn of<'a>(
        policy: &FitnessPolicy,
        state: impl Fn(&Tracked) -> Option<&'a ServedState>,
        incumbency: Incumbency,
        now: Time,
    ) -> Self {
        let mut loss = Self::default();
        let mut weights = Vec::new();
        for served in &policy.served {
            let Some(state) = state(&served.object) else { continue };
            let (is_lost, again) = state.counts(incumbency, now);
            loss.again = [loss.again, again].into_iter().flatten().min();
            let doubt = state.doubt(incumbency, now).filter(|_| !is_lost);
            if doubt.is_some() {
                loss.again = [loss.again, doubt].into_iter().flatten().min();
                loss.doubted = loss.doubted.saturating_add(u16::from(served.weight));
            }
            if is_lost {
                loss.lost = loss.lost.saturating_add(u16::from(served.weight));
                weights.push((served.weight, served.object.clone(), state.detail().to_owned()));
            }
        }
        weights.sort_by_key(|(weight, ..)| std::cmp::Reverse(*weight));
        loss.objects = weights.into_iter().map(|(_, object, detail)| (object, detail)).collect();
        loss
    }

    /// What the router is to know of it.
    pub fn fitness(&self, ranking: &Ranking) -> Fitness {
        match self.lost.saturating_add(self.doubted) {
            0 => Fitness::Fit,
            lost => Fitness::Unfit { outranks: ranking.unfit(lost).1, offers: ranking.offer() },
        }
    }

    /// What it takes from the priority `base` that checks have adjusted by `checks`.
    pub fn part(&self, ranking: &Ranking, base: Priority, checks: i32) -> Option<PriorityPart> {
        let (object, _) = self.objects.first()?;
        let (own, _) = ranking.unfit(self.lost);
        let part = i32::from(own.0) - (i32::from(base.0) + checks);
        (part != 0).then(|| PriorityPart { object: object.clone(), part })
    }

    /// All that this node cannot serve, in one line: `service www: port 80 is taken; haproxy edge`.
    pub fn sentence(&self) -> String {
        let sentences = self.objects.iter().map(|(object, detail)| {
            if detail.is_empty() { object.to_string() } else { format!("{object}: {detail}") }
        });
        sentences.collect::<Vec<_>>().join("; ")
    }
}
