//! Services served by the built-in proxy: one process for all of them.
//!
//! It is started when the first service is wanted, taken over when one answers on the socket, told
//! everything once and then every change, and it ends by itself once it is told to serve nothing and
//! its last connection is over. So a backup runs no proxy. One that is not as it would be started now is
//! replaced without a client noticing ([`succession`]).

mod level;
mod link;
mod strain;
mod succession;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use locum_plan::{BackendKind, Name, WantedService, WantedServices};
use locum_proxy::protocol::{self, Orphan, ProxyRequest, ProxyStatus};
use locum_proxy::{Account, Settings};
use rustix::process::Signal;

use crate::backend::{Backend, BalancerSettings, Note, Progress};
use crate::backoff::Backoff;
use crate::process::Process;
use crate::proxy::level::{beyond, first_spec_of, is_same, orphan_of, spec_of, unfit};
use crate::proxy::link::{AskError, Link};
use crate::proxy::strain::{Strain, Strains, in_full, in_short};
use crate::status::{
    BalancedServer, BalancedService, BalancedState, BalancerStatus, CarriedOctets, ProcessState,
    SupervisedProcess,
};
use crate::user;

/// How long a new process may take to answer; it takes a few milliseconds.
const START_LIMIT: Duration = Duration::from_secs(2);
const START_POLL: Duration = Duration::from_millis(1);

/// How often the process is looked after while it runs.
const TICK: Duration = Duration::from_millis(200);

/// How often services that could not listen are told again, and the proxy is asked how it is.
const REPEAT: Duration = Duration::from_secs(1);

/// Requests in a row without an answer after which a process hangs and is killed.
const HUNG_AFTER: u32 = 3;

pub(crate) struct ProxyBackend {
    program: PathBuf,
    socket: PathBuf,
    /// What is wanted of the proxy.
    services: Vec<Arc<WantedService>>,
    process: Option<Process>,
    /// Killed or replaced: each ends, the latter once its connections have.
    ending: Vec<Process>,
    link: Option<Link>,
    /// What the proxy at the other end of the link has taken in; `None` until it has answered.
    sent: Option<SentTable>,
    /// Its last answer, and of each service the last that an answer had.
    latest: ProxyStatus,
    observed: BTreeMap<String, protocol::ProxyServiceStatus>,
    ticked_at: Option<Instant>,
    /// When it was last asked or told on our own account: who asks for a status all the time must
    /// not put that off.
    asked_at: Option<Instant>,
    /// Requests in a row that met silence. Every answer ends the row, a refusal too.
    unanswered: u32,
    /// The last level it heard was empty: its end is no failure, whatever is wanted since.
    asked_to_end: bool,
    /// It is known of the process at the link whether it is as it would be started now.
    is_reviewed: bool,
    /// When it can be replaced again after that did not succeed.
    succession: Backoff,
    backoff: Backoff,
    restarts: u64,
    /// What is wrong with the process as a whole.
    failure: Option<String>,
    /// Why the last change was not taken in; what was before it is served.
    refusal: Option<String>,
    failed: BTreeMap<Name, String>,
    strains: Strains,
    notes: Vec<Note>,
}

/// What one proxy knows.
#[derive(Debug)]
struct SentTable {
    services: BTreeMap<Name, Arc<WantedService>>,
    orphan: Orphan,
}

impl ProxyBackend {
    pub(crate) fn new(settings: &BalancerSettings) -> Self {
        Self {
            program: settings.locum_program.clone(),
            socket: settings.run_dir.join("proxy.sock"),
            services: Vec::new(),
            process: None,
            ending: Vec::new(),
            link: None,
            sent: None,
            latest: ProxyStatus::default(),
            observed: BTreeMap::new(),
            ticked_at: None,
            asked_at: None,
            unanswered: 0,
            asked_to_end: false,
            is_reviewed: false,
            succession: Backoff::default(),
            backoff: Backoff::default(),
            restarts: 0,
            failure: None,
            refusal: None,
            failed: BTreeMap::new(),
            strains: Strains::default(),
            notes: Vec::new(),
        }
    }

    fn note(&mut self, text: String) {
        self.notes.push(Note { name: Name::from("proxy"), text });
    }

    /// What the proxy can serve of what is wanted of it.
    fn fit(&self) -> impl Iterator<Item = &Arc<WantedService>> {
        self.services.iter().filter(|wanted| self.unfit(wanted).is_none())
    }

