//! What a daemon costs while nothing happens: processor time and memory.

use std::thread;
use std::time::Duration;

use super::TICKS_PER_SECOND;
use crate::peer::Running;

/// Of one daemon, its children included.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Load {
    /// Percent of one processor.
    pub percent: f64,
    /// Resident memory of the process that speaks VRRP, in MB.
    pub resident: f64,
    /// What all its processes together take from the host, in MB.
    pub whole: f64,
}

/// Measures both daemons of a pair over `period`, master first.
pub fn measure(daemons: &mut [Running; 2], period: Duration) -> [Load; 2] {
    during(daemons, period, || ())
}

/// The same while `work`, whose own time does not count, goes on beside it for as long as it takes.
pub fn during(daemons: &mut [Running; 2], period: Duration, work: impl FnOnce()) -> [Load; 2] {
    let ticks = |daemons: &mut [Running; 2]| [0, 1].map(|at| daemons[at].process().ticks());
    let start = std::time::Instant::now();
    let before = ticks(daemons);
    work();
    thread::sleep(period.saturating_sub(start.elapsed()));
    let after = ticks(daemons);
    let took = start.elapsed().as_secs_f64();
    [0, 1].map(|at| Load {
        percent: 100.0 * after[at].saturating_sub(before[at]) as f64 / TICKS_PER_SECOND / took,
        resident: daemons[at].process().resident_kib_of_last() as f64 / 1024.0,
        whole: daemons[at].process().whole_kib() as f64 / 1024.0,
    })
}
