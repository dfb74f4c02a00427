//! What becomes of the address when the daemon itself fails: dies, dies for good, or sleeps.

use locum_integration::lab::Shape;
use locum_integration::measure;
use locum_integration::pair::FIRST;
use locum_integration::pair::Kinds;
use locum_integration::pair::Pair;
use locum_integration::pair::SECOND;
use locum_integration::pair::VIP;
use locum_integration::peer::Keepalived;
use locum_integration::peer::Locum;
use locum_integration::peer::Preempt;
use locum_integration::peer::Router;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::wait::seconds;

const OURS: Kinds = Kinds { first: &Locum::NATIVE, second: &Locum::NATIVE };
const BESIDE_KEEPALIVED: Kinds = Kinds { first: &Locum::NATIVE, second: &Keepalived };

fn router(director: usize) -> Router {
    Router::new(51, [FIRST, SECOND][director], &[VIP])
}

#[test]
fn master_started_again_within_a_second_goes_on_without_a_lost_probe() {
    if !OURS.available() {
        return;
    }
    let mut pair = Pair::settled(Shape::MEASURED_PAIR, OURS, router);
    let capture = pair.lab.capture();
    let report = measure::through(&mut pair, seconds(6), |pair| {
        pair.daemon(0).kill_main();
        std::thread::sleep(millis(500));
        let again = Locum::NATIVE.start_again(&pair.lab.directors[0]);
        pair.adopt(0, again);
    });
    assert_eq!(report.lost, 0, "{report:?}");
    assert_eq!(report.answered_by, [0], "{report:?}");
    assert!(capture.adverts("lb2").is_empty(), "the backup never takes over");
}

#[test]
fn address_of_a_dead_master_is_gone_a_second_after_the_takeover() {
    for kinds in [OURS, BESIDE_KEEPALIVED] {
        if !kinds.available() {
            return;
        }
        let mut pair = Pair::settled(Shape::MEASURED_PAIR, kinds, router);
        pair.daemon(0).kill();
        pair.expect_takeover(1);
        let vip = pair.vip();
        wait::until("the dead director has no address", seconds(1), || {
            !pair.lab.directors[0].has(vip)
        });
    }
}

#[test]
fn master_that_slept_sends_nothing_as_master_when_it_wakes() {
    if !OURS.available() {
        return;
    }
    let mut pair =
        Pair::settled(Shape::MEASURED_PAIR, OURS, |director| router(director).preempt(Preempt::No));
    let capture = pair.lab.capture();
    pair.daemon(0).pause();
    std::thread::sleep(seconds(5));
    assert_eq!(pair.masters(), [1], "the backup took over, and the sleeper's lease ran out");
    let woken = std::time::Instant::now();
    pair.daemon(0).resume();
    wait::throughout("lb2 alone is master", seconds(5), || pair.masters() == [1]);
    let after: Vec<_> = capture.adverts("lb1").into_iter().filter(|(at, _)| *at > woken).collect();
    assert!(after.iter().all(|(_, advert)| advert.priority == 0), "{after:?}");
}

#[test]
fn deleted_address_is_put_back() {
    if !OURS.available() {
        return;
    }
    let pair = Pair::settled(Shape::PAIR, OURS, router);
    pair.lab.directors[0].run(&["ip", "addr", "del", VIP, "dev", "eth0"]);
    wait::until("the address is back", seconds(1), || pair.lab.directors[0].holds(pair.vip()));
    wait::throughout("lb1 alone is master", seconds(1), || pair.masters() == [0]);
}
