//! Could it be served here, if this node became master now? Looked at before it is needed, without
//! doing any of it.
//!
//! ```text
//!   level ──► Verifier ─┬─► service   over a HostView: modules, forwarding, networks, program
//!   (idle)              ├─► haproxy   `haproxy -c`, which is waited for by no one
//!                       └─► port      who listens there
//!             ▲ ten times a second: host, ports, changes of files · a slow round: the rest
//! ```
//!
//! What it finds takes a node out of service, so it speaks only of what is certain: what cannot be
//! looked at is not missing.

mod forwarding;
mod haproxy;
mod host;
mod port;
mod service;
mod translation;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use locum_kernel::ipvs::{ModuleLoader, engine_module, scheduler_module};
use locum_kernel::ports::PortSharing;
use locum_plan::{
    Activity, BackendChoice, BackendKind, HaproxyFile, Name, Plan, Service, WantedHaproxy,
    WantedService, WantedServices,
};
use nix::unistd::mkdtemp;

use crate::backend::Progress;
use crate::choice::{Choice, Lacking, Reach, choose};
use crate::generated::{DIRECTORY, HaproxyConfig, configuration, groups, make_directory};
use crate::haproxy::OwnHost;
use crate::process::Process;
use crate::round::LookRound;
use crate::state_file::replace_private;
use crate::verify::haproxy::{HaproxyLook, Objection};
use crate::verify::port::Ports;
use crate::verify::service::{engine_of, unmet};
use crate::verify::watch::Watcher;

pub(crate) use forwarding::Unmet;
pub(crate) use host::{HostReader, HostView};

/// How often host and ports are looked at, and files asked for changes: what a master has lost too
/// shall be known or in doubt here before what it offers is taken.
const ROUND: Duration = Duration::from_millis(100);

/// How often a check that is under way is looked at; one takes some 50 ms.
const CHECK_POLL: Duration = Duration::from_millis(10);

/// Checks at a time: a standby has something else to do.
const CHECKS_AT_A_TIME: usize = 2;

/// Checks of a daemon that must fail to end before it says so: one may have met a busy moment.
const PATIENCE: u32 = 2;

/// How long [`verify`] waits, above the limit of a check: what still has no answer then could not be
/// asked.
const VERIFY_LIMIT: Duration = Duration::from_secs(12);

#[derive(Debug)]
pub(crate) struct Verifier {
    reader: HostReader,
    /// Of a daemon; `None` looks and changes nothing.
    modules: Option<ModuleLoader>,
    ports: Ports,
    own_host: OwnHost,
    /// In the order of the level.
    services: Vec<ServiceLook>,
    haproxy: Vec<HaproxyLook>,
    /// Where the files of services that HAProxy would serve are written to be looked at.
    directory: PathBuf,
    /// What was written there, by the name of its look.
    generated: BTreeMap<Name, GeneratedLook>,
    watcher: Watcher,
    /// Of HAProxies that are looked at no more.
    ending: Vec<Process>,
    /// As it was last asked for.
    wanted: WantedServices,
    round: Option<LookRound>,
    changes_at: Option<Instant>,
    ticked_at: Option<Instant>,
    patience: u32,
    checks_at_a_time: usize,
}

/// Services that would share a HAProxy, and the file that it would be run from.
#[derive(Debug)]
struct GeneratedLook {
    services: Vec<Name>,
    configuration: HaproxyConfig,
    path: PathBuf,
    /// Why there is no such file.
    fault: Option<String>,
}

/// A service that the kernel serves, or that nothing serves yet.
#[derive(Debug)]
struct ServiceLook {
    service: Arc<Service>,
    /// By what it would be served; `None` is a choice that nobody has made yet.
    kind: Option<BackendKind>,
    runs: bool,
    found: Option<Shortfall>,
    /// It would be served by sockets, which find their ports free or do not: the kernel takes packets
    /// before any socket does, and what runs has its ports.
    needs_ports: bool,
    /// Who has one of its ports.
    stranger: Option<String>,
}

impl ServiceLook {
    fn look_at_ports(&mut self, ports: &mut Ports) {
        let taken = |listen| ports.stranger_at(listen, PortSharing::Alone);
        self.stranger = match self.needs_ports {
            true => self.service.addresses().find_map(taken),
            false => None,
        };
    }

