//! Real HAProxies, each from a file of the user's own that we never write.

mod check;
mod listening;
mod message;
mod survivors;
mod unit;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use locum_plan::{Name, WantedServices};

use crate::backend::{Backend, Event, changes};
use crate::balancer::{BalancerSettings, ServeError};
use crate::haproxy::survivors::{Inheritance, Mark, Survivor};
use crate::haproxy::unit::{Remembered, Unit};
use crate::remembered::StateFile;
use crate::status::BalancerStatus;

pub use check::{HaproxyRefusal, haproxy_refuses};

/// How long a level waits for HAProxies to be checked and started, so that its answer can say what
/// was refused. They usually take a tenth of this; what takes longer goes on by itself.
const APPLY_LIMIT: Duration = Duration::from_secs(2);
const APPLY_POLL: Duration = Duration::from_millis(5);

/// How often processes are looked after.
const TICK: Duration = Duration::from_millis(200);

/// While one is being checked or started.
const BUSY_TICK: Duration = Duration::from_millis(20);

pub(crate) struct HaproxyBackend {
    units: BTreeMap<Name, Unit>,
    mark: Mark,
    state: StateFile,
    /// As in the state file; `None` until it was read.
    saved: Option<BTreeMap<String, Remembered>>,
    /// Failures that were reported.
    reported: BTreeMap<Name, String>,
    ticked_at: Option<Instant>,
    is_settled: bool,
}

impl HaproxyBackend {
    pub(crate) fn new(settings: &BalancerSettings) -> Self {
        Self {
            units: BTreeMap::new(),
            mark: Mark::new(&settings.run_dir),
            state: StateFile::new(settings.run_dir.join("balancer-haproxy.json")),
            saved: None,
            reported: BTreeMap::new(),
            ticked_at: None,
            is_settled: true,
        }
    }

    /// Once: makes units of what an earlier daemon left running, whether or not it could write it
    /// down.
    fn adopt(&mut self) {
        if self.saved.is_some() {
            return;
        }
        let saved: BTreeMap<String, Remembered> = self.state.load();
        let mut found: BTreeMap<String, Vec<Survivor>> =
            saved.keys().map(|name| (name.clone(), Vec::new())).collect();
        for survivor in self.mark.survivors() {
            found.entry(survivor.unit.clone()).or_default().push(survivor);
        }
        for (name, survivors) in found {
            let remembered = saved.get(&name).cloned().unwrap_or_default();
            let inheritance = survivors::choose(remembered, survivors);
            let name = Name::from(name);
            let file = unit::unknown_file(name.clone());
            self.units.insert(name, Unit::new(file, self.mark.clone(), inheritance));
        }
        self.saved = Some(saved);
    }

    /// True when no unit is being checked or started.
    fn step(&mut self, now: Instant) -> bool {
        self.is_settled = true;
        let names: Vec<Name> = self.units.keys().cloned().collect();
        for name in names {
            let Some(unit) = self.units.get_mut(&name) else { continue };
            self.is_settled &= unit.step(now);
            // At once: a crash must find on file what this unit has just started.
            self.remember();
        }
        self.units.retain(|_, unit| !unit.is_over());
        self.remember();
        self.is_settled
    }

    fn remember(&mut self) {
        let now: BTreeMap<_, _> =
            self.units.iter().map(|(name, unit)| (name.to_string(), unit.remembered())).collect();
        if self.saved.as_ref() != Some(&now) {
            self.state.save(&now);
            self.saved = Some(now);
        }
    }

    fn failures(&self) -> BTreeMap<Name, String> {
        let failed = |(name, unit): (&Name, &Unit)| Some((name.clone(), unit.error.clone()?));
        self.units.iter().filter_map(failed).collect()
    }
}

impl Backend for HaproxyBackend {
    fn apply(&mut self, share: &WantedServices, now: Instant) -> Vec<ServeError> {
        self.adopt();
        let file_of = |name: &Name| {
            share.haproxy.iter().map(|wanted| &wanted.file).find(|file| file.name == *name)
        };
        for wanted in &share.haproxy {
            let name = &wanted.file.name;
            if !self.units.contains_key(name) {
                let unit =
                    Unit::new(wanted.file.clone(), self.mark.clone(), Inheritance::default());
                self.units.insert(name.clone(), unit);
            }
        }
        for (name, unit) in &mut self.units {
            unit.want(file_of(name), now);
        }
        while !self.step(Instant::now()) && now.elapsed() < APPLY_LIMIT {
            thread::sleep(APPLY_POLL);
        }
        self.reported = self.failures();
        self.reported.clone().into_iter().collect()
    }

    fn tick(&mut self, now: Instant) -> Vec<Event> {
        self.ticked_at = Some(now);
        self.step(now);
        let mut events = Vec::new();
        for (name, unit) in &mut self.units {
            let notes = unit.notes.drain(..);
            events.extend(notes.map(|text| Event::Note { name: name.clone(), text }));
        }
        let failures = self.failures();
        events.extend(changes(&self.reported, &failures));
        self.reported = failures;
        events
    }

    fn next_tick(&self, now: Instant) -> Option<Duration> {
        let pace = if self.is_settled { TICK } else { BUSY_TICK };
        let passed = self.ticked_at.map_or(pace, |at| now.saturating_duration_since(at));
        (!self.units.is_empty()).then(|| pace.saturating_sub(passed))
    }

    fn status(&mut self, status: &mut BalancerStatus) {
        let now = Instant::now();
        status.processes.extend(self.units.values().map(|unit| unit.status(now)));
    }
}
