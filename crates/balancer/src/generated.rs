//! Services served by a HAProxy that is made for them: one process for those of an instance, from a
//! file that is made of them.
//!
//! ```text
//!   services ──► groups ─┬─► text   ──► PROCESS.cfg    a change of it is a reload
//!                        ├─► state  ──► PROCESS.state  read at a start: servers and weights of now
//!                        └─► control ─► PROCESS.sock   what changes while it runs
//! ```
//!
//! The process is run as every HAProxy is (see [`crate::haproxy`]). A service that HAProxy refuses is
//! left out of the file, so that the others are served.

mod control;
mod exchange;
mod group;
mod http;
mod lines;
mod stats;
mod text;
mod usage;
mod word;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use locum_plan::{
    Activity, BackendKind, Name, Plan, Service, WantedHaproxy, WantedService, WantedServices,
};

use crate::backend::{Backend, BalancerSettings, Note, Progress};
use crate::generated::control::ServerControl;
use crate::generated::stats::SeenServers;
use crate::generated::text::{Surroundings, state};
use crate::haproxy::{HaproxyBackend, SOCKET};
use crate::state_file::replace_private;
use crate::status::{
    BalancedServer, BalancedService, BalancedState, BalancerStatus, CarriedOctets,
};
use crate::user;

pub(crate) use group::{ServiceGroup, groups};
pub(crate) use text::HaproxyConfig;

/// A service that HAProxy refused is tried again after this long: what it names may be there by then.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// And a file that could not be written.
const UNWRITTEN_PAUSE: Duration = Duration::from_secs(1);

/// Of the run directory.
pub(crate) const DIRECTORY: &str = "haproxy";

pub(crate) struct GeneratedBackend {
    directory: PathBuf,
    processes: HaproxyBackend,
    served: BTreeMap<Name, ServedGroup>,
}

/// The services of one process, and how far they are.
#[derive(Debug)]
struct ServedGroup {
    group: ServiceGroup,
    configuration: HaproxyConfig,
    /// As they were last written.
    written: [Option<String>; 2],
    /// Left out of the file.
    refused: BTreeMap<Name, RefusedService>,
    /// Why the file is not what it shall be, and when that was found.
    fault: Option<(String, Instant)>,
    control: ServerControl,
    /// Since when it serves nobody and once did.
    idle_since: Option<Instant>,
}

#[derive(Debug)]
struct RefusedService {
    service: Arc<Service>,
    why: String,
    at: Instant,
}

/// The configuration of a group as it is run from `directory`.
pub(crate) fn configuration(group: &ServiceGroup, directory: &Path) -> HaproxyConfig {
    configuration_without(group, &BTreeMap::new(), directory)
}

fn configuration_without(
    group: &ServiceGroup,
    refused: &BTreeMap<Name, RefusedService>,
    directory: &Path,
) -> HaproxyConfig {
    let around = Surroundings {
        socket: group.path(directory, SOCKET),
        state: group.path(directory, "state"),
        user: user::of_haproxy(),
    };
    HaproxyConfig::of(&accepted(group, refused), &around)
}

fn accepted(
    group: &ServiceGroup,
    refused: &BTreeMap<Name, RefusedService>,
) -> Vec<Arc<WantedService>> {
    let is_accepted = |wanted: &&Arc<WantedService>| !refused.contains_key(&wanted.service.name);
    group.services.iter().filter(is_accepted).cloned().collect()
}

/// What HAProxy would run from for this service and those beside it, where a daemon with this run
/// directory serves the plan, without the hashes of passwords; `None` when the service is not served by
/// HAProxy.
pub fn haproxy_text(plan: &Plan, service: &str, run_dir: &Path) -> Option<String> {
    let by_haproxy = |service: &&Service| {
        service.backend.candidates(service).first() == Some(&BackendKind::Haproxy)
    };
    let wanted = plan.services.iter().filter(by_haproxy).map(|service| {
        let servers = service.servers.iter().map(|server| server.wanted()).collect();
        let (service, activity) = (Arc::new(service.clone()), Activity::Active);
        Arc::new(WantedService { service, activity, servers, lease: None })
    });
    let wanted: Vec<Arc<WantedService>> = wanted.collect();
    let is_named =
        |group: &ServiceGroup| group.services.iter().any(|one| *one.service.name == *service);
    let group = groups(wanted.iter()).into_values().find(is_named)?;
    Some(configuration(&group, &run_dir.join(DIRECTORY)).shown())
}

/// The directory of the files, for nobody else: they may hold passwords.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// What is said of this one.
fn words(all: &[(Name, String)], name: &Name) -> Option<String> {
    all.iter().find(|(of, _)| of == name).map(|(_, words)| words.clone())
}

impl ServedGroup {
    fn new(group: ServiceGroup, directory: &Path) -> Self {
        let control = ServerControl::new(group.path(directory, SOCKET));
        Self {
            group,
            configuration: HaproxyConfig::default(),
            written: [None, None],
            refused: BTreeMap::new(),
            fault: None,
            control,
            idle_since: None,
        }
    }

