//! Services served by the built-in proxy: one process for all of them.
//!
//! It is started when the first service is wanted, taken over when one answers on the socket, told
//! the whole level at every change, and it ends by itself once it is told to serve nothing and its
//! last connection is over. So a backup runs no proxy.

mod link;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use locum_plan as plan;
use locum_plan::{Activity, Name, WantedService, WantedServices};
use locum_proxy::protocol::{self, Orphan, ProxyServer, ProxyService, Request, Status};
use nix::sys::signal::Signal;

use crate::backend::{Backend, Event, changes};
use crate::balancer::{BalancerSettings, ServeError};
use crate::process::{Backoff, Process};
use crate::proxy::link::Link;
use crate::status::{
    BackendKind, BalancerStatus, ProcessState, ProcessStatus, ServerStatus, ServiceState,
    ServiceStatus,
};

/// How long a new process may take to answer; it takes a few milliseconds.
const START_LIMIT: Duration = Duration::from_secs(2);
const START_POLL: Duration = Duration::from_millis(2);

/// How often the process is looked after while it runs.
const TICK: Duration = Duration::from_millis(200);

/// How often services that could not listen are told again, and the proxy is asked how it is.
const REPEAT: Duration = Duration::from_secs(1);

/// Requests in a row without an answer after which a process hangs and is killed.
const HUNG_AFTER: u32 = 3;

pub(crate) struct ProxyBackend {
    program: PathBuf,
    socket: PathBuf,
    share: WantedServices,
    /// What the proxy is told, less the services it cannot serve at all.
    level: Vec<ProxyService>,
    process: Option<Process>,
    link: Option<Link>,
    latest: Status,
    ticked_at: Option<Instant>,
    /// When it was last asked or told on our own account: who asks for a status all the time must
    /// not put that off.
    asked_at: Option<Instant>,
    unanswered: u32,
    /// The last level it heard was empty: its end is no failure, whatever is wanted since.
    told_to_end: bool,
    backoff: Backoff,
    restarts: u64,
    /// What is wrong with the process as a whole.
    trouble: Option<String>,
    failed: BTreeMap<Name, String>,
    notes: Vec<String>,
}

