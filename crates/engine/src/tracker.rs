//! What instances track: one list of objects, each with its state and the instances that follow it.
//!
//! A kind of object is one [`ObjectSource`]: where its state comes from, and its own weight.

use std::collections::HashMap;

use locum_plan::{
    Check, Instance, Name, Outcome, Plan, Probe, Track, Tracked, Unrunnable, Verdict, Weight,
};
use locum_vrrp::Time;

use crate::fault::{Fault, PriorityPart};
use crate::fitness::{ServedState, Spread};
use crate::ids::InstanceId;

/// Up or down, as one result after another makes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckState {
    /// `None` until the first result.
    pub up: Option<bool>,
    /// Consecutive results that contradict `up`.
    streak: u32,
    /// When `up` became what it is.
    pub since: Time,
    /// A result has come since this process began.
    pub reported: bool,
    /// What the last run said.
    pub detail: String,
    /// This node could not ask, and `detail` says why: nothing has come of the last run.
    pub is_unasked: bool,
}

/// Consecutive results that turn a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thresholds {
    pub rise: u32,
    pub fall: u32,
}

impl CheckState {
    /// `up` is `Some(false)` for a check that has to earn its first success.
    pub fn new(up: Option<bool>, now: Time) -> Self {
        let detail = String::new();
        Self { up, streak: 0, since: now, reported: false, detail, is_unasked: false }
    }

    /// One more result; `true` when `up` changed. The first result decides at once.
    pub fn record(&mut self, passed: bool, thresholds: Thresholds, now: Time) -> bool {
        self.reported = true;
        self.is_unasked = false;
        match self.up {
            Some(up) if up == passed => {
                self.streak = 0;
                false
            }
            None => {
                self.turn(passed, now);
                true
            }
            Some(_) => {
                self.streak += 1;
                let needed = if passed { thresholds.rise } else { thresholds.fall };
                if self.streak < needed {
                    return false;
                }
                self.turn(passed, now);
                true
            }
        }
    }

    /// The last result contradicts what it is.
    pub fn is_doubtful(&self) -> bool {
        self.streak > 0
    }

    fn turn(&mut self, up: bool, now: Time) {
        self.up = Some(up);
        self.streak = 0;
        self.since = now;
    }
}

/// All objects that the plan can track, and those of its instances that do.
#[derive(Debug, Default)]
pub struct Trackers {
    list: Vec<Tracker>,
    index: HashMap<Tracked, usize>,
}

/// One of them.
#[derive(Debug)]
pub struct Tracker {
    pub object: Tracked,
    source: ObjectSource,
    pub state: CheckState,
    /// It cannot be run, and is left out until it can ([`Unrunnable::LeftOut`]).
    pub ignored: bool,
    /// It has been run since this process began: that it cannot be run now is news of what it asks.
    has_run: bool,
    /// Positions of the instances that track it.
    dependents: Vec<InstanceId>,
}

/// Where the state of an object comes from.
#[derive(Clone, Debug)]
enum ObjectSource {
    /// The results of a probe.
    Check(Check),
    /// What the kernel says of a link.
    Link,
    /// What the balancer says of a service or HAProxy, and the health of its servers.
    Served(Box<ServedState>),
}

