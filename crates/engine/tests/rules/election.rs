//! Rules of one node, as input lists and output lists.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{
    EventKind, FactKey, Fault, Inherited, Input, OperatorCommand, Output, Reply, RunMode,
    Successor, Target,
};
use locum_plan::{Lease, Plan, Track, Tracked, Verdict};
use locum_vrrp::{Interval, Preempt, Priority, Role, Version};

use crate::node::{
    HANDED_OVER, Node, PEER, VIP, instance, outcome, plan, process_check, sent_priorities,
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// V-055, I-035: the order of a promotion.
#[test]
fn promotion_advertises_then_applies_then_announces() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    let out = node.run_for(ms(3609)).to_vec();
    assert!(!out.iter().any(|o| matches!(o, Output::Apply { .. })), "not before 3A + skew");
    let mut out = node.run_for(ms(1)).to_vec();
    assert!(!out.iter().any(|o| matches!(o, Output::Announce { .. })), "not in place yet");
    out.extend_from_slice(node.confirm_applies());
    let position = |wanted: fn(&Output) -> bool| out.iter().position(wanted).expect("is there");
    let advertise = position(|o| matches!(o, Output::Advertise(_)));
    let apply = position(|o| matches!(o, Output::Apply { .. }));
    let announce = position(|o| matches!(o, Output::Announce { .. }));
    let notify = position(|o| matches!(o, Output::Notify(_)));
    assert!(advertise < apply && apply < notify && notify < announce, "{out:#?}");
    let Output::Apply { hold, .. } = &out[apply] else { panic!("{out:#?}") };
    let Output::Announce { frames, .. } = &out[announce] else { panic!("{out:#?}") };
    assert_eq!(frames.len(), 5, "G-011");
    assert_eq!(hold[0].lease_seconds(), Some(3), "the shortest takeover at 1 s");
}

/// Hundreds that began together: the first advert does not wait for the last.
#[test]
fn timers_that_are_due_together_are_served_in_parts() {
    let all = (0..300_u32).map(|number| {
        let vrid = u8::try_from(number % 255 + 1).expect("1..=255");
        let mut instance = instance(&format!("web{number}"), vrid, 100);
        instance.interface = if number < 255 { "eth0".into() } else { "eth1".into() };
        Arc::new(instance)
    });
    let mut node = Node::started(Plan { instances: all.collect(), ..plan([]) });
    node.sleep(ms(3610));
    let now = node.now();
    let mut parts = Vec::new();
    for _ in 0..3 {
        let out = node.feed(Input::Timeout);
        let is_more_due = matches!(out.last(), Some(Output::Deadline(Some(at))) if *at <= now);
        parts.push((sent_priorities(out).len(), is_more_due));
    }
    assert_eq!(parts, [(256, true), (44, false), (0, false)]);
}

/// Lease: the level is applied again before the kernel drops it.
#[test]
fn a_master_renews_its_lease_with_its_adverts() {
    let mut node = Node::prompt(plan([instance("web", 51, 100)]));
    node.run_for(ms(3610));
    let out = node.run_for(ms(3000)).to_vec();
    let renewals = out.iter().filter(|o| matches!(o, Output::Apply { .. })).count();
    assert_eq!(renewals, 3, "one per advert");
}

/// V-240.
#[test]
fn a_stopping_master_answers_until_the_successor_is_heard() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    let out = node.feed(Input::Command { id: 1, command: OperatorCommand::Stop }).to_vec();
    assert_eq!(sent_priorities(&out), [0]);
    assert!(!out.iter().any(|o| matches!(o, Output::Apply { .. } | Output::Stopped)), "{out:#?}");
    node.run_for(ms(300));
    node.hear(PEER, 90);
    let out = node.run_for(ms(399)).to_vec();
    let early = "it may take 300 ms until it serves and announces, and then there is the margin";
    assert!(!out.iter().any(|o| matches!(o, Output::Apply { .. })), "{early}");
    let out = node.run_for(ms(2)).to_vec();
    let drops = out.iter().any(
        |o| matches!(o, Output::Apply { hold, drop, .. } if hold.is_empty() && drop.len() == 1),
    );
    assert!(drops, "{out:#?}");
    assert!(!out.contains(&Output::Stopped), "the kernel has not confirmed yet");
    let out = node.confirm_applies().to_vec();
    assert!(out.contains(&Output::Stopped));
}