    /// Why the proxy cannot serve it, or the one that runs.
    fn unfit(&self, wanted: &WantedService) -> Option<String> {
        let version = self.link.as_ref().map_or(protocol::VERSION, |_| self.latest.version);
        // A proxy that has not been asked yet says nothing of itself.
        let beyond = (version > 0).then(|| beyond(wanted, version)).flatten();
        unfit(wanted).or_else(|| beyond.map(str::to_owned))
    }

    fn wants_nothing(&self) -> bool {
        self.fit().next().is_none()
    }

    /// Tells what it does not know yet, to a proxy that is taken over or started where there is none.
    fn publish(&mut self, now: Instant) {
        self.reap(now);
        if self.link.is_none() {
            self.reach(now);
        }
        if self.link.is_some() {
            let nothing = self.wants_nothing();
            self.asked_to_end |= nothing;
            self.asked_at = Some(now);
            self.publish_link();
            self.review(now);
            // Hung up on: it is not there any more, or has not heard the level.
            self.asked_to_end &= self.link.is_none() || nothing;
        }
        self.collect_failures();
    }

    fn publish_link(&mut self) {
        let orphan = orphan_of(self.fit());
        let request = match &self.sent {
            Some(sent) if self.latest.version >= protocol::UPDATES_SINCE => {
                let update = self.update(sent, orphan);
                if update.is_none() {
                    return;
                }
                update
            }
            Some(_) | None => None,
        };
        let request = request.unwrap_or_else(|| self.whole(orphan));
        if self.ask(&request) {
            self.sent = Some(self.table(orphan));
        }
    }

    /// The request by which a proxy hears everything for the first time.
    fn whole(&self, orphan: Orphan) -> ProxyRequest {
        let services = self.fit().map(|wanted| first_spec_of(wanted)).collect();
        ProxyRequest::Serve { services, orphan }
    }

    /// What a proxy knows that has been told everything, with this.
    fn table(&self, orphan: Orphan) -> SentTable {
        let services = self.fit().map(|one| (one.service.name.clone(), one.clone())).collect();
        SentTable { services, orphan }
    }

    /// What has changed since `told`, and what failed there; `None` when there is nothing to say.
    fn update(&self, sent: &SentTable, orphan: Orphan) -> Option<ProxyRequest> {
        let changed = |wanted: &&Arc<WantedService>| {
            let name = &wanted.service.name;
            let known = sent.services.get(name);
            !known.is_some_and(|known| Arc::ptr_eq(known, wanted) || known == *wanted)
                || self.latest_failure(name).is_some()
        };
        let set: Vec<_> = self.fit().filter(changed).map(|wanted| spec_of(wanted)).collect();
        let wanted: BTreeSet<&Name> = self.fit().map(|wanted| &wanted.service.name).collect();
        let gone = sent.services.keys().filter(|name| !wanted.contains(name));
        let remove: Vec<_> = gone.map(ToString::to_string).collect();
        let differs = !set.is_empty() || !remove.is_empty() || sent.orphan != orphan;
        differs.then_some(ProxyRequest::Update { set, remove, orphan })
    }

    fn latest_failure(&self, name: &str) -> Option<&str> {
        match &self.observed.get(name)?.state {
            protocol::ProxyServiceState::Failed { error } => Some(error),
            protocol::ProxyServiceState::Listening
            | protocol::ProxyServiceState::Ready
            | protocol::ProxyServiceState::Leaving => None,
        }
    }

    /// The link is of no use any more.
    fn hang_up(&mut self) {
        self.link = None;
        self.sent = None;
    }

    /// What it said is of no use any more either.
    fn forget(&mut self) {
        self.hang_up();
        self.latest = ProxyStatus::default();
        self.observed.clear();
        self.strains.forget();
    }

    /// Notices that the process ended.
    fn reap(&mut self, now: Instant) {
        let Some(end) = self.process.as_mut().and_then(Process::poll) else { return };
        let Some(process) = self.process.take() else { return };
        self.forget();
        self.remove_socket();
        self.unanswered = 0;
        if std::mem::take(&mut self.asked_to_end) {
            return;
        }
        self.backoff.fail(now, process.age());
        self.restarts += 1;
        let text = format!("the proxy (pid {}) {end}", process.pid());
        self.note(text.clone());
        self.failure = Some(text);
    }

