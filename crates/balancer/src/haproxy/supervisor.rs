//! One HAProxy from one file: started, watched, reloaded, stopped.
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

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use locum_plan::{Activity, HaproxyFile, Name, Standby, WantedHaproxy};
use rustix::process::Signal;

use crate::backoff::Backoff;
use crate::haproxy::adopt::{Inheritance, Mark};
use crate::haproxy::check::FileCheck;
use crate::haproxy::leaving::Leaving;
use crate::haproxy::listening::{Listening, listening};
use crate::haproxy::liveness::Liveness;
use crate::haproxy::message::{alerts, lacks_address, taken_up};
use crate::haproxy::named_files::{FileContent, FileReader};
use crate::haproxy::own_host::OwnHost;
use crate::haproxy::record::{ProcessRecord, fresh_key};
use crate::haproxy::standing::Standing;
use crate::process::Process;
use crate::status::{ProcessState, SupervisedProcess};

/// What the socket beside a file of ours is called.
pub(crate) const SOCKET: &str = "sock";

/// A first process that listens and lives for this long has bound all its addresses, should it wait
/// for its clients in a way that we cannot see.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// One whose file names no TCP listener counts as started after this long: there is nothing to see.
const START_LIMIT: Duration = Duration::from_secs(3);

/// Any other one, which hides its sockets or waits at them in a way that we cannot see. One that cannot
/// bind an address gives up by itself after two seconds of the processor time that it gets.
const HIDDEN_START_LIMIT: Duration = Duration::from_secs(30);

/// Connections may finish for this long after the role was lost; the address is gone already.
const SOFT_STOP_LIMIT: Duration = Duration::from_secs(10);

/// How often one that starts is looked at: the clients of a failover wait for it. One that takes
/// longer than [`QUICK_START`] waits for something else, and is looked at less often.
const START_POLL: Duration = Duration::from_millis(1);
const SLOW_START_POLL: Duration = Duration::from_millis(20);
const QUICK_START: Duration = Duration::from_secs(1);

/// How often one that is checked is looked at; a check takes some 50 ms, and nobody waits for it.
const CHECK_POLL: Duration = Duration::from_millis(10);

/// Somebody who writes a file is done by then, or will be by the next time.
const UNSETTLED: Duration = Duration::from_millis(500);

/// How often processes that run are looked after.
const WATCH: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Supervisor {
    file: Arc<HaproxyFile>,
    mark: Mark,
    has_socket: bool,
    /// `None`: it is not wanted.
    activity: Option<Activity>,
    reader: FileReader,
    /// When to look at files again that changed while they were read.
    look_at: Option<Instant>,
    error: Option<String>,
    /// Of the one that runs, while it has to answer clients.
    liveness: Option<Liveness>,
    running: Option<RunningHaproxy>,
    phase: Phase,
    leaving: Vec<Leaving>,
    backoff: Backoff,
    restarts: u64,
    /// Notes for the log since they were last taken.
    pub notes: Vec<String>,
}

#[derive(Debug)]
struct RunningHaproxy {
    process: Process,
    /// What it was started from.
    content: FileContent,
}

#[derive(Debug)]
enum Phase {
    /// What runs is what is wanted, or nothing is wanted.
    Settled,
    Checking {
        check: FileCheck,
        content: FileContent,
    },
    /// To be started as soon as the key is written down.
    Launching {
        content: FileContent,
        key: String,
    },
    Starting {
        next: RunningHaproxy,
        key: String,
        bound_since: Option<Instant>,
        /// For the log, once it serves: what it takes over, which may have ended by then.
        note: Option<String>,
    },
    /// The last attempt failed; the back-off says when the next one is.
    Waiting {
        content: FileContent,
    },
}

