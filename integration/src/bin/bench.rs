//! The promised numbers, ours beside keepalived's in one run: `scripts/bench SUBCOMMAND`.
//!
//! Each subcommand alternates the two, so that a busy minute hurts both.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use locum_integration::lab::Shape;
use locum_integration::measure;
use locum_integration::pair::FIRST;
use locum_integration::pair::Kinds;
use locum_integration::pair::Pair;
use locum_integration::pair::SECOND;
use locum_integration::pair::VIP;
use locum_integration::peer::Keepalived;
use locum_integration::peer::Locum;
use locum_integration::peer::Peer;
use locum_integration::peer::Preempt;
use locum_integration::peer::Router;
use locum_integration::peer::Running;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::wait::seconds;

/// The two that are compared, each with itself.
const CONTESTANTS: [Kinds; 2] = [
    Kinds { first: &Locum::NATIVE, second: &Locum::NATIVE },
    Kinds { first: &Keepalived, second: &Keepalived },
];
/// Instances of `election`: as many as one link can have.
const INSTANCES: u8 = 255;
/// How long 255 instances have to elect before anybody asks.
const SETTLING: Duration = seconds(15);
/// How long `election` measures.
const LOAD_PERIOD: Duration = seconds(20);
/// Clock ticks per second of `/proc/PID/stat`: fixed at 100 on Linux for x86 and Arm.
const TICKS_PER_SECOND: f64 = 100.0;

