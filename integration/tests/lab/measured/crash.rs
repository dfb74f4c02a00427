//! What becomes of the address when the daemon itself fails: dies, dies for good, or sleeps.

use std::time::Duration;
use std::time::Instant;

use locum_integration::lab::Shape;
use locum_integration::measure;
use locum_integration::pair::ELECTION;
use locum_integration::pair::FIRST;
use locum_integration::pair::Kinds;
use locum_integration::pair::Pair;
use locum_integration::pair::SECOND;
use locum_integration::pair::VIP;
use locum_integration::peer::Keepalived;
use locum_integration::peer::Locum;
use locum_integration::peer::Peer as _;
use locum_integration::peer::Preempt;
use locum_integration::peer::Router;
use locum_integration::probe::Report;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::wait::seconds;

const OURS: Kinds = Kinds { first: &Locum::NATIVE, second: &Locum::NATIVE };
const KEEPALIVED: Kinds = Kinds { first: &Keepalived, second: &Keepalived };
const BESIDE_KEEPALIVED: Kinds = Kinds { first: &Locum::NATIVE, second: &Keepalived };

/// So often a busy machine may keep a daemon from starting in time.
const ATTEMPTS: u32 = 5;

fn router(director: usize) -> Router {
    Router::new(51, [FIRST, SECOND][director], &[VIP])
}

fn settled(kinds: Kinds, preempt: Preempt) -> Pair {
    Pair::settled(Shape::MEASURED_PAIR, kinds, |director| router(director).preempt(preempt))
}

/// What came of a master that was killed and started again.
struct Restart {
    /// What the client saw.
    report: Report,
    /// How many adverts the other one sent, whose role is backup.
    adverts: usize,
    /// From the kill until the new one said its first word.
    away: Duration,
}

/// `kill -9` of the master and a start half a second later.
fn killed_and_started(kinds: Kinds) -> Restart {
    let mut pair = settled(kinds, Preempt::Yes);
    let capture = pair.lab.capture();
    let mut away = Duration::ZERO;
    let report = measure::through(&mut pair, seconds(6), |pair| {
        pair.daemon(0).kill();
        let killed = Instant::now();
        // Until it is gone it holds what its successor needs.
        pair.daemon(0).wait(ELECTION);
        std::thread::sleep(millis(500).saturating_sub(killed.elapsed()));
        if kinds.first.label() == Locum::NATIVE.label() {
            let again = Locum::NATIVE.start_again(&pair.lab.directors[0]);
            pair.adopt(0, again);
        } else {
            pair.start(0);
        }
        wait::until("it has started", ELECTION, || !pair.daemon(0).log().is_empty());
        away = killed.elapsed();
    });
    let adverts = capture.adverts("lb2").len();
    if kinds.first.label() == Locum::NATIVE.label() && adverts > 0 {
        for director in [0, 1] {
            eprintln!("{}", pair.daemon(director).log());
        }
    }
    Restart { report, adverts, away }
}

#[test]
fn master_started_again_within_a_second_goes_on_without_a_lost_probe() {
    if !OURS.available() || !KEEPALIVED.available() {
        return;
    }
    // One that other work of the machine kept from starting in time is not what is promised.
    let ours = (0..ATTEMPTS).map(|_| killed_and_started(OURS)).find(|it| it.away < seconds(1));
    let Restart { report: ours, adverts, .. } = ours.expect("it starts within a second");
    let Restart { report: theirs, adverts: their_adverts, .. } = killed_and_started(KEEPALIVED);
    let change = |adverts| if adverts > 0 { "role changed" } else { "role kept" };
    println!("killed, started after 500 ms: locum lost {}, {}", ours.lost, change(adverts));
    println!("                         keepalived lost {}, {}", theirs.lost, change(their_adverts));
    assert_eq!(ours.lost, 0, "{ours:?}");
    assert_eq!(ours.answered_by, [0], "{ours:?}");
    assert_eq!(adverts, 0, "the backup never takes over");
}

/// From the takeover until the dead director has no address; `None` if it keeps it.
fn gone_after(kinds: Kinds, limit: Duration) -> Option<Duration> {
    let mut pair = settled(kinds, Preempt::Yes);
    pair.daemon(0).kill();
    pair.expect_takeover(1);
    let (start, vip) = (Instant::now(), pair.vip());
    while pair.lab.directors[0].has(vip) {
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(millis(5));
    }
    Some(start.elapsed())
}

#[test]
fn address_of_a_dead_master_is_gone_a_second_after_the_takeover() {
    if !OURS.available() || !KEEPALIVED.available() {
        return;
    }
    let limit = seconds(1);
    let [ours, beside, theirs] =
        [OURS, BESIDE_KEEPALIVED, KEEPALIVED].map(|kinds| gone_after(kinds, limit));
    println!("address of the dead master, after the takeover: locum gone after {ours:?},");
    println!("beside keepalived after {beside:?}, keepalived's after {theirs:?} (limit {limit:?})");
    assert!(ours.is_some() && beside.is_some(), "still there after {limit:?}");
}

/// Adverts with a priority that a sleeper sends in the first second after it wakes, before it can
/// have been elected again; and that it stays backup.
fn adverts_on_waking(kinds: Kinds) -> usize {
    let mut pair = settled(kinds, Preempt::No);
    let capture = pair.lab.capture();
    pair.daemon(0).pause();
    pair.expect_takeover(1);
    std::thread::sleep(seconds(2));
    let woken = Instant::now();
    pair.daemon(0).resume();
    std::thread::sleep(seconds(1));
    let adverts = capture.adverts("lb1").into_iter();
    let adverts = adverts.filter(|(at, advert)| *at > woken && advert.priority > 0).count();
    if kinds.first.label() == Locum::NATIVE.label() {
        wait::steadily("lb2 alone is master", seconds(4), || pair.masters() == [1]);
    }
    adverts
}

#[test]
fn master_that_slept_sends_nothing_as_master_when_it_wakes() {
    if !OURS.available() || !KEEPALIVED.available() {
        return;
    }
    let [ours, theirs] = [OURS, KEEPALIVED].map(adverts_on_waking);
    println!("adverts as master on waking after 5 s: locum {ours}, keepalived {theirs}");
    assert_eq!(ours, 0);
}
