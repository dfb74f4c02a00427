//! One HAProxy from one file of the user's own: started, watched, reloaded, stopped.
//!
//! ```text
//!                 nothing runs
//!   Settled ───────────────────────────────────► Launching ──► Starting ──► Settled
//!      │                                             ▲            │ ended
//!      │ another content runs                        │ accepted   ▼
//!      └────────────────► Checking (haproxy -c) ─────┘         Waiting ──► as from Settled
//!                             │ refused                           ▲
//!                             └───────────────────────────────────┘
//! ```
//!
//! At no time is the running one touched before the new one is known to serve: HAProxy's `-sf` makes
//! the new process tell the old one to finish, once it has bound everything. Where nothing runs there
//! is nothing to protect, and a start says all that a check would: what a failover waits for is not
//! checked first.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use locum_plan::{Activity, HaproxyFile, Name, Standby, WantedHaproxy};
use rustix::process::Signal;
use sha2::{Digest, Sha256};

use crate::backoff::Backoff;
use crate::haproxy::adopt::{Inheritance, Mark};
use crate::haproxy::check::Check;
use crate::haproxy::listening::{Listening, listening};
use crate::haproxy::message::{alerts, lacks_address};
use crate::haproxy::record::ProcessRecord;
use crate::process::Process;
use crate::status::{ProcessState, ProcessStatus};

/// A new process that listens and lives for this long has bound all its addresses, should it wait
/// for its clients in a way that we cannot see.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// One without TCP listeners, or that hides its sockets, counts as started after this long.
const START_LIMIT: Duration = Duration::from_secs(3);

/// Connections may finish for this long after the role was lost; the address is gone already.
const SOFT_STOP_LIMIT: Duration = Duration::from_secs(10);

/// From SIGTERM to SIGKILL.
const HARD_STOP_LIMIT: Duration = Duration::from_secs(2);

/// How often one that starts is looked at: the clients of a failover wait for it. One that takes
/// longer than [`QUICK_START`] waits for something else, and is looked at less often.
const START_POLL: Duration = Duration::from_millis(1);
const SLOW_START_POLL: Duration = Duration::from_millis(20);
const QUICK_START: Duration = Duration::from_secs(1);

/// How often one that is checked is looked at; a check takes some 50 ms, and nobody waits for it.
const CHECK_POLL: Duration = Duration::from_millis(10);

