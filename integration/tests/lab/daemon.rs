//! A director whose daemon died and comes back, and what the daemon does by itself meanwhile.

use locum_integration::lab::Shape;
use locum_integration::pair::ELECTION;
use locum_integration::pair::FIRST;
use locum_integration::pair::Kinds;
use locum_integration::pair::Pair;
use locum_integration::pair::SECOND;
use locum_integration::pair::VIP;
use locum_integration::peer::Locum;
use locum_integration::peer::Preempt;
use locum_integration::peer::Router;
use locum_integration::peer::locum_command;
use locum_integration::process::Whom;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::wait::seconds;

const OURS: Kinds = Kinds { first: &Locum::NATIVE, second: &Locum::NATIVE };

fn router(director: usize) -> Router {
    Router::new(51, [FIRST, SECOND][director], &[VIP])
}

/// A dead master that comes back after the other took over; who is master in the end.
fn returns(preempt: Preempt, kind: Whom) -> Pair {
    let mut pair = Pair::settled(Shape::PAIR, OURS, |director| {
        router(director).every(millis(500)).preempt(preempt)
    });
    match kind {
        Whom::Main => pair.daemon(0).kill_main(),
        Whom::Family => pair.daemon(0).kill(),
    }
    pair.daemon(0).wait(ELECTION);
    pair.expect_takeover(1);
    let again = Locum::NATIVE.start_again(&pair.lab.directors[0]);
    pair.adopt(0, again);
    pair
}

#[test]
fn dead_master_that_returns_takes_its_place_again() {
    if !OURS.available() {
        return;
    }
    for kind in [Whom::Main, Whom::Family] {
        let pair = returns(Preempt::Yes, kind);
        pair.expect_master(0);
        wait::steadily("lb1 alone is master", seconds(1), || pair.masters() == [0]);
    }
}

#[test]
fn dead_master_that_returns_leaves_the_other_alone_with_nopreempt() {
    if !OURS.available() {
        return;
    }
    for kind in [Whom::Main, Whom::Family] {
        let pair = returns(Preempt::No, kind);
        pair.expect_master(1);
        wait::steadily("lb2 alone is master", seconds(2), || pair.masters() == [1]);
    }
}

#[test]
fn daemon_with_one_instance_has_less_than_2_megabytes_of_its_own() {
    if !OURS.available() {
        return;
    }
    let mut pair = Pair::settled(Shape::PAIR, OURS, router);
    // Whatever status and the announcements need is part of it.
    let output = locum_command(&pair.lab.directors[0], &["status", "--json"]);
    assert!(!output.stdout.is_empty());
    for director in [0, 1] {
        // The rest is the program, twelve megabytes of this build: TLS and HTTP/2 are three of them.
        let process = pair.daemon(director).process();
        let (own, resident) = (process.own_kib(), process.resident_kib());
        println!("lb{}: {resident} KiB resident, {own} KiB of its own", director + 1);
        assert!(own > 0, "it runs");
        assert!(own * 1024 < 2_000_000, "{own} KiB");
        assert!(resident * 1024 < 16_000_000, "{resident} KiB resident");
    }
}

#[test]
fn deleted_address_is_put_back() {
    if !OURS.available() {
        return;
    }
    let pair = Pair::settled(Shape::PAIR, OURS, router);
    pair.lab.directors[0].run(&["ip", "addr", "del", VIP, "dev", "eth0"]);
    wait::until("the address is back", ELECTION, || pair.lab.directors[0].holds(pair.vip()));
    wait::steadily("lb1 alone is master", seconds(1), || pair.masters() == [0]);
}
