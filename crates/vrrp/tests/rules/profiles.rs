//! Where the profiles and the versions differ, and what a reload or a pause does to timers.

use std::time::Duration;

use locum_vrrp::{
    Interval, Priority, Profile, Role, RouterAction, RouterEvent, RouterSettings, Version,
};

use crate::bench::{Bench, HIGH, LOW, sent, settings};

/// V-224, V-230: who answers a lower master, and whose advert timer starts anew by it.
#[test]
fn lower_master_is_answered_except_in_strict_version_2() {
    for (version, profile, answers, next_ms) in [
        (Version::V3, Profile::Interop, true, 1000),
        (Version::V3, Profile::Strict, true, 500),
        (Version::V2, Profile::Interop, true, 1000),
        (Version::V2, Profile::Strict, false, 500),
    ] {
        let announce = locum_vrrp::AnnounceSettings { delay: Duration::ZERO, ..Default::default() };
        let announce = announce.into();
        let settings = RouterSettings { profile, announce, ..settings(version, 100) };
        let mut bench = Bench::new(settings);
        bench.feed(RouterEvent::Adopt);
        bench.run(500);
        let out = bench.hear(HIGH, 50);
        assert_eq!(sent(&out), vec![100; usize::from(answers)], "{version:?} {profile:?}");
        let announces = out.iter().any(|action| matches!(action, RouterAction::Announce { .. }));
        assert_eq!(announces, profile == Profile::Interop, "G-013");
        assert_eq!(sent(&bench.run(next_ms - 1)), [0_u8; 0], "{version:?} {profile:?}");
        assert_eq!(sent(&bench.run(1)), [100], "{version:?} {profile:?}");
    }
}

/// V-142, V-143: version 2 has one interval, its own; version 3 keeps what the master taught it.
#[test]
fn reload_with_another_interval_changes_the_wait_in_version_2_alone() {
    for (version, wait_ms) in [(Version::V2, 15_610), (Version::V3, 3_610)] {
        let mut bench = Bench::eligible(settings(version, 100));
        bench.hear(HIGH, 150);
        let slower = RouterSettings {
            interval: Interval::new(version, 500).expect("5 s"),
            ..settings(version, 100)
        };
        bench.feed(RouterEvent::Settings(slower.into(), Priority(100)));
        let wait = bench.router.deadline().expect("it waits").since(bench.now);
        assert_eq!(wait.as_millis().div_ceil(10) * 10, wait_ms, "{version:?}");
    }
}

/// V-144: what a master has taught is forgotten in fault.
#[test]
fn learnt_interval_is_forgotten_in_fault() {
    let mut bench = Bench::eligible(settings(Version::V3, 100));
    let slow = locum_vrrp::Heard {
        interval: Interval::new(Version::V3, 1000).expect("10 s"),
        ..crate::bench::heard(HIGH, 150)
    };
    bench.feed(RouterEvent::Heard(&slow));
    assert!(bench.router.down_interval() > Duration::from_secs(30));
    bench.feed(RouterEvent::Fault { reasons: "link".into(), can_send: false });
    bench.feed(RouterEvent::Eligible);
    assert_eq!(bench.router.down_interval(), Duration::from_micros(3_609_375));
}

/// V-145, V-212: the skew after a release is that of the master's interval, not of ours.
#[test]
fn skew_after_a_release_is_of_the_learnt_interval() {
    let mut bench = Bench::eligible(settings(Version::V3, 100));
    let slow = locum_vrrp::Heard {
        interval: Interval::new(Version::V3, 1000).expect("10 s"),
        ..crate::bench::heard(HIGH, 150)
    };
    bench.feed(RouterEvent::Heard(&slow));
    bench.hear(HIGH, 0);
    let wait = bench.router.deadline().expect("it waits").since(bench.now);
    assert_eq!(wait, Duration::from_micros(6_093_750));
}

/// V-167: nobody wins against itself.
#[test]
fn equal_priority_and_address_changes_nothing() {
    let mut bench = Bench::new(settings(Version::V3, 100));
    bench.feed(RouterEvent::Adopt);
    bench.router.set_source(Some(LOW));
    bench.hear(LOW, 100);
    assert_eq!(bench.router.role(), locum_vrrp::Role::Master);
}