/// How often processes that run are looked after.
const WATCH: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Supervisor {
    file: Arc<HaproxyFile>,
    mark: Mark,
    /// `None`: it is not wanted.
    activity: Option<Activity>,
    error: Option<String>,
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
    /// To be started as soon as the key is written down.
    Launching {
        digest: String,
        key: String,
    },
    Starting {
        next: Running,
        key: String,
        bound_since: Option<Instant>,
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

impl Supervisor {
    pub(super) fn new(file: Arc<HaproxyFile>, mark: Mark, inheritance: Inheritance) -> Self {
        let Inheritance { keep: record, extra } = inheritance;
        let mut notes = Vec::new();
        let running = record.running.and_then(|(identity, digest)| {
            let process = Process::adopt(identity)?;
            notes.push(format!("haproxy (pid {}) of an earlier run is taken over", identity.pid));
            Some(Running { process, digest })
        });
        let adopt = |identity| Some(Leaving { process: Process::adopt(identity)?, next: None });
        let mut leaving: Vec<_> = record.leaving.into_iter().filter_map(adopt).collect();
        for mut one in extra.into_iter().filter_map(adopt) {
            let pid = one.process.pid();
            notes.push(format!(
                "haproxy (pid {pid}) of an earlier run is told to finish: another one serves"
            ));
            one.process.signal(Signal::USR1);
            leaving.push(one);
        }
        Self {
            file,
            mark,
            activity: None,
            error: None,
            running,
            phase: Phase::Settled,
            leaving,
            backoff: Backoff::default(),
            restarts: 0,
            notes,
        }
    }

    pub(super) fn record(&self) -> ProcessRecord {
        let record = |running: &Running| (running.process.identity(), running.digest.clone());
        let mut leaving: Vec<_> = self.leaving.iter().map(|l| l.process.identity()).collect();
        let running = self.running.as_ref().map(record);
        match &self.phase {
            // The new one takes over in a moment; until then both are ours.
            Phase::Starting { next, key, .. } => {
                leaving.extend(running.map(|(old, _)| old));
                ProcessRecord { running: Some(record(next)), leaving, key: Some(key.clone()) }
            }
            Phase::Launching { key, .. } => {
                ProcessRecord { running, leaving, key: Some(key.clone()) }
            }
            Phase::Settled | Phase::Checking { .. } | Phase::Waiting { .. } => {
                ProcessRecord { running, leaving, key: None }
            }
        }
    }

    /// Runs as `wanted` says from now on, or not at all. Looks at the content of the file, which may
    /// have changed while its name did not.
    pub(super) fn want(&mut self, wanted: Option<&WantedHaproxy>, now: Instant) {
        let Some(wanted) = wanted else {
            self.activity = None;
            return self.stop(now);
        };
        let activity = Some(wanted.activity);
        if self.activity != activity || *wanted.file != *self.file {
            // What failed before may have failed for that: for want of the address, for example.
            self.backoff.reset();
            if self.running.is_none() {
                self.error = None;
            }
        }
        self.activity = activity;
        self.file = wanted.file.clone();
        match self.digest() {
            Err(error) => {
                self.abandon(now);
                self.fail(error, String::new(), Duration::ZERO, now);
            }
            Ok(digest) if self.is_under_way(&digest) => {}
            Ok(digest) => {
                self.backoff.reset();
                self.attempt(digest, now);
            }
        }
    }

    /// Wanted, and it is not known yet whether it will serve.
    pub(super) fn is_pending(&self) -> bool {
        self.activity.is_some() && self.running.is_none() && self.error.is_none()
    }

    /// Why it does not run as wanted.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// How soon it should be looked at again.
    pub(super) fn pace(&self) -> Duration {
        match &self.phase {
            Phase::Launching { .. } => Duration::ZERO,
            Phase::Starting { next, .. } if next.process.age() < QUICK_START => START_POLL,
            Phase::Starting { .. } => SLOW_START_POLL,
            Phase::Checking { .. } => CHECK_POLL,
            Phase::Settled | Phase::Waiting { .. } => WATCH,
        }
    }

    /// This content runs, is being tried, or was refused and waits for its next attempt.
    fn is_under_way(&self, digest: &str) -> bool {
        match &self.phase {
            Phase::Settled => self.running.as_ref().is_some_and(|r| r.digest == *digest),
            Phase::Checking { digest: this, .. } | Phase::Waiting { digest: this } => {
                this == digest
            }
            Phase::Launching { digest: this, .. } => this == digest,
            Phase::Starting { next, .. } => next.digest == *digest,
        }
    }

    /// Goes on as far as it goes without waiting.
    pub(super) fn step(&mut self, now: Instant) {
        self.leaving.retain_mut(|leaving| !leaving.is_over(now));
        self.notice_death(now);
        match std::mem::replace(&mut self.phase, Phase::Settled) {
            Phase::Settled => {}
            Phase::Checking { check, digest } => self.continue_check(check, digest, now),
            Phase::Starting { next, key, bound_since } => {
                self.continue_start(next, key, bound_since, now);
            }
            Phase::Waiting { digest } if self.backoff.is_due(now) => self.retry(digest, now),
            waiting @ (Phase::Launching { .. } | Phase::Waiting { .. }) => self.phase = waiting,
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
            Phase::Checking { .. } | Phase::Launching { .. } | Phase::Waiting { .. } => {
                self.notes.push(text);
            }
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
            Ok(digest) => self.attempt(digest, now),
        }
    }

    /// Drops whatever was being tried and tries the file's present content.
    fn attempt(&mut self, digest: String, now: Instant) {
        self.abandon(now);
        match &self.running {
            None => self.prepare(digest, now),
            Some(running) if running.digest == digest => self.error = None,
            Some(_) => match Check::start(&self.file) {
                Ok(check) => self.phase = Phase::Checking { check, digest },
                Err(refusal) => self.fail(refusal.to_string(), digest, Duration::ZERO, now),
            },
        }
    }

    fn continue_check(&mut self, mut check: Check, digest: String, now: Instant) {
        match check.verdict() {
            Some(Ok(())) => self.prepare(digest, now),
            Some(Err(refusal)) => {
                let mut process = check.into_process();
                if process.poll().is_none() {
                    self.leaving.push(Leaving { process, next: None });
                }
                self.fail(refusal.to_string(), digest, Duration::ZERO, now);
            }
            None => self.phase = Phase::Checking { check, digest },
        }
    }

    fn prepare(&mut self, digest: String, now: Instant) {
        match fresh_key() {
            Ok(key) => self.phase = Phase::Launching { digest, key },
            Err(error) => self.fail(error, digest, Duration::ZERO, now),
        }
    }

    /// Starts what is to be launched, once [`Supervisor::record`] is on file: a crash from here on
    /// leaves a process that the next daemon can tell for ours. True when something was started.
    pub(super) fn launch(&mut self, now: Instant) -> bool {
        let (digest, key) = match std::mem::replace(&mut self.phase, Phase::Settled) {
            Phase::Launching { digest, key } => (digest, key),
            other => {
                self.phase = other;
                return false;
            }
        };
        let mut command = Command::new(&self.file.program);
        // In the foreground whatever the file says: a daemon would fork away from its supervisor.
        // With -db HAProxy writes no pid file either.
        command.arg("-db").arg("-f").arg(&self.file.config).stderr(Stdio::piped());
        self.mark.put(&mut command, &self.file.name, &digest, &key);
        if let Some(running) = &self.running {
            command.arg("-sf").arg(running.process.pid().to_string());
        }
        match Process::start(command) {
            Ok(process) => {
                self.backoff.started();
                let next = Running { process, digest };
                self.phase = Phase::Starting { next, key, bound_since: None };
            }
            Err(error) => {
                let error = format!("cannot run {}: {error}", self.file.program.display());
                self.fail(error, digest, Duration::ZERO, now);
            }
        }
        true
    }

    fn continue_start(
        &mut self,
        mut next: Running,
        key: String,
        mut bound_since: Option<Instant>,
        now: Instant,
    ) {
        if let Some(end) = next.process.poll() {
            let words = next.process.messages();
            let standby = self.activity == Some(Activity::Ready);
            let error = if standby && lacks_address(&words) {
                format!(
                    "haproxy cannot stand by, it may not bind an address that this node does not \
                     have: add \"transparent\" to its bind lines or set net.ipv4.ip_nonlocal_bind=1 \
                     (net.ipv6.ip_nonlocal_bind=1); it starts when this node is master: {}",
                    alerts(&words)
                )
            } else {
                format!("haproxy does not start, it {end}: {}", alerts(&words))
            };
            return self.fail(error, next.digest, Duration::ZERO, now);
        }
        let is_ready = match listening(next.process.pid()) {
            Listening::Accepting => true,
            Listening::Bound => {
                let since = *bound_since.get_or_insert(now);
                now.saturating_duration_since(since) >= SETTLED_AFTER
            }
            Listening::No => false,
        };
        if !is_ready && next.process.age() < START_LIMIT {
            self.phase = Phase::Starting { next, key, bound_since };
            return;
        }
        // The old one finishes in its own time, as `hard-stop-after` of its file bounds it.
        let old = self.running.replace(next);
        self.leaving.extend(old.map(|old| Leaving { process: old.process, next: None }));
        self.error = None;
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
            Phase::Settled | Phase::Launching { .. } | Phase::Waiting { .. } => {}
            Phase::Checking { check, .. } => {
                let process = check.into_process();
                self.leaving.push(Leaving { process, next: Some((Signal::KILL, now)) });
            }
            Phase::Starting { next, .. } => {
                let next = Leaving { process: next.process, next: Some((Signal::TERM, now)) };
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
            running.process.signal(Signal::USR1);
            self.leaving.push(Leaving { process: running.process, next: None });
        }
        for leaving in &mut self.leaving {
            leaving.next.get_or_insert((Signal::TERM, now + SOFT_STOP_LIMIT));
        }
    }

    /// Not wanted, and nothing of it is left.
    pub(super) fn is_over(&self) -> bool {
        self.activity.is_none() && self.running.is_none() && self.leaving.is_empty()
    }

    fn digest(&self) -> Result<String, String> {
        let path = &self.file.config;
        let text =
            fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Ok(Sha256::digest(text).iter().map(|octet| format!("{octet:02x}")).collect())
    }

    pub(super) fn status(&self, now: Instant) -> ProcessStatus {
        let state = match (&self.running, self.activity) {
            (Some(_), _) => ProcessState::Running,
            (None, Some(_)) => {
                ProcessState::Waiting { retry_in: self.backoff.retry_in(now).unwrap_or_default() }
            }
            (None, None) => ProcessState::Stopping,
        };
        let leaving = || self.leaving.first().map(|leaving| leaving.process.pid());
        ProcessStatus {
            name: self.file.name.clone(),
            backend: "haproxy",
            state,
            is_changing: match &self.phase {
                Phase::Checking { .. } | Phase::Launching { .. } | Phase::Starting { .. } => true,
                Phase::Settled | Phase::Waiting { .. } => false,
            },
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
            self.next = Some((Signal::KILL, now + HARD_STOP_LIMIT));
        }
        false
    }
}

/// Of one start: a number that the kernel gives out once.
fn fresh_key() -> Result<String, String> {
    const SOURCE: &str = "/proc/sys/kernel/random/uuid";
    let text = fs::read_to_string(SOURCE);
    text.map(|key| key.trim().to_owned()).map_err(|error| format!("cannot read {SOURCE}: {error}"))
}

/// Stands for the file of a HAProxy that an earlier daemon left, until a level names it.
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
