//! Absence is wanted too: a virtual address is nowhere but on its master, whoever put it there.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{EventKind, Input, LinkState, Output, Removal, Whose};
use locum_vrrp::{Priority, Role};

use crate::node::{Node, PEER, VIP, instance, is_address, plan};

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// eth0 with these addresses, none of which carries our mark.
fn eth0(addresses: &[IpAddr]) -> Input<'static> {
    Input::Link(LinkState {
        name: "eth0".into(),
        index: 2,
        running: true,
        mac: Some([2, 0, 0, 0, 0, 2]),
        mtu: 1500,
        addresses: addresses.to_vec(),
        forwards_v6: false,
    })
}

/// What is removed whoever put it there.
fn expelled(out: &[Output]) -> Vec<Removal> {
    let drops = out.iter().filter_map(|output| match output {
        Output::Apply { drop, .. } => Some(drop),
        _ => None,
    });
    drops.flatten().filter(|removal| removal.whose == Whose::Anyones).cloned().collect()
}

fn is_reported(out: &[Output]) -> bool {
    out.iter().any(|output| {
        matches!(output, Output::Notify(event) if matches!(event.kind, EventKind::Expelled { .. }))
    })
}

fn backup() -> Node {
    let mut node = Node::prompt(plan([instance("web", 51, 100)]));
    node.hear(PEER, 200);
    assert_eq!(node.role(), Role::Backup);
    node
}

#[test]
fn an_address_that_another_program_adds_on_a_backup_is_removed_and_reported() {
    let mut node = backup();
    let out = node.feed(eth0(&[OWN, VIP.into()])).to_vec();
    assert!(expelled(&out).iter().any(|removal| is_address(&removal.fact, VIP)), "{out:#?}");
    assert!(is_reported(&out));
    assert_eq!(node.feed(eth0(&[OWN])).len(), 1, "it is gone");
}

#[test]
fn an_address_that_is_there_when_the_plan_comes_is_removed() {
    let mut node = Node::with_links();
    node.feed(eth0(&[OWN, VIP.into()]));
    let out = node.plan_with(plan([instance("web", 51, 100)]), Vec::new()).to_vec();
    assert_eq!(expelled(&out).len(), 1, "{out:#?}");
}

#[test]
fn an_address_that_comes_back_again_and_again_is_removed_once_a_second() {
    let mut node = backup();
    let mut removals = 0;
    for _ in 0..20 {
        removals += expelled(node.feed(eth0(&[OWN, VIP.into()]))).len();
        removals += expelled(node.run_for(Duration::from_millis(100))).len();
        node.hear(PEER, 200);
        node.feed(eth0(&[OWN]));
    }
    assert!((2..=3).contains(&removals), "{removals}");
}

/// Until the answer comes the links say what they said before, which is nothing new.
#[test]
fn what_is_being_removed_is_not_removed_again_because_of_a_reload() {
    let wanted = plan([instance("web", 51, 100)]);
    let mut node = Node::with_links();
    node.plan_with(wanted.clone(), Vec::new());
    node.hear(PEER, 200);
    assert_eq!(expelled(node.feed(eth0(&[OWN, VIP.into()]))).len(), 1);
    node.run_for(Duration::from_millis(1500));
    let out = node.plan_with(wanted, Vec::new()).to_vec();
    assert!(expelled(&out).is_empty(), "{out:#?}");
}

/// Without its only address the host would be cut off: an operator has to look.
#[test]
fn the_only_address_of_a_link_is_reported_and_left() {
    let mut node = backup();
    let out = node.feed(eth0(&[VIP.into()])).to_vec();
    assert!(expelled(&out).is_empty() && !is_reported(&out), "{out:#?}");
    assert_eq!(node.status().instances[0].unwanted, ["192.0.2.10/24 on eth0"]);
}

#[test]
fn a_master_and_an_owner_leave_it_alone() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    assert!(expelled(node.feed(eth0(&[OWN, VIP.into()]))).is_empty(), "it may be there");
    let mut owner = instance("web", 51, 100);
    Arc::make_mut(&mut owner.router).priority = Priority(255);
    let mut node = Node::with_links();
    node.feed(eth0(&[OWN, VIP.into()]));
    assert!(expelled(node.plan_with(plan([owner]), Vec::new())).is_empty(), "it is its own");
}

/// It counted as held while this node was master, without our mark.
#[test]
fn what_a_master_found_in_place_goes_when_it_is_master_no_more() {
    let mut node = Node::prompt(plan([instance("web", 51, 100)]));
    node.run_for(Duration::from_millis(3700));
    assert_eq!(node.role(), Role::Master);
    node.feed(eth0(&[OWN, VIP.into()]));
    node.hear(PEER, 200);
    let out = node.run_for(Duration::from_millis(1000)).to_vec();
    assert_eq!(node.role(), Role::Backup);
    assert_eq!(expelled(&out).len(), 1, "{out:#?}");
}
