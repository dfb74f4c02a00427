//! A machine on the network that sends bad adverts as fast as it can.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use clap::ValueEnum;

use super::CONTESTANTS;
use super::load;
use super::load::Load;
use crate::capture::Capture;
use crate::inject::Flood;
use crate::inject::Forged;
use crate::lab::CLIENT;
use crate::lab::Shape;
use crate::node::Node;
use crate::pair::FIRST;
use crate::pair::Kinds;
use crate::pair::Pair;
use crate::pair::SECOND;
use crate::pair::VIP;
use crate::peer::Locum;
use crate::peer::Peer as _;
use crate::peer::Router;
use crate::peer::Version;
use crate::process::Process;
use crate::wait::millis;
use crate::wait::seconds;

const VRID: u8 = 51;
const PASSWORD: &str = "right";
/// Sources of valid adverts, one after the other: the network has no machine at these.
const SOURCES: std::ops::RangeInclusive<u8> = 2..=90;
/// Of a core, on each director.
const LIMIT_PERCENT: f64 = 5.0;
const LIMIT_LATE: Duration = millis(2);
/// How much log and history may grow together.
const LIMIT_GROWTH: u64 = 64 << 10;

/// What is wrong with the adverts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Wrong {
    /// The checksum
    Checksum,
    /// They are of another virtual router
    Vrid,
    /// The version
    Version,
    /// The password, in version 2
    Auth,
    /// Nothing, but they come from ever other machines with a lower priority
    Lower,
}

impl Wrong {
    /// The frames that are sent in turn.
    fn adverts(self) -> Vec<(Ipv4Addr, Forged)> {
        let client: Ipv4Addr = CLIENT.parse().expect("an address");
        let [vip, ..] = Router::new(VRID, FIRST, &[VIP]).addresses[..] else { return Vec::new() };
        let std::net::IpAddr::V4(vip) = vip.0 else { return Vec::new() };
        let correct = Forged::correct(client, VRID, 254, vip);
        let forged = match self {
            Self::Checksum => {
                let mut forged = correct;
                forged.bytes[6] ^= 0xff;
                forged
            }
            Self::Vrid => Forged::correct(client, VRID + 1, 254, vip),
            Self::Version => Forged::version_2(VRID, 254, vip, None),
            Self::Auth => Forged::version_2(VRID, 254, vip, Some("wrong")),
            Self::Lower => {
                let from = |last| Ipv4Addr::new(192, 168, 1, last);
                let lower = |source| (source, Forged::correct(source, VRID, 1, vip));
                return SOURCES.map(from).map(lower).collect();
            }
        };
        vec![(client, forged)]
    }
}

/// How hard.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Strength {
    /// Packets a second.
    pub rate: u32,
    pub period: Duration,
    /// Of the real adverts, but for version 2, which knows whole seconds only.
    pub interval: Duration,
}

/// What a pair showed during one flood.
struct Found {
    loads: [Load; 2],
    /// Packets a second that were sent in fact.
    rate: f64,
    /// How much later than its interval an advert of the master came at most, and without a flood.
    late: Duration,
    late_before: Duration,
    /// Adverts of the master that reached the switch, and packets that the machine itself dropped
    /// because it could not keep up: where it drops, a late advert or a second master may be its fault.
    heard: usize,
    dropped: u64,
    /// Adverts of the backup, and who is master at the end.
    usurpations: usize,
    masters: Vec<usize>,
    /// Bytes of log and history of both.
    growth: u64,
}

/// Each kind of wrong advert, on a quiet machine and on one whose processors are busy.
pub fn flood(kinds: &[Wrong], strength: Strength) -> bool {
    println!(
        "{} packets a second for {:?}, adverts every {:?}\n\
         {:9} {:5} {:10}  % of a core       packets    dropped by   adverts   late at most, ms  \
         adverts of  masters   log and\n{:26} master  backup   a second   the machine     heard   \
         before   during  the backup    after   history",
        strength.rate, strength.period, strength.interval, "", "", "", ""
    );
    let mut met = true;
    for wrong in kinds {
        for busy in [false, true] {
            for contestants in CONTESTANTS {
                let found = measure(contestants, *wrong, strength, busy);
                show(contestants.first.label(), *wrong, busy, &found);
                if contestants.first.label() == Locum::NATIVE.label() {
                    met &= kept(*wrong, busy, &found);
                }
            }
        }
    }
    met
}

