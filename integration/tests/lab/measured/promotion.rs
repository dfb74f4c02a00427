//! What a new master does, and in which order: it says so, it holds the address, it tells the
//! neighbours, and it tells them again (V-055, G-011, G-012).

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::time::Duration;
use std::time::Instant;

use locum_integration::capture::Capture;
use locum_integration::capture::Kind;
use locum_integration::inject;
use locum_integration::lab::Lab;
use locum_integration::lab::Shape;
use locum_integration::node::Node;
use locum_integration::order::FirstAnnouncement;
use locum_integration::pair::FIRST;
use locum_integration::pair::Kinds;
use locum_integration::pair::Pair;
use locum_integration::pair::SECOND;
use locum_integration::pair::VIP;
use locum_integration::peer::Locum;
use locum_integration::peer::Router;
use locum_integration::require;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::wait::seconds;

const OURS: Kinds = Kinds { first: &Locum::NATIVE, second: &Locum::NATIVE };
/// Announcements of one burst.
const BURST: usize = 5;
/// From the first burst to the second.
const DELAY: Duration = seconds(5);
/// Frames of one burst come within this of its first, but on a busy machine.
const LENGTH: Duration = millis(100);
/// How late a burst may be on a busy machine.
const LATE: Duration = seconds(20);
/// After the second burst nothing more comes for so long.
const QUIET: Duration = millis(500);

/// When a director announced the address, counted from the first time.
fn offsets(capture: &Capture, address: IpAddr) -> Vec<Duration> {
    let times = capture.announcements("lb2", address);
    let first = times.first().copied().unwrap_or_else(Instant::now);
    times.into_iter().map(|at| at.duration_since(first)).collect()
}

fn between(offsets: &[Duration], from: Duration, to: Duration) -> usize {
    offsets.iter().filter(|offset| **offset >= from && **offset < to).count()
}

fn announces(pair: &mut Pair) {
    let vip = pair.vip();
    let capture = pair.lab.capture();
    let watch = FirstAnnouncement::watch(&pair.lab.directors[1], vip);
    pair.daemon(0).kill();
    pair.expect_takeover(1);
    wait::until("lb2 announces the address", LATE, || {
        !capture.announcements("lb2", vip).is_empty()
    });
    assert_eq!(watch.finish(), Some(true), "held when first announced");
    let late = || between(&offsets(&capture, vip), DELAY - LENGTH, Duration::MAX);
    wait::until("the second burst has come", DELAY + LATE, || late() >= BURST);
    wait::throughout("no more of it comes", QUIET, || late() == BURST);
    let seen = offsets(&capture, vip);
    // One more corrects what was learnt while two answered.
    let early = between(&seen, Duration::ZERO, DELAY - LENGTH);
    assert!([BURST, BURST + 1].contains(&early), "the first burst: {seen:?}");
    assert!(between(&seen, Duration::ZERO, DELAY / 2) >= BURST, "the first burst: {seen:?}");
    let first = capture.frames().into_iter().find(|frame| frame.from == "lb2").expect("frames");
    assert!(matches!(first.kind, Kind::Advert(_)), "an advert comes first: {first:?}");
}

#[test]
fn new_master_advertises_holds_the_address_and_announces_it_twice_five_times() {
    if !OURS.available() {
        return;
    }
    let router = |director| Router::new(51, [FIRST, SECOND][director], &[VIP]);
    announces(&mut Pair::settled(Shape::MEASURED_PAIR, OURS, router));
}

#[test]
fn new_master_of_ipv6_advertises_holds_the_address_and_announces_it_twice_five_times() {
    if !OURS.available() {
        return;
    }
    let router = |director| {
        let addresses = ["fe80::1:61/64", "fd00:1::100/64"];
        Router::new(61, [FIRST, SECOND][director], &addresses)
    };
    announces(&mut Pair::settled(Shape::MEASURED_PAIR, OURS, router));
}

/// The witness itself can tell the difference.
#[test]
fn announcement_without_its_address_is_seen() {
    if !require::lab(&["nft"]) {
        return;
    }
    let lab = Lab::new(Shape::PAIR);
    let vip = Ipv4Addr::new(192, 168, 1, 100);
    let announce = |node: &Node| {
        let watch = FirstAnnouncement::watch(node, vip.into());
        inject::announce(node, vip);
        wait::until("it is seen", seconds(20), || watch.has_seen());
        watch.finish()
    };
    assert_eq!(announce(&lab.directors[0]), Some(false));
    lab.directors[1].run(&["ip", "addr", "add", VIP, "dev", "eth0"]);
    assert_eq!(announce(&lab.directors[1]), Some(true));
}
