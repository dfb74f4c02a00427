//! One HAProxy from one file of the user's own: checked, started, watched, reloaded, stopped.
//!
//! ```text
//!            content changed, or not running
//!   Settled ─────────────────────────────────► Checking (haproxy -c)
//!      ▲  ▲                                       │ accepted       │ refused
//!      │  └──── listening ──── Starting ◄─────────┘                ▼
//!      │                          │ ended                       Waiting ──► Checking
//!      └── the old one serves on ─┴───────────────────────────────►┘
//! ```
//!
//! At no time is the running one touched before the new one is known to serve: HAProxy's `-sf` makes
//! the new process tell the old one to finish, once it has bound everything.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use locum_plan::{HaproxyFile, Name, Standby};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::haproxy::check::Check;
use crate::haproxy::listening::is_listening;
use crate::haproxy::message::alerts;
use crate::haproxy::survivors::{Inheritance, Mark};
use crate::process::{Backoff, Identity, Process};
use crate::status::{BackendKind, ProcessState, ProcessStatus};

/// A new process that listens and lives for this long has bound all its addresses.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// One without TCP listeners, or that hides its sockets, counts as started after this long.
const START_LIMIT: Duration = Duration::from_secs(3);

/// Connections may finish for this long after the role was lost; the address is gone already.
const SOFT_STOP_LIMIT: Duration = Duration::from_secs(10);

/// From SIGTERM to SIGKILL.
const HARD_STOP_LIMIT: Duration = Duration::from_secs(2);

/// What is remembered of a unit for the next daemon.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub running: Option<(Identity, String)>,
    pub leaving: Vec<Identity>,
}

#[derive(Debug)]
pub(super) struct Unit {
    pub file: Arc<HaproxyFile>,
    mark: Mark,
    pub wanted: bool,
    pub error: Option<String>,
    running: Option<Running>,
    phase: Phase,
    leaving: Vec<Leaving>,
    backoff: Backoff,
    restarts: u64,
    /// Notes for the log since they were last taken.
    pub notes: Vec<String>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    /// Of the file it was started from.
    digest: String,
}

#[derive(Debug)]
enum Phase {
    /// What runs is what is wanted, or nothing is wanted.
    Settled,
    Checking {
        check: Check,
        digest: String,
    },
    Starting {
        next: Running,
        listening_since: Option<Instant>,
    },
    /// The last attempt failed; the back-off says when the next one is.
    Waiting {
        digest: String,
    },
}

#[derive(Debug)]
struct Leaving {
    process: Process,
    /// The signal to send next, and when; `None` lets it finish in its own time.
    next: Option<(Signal, Instant)>,
}

impl Unit {
    pub(super) fn new(file: Arc<HaproxyFile>, mark: Mark, inheritance: Inheritance) -> Self {
        let Inheritance { keep: remembered, surplus } = inheritance;
        let alive = |identity: &Identity| identity.is_alive();
        let mut notes = Vec::new();
        let running = remembered.running.filter(|(identity, _)| alive(identity));
        if let Some((identity, _)) = &running {
            notes.push(format!("haproxy (pid {}) of an earlier run is taken over", identity.pid));
        }
        let adopt = |identity| Leaving { process: Process::adopt(identity), next: None };
        let mut leaving: Vec<_> = remembered.leaving.into_iter().filter(alive).map(adopt).collect();
        for identity in surplus {
            let text = "of an earlier run is one too many and told to finish";
            notes.push(format!("haproxy (pid {}) {text}", identity.pid));
            let mut one = adopt(identity);
            one.process.signal(Signal::SIGUSR1);
            leaving.push(one);
        }
        Self {
            file,
            mark,
            wanted: false,
            error: None,
            running: running
                .map(|(identity, digest)| Running { process: Process::adopt(identity), digest }),
            phase: Phase::Settled,
            leaving,
            backoff: Backoff::default(),
            restarts: 0,
            notes,
        }
    }

    pub(super) fn remembered(&self) -> Remembered {
        let record = |running: &Running| (running.process.identity(), running.digest.clone());
        let mut leaving: Vec<_> = self.leaving.iter().map(|l| l.process.identity()).collect();
        let running = match &self.phase {
            // The new one takes over in a moment; until then both are ours.
            Phase::Starting { next, .. } => {
                leaving.extend(self.running.iter().map(|old| old.process.identity()));
                Some(record(next))
            }
            Phase::Settled | Phase::Checking { .. } | Phase::Waiting { .. } => {
                self.running.as_ref().map(record)
            }
        };
        Remembered { running, leaving }
    }

