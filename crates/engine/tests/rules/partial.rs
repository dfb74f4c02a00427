//! What a node does when the kernel refuses some of an instance's addresses and not others.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{
    EventKind, FactKey, Inherited, Input, LinkState, OperatorCommand, Output, SendReport,
};
use locum_plan::{Command as Hook, Instance, Name};
use locum_vrrp::Role;

use crate::node::{HANDED_OVER, Node, PEER, VIP, instance, is_address, plan};

const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const WHY: &str = "permission denied (IPv6 is disabled on this device)";

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn two() -> Instance {
    let mut web = instance("web", 51, 100);
    let mut second = web.addresses[0].clone();
    second.address = SECOND.into();
    web.addresses.push(second);
    web
}

/// Master of two addresses, of which the kernel has refused the second.
fn degraded() -> Node {
    let mut node = Node::started(plan([two()]));
    node.run_for(ms(3650));
    node.refuse(&[SECOND], WHY);
    assert_eq!(node.role(), Role::Master);
    node
}

/// Lets the clock run in steps, with the second address refused whenever it is asked for; the steps
/// at which it was.
fn asked_at(node: &mut Node, step: Duration, steps: usize) -> Vec<usize> {
    let mut asked = Vec::new();
    for at in 0..steps {
        if node.run_for(step).iter().any(asks_for_second) {
            asked.push(at);
        }
        node.refuse(&[SECOND], WHY);
    }
    asked
}

fn asks_for_second(output: &Output) -> bool {
    match output {
        Output::Apply { hold, .. } => hold.iter().any(|fact| is_address(fact, SECOND)),
        _ => false,
    }
}

fn drops(output: &Output, address: Ipv4Addr) -> bool {
    match output {
        Output::Apply { drop, .. } => drop.iter().any(|removal| is_address(&removal.fact, address)),
        _ => false,
    }
}

fn announced(out: &[Output]) -> Vec<IpAddr> {
    let frames = out.iter().filter_map(|output| match output {
        Output::Announce { frames, .. } => Some(frames),
        _ => None,
    });
    frames.flatten().map(|frame| frame.address).collect()
}

fn failures(out: &[Output]) -> Vec<String> {
    let events = out.iter().filter_map(|output| match output {
        Output::Notify(event) => Some(&event.kind),
        _ => None,
    });
    let text = events.filter_map(|kind| match kind {
        EventKind::ApplyFailed { error } => Some(error.clone()),
        _ => None,
    });
    text.collect()
}

fn mended(out: &[Output]) -> Vec<String> {
    let events = out.iter().filter_map(|output| match output {
        Output::Notify(event) => Some(&event.kind),
        _ => None,
    });
    let text = events.filter_map(|kind| match kind {
        EventKind::ApplyMended { what } => Some(what.clone()),
        _ => None,
    });
    text.collect()
}

#[test]
fn a_refused_address_leaves_the_others_alone_and_status_says_why() {
    let mut node = Node::started(plan([two()]));
    node.run_for(ms(3650));
    let out = node.refuse(&[SECOND], WHY).to_vec();
    let reported =
        format!("cannot hold 192.0.2.11/24 on eth0: {WHY}; going on with the other addresses");
    assert_eq!(failures(&out), [reported]);
    let status = node.status().instances.remove(0);
    assert_eq!((status.role, status.faults.len()), (Role::Master, 0));
    assert_eq!(status.refused.len(), 1);
    assert_eq!(
        (status.refused[0].fact.key().address(), &*status.refused[0].error),
        (Some(SECOND.into()), WHY)
    );
    assert_eq!(status.refused[0].again_in, Some(ms(1000)));
}

