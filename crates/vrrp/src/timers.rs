//! How long a backup waits before it takes over, and a master before it lets go. RFC 9568 §6.1,
//! RFC 3768 §6.1, SPEC.md §6 and §8.3.
//!
//! Integer nanoseconds throughout. The version 3 skew is never cut to whole centiseconds: at an
//! interval of 10 cs only ten values would remain, and two backups whose priorities are up to 25
//! apart would take over at the same moment (V-141).

use std::time::Duration;

use crate::settings::{Interval, Priority, RouterSettings, Version};

/// What a successor needs to announce its addresses once it is ready, and its announcement to be
/// heard: a busy host takes its time.
pub const HANDOVER_MARGIN: Duration = Duration::from_millis(100);

/// What a node may take until it is ready to serve as master, where its peers wait longer.
pub const READY_LIMIT: Duration = Duration::from_millis(300);

/// The shortest time any peer of a master with these settings waits before it takes over: 3 × A
/// (V-241). With a down multiplier of 1 the next advert itself would come too late, so it counts as
/// 2.
pub fn shortest_takeover(settings: &RouterSettings) -> Duration {
    settings.interval.as_duration() * u32::from(settings.down_multiplier.max(2))
}

/// Longest time from becoming master to being ready to serve (V-275).
pub fn ready_limit(settings: &RouterSettings) -> Duration {
    READY_LIMIT.min(shortest_takeover(settings))
}

/// From a successor's first advert to our withdrawal (V-240). The successor is taken to have our
/// settings.
pub fn handover(settings: &RouterSettings) -> Duration {
    HANDOVER_MARGIN + ready_limit(settings)
}

/// From its first release to the advert with which a master takes back what nobody took (V-240).
pub fn take_back(version: Version, interval: Interval) -> Duration {
    longest_skew(version, interval) * 2 + HANDOVER_MARGIN
}

/// The skew of a priority of 0.
pub fn longest_skew(version: Version, interval: Interval) -> Duration {
    match version {
        Version::V2 => Duration::from_secs(1),
        Version::V3 => interval.as_duration(),
    }
}

/// Skew_Time: the part of the wait that is shorter the higher the priority.
///
/// - version 2: `(256 − priority) / 256` seconds, whatever the interval (RFC 3768 §6.1);
/// - version 3: `(256 − priority) × interval / 256` (RFC 9568 §6.1), where `interval` is the
///   master's, learned from its adverts.
///
/// Between 1/256 and 256/256 of its unit, so never zero. Version 2 is exact; version 3 is rounded
/// down to the nanosecond, and an odd product loses half a nanosecond (V-140).
pub const fn skew(version: Version, priority: Priority, interval: Interval) -> Duration {
    let steps = 256 - priority.0 as u64;
    Duration::from_nanos(match version {
        Version::V2 => steps * NANOS_PER_SECOND_STEP,
        Version::V3 => steps * interval.centis() as u64 * NANOS_PER_CENTI / 256,
    })
}

/// Active_Down_Interval: silence after which a backup takes over: `multiplier × interval + skew`.
///
/// `multiplier` is 3 by the RFCs, `interval` the configured one in version 2 and the master's in
/// version 3. Rounded as [`skew`]. The longest, 255 intervals of 255 s, is far below the range of
/// 64-bit nanoseconds (V-149).
pub const fn down_interval(
    version: Version,
    priority: Priority,
    interval: Interval,
    multiplier: u8,
) -> Duration {
    let silence = interval.centis() as u64 * NANOS_PER_CENTI * multiplier as u64;
    Duration::from_nanos(silence + skew(version, priority, interval).as_nanos() as u64)
}

/// One centisecond.
const NANOS_PER_CENTI: u64 = 10_000_000;

/// 1/256 s, which is a whole number of nanoseconds.
const NANOS_PER_SECOND_STEP: u64 = 1_000_000_000 / 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(version: Version, centis: u16) -> Interval {
        Interval::new(version, centis).unwrap()
    }

    /// V-141.
    #[test]
    fn neighbouring_priorities_differ_in_skew_at_the_shortest_interval() {
        let shortest = interval(Version::V3, 1);
        for priority in 0..=254 {
            let lower = skew(Version::V3, Priority(priority), shortest);
            let higher = skew(Version::V3, Priority(priority + 1), shortest);
            assert!(higher < lower, "priority {priority}");
        }
    }

    /// V-140: (256 − 255) × 1 cs / 256 is 39 062.5 ns.
    #[test]
    fn version_3_skew_loses_at_most_half_a_nanosecond() {
        let skew = skew(Version::V3, Priority::OWNER, interval(Version::V3, 1));
        assert_eq!(skew, Duration::from_nanos(39_062));
    }

    /// V-149.
    #[test]
    fn longest_down_interval_does_not_overflow() {
        let longest = interval(Version::V2, 25_500);
        let down = down_interval(Version::V2, Priority::RELEASE, longest, u8::MAX);
        assert_eq!(down, Duration::from_secs(255 * 255 + 1));
    }

    /// SPEC.md §6: the version 2 skew does not depend on the interval.
    #[test]
    fn version_2_skew_ignores_the_interval() {
        for centis in [100, 500, 25_500] {
            let skew = skew(Version::V2, Priority(100), interval(Version::V2, centis));
            assert_eq!(skew, Duration::from_nanos(609_375_000));
        }
    }
}
