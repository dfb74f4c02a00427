//! A router whose node cannot serve: it gives way, and moves nothing for nothing (V-280..V-283).

use std::time::Duration;

use locum_vrrp::{
    Cause, Fitness, Preempt, Priority, Role, RouterAction, RouterEvent, RouterSettings, Version,
};

use crate::bench::{Bench, HIGH, LOW, sent, settings};

/// Serves less than every node that can serve, and more than those up to priority 2.
const UNFIT: Fitness = Fitness::Unfit { outranks: Priority(2), offers: Priority(5) };
const UNFIT_PRIORITY: Priority = Priority(3);
/// The best that cannot serve all.
const BEST_UNFIT: u8 = 4;
/// What a switchover says before its release.
const OFFER: Priority = Priority(5);
/// Two longest skews and the margin, at an interval of a second.
const TAKE_BACK: Duration = Duration::from_millis(2100);

fn backup(fitness: Fitness) -> Bench {
    let mut bench = Bench::eligible(settings(Version::V3, 100));
    bench.feed(RouterEvent::Fitness(fitness));
    if fitness != Fitness::Fit {
        bench.feed(RouterEvent::Priority(UNFIT_PRIORITY));
    }
    bench
}

fn master() -> Bench {
    let mut bench = Bench::new(settings(Version::V3, 100));
    bench.feed(RouterEvent::Adopt);
    bench
}

fn became_master(actions: &[RouterAction]) -> bool {
    let is_promotion =
        |action: &RouterAction| matches!(action, RouterAction::Changed { to: Role::Master, .. });
    actions.iter().any(is_promotion)
}

/// V-281: the priority of the other is lower than ours, and it serves as much.
#[test]
fn unfit_backup_does_not_preempt_a_master_that_serves_as_well() {
    for master in [UNFIT_PRIORITY, Priority(200)] {
        let mut bench = backup(UNFIT);
        // It has found out before its priority says so.
        bench.feed(RouterEvent::Priority(Priority(100)));
        assert!(!became_master(&bench.beside(HIGH, master.0, 60)), "{master:?}");
    }
    let mut fit = backup(Fitness::Fit);
    assert!(became_master(&fit.beside(HIGH, UNFIT_PRIORITY.0, 6)), "the same, fit");
}

/// V-281: one that serves less is preempted as ever, and not where nobody is.
#[test]
fn unfit_backup_preempts_a_master_that_serves_less() {
    let mut bench = backup(UNFIT);
    assert!(became_master(&bench.beside(HIGH, 2, 6)));
    let never = RouterSettings { preempt: Preempt::Never, ..settings(Version::V3, 100) };
    let mut bench = Bench::eligible(never);
    bench.feed(RouterEvent::Fitness(UNFIT));
    bench.feed(RouterEvent::Priority(UNFIT_PRIORITY));
    assert!(!became_master(&bench.beside(HIGH, 2, 60)));
}

/// V-282: whoever can serve takes it in its skew, and the master itself takes it back.
#[test]
fn unfit_backup_lets_an_offer_pass_until_it_would_have_been_taken_back() {
    let mut bench = backup(UNFIT);
    bench.beside(HIGH, BEST_UNFIT, 3);
    let released = bench.now;
    bench.hear(HIGH, 0);
    let skew = Duration::from_millis(1000) * 253 / 256;
    assert_eq!(bench.router.deadline(), Some(released + TAKE_BACK + skew), "V-282");
    // The second release of the same resignation.
    assert!(!became_master(&bench.run(1000)));
    bench.hear(HIGH, 0);
    assert_eq!(bench.router.deadline(), Some(released + TAKE_BACK + skew), "not prolonged");
    // Taken back: a master like before.
    assert!(!became_master(&bench.run(1100)));
    assert!(!became_master(&bench.beside(HIGH, BEST_UNFIT, 10)));
    // Gone for good.
    bench.hear(HIGH, 0);
    let out = bench.run(3100);
    let cause = Cause::MasterSilent { last: Some(HIGH) };
    let changed = RouterAction::Changed { from: Role::Backup, to: Role::Master, cause };
    assert!(out.contains(&changed), "{out:?}");
}

/// V-282: a switchover of a master that serves is no stop of it.
#[test]
fn unfit_backup_lets_a_switchover_pass_and_takes_over_from_a_master_that_stops() {
    for (said, passes) in [(OFFER, true), (Priority(200), false)] {
        let mut bench = backup(UNFIT);
        bench.beside(HIGH, 200, 3);
        bench.hear(HIGH, said.0);
        bench.hear(HIGH, 0);
        assert_eq!(!became_master(&bench.run(2000)), passes, "{said:?}");
    }
    let sent_by = |claim| sent(&master().feed(RouterEvent::Switchover { claim }));
    assert_eq!(sent_by(Some(OFFER)), [OFFER.0, 0]);
    assert_eq!(sent_by(None), [0]);
    let mut master = master();
    master.feed(RouterEvent::Switchover { claim: Some(OFFER) });
    assert_eq!(master.router.priority(), Priority(100), "it is said, and no more");
    assert_eq!(sent(&master.run(2200)).last(), Some(&100), "taken back");
}