/// V-059: lateness does not add up.
#[test]
fn a_late_advert_does_not_delay_the_next() {
    let mut bench = Bench::new(settings(Version::V3, 100));
    bench.feed(RouterEvent::Adopt);
    let begun = bench.now;
    for second in 1..=20 {
        let due = begun + Duration::from_secs(second);
        let late_ms = if second % 2 == 1 { 300 } else { 0 };
        bench.now = due + Duration::from_millis(late_ms);
        assert_eq!(sent(&bench.feed(RouterEvent::Timeout)), [100], "{second}");
    }
}

/// V-059: reported when peers of the usual patience have given up, where that is not the end of this
/// mastership anyway (V-241).
#[test]
fn an_advert_that_is_late_by_more_than_two_intervals_is_reported() {
    for (late_ms, reported) in [(1900, false), (2000, false), (2001, true)] {
        let patient = RouterSettings { down_multiplier: 10, ..settings(Version::V3, 100) };
        let mut bench = Bench::new(patient);
        bench.feed(RouterEvent::Adopt);
        bench.now += Duration::from_millis(1000 + late_ms);
        let out = bench.feed(RouterEvent::Timeout);
        let by = Duration::from_millis(late_ms);
        assert_eq!(out.contains(&RouterAction::Late { by }), reported, "{late_ms} {out:?}");
        assert_eq!(sent(&out), [100]);
    }
}

/// V-044: peers that drop our form advertise themselves; a master follows what they send.
#[test]
fn master_learns_the_form_of_a_lower_one() {
    use locum_vrrp::ChecksumForm;
    let mut bench = Bench::new(settings(Version::V3, 100));
    bench.feed(RouterEvent::Adopt);
    assert_eq!(bench.router.form(), ChecksumForm::Pseudo);
    let other =
        locum_vrrp::Heard { form: Some(ChecksumForm::Message), ..crate::bench::heard(HIGH, 50) };
    bench.feed(RouterEvent::Heard(&other));
    assert_eq!(bench.router.role(), locum_vrrp::Role::Master);
    assert_eq!(bench.router.form(), ChecksumForm::Message);
}

/// V-146: the new skew, counted from the last restart.
#[test]
fn running_down_timer_follows_the_priority() {
    let mut bench = Bench::eligible(settings(Version::V3, 100));
    let begun = bench.now;
    bench.run(1000);
    bench.feed(RouterEvent::Priority(Priority(200)));
    let wait = bench.router.deadline().expect("it waits").since(begun);
    assert_eq!(wait, Duration::from_nanos(3_000_000_000 + 56 * 1_000_000_000 / 256));
}

/// V-170: equals are accepted whatever their address, lower ones are not.
#[test]
fn backup_restarts_its_timer_for_its_equal_and_not_for_a_lower_one() {
    for (source, priority, restarts) in [(LOW, 100, true), (HIGH, 101, true), (HIGH, 99, false)] {
        let mut bench = Bench::eligible(settings(Version::V3, 100));
        bench.run(1000);
        let before = bench.router.deadline();
        bench.hear(source, priority);
        assert_eq!(bench.router.deadline() > before, restarts, "{source} {priority}");
    }
}

/// V-232: whoever hears whom first after a partition, the hosts that the loser has misled hear of it.
#[test]
fn a_master_that_loses_says_so_before_it_goes() {
    for (profile, said) in [(Profile::Interop, vec![100]), (Profile::Strict, vec![])] {
        let mut bench = Bench::new(RouterSettings { profile, ..settings(Version::V3, 100) });
        bench.feed(RouterEvent::Adopt);
        bench.run(5000);
        assert_eq!(sent(&bench.hear(HIGH, 200)), said, "{profile:?}");
    }
}

/// V-232: in a partition it has been master all the time; when it has preempted the other one it has
/// announced itself just now.
#[test]
fn a_farewell_is_a_conflict_unless_its_sender_was_preempted_a_moment_ago() {
    let began = |actions: &[RouterAction]| {
        actions.iter().any(|action| matches!(action, RouterAction::ConflictBegan { .. }))
    };
    let mut bench = Bench::new(settings(Version::V3, 100));
    bench.feed(RouterEvent::Adopt);
    bench.run(5000);
    assert!(began(&bench.hear(LOW, 50)), "a partition is over");

    let mut bench = Bench::eligible(settings(Version::V3, 100));
    bench.beside(LOW, 50, 4);
    assert_eq!(bench.router.role(), Role::Master, "it has preempted");
    let since = bench.router.since().0;
    assert!(!began(&bench.hear(LOW, 50)), "it says farewell");
    bench.run(1000 - bench.now.since(since).as_millis() as u64);
    assert!(began(&bench.hear(LOW, 50)), "it is master still");
}