impl ProxyBackend {
    pub(crate) fn new(settings: &BalancerSettings) -> Self {
        Self {
            program: settings.locum_program.clone(),
            socket: settings.run_dir.join("proxy.sock"),
            share: WantedServices::default(),
            level: Vec::new(),
            process: None,
            link: None,
            latest: Status::default(),
            ticked_at: None,
            asked_at: None,
            unanswered: 0,
            told_to_end: false,
            backoff: Backoff::default(),
            restarts: 0,
            trouble: None,
            failed: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// Tells the level, to a proxy that is taken over or started where there is none.
    fn tell(&mut self, now: Instant) {
        self.reap(now);
        if self.link.is_none() {
            self.reach(now);
        }
        if self.link.is_some() {
            self.told_to_end |= self.level.is_empty();
            let (services, orphan) = (self.level.clone(), orphan_of(&self.share));
            self.asked_at = Some(now);
            self.ask(&Request::Serve { services, orphan });
            // Hung up on: it is not there any more, or has not heard the level.
            self.told_to_end &= self.link.is_none() || self.level.is_empty();
        }
        self.collect_failures();
    }

    /// Notices that the process ended.
    fn reap(&mut self, now: Instant) {
        let Some(end) = self.process.as_mut().and_then(Process::poll) else { return };
        let Some(process) = self.process.take() else { return };
        self.link = None;
        self.latest = Status::default();
        if std::mem::take(&mut self.told_to_end) {
            return;
        }
        self.backoff.fail(now, process.age());
        self.restarts += 1;
        let text = format!("the proxy (pid {}) {end}", process.pid());
        self.notes.push(text.clone());
        self.trouble = Some(text);
    }

    /// Connects to whatever proxy there is, or to a new one where one is needed.
    fn reach(&mut self, now: Instant) {
        if self.connect() {
            return;
        }
        if self.level.is_empty() || !self.backoff.is_due(now) {
            return;
        }
        if let Err(error) = self.start() {
            let text = format!("cannot start the proxy {}: {error}", self.program.display());
            self.trouble = Some(text);
            self.backoff.fail(now, Duration::ZERO);
        }
    }

    fn connect(&mut self) -> bool {
        let Ok(link) = Link::connect(&self.socket) else { return false };
        let peer = link.peer();
        if let Some(peer) = peer
            && self.process.as_ref().is_none_or(|process| process.identity() != peer)
        {
            self.notes
                .push(format!("the proxy (pid {}) of an earlier run is taken over", peer.pid));
            self.process = Some(Process::adopt(peer));
        }
        self.link = Some(link);
        true
    }

    /// Waits until a proxy answers: one that is starting, or else a new one.
    fn start(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < START_LIMIT {
            if self.process.is_none() {
                self.process = Some(self.spawn()?);
                self.backoff.started();
            }
            if self.connect() {
                return Ok(());
            }
            if let Some(end) = self.process.as_mut().and_then(Process::poll) {
                self.process = None;
                if !std::mem::take(&mut self.told_to_end) {
                    return Err(io::Error::other(format!("it {end}")));
                }
            }
            thread::sleep(START_POLL);
        }
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGKILL);
            process.poll();
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))
    }

    fn spawn(&self) -> io::Result<Process> {
        let mut command = Command::new(&self.program);
        command.arg("proxy").arg("--socket").arg(&self.socket);
        // It may never hear a level: this daemon may end first.
        if let Orphan::Milliseconds(timeout) = orphan_of(&self.share) {
            command.arg("--orphan-timeout").arg(timeout.to_string());
        }
        Process::start(command)
    }

    fn ask(&mut self, request: &Request) {
        let Some(link) = &mut self.link else { return };
        match link.ask(request) {
            Ok(status) => {
                self.latest = status;
                self.unanswered = 0;
                self.trouble = None;
            }
            // A proxy without anything to serve hangs up when it ends.
            Err(_) if self.level.is_empty() && self.is_gone() => self.link = None,
            Err(error) => {
                self.link = None;
                self.unanswered += 1;
                self.trouble = Some(format!("the proxy does not answer: {error}"));
                if self.unanswered >= HUNG_AFTER {
                    self.unanswered = 0;
                    self.notes.push("the proxy hangs and is killed".to_owned());
                    if let Some(process) = &mut self.process {
                        process.signal(Signal::SIGKILL);
                    }
                }
            }
        }
    }

    /// The process hung up because it ended, or is about to.
    fn is_gone(&mut self) -> bool {
        let ended = self.process.as_mut().is_none_or(|process| process.poll().is_some());
        if ended {
            self.process = None;
            self.latest = Status::default();
        }
        ended || Link::connect(&self.socket).is_err()
    }

    fn collect_failures(&mut self) {
        self.failed.clear();
        for wanted in &self.share.services {
            let name = &wanted.service.name;
            let observed = self.latest.services.iter().find(|s| s.name == **name);
            let error = match (unfit(wanted), &self.trouble, observed.map(|s| &s.state)) {
                (Some(error), _, _) => Some(error),
                (None, Some(trouble), _) => Some(trouble.clone()),
                (None, None, Some(protocol::ServiceState::Failed { error })) => Some(error.clone()),
                (None, None, Some(_)) => None,
                (None, None, None) => Some("the proxy is not running yet".to_owned()),
            };
            if let Some(error) = error {
                self.failed.insert(name.clone(), error);
            }
        }
    }

    fn process_status(&self) -> Option<ProcessStatus> {
        let waiting = || self.backoff.retry_in(Instant::now()).unwrap_or_default();
        let state = match (&self.process, self.level.is_empty()) {
            (Some(_), false) => ProcessState::Running,
            (Some(_), true) => ProcessState::Stopping,
            (None, false) => ProcessState::Waiting { retry_in: waiting() },
            (None, true) => return None,
        };
        Some(ProcessStatus {
            name: Name::from("proxy"),
            backend: BackendKind::Proxy,
            state,
            pid: self.process.as_ref().map(Process::pid),
            restarts: self.restarts,
            error: self.trouble.clone(),
        })
    }
}

/// Why the proxy cannot serve this at all.
fn unfit(wanted: &WantedService) -> Option<String> {
    match wanted.service.protocol {
        plan::Protocol::Tcp => None,
        plan::Protocol::Udp => {
            Some("the proxy serves tcp only, udp needs backend = \"ipvs\"".to_owned())
        }
    }
}