fn kept(wrong: Wrong, busy: bool, found: &Found) -> bool {
    let cheap = found.loads.iter().all(|load| load.percent <= LIMIT_PERCENT);
    (cheap || wrong == Wrong::Lower)
        && (busy || found.late.saturating_sub(found.late_before) <= LIMIT_LATE)
        && (found.usurpations, &*found.masters) == (0, &[0])
        && found.growth < LIMIT_GROWTH
}

fn show(label: &str, wrong: Wrong, busy: bool, found: &Found) {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    // The time between two adverts is known from two on.
    let late = if found.heard < 2 { "-".to_owned() } else { format!("{:.2}", ms(found.late)) };
    println!(
        "{:9} {:5} {label:10} {:6.1}  {:6.1}  {:9.0}  {:12}  {:8}  {:7.2}  {late:>7}  {:10}  {:>7}  \
         {:8}",
        format!("{wrong:?}"),
        if busy { "busy" } else { "quiet" },
        found.loads[0].percent,
        found.loads[1].percent,
        found.rate,
        found.dropped,
        found.heard,
        ms(found.late_before),
        found.usurpations,
        format!("{:?}", found.masters),
        found.growth
    );
}

fn measure(kinds: Kinds, wrong: Wrong, strength: Strength, busy: bool) -> Found {
    let version_2 = wrong == Wrong::Auth;
    let interval = if version_2 { seconds(1) } else { strength.interval };
    let router = |director: usize| {
        let router = Router::new(VRID, [FIRST, SECOND][director], &[VIP]).every(interval);
        match version_2 {
            true => router.version(Version::V2).password(PASSWORD),
            false => router,
        }
    };
    let pair = Pair::new(Shape::MEASURED_PAIR, kinds, router);
    let mut daemons = [0, 1].map(|at| {
        let kind = [kinds.first, kinds.second][at];
        kind.start(&pair.lab.directors[at], std::slice::from_ref(&pair.routers[at]))
    });
    pair.expect_master(0);
    let burners = if busy { burn(&pair.lab.client) } else { Vec::new() };
    // The announcements that follow an election are over.
    thread::sleep(seconds(6));
    let quiet = pair.lab.capture_without_client();
    thread::sleep(strength.period);
    let late_before = latest(&quiet, interval);
    drop(quiet);

    let written = |daemons: &[crate::peer::Running; 2]| -> u64 {
        let logs = daemons.iter().map(|daemon| daemon.log().len() as u64);
        logs.sum::<u64>() + pair.lab.directors.iter().map(history).sum::<u64>()
    };
    let before = written(&daemons);
    let capture = pair.lab.capture_without_client();
    let adverts = wrong.adverts();
    let dropped = dropped_packets();
    let mut rate = 0.0;
    let loads = load::during(&mut daemons, strength.period, || {
        rate = Flood::of(&pair.lab.client, &adverts).send(strength.rate, strength.period);
    });
    drop(burners);
    let found = Found {
        loads,
        rate,
        late: latest(&capture, interval),
        late_before,
        heard: capture.adverts("lb1").len(),
        dropped: dropped_packets().saturating_sub(dropped),
        usurpations: capture.adverts("lb2").len(),
        masters: pair.masters(),
        growth: written(&daemons).saturating_sub(before),
    };
    // Before the machines on which they run.
    drop(daemons);
    found
}

/// One program for each processor that wants all of it.
fn burn(node: &Node) -> Vec<Process> {
    let processors = thread::available_parallelism().map_or(1, |count| count.get());
    (0..processors).map(|_| node.spawn(&["/bin/sh", "-c", "while :; do :; done"])).collect()
}

/// The longest time between two adverts of the master beyond their interval.
fn latest(capture: &Capture, interval: Duration) -> Duration {
    let times: Vec<Instant> = capture.adverts("lb1").into_iter().map(|(at, _)| at).collect();
    let gaps = times.windows(2).map(|two| two[1].saturating_duration_since(two[0]));
    gaps.map(|gap| gap.saturating_sub(interval)).max().unwrap_or_default()
}

/// Packets that this machine has dropped because a processor's queue of them was full.
fn dropped_packets() -> u64 {
    let all = std::fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
    // One line per processor, the second number in hexadecimal.
    let of_one = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    all.lines().filter_map(of_one).sum()
}

/// Bytes of the history of our daemon on a node.
fn history(node: &Node) -> u64 {
    let files = std::fs::read_dir(node.path("/run/locum")).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum()
}
