//! What RFC 8347 reports (V-237, V-238).

use std::time::Duration;

use locum_vrrp::{
    Cause, LastEvent, LinkCondition, NewMasterReason, Preempt, Priority, RouterEvent,
    RouterSettings, Version,
};

use crate::bench::{Bench, HIGH, LOW, settings};

fn backup() -> Bench {
    Bench::eligible(settings(Version::V3, 100))
}

fn reason(bench: &Bench) -> NewMasterReason {
    bench.router.report().new_master_reason
}

fn last(bench: &Bench) -> LastEvent {
    bench.router.report().last_event
}

/// V-237.
#[test]
fn new_master_reason_is_that_of_the_last_promotion() {
    let mut bench = backup();
    assert_eq!(reason(&bench), NewMasterReason::NotMaster);
    bench.run(3610);
    assert_eq!(reason(&bench), NewMasterReason::NoResponse);
    bench.hear(HIGH, 150);
    bench.run(500);
    assert_eq!(reason(&bench), NewMasterReason::NoResponse, "it says why it was master");
    bench.hear(HIGH, 0);
    bench.run(1000);
    assert_eq!(reason(&bench), NewMasterReason::Priority);
    bench.hear(HIGH, 150);
    bench.run(500);
    bench.beside(HIGH, 50, 4);
    assert_eq!(reason(&bench), NewMasterReason::Preempted);
    bench.feed(RouterEvent::Switchover { claim: None });
    bench.run(2200);
    assert_eq!(reason(&bench), NewMasterReason::Preempted, "what nobody took was not lost");
    let owner = Bench::eligible(settings(Version::V3, 255));
    assert_eq!(reason(&owner), NewMasterReason::Priority);
}

/// V-238: each event of the wire and of the operator.
#[test]
fn last_event_follows_the_election() {
    let mut bench = Bench::new(settings(Version::V3, 100));
    assert_eq!(last(&bench), LastEvent::None);
    bench.feed(RouterEvent::Eligible);
    assert_eq!(last(&bench), LastEvent::Startup);
    bench.hear(LOW, 50);
    assert_eq!(last(&bench), LastEvent::LowerPriorityMaster);
    bench.run(3610);
    assert_eq!(last(&bench), LastEvent::MasterTimeout);
    bench.hear(LOW, 50);
    assert_eq!(last(&bench), LastEvent::LowerPriorityMaster);
    bench.hear(HIGH, 150);
    assert_eq!(last(&bench), LastEvent::HigherPriorityBackup);
    bench.feed(RouterEvent::Stop(Cause::Stopped));
    assert_eq!(last(&bench), LastEvent::Shutdown);
}

/// V-238.
#[test]
fn last_event_names_the_end_of_a_preempt_delay() {
    let preempt = Preempt::After(Duration::from_secs(10));
    let mut bench = Bench::eligible(RouterSettings { preempt, ..settings(Version::V3, 100) });
    bench.beside(LOW, 50, 14);
    assert_eq!(last(&bench), LastEvent::LowerPriorityMaster);
    assert_eq!(bench.router.role(), locum_vrrp::Role::Master);
    let mut bench = Bench::eligible(RouterSettings { preempt, ..settings(Version::V3, 100) });
    bench.beside(LOW, 50, 11);
    bench.run(3610);
    assert_eq!(last(&bench), LastEvent::PreemptHoldTimeout);
}

/// V-238.
#[test]
fn last_event_names_an_owner_that_comes_back() {
    let mut bench = Bench::eligible(settings(Version::V3, 255));
    assert_eq!(last(&bench), LastEvent::Startup);
    bench.feed(RouterEvent::Fault { reasons: "link".into(), can_send: false });
    bench.feed(RouterEvent::Eligible);
    assert_eq!(last(&bench), LastEvent::OwnerPreempt);
}

/// V-238.
#[test]
fn last_event_follows_the_link_and_its_addresses() {
    let mut bench = backup();
    bench.router.observe_link(LinkCondition::Ready);
    assert_eq!(last(&bench), LastEvent::Startup, "as it should be is no event");
    for (link, event) in [
        (LinkCondition::Down, LastEvent::InterfaceDown),
        (LinkCondition::Ready, LastEvent::InterfaceUp),
        (LinkCondition::NoSource, LastEvent::NoPrimaryIpAddress),
        (LinkCondition::Ready, LastEvent::PrimaryIpAddress),
    ] {
        bench.router.observe_link(link);
        assert_eq!(last(&bench), event);
    }
    bench.hear(LOW, 50);
    bench.router.observe_link(LinkCondition::Ready);
    assert_eq!(last(&bench), LastEvent::LowerPriorityMaster, "it stayed as it was");
    let none = RouterSettings { addresses: Vec::new(), ..settings(Version::V3, 100) };
    bench.feed(RouterEvent::Settings(none.into(), Priority(100)));
    assert_eq!(last(&bench), LastEvent::NoVirtualIpAddresses);
    bench.feed(RouterEvent::Settings(settings(Version::V3, 100).into(), Priority(100)));
    assert_eq!(last(&bench), LastEvent::VirtualIpAddresses);
}

/// V-402: it is up from the moment it takes part until it does no more.
#[test]
fn up_since_is_when_it_left_initialize_or_fault() {
    let mut bench = Bench::new(settings(Version::V3, 100));
    assert_eq!(bench.router.up_since(), None);
    bench.feed(RouterEvent::Eligible);
    let begun = bench.now;
    bench.run(3610);
    bench.hear(HIGH, 150);
    bench.run(1000);
    assert_eq!(bench.router.up_since(), Some(begun), "through all roles");
    bench.feed(RouterEvent::Fault { reasons: "link".into(), can_send: false });
    assert_eq!(bench.router.up_since(), None);
    bench.run(1000);
    bench.feed(RouterEvent::Eligible);
    assert_eq!(bench.router.up_since(), Some(bench.now));
}