#[test]
fn a_stopping_master_without_a_successor_lets_go_after_twice_the_longest_skew() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    node.feed(Input::Command { id: 1, command: OperatorCommand::Stop });
    let out = node.run_for(ms(999)).to_vec();
    assert_eq!(sent_priorities(&out), [0_u8; 0], "a second release would restart their timers");
    let out = node.run_for(ms(1100)).to_vec();
    assert_eq!(sent_priorities(&out), [0], "the first must have been lost");
    assert!(!out.iter().any(|o| matches!(o, Output::Apply { hold, .. } if hold.is_empty())));
    let out = node.run_for(ms(2)).to_vec();
    assert!(out.iter().any(|o| matches!(o, Output::Apply { hold, .. } if hold.is_empty())));
}

#[test]
fn a_switchover_nobody_takes_is_taken_back_without_letting_go() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    let command = switchover(None, RunMode::Real);
    node.feed(Input::Command { id: 1, command });
    let out = node.run_for(ms(2200)).to_vec();
    assert_eq!(node.role(), Role::Master);
    assert!(!out.iter().any(|o| matches!(o, Output::Apply { hold, .. } if hold.is_empty())));
    assert_eq!(sent_priorities(&out)[1..], [100], "back as master");
}

#[test]
fn after_a_switchover_the_lower_peer_is_left_alone() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    let command = switchover(None, RunMode::Real);
    node.feed(Input::Command { id: 1, command });
    for _ in 0..20 {
        node.hear(PEER, 90);
        node.run_for(ms(1000));
    }
    assert_eq!(node.role(), Role::Backup);
    node.run_for(ms(3700));
    assert_eq!(node.role(), Role::Master, "the peer died");
}

#[test]
fn a_switchover_on_a_backup_is_refused_and_names_the_master() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    node.hear(PEER, 150);
    let command = switchover(None, RunMode::Real);
    let out = node.feed(Input::Command { id: 9, command }).to_vec();
    let refused = out.iter().any(|o| match o {
        Output::Reply { id: 9, reply: Reply::Refused(why) } => why.contains("192.0.2.3"),
        _ => false,
    });
    assert!(refused, "{out:#?}");
}

#[test]
fn a_dry_run_says_what_would_happen_and_does_nothing() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    let command = switchover(None, RunMode::Dry);
    let out = node.feed(Input::Command { id: 1, command }).to_vec();
    assert!(
        matches!(&out[0], Output::Reply { reply: Reply::Ok(text), .. } if text.contains("web"))
    );
    assert_eq!(out.len(), 2, "the reply and the deadline");
}

#[test]
fn a_successor_must_be_the_only_other_node() {
    let mut two = plan([instance("web", 51, 100)]);
    let node_of = |name: &str| locum_plan::Node { name: name.into(), address: None };
    two.nodes = vec![node_of("lb1"), node_of("lb2")];
    let mut three = two.clone();
    three.nodes.push(node_of("lb3"));
    for (plan, to, accepted) in
        [(&two, "lb2", true), (&two, "lb1", false), (&two, "lb9", false), (&three, "lb2", false)]
    {
        let mut node = Node::master(plan.clone());
        let command = switchover(Some(to), RunMode::Real);
        let out = node.feed(Input::Command { id: 1, command }).to_vec();
        let ok = out.iter().any(|o| matches!(o, Output::Reply { reply: Reply::Ok(_), .. }));
        assert_eq!(ok, accepted, "{to} of {}", plan.nodes.len());
        assert_eq!(node.role() == Role::Resigning, accepted);
    }
}

/// V-241.
#[test]
fn a_master_that_slept_too_long_says_nothing_as_master() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    node.sleep(ms(5000));
    let out = node.feed(Input::Timeout).to_vec();
    assert_eq!(sent_priorities(&out), [0_u8; 0]);
    assert!(out.iter().any(|o| matches!(o, Output::Apply { hold, .. } if hold.is_empty())));
    assert_eq!(node.role(), Role::Backup);
}

#[test]
fn a_node_that_slept_does_not_put_back_what_the_kernel_expired() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    node.sleep(ms(5000));
    let lost = Input::FactLost { key: vip_key(), culprit: None };
    let out = node.feed(lost).to_vec();
    assert!(!out.iter().any(|o| matches!(o, Output::Apply { hold, .. } if !hold.is_empty())));
}