    /// `None` until somebody has looked.
    fn shortfall(&self) -> Option<Shortfall> {
        let mut found = self.found.clone()?;
        let stranger = self.stranger.clone().map(|text| (ObstacleKind::Port, text));
        found.obstacles.extend(stranger);
        Some(found)
    }
}

/// What stands in the way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Shortfall {
    obstacles: Vec<(ObstacleKind, String)>,
}

/// Something that keeps a service or HAProxy from being served here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Obstacle {
    /// Of the service or HAProxy.
    pub name: Name,
    pub kind: ObstacleKind,
    /// What is missing, and what to do: a sentence for a person.
    pub text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ObstacleKind {
    /// HAProxy refuses the file, in its own words.
    Refused,
    /// There is no HAProxy or no file to ask, or it hangs.
    NotRun,
    /// The host or its kernel lacks something.
    Host,
    /// Somebody else listens there.
    Port,
    /// It would be served, and some of its clients would get no answer.
    Doubt,
}

impl Verifier {
    /// `program` is the one that the proxy is run from; below `directory` files are written.
    pub(crate) fn new(program: &Path, directory: &Path) -> Self {
        Self {
            reader: HostReader::new(program),
            modules: None,
            ports: Ports::default(),
            own_host: OwnHost::default(),
            services: Vec::new(),
            haproxy: Vec::new(),
            directory: directory.join(DIRECTORY),
            generated: BTreeMap::new(),
            watcher: Watcher::default(),
            ending: Vec::new(),
            wanted: WantedServices::default(),
            round: None,
            changes_at: None,
            ticked_at: None,
            patience: PATIENCE,
            checks_at_a_time: CHECKS_AT_A_TIME,
        }
    }

    /// From now on what is served by IPVS finds its modules loaded: not by a failover, and not by
    /// IPVS itself, which would hold its lock meanwhile.
    pub(crate) fn loading_modules(mut self, modules: ModuleLoader) -> Self {
        self.reader.use_loader(modules.clone());
        self.modules = Some(modules);
        self
    }

    /// This host now, as far as these services may need it.
    pub(crate) fn host(&mut self, now: Instant, services: &[Arc<Service>]) -> HostView {
        self.reader.read(now, services)
    }

    /// Looks at what of this level could not be served. `placed` says which backend has each of the
    /// services that run, in their order.
    pub(crate) fn want(
        &mut self,
        wanted: &WantedServices,
        placed: &[Result<BackendKind, String>],
        now: Instant,
    ) {
        // The same level again: files may have been changed for a reload.
        let is_asked_again = self.wanted == *wanted;
        self.want_services(wanted, placed);
        self.want_haproxy(wanted, now);
        if is_asked_again {
            self.haproxy.iter_mut().for_each(|look| look.look_again(now));
        } else {
            self.wanted = wanted.clone();
        }
        self.look_at_new(now);
        self.tick(now);
    }

    /// Services of the same level have got their backends, or other ones.
    pub(crate) fn place(&mut self, placed: &[Result<BackendKind, String>], now: Instant) {
        let wanted = std::mem::take(&mut self.wanted);
        self.want_services(&wanted, placed);
        self.wanted = wanted;
        self.look_at_new(now);
    }

    fn look_at_new(&mut self, now: Instant) {
        if self.services.iter().any(|look| look.found.is_none()) {
            self.look_at_host(now);
        }
    }

    fn want_services(&mut self, wanted: &WantedServices, placed: &[Result<BackendKind, String>]) {
        let before = std::mem::take(&mut self.services).into_iter();
        let mut before: BTreeMap<Name, ServiceLook> =
            before.map(|look| (look.service.name.clone(), look)).collect();
        let mut placed = placed.iter().peekable();
        for WantedService { service, activity, .. } in wanted.services.iter().map(|one| &**one) {
            let (kind, runs) = match (activity, service.backend) {
                // Looked at as the file that it would be run from.
                (_, BackendChoice::Only(BackendKind::Haproxy)) => {
                    placed.next_if(|_| *activity != Activity::Idle);
                    continue;
                }
                (Activity::Idle, BackendChoice::Only(kind)) => (Some(kind), false),
                (Activity::Idle, BackendChoice::Auto) => (None, false),
                (Activity::Active | Activity::Ready, _) => match placed.next() {
                    // They keep nothing ready.
                    Some(Ok(kind @ (BackendKind::Ipvs | BackendKind::Nftables))) => {
                        (Some(*kind), *activity == Activity::Active)
                    }
                    // The proxy says itself what it lacks.
                    Some(Ok(BackendKind::Proxy | BackendKind::Haproxy) | Err(_)) | None => continue,
                },
            };
            let same = before.remove(&service.name).filter(|look| {
                let is_same = Arc::ptr_eq(&look.service, service) || look.service == *service;
                is_same && look.kind == kind && look.runs == runs
            });
            let new = || ServiceLook {
                service: Arc::clone(service),
                kind,
                runs,
                found: None,
                needs_ports: false,
                stranger: None,
            };
            self.services.push(same.unwrap_or_else(new));
        }
    }