impl Trackers {
    /// The objects of a new plan. One that is the same as before keeps what is known of it; `is_up`
    /// says it of an interface.
    pub fn replace(&mut self, plan: &Plan, is_up: &dyn Fn(&Name) -> bool, now: Time) {
        let mut old = std::mem::take(&mut self.list);
        self.index.clear();
        for check in &plan.checks {
            let object = Tracked::Check(check.name.clone());
            // A check that asks the same in another rhythm is the same.
            let is_same = |tracker: &Tracker| match &tracker.source {
                ObjectSource::Check(known) => {
                    known.name == check.name && known.probe.kind == check.probe.kind
                }
                ObjectSource::Link | ObjectSource::Served(_) => false,
            };
            let source = ObjectSource::Check(check.clone());
            let tracker = match old.iter().position(is_same) {
                Some(at) => Tracker { source, dependents: Vec::new(), ..old.swap_remove(at) },
                None => Tracker::new(object, source, check.starts_failed.then_some(false), now),
            };
            self.add(tracker);
        }
        let tracks = plan.instances.iter().flat_map(|instance| &instance.track);
        for track in tracks {
            let Tracked::Interface(name) = &track.object else { continue };
            if self.index.contains_key(&track.object) {
                continue;
            }
            let mut tracker =
                Tracker::new(track.object.clone(), ObjectSource::Link, Some(is_up(name)), now);
            tracker.state.reported = true;
            self.add(tracker);
        }
        let services = plan.services.iter();
        let services = services.map(|one| (Tracked::Service(one.name.clone()), Spread::of(one)));
        let haproxy = plan.haproxy.iter();
        let haproxy = haproxy.map(|one| (Tracked::Haproxy(one.name.clone()), Spread::default()));
        for (object, spread) in services.chain(haproxy) {
            let known = old.iter().position(|tracker| tracker.object == object);
            let known = known.map(|at| old.swap_remove(at));
            let state = known.as_ref().and_then(|tracker| tracker.served().cloned());
            let state = state.map_or_else(|| ServedState::new(spread, now), |s| s.with(spread));
            let source = ObjectSource::Served(Box::new(state));
            let tracker = match known {
                Some(known) => Tracker { source, dependents: Vec::new(), ..known },
                None => Tracker::new(object, source, None, now),
            };
            self.add(tracker);
        }
    }

    fn add(&mut self, tracker: Tracker) {
        self.index.insert(tracker.object.clone(), self.list.len());
        self.list.push(tracker);
    }

