//! Thousands of virtual routers that become master at once, because both directors are started or
//! because the master dies, while another program reads all addresses again and again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use super::CONTESTANTS;
use super::fleet;
use super::fleet::Fleet;
use super::fleet::Size;
use super::shown;
use super::watch::Sighting;
use super::watch::Watch;
use crate::capture::Capture;
use crate::capture::Frame;
use crate::capture::Kind;
use crate::node::Node;
use crate::pair::Kinds;
use crate::peer::locum_command;
use crate::wait::seconds;

/// How long all of them may take; what is not in place then counts as missing.
const PATIENCE: Duration = seconds(90);
/// How long it is watched afterwards: longer than any lease.
const AFTERWARDS: Duration = seconds(12);
/// From the first takeover to the last announcement.
const PROMISE: Duration = seconds(1);

/// What became of the virtual routers of the director that should be master of all.
#[derive(Debug, Default)]
struct Found {
    /// The first advert of the new master, since the event.
    begun: Option<Duration>,
    /// The last address in place and the last first announcement, since the first advert.
    placed: Option<Duration>,
    announced: Option<Duration>,
    /// The longest time from when one was due to take over to its first announcement.
    slowest: Option<Duration>,
    /// Addresses not in place at the end, or never announced.
    missing: usize,
    /// Instances in fault at the end, as far as the daemon says.
    faults: Option<usize>,
    /// How often an address in place was gone again.
    lapses: u32,
    /// Virtual routers of which the other director was master meanwhile.
    others: usize,
}

/// Started together and promoted together, at each size.
pub fn promotion(sizes: &[Size]) -> bool {
    let mut met = true;
    for size in sizes {
        println!(
            "{size}, all addresses read 20 times a second; times are since the first takeover\n\
             {:32} begun after   last in place  last announced  slowest of one  missing  \
             fault  lapsed  second masters",
            ""
        );
        for kinds in CONTESTANTS {
            let ours = kinds.first.label() == CONTESTANTS[0].first.label();
            let (started, promoted) = measure(kinds, *size);
            for (event, found) in [("started together", started), ("master killed", promoted)] {
                show(kinds.first.label(), event, &found);
                met &= !ours || kept(&found);
            }
        }
    }
    met
}

fn kept(found: &Found) -> bool {
    found.announced.is_some_and(|time| time <= PROMISE)
        && (found.missing, found.lapses, found.others) == (0, 0, 0)
        && found.faults == Some(0)
}

fn show(label: &str, event: &str, found: &Found) {
    println!(
        "{label:11} {event:20} {:>11} {:>15} {:>15} {:>15} {:>8} {:>6} {:>7} {:>15}",
        shown(found.begun),
        shown(found.placed),
        shown(found.announced),
        shown(found.slowest),
        found.missing,
        found.faults.map_or("-".to_owned(), |count| count.to_string()),
        found.lapses,
        found.others,
    );
}

/// What is watched during one event: addresses and frames of each director.
struct Observation {
    watches: [Watch; 2],
    /// What the director at a position sends is heard at the other one.
    captures: [Capture; 2],
    start: Instant,
}

impl Observation {
    fn start(fleet: &Fleet) -> Self {
        Self {
            watches: [0, 1].map(|at| Watch::start(&fleet.directors[at])),
            captures: [1, 0].map(|other| fleet.capture_at(other)),
            start: Instant::now(),
        }
    }

    /// Waits until `master` has all addresses, and the other one none if it `lives`, and a while.
    fn wait(&self, size: Size, master: usize, lives: bool) {
        let settled = || {
            let [held, others] = [master, 1 - master].map(|at| self.watches[at].count());
            held == usize::from(size.instances) && (!lives || others == 0)
        };
        while !settled() && self.start.elapsed() < PATIENCE {
            thread::sleep(seconds(1));
        }
        thread::sleep(AFTERWARDS);
    }