    /// The directory is not the proxy's to change when it serves as another user.
    fn remove_socket(&self) {
        if Link::connect(&self.socket).is_err() {
            let _ = fs::remove_file(&self.socket);
        }
    }

    /// Connects to whatever proxy there is, or to a new one where one is needed.
    fn reach(&mut self, now: Instant) {
        if self.connect() {
            return;
        }
        if self.wants_nothing() || !self.backoff.is_due(now) {
            return;
        }
        if let Err(error) = self.start() {
            let text = format!("cannot start the proxy {}: {error}", self.program.display());
            self.failure = Some(text);
            self.backoff.fail(now, Duration::ZERO);
        }
    }

    fn connect(&mut self) -> bool {
        if self.process.is_none() {
            self.settle_succession();
        }
        let Ok(link) = Link::connect(&self.socket) else { return false };
        let peer = link.peer();
        if let Some(peer) = peer
            && self.process.as_ref().is_none_or(|process| process.identity() != peer)
        {
            self.note(format!("the proxy (pid {}) of an earlier run is taken over", peer.pid));
            let before = std::mem::replace(&mut self.process, Process::adopt(peer));
            self.ending.extend(before);
        }
        self.sent = None;
        self.is_reviewed = false;
        self.link = Some(link);
        true
    }

    /// Waits until a proxy answers: one that is starting, or else a new one.
    fn start(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < START_LIMIT {
            if self.process.is_none() {
                self.process = Some(self.spawn(&self.socket, None)?);
                self.backoff.started();
            }
            if self.connect() {
                return Ok(());
            }
            if let Some(end) = self.process.as_mut().and_then(Process::poll) {
                self.process = None;
                if !std::mem::take(&mut self.asked_to_end) {
                    return Err(io::Error::other(format!("it {end}")));
                }
            }
            thread::sleep(START_POLL);
        }
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::KILL);
            self.ending.push(process);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))
    }

    /// Starts one that answers at `socket`, and shall take the place of whoever answers at the other one.
    fn spawn(&self, socket: &Path, predecessor: Option<&Path>) -> io::Result<Process> {
        let mut command = Command::new(&self.program);
        command.arg("proxy").arg("--socket").arg(socket);
        if let Some(predecessor) = predecessor {
            command.arg("--predecessor").arg(predecessor);
        }
        // It may never hear a level: this daemon may end first.
        if let Orphan::Milliseconds(timeout) = orphan_of(self.fit()) {
            command.arg("--orphan-timeout").arg(timeout.to_string());
        }
        command.args(options());
        Process::start(command)
    }

    /// True when the request was carried out.
    fn ask(&mut self, request: &ProxyRequest) -> bool {
        let Some(link) = &mut self.link else { return false };
        let error = match link.ask(request) {
            Ok(status) if status.oldest > protocol::VERSION => {
                self.hang_up();
                self.unanswered = 0;
                self.refusal = Some(format!(
                    "the proxy (pid {}) of an earlier run understands version {} of the protocol \
                     and later ones, this daemon speaks {}: end it with SIGTERM, another one is \
                     started",
                    status.pid,
                    status.oldest,
                    protocol::VERSION
                ));
                return false;
            }
            Ok(status) => {
                self.take_in(request, status);
                return true;
            }
            Err(error) => error,
        };
        if !error.leaves_link() {
            self.hang_up();
        }
        match error {
            // A proxy without anything to serve hangs up when it ends.
            AskError::Gone(_) if self.wants_nothing() && self.is_gone() => {}
            AskError::Silent => {
                self.unanswered += 1;
                self.failure = Some(error.to_string());
                if self.unanswered >= HUNG_AFTER {
                    self.unanswered = 0;
                    self.note("the proxy hangs and is killed".to_owned());
                    if let Some(process) = &mut self.process {
                        process.signal(Signal::KILL);
                    }
                }
            }
            AskError::Gone(_) => self.failure = Some(error.to_string()),
            // It answered or was not asked: it lives, and serves what it knew.
            AskError::Refused(_)
            | AskError::TooLarge
            | AskError::AnswerTooLarge
            | AskError::Malformed(_) => {
                self.unanswered = 0;
                self.failure = None;
                self.refusal = Some(error.to_string());
            }
        }
        false
    }

    fn take_in(&mut self, request: &ProxyRequest, status: ProxyStatus) {
        self.unanswered = 0;
        self.failure = None;
        if self.latest.pid != status.pid {
            self.note_lacks(&status);
        }
        for line in &status.log {
            self.note(format!("the proxy (pid {}) says: {}", line.pid, line.text));
        }
        self.latest = status;
        let now = Instant::now();
        self.latest.services.iter().for_each(|service| self.strains.follow(service, now));
        let answered = std::mem::take(&mut self.latest.services).into_iter();
        let answered = answered.map(|service| (service.name.clone(), service));
        match request {
            ProxyRequest::Serve { .. } => {
                self.refusal = None;
                self.observed = answered.collect();
            }
            // The answer to an update has those of its services that are still there.
            ProxyRequest::Update { set, remove, .. } => {
                self.refusal = None;
                for name in set.iter().map(|spec| &spec.name).chain(remove) {
                    self.observed.remove(name);
                }
                self.observed.extend(answered);
            }
            ProxyRequest::Status | ProxyRequest::HandOver => self.observed = answered.collect(),
        }
    }

    /// For the log, of a process that is asked for the first time.
    fn note_lacks(&mut self, status: &ProxyStatus) {
        let pid = status.pid;
        if status.version < protocol::LIMITS_SINCE {
            self.note(format!(
                "the proxy (pid {pid}) of an earlier run keeps neither limits nor time-outs: they hold \
                 once it has ended and another one is started"
            ));
        }
        for lack in &status.unconfined {
            self.note(format!(
                "the proxy (pid {pid}) serves with more rights than it needs: {lack}"
            ));
        }
    }

    /// For the log, once a minute.
    fn note_strains(&mut self, now: Instant) {
        for (name, strains) in self.strained(now).collect::<Vec<_>>() {
            if let Some(text) = self.strains.line(&name, &strains, now) {
                self.notes.push(Note { name, text });
            }
        }
    }

    /// The wanted services of which there is something to know.
    fn strained(&self, now: Instant) -> impl Iterator<Item = (Name, Vec<Strain>)> {
        let one = move |wanted: &Arc<WantedService>| {
            let name = &wanted.service.name;
            let observed = self.observed.get(&**name)?;
            Some((name.clone(), self.strains.of(observed, &wanted.service.limits, now)))
        };
        self.services.iter().filter_map(one)
    }

    /// The process hung up because it ended, or is about to.
    fn is_gone(&mut self) -> bool {
        let ended = self.process.as_mut().is_none_or(|process| process.poll().is_some());
        if ended {
            self.process = None;
            self.forget();
            self.remove_socket();
        }
        ended || Link::connect(&self.socket).is_err()
    }

    fn collect_failures(&mut self) {
        let known = self.sent.as_ref().map(|sent| &sent.services);
        let error_of = |wanted: &WantedService| {
            let name = &wanted.service.name;
            let is_sent =
                known.and_then(|known| known.get(name)).is_some_and(|known| **known == *wanted);
            match (self.unfit(wanted), &self.failure, is_sent) {
                (Some(error), _, _) => Some(error),
                (None, Some(failure), _) => Some(failure.clone()),
                (None, None, true) => self.latest_failure(name).map(str::to_owned),
                (None, None, false) => Some(
                    self.refusal
                        .clone()
                        .unwrap_or_else(|| "the proxy is not running yet".to_owned()),
                ),
            }
        };
        let failed = self
            .services
            .iter()
            .filter_map(|wanted| Some((wanted.service.name.clone(), error_of(wanted)?)))
            .collect();
        self.failed = failed;
    }

    fn process_status(&self) -> Option<SupervisedProcess> {
        let waiting = || self.backoff.retry_in(Instant::now()).unwrap_or_default();
        let state = match (&self.process, self.wants_nothing()) {
            (Some(_), false) => ProcessState::Running,
            (Some(_), true) => ProcessState::Stopping,
            (None, false) => ProcessState::Waiting { retry_in: waiting() },
            (None, true) => return None,
        };
        Some(SupervisedProcess {
            name: Name::from("proxy"),
            backend: BackendKind::Proxy.name(),
            state,
            is_changing: false,
            is_refused: false,
            pid: self.process.as_ref().map(Process::pid),
            restarts: self.restarts,
            error: self.failure.clone().or_else(|| self.refusal.clone()),
        })
    }
}

