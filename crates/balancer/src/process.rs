//! A process that outlives its daemon: started by us or taken over from an earlier run, told apart
//! from a later one of the same number, watched, signalled, and started again with back-off.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process for as long as the machine runs: numbers are used again, start times are not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub pid: u32,
    /// Clock ticks since boot, field 22 of /proc/PID/stat.
    pub start_time: u64,
}

impl Identity {
    /// `None` when there is no such process, or only its corpse.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may hold anything, spaces and parentheses included.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        // `state` is field 3, so that field 22 is the nineteenth after it.
        let start_time = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Self { pid, start_time })
    }

    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

#[derive(Debug)]
pub(crate) struct Process {
    identity: Identity,
    /// Absent for one that an earlier daemon started: its end is seen in /proc, not its status.
    child: Option<Child>,
    messages: Messages,
    since: Instant,
}

impl Process {
    /// Starts it in a process group of its own, so that a Ctrl-C meant for the daemon does not end
    /// it before the handover, and without the service manager's notification socket.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).process_group(0).env_remove("NOTIFY_SOCKET");
        let mut child = command.spawn()?;
        let messages = child.stderr.take().map(Messages::read).unwrap_or_default();
        // Absent when it ended already; the first poll tells.
        let identity =
            Identity::of(child.id()).unwrap_or(Identity { pid: child.id(), start_time: 0 });
        Ok(Self { identity, child: Some(child), messages, since: Instant::now() })
    }

    pub(crate) fn adopt(identity: Identity) -> Self {
        Self { identity, child: None, messages: Messages::default(), since: Instant::now() }
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// How long it has been ours.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// How it ended, once it has.
    pub(crate) fn poll(&mut self) -> Option<End> {
        match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(End { status: Some(status) }),
                // Somebody else reaped it: it is gone all the same.
                Err(_) => Some(End { status: None }),
            },
            None if self.identity.is_alive() => None,
            None => Some(End { status: None }),
        }
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.poll().is_some() {
            return;
        }
        // A child's number cannot be used again before `poll` reaps it. An adopted one's could in
        // the instant since `poll`; nothing but a pidfd kept since its start would exclude that.
        if let Ok(pid) = i32::try_from(self.identity.pid) {
            // The only failure left is that it ended meanwhile.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// The last lines of its standard error output, if that was piped.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.messages.last_lines()
    }
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    /// Unknown for one that was not our child.
    status: Option<ExitStatus>,
}

impl End {
    pub(crate) fn is_success(self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => write!(f, "exited with status {code}"),
            Some((None, Some(signal))) => match Signal::try_from(signal) {
                Ok(signal) => write!(f, "was killed by {signal}"),
                Err(_) => write!(f, "was killed by signal {signal}"),
            },
            Some((None, None)) | None => f.write_str("ended"),
        }
    }
}

/// Lines kept of a process's error output: what it says when it refuses to run.
const LINE_COUNT: usize = 20;

/// Longest line kept; the rest of it is another line.
const LINE_SIZE: u64 = 1024;

/// Of the reading thread, in octets: a daemon that locks its memory pays for all of it.
const STACK_SIZE: usize = 128 * 1024;

/// How long the last words of a dead process may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Error output, read by a thread of its own so that a chatty process never waits for us.
#[derive(Debug, Default)]
struct Messages {
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Messages {
    fn read(stderr: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let sink = lines.clone();
        let read = move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            while let Ok(count) = (&mut stderr).take(LINE_SIZE).read_until(b'\n', &mut line) {
                if count == 0 {
                    break;
                }
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                tracing::debug!("{text}");
                let mut lines = sink.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == LINE_COUNT {
                    lines.pop_front();
                }
                lines.push_back(text);
            }
        };
        // Without a thread the pipe closes and the process goes on without a listener.
        let thread = thread::Builder::new().name("messages".to_owned()).stack_size(STACK_SIZE);
        let reader = thread.spawn(read).ok();
        Self { lines, reader }
    }

    fn last_lines(&self) -> Vec<String> {
        let start = Instant::now();
        while self.reader.as_ref().is_some_and(|reader| !reader.is_finished())
            && start.elapsed() < LAST_WORDS
        {
            thread::sleep(Duration::from_millis(1));
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// When to start again what failed: at once the first time, then after delays that double.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    retry_at: Option<Instant>,
}

impl Backoff {
    /// The first delay; the first retry of all comes without one.
    const SHORTEST: Duration = Duration::from_millis(250);
    /// Rare enough not to fill the log, often enough that a repaired host serves soon.
    const LONGEST: Duration = Duration::from_secs(30);
    /// After a run as long as this, a failure counts as the first one again.
    const STABLE: Duration = Duration::from_secs(30);

    /// It failed after running for `ran`; zero if it did not even start.
    pub(crate) fn fail(&mut self, now: Instant, ran: Duration) {
        if ran >= Self::STABLE {
            self.failures = 0;
        }
        let delay = match self.failures {
            0 => Duration::ZERO,
            failures => Self::SHORTEST.saturating_mul(1 << (failures - 1).min(10)),
        };
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + delay.min(Self::LONGEST));
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| now >= at)
    }

    /// `None` when nothing is waited for.
    pub(crate) fn retry_in(&self, now: Instant) -> Option<Duration> {
        self.retry_at.map(|at| at.saturating_duration_since(now))
    }

    /// It runs, or was changed, so that the next failure is another one.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// It was started: nothing is waited for, but the failures so far are not forgotten.
    pub(crate) fn started(&mut self) {
        self.retry_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_a_stable_run_forgets_them() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..10 {
            backoff.fail(now, Duration::ZERO);
            delays.push(backoff.retry_in(now).unwrap().as_millis());
        }
        assert_eq!(delays, [0, 250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        backoff.fail(now, Backoff::STABLE);
        assert!(backoff.is_due(now));
    }

    #[test]
    fn a_process_is_known_by_number_and_start_time() {
        let own = Identity::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!Identity { start_time: own.start_time + 1, ..own }.is_alive());
    }

    #[test]
    fn the_end_and_the_last_words_are_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]).stderr(Stdio::piped());
        let mut process = Process::start(command).unwrap();
        let end = loop {
            match process.poll() {
                Some(end) => break end,
                None => thread::yield_now(),
            }
        };
        assert_eq!(end.to_string(), "exited with status 3");
        assert_eq!(process.messages(), ["no such thing"]);
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut process = Process::start(command).unwrap();
        process.signal(Signal::SIGKILL);
        while process.poll().is_none() {
            thread::yield_now();
        }
        assert_eq!(process.poll().unwrap().to_string(), "was killed by SIGKILL");
    }
}