impl Supervisor {
    /// `has_socket`: its file is one of ours, and says where it can be spoken to.
    pub(super) fn new(
        file: Arc<HaproxyFile>,
        mark: Mark,
        inheritance: Inheritance,
        has_socket: bool,
    ) -> Self {
        let Inheritance { keep: record, extra } = inheritance;
        let mut notes = Vec::new();
        let running = record.running.and_then(|(identity, digest)| {
            let process = Process::adopt(identity)?;
            notes.push(format!("haproxy (pid {}) of an earlier run is taken over", identity.pid));
            Some(RunningHaproxy { process, content: FileContent::of_digest(digest) })
        });
        let adopt = |identity| Some(Leaving::new(Process::adopt(identity)?));
        let mut leaving: Vec<_> = record.leaving.into_iter().filter_map(adopt).collect();
        for mut one in extra.into_iter().filter_map(adopt) {
            let pid = one.pid();
            notes.push(format!(
                "haproxy (pid {pid}) of an earlier run is told to finish: another one serves"
            ));
            one.process().signal(Signal::USR1);
            leaving.push(one);
        }
        Self {
            file,
            mark,
            has_socket,
            activity: None,
            reader: FileReader::default(),
            look_at: None,
            liveness: None,
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
        let record =
            |running: &RunningHaproxy| (running.process.identity(), running.content.digest.clone());
        let mut leaving: Vec<_> = self.leaving.iter().map(Leaving::identity).collect();
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
        self.look(now);
    }

    /// Tries the present content of the files, unless it runs or is being tried.
    fn look(&mut self, now: Instant) {
        match self.read(now) {
            Err(error) => {
                self.abandon(now);
                self.fail(error, FileContent::default(), Duration::ZERO, now);
            }
            Ok(content) if self.is_under_way(&content) => self.recognise(content),
            Ok(content) => {
                self.backoff.reset();
                self.attempt(content, now);
            }
        }
    }

    fn read(&mut self, now: Instant) -> Result<FileContent, String> {
        let content = self.reader.read(&self.file.config);
        self.look_at = self.reader.is_unsettled.then(|| now + UNSETTLED);
        content
    }

    /// What its clients have of it.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let answers = self.liveness.as_ref().map_or(Standing::Answers, |one| one.standing(now));
        match (&self.error, &self.running, answers) {
            (Some(error), None, _) => Standing::Failed(error.clone()),
            (None, None, _) if self.activity.is_some() => Standing::Pending,
            (None, None, _) => Standing::Answers,
            (Some(error), Some(_), Standing::Answers | Standing::Pending) => {
                Standing::Strained(format!("serves on as it is, a change is not taken up: {error}"))
            }
            (Some(error), Some(_), Standing::Strained(strain)) => {
                Standing::Strained(format!("{strain}; a change is not taken up: {error}"))
            }
            (Some(_), Some(_), failed @ Standing::Failed(_)) => failed,
            (None, Some(_), answers) => answers,
        }
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
    fn is_under_way(&self, content: &FileContent) -> bool {
        let tried = match &self.phase {
            Phase::Settled => self.running.as_ref().map(|running| &running.content),
            Phase::Checking { content, .. }
            | Phase::Waiting { content }
            | Phase::Launching { content, .. }
            | Phase::Starting { next: RunningHaproxy { content, .. }, .. } => Some(content),
        };
        tried.is_some_and(|tried| tried.digest == content.digest)
    }

    /// Goes on as far as it goes without waiting.
    pub(super) fn step(&mut self, host: &mut OwnHost, now: Instant) {
        self.advance(now);
        self.ask(host, now);
    }

    fn advance(&mut self, now: Instant) {
        self.leaving.retain_mut(|leaving| !leaving.is_over(now));
        self.notice_death(now);
        if self.activity.is_some() && self.look_at.is_some_and(|at| now >= at) {
            self.look(now);
        }
        match std::mem::replace(&mut self.phase, Phase::Settled) {
            Phase::Settled => {}
            Phase::Checking { check, content } => self.continue_check(check, content, now),
            Phase::Starting { next, key, bound_since, note } => {
                self.continue_start(next, key, bound_since, note, now);
            }
            Phase::Waiting { content } if self.backoff.is_due(now) => self.retry(content, now),
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
                self.fail(text, dead.content, dead.process.age(), now);
                if self.backoff.is_due(now) {
                    // Not before it is known that it cannot be started again.
                    self.error = None;
                }
            }
            // What could not be taken up beside it is all there is now, and it may have been in the
            // way of that.
            Phase::Waiting { .. } => {
                self.notes.push(text);
                self.backoff.reset();
                self.restarts += 1;
                self.error = None;
            }
            // The next attempt is under way already.
            Phase::Checking { .. } | Phase::Launching { .. } => self.notes.push(text),
            // Its successor told it to finish.
            Phase::Starting { .. } => {}
        }
    }

    /// What runs may be what the file says again, after a change that was taken back.
    fn retry(&mut self, content: FileContent, now: Instant) {
        match self.read(now) {
            Err(error) => self.fail(error, content, Duration::ZERO, now),
            Ok(content) if self.runs(&content) => {
                self.error = None;
                self.phase = Phase::Settled;
            }
            Ok(content) => self.attempt(content, now),
        }
    }