const USAGE: &str = "usage: locum-bench handover|failover|crash|election [--runs N]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (command, runs) = match words[..] {
        [command] => (command, None),
        [command, "--runs", number] => (command, number.parse().ok()),
        _ => ("", None),
    };
    if !CONTESTANTS.iter().all(|kinds| kinds.available()) {
        return ExitCode::from(2);
    }
    let met = match command {
        "handover" => handover(runs.unwrap_or(20)),
        "failover" => failover(runs.unwrap_or(3)),
        "crash" => crash(),
        "election" => election(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    println!("{}", if met { "promise kept" } else { "promise broken" });
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn router(director: usize) -> Router {
    Router::new(51, [FIRST, SECOND][director], &[VIP])
}

fn settled(kinds: Kinds, router: impl Fn(usize) -> Router) -> Pair {
    Pair::settled(Shape::MEASURED_PAIR, kinds, router)
}

/// Planned: probes lost of 8,000, one every millisecond, when the master is told to stop.
fn handover(runs: u32) -> bool {
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
fn failover(runs: u32) -> bool {
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

/// The daemon fails: restarted at once, left dead, asleep.
fn crash() -> bool {
    let again = CONTESTANTS.map(crash_and_restart);
    let gone = CONTESTANTS.map(crash_for_good);
    let awake = CONTESTANTS.map(sleep_and_wake);
    println!("adverts every second                          locum       keepalived");
    println!("killed, started after 0.5 s: probes lost      {:<10}  {}", again[0].0, again[1].0);
    println!("killed, started after 0.5 s: role changes     {:<10}  {}", again[0].1, again[1].1);
    let show =
        |time: Option<Duration>| time.map_or("never".to_owned(), |time| format!("{time:.0?}"));
    println!(
        "left dead: its address gone after takeover    {:<10}  {}",
        show(gone[0]),
        show(gone[1])
    );
    println!("asleep for 5 s: adverts as master on waking   {:<10}  {}", awake[0], awake[1]);
    again[0] == (0, false) && gone[0].is_some_and(|time| time <= seconds(1)) && awake[0] == 0
}

fn start_again(kinds: Kinds, pair: &mut Pair) {
    if kinds.first.label() == Locum::NATIVE.label() {
        let again = Locum::NATIVE.start_again(&pair.lab.directors[0]);
        pair.adopt(0, again);
    } else {
        pair.start(0);
    }
}

/// Probes lost, and whether the other one became master.
fn crash_and_restart(kinds: Kinds) -> (usize, bool) {
    let mut pair = settled(kinds, router);
    let capture = pair.lab.capture();
    let report = measure::through(&mut pair, seconds(8), |pair| {
        pair.daemon(0).kill();
        thread::sleep(millis(500));
        start_again(kinds, pair);
    });
    (report.lost, !capture.adverts("lb2").is_empty())
}

/// How long the dead director still has the address while the other is master; none is for ever.
fn crash_for_good(kinds: Kinds) -> Option<Duration> {
    let mut pair = settled(kinds, router);
    pair.daemon(0).kill();
    pair.expect_takeover(1);
    let start = Instant::now();
    while start.elapsed() < seconds(10) {
        if !pair.lab.directors[0].has(pair.vip()) {
            return Some(start.elapsed());
        }
        thread::sleep(millis(5));
    }
    None
}

/// Adverts with a priority that a director sends in the second after it wakes.
fn sleep_and_wake(kinds: Kinds) -> usize {
    let mut pair = settled(kinds, |director| router(director).preempt(Preempt::No));
    let capture = pair.lab.capture();
    pair.daemon(0).pause();
    thread::sleep(seconds(5));
    let woken = Instant::now();
    pair.daemon(0).resume();
    thread::sleep(seconds(1));
    let adverts = capture.adverts("lb1").into_iter();
    adverts.filter(|(at, advert)| *at > woken && advert.priority > 0).count()
}

/// Processor time and memory of 255 instances with ten adverts a second, and memory with one.
fn election() -> bool {
    println!("{INSTANCES} instances, adverts every 100 ms, over {LOAD_PERIOD:?}");
    let loads = CONTESTANTS.map(load);
    for (label, load) in ["locum", "keepalived"].iter().zip(&loads) {
        println!(
            "{label:10}: master {:.2} % of a core, backup {:.2} %, {} KiB resident; one instance {} KiB",
            load.percent[0], load.percent[1], load.resident, load.resident_of_one
        );
    }
    let [ours, theirs] = loads;
    let cheap = (0..2).all(|role| ours.percent[role] <= theirs.percent[role]);
    cheap && ours.resident_of_one < 10 * 1024
}

struct Load {
    /// Master and backup.
    percent: [f64; 2],
    resident: u64,
    resident_of_one: u64,
}

fn load(kinds: Kinds) -> Load {
    let mut one = settled(kinds, router);
    let resident_of_one = one.daemon(0).process().resident_kib();
    drop(one);
    let pair = Pair::new(Shape::MEASURED_PAIR, kinds, router);
    let routers = |director: usize| -> Vec<Router> {
        let one = |vrid: u8| {
            let address = format!("192.168.2.{vrid}/32");
            Router::new(vrid, [FIRST, SECOND][director], &[&address]).every(millis(100))
        };
        (1..=INSTANCES).map(one).collect()
    };
    let start = |kind: &dyn Peer, director: usize| -> Running {
        kind.start(&pair.lab.directors[director], &routers(director))
    };
    let mut daemons = [start(kinds.first, 0), start(kinds.second, 1)];
    let last = routers(0).last().expect("instances").vip();
    // Asking for 255 addresses every few milliseconds would take the time they need to settle.
    thread::sleep(SETTLING);
    wait::until("the last address is held", seconds(60), || pair.lab.holders(last) == [0]);
    // The bursts of announcements that follow an election are over after the delayed second one.
    thread::sleep(seconds(8));
    let ticks = |daemons: &mut [Running; 2]| [0, 1].map(|at| daemons[at].process().ticks());
    let before = ticks(&mut daemons);
    thread::sleep(LOAD_PERIOD);
    let after = ticks(&mut daemons);
    let percent = [0, 1].map(|at| {
        let used = after[at].saturating_sub(before[at]) as f64 / TICKS_PER_SECOND;
        100.0 * used / LOAD_PERIOD.as_secs_f64()
    });
    Load { percent, resident: daemons[0].process().resident_kib(), resident_of_one }
}
