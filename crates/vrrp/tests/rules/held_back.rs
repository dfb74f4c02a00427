//! Why a router leaves a master alone that it could replace, or does not take part yet.

use std::time::Duration;

use locum_vrrp::{
    Cause, Fitness, HeldBack, Preempt, Priority, Role, RouterEvent, RouterSettings, Version,
};

use crate::bench::{Bench, HIGH, LOW, settings};

const DELAY: Duration = Duration::from_secs(30);

fn backup(preempt: Preempt) -> Bench {
    Bench::eligible(RouterSettings { preempt, ..settings(Version::V3, 140) })
}

/// keepalived's `nopreempt`: the master's check failed, and nothing moves.
#[test]
fn who_does_not_preempt_says_so_beside_a_lower_master_alone() {
    let mut bench = backup(Preempt::Never);
    assert_eq!(bench.router.held_back(), None, "nobody is there");
    bench.hear(HIGH, 150);
    assert_eq!(bench.router.held_back(), None, "a better one");
    bench.hear(HIGH, 100);
    assert_eq!(bench.router.held_back(), Some(HeldBack::NoPreempt));
    bench.hear(HIGH, 0);
    assert_eq!(bench.router.held_back(), None, "it is about to take over");
}

#[test]
fn a_preempt_delay_says_when_it_is_over() {
    let mut bench = backup(Preempt::After(DELAY));
    let heard = bench.now;
    bench.hear(LOW, 100);
    let until = heard + DELAY;
    assert_eq!(bench.router.held_back(), Some(HeldBack::PreemptDelay { until }));
    bench.beside(LOW, 100, 20);
    assert_eq!(bench.router.held_back(), Some(HeldBack::PreemptDelay { until }));
    bench.beside(LOW, 100, 15);
    assert_eq!(bench.router.role(), Role::Master);
    assert_eq!(bench.router.held_back(), None);
}

#[test]
fn a_start_delay_says_when_it_is_over() {
    let start_delay = DELAY;
    let mut bench = Bench::eligible(RouterSettings { start_delay, ..settings(Version::V3, 140) });
    let until = bench.now + DELAY;
    assert_eq!(bench.router.held_back(), Some(HeldBack::StartDelay { until }));
    bench.run(30_000);
    assert_eq!(bench.router.held_back(), None);
}

#[test]
fn what_was_handed_over_is_left_to_the_peer() {
    let mut bench = backup(Preempt::After(Duration::ZERO));
    bench.run(5_000);
    bench.feed(RouterEvent::Switchover { claim: None });
    bench.beside(LOW, 100, 3);
    assert_eq!(bench.router.role(), Role::Backup);
    assert_eq!(bench.router.held_back(), Some(HeldBack::Yielded));
}

#[test]
fn who_cannot_serve_says_whom_it_leaves_alone_and_what_it_lets_pass() {
    let mut bench = backup(Preempt::After(Duration::ZERO));
    let (outranks, offers) = (Priority(2), Priority(5));
    bench.feed(RouterEvent::Fitness(Fitness::Unfit { outranks, offers }));
    bench.feed(RouterEvent::Priority(Priority(4)));
    bench.hear(HIGH, 3);
    assert_eq!(bench.router.held_back(), Some(HeldBack::Unfit), "it serves as much");
    bench.hear(HIGH, 0);
    let until = bench.router.deadline().expect("a backup waits");
    assert_eq!(bench.router.held_back(), Some(HeldBack::LetsPass { until }));
}

#[test]
fn a_refusal_is_said_until_it_asks_again() {
    let mut bench = backup(Preempt::After(Duration::ZERO));
    let mut out = Vec::new();
    bench.now = bench.router.deadline().expect("a backup waits");
    bench.router.handle(bench.now, RouterEvent::Timeout, &mut out);
    let cause = bench.router.candidate().map(|(cause, _)| cause.clone());
    assert_eq!(cause, Some(Cause::MasterSilent { last: None }));
    bench.router.handle(bench.now, RouterEvent::Refuse, &mut out);
    assert_eq!(bench.router.held_back(), Some(HeldBack::Refused { at: bench.now }));
}