    fn want_haproxy(&mut self, wanted: &WantedServices, now: Instant) {
        let mut before = std::mem::take(&mut self.haproxy);
        let generated = self.generate(wanted);
        for WantedHaproxy { file, activity } in wanted.haproxy.iter().chain(&generated) {
            let runs = match activity {
                Activity::Active | Activity::Ready => true,
                Activity::Idle => false,
            };
            let same = before.iter().position(|look| look.file == *file && look.runs == runs);
            let new = || HaproxyLook::new(Arc::clone(file), runs, self.patience, now);
            let look = same.map_or_else(new, |at| before.swap_remove(at));
            self.haproxy.push(look);
        }
        self.ending.extend(before.iter_mut().filter_map(HaproxyLook::abandon));
        self.follow();
    }

    /// Writes what services that do not run here would be run from.
    fn generate(&mut self, wanted: &WantedServices) -> Vec<WantedHaproxy> {
        let is_idle = |wanted: &&Arc<WantedService>| {
            wanted.activity == Activity::Idle
                && wanted.service.backend == BackendChoice::Only(BackendKind::Haproxy)
        };
        let groups = groups(wanted.services.iter().filter(is_idle));
        let mut before = std::mem::take(&mut self.generated);
        let mut files = Vec::new();
        for (name, group) in groups {
            let path = group.path(&self.directory, "standby");
            let configuration = configuration(&group, &self.directory);
            let earlier = before.remove(&name);
            let is_written = earlier.is_some_and(|earlier| {
                earlier.fault.is_none() && earlier.configuration == configuration
            });
            let write = || {
                make_directory(&self.directory)?;
                replace_private(&path, configuration.text.as_bytes())
            };
            let outcome = if is_written { Ok(()) } else { write() };
            let fault =
                outcome.err().map(|error| format!("cannot write {}: {error}", path.display()));
            let file = Arc::new(group.file(path.clone()));
            files.push(WantedHaproxy { file, activity: Activity::Idle });
            let services = group.services.iter().map(|one| one.service.name.clone()).collect();
            self.generated.insert(name, GeneratedLook { services, configuration, path, fault });
        }
        for gone in before.into_values() {
            // What is left of it is no harm: the next one replaces it.
            fs::remove_file(gone.path).ok();
        }
        files
    }