    fn runs(&self, content: &FileContent) -> bool {
        self.running.as_ref().is_some_and(|running| running.content.digest == content.digest)
    }

    /// What an earlier daemon started from this content is known by its digest alone.
    fn recognise(&mut self, content: FileContent) {
        if let Some(running) = &mut self.running
            && running.content.digest == content.digest
        {
            running.content = content;
        }
    }

    /// Looks whether clients of what runs are answered, or would be, as far as it listens at addresses
    /// of this host.
    fn ask(&mut self, host: &mut OwnHost, now: Instant) {
        let (Some(running), Some(Activity::Active | Activity::Ready)) =
            (&self.running, self.activity)
        else {
            self.liveness = None;
            return;
        };
        let pid = running.process.pid();
        let (binds, answer) = (&running.content.binds, self.file.answer.as_ref());
        let liveness = match self.liveness.take() {
            Some(liveness) if liveness.is_of(pid, binds, answer) => liveness,
            Some(_) | None => Liveness::new(pid, binds, answer, now),
        };
        let liveness = self.liveness.insert(liveness);
        match &self.phase {
            // It makes room for its successor, and clients may have to try twice.
            Phase::Launching { .. } | Phase::Starting { .. } => liveness.pause(),
            Phase::Settled | Phase::Checking { .. } | Phase::Waiting { .. } => {
                liveness.poll(host, now);
            }
        }
    }

    /// Drops whatever was being tried and tries the present content.
    fn attempt(&mut self, content: FileContent, now: Instant) {
        self.abandon(now);
        if self.running.is_none() {
            return self.prepare(content, now);
        }
        if self.runs(&content) {
            self.error = None;
            return;
        }
        match FileCheck::start(&self.file) {
            Ok(check) => self.phase = Phase::Checking { check, content },
            Err(refusal) => self.fail(refusal.to_string(), content, Duration::ZERO, now),
        }
    }

    fn continue_check(&mut self, mut check: FileCheck, content: FileContent, now: Instant) {
        match check.verdict() {
            Some(Ok(())) => self.prepare(content, now),
            Some(Err(refusal)) => {
                let mut process = check.into_process();
                if process.poll().is_none() {
                    self.leaving.push(Leaving::new(process));
                }
                self.fail(refusal.to_string(), content, Duration::ZERO, now);
            }
            None => self.phase = Phase::Checking { check, content },
        }
    }

    fn prepare(&mut self, content: FileContent, now: Instant) {
        match fresh_key() {
            Ok(key) => self.phase = Phase::Launching { content, key },
            Err(error) => self.fail(error, content, Duration::ZERO, now),
        }
    }

    /// Starts what is to be launched, once [`Supervisor::record`] is on file: a crash from here on
    /// leaves a process that the next daemon can tell for ours. True when something was started.
    pub(super) fn launch(&mut self, now: Instant) -> bool {
        let (content, key) = match std::mem::replace(&mut self.phase, Phase::Settled) {
            Phase::Launching { content, key } => (content, key),
            other => {
                self.phase = other;
                return false;
            }
        };
        let mut command = Command::new(&self.file.program);
        if let Some(socket) = self.handover() {
            command.arg("-x").arg(socket);
        }
        // In the foreground whatever the file says: a daemon would fork away from its supervisor.
        // With -db HAProxy writes no pid file either.
        command.arg("-db").arg("-f").arg(&self.file.config).stderr(Stdio::piped());
        self.mark.put(&mut command, &self.file.name, &content.digest, &key);
        if let Some(running) = &self.running {
            command.arg("-sf").arg(running.process.pid().to_string());
        }
        match Process::start(command) {
            Ok(process) => {
                self.backoff.started();
                let note = self.running.as_ref().map(|old| {
                    let changed = old.content.changed(&content);
                    taken_up(process.pid(), old.process.pid(), &changed)
                });
                let next = RunningHaproxy { process, content };
                self.phase = Phase::Starting { next, key, bound_since: None, note };
            }
            Err(error) => {
                let error = format!("cannot run {}: {error}", self.file.program.display());
                self.fail(error, content, Duration::ZERO, now);
            }
        }
        true
    }

    /// Where the one that runs hands its listeners over: whoever waits there is accepted by its
    /// successor. Without that the two listen side by side for a moment, and who waits at the old one
    /// when it closes is turned away.
    fn handover(&self) -> Option<PathBuf> {
        let socket = self.file.config.with_extension(SOCKET);
        // HAProxy does not start when nobody answers there.
        let answers = || UnixStream::connect(&socket).is_ok();
        (self.has_socket && self.running.is_some() && answers()).then_some(socket)
    }

