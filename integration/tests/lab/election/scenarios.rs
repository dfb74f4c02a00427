//! The rules of election, each for any pair of daemons. The first director has the better priority.

use std::time::Duration;
use std::time::Instant;

use locum_integration::lab::Shape;
use locum_integration::pair::ELECTION;
use locum_integration::pair::FIRST;
use locum_integration::pair::Kinds;
use locum_integration::pair::Pair;
use locum_integration::pair::SECOND;
use locum_integration::pair::VIP;
use locum_integration::peer::Preempt;
use locum_integration::peer::Router;
use locum_integration::peer::Version;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::wait::seconds;

/// Fast enough that a test takes seconds, slow enough that a busy machine lets no master lose its
/// place.
const INTERVAL: Duration = millis(200);
/// Where a standstill of the machine is not made good by the rules, as the master that lost its place
/// does not take it again.
const SLOW_INTERVAL: Duration = millis(500);
/// Twice the longest down interval at [`INTERVAL`]: what has not happened by then does not happen.
const QUIET: Duration = millis(1500);

/// Two masters that hear each other again: one advert later one of them is none any more, and two
/// intervals and a tenth of a second after that it has taken its address away. The rest is for a
/// busy machine.
const HEALED: Duration = seconds(4);

/// A cut that ends at another moment than it should is made again, so often at most.
const HEALS: usize = 5;

/// Version 3, five times a second, the first one better.
fn router(director: usize) -> Router {
    let priority = [FIRST, SECOND][director];
    Router::new(51, priority, &[VIP]).every(INTERVAL)
}

/// Heals, and waits no longer than the rule allows until this director alone is master.
fn expect_healed(pair: &Pair, master: usize) {
    pair.lab.heal();
    let what = format!("lb{} alone is master", master + 1);
    wait::until(&what, HEALED, || pair.masters() == [master]);
}

/// RFC 9568 §6.4.2: a better one that appears takes over, and stays.
pub fn better_priority_preempts(kinds: Kinds) {
    let mut pair = Pair::new(Shape::PAIR, kinds, router);
    pair.start(1);
    pair.expect_master(1);
    pair.start(0);
    pair.expect_master(0);
    wait::steadily("lb1 alone is master", QUIET, || pair.masters() == [0]);
}

/// RFC 9568 §6.1, Preempt_Mode false.
pub fn nopreempt_leaves_the_master_alone(kinds: Kinds) {
    let router = |director| router(director).every(SLOW_INTERVAL).preempt(Preempt::No);
    let mut pair = Pair::new(Shape::PAIR, kinds, router);
    pair.start(1);
    pair.expect_master(1);
    pair.start(0);
    wait::throughout("lb2 alone is master", seconds(4), || pair.masters() == [1]);
    pair.daemon(1).terminate();
    pair.expect_takeover(0);
}

/// A better one that appears waits for the delay first.
pub fn preempt_delay_holds_the_better_one_back(kinds: Kinds) {
    let delay = seconds(3);
    // So slow that no standstill of the machine makes the first one master before its time.
    let router = |director| router(director).every(seconds(1)).preempt(Preempt::After(delay));
    let mut pair = Pair::new(Shape::PAIR, kinds, router);
    pair.start(1);
    pair.expect_master(1);
    let start = Instant::now();
    pair.start(0);
    let rest = delay.saturating_sub(start.elapsed());
    wait::throughout("lb2 alone is master", rest, || pair.masters() == [1]);
    pair.expect_master(0);
}

/// A failing script lowers the priority below the other's, a good one raises it again.
pub fn check_script_moves_the_address(kinds: Kinds) {
    const SCRIPT: &str = "/run/lab/check.sh";
    const FAILING: &str = "/run/lab/failing";
    let mut pair = Pair::new(Shape::PAIR, kinds, |director| match director {
        0 => router(0).check(SCRIPT, -100),
        _ => router(1),
    });
    pair.lab.directors[0].write_script(SCRIPT, &format!("test ! -e {FAILING}"));
    pair.start(0);
    pair.start(1);
    pair.expect_master(0);
    pair.lab.directors[0].write(FAILING, "");
    pair.expect_master(1);
    pair.lab.directors[0].remove(FAILING);
    pair.expect_master(0);
}