    /// Runs from `file` from now on, or not at all. Looks at the content of the file, which may
    /// have changed while its name did not.
    pub(super) fn want(&mut self, file: Option<&Arc<HaproxyFile>>, now: Instant) {
        let Some(file) = file else {
            self.wanted = false;
            return self.stop(now);
        };
        if !self.wanted || *file != self.file {
            self.backoff.reset();
        }
        self.wanted = true;
        self.file = file.clone();
        match self.digest() {
            Err(error) => {
                self.abandon(now);
                self.fail(error, String::new(), Duration::ZERO, now);
            }
            Ok(digest) if self.is_under_way(&digest) => {}
            Ok(digest) => {
                self.backoff.reset();
                self.check(digest, now);
            }
        }
    }

    /// This content runs, is being tried, or was refused and waits for its next attempt.
    fn is_under_way(&self, digest: &str) -> bool {
        match &self.phase {
            Phase::Settled => self.running.as_ref().is_some_and(|r| r.digest == *digest),
            Phase::Checking { digest: this, .. } | Phase::Waiting { digest: this } => {
                this == digest
            }
            Phase::Starting { next, .. } => next.digest == *digest,
        }
    }

    /// Goes on as far as it goes without waiting. True when there is nothing to wait for but a
    /// retry.
    pub(super) fn step(&mut self, now: Instant) -> bool {
        self.leaving.retain_mut(|leaving| !leaving.is_over(now));
        self.notice_death(now);
        match std::mem::replace(&mut self.phase, Phase::Settled) {
            Phase::Settled => true,
            Phase::Checking { check, digest } => self.continue_check(check, digest, now),
            Phase::Starting { next, listening_since } => {
                self.continue_start(next, listening_since, now)
            }
            Phase::Waiting { digest } if self.backoff.is_due(now) => {
                self.retry(digest, now);
                false
            }
            Phase::Waiting { digest } => {
                self.phase = Phase::Waiting { digest };
                true
            }
        }
    }

    fn notice_death(&mut self, now: Instant) {
        let Some(end) = self.running.as_mut().and_then(|running| running.process.poll()) else {
            return;
        };
        let Some(dead) = self.running.take() else { return };
        let mut text = format!("haproxy (pid {}) {end}", dead.process.pid());
        let words = dead.process.messages();
        if words.iter().any(|line| line.starts_with("[ALERT]")) {
            text = format!("{text}: {}", alerts(&words));
        }
        match self.phase {
            Phase::Settled => {
                self.notes.push(text.clone());
                self.fail(text, dead.digest, dead.process.age(), now);
            }
            // The next attempt is under way already.
            Phase::Checking { .. } | Phase::Waiting { .. } => self.notes.push(text),
            // Its successor told it to finish.
            Phase::Starting { .. } => {}
        }
    }

    /// What runs may be what the file says again, after a change that was taken back.
    fn retry(&mut self, digest: String, now: Instant) {
        match self.digest() {
            Err(error) => self.fail(error, digest, Duration::ZERO, now),
            Ok(digest) if self.running.as_ref().is_some_and(|r| r.digest == digest) => {
                self.error = None;
                self.phase = Phase::Settled;
            }
            Ok(digest) => self.check(digest, now),
        }
    }

    /// Drops whatever was being tried and tries the file's present content.
    fn check(&mut self, digest: String, now: Instant) {
        self.abandon(now);
        if self.running.as_ref().is_some_and(|running| running.digest == digest) {
            self.error = None;
            return;
        }
        match Check::start(&self.file) {
            Ok(check) => self.phase = Phase::Checking { check, digest },
            Err(refusal) => self.fail(refusal.to_string(), digest, Duration::ZERO, now),
        }
    }

    fn continue_check(&mut self, mut check: Check, digest: String, now: Instant) -> bool {
        match check.verdict() {
            Some(Ok(())) => {
                self.start(digest, now);
                false
            }
            Some(Err(refusal)) => {
                let mut process = check.into_process();
                if process.poll().is_none() {
                    self.leaving.push(Leaving { process, next: None });
                }
                self.fail(refusal.to_string(), digest, Duration::ZERO, now);
                true
            }
            None => {
                self.phase = Phase::Checking { check, digest };
                false
            }
        }
    }

    fn start(&mut self, digest: String, now: Instant) {
        let mut command = Command::new(&self.file.program);
        // In the foreground whatever the file says: a daemon would fork away from its supervisor.
        // With -db HAProxy writes no pid file either.
        command.arg("-db").arg("-f").arg(&self.file.config).stderr(Stdio::piped());
        self.mark.put(&mut command, &self.file.name, &digest);
        if let Some(running) = &self.running {
            command.arg("-sf").arg(running.process.pid().to_string());
        }
        match Process::start(command) {
            Ok(process) => {
                self.backoff.started();
                let next = Running { process, digest };
                self.phase = Phase::Starting { next, listening_since: None };
            }
            Err(error) => {
                let error = format!("cannot run {}: {error}", self.file.program.display());
                self.fail(error, digest, Duration::ZERO, now);
            }
        }
    }