/// V-282: of a master that serves less, a release is taken at once; of a silent one everything; and
/// of one that is not known.
#[test]
fn unfit_backup_takes_over_from_worse_and_from_the_dead() {
    for former in [Some(2), None] {
        let mut bench = backup(UNFIT);
        former.map(|priority| bench.hear(HIGH, priority));
        bench.hear(HIGH, 0);
        assert!(became_master(&bench.run(1000)), "within its skew: {former:?}");
    }
    let mut bench = backup(UNFIT);
    bench.beside(HIGH, 200, 3);
    assert!(became_master(&bench.run(4000)), "a silent master");
}

/// V-282: masters that met were heard in turn, and the others have yielded.
#[test]
fn unfit_backup_knows_how_good_the_best_of_several_masters_was() {
    for (heard, passes) in [
        (vec![(HIGH, BEST_UNFIT), (LOW, 3)], true),
        // Not for ever: it is gone, and what the next one releases is its own.
        (vec![(HIGH, 200), (HIGH, 0), (LOW, BEST_UNFIT), (HIGH, 2)], false),
    ] {
        let mut bench = backup(UNFIT);
        for (source, priority) in &heard {
            bench.hear(*source, *priority);
        }
        bench.hear(HIGH, 0);
        assert_eq!(!became_master(&bench.run(2000)), passes, "{heard:?}");
    }
    // One that said nothing any more while others did is not known better than they.
    let mut bench = backup(UNFIT);
    bench.hear(HIGH, 200);
    bench.beside(LOW, BEST_UNFIT, 10);
    bench.hear(LOW, 0);
    assert!(!became_master(&bench.run(2000)));
}

/// V-280: whoever finds out meanwhile goes on as suits what it is now.
#[test]
fn an_offer_is_taken_in_the_skew_by_a_node_that_becomes_fit() {
    let mut bench = backup(UNFIT);
    bench.beside(HIGH, BEST_UNFIT, 3);
    bench.hear(HIGH, 0);
    assert!(!became_master(&bench.run(1200)));
    bench.feed(RouterEvent::Priority(Priority(100)));
    bench.feed(RouterEvent::Fitness(Fitness::Fit));
    assert!(became_master(&bench.run(0)), "its skew is over");

    // Among others that have heard it last when it did.
    let mut bench = backup(UNFIT);
    bench.beside(HIGH, BEST_UNFIT, 3);
    bench.hear(HIGH, 0);
    bench.run(1000);
    let last = bench.now;
    bench.hear(HIGH, 0);
    bench.run(500);
    bench.feed(RouterEvent::Priority(Priority(100)));
    bench.feed(RouterEvent::Fitness(Fitness::Fit));
    let skew = Duration::from_millis(1000) * 156 / 256;
    assert_eq!(bench.router.deadline(), Some(last + skew), "V-212");

    let mut bench = backup(Fitness::Fit);
    bench.hear(HIGH, BEST_UNFIT);
    bench.hear(HIGH, 0);
    bench.feed(RouterEvent::Fitness(UNFIT));
    bench.feed(RouterEvent::Priority(UNFIT_PRIORITY));
    assert!(!became_master(&bench.run(2000)), "it cannot serve any more");
}

/// V-284.
#[test]
fn an_unfit_master_that_stops_answers_until_an_unfit_backup_has_taken_over() {
    let held = |fitness| {
        let mut bench = master();
        bench.feed(RouterEvent::Fitness(fitness));
        bench.feed(RouterEvent::Stop(Cause::Stopped));
        let since = bench.now;
        while bench.router.holds_addresses() {
            bench.run(10);
        }
        bench.now.since(since)
    };
    let longest = TAKE_BACK + Duration::from_millis(1000);
    assert!(held(UNFIT) > longest, "{:?}", held(UNFIT));
    assert!(held(Fitness::Fit) <= TAKE_BACK + Duration::from_millis(10));
}

