//! A process that outlives its daemon: started by us or taken over from an earlier run, watched and
//! signalled through a descriptor of its own (pidfd), so that a later process of the same number is
//! never taken for it.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process for as long as the machine runs: numbers are used again, start times are not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub pid: u32,
    /// Clock ticks since boot, field 22 of /proc/PID/stat.
    pub start_time: u64,
}

/// What `/proc/PID/stat` says from the state on, which is field 3. The name before it is in parentheses
/// and may hold anything, spaces and parentheses included.
pub(crate) fn stat_fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace())
}

/// A line of `/proc/PID/status`, `name` with its colon.
pub(crate) fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

impl Identity {
    /// `None` when there is no such process, or only its corpse.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat_fields(&stat)?;
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
    /// Absent for one that an earlier daemon started: its end is seen, not its status.
    child: Option<Child>,
    /// Absent only for a child, when there was no descriptor left for it.
    pidfd: Option<OwnedFd>,
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
        let pidfd = open(child.id()).ok();
        Ok(Self { identity, child: Some(child), pidfd, messages, since: Instant::now() })
    }

    /// Takes over a process that an earlier daemon started. `None` when it has ended: its number
    /// may be another's by now.
    pub(crate) fn adopt(identity: Identity) -> Option<Self> {
        let pidfd = open(identity.pid).ok()?;
        // The descriptor stays with whatever process it was opened for, and that one started when
        // ours did.
        identity.is_alive().then(|| Self {
            identity,
            child: None,
            pidfd: Some(pidfd),
            messages: Messages::default(),
            since: Instant::now(),
        })
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

    /// How it ended, once it has. A child is reaped by this: whoever ends one asks until it has.
    pub(crate) fn poll(&mut self) -> Option<ProcessEnd> {
        match (&mut self.child, &self.pidfd) {
            (Some(child), _) => match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(ProcessEnd { status: Some(status) }),
                // Somebody else reaped it: it is gone all the same.
                Err(_) => Some(ProcessEnd { status: None }),
            },
            (None, Some(pidfd)) if !has_ended(pidfd) => None,
            (None, _) => Some(ProcessEnd { status: None }),
        }
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.poll().is_some() {
            return;
        }
        // The only failure left is that it ended meanwhile.
        let _ = match (&self.pidfd, Pid::from_raw(self.identity.pid.cast_signed())) {
            (Some(pidfd), _) => pidfd_send_signal(pidfd, signal),
            // The number of a child is not used again before `poll` reaps it.
            (None, Some(number)) if self.child.is_some() => kill_process(number, signal),
            (None, _) => Ok(()),
        };
    }

    /// The last lines of its standard error output, if that was piped.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.messages.last_lines()
    }
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let number = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(number, PidfdFlags::empty())?)
}

/// A pidfd can be read once its process has ended, reaped or not.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut watched, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ProcessEnd {
    /// Unknown for one that was not our child.
    status: Option<ExitStatus>,
}

impl ProcessEnd {
    pub(crate) fn is_success(self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// By a signal, whoever sent it.
    pub(crate) fn is_violent(self) -> bool {
        self.status.is_some_and(|status| status.signal().is_some())
    }
}

impl std::fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => write!(f, "exited with status {code}"),
            Some((None, Some(signal))) => match nix::sys::signal::Signal::try_from(signal) {
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
const LAST_WORDS: Duration = Duration::from_millis(50);

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

#[cfg(test)]
mod tests {
    use super::*;

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
        process.signal(Signal::KILL);
        while process.poll().is_none() {
            thread::yield_now();
        }
        assert_eq!(process.poll().unwrap().to_string(), "was killed by SIGKILL");
    }

    #[test]
    fn what_is_adopted_is_signalled_and_a_later_process_of_its_number_is_not() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        let later = Identity { start_time: identity.start_time + 1, ..identity };
        assert!(Process::adopt(later).is_none());
        let mut adopted = Process::adopt(identity).unwrap();
        assert_eq!(adopted.poll(), None);
        // Nothing is signalled by number: whatever has it then, this process has ended.
        adopted.identity = Identity::of(std::process::id()).unwrap();
        adopted.signal(Signal::KILL);
        assert_eq!(child.wait().unwrap().to_string(), "signal: 9 (SIGKILL)");
        assert_eq!(adopted.poll(), Some(ProcessEnd { status: None }));
    }
}