    /// Goes on with what is under way, and begins what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.ticked_at = Some(now);
        self.ending.retain_mut(|process| process.poll().is_none());
        self.notice_changes(now);
        for look in self.haproxy.iter_mut() {
            self.ending.extend(look.poll(now));
        }
        self.begin_checks(now);
        if self.round_wait(now) == Some(Duration::ZERO) {
            self.look_at_host(now);
        }
    }

    fn notice_changes(&mut self, now: Instant) {
        if self.haproxy.is_empty() || self.changes_due().is_some_and(|due| now < due) {
            return;
        }
        self.changes_at = Some(now);
        let changes = self.watcher.changes();
        self.haproxy.iter_mut().for_each(|look| look.notice(&changes, now));
    }

    fn begin_checks(&mut self, now: Instant) {
        let checking = self.haproxy.iter().filter(|look| look.is_checking()).count();
        let free = self.checks_at_a_time.saturating_sub(checking);
        let all = 0..self.haproxy.len();
        let due: Vec<usize> = all.filter(|at| self.haproxy[*at].is_due(now)).take(free).collect();
        let reads: Vec<_> = due.iter().map(|at| (*at, self.haproxy[*at].read())).collect();
        let for_level =
            self.haproxy.iter_mut().filter_map(|look| look.read_for_level().then_some(()));
        if !reads.is_empty() || for_level.count() > 0 {
            self.follow();
        }
        if reads.is_empty() {
            return;
        }
        for (at, read) in reads {
            self.haproxy[at].start(read, now);
        }
        // Its file may name others than before.
        self.look_at_addresses(now);
        self.look_at_ports();
    }

    fn follow(&mut self) {
        let spots = self.haproxy.iter().flat_map(|look| &look.spots);
        self.watcher.follow(spots.map(|(directory, _)| directory.as_path()));
    }

    fn look_at_host(&mut self, now: Instant) {
        let (round, ()) = LookRound::made(now, || self.look_around(now));
        self.round = Some(round);
    }

    fn look_around(&mut self, now: Instant) {
        if !self.services.is_empty() {
            let mut modules = BTreeSet::new();
            let services: Vec<_> =
                self.services.iter().map(|look| Arc::clone(&look.service)).collect();
            let host = self.reader.read(now, &services);
            for look in self.services.iter_mut() {
                let kind = kind_of(look, &host);
                if kind == Ok(BackendKind::Ipvs) && host.ipvs.is_ok() {
                    modules.insert(scheduler_module(&look.service.scheduler.name));
                    modules.extend(engine_of(&look.service).map(engine_module));
                }
                look.needs_ports = !look.runs && kind == Ok(BackendKind::Proxy);
                look.found = Some(judge(look, kind, &host));
            }
            if let Some(loader) = &self.modules {
                for module in &modules {
                    loader.is_settled(module);
                }
            }
        }
        self.look_at_addresses(now);
        self.look_at_ports();
    }

    fn look_at_addresses(&mut self, now: Instant) {
        let (host, brought) = (&mut self.own_host, &self.wanted.virtual_addresses);
        self.haproxy.iter_mut().for_each(|look| look.look_at_addresses(host, brought, now));
    }

    fn look_at_ports(&mut self) {
        self.ports.read();
        self.services.iter_mut().for_each(|look| look.look_at_ports(&mut self.ports));
        self.haproxy.iter_mut().for_each(|look| look.look_at_ports(&mut self.ports));
    }

    /// How long the next look at host and ports may wait; `None` where nothing asks about them.
    fn round_wait(&self, now: Instant) -> Option<Duration> {
        let is_needed = !self.services.is_empty() || self.haproxy.iter().any(|look| !look.runs);
        let wait = |round: LookRound| round.wait(ROUND, now);
        is_needed.then(|| self.round.map_or(Duration::ZERO, wait))
    }

    fn changes_due(&self) -> Option<Instant> {
        self.changes_at.map(|at| at + ROUND)
    }

    /// How long from `now` the next tick may wait; `None` when there is nothing to look at.
    pub(crate) fn next_tick(&self, now: Instant) -> Option<Duration> {
        let is_checking = self.haproxy.iter().any(HaproxyLook::is_checking);
        if is_checking || !self.ending.is_empty() {
            let passed = self.ticked_at.map_or(CHECK_POLL, |at| now.saturating_duration_since(at));
            return Some(CHECK_POLL.saturating_sub(passed));
        }
        let changes = self.changes_due().filter(|_| !self.haproxy.is_empty());
        let checks = self.haproxy.iter().map(HaproxyLook::next).min();
        let next = changes.into_iter().chain(checks).map(|at| at.saturating_duration_since(now));
        next.chain(self.round_wait(now)).min()
    }

    /// Adds what could not be served, and what runs and could not be started again. A name of which
    /// a backend said something itself is left to that.
    pub(crate) fn progress(&self, progress: &mut Progress) {
        let failed = progress.failed.iter().map(|(name, _)| name);
        let strained = progress.strained.iter().map(|(name, _)| name);
        let said: BTreeSet<Name> =
            failed.chain(strained).chain(&progress.pending).cloned().collect();
        let unsaid = |name: &Name| !said.contains(name);
        for look in self.services.iter().filter(|look| unsaid(&look.service.name)) {
            let name = look.service.name.clone();
            let Some(found) = look.shortfall() else {
                progress.pending.push(name);
                continue;
            };
            if let Some(text) = found.text(|kind| kind != ObstacleKind::Doubt) {
                progress.failed.push((name, text));
            } else if let Some(text) = found.text(|kind| kind == ObstacleKind::Doubt) {
                progress.strained.push((name, text));
            }
        }
        for look in &self.haproxy {
            if let Some(generated) = self.generated.get(&look.file.name) {
                generated.progress(look, progress);
                continue;
            }
            let name = look.file.name.clone();
            if !unsaid(&name) {
                continue;
            }
            match of_haproxy(look).text(|_| true) {
                Some(text) if look.runs => {
                    let text = format!("it runs, and would not start again: {text}");
                    progress.strained.push((name, text));
                }
                Some(text) => progress.failed.push((name, text)),
                None if look.is_pending() => progress.pending.push(name),
                None => {}
            }
        }
    }

    fn is_pending(&self) -> bool {
        self.haproxy.iter().any(HaproxyLook::is_unknown)
            || self.services.iter().any(|look| look.found.is_none())
    }

    fn obstacles(&self) -> Vec<Obstacle> {
        let mut all = Vec::new();
        let mut add = |name: &Name, found: Shortfall| {
            let with_name = |(kind, text)| Obstacle { name: name.clone(), kind, text };
            all.extend(found.obstacles.into_iter().map(with_name));
        };
        for look in &self.services {
            add(&look.service.name, look.shortfall().unwrap_or_default());
        }
        for look in &self.haproxy {
            match self.generated.get(&look.file.name) {
                None => add(&look.file.name, of_haproxy(look)),
                Some(generated) => {
                    generated.services.iter().for_each(|name| add(name, generated.of(name, look)));
                }
            }
        }
        all
    }
}