/// V-284: peers that cannot serve have let the offer pass, and wait for as long.
#[test]
fn a_master_that_stops_while_its_mastership_is_on_offer_answers_as_long_as_one_that_is_unfit() {
    let held = |fitness, offer: RouterEvent<'_>, then: RouterEvent<'_>| {
        let mut bench = master();
        bench.feed(RouterEvent::Fitness(fitness));
        bench.feed(offer);
        let since = bench.now;
        bench.run(500);
        bench.feed(then);
        while bench.router.holds_addresses() {
            bench.run(10);
        }
        bench.now.since(since)
    };
    let longest = TAKE_BACK + Duration::from_millis(1000);
    let offer = || RouterEvent::Offer { reasons: "service www has no server that is up".into() };
    let stop = || RouterEvent::Stop(Cause::Stopped);
    let fault = || RouterEvent::Fault { reasons: "check".into(), can_send: true };
    let switchover = |claim| RouterEvent::Switchover { claim };
    assert!(held(UNFIT, offer(), stop()) > longest);
    assert!(held(UNFIT, offer(), fault()) > longest);
    assert!(held(Fitness::Fit, switchover(Some(OFFER)), stop()) > longest);
    let forced = held(UNFIT, switchover(Some(Priority(100))), stop());
    assert!(forced <= TAKE_BACK + Duration::from_millis(10), "it was no offer: {forced:?}");
}

/// V-284: the release of one that can serve again is that of one that can.
#[test]
fn a_master_that_can_serve_again_says_so_at_once() {
    let mut bench = master();
    bench.feed(RouterEvent::Fitness(UNFIT));
    bench.feed(RouterEvent::Priority(UNFIT_PRIORITY));
    bench.run(100);
    bench.feed(RouterEvent::Priority(Priority(100)));
    assert_eq!(sent(&bench.feed(RouterEvent::Fitness(Fitness::Fit))), [100]);
}

/// V-283: nobody takes it: it has never let go.
#[test]
fn offer_that_nobody_takes_is_taken_back() {
    let mut bench = master();
    bench.feed(RouterEvent::Fitness(UNFIT));
    assert_eq!(sent(&bench.feed(RouterEvent::Priority(UNFIT_PRIORITY))), [3], "V-226");
    let out =
        bench.feed(RouterEvent::Offer { reasons: "service www has no server that is up".into() });
    assert_eq!((sent(&out), bench.router.role()), (vec![0], Role::Resigning));
    let out = bench.run(TAKE_BACK.as_millis() as u64);
    assert!(bench.router.holds_addresses());
    let taken_back = RouterAction::Changed {
        from: Role::Resigning,
        to: Role::Master,
        cause: Cause::NoSuccessor,
    };
    assert!(out.contains(&taken_back), "{out:?}");
}

/// V-283: it is not on offer any more, but only what was an offer, and only until somebody takes it.
#[test]
fn an_offer_is_taken_back_while_nobody_has_taken_it() {
    let offered = || {
        let mut bench = master();
        bench.feed(RouterEvent::Fitness(UNFIT));
        bench.feed(RouterEvent::Priority(UNFIT_PRIORITY));
        bench.feed(RouterEvent::Offer { reasons: "haproxy front does not run".to_owned() });
        bench.feed(RouterEvent::Priority(Priority(100)));
        bench.feed(RouterEvent::Fitness(Fitness::Fit));
        bench
    };
    let mut bench = offered();
    assert_eq!(sent(&bench.feed(RouterEvent::TakeBack)), [100]);
    assert_eq!(bench.router.role(), Role::Master);
    let mut bench = offered();
    bench.hear(LOW, 50);
    assert_eq!(bench.feed(RouterEvent::TakeBack), [], "it is taken");
    let mut bench = master();
    bench.feed(RouterEvent::Switchover { claim: None });
    assert_eq!(bench.feed(RouterEvent::TakeBack), [], "the operator has a say");
}

/// V-283: after that it competes as its priority and its settings say.
#[test]
fn offer_that_is_taken_makes_a_backup_that_returns_when_it_is_fit() {
    let mut bench = master();
    bench.feed(RouterEvent::Fitness(UNFIT));
    bench.feed(RouterEvent::Priority(UNFIT_PRIORITY));
    let reasons = "haproxy front does not run".to_owned();
    bench.feed(RouterEvent::Offer { reasons: reasons.clone() });
    bench.run(300);
    bench.hear(LOW, 50);
    bench.beside(LOW, 50, 3);
    assert_eq!(bench.router.role(), Role::Backup);
    assert_eq!(*bench.router.since().1, Cause::Unfit { reasons });
    assert!(!bench.router.is_yielded());
    assert!(!became_master(&bench.beside(LOW, 50, 20)));
    bench.feed(RouterEvent::Priority(Priority(100)));
    bench.feed(RouterEvent::Fitness(Fitness::Fit));
    assert!(became_master(&bench.beside(LOW, 50, 6)));
}

/// V-283: only a master has something to offer.
#[test]
fn backup_has_nothing_to_offer() {
    let mut bench = backup(UNFIT);
    assert_eq!(bench.feed(RouterEvent::Offer { reasons: "x".into() }), []);
    assert_eq!(bench.router.role(), Role::Backup);
}