    fn want(&mut self, group: ServiceGroup, now: Instant) {
        match (self.group.activity(), group.activity()) {
            (_, Activity::Active) => self.idle_since = None,
            (Activity::Active, Activity::Ready | Activity::Idle) => self.idle_since = Some(now),
            (Activity::Ready | Activity::Idle, Activity::Ready | Activity::Idle) => {}
        }
        let services = &group.services;
        self.refused.retain(|name, refusal| {
            let same = services.iter().find(|wanted| wanted.service.name == *name);
            same.is_some_and(|wanted| wanted.service == refusal.service)
        });
        self.group = group;
        self.control.retry();
    }

    /// Writes what has changed: first what a start reads beside the configuration.
    fn write(&mut self, directory: &Path, now: Instant) {
        self.configuration = configuration_without(&self.group, &self.refused, directory);
        let state = state(&accepted(&self.group, &self.refused));
        let files = [("state", &state), ("cfg", &self.configuration.text)];
        self.fault = None;
        for (written, (extension, text)) in self.written.iter_mut().zip(files) {
            if written.as_ref() == Some(text) {
                continue;
            }
            let path = self.group.path(directory, extension);
            let outcome =
                make_directory(directory).and_then(|()| replace_private(&path, text.as_bytes()));
            match outcome {
                Ok(()) => *written = Some(text.clone()),
                Err(error) => {
                    let why = format!("cannot write {}: {error}", path.display());
                    self.fault = Some((why, now));
                    return;
                }
            }
        }
    }

    fn wanted(&self, directory: &Path) -> WantedHaproxy {
        let file = Arc::new(self.group.file(self.group.path(directory, "cfg")));
        WantedHaproxy { file, activity: self.group.activity() }
    }

    /// Leaves out what HAProxy refuses, as long as something is left; true when that is a change.
    fn leave_out(&mut self, words: &str, directory: &Path, now: Instant) -> bool {
        let path = self.group.path(directory, "cfg");
        let blamed = self.configuration.blamed(words, &path);
        let is_all = blamed.len() == accepted(&self.group, &self.refused).len();
        if blamed.is_empty() || is_all {
            return false;
        }
        let why = format!("{words}{}", self.configuration.quoted(words, &path));
        for wanted in &self.group.services {
            let name = &wanted.service.name;
            if blamed.contains(name) {
                let service = Arc::clone(&wanted.service);
                self.refused
                    .insert(name.clone(), RefusedService { service, why: why.clone(), at: now });
            }
        }
        true
    }

    /// When what failed is tried again.
    fn retry_at(&self) -> Option<Instant> {
        let refused = self.refused.values().map(|refusal| refusal.at + REFUSED_PAUSE);
        let unwritten = self.fault.iter().map(|(_, at)| *at + UNWRITTEN_PAUSE);
        refused.chain(unwritten).min()
    }

    fn step(&mut self, pid: Option<u32>, now: Instant) {
        let (services, idle_since) = (&self.group.services, self.idle_since);
        let commands = |seen: &SeenServers| -> Vec<String> {
            let of_service = |wanted: &Arc<WantedService>| {
                let is_over = idle_since.is_some_and(|at| now >= at + wanted.service.drain);
                usage::commands(wanted, &|section, server| seen.server(section, server), is_over)
            };
            services.iter().flat_map(of_service).collect()
        };
        self.control.step(pid, &commands, now);
    }

    /// What became of the process is that of its services.
    fn progress(&self, of_process: &Progress, directory: &Path, progress: &mut Progress) {
        let name = &self.group.name;
        let is_pending = of_process.pending.contains(name);
        let failed = words(&of_process.failed, name);
        let strained = words(&of_process.strained, name).or_else(|| self.control.fault.clone());
        for wanted in &self.group.services {
            let name = &wanted.service.name;
            let path = self.group.path(directory, "cfg");
            // With the line that it is about, which nobody but us has seen.
            let explained =
                |words: &String| format!("{words}{}", self.configuration.quoted(words, &path));
            if let Some(refusal) = self.refused.get(name) {
                progress.failed.push((name.clone(), refusal.why.clone()));
            } else if let Some(words) = &failed {
                progress.failed.push((name.clone(), explained(words)));
            } else if let Some((fault, _)) = &self.fault {
                progress.failed.push((name.clone(), fault.clone()));
            } else if is_pending {
                progress.pending.push(name.clone());
            } else if let Some(words) = &strained {
                progress.strained.push((name.clone(), explained(words)));
            }
        }
    }