/// `kill -9` of the master and all its processes: the other takes over.
pub fn killed_master_is_replaced(kinds: Kinds) {
    let mut pair = Pair::settled(Shape::PAIR, kinds, router);
    pair.daemon(0).kill();
    pair.expect_takeover(1);
}

/// The master's host is heard no more: the other takes over; heard again, it takes its place.
pub fn silent_master_is_replaced(kinds: Kinds) {
    let pair = Pair::settled(Shape::PAIR, kinds, router);
    pair.lab.silence(0);
    pair.expect_takeover(1);
    pair.lab.unsilence(0);
    pair.expect_master(0);
    wait::steadily("lb1 alone is master", QUIET, || pair.masters() == [0]);
}

/// A master asked to stop says so (priority 0), and the other need not wait for silence.
pub fn stopped_master_hands_over(kinds: Kinds) {
    let mut pair = Pair::settled(Shape::PAIR, kinds, router);
    let capture = pair.lab.capture();
    pair.daemon(0).terminate();
    pair.expect_takeover(1);
    wait::eventually("lb1 has said farewell", seconds(10), || {
        let adverts = capture.adverts("lb1");
        let farewell = adverts.iter().any(|(_, advert)| advert.priority == 0);
        if farewell { Ok(()) } else { Err(format!("no advert with priority 0: {adverts:?}")) }
    });
}

/// A master without a link gives up the address, and takes it back with the link.
pub fn lost_link_moves_the_address(kinds: Kinds) {
    let pair = Pair::settled(Shape::PAIR, kinds, router);
    pair.lab.unplug(0);
    pair.expect_master(1);
    pair.lab.replug(0);
    pair.expect_master(0);
    wait::steadily("lb1 alone is master", QUIET, || pair.masters() == [0]);
}

/// One direction cut: a backup that hears nothing takes over as well; healed, one is left.
pub fn one_way_cut_ends_with_one_master(kinds: Kinds) {
    let pair = Pair::settled(Shape::PAIR, kinds, router);
    pair.lab.cut(1, 0);
    wait::steadily("a master need not hear its backup", QUIET, || pair.masters() == [0]);
    pair.lab.heal();
    pair.lab.cut(0, 1);
    pair.expect_both();
    expect_healed(&pair, 0);
    wait::steadily("lb1 alone is master", QUIET, || pair.masters() == [0]);
}

/// Both directions cut: two masters, as each must believe the other dead; healed, one is left.
pub fn partition_ends_with_one_master(kinds: Kinds) {
    let pair = Pair::settled(Shape::PAIR, kinds, router);
    pair.lab.cut(0, 1);
    pair.lab.cut(1, 0);
    pair.expect_both();
    expect_healed(&pair, 0);
    wait::steadily("lb1 alone is master", QUIET, || pair.masters() == [0]);
}

