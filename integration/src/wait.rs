//! Waiting for something to become true, with a limit and a sentence that says what was awaited.

use std::thread;
use std::time::Duration;
use std::time::Instant;

/// Pause between two looks: short beside every promise that is not measured by the prober.
const LOOK: Duration = Duration::from_millis(5);

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
    while start.elapsed() < period {
        assert!(holds(), "after {:?} it was no longer true that {what}", start.elapsed());
        thread::sleep(LOOK);
    }
}

/// Seconds, for limits that read well.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Milliseconds, for limits that read well.
pub const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