#[test]
fn a_deleted_address_is_put_back_at_once_and_announced() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    let culprit = Some("systemd-network".to_owned());
    let lost = Input::FactLost { key: vip_key(), culprit };
    let mut out = node.feed(lost.clone()).to_vec();
    assert!(out.iter().any(|o| matches!(o, Output::Apply { hold, .. } if hold.len() == 1)));
    assert!(!out.iter().any(|o| matches!(o, Output::Announce { .. })), "it is not there yet");
    out.extend_from_slice(node.confirm_applies());
    assert!(out.iter().any(|o| matches!(o, Output::Announce { .. })));
    let reported = out.iter().any(
        |o| matches!(o, Output::Notify(event) if matches!(event.kind, EventKind::Healed { .. })),
    );
    assert!(reported);
    let out = node.feed(lost).to_vec();
    assert!(!out.iter().any(|o| matches!(o, Output::Apply { .. })), "a pause between repairs");
    let out = node.run_for(ms(101)).to_vec();
    assert!(out.iter().any(|o| matches!(o, Output::Apply { .. })));
}

/// V-242.
#[test]
fn a_restart_with_a_valid_lease_goes_on_as_master_at_once() {
    let inherited = Inherited::address("eth0".into(), VIP.into(), 24, Some(2));
    let mut node = Node::with_links();
    let out = node.plan_with(plan([instance("web", 51, 100)]), vec![inherited]).to_vec();
    assert_eq!(node.role(), Role::Master);
    assert_eq!(sent_priorities(&out), [100]);
    let keeps = out.iter().any(
        |o| matches!(o, Output::Apply { hold, drop, .. } if hold.len() == 1 && drop.is_empty()),
    );
    assert!(keeps, "{out:#?}");
}

/// V-242: peers of a fast instance have taken over long before the kernel's second is over.
#[test]
fn a_lease_is_no_proof_when_peers_may_have_taken_over_since() {
    let cases = [
        (Lease::Auto, 100, Some(3), true),
        (Lease::Auto, 1, Some(1), false),
        (Lease::Fixed(Duration::from_secs(3600)), 100, Some(1800), false),
        (Lease::Fixed(Duration::from_secs(3600)), 100, Some(3599), true),
        (Lease::Off, 100, None, false),
    ];
    for (lease, centis, valid_seconds, adopts) in cases {
        let mut web = instance("web", 51, 100);
        web.lease = lease;
        Arc::make_mut(&mut web.router).interval =
            Interval::new(Version::V3, centis).expect("in range");
        let inherited = Inherited::address("eth0".into(), VIP.into(), 24, valid_seconds);
        let mut node = Node::with_links();
        node.plan_with(plan([web]), vec![inherited]);
        assert_eq!(node.role() == Role::Master, adopts, "{lease:?} {centis} {valid_seconds:?}");
    }
}

#[test]
fn leftovers_of_no_instance_are_withdrawn_even_by_an_empty_plan() {
    let inherited = Inherited::address("eth0".into(), VIP.into(), 24, Some(2));
    let mut node = Node::with_links();
    let out = node.plan_with(plan([]), vec![inherited]).to_vec();
    assert!(out.iter().any(|o| matches!(o, Output::Apply { drop, .. } if drop.len() == 1)));
}

#[test]
fn a_leftover_without_a_lease_is_withdrawn_before_anything_else() {
    let inherited = Inherited::address("eth0".into(), VIP.into(), 24, None);
    let mut node = Node::with_links();
    let out = node.plan_with(plan([instance("web", 51, 100)]), vec![inherited]).to_vec();
    assert_eq!(node.role(), Role::Backup);
    let drops = out.iter().any(
        |o| matches!(o, Output::Apply { hold, drop, .. } if hold.is_empty() && drop.len() == 1),
    );
    assert!(drops, "{out:#?}");
}

/// A result reaches the next advert.
#[test]
fn a_failing_check_lowers_the_priority_of_the_next_advert() {
    let mut web = instance("web", 51, 100);
    web.track = vec![Track { object: Tracked::Check("app".into()), weight: None }];
    let mut plan = plan([web]);
    plan.checks = vec![process_check(-60)];
    let mut node = Node::master(plan);
    let probe = node.probe();
    let out = node.feed(Input::Probed { probe, outcome: outcome(Verdict::Fail) }).to_vec();
    assert_eq!(sent_priorities(&out), [40], "a drop is told at once (V-226)");
}

