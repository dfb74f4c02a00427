//! Two routers of priority 255 (V-175, V-176).

use locum_vrrp::{Priority, Profile, Role, RouterAction, RouterEvent, RouterSettings, Version};

use crate::bench::{Bench, HIGH, LOW, sent, settings};

fn owner() -> Bench {
    let bench = Bench::eligible(settings(Version::V3, 255));
    assert_eq!(bench.router.role(), Role::Master, "V-200");
    bench
}

fn claims(actions: &[RouterAction]) -> Vec<(u8, u8)> {
    let claim = |action: &RouterAction| match action {
        RouterAction::ClaimChanged { from, to, .. } => Some((from.0, to.0)),
        _ => None,
    };
    actions.iter().filter_map(claim).collect()
}

/// V-176: one that hears us has yielded by then.
#[test]
fn owner_with_the_lower_address_yields() {
    let mut bench = owner();
    bench.hear(HIGH, 255);
    assert_eq!(bench.router.role(), Role::Resigning);
    assert_eq!(bench.router.priority(), Priority::OWNER, "by its address, not by a concession");
}

/// V-176: two own adverts and 1.2 intervals are 3.2 s.
#[test]
fn owner_with_the_higher_address_concedes_to_one_that_does_not_yield() {
    let mut bench = owner();
    let out = bench.beside(LOW, 255, 4);
    assert_eq!(bench.router.role(), Role::Master, "3 s after the first");
    assert!(sent(&out).len() >= 4 && sent(&out).iter().all(|priority| *priority == 255));
    assert_eq!(claims(&out), []);
    let out = bench.hear(LOW, 255);
    assert_eq!(claims(&out), [(255, 254)]);
    assert_eq!(bench.router.role(), Role::Resigning);
    assert_eq!(sent(&out), [254], "V-232, and no release (V-233)");
    let out = bench.beside(LOW, 255, 20);
    assert_eq!(bench.router.role(), Role::Backup);
    assert_eq!((claims(&out), bench.router.priority()), (vec![], Priority(254)));
}

/// V-176: the patience begins anew when the other one was away.
#[test]
fn owner_that_is_heard_now_and_then_is_outlasted() {
    let mut bench = owner();
    for _ in 0..10 {
        assert_eq!(claims(&bench.hear(LOW, 255)), []);
        bench.run(4000);
    }
    assert_eq!(bench.router.role(), Role::Master);
}

/// V-176: only an owner can be conceded to.
#[test]
fn owner_never_concedes_to_an_ordinary_router() {
    let mut bench = owner();
    let out = bench.beside(LOW, 254, 30);
    assert_eq!((claims(&out), bench.router.role()), (vec![], Role::Master));
}

/// V-176.
#[test]
fn conceded_owner_claims_again_when_the_other_is_silent() {
    let mut bench = owner();
    bench.beside(LOW, 255, 6);
    assert_eq!(bench.router.priority(), Priority(254));
    let out = bench.run(4000);
    assert_eq!(claims(&out), [(254, 255)]);
    assert_eq!((bench.router.role(), bench.router.priority()), (Role::Master, Priority::OWNER));
    assert_eq!(sent(&out)[0], 255);
}

/// V-176: "or changes priority".
#[test]
fn conceded_owner_claims_again_when_the_other_is_an_owner_no_more() {
    let mut bench = owner();
    bench.beside(LOW, 255, 6);
    let out = bench.hear(LOW, 200);
    assert_eq!(claims(&out), [(254, 255)]);
    bench.beside(LOW, 200, 4);
    assert_eq!(bench.router.role(), Role::Master, "an owner preempts, V-162");
}

/// V-176, V-161: what the engine says again is not a new claim; another priority is.
#[test]
fn concession_outlives_the_same_priority_and_settings() {
    let mut bench = owner();
    bench.beside(LOW, 255, 6);
    bench.feed(RouterEvent::Priority(Priority::OWNER));
    bench.feed(RouterEvent::Settings(settings(Version::V3, 255).into(), Priority::OWNER));
    assert_eq!(bench.router.priority(), Priority(254));
    assert_eq!(bench.router.competing(Priority::OWNER), Priority(254));
    bench.feed(RouterEvent::Priority(Priority(100)));
    assert_eq!(bench.router.competing(Priority::OWNER), Priority::OWNER);
    bench.feed(RouterEvent::Priority(Priority::OWNER));
    assert_eq!(bench.router.priority(), Priority::OWNER);
}

/// V-175, RFC 3768 §7.1: of the profiles and versions, one discards; and where it is asked for.
#[test]
fn strict_version_2_owner_discards_what_it_hears() {
    for (version, profile, ignores, master) in [
        (Version::V2, Profile::Strict, false, true),
        (Version::V2, Profile::Interop, false, false),
        (Version::V3, Profile::Strict, false, false),
        (Version::V3, Profile::Interop, true, true),
    ] {
        let settings =
            RouterSettings { profile, owner_ignores_adverts: ignores, ..settings(version, 255) };
        let mut bench = Bench::eligible(settings);
        let out = bench.hear(HIGH, 255);
        let role = if master { Role::Master } else { Role::Resigning };
        assert_eq!(bench.router.role(), role, "{version:?} {profile:?} {ignores}");
        assert_eq!(out.is_empty(), master);
    }
}