    /// All instances, each with what it follows.
    pub fn follow<'a>(&mut self, instances: impl Iterator<Item = (InstanceId, &'a Instance)>) {
        for tracker in &mut self.list {
            tracker.dependents.clear();
        }
        for (id, instance) in instances {
            for object in instance.follows() {
                if let Some(tracker) = self.index.get(object) {
                    self.list[*tracker].dependents.push(id);
                }
            }
        }
    }

    /// The dependents are the instances that track an object, and the index finds each object.
    /// `Err` is what does not hold.
    pub fn check_invariants<'a>(
        &self,
        instances: impl Iterator<Item = (InstanceId, &'a Instance)>,
    ) -> Result<(), String> {
        let mut dependents: HashMap<usize, Vec<InstanceId>> = HashMap::new();
        for (id, instance) in instances {
            for at in instance.follows().filter_map(|object| self.index.get(object)) {
                dependents.entry(*at).or_default().push(id);
            }
        }
        let is_right = |(at, tracker): &(usize, &Tracker)| {
            let expected = dependents.get(at).map_or(&[][..], Vec::as_slice);
            self.index.get(&tracker.object) == Some(at) && tracker.dependents == expected
        };
        match self.list.iter().enumerate().find(|tracker| !is_right(tracker)) {
            Some((_, tracker)) => {
                Err(format!("{} has other dependents than those that track it", tracker.object))
            }
            None => Ok(()),
        }
    }

    pub fn get(&self, object: &Tracked) -> Option<&Tracker> {
        self.index.get(object).map(|at| &self.list[*at])
    }

    /// The tracker at this position, which is valid until the next plan.
    pub fn at(&self, at: usize) -> &Tracker {
        &self.list[at]
    }

    /// The checks among them, by position.
    pub fn checks(&self) -> impl Iterator<Item = (usize, &Check, &Tracker)> {
        self.list.iter().enumerate().filter_map(|(at, tracker)| match &tracker.source {
            ObjectSource::Check(check) => Some((at, check, tracker)),
            ObjectSource::Link | ObjectSource::Served(_) => None,
        })
    }

    /// What their states are asked by, by position.
    pub fn probes(&self) -> impl Iterator<Item = (usize, &Probe)> {
        self.checks().map(|(at, check, _)| (at, &check.probe))
    }

    /// One result of the check at this position.
    pub fn record(&mut self, at: usize, outcome: &Outcome, now: Time) -> TrackerChange {
        self.list[at].record(outcome, now)
    }

    /// The kernel has said something about an interface.
    pub fn set_link(&mut self, interface: &Name, is_up: bool, now: Time) {
        let Some(at) = self.index.get(&Tracked::Interface(interface.clone())) else { return };
        let state = &mut self.list[*at].state;
        if state.up != Some(is_up) {
            state.turn(is_up, now);
        }
    }

    /// What is known of a service or HAProxy changes. `None` when `change` says that it is no news,
    /// else who depends on it.
    pub fn serve(
        &mut self,
        object: &Tracked,
        now: Time,
        change: impl FnOnce(&mut ServedState) -> bool,
    ) -> Option<Vec<InstanceId>> {
        let tracker = &mut self.list[*self.index.get(object)?];
        let ObjectSource::Served(served) = &mut tracker.source else { return None };
        let is_new = change(served);
        let state = &mut tracker.state;
        served.detail().clone_into(&mut state.detail);
        state.reported |= served.serving.is_some();
        if let Some(up) = served.up().filter(|up| state.up != Some(*up)) {
            state.turn(up, now);
        }
        is_new.then(|| tracker.dependents.clone())
    }

    /// What is known of a service or HAProxy.
    pub fn served(&self, object: &Tracked) -> Option<&ServedState> {
        self.get(object)?.served()
    }

    /// What the objects of these tracks do to an instance. `presume_up`: a check that has not
    /// reported counts as up.
    pub fn judge(&self, tracks: &[Track], presume_up: bool) -> TrackerTally {
        let mut tally = TrackerTally::default();
        for track in tracks {
            let Some(tracker) = self.get(&track.object) else { continue };
            if tracker.ignored {
                continue;
            }
            let state = &tracker.state;
            let is_presumed = presume_up && !state.reported;
            let up = if is_presumed { Some(true) } else { state.up };
            match effect(track.weight.unwrap_or(tracker.weight()), up) {
                Effect::Adjust(0) => {}
                Effect::Adjust(part) => {
                    tally.parts.push(PriorityPart { object: track.object.clone(), part });
                }
                Effect::Fault => tally.faults.push(Fault::Tracked {
                    object: track.object.clone(),
                    up: up == Some(true),
                    detail: state.detail.clone(),
                }),
                Effect::Unknown => tally.is_unknown = true,
            }
        }
        tally
    }

    /// One of these objects has not reported since this process began.
    pub fn awaits(&self, tracks: &[Track]) -> bool {
        let mut known = tracks.iter().filter_map(|track| self.get(&track.object));
        known.any(|tracker| !tracker.state.reported)
    }
}

/// What all objects that an instance tracks do to it.
#[derive(Debug, Default)]
pub struct TrackerTally {
    pub faults: Vec<Fault>,
    pub parts: Vec<PriorityPart>,
    /// An object without which it may not start has not reported yet.
    pub is_unknown: bool,
}

impl Tracker {
    fn new(object: Tracked, source: ObjectSource, up: Option<bool>, now: Time) -> Self {
        let state = CheckState::new(up, now);
        Self { object, source, state, ignored: false, has_run: false, dependents: Vec::new() }
    }

    /// The instances that track it.
    pub fn dependents(&self) -> &[InstanceId] {
        &self.dependents
    }

    /// Its own weight, where the pairing has none.
    fn weight(&self) -> Weight {
        match &self.source {
            ObjectSource::Check(check) => check.weight,
            ObjectSource::Link | ObjectSource::Served(_) => Weight::default(),
        }
    }

    fn served(&self) -> Option<&ServedState> {
        match &self.source {
            ObjectSource::Served(state) => Some(state),
            ObjectSource::Check(_) | ObjectSource::Link => None,
        }
    }