#[test]
fn a_failing_check_of_weight_zero_is_a_fault_that_hands_over_first() {
    let mut web = instance("web", 51, 100);
    web.track = vec![Track { object: Tracked::Check("app".into()), weight: None }];
    let mut plan = plan([web]);
    plan.checks = vec![process_check(0)];
    let mut node = Node::started(plan);
    let probe = node.probe();
    node.run_for(ms(10_000));
    assert_eq!(node.role(), Role::Initialize, "waits for the first result");
    node.feed(Input::Probed { probe, outcome: outcome(Verdict::Pass) });
    node.run_for(ms(3700));
    assert_eq!(node.role(), Role::Master);
    let out = node.feed(Input::Probed { probe, outcome: outcome(Verdict::Fail) }).to_vec();
    assert_eq!(sent_priorities(&out), [0]);
    assert_eq!(node.role(), Role::Resigning);
    node.run_for(ms(2200));
    assert_eq!(node.role(), Role::Fault);
    let [Fault::Tracked { object, up: false, .. }] = &node.status().instances[0].faults[..] else {
        panic!("{:?}", node.status());
    };
    assert_eq!(*object, Tracked::Check("app".into()));
}

#[test]
fn link_loss_is_a_fault_with_its_reason_and_other_instances_run_on() {
    let mut other = instance("db", 52, 100);
    other.interface = "eth1".into();
    other.addresses[0].address = Ipv4Addr::new(198, 51, 100, 10).into();
    let mut node = Node::master(plan([instance("web", 51, 100), other]));
    node.link("eth0", false);
    let status = node.status();
    assert_eq!(status.instances[0].role, Role::Fault);
    let down = Fault::InterfaceDown { interface: "eth0".into() };
    assert_eq!(status.instances[0].faults, [down]);
    assert_eq!(status.instances[1].role, Role::Master);
}

#[test]
fn a_reload_without_change_emits_nothing_but_its_notification() {
    let text = plan([instance("web", 51, 100)]);
    let mut node = Node::master(text.clone());
    let out = node.plan_with(text, Vec::new()).to_vec();
    let is_answer =
        |o: &&Output| matches!(o, Output::Deadline(_) | Output::Notify(_) | Output::Reply { .. });
    let rest: Vec<_> = out.iter().filter(|o| !is_answer(o)).collect();
    assert!(rest.is_empty(), "{rest:#?}");
    let text = "configuration in effect: 0 added, 0 changed, 0 removed, 1 unchanged";
    assert!(out.contains(&Output::Reply { id: 0, reply: Reply::Ok(text.to_owned()) }));
}

#[test]
fn a_reload_that_removes_an_instance_hands_it_over() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    let out = node.plan_with(plan([]), Vec::new()).to_vec();
    assert_eq!(sent_priorities(&out), [0]);
    assert!(!out.iter().any(|o| matches!(o, Output::Apply { .. })));
    node.run_for(ms(200));
    node.hear(PEER, 90);
    let out = node.run_for(HANDED_OVER).to_vec();
    assert!(out.iter().any(|o| matches!(o, Output::Apply { hold, .. } if hold.is_empty())));
    node.confirm_applies();
    assert!(node.status().instances.is_empty());
}

#[test]
fn a_reload_that_adds_an_address_adds_that_one_and_keeps_the_role() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    let mut more = instance("web", 51, 100);
    let mut second = more.addresses[0].clone();
    second.address = Ipv4Addr::new(192, 0, 2, 11).into();
    Arc::make_mut(&mut more.router).addresses.push(second.address);
    more.addresses.push(second);
    let out = node.plan_with(plan([more]), Vec::new()).to_vec();
    assert_eq!(node.role(), Role::Master);
    let grows = out.iter().any(
        |o| matches!(o, Output::Apply { hold, drop, .. } if hold.len() == 2 && drop.is_empty()),
    );
    assert!(grows, "{out:#?}");
}