    fn continue_start(
        &mut self,
        mut next: Running,
        listening_since: Option<Instant>,
        now: Instant,
    ) -> bool {
        if let Some(end) = next.process.poll() {
            let words = alerts(&next.process.messages());
            let error = format!("haproxy does not start, it {end}: {words}");
            self.fail(error, next.digest, Duration::ZERO, now);
            return true;
        }
        let listening_since =
            listening_since.or_else(|| is_listening(next.process.pid()).then_some(now));
        let settled = listening_since
            .is_some_and(|since| now.saturating_duration_since(since) >= SETTLED_AFTER);
        if !settled && next.process.age() < START_LIMIT {
            self.phase = Phase::Starting { next, listening_since };
            return false;
        }
        // The old one finishes in its own time, as `hard-stop-after` of its file bounds it.
        let old = self.running.replace(next);
        self.leaving.extend(old.map(|old| Leaving { process: old.process, next: None }));
        self.error = None;
        self.phase = Phase::Settled;
        true
    }

    fn fail(&mut self, error: String, digest: String, ran: Duration, now: Instant) {
        self.backoff.fail(now, ran);
        self.restarts += u64::from(self.running.is_none() && !ran.is_zero());
        self.error = Some(error);
        self.phase = Phase::Waiting { digest };
    }

    /// Ends a check or a start under way.
    fn abandon(&mut self, now: Instant) {
        match std::mem::replace(&mut self.phase, Phase::Settled) {
            Phase::Settled | Phase::Waiting { .. } => {}
            Phase::Checking { check, .. } => {
                let process = check.into_process();
                self.leaving.push(Leaving { process, next: Some((Signal::SIGKILL, now)) });
            }
            Phase::Starting { next, .. } => {
                let next = Leaving { process: next.process, next: Some((Signal::SIGTERM, now)) };
                self.leaving.push(next);
            }
        }
    }

    /// The role is lost: listeners close at once, connections may finish for a while.
    fn stop(&mut self, now: Instant) {
        self.abandon(now);
        self.error = None;
        self.backoff.reset();
        if let Some(mut running) = self.running.take() {
            running.process.signal(Signal::SIGUSR1);
            self.leaving.push(Leaving { process: running.process, next: None });
        }
        for leaving in &mut self.leaving {
            leaving.next.get_or_insert((Signal::SIGTERM, now + SOFT_STOP_LIMIT));
        }
    }

    /// Not wanted, and nothing of it is left.
    pub(super) fn is_over(&self) -> bool {
        !self.wanted && self.running.is_none() && self.leaving.is_empty()
    }

    fn digest(&self) -> Result<String, String> {
        let path = &self.file.config;
        let text =
            fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Ok(Sha256::digest(text).iter().map(|octet| format!("{octet:02x}")).collect())
    }

    pub(super) fn status(&self, now: Instant) -> ProcessStatus {
        let state = match (&self.running, self.wanted) {
            (Some(_), _) => ProcessState::Running,
            (None, true) => {
                ProcessState::Waiting { retry_in: self.backoff.retry_in(now).unwrap_or_default() }
            }
            (None, false) => ProcessState::Stopping,
        };
        let leaving = || self.leaving.first().map(|leaving| leaving.process.pid());
        ProcessStatus {
            name: self.file.name.clone(),
            backend: BackendKind::Haproxy,
            state,
            pid: self.running.as_ref().map(|running| running.process.pid()).or_else(leaving),
            restarts: self.restarts,
            error: self.error.clone(),
        }
    }
}

impl Leaving {
    fn is_over(&mut self, now: Instant) -> bool {
        if self.process.poll().is_some() {
            return true;
        }
        if let Some((signal, at)) = self.next
            && now >= at
        {
            self.process.signal(signal);
            self.next = Some((Signal::SIGKILL, now + HARD_STOP_LIMIT));
        }
        false
    }
}

/// Stands for the file of a unit that an earlier daemon left, until a level names it.
pub(super) fn unknown_file(name: Name) -> Arc<HaproxyFile> {
    let nothing = PathBuf::new();
    Arc::new(HaproxyFile {
        name,
        instance: None,
        config: nothing.clone(),
        program: nothing,
        standby: Standby::Cold,
    })
}