    /// One result; says what changed for the instances that track it.
    fn record(&mut self, outcome: &Outcome, now: Time) -> TrackerChange {
        let ObjectSource::Check(check) = &self.source else { return TrackerChange::None };
        self.state.detail.clone_from(&outcome.detail);
        self.has_run |= outcome.verdict != Verdict::CannotRun;
        let passed = match (outcome.verdict, check.unrunnable) {
            (Verdict::CannotRun, Unrunnable::LeftOut) if !self.has_run => {
                let was_ignored = std::mem::replace(&mut self.ignored, true);
                return if was_ignored { TrackerChange::None } else { TrackerChange::Ignored };
            }
            (Verdict::Pass, _) => true,
            (Verdict::Fail | Verdict::CannotRun, _) => false,
        };
        let was_ignored = std::mem::replace(&mut self.ignored, false);
        let is_first = !self.state.reported;
        let thresholds = Thresholds { rise: check.rise, fall: check.fall };
        let turned = self.state.record(passed, thresholds, now);
        match (turned || was_ignored, is_first) {
            (true, _) => TrackerChange::Turned,
            (false, true) => TrackerChange::Reported,
            (false, false) => TrackerChange::None,
        }
    }
}

/// What a result did to a tracker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrackerChange {
    None,
    Turned,
    /// The first result since this process began: the state is as it was presumed.
    Reported,
    /// The program cannot be run, and the check is left out from now on.
    Ignored,
}

/// What one tracked object does to an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effect {
    /// Added to the base priority.
    Adjust(i32),
    /// The instance may not take part.
    Fault,
    /// Nothing is known yet, and without it the instance may not start.
    Unknown,
}

/// Weight 0 is all or nothing; a positive weight is added while up, a negative one subtracted
/// while down; `reverse` swaps up and down for weight 0 and flips the sign otherwise.
fn effect(weight: Weight, up: Option<bool>) -> Effect {
    let value = i32::from(weight.value);
    match up {
        None if value == 0 => Effect::Unknown,
        None => Effect::Adjust(0),
        Some(up) if value == 0 => {
            if up == weight.reverse {
                Effect::Fault
            } else {
                Effect::Adjust(0)
            }
        }
        Some(up) => {
            let applies = (value > 0) == up;
            let signed = if weight.reverse { -value } else { value };
            Effect::Adjust(if applies { signed } else { 0 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RISE_2_FALL_3: Thresholds = Thresholds { rise: 2, fall: 3 };

    #[test]
    fn the_first_result_decides_whatever_rise_and_fall_say() {
        let mut state = CheckState::new(None, Time::ZERO);
        assert!(state.record(false, RISE_2_FALL_3, Time::ZERO));
        assert_eq!(state.up, Some(false));
    }

    #[test]
    fn fall_counts_consecutive_failures_only() {
        let mut state = CheckState::new(Some(true), Time::ZERO);
        for passed in [false, false, true, false, false] {
            assert!(!state.record(passed, RISE_2_FALL_3, Time::ZERO));
        }
        assert!(state.record(false, RISE_2_FALL_3, Time::ZERO));
        assert_eq!(state.up, Some(false));
    }

    #[test]
    fn a_check_that_starts_failed_needs_rise_successes() {
        let mut state = CheckState::new(Some(false), Time::ZERO);
        assert!(!state.record(true, RISE_2_FALL_3, Time::ZERO));
        assert!(state.record(true, RISE_2_FALL_3, Time::ZERO));
    }

    #[test]
    fn weights_follow_keepalived() {
        let weight = |value, reverse| Weight { value, reverse };
        let cases = [
            (weight(0, false), Some(true), Effect::Adjust(0)),
            (weight(0, false), Some(false), Effect::Fault),
            (weight(0, false), None, Effect::Unknown),
            (weight(0, true), Some(true), Effect::Fault),
            (weight(0, true), Some(false), Effect::Adjust(0)),
            (weight(2, false), Some(true), Effect::Adjust(2)),
            (weight(2, false), Some(false), Effect::Adjust(0)),
            (weight(2, false), None, Effect::Adjust(0)),
            (weight(-2, false), Some(true), Effect::Adjust(0)),
            (weight(-2, false), Some(false), Effect::Adjust(-2)),
            (weight(2, true), Some(true), Effect::Adjust(-2)),
            (weight(-2, true), Some(false), Effect::Adjust(2)),
        ];
        for (weight, up, expected) in cases {
            assert_eq!(effect(weight, up), expected, "{weight:?} {up:?}");
        }
    }
}