#[test]
fn a_refused_address_is_asked_for_in_pauses_that_double_and_reported_once() {
    let mut node = degraded();
    let mut reported = 0;
    let mut asked = Vec::new();
    for at in 1..=160 {
        let out = node.run_for(ms(500)).to_vec();
        assert!(!out.iter().any(|o| drops(o, VIP) || drops(o, SECOND)), "it is still wanted");
        if out.iter().any(asks_for_second) {
            asked.push(at);
        }
        reported += failures(node.refuse(&[SECOND], WHY)).len();
        assert_eq!(node.role(), Role::Master);
    }
    // Renewals go on beside it twice a second: nothing is asked for early.
    assert_eq!(asked, [2, 6, 14, 30, 62, 126]);
    assert_eq!(reported, 0);
    let other = node.run_for(ms(32_000)).iter().any(asks_for_second);
    assert!(other);
    let out = node.refuse(&[SECOND], "no buffer space").to_vec();
    assert_eq!(failures(&out).len(), 1, "another reason is news");
}

/// G-020.
#[test]
fn nothing_is_announced_for_a_refused_address() {
    let mut node = degraded();
    let mut frames = 0;
    for _ in 0..60 {
        let out = node.run_for(ms(100)).to_vec();
        assert!(!announced(&out).contains(&SECOND.into()), "{out:#?}");
        frames += announced(&out).len();
        node.refuse(&[SECOND], WHY);
    }
    assert!(frames > 0, "the other one is announced");
}

/// V-227.
#[test]
fn an_address_the_kernel_accepts_at_last_is_announced_twice_and_reported() {
    let mut node = degraded();
    let out = node.run_for(ms(1000)).to_vec();
    assert!(out.iter().any(asks_for_second), "{out:#?}");
    assert!(!announced(&out).contains(&SECOND.into()), "not before the kernel has answered");
    let out = node.confirm_applies().to_vec();
    assert_eq!(mended(&out), ["192.0.2.11/24 on eth0 is held now"]);
    let at_once = announced(&out).iter().filter(|address| **address == SECOND).count();
    assert_eq!(at_once, 5);
    assert!(node.status().instances[0].refused.is_empty());
    let later = announced(node.run_for(ms(5100)));
    assert!(later.iter().filter(|address| **address == SECOND).count() >= 5, "G-012");
}

#[test]
fn with_no_address_in_place_an_instance_is_in_fault() {
    let mut node = Node::started(plan([two()]));
    node.run_for(ms(3650));
    let out = node.refuse(&[VIP, SECOND], WHY).to_vec();
    assert_eq!(node.role(), Role::Resigning, "a peer may do better");
    assert_eq!(failures(&out).len(), 1, "{out:#?}");
    let status = node.status().instances.remove(0);
    let fault = status.faults[0].to_string();
    assert!(fault.contains("192.0.2.10") && fault.contains("192.0.2.11"));
    assert!(status.refused.is_empty(), "the fault says it");
    node.run_for(ms(2200));
    assert_eq!(node.role(), Role::Fault);
}

#[test]
fn losing_the_last_address_in_place_is_a_fault() {
    let mut node = degraded();
    // A renewal, before the other one is asked for again.
    node.run_for(ms(970));
    node.refuse(&[VIP], "no buffer space");
    assert_eq!(node.role(), Role::Resigning);
    let fault = node.status().instances.remove(0).faults.remove(0).to_string();
    assert!(fault.contains("192.0.2.11/24 on eth0: permission denied"), "{fault}");
    assert!(fault.contains("192.0.2.10/24 on eth0: no buffer space"), "{fault}");
}

#[test]
fn a_router_that_gives_up_asks_for_nothing_more_and_lets_go_of_everything() {
    let mut node = degraded();
    node.feed(Input::Command { id: 1, command: OperatorCommand::Stop });
    assert_eq!(node.role(), Role::Resigning);
    assert_eq!(asked_at(&mut node, ms(100), 20), [0_usize; 0]);
    let out = node.run_for(ms(200)).to_vec();
    let all = out.iter().any(|o| drops(o, VIP)) && out.iter().any(|o| drops(o, SECOND));
    assert!(all, "an address that could not be renewed may still be there: {out:#?}");
    assert!(node.confirm_applies().contains(&Output::Stopped));
}