    fn status(&self, progress: &Progress, status: &mut BalancerStatus) {
        for wanted in &self.group.services {
            let name = &wanted.service.name;
            let section = word::section(name);
            let error = words(&progress.failed, name);
            let state = BalancedState::of(wanted.activity, error.as_ref());
            let seen = self.control.seen();
            // Where only routes lead there is no frontend.
            let clients = |seen: &SeenServers| seen.frontend(&section).or(seen.backend(&section));
            let clients = seen.and_then(clients).unwrap_or_default();
            let server = |server: &locum_plan::WantedServer| {
                let name = word::server(server.address);
                let seen = seen.and_then(|seen| seen.server(&section, &name)).unwrap_or_default();
                BalancedServer {
                    address: server.address,
                    weight: server.weight,
                    active: seen.active,
                    failures: seen.failures,
                    inactive: None,
                    connection_rate: Some(seen.rate),
                    octets: Some(carried(seen.octets)),
                }
            };
            status.services.push(BalancedService {
                name: name.clone(),
                backend: BackendKind::Haproxy,
                state,
                error,
                strained: words(&progress.strained, name),
                active: clients.active,
                accepted: clients.accepted,
                waiting: seen.and_then(|seen| seen.backend(&section)).map(|one| one.waiting),
                octets: seen.map(|_| carried(clients.octets)),
                servers: wanted.servers.iter().map(server).collect(),
            });
        }
    }
}

fn carried((inward, outward): (u64, u64)) -> CarriedOctets {
    CarriedOctets { inward, outward, a_second: None }
}

impl GeneratedBackend {
    pub(crate) fn new(settings: &BalancerSettings) -> Self {
        let directory = settings.run_dir.join(DIRECTORY);
        let processes = HaproxyBackend::generated(&directory);
        Self { directory, processes, served: BTreeMap::new() }
    }

    /// Runs the processes from their files as they are now.
    fn run(&mut self, now: Instant) {
        let haproxy = self.served.values().map(|one| one.wanted(&self.directory)).collect();
        self.processes.apply(WantedServices { haproxy, ..WantedServices::default() }, now);
    }

    /// Goes on with what HAProxy has said of its files, and speaks to those that run.
    fn step(&mut self, now: Instant) {
        let mut progress = Progress::default();
        self.processes.progress(&mut progress);
        let said: BTreeMap<&Name, &String> = progress
            .failed
            .iter()
            .chain(&progress.strained)
            .map(|(name, words)| (name, words))
            .collect();
        let mut is_changed = false;
        for (name, one) in &mut self.served {
            let left_out =
                said.get(name).is_some_and(|words| one.leave_out(words, &self.directory, now));
            let is_due = one.retry_at().is_some_and(|at| now >= at);
            if is_due && one.fault.is_none() {
                one.refused.clear();
            }
            if left_out || is_due {
                one.write(&self.directory, now);
                is_changed = true;
            }
        }
        if is_changed {
            self.run(now);
        }
        for (name, one) in &mut self.served {
            one.step(self.processes.pid(name), now);
        }
    }

    /// Files of what is not served any more, by this daemon or an earlier one.
    fn remove_files(&self) {
        let stems: BTreeSet<&str> =
            self.served.values().map(|one| one.group.stem.as_str()).collect();
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some((stem, "cfg" | "state")) = name.to_str().and_then(|it| it.rsplit_once('.'))
            else {
                continue;
            };
            if !stems.contains(stem)
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove a file of ours");
            }
        }
    }

    fn progress_of_services(&self) -> Progress {
        let (mut of_processes, mut progress) = (Progress::default(), Progress::default());
        self.processes.progress(&mut of_processes);
        for one in self.served.values() {
            one.progress(&of_processes, &self.directory, &mut progress);
        }
        progress
    }
}

impl Backend for GeneratedBackend {
    fn kind(&self) -> Option<BackendKind> {
        Some(BackendKind::Haproxy)
    }

    fn apply(&mut self, share: WantedServices, now: Instant) {
        let groups = groups(share.services.iter());
        let is_fewer = self.served.keys().any(|name| !groups.contains_key(name));
        self.served.retain(|name, _| groups.contains_key(name));
        if is_fewer || !groups.is_empty() {
            let is_first = self.served.is_empty();
            for (name, group) in groups {
                let new = || ServedGroup::new(group.clone(), &self.directory);
                let one = self.served.entry(name).or_insert_with(new);
                one.want(group, now);
                one.write(&self.directory, now);
            }
            if is_fewer || is_first {
                self.remove_files();
            }
        }
        // With nothing to serve too: an earlier daemon may have left one that runs.
        self.run(now);
        self.step(now);
    }

    fn tick(&mut self, now: Instant) {
        if self.processes.next_tick(now) == Some(Duration::ZERO) {
            self.processes.tick(now);
        }
        self.step(now);
    }

    fn next_tick(&self, now: Instant) -> Option<Duration> {
        let controls = self.served.values().filter_map(|one| one.control.wait(now));
        let retries = self.served.values().filter_map(ServedGroup::retry_at);
        let retries = retries.map(|at| at.saturating_duration_since(now));
        self.processes.next_tick(now).into_iter().chain(controls).chain(retries).min()
    }

    fn progress(&self, progress: &mut Progress) {
        let own = self.progress_of_services();
        progress.pending.extend(own.pending);
        progress.failed.extend(own.failed);
        progress.strained.extend(own.strained);
    }

    fn take_notes(&mut self) -> Vec<Note> {
        self.processes.take_notes()
    }

    fn status(&mut self, status: &mut BalancerStatus) {
        let progress = self.progress_of_services();
        self.processes.status(status);
        self.served.values().for_each(|one| one.status(&progress, status));
    }
}
