//! The daemon fails: restarted at once, left dead, asleep.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use super::CONTESTANTS;
use super::router;
use super::settled;
use super::shown;
use crate::measure;
use crate::pair::Kinds;
use crate::pair::Pair;
use crate::peer::Locum;
use crate::peer::Peer as _;
use crate::peer::Preempt;
use crate::wait::millis;
use crate::wait::seconds;

/// The daemon fails: restarted at once, left dead, asleep.
pub fn crash() -> bool {
    let again = CONTESTANTS.map(crash_and_restart);
    let gone = CONTESTANTS.map(crash_for_good);
    let awake = CONTESTANTS.map(sleep_and_wake);
    println!("adverts every second                          locum       keepalived");
    println!("killed, started after 0.5 s: probes lost      {:<10}  {}", again[0].0, again[1].0);
    println!("killed, started after 0.5 s: role changes     {:<10}  {}", again[0].1, again[1].1);
    println!(
        "left dead: its address gone after takeover    {:<10}  {}",
        shown(gone[0]),
        shown(gone[1])
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