/// keepalived case 5: the loser of a conflict hears of it first and goes, so that the winner has never
/// heard another master, and a host keeps the loser's hardware address.
pub fn conflict_is_repaired_whoever_hears_first(kinds: Kinds) {
    let pair = Pair::settled(Shape::PAIR, kinds, |director| {
        // The second one takes over 0.6 intervals after an advert of the first: a gap wide enough
        // to heal in.
        Router::new(51, [FIRST, SECOND][director], &[VIP])
    });
    let mac = |director: usize| {
        let octets = pair.lab.directors[director].mac("eth0").map(|octet| format!("{octet:02x}"));
        octets.join(":")
    };
    let (vip, [winner, loser]) = (pair.vip(), [0, 1].map(mac));
    let capture = pair.lab.capture();
    let first_after = |from: &str, begin: Instant| {
        let mut all = capture.adverts(from).into_iter();
        all.find(|(at, advert)| *at > begin && advert.priority > 0).map(|(at, _)| at)
    };
    let expect_advert = |begin: Instant| {
        wait::until("lb2 advertises", ELECTION, || first_after("lb2", begin).is_some());
    };
    for _ in 0..HEALS {
        pair.lab.cut(0, 1);
        pair.lab.cut(1, 0);
        pair.expect_both();
        // What it announces when it takes over has left by then.
        expect_advert(Instant::now() + QUIET * 2);
        pair.lab.client.shell(&format!("ip neigh replace {vip} lladdr {loser} dev eth0 nud stale"));
        expect_advert(Instant::now());
        let before = Instant::now();
        pair.lab.heal();
        let healed = Instant::now();
        wait::until("lb1 alone is master", HEALED, || pair.masters() == [0]);
        let [first, second] = ["lb1", "lb2"].map(|from| first_after(from, before));
        let is_meant =
            first.is_some_and(|first| healed < first && second.is_none_or(|second| first < second));
        if is_meant {
            wait::until("the host has the winner's hardware address", HEALED, || {
                pair.lab.client.run(&["ip", "neigh", "show", &vip.to_string()]).contains(&winner)
            });
            return;
        }
    }
    panic!("{HEALS} times an advert of the winner was not the first after the cut");
}

/// RFC 9568 §6.4.3: between two masters of one priority, the higher primary address stays.
pub fn equal_priorities_go_to_the_higher_address(kinds: Kinds) {
    let mut pair =
        Pair::new(Shape::PAIR, kinds, |_| Router::new(51, SECOND, &[VIP]).every(SLOW_INTERVAL));
    pair.lab.cut(0, 1);
    pair.lab.cut(1, 0);
    pair.start(0);
    pair.start(1);
    pair.expect_both();
    expect_healed(&pair, 1);
    wait::throughout("lb2 alone is master", seconds(4), || pair.masters() == [1]);
}

/// Peers by address instead of the group; nothing goes to the group.
pub fn unicast_elects(kinds: Kinds) {
    let addresses = ["192.168.1.201", "192.168.1.202"].map(|text| text.parse().expect("address"));
    let mut pair = Pair::new(Shape::PAIR, kinds, |director| {
        router(director).unicast(addresses[director], &[addresses[1 - director]])
    });
    let capture = pair.lab.capture();
    pair.start(0);
    pair.start(1);
    pair.expect_master(0);
    wait::steadily("lb1 alone is master", QUIET, || pair.masters() == [0]);
    assert!(capture.adverts("lb1").iter().all(|(_, advert)| advert.destination == addresses[1]));
    pair.daemon(0).terminate();
    pair.expect_takeover(1);
}

/// RFC 9568 over IPv6: the first address is the router's link-local one (§5.2.9).
pub fn ipv6_elects(kinds: Kinds) {
    let router = |director| {
        let priority = [FIRST, SECOND][director];
        Router::new(61, priority, &["fe80::1:61/64", "fd00:1::100/64"]).every(INTERVAL)
    };
    let mut pair = Pair::settled(Shape::PAIR, kinds, router);
    let capture = pair.lab.capture();
    pair.daemon(0).terminate();
    pair.expect_takeover(1);
    let vip = pair.vip();
    wait::until("lb2 announces the address", seconds(20), || {
        !capture.announcements("lb2", vip).is_empty()
    });
    pair.start(0);
    pair.expect_master(0);
}

/// RFC 3768 with the simple password of RFC 2338.
pub fn version_2_with_password_elects(kinds: Kinds) {
    version_2(kinds, |router| router.password("s3cret"));
}

/// RFC 3768.
pub fn version_2_elects(kinds: Kinds) {
    version_2(kinds, |router| router);
}

fn version_2(kinds: Kinds, change: impl Fn(Router) -> Router) {
    let make = |director| change(router(director).version(Version::V2).every(seconds(1)));
    let mut pair = Pair::settled(Shape::PAIR, kinds, make);
    let capture = pair.lab.capture();
    wait::throughout("lb1 alone is master", seconds(4), || pair.masters() == [0]);
    assert!(capture.adverts("lb1").iter().all(|(_, advert)| advert.version == 2));
    pair.daemon(0).terminate();
    pair.expect_takeover(1);
}