#[test]
fn an_address_nobody_takes_over_is_asked_for_again_when_the_switchover_is_over() {
    let mut node = degraded();
    let target = locum_engine::Target::All;
    let command = OperatorCommand::Switchover {
        target,
        to: None,
        run: locum_engine::RunMode::Real,
        successor: locum_engine::Successor::Fit,
    };
    node.feed(Input::Command { id: 1, command });
    assert_eq!(asked_at(&mut node, ms(100), 20), [0_usize; 0]);
    assert!(!asked_at(&mut node, ms(100), 3).is_empty());
    assert_eq!(node.role(), Role::Master);
}

#[test]
fn a_change_of_the_link_shortens_the_pause() {
    let mut node = degraded();
    asked_at(&mut node, ms(500), 32);
    let link = LinkState {
        name: "eth0".into(),
        index: 2,
        running: true,
        mac: Some([2, 0, 0, 0, 0, 2]),
        mtu: 1500,
        addresses: vec![Ipv4Addr::new(192, 0, 2, 2).into(), "fe80::2".parse().expect("address")],
        forwards_v6: false,
    };
    let out = node.feed(Input::Link(link)).to_vec();
    assert!(out.iter().any(asks_for_second), "IPv6 works again: {out:#?}");
    node.refuse(&[SECOND], WHY);
    assert_eq!(asked_at(&mut node, ms(100), 10), [9], "a second later, as after the first refusal");
}

#[test]
fn a_reload_that_changes_a_refused_address_asks_at_once() {
    let mut node = degraded();
    let mut fixed = two();
    fixed.addresses[1].no_prefix_route = true;
    let out = node.plan_with(plan([fixed]), Vec::new()).to_vec();
    assert!(out.iter().any(asks_for_second), "{out:#?}");
}

#[test]
fn a_reload_that_leaves_only_the_refused_address_finds_out_about_it() {
    let mut node = degraded();
    let mut rest = two();
    rest.addresses.remove(0);
    let out = node.plan_with(plan([rest]), Vec::new()).to_vec();
    assert!(out.iter().any(asks_for_second), "{out:#?}");
    node.refuse(&[SECOND], WHY);
    assert_eq!(node.role(), Role::Resigning);
}

#[test]
fn a_master_hook_hears_which_addresses_are_missing() {
    let mut web = two();
    Arc::make_mut(&mut web.hooks).master = vec![Hook::argv(["/bin/m"])];
    Arc::make_mut(&mut web.hooks).backup = vec![Hook::argv(["/bin/b"])];
    let mut node = Node::started(plan([web]));
    node.run_for(ms(3650));
    let reported = |out: &[Output]| -> Vec<Option<String>> {
        let runs = out.iter().filter_map(|output| match output {
            Output::Hook(run) => Some(run),
            _ => None,
        });
        let missing = |(name, _): &&(String, String)| name == "LOCUM_MISSING";
        runs.map(|run| run.environment.iter().find(missing).map(|(_, value)| value.clone()))
            .collect()
    };
    assert_eq!(reported(node.refuse(&[SECOND], WHY)), [Some("192.0.2.11".to_owned())]);
    node.hear(PEER, 200);
    node.run_for(HANDED_OVER);
    assert_eq!(reported(node.confirm_applies()), [None]);
}

#[test]
fn a_refused_address_that_goes_is_not_healed() {
    let mut node = degraded();
    let lost = |address: Ipv4Addr| Input::FactLost {
        key: FactKey::Address { interface: Name::from("eth0"), address: address.into() },
        culprit: None,
    };
    let out = node.feed(lost(SECOND)).to_vec();
    assert!(!out.iter().any(|o| matches!(o, Output::Apply { .. })), "{out:#?}");
    let out = node.feed(lost(VIP)).to_vec();
    assert!(out.iter().any(|o| matches!(o, Output::Apply { .. })));
    assert!(!out.iter().any(asks_for_second) && !announced(&out).contains(&SECOND.into()));
    assert_eq!(node.status().instances[0].healed, 1);
}