impl Backend for ProxyBackend {
    fn kind(&self) -> Option<BackendKind> {
        Some(BackendKind::Proxy)
    }

    fn apply(&mut self, share: WantedServices, now: Instant) {
        if !is_same(&self.services, &share.services) {
            self.backoff.reset();
        } else if self.sent.is_some() && self.failed.is_empty() {
            return;
        }
        self.services = share.services;
        self.publish(now);
        if self.link.is_none() && !self.wants_nothing() && self.backoff.is_due(now) {
            // A proxy that was just ending hung up: the next one is started at once.
            self.publish(now);
        }
    }

    fn tick(&mut self, now: Instant) {
        self.ticked_at = Some(now);
        self.ending.retain_mut(|process| process.poll().is_none());
        self.reap(now);
        let due = self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= REPEAT);
        let lost = self.link.is_none() && (self.refusal.is_none() || due);
        if lost || (due && !self.failed.is_empty()) {
            self.publish(now);
        } else if due {
            self.asked_at = Some(now);
            self.ask(&ProxyRequest::Status);
            self.review(now);
            self.note_strains(now);
            self.collect_failures();
        }
    }

    fn next_tick(&self, now: Instant) -> Option<Duration> {
        let busy = !self.services.is_empty()
            || self.process.is_some()
            || self.link.is_some()
            || !self.ending.is_empty();
        let passed = self.ticked_at.map_or(TICK, |at| now.saturating_duration_since(at));
        busy.then_some(TICK.saturating_sub(passed))
    }

    fn progress(&self, progress: &mut Progress) {
        let failed = self.failed.iter().map(|(name, error)| (name.clone(), error.clone()));
        progress.failed.extend(failed);
        let strained = self.strained(Instant::now());
        let strained = strained.filter_map(|(name, strains)| Some((name, in_short(&strains)?)));
        progress.strained.extend(strained);
    }

    fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    fn status(&mut self, status: &mut BalancerStatus) {
        if self.link.is_some() {
            self.ask(&ProxyRequest::Status);
        }
        status.processes.extend(self.process_status());
        let version = self.latest.version;
        let mut strained: BTreeMap<Name, Vec<Strain>> = self.strained(Instant::now()).collect();
        for wanted in &self.services {
            let name = &wanted.service.name;
            let error = self.failed.get(name).cloned();
            let observed = self.observed.get(&**name);
            status.services.push(BalancedService {
                name: name.clone(),
                backend: BackendKind::Proxy,
                state: BalancedState::of(wanted.activity, error.as_ref()),
                error,
                strained: strained.remove(name).and_then(|strains| in_full(&strains)),
                active: observed.map_or(0, |service| service.active),
                accepted: observed.map_or(0, |service| service.accepted),
                waiting: observed.map(|service| service.queue.waiting),
                octets: observed.map(octets_of),
                servers: observed.map_or_else(Vec::new, |one| servers_of(one, version)),
            });
        }
        let wanted = |name: &str| self.services.iter().any(|w| &*w.service.name == name);
        let leaving = self.observed.values().filter(|service| !wanted(&service.name));
        status.services.extend(leaving.map(|service| BalancedService {
            name: Name::from(service.name.as_str()),
            backend: BackendKind::Proxy,
            state: BalancedState::Leaving,
            error: None,
            strained: None,
            active: service.active,
            accepted: service.accepted,
            waiting: Some(service.queue.waiting),
            octets: Some(octets_of(service)),
            servers: servers_of(service, version),
        }));
    }
}

/// What a proxy is started with now, beside what is of one start alone.
fn options() -> Vec<String> {
    Settings::options(user::of_proxy().map(|(user, group)| Account { user, group }))
}

fn octets_of(service: &protocol::ProxyServiceStatus) -> CarriedOctets {
    CarriedOctets { inward: service.bytes_in, outward: service.bytes_out, a_second: None }
}

/// `version` of the proxy: one that counts no octets of servers says nothing of them.
fn servers_of(service: &protocol::ProxyServiceStatus, version: u32) -> Vec<BalancedServer> {
    let counts = version >= protocol::HANDOVER_SINCE;
    let server = |server: &protocol::ProxyServerStatus| BalancedServer {
        address: server.address,
        weight: server.weight,
        active: server.active,
        failures: server.failures,
        inactive: None,
        connection_rate: None,
        octets: counts.then_some(CarriedOctets {
            inward: server.bytes_in,
            outward: server.bytes_out,
            a_second: None,
        }),
    };
    service.servers.iter().map(server).collect()
}
