//! The one clock: it never goes back, and it goes on while the machine sleeps.

use std::time::Duration;

use nix::time::ClockId;
use nix::time::clock_gettime;

/// CLOCK_BOOTTIME in nanoseconds. It counts suspended time, so that a machine which wakes late
/// sees that it is late.
pub fn now() -> u64 {
    // INVARIANT: fails only for a clock the kernel does not have; it has this one since 2.6.39.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME exists");
    // Seconds and nanoseconds since boot are never negative; 64 bits last 584 years.
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// What this thread has had of a processor since it began.
pub fn thread_time() -> Duration {
    // INVARIANT: as above.
    let time =
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("CLOCK_THREAD_CPUTIME_ID exists");
    time.into()
}

#[cfg(test)]
mod tests {
    use super::now;

    #[test]
    fn now_never_goes_back() {
        let mut last = now();
        assert!(last > 0);
        for _ in 0..1000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }
}
