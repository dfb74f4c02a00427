//! What many virtual routers cost while nothing happens, and how punctual their adverts are.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use super::CONTESTANTS;
use super::fleet::Fleet;
use super::fleet::Size;
use super::load;
use super::load::Load;
use super::quantile;
use super::router;
use super::settled;
use crate::capture::Frame;
use crate::capture::Kind;
use crate::pair::Kinds;
use crate::wait::seconds;

/// How long an election of thousands may take; what is not settled then is measured as it is.
const PATIENCE: Duration = seconds(90);
/// The bursts of announcements that follow an election are over after the delayed second one.
const BURSTS: Duration = seconds(8);
/// Instances up to which memory may exceed keepalived's by [`MARGIN_MB`]; beyond, by [`FACTOR`].
const SMALL: u16 = 1020;
const MARGIN_MB: f64 = 2.0;
const FACTOR: f64 = 1.3;
/// Of one daemon with one instance.
const SMALLEST_MB: f64 = 10.0;

/// What one contestant showed at one size.
struct Found {
    /// Of master and backup.
    loads: [Load; 2],
    /// How much later than a whole interval after its predecessor each advert came, sorted.
    late: Vec<Duration>,
    /// Addresses on each director when it was measured.
    held: [usize; 2],
}

/// Processor time, memory and lateness of adverts at each size, over `period` each.
pub fn election(sizes: &[Size], period: Duration) -> bool {
    let mut met = true;
    for size in sizes {
        println!("{size}, measured over {period:?}");
        println!(
            "            % of a core             resident MB    all its processes  advert late by, ms\n\
             {:11} master backup    both  master backup  master backup   p50    p99.9     max   adverts",
            ""
        );
        let [ours, theirs] = CONTESTANTS.map(|kinds| {
            let found = measure(kinds, *size, period);
            show(kinds.first.label(), *size, &found);
            found
        });
        let both = |found: &Found| found.loads[0].percent + found.loads[1].percent;
        println!("{:11} of keepalived's load: {:.0} %", "", 100.0 * both(&ours) / both(&theirs));
        met &= ours.held == [usize::from(size.instances), 0];
        met &= both(&ours) <= both(&theirs) / 2.0;
        let allowed = |theirs: f64| match size.instances <= SMALL {
            true => theirs + MARGIN_MB,
            false => theirs * FACTOR,
        };
        let fits = |memory: fn(&Load) -> f64| {
            (0..2).all(|at| memory(&ours.loads[at]) <= allowed(memory(&theirs.loads[at])))
        };
        let verdict = |fits: bool| if fits { "kept" } else { "MISSED" };
        let (alone, whole) = (fits(|load| load.resident), fits(|load| load.whole));
        println!(
            "{:11} memory: {} against all of keepalived's processes, {} against its VRRP process",
            "",
            verdict(whole),
            verdict(alone)
        );
        met &= whole;
    }
    let [ours, theirs] = CONTESTANTS.map(|kinds| {
        let mut pair = settled(kinds, router);
        let process = pair.daemon(0).process();
        [process.resident_kib_of_last(), process.whole_kib()].map(|kib| kib as f64 / 1024.0)
    });
    println!(
        "one instance: locum {:.1} MB resident, {:.1} of all its processes; keepalived {:.1}, {:.1}",
        ours[0], ours[1], theirs[0], theirs[1]
    );
    met && ours[0] < SMALLEST_MB
}

fn show(label: &str, size: Size, found: &Found) {
    let [master, backup] = &found.loads;
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "{label:11} {:6.2} {:6.2} {:7.2}  {:6.1} {:6.1}  {:6.1} {:6.1} {:6.2} {:7.2} {:8.2}  {:8}",
        master.percent,
        backup.percent,
        master.percent + backup.percent,
        master.resident,
        backup.resident,
        master.whole,
        backup.whole,
        ms(quantile(&found.late, 0.5)),
        ms(quantile(&found.late, 0.999)),
        ms(found.late.last().copied().unwrap_or_default()),
        found.late.len(),
    );
    if found.held != [usize::from(size.instances), 0] {
        println!("{:11} not settled: master and backup have {:?} addresses", "", found.held);
    }
}

fn measure(kinds: Kinds, size: Size, period: Duration) -> Found {
    let fleet = Fleet::new(size);
    let mut daemons = [0, 1].map(|director| fleet.start(kinds, director));
    let start = Instant::now();
    // Asking for thousands of addresses every few milliseconds would take the time they need.
    while fleet.held() != [usize::from(size.instances), 0] && start.elapsed() < PATIENCE {
        thread::sleep(seconds(1));
    }
    thread::sleep(BURSTS);
    let loads = load::measure(&mut daemons, period);
    let held = fleet.held();
    // Afterwards, since what listens costs whom it listens to.
    let capture = fleet.capture_at(1);
    thread::sleep(period);
    let frames = capture.frames();
    Found { loads, late: lateness(&frames, size.interval), held }
}

/// How much longer than `interval` the time between two adverts of one virtual router was, sorted.
fn lateness(frames: &[Frame], interval: Duration) -> Vec<Duration> {
    let mut last: BTreeMap<(&str, u8), Instant> = BTreeMap::new();
    let mut late = Vec::new();
    for frame in frames {
        let Kind::Advert(advert) = &frame.kind else { continue };
        if let Some(before) = last.insert((&frame.from, advert.vrid), frame.at) {
            late.push(frame.at.saturating_duration_since(before).saturating_sub(interval));
        }
    }
    late.sort();
    late
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Advert;
    use crate::wait::millis;

    #[test]
    fn an_advert_is_late_after_its_own_predecessor() {
        let start = Instant::now();
        let advert = |at: u64, from: &str, vrid: u8| {
            let (source, destination) = ([10, 0, 1, 1].into(), [224, 0, 0, 18].into());
            let advert = Advert { version: 3, vrid, priority: 1, source, destination, mac: [0; 6] };
            Frame { at: start + millis(at), from: from.to_owned(), kind: Kind::Advert(advert) }
        };
        let frames = [
            advert(0, "eth0", 1),
            advert(5, "eth1", 1),
            advert(50, "eth0", 2),
            advert(103, "eth0", 1),
            advert(145, "eth0", 2),
            advert(203, "eth0", 1),
        ];
        assert_eq!(lateness(&frames, millis(100)), [millis(0), millis(0), millis(3)]);
    }
}