impl GeneratedLook {
    /// What is in the way of one of its services, as far as that can be said of one; `look` is that
    /// of its file.
    fn of(&self, service: &Name, look: &HaproxyLook) -> Shortfall {
        if let Some(fault) = &self.fault {
            return Shortfall { obstacles: vec![(ObstacleKind::NotRun, fault.clone())] };
        }
        let mut found = of_haproxy(look);
        found.obstacles.retain_mut(|(_, text)| {
            let blamed = self.configuration.blamed(text, &self.path);
            let quoted = self.configuration.quoted(text, &self.path);
            text.push_str(&quoted);
            blamed.is_empty() || blamed.contains(service)
        });
        found
    }

    fn progress(&self, look: &HaproxyLook, progress: &mut Progress) {
        for name in &self.services {
            match self.of(name, look).text(|_| true) {
                Some(text) => progress.failed.push((name.clone(), text)),
                None if look.is_pending() => progress.pending.push(name.clone()),
                None => {}
            }
        }
    }
}

impl Shortfall {
    /// Those of the right kinds, in one sentence.
    fn text(&self, is_right: impl Fn(ObstacleKind) -> bool) -> Option<String> {
        let right = self.obstacles.iter().filter(|(kind, _)| is_right(*kind));
        let texts: Vec<&str> = right.map(|(_, text)| text.as_str()).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

fn of_haproxy(look: &HaproxyLook) -> Shortfall {
    let objection = look.objection().map(|objection| match objection {
        Objection::Refused(text) => (ObstacleKind::Refused, text.clone()),
        Objection::NotRun(text) => (ObstacleKind::NotRun, text.clone()),
    });
    let foreign = look.foreign().map(|text| (ObstacleKind::Host, text.to_owned()));
    let stranger = look.stranger().map(|text| (ObstacleKind::Port, text.to_owned()));
    Shortfall { obstacles: objection.into_iter().chain(foreign).chain(stranger).collect() }
}

/// By what it is served, or would be; `Err` says why by none.
fn kind_of(look: &ServiceLook, host: &HostView) -> Result<BackendKind, String> {
    let service = &*look.service;
    let choice = || choose(service, &mut |kind| lacks(service, kind, host));
    look.kind.map_or_else(|| choice().map(|Choice { kind, .. }| kind), Ok)
}

fn judge(look: &ServiceLook, kind: Result<BackendKind, String>, host: &HostView) -> Shortfall {
    let kind = match kind {
        Ok(kind) => kind,
        Err(text) => return Shortfall { obstacles: vec![(ObstacleKind::Host, text)] },
    };
    let title = kind.capabilities().title;
    let obstacle = |Unmet { reach, text }| match reach {
        Reach::All => (ObstacleKind::Host, format!("{title} cannot: {text}")),
        Reach::Part => (ObstacleKind::Doubt, format!("not for all clients: {text}")),
    };
    Shortfall { obstacles: unmet(&look.service, kind, host).into_iter().map(obstacle).collect() }
}

/// What an automatic choice goes by.
pub(crate) fn lacks(service: &Service, kind: BackendKind, host: &HostView) -> Result<(), Lacking> {
    let unmet = unmet(service, kind, host);
    let reach = unmet.iter().map(|one| one.reach).max();
    let texts: Vec<String> = unmet.into_iter().map(|one| one.text).collect();
    reach.map_or(Ok(()), |reach| Err((reach, texts.join("; "))))
}

/// What keeps the services and HAProxies of a plan from being served by this host, as its daemon
/// would find it on a standby. Waits for HAProxy, some ten seconds at most as long as the files can
/// be read; `program` is the one that the proxy is run from. The rights are those of this process.
pub fn verify(plan: &Plan, program: &Path) -> Vec<Obstacle> {
    let idle = |service: &Service| {
        let (service, activity) = (Arc::new(service.clone()), Activity::Idle);
        Arc::new(WantedService { service, activity, servers: Vec::new(), lease: None })
    };
    let idle_file = |file: &HaproxyFile| WantedHaproxy {
        file: Arc::new(file.clone()),
        activity: Activity::Idle,
    };
    let wanted = WantedServices {
        services: plan.services.iter().map(idle).collect(),
        haproxy: plan.haproxy.iter().map(idle_file).collect(),
        virtual_addresses: plan.virtual_addresses(),
        ..WantedServices::default()
    };
    // As long as this takes.
    let directory = TemporaryDirectory::new();
    let mut verifier = Verifier::new(program, &directory.0);
    verifier.patience = 1;
    verifier.checks_at_a_time = usize::MAX;
    verifier.want(&wanted, &[], Instant::now());
    let begun = Instant::now();
    while verifier.is_pending() && begun.elapsed() < VERIFY_LIMIT {
        thread::sleep(CHECK_POLL / 2);
        verifier.tick(Instant::now());
    }
    let unknown = verifier.haproxy.iter().filter(|look| look.is_unknown()).map(|look| Obstacle {
        name: look.file.name.clone(),
        kind: ObstacleKind::NotRun,
        text: format!(
            "{} could not be checked, this process has too few descriptors or too little memory",
            look.file.config.display()
        ),
    });
    unknown.chain(verifier.obstacles()).collect()
}

/// For nobody else, and gone with this value.
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    /// Where there is no room for one, a path that nothing can be written to, which says so later.
    fn new() -> Self {
        let template = std::env::temp_dir().join("locum-check-XXXXXX");
        Self(mkdtemp(&template).unwrap_or(template))
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // Nothing in it is a secret once it cannot be removed: nobody else may enter it.
        fs::remove_dir_all(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A master knows within a tenth of a second or two, and offers.
    #[test]
    fn what_both_have_lost_is_known_before_an_offer_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("locum");
        std::fs::copy("/bin/true", &program).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let service = Service {
            backend: BackendChoice::Only(BackendKind::Proxy),
            ..Service::new("www".into(), address.into())
        };
        let one = WantedService {
            service: Arc::new(service),
            activity: Activity::Idle,
            servers: Vec::new(),
            lease: None,
        };
        let level = WantedServices { services: vec![Arc::new(one)], ..WantedServices::default() };
        let mut verifier = Verifier::new(&program, directory.path());
        let mut now = Instant::now();
        verifier.want(&level, &[], now);
        assert_eq!(verifier.obstacles(), []);
        let mut found_next = |verifier: &mut Verifier| {
            let wait = verifier.round_wait(now).unwrap();
            // One that costs much is made less often.
            assert!(wait <= Duration::from_secs(1), "{wait:?}");
            now += wait;
            verifier.tick(now);
            verifier.obstacles().iter().map(|one| one.kind).collect::<Vec<_>>()
        };
        let _stranger = TcpListener::bind(address).unwrap();
        assert_eq!(found_next(&mut verifier), [ObstacleKind::Port]);
        std::fs::remove_file(&program).unwrap();
        assert!(found_next(&mut verifier).contains(&ObstacleKind::Host));
    }
}