#[test]
fn a_restarted_node_goes_on_as_master_without_the_refused_address() {
    let inherited = Inherited::address("eth0".into(), VIP.into(), 24, Some(2));
    let mut node = Node::with_links();
    node.plan_with(plan([two()]), vec![inherited]);
    node.refuse(&[SECOND], WHY);
    node.run_for(ms(600));
    node.confirm_applies();
    assert_eq!(node.role(), Role::Master);
    assert_eq!(node.status().instances[0].refused.len(), 1);
}

#[test]
fn an_address_that_cannot_be_withdrawn_is_reported_alone_and_is_no_fault_of_a_master() {
    let mut node = Node::master(plan([two()]));
    let out = node.plan_with(plan([instance("web", 51, 100)]), Vec::new()).to_vec();
    assert!(out.iter().any(|o| drops(o, SECOND)), "{out:#?}");
    let out = node.refuse(&[SECOND], "device or resource busy").to_vec();
    assert_eq!(failures(&out), ["cannot withdraw 192.0.2.11/24 on eth0: device or resource busy"]);
    let status = node.status().instances.remove(0);
    assert_eq!((status.role, status.refused.len()), (Role::Master, 0));
    assert_eq!(
        (
            status.withdrawals_pending[0].fact.key().address(),
            status.withdrawals_pending[0].again_in
        ),
        (Some(SECOND.into()), Some(ms(1000)))
    );
    let out = node.run_for(ms(1000)).to_vec();
    assert!(out.iter().any(|o| drops(o, SECOND)), "tried again: {out:#?}");
    assert_eq!(
        node.status().instances[0].withdrawals_pending.len(),
        1,
        "until the kernel has answered"
    );
    let out = node.confirm_applies().to_vec();
    assert_eq!(mended(&out), ["192.0.2.11/24 on eth0 is withdrawn"]);
    assert!(node.status().instances[0].withdrawals_pending.is_empty());
}

#[test]
fn only_what_could_not_be_withdrawn_is_withdrawn_again() {
    let mut node = Node::master(plan([two()]));
    node.hear(PEER, 150);
    node.run_for(HANDED_OVER);
    node.refuse(&[SECOND], "device or resource busy");
    let out = node.run_for(ms(1001)).to_vec();
    assert!(out.iter().any(|o| drops(o, SECOND)) && !out.iter().any(|o| drops(o, VIP)), "{out:#?}");
}

/// G-022, V-057.
#[test]
fn what_left_is_counted_when_it_is_reported_not_when_it_is_asked_for() {
    let mut node = Node::master(plan([two()]));
    let count = |node: &Node, name: &str| {
        let counters = node.status().instances.remove(0).counters;
        counters.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    };
    assert_eq!(count(&node, "garp-sent"), Some(0), "asked for, not sent yet");
    let report = SendReport { garp: 5, na: 3, announce_errors: 2, advert_errors: 1 };
    for _ in 0..2 {
        let out = node.feed(Input::Sent { instance: node.id(), report }).to_vec();
        assert_eq!(out.len(), 1, "nothing follows: {out:#?}");
    }
    for (name, value) in
        [("garp-sent", 10), ("na-sent", 6), ("announce-errors", 4), ("tx-errors", 2)]
    {
        assert_eq!(count(&node, name), Some(value), "{name}");
    }
}

/// What a device of an address is refused for may be gone when the device changes, as with the
/// instance's own interface.
#[test]
fn a_device_that_comes_back_ends_the_pause_after_a_refusal_on_it() {
    let mut apart = instance("web", 51, 100);
    apart.addresses[0].detail(|all| all.device = Some("eth1".into()));
    let mut node = Node::started(plan([apart]));
    node.run_for(ms(3610));
    node.refuse_applies("no such device");
    node.run_for(ms(2200));
    assert_eq!(node.role(), Role::Fault);
    node.link("eth1", false);
    node.link("eth1", true);
    assert_eq!(node.role(), Role::Backup);
}
