//! A process that outlives its daemon: started by us or taken over from an earlier run, watched and
//! signalled through a descriptor of its own (pidfd), so that a later process of the same number is
//! never taken for it.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::ioctl_fionbio;
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
const LINE_SIZE: usize = 1024;

/// Of the reading thread, in octets: a daemon that locks its memory pays for all of it.
const STACK_SIZE: usize = 128 * 1024;

/// Octets read in one go, as many as a pipe holds: whoever writes without end keeps nobody for ever.
const READ_LIMIT: usize = 64 * 1024;

/// Error output, read by a thread of its own so that a chatty process never waits for us. Whoever asks
/// for it reads what that thread had no time for yet: of a process that is dead, all that it said.
#[derive(Clone, Debug, Default)]
struct Messages(Option<Arc<Mutex<ErrorOutput>>>);

#[derive(Debug)]
struct ErrorOutput {
    /// Does not block.
    pipe: ChildStderr,
    /// A line that has not ended.
    begun: Vec<u8>,
    lines: VecDeque<String>,
}

impl Messages {
    fn read(stderr: ChildStderr) -> Self {
        // With neither of the two the pipe closes, and the process goes on without a listener.
        let (Ok(()), Ok(watched)) =
            (ioctl_fionbio(&stderr, true), stderr.as_fd().try_clone_to_owned())
        else {
            return Self::default();
        };
        let (begun, lines) = (Vec::new(), VecDeque::new());
        let output = Arc::new(Mutex::new(ErrorOutput { pipe: stderr, begun, lines }));
        let messages = Self(Some(Arc::clone(&output)));
        let read = move || {
            loop {
                let mut ready = [PollFd::new(watched.as_fd(), PollFlags::POLLIN)];
                // Interrupted is as good as ready: it does not block.
                let _ = poll(&mut ready, PollTimeout::NONE);
                if output.lock().unwrap_or_else(PoisonError::into_inner).read() == PipeState::Ended
                {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("messages".to_owned()).stack_size(STACK_SIZE);
        // Without a thread a process that says very much would wait for us.
        if thread.spawn(read).is_err() { Self::default() } else { messages }
    }

    fn last_lines(&self) -> Vec<String> {
        let Some(output) = &self.0 else { return Vec::new() };
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        output.read();
        let begun = Some(text(&output.begun)).filter(|text| !text.is_empty());
        output.lines.iter().cloned().chain(begun).collect()
    }
}

/// What reading came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PipeState {
    /// There is no more now.
    Empty,
    /// There will be no more.
    Ended,
}

impl ErrorOutput {
    /// Reads what there is.
    fn read(&mut self) -> PipeState {
        let mut octets = [0; LINE_SIZE];
        let mut left = READ_LIMIT;
        while left > 0 {
            match self.pipe.read(&mut octets) {
                Ok(0) => return PipeState::Ended,
                Ok(count) => {
                    octets[..count].iter().for_each(|octet| self.add(*octet));
                    left = left.saturating_sub(count);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return PipeState::Empty,
                    _ => return PipeState::Ended,
                },
            }
        }
        PipeState::Empty
    }

    fn add(&mut self, octet: u8) {
        self.begun.push(octet);
        if octet != b'\n' && self.begun.len() < LINE_SIZE {
            return;
        }
        let line = text(&std::mem::take(&mut self.begun));
        tracing::debug!("{line}");
        if self.lines.len() == LINE_COUNT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
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

    /// As on a host that has no time for the thread that reads.
    #[test]
    fn what_a_dead_process_said_is_known_whoever_had_time_to_read_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one >&2; printf two >&2; exit 1"]).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.wait().unwrap();
        let pipe = child.stderr.take().unwrap();
        ioctl_fionbio(&pipe, true).unwrap();
        let output = ErrorOutput { pipe, begun: Vec::new(), lines: VecDeque::new() };
        let messages = Messages(Some(Arc::new(Mutex::new(output))));
        assert_eq!(messages.last_lines(), ["one", "two"]);
        assert_eq!(messages.last_lines(), ["one", "two"]);
    }

    #[test]
    fn the_last_lines_are_kept_of_one_that_says_very_much() {
        let mut command = Command::new("sh");
        let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done >&2";
        command.args(["-c", script]).stderr(Stdio::piped());
        let mut process = Process::start(command).unwrap();
        while process.poll().is_none() {
            thread::yield_now();
        }
        let lines = process.messages();
        assert_eq!((lines.len(), lines[LINE_COUNT - 1].as_str()), (LINE_COUNT, "line 20000"));
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