/// Repair after conflict: design §4.6.
#[test]
fn who_stays_master_in_a_conflict_announces_again_and_reruns_its_master_hook() {
    let mut web = instance("web", 51, 100);
    Arc::make_mut(&mut web.hooks).master = vec![locum_plan::Command::argv(["/bin/true"])];
    let mut node = Node::master(plan([web]));
    let out = node.hear(PEER, 50).to_vec();
    assert_eq!(sent_priorities(&out), [100], "V-230");
    assert!(out.iter().any(|o| matches!(o, Output::Announce { .. })), "G-013");
    let mut out = node.run_for(ms(3500)).to_vec();
    out.extend(node.confirm_applies().to_vec());
    assert!(out.iter().any(|o| matches!(o, Output::Hook(_))), "{out:#?}");
    assert!(out.iter().any(|o| matches!(o, Output::Announce { .. })));
}

/// V-231.
#[test]
fn answers_to_lower_masters_are_bounded() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    let mut answers = 0;
    for _ in 0..100 {
        answers += sent_priorities(node.hear(PEER, 50)).len();
        node.run_for(ms(1));
    }
    assert_eq!(answers, 1);
}

#[test]
fn no_preempt_leaves_a_lower_master_alone() {
    let mut web = instance("web", 51, 200);
    Arc::make_mut(&mut web.router).preempt = Preempt::Never;
    let mut node = Node::started(plan([web]));
    for _ in 0..10 {
        node.hear(PEER, 90);
        node.run_for(ms(1000));
    }
    assert_eq!(node.role(), Role::Backup);
}

/// V-171.
#[test]
fn a_preempt_delay_runs_from_the_first_lower_advert() {
    let mut web = instance("web", 51, 200);
    Arc::make_mut(&mut web.router).preempt = Preempt::After(Duration::from_secs(5));
    let mut node = Node::started(plan([web]));
    let mut seconds = 0;
    while node.role() == Role::Backup && seconds < 30 {
        node.hear(PEER, 90);
        node.run_for(ms(1000));
        seconds += 1;
    }
    assert_eq!(seconds, 8, "5 s of patience, then the rest of 3A + skew");
}

/// V-163.
#[test]
fn a_peer_with_our_priority_is_reported_once() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    let mut reported = 0;
    for _ in 0..5 {
        let out = node.hear(PEER, 100);
        reported += out.iter().filter(|o| matches!(o, Output::Notify(_))).count();
    }
    assert_eq!(reported, 1);
}

/// V-165: the higher address wins among equals, and only in master.
#[test]
fn equal_priorities_are_settled_by_the_source_address() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    node.hear(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 100);
    assert_eq!(node.role(), Role::Master, "ours is 192.0.2.2");
    node.hear(PEER, 100);
    assert_eq!(node.role(), Role::Resigning, "192.0.2.3 is higher");
}

#[test]
fn a_refusal_of_the_kernel_is_a_fault_and_is_tried_again() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    node.run_for(ms(3610));
    node.refuse_applies("no buffer space");
    assert!(node.status().instances[0].faults[0].to_string().contains("no buffer space"));
    node.run_for(ms(2200));
    assert_eq!(node.role(), Role::Fault);
    node.run_for(ms(10_000));
    assert_ne!(node.role(), Role::Fault);
}

#[test]
fn an_invalid_advert_changes_no_state_and_is_counted() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    let before = node.deadline();
    for at in 20..32 {
        let mut bytes = crate::node::advert(PEER, 200);
        bytes[at] ^= 0xff;
        node.hear_bytes(&bytes);
        assert_eq!(node.deadline(), before, "octet {at}");
    }
    assert_eq!(node.role(), Role::Backup);
}

#[test]
fn a_lease_that_is_off_is_never_renewed() {
    let mut web = instance("web", 51, 100);
    web.lease = Lease::Off;
    let mut node = Node::master(plan([web]));
    let out = node.run_for(ms(20_000)).to_vec();
    assert!(!out.iter().any(|o| matches!(o, Output::Apply { .. })));
}

#[test]
fn the_effective_priority_stays_within_1_and_254() {
    assert_eq!(Priority(100).adjusted(-253), Priority(1));
    assert_eq!(Priority(250).adjusted(253), Priority(254));
    assert_eq!(Priority::OWNER.adjusted(-253), Priority::OWNER);
}

fn switchover(to: Option<&str>, run: RunMode) -> OperatorCommand {
    let target = Target::Instance("web".into());
    OperatorCommand::Switchover { target, to: to.map(Into::into), run, successor: Successor::Fit }
}

fn vip_key() -> FactKey {
    FactKey::Address { interface: "eth0".into(), address: VIP.into() }
}
