//! A process that is to end, and how long it may take.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::process::{Identity, Process};

/// From SIGTERM to SIGKILL.
const HARD_STOP_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Leaving {
    process: Process,
    /// The signal to send next, and when; `None` lets it finish in its own time.
    next: Option<(Signal, Instant)>,
}

impl Leaving {
    /// It has its orders and finishes in its own time.
    pub(super) fn new(process: Process) -> Self {
        Self { process, next: None }
    }

    /// Is sent `signal` at `at`, and harder ones after that.
    pub(super) fn signalled(process: Process, signal: Signal, at: Instant) -> Self {
        Self { process, next: Some((signal, at)) }
    }

    /// Finishes in its own time no longer than until then.
    pub(super) fn end_by(&mut self, at: Instant) {
        self.next.get_or_insert((Signal::TERM, at));
    }

    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) fn identity(&self) -> Identity {
        self.process.identity()
    }

    /// Sends what is due.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
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