    /// The process that runs and is not being replaced.
    pub(super) fn pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Launching { .. } | Phase::Starting { .. } => None,
            Phase::Settled | Phase::Checking { .. } | Phase::Waiting { .. } => {
                Some(self.running.as_ref()?.process.pid())
            }
        }
    }

    fn continue_start(
        &mut self,
        mut next: RunningHaproxy,
        key: String,
        mut bound_since: Option<Instant>,
        note: Option<String>,
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
            return self.fail(error, next.content, Duration::ZERO, now);
        }
        let is_ready = match listening(next.process.pid()) {
            Listening::Accepting => true,
            // While one of its addresses is taken it tries for two seconds, if there is an old one
            // to make room for it, and has all the others meanwhile.
            Listening::Bound if self.running.is_some() => false,
            Listening::Bound => {
                let since = *bound_since.get_or_insert(now);
                now.saturating_duration_since(since) >= SETTLED_AFTER
            }
            Listening::No => false,
        };
        let has_listeners = next.content.binds.iter().any(|bind| !bind.addresses.is_empty());
        let limit = if has_listeners { HIDDEN_START_LIMIT } else { START_LIMIT };
        if !is_ready && next.process.age() < limit {
            self.phase = Phase::Starting { next, key, bound_since, note };
            return;
        }
        // The old one finishes in its own time, as `hard-stop-after` of its file bounds it.
        self.notes.extend(note);
        let old = self.running.replace(next);
        self.leaving.extend(old.map(|old| Leaving::new(old.process)));
        self.error = None;
    }

    fn fail(&mut self, error: String, content: FileContent, ran: Duration, now: Instant) {
        self.backoff.fail(now, ran);
        self.restarts += u64::from(self.running.is_none() && !ran.is_zero());
        self.error = Some(error);
        self.phase = Phase::Waiting { content };
    }

    /// Ends a check or a start under way.
    fn abandon(&mut self, now: Instant) {
        match std::mem::replace(&mut self.phase, Phase::Settled) {
            Phase::Settled | Phase::Launching { .. } | Phase::Waiting { .. } => {}
            Phase::Checking { check, .. } => {
                self.leaving.push(Leaving::signalled(check.into_process(), Signal::KILL, now));
            }
            Phase::Starting { next, .. } => {
                self.leaving.push(Leaving::signalled(next.process, Signal::TERM, now));
            }
        }
    }

    /// The role is lost: listeners close at once, connections may finish for a while.
    fn stop(&mut self, now: Instant) {
        self.abandon(now);
        self.error = None;
        self.backoff.reset();
        if let Some(mut running) = self.running.take() {
            if self.liveness.as_ref().is_some_and(|liveness| liveness.hangs(now)) {
                // It would finish nothing, and keep the ports: of the clients of its successor the
                // kernel would give it half.
                self.leaving.push(Leaving::signalled(running.process, Signal::KILL, now));
            } else {
                running.process.signal(Signal::USR1);
                self.leaving.push(Leaving::new(running.process));
            }
        }
        for leaving in &mut self.leaving {
            leaving.end_by(now + SOFT_STOP_LIMIT);
        }
    }

    /// Not wanted, and nothing of it is left.
    pub(super) fn is_over(&self) -> bool {
        self.activity.is_none() && self.running.is_none() && self.leaving.is_empty()
    }

    pub(super) fn status(&self, now: Instant) -> SupervisedProcess {
        let state = match (&self.running, self.activity) {
            (Some(_), _) => ProcessState::Running,
            (None, Some(_)) => {
                ProcessState::Waiting { retry_in: self.backoff.retry_in(now).unwrap_or_default() }
            }
            (None, None) => ProcessState::Stopping,
        };
        let leaving = || self.leaving.first().map(Leaving::pid);
        SupervisedProcess {
            name: self.file.name.clone(),
            backend: "haproxy",
            state,
            is_changing: match &self.phase {
                Phase::Checking { .. } | Phase::Launching { .. } | Phase::Starting { .. } => true,
                Phase::Settled | Phase::Waiting { .. } => false,
            },
            is_refused: matches!(self.phase, Phase::Waiting { .. }),
            pid: self.running.as_ref().map(|running| running.process.pid()).or_else(leaving),
            restarts: self.restarts,
            error: match self.standing(now) {
                Standing::Failed(error) | Standing::Strained(error) => Some(error),
                Standing::Answers | Standing::Pending => None,
            },
        }
    }
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
        answer: None,
    })
}