fn level_of(share: &WantedServices) -> Vec<ProxyService> {
    let fit = share.services.iter().filter(|wanted| unfit(wanted).is_none());
    fit.map(|wanted| ProxyService {
        name: wanted.service.name.to_string(),
        listen: wanted.service.listen,
        scheduler: wanted.service.scheduler.0.clone(),
        drain_ms: u64::try_from(wanted.service.drain.as_millis()).unwrap_or(u64::MAX),
        ready_only: match wanted.activity {
            Activity::Active => false,
            Activity::Ready => true,
        },
        servers: wanted
            .servers
            .iter()
            .map(|server| ProxyServer { address: server.address, weight: server.weight })
            .collect(),
    })
    .collect()
}

/// One process serves all: without a daemon it goes on as long as any of their addresses stays.
fn orphan_of(share: &WantedServices) -> Orphan {
    let fit = share.services.iter().filter(|wanted| unfit(wanted).is_none());
    let leases: Option<Vec<Duration>> = fit.map(|wanted| wanted.lease).collect();
    match leases {
        None => Orphan::ForEver,
        Some(leases) => {
            // The last connections of what was served finish under the lease they had.
            let longest = leases.into_iter().max();
            longest.map_or(Orphan::Unchanged, |longest| Orphan::from(Some(longest)))
        }
    }
}

impl Backend for ProxyBackend {
    fn apply(&mut self, share: &WantedServices, now: Instant) -> Vec<ServeError> {
        self.share = share.clone();
        let level = level_of(share);
        if level != self.level {
            self.level = level;
            self.backoff.reset();
        }
        self.tell(now);
        if self.link.is_none() && !self.level.is_empty() && self.backoff.is_due(now) {
            // A proxy that was just ending hung up: the next one is started at once.
            self.tell(now);
        }
        self.failed.clone().into_iter().collect()
    }

    fn tick(&mut self, now: Instant) -> Vec<Event> {
        self.ticked_at = Some(now);
        let before = self.failed.clone();
        self.reap(now);
        let due = self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= REPEAT);
        if self.link.is_none() || (due && !self.failed.is_empty()) {
            self.tell(now);
        } else if due {
            self.asked_at = Some(now);
            self.ask(&Request::Status);
            self.collect_failures();
        }
        let name = Name::from("proxy");
        let notes = self.notes.drain(..).map(|text| Event::Note { name: name.clone(), text });
        let mut events: Vec<_> = notes.collect();
        events.extend(changes(&before, &self.failed));
        events
    }

    fn next_tick(&self, now: Instant) -> Option<Duration> {
        let busy = !self.share.services.is_empty() || self.process.is_some() || self.link.is_some();
        let passed = self.ticked_at.map_or(TICK, |at| now.saturating_duration_since(at));
        busy.then_some(TICK.saturating_sub(passed))
    }

    fn status(&mut self, status: &mut BalancerStatus) {
        if self.link.is_some() {
            self.ask(&Request::Status);
        }
        status.processes.extend(self.process_status());
        for wanted in &self.share.services {
            let name = &wanted.service.name;
            let error = self.failed.get(name).cloned();
            let observed = self.latest.services.iter().find(|service| service.name == **name);
            status.services.push(ServiceStatus {
                name: name.clone(),
                backend: BackendKind::Proxy,
                listen: wanted.service.listen,
                state: match (&error, wanted.activity) {
                    (Some(_), _) => ServiceState::Failed,
                    (None, Activity::Active) => ServiceState::Serving,
                    (None, Activity::Ready) => ServiceState::Ready,
                },
                error,
                active: observed.map_or(0, |service| service.active),
                accepted: observed.map_or(0, |service| service.accepted),
                servers: observed.map_or_else(Vec::new, servers_of),
            });
        }
        let wanted = |name: &str| self.share.services.iter().any(|w| &*w.service.name == name);
        let leaving = self.latest.services.iter().filter(|service| !wanted(&service.name));
        status.services.extend(leaving.map(|service| ServiceStatus {
            name: Name::from(service.name.as_str()),
            backend: BackendKind::Proxy,
            listen: service.listen,
            state: ServiceState::Leaving,
            error: None,
            active: service.active,
            accepted: service.accepted,
            servers: servers_of(service),
        }));
    }
}

fn servers_of(service: &protocol::ServiceStatus) -> Vec<ServerStatus> {
    let server = |server: &protocol::ServerStatus| ServerStatus {
        address: server.address,
        weight: server.weight,
        active: server.active,
        failures: server.failures,
    };
    service.servers.iter().map(server).collect()
}
