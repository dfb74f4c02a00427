//! Planned and unplanned: what the client of one address loses.

use super::CONTESTANTS;
use super::router;
use super::settled;
use crate::measure;
use crate::pair::Pair;
use crate::wait::millis;
use crate::wait::seconds;

/// Planned: probes lost of 8,000, one every millisecond, when the master is told to stop.
pub fn handover(runs: u32) -> bool {
    println!("probes lost of 8000 at 1 ms, planned handover (SIGTERM), adverts every second");
    let mut met = true;
    for run in 1..=runs {
        let lost = CONTESTANTS.map(|kinds| {
            let mut pair = settled(kinds, router);
            measure::through(&mut pair, seconds(8), |pair| pair.daemon(0).terminate()).lost
        });
        println!("run {run:3}: locum {:4}   keepalived {:4}", lost[0], lost[1]);
        met &= lost[0] == 0;
    }
    met
}

/// Unplanned: the longest silence when the master's host is heard no more.
pub fn failover(runs: u32) -> bool {
    println!("longest silence when the master falls silent; limit 3 x interval + skew + 10 ms");
    let mut met = true;
    for interval in [seconds(1), millis(100), millis(10)] {
        for run in 1..=runs {
            let limit = router(1).every(interval).down_interval() + millis(10);
            let silence = CONTESTANTS.map(|kinds| {
                let mut pair = settled(kinds, |director| router(director).every(interval));
                let period = limit + seconds(2);
                let silence = |pair: &mut Pair| pair.lab.silence(0);
                measure::through(&mut pair, period, silence).longest_silence
            });
            println!(
                "interval {interval:6?} run {run}: locum {:9.1?}   keepalived {:9.1?}   limit {limit:?}",
                silence[0], silence[1]
            );
            met &= silence[0] <= limit;
        }
    }
    met
}
