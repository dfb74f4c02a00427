//! Real HAProxies, each from a file of its own: the user's, which we never write, or one that was made
//! from services (see [`crate::generated`]).

mod adopt;
mod check;
mod inquiry;
mod judgement;
mod leaving;
mod listening;
mod liveness;
mod message;
mod named_files;
mod own_host;
mod record;
mod standing;
mod supervisor;
pub(crate) mod text;
mod vitals;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use locum_plan::{BackendKind, HaproxyFile, Name, WantedServices};

use crate::backend::{Backend, BalancerSettings, Note, Progress};
use crate::haproxy::adopt::{Found, Inheritance, Mark};
use crate::haproxy::record::ProcessRecord;
use crate::haproxy::standing::Standing;
use crate::haproxy::supervisor::{Supervisor, unknown_file};
use crate::state_file::StateFile;
use crate::status::BalancerStatus;

pub(crate) use adopt::is_our_haproxy;
pub(crate) use check::{CHECK_LIMIT, Certainty, FileCheck, HaproxyRefusal, is_shortage};
pub(crate) use named_files::{paths_named, read_text};
pub(crate) use own_host::OwnHost;
pub(crate) use supervisor::SOCKET;

pub(crate) struct HaproxyBackend {
    supervisors: BTreeMap<Name, Supervisor>,
    mark: Mark,
    /// Their files are ours: each has its socket beside it, by which its listeners are handed over.
    has_sockets: bool,
    state: StateFile,
    /// As in the state file; `None` until it was read.
    saved: Option<BTreeMap<String, ProcessRecord>>,
    ticked_at: Option<Instant>,
    host: OwnHost,
    /// For the log, from supervisors that are no more.
    notes: Vec<Note>,
}

impl HaproxyBackend {
    pub(crate) fn new(settings: &BalancerSettings) -> Self {
        Self {
            supervisors: BTreeMap::new(),
            mark: Mark::new(&settings.run_dir),
            has_sockets: false,
            state: StateFile::new(settings.run_dir.join("balancer-haproxy.json")),
            saved: None,
            ticked_at: None,
            host: OwnHost::default(),
            notes: Vec::new(),
        }
    }

    /// Of those whose files are made, which are in `directory` as all that is known of them: no process
    /// of one kind is taken for one of the other.
    pub(crate) fn generated(directory: &Path) -> Self {
        Self {
            supervisors: BTreeMap::new(),
            mark: Mark::new(directory),
            has_sockets: true,
            state: StateFile::new(directory.join("processes.json")),
            saved: None,
            ticked_at: None,
            host: OwnHost::default(),
            notes: Vec::new(),
        }
    }

    /// The process that has the sockets of this one; `None` while there is none, or another one is
    /// taking over.
    pub(crate) fn pid(&self, name: &Name) -> Option<u32> {
        self.supervisors.get(name)?.pid()
    }

    /// Once: supervises what an earlier daemon left running, whether or not it could write it down.
    fn adopt(&mut self) {
        if self.saved.is_some() {
            return;
        }
        let loaded: Option<BTreeMap<String, ProcessRecord>> = self.state.load();
        let keys = loaded.as_ref().map(|saved| {
            saved.values().filter_map(|record| record.key.as_deref()).collect::<BTreeSet<_>>()
        });
        let processes = self.mark.find(keys.as_ref());
        let saved = loaded.unwrap_or_default();
        let mut found: BTreeMap<String, Vec<Found>> =
            saved.keys().map(|name| (name.clone(), Vec::new())).collect();
        for process in processes {
            found.entry(process.name.clone()).or_default().push(process);
        }
        for (name, processes) in found {
            let record = saved.get(&name).cloned().unwrap_or_default();
            let inheritance = adopt::choose(record, processes);
            let name = Name::from(name);
            let file = unknown_file(name.clone());
            let supervisor = self.supervisor(file, inheritance);
            self.supervisors.insert(name, supervisor);
        }
        self.saved = Some(saved);
    }

    fn supervisor(&self, file: Arc<HaproxyFile>, inheritance: Inheritance) -> Supervisor {
        Supervisor::new(file, self.mark.clone(), inheritance, self.has_sockets)
    }

    fn step(&mut self, now: Instant) {
        let names: Vec<Name> = self.supervisors.keys().cloned().collect();
        for name in names {
            let Some(supervisor) = self.supervisors.get_mut(&name) else { continue };
            supervisor.step(&mut self.host, now);
            self.save();
            let Some(supervisor) = self.supervisors.get_mut(&name) else { continue };
            if supervisor.launch(now) {
                // At once: a crash must find on file what has just been started.
                self.save();
            }
        }
        self.collect_notes();
        self.supervisors.retain(|_, supervisor| !supervisor.is_over());
        self.save();
    }

    fn save(&mut self) {
        let supervisors = self.supervisors.iter();
        let now: BTreeMap<_, _> =
            supervisors.map(|(name, one)| (name.to_string(), one.record())).collect();
        if self.saved.as_ref() != Some(&now) {
            self.state.save(&now);
            self.saved = Some(now);
        }
    }

    fn collect_notes(&mut self) {
        for (name, supervisor) in &mut self.supervisors {
            let notes = supervisor.notes.drain(..);
            self.notes.extend(notes.map(|text| Note { name: name.clone(), text }));
        }
    }
}

impl Backend for HaproxyBackend {
    fn kind(&self) -> Option<BackendKind> {
        None
    }

    fn apply(&mut self, share: WantedServices, now: Instant) {
        self.adopt();
        let wanted = |name: &Name| share.haproxy.iter().find(|wanted| wanted.file.name == *name);
        for wanted in &share.haproxy {
            let name = &wanted.file.name;
            if !self.supervisors.contains_key(name) {
                let supervisor = self.supervisor(wanted.file.clone(), Inheritance::default());
                self.supervisors.insert(name.clone(), supervisor);
            }
        }
        for (name, supervisor) in &mut self.supervisors {
            supervisor.want(wanted(name), now);
        }
        self.step(now);
        self.ticked_at = Some(now);
    }

    fn tick(&mut self, now: Instant) {
        self.ticked_at = Some(now);
        self.step(now);
    }

    fn next_tick(&self, now: Instant) -> Option<Duration> {
        let pace = self.supervisors.values().map(Supervisor::pace).min()?;
        let passed = self.ticked_at.map_or(pace, |at| now.saturating_duration_since(at));
        Some(pace.saturating_sub(passed))
    }

    fn progress(&self, progress: &mut Progress) {
        let now = Instant::now();
        for (name, supervisor) in &self.supervisors {
            match supervisor.standing(now) {
                Standing::Pending => progress.pending.push(name.clone()),
                Standing::Failed(error) => progress.failed.push((name.clone(), error)),
                Standing::Strained(error) => progress.strained.push((name.clone(), error)),
                Standing::Answers => {}
            }
        }
    }

    fn take_notes(&mut self) -> Vec<Note> {
        self.collect_notes();
        std::mem::take(&mut self.notes)
    }

    fn status(&mut self, status: &mut BalancerStatus) {
        let now = Instant::now();
        status.processes.extend(self.supervisors.values().map(|one| one.status(now)));
    }
}
