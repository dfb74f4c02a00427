//! Waiting for something to become true, with a limit and a sentence that says what was awaited.

use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use crate::lateness;

/// Pause between two looks: short beside every promise that is not measured by the prober.
const LOOK: Duration = Duration::from_millis(5);
/// After a standstill a master that lost its place has it again within this time.
const AFTERMATH: Duration = Duration::from_secs(3);
/// A machine that stands still all the time for as long as this runs no test.
const UNREST: Duration = Duration::from_secs(60);

/// Waits until `holds` is true and returns how long that took.
///
/// # Panics
/// When it is still false after `limit`.
pub fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    loop {
        if holds() {
            return start.elapsed();
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain until {what}");
        thread::sleep(LOOK);
    }
}

/// Waits until `holds` has been true for `lasting` on end: what is true for a moment on the way to
/// something else does not count.
///
/// # Panics
/// When it has not been so within `limit`.
pub fn lasting(what: &str, limit: Duration, lasting: Duration, mut holds: impl FnMut() -> bool) {
    let mut since = None;
    until(what, limit, || {
        if holds() {
            since.get_or_insert_with(Instant::now).elapsed() >= lasting
        } else {
            since = None;
            false
        }
    });
}

/// Waits until `look` succeeds, and tells what it found last when it does not.
///
/// # Panics
/// When it still fails after `limit`.
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(found) => {
                assert!(start.elapsed() < limit, "waited {limit:?} in vain until {what}: {found}");
            }
        }
        thread::sleep(LOOK);
    }
}

/// Looks for as long as `period` and panics as soon as `holds` is false.
///
/// The way to say "and it stays so": a rule about absence has no event to wait for.
pub fn throughout(what: &str, period: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    loop {
        let held = holds();
        let at = start.elapsed();
        if at >= period {
            // A look that ended later says nothing about the period.
            return;
        }
        assert!(held, "after {at:?} it was no longer true that {what}");
        thread::sleep(LOOK);
    }
}

/// As [`throughout`] for what a standstill of the machine may change by the rules: who is master,
/// with timers far below a second. What is seen soon after one proves nothing, and the period begins
/// anew.
///
/// # Panics
/// Also when the machine stands still again and again.
pub fn steadily(what: &str, period: Duration, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    let mut start = begin;
    loop {
        let held = holds();
        let at = start.elapsed();
        if held && at >= period {
            return;
        }
        if !held {
            // The witness may wake a moment later than this.
            thread::sleep(4 * LOOK);
            let excused = lateness::latest_standstill().is_some_and(|at| at.elapsed() < AFTERMATH);
            assert!(excused, "after {at:?} it was no longer true that {what}");
            assert!(begin.elapsed() < UNREST, "the machine stands still too often: {what}?");
            start = Instant::now();
        }
        thread::sleep(LOOK);
    }
}

/// Waits until one of these can be read, or for so long.
pub fn readable(all: &[impl AsFd], limit: Duration) {
    let all = all.iter().map(|one| PollFd::new(one.as_fd(), PollFlags::POLLIN));
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    // Interrupted is as good as over.
    let _ = poll(&mut all.collect::<Vec<_>>(), limit);
}

/// Seconds, for limits that read well.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Milliseconds, for limits that read well.
pub const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