    /// `due` says when a virtual router should have taken over, if that is known.
    fn finish(
        self,
        fleet: &Fleet,
        master: usize,
        due: impl Fn(IpAddr) -> Option<Instant>,
    ) -> Found {
        let sightings = self.watches.map(Watch::finish);
        let frames = self.captures.map(|capture| capture.frames());
        let [promoted, announced] = [adverts(&frames[master]), announcements(&frames[master])];
        let faults = faults(&fleet.directors[master]);
        let others = adverts(&frames[1 - master]).len();
        let addresses: Vec<IpAddr> = fleet.routers(master).iter().map(|one| one.vip()).collect();
        let first = promoted.values().min().copied();
        let sightings: &BTreeMap<IpAddr, Sighting> = &sightings[master];
        let in_place = |address: &IpAddr| sightings.get(address).filter(|seen| seen.there);
        let well =
            |address: &&IpAddr| in_place(address).is_some() && announced.contains_key(*address);
        let slow = |address: &IpAddr| {
            let due = due(*address).or_else(|| promoted.get(address).copied())?;
            Some(announced.get(address)?.saturating_duration_since(due))
        };
        let since_first = |times: &mut dyn Iterator<Item = Instant>| {
            Some(times.max()?.saturating_duration_since(first?))
        };
        Found {
            begun: first.map(|at| at.saturating_duration_since(self.start)),
            placed: since_first(&mut addresses.iter().filter_map(in_place).map(|seen| seen.first)),
            announced: since_first(&mut announced.values().copied()),
            slowest: addresses.iter().filter_map(slow).max(),
            missing: addresses.len() - addresses.iter().filter(well).count(),
            faults,
            lapses: sightings.values().map(|seen| seen.lapses).sum(),
            others,
        }
    }
}

/// When each virtual router was first advertised by a master that means to stay.
fn adverts(frames: &[Frame]) -> BTreeMap<IpAddr, Instant> {
    let mut first = BTreeMap::new();
    for (address, at) in masters(frames) {
        first.entry(address).or_insert(at);
    }
    first
}

/// When each was last.
fn last_adverts(frames: &[Frame]) -> BTreeMap<IpAddr, Instant> {
    masters(frames).collect()
}

fn masters(frames: &[Frame]) -> impl Iterator<Item = (IpAddr, Instant)> {
    frames.iter().filter_map(|frame| match &frame.kind {
        Kind::Advert(advert) if advert.priority > 0 => {
            Some((fleet::address_on(&frame.from, advert.vrid)?, frame.at))
        }
        _ => None,
    })
}

/// When each address was first announced.
fn announcements(frames: &[Frame]) -> BTreeMap<IpAddr, Instant> {
    let mut first = BTreeMap::new();
    for frame in frames {
        if let Kind::GratuitousArp { address } = frame.kind {
            first.entry(IpAddr::V4(address)).or_insert(frame.at);
        }
    }
    first
}

/// Instances in fault by the status of our daemon; `None` where no such daemon runs.
fn faults(node: &Node) -> Option<usize> {
    let output = locum_command(node, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let instances = status["instances"].as_array()?.iter();
    Some(instances.filter(|instance| instance["role"] == "fault").count())
}

fn measure(kinds: Kinds, size: Size) -> (Found, Found) {
    let fleet = Fleet::new(size);
    let observation = Observation::start(&fleet);
    let [mut first, _second] = [0, 1].map(|director| fleet.start(kinds, director));
    observation.wait(size, 0, true);
    let started = observation.finish(&fleet, 0, |_| None);

    let before = fleet.capture_at(1);
    thread::sleep(size.interval * 2);
    let mut observation = Observation::start(&fleet);
    observation.start = Instant::now();
    first.kill();
    observation.wait(size, 1, false);
    let heard = last_adverts(&before.frames());
    let patience: BTreeMap<IpAddr, Duration> =
        fleet.routers(1).iter().map(|router| (router.vip(), router.down_interval())).collect();
    let due = |address| Some(*heard.get(&address)? + *patience.get(&address)?);
    let mut promoted = observation.finish(&fleet, 1, due);
    // Its last adverts before it died.
    promoted.others = 0;
    (started, promoted)
}
