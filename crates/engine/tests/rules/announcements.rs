//! When frames leave: their distance (G-015), who is silent (G-016), and what comes up (G-020).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{Input, LinkState, Output, SendReport};
use locum_plan::{Instance, Plan};
use locum_vrrp::{AnnounceSettings, Role, Time};

use crate::node::{Node, PEER, instance, plan, sent_priorities};

fn announce_of(instance: &mut Instance) -> &mut AnnounceSettings {
    Arc::make_mut(&mut Arc::make_mut(&mut instance.router).announce)
}

const GAP: Duration = Duration::from_millis(100);
const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));

/// Two addresses, two frames each, 100 ms from frame to frame, no second burst.
fn paced() -> Instance {
    let mut paced = instance("web", 51, 100);
    let mut second = paced.addresses[0].clone();
    second.address = SECOND;
    paced.addresses.push(second);
    announce_of(&mut paced).repeat = 2;
    announce_of(&mut paced).delay = Duration::ZERO;
    announce_of(&mut paced).lower_priority_repeat = 2;
    announce_of(&mut paced).lower_priority_delay = Duration::ZERO;
    announce_of(&mut paced).garp_interval = GAP;
    paced
}

fn announced(out: &[Output]) -> Vec<IpAddr> {
    let frames = out.iter().filter_map(|output| match output {
        Output::Announce { frames, .. } => Some(frames),
        _ => None,
    });
    frames.flatten().map(|frame| frame.address).collect()
}

/// Lets the node run for `count` gaps; what each gap announced.
fn by_gap(node: &mut Node, count: usize) -> Vec<Vec<IpAddr>> {
    (0..count).map(|_| announced(node.run_for(GAP))).collect()
}

fn promoted(plan: Plan) -> Node {
    let mut node = Node::prompt(plan);
    node.run_for(Duration::from_millis(3609));
    node
}

/// G-015, G-011: one frame per gap, all addresses once, then again.
#[test]
fn paced_frames_leave_one_per_gap_in_turn() {
    let mut node = promoted(plan([paced()]));
    assert_eq!(announced(node.run_for(Duration::from_millis(1))), [FIRST], "V-055: at once");
    let burst = by_gap(&mut node, 5);
    assert_eq!(burst, [vec![SECOND], vec![FIRST], vec![SECOND], vec![], vec![]]);
    let once_more = by_gap(&mut node, 3);
    assert_eq!(once_more, [vec![FIRST], vec![SECOND], vec![]], "G-026, after 550 ms");
    assert_eq!(node.role(), Role::Master);
}

/// G-015: what waits already is announced no oftener than a burst says.
#[test]
fn address_that_waits_already_only_has_its_count_raised() {
    let mut node = promoted(plan([paced()]));
    node.run_for(Duration::from_millis(1));
    node.hear(PEER, 50);
    let all: Vec<IpAddr> = by_gap(&mut node, 5).concat();
    let times = |address| all.iter().filter(|other| **other == address).count();
    // The first burst has sent one frame; the second wants two of each, as the rest of the first.
    assert_eq!((times(FIRST), times(SECOND)), (2, 2), "{all:?}");
}

/// G-015: two instances on one interface share the distance, two interfaces do not.
#[test]
fn the_distance_is_that_of_the_interface() {
    let other = |interface: &str| {
        let mut other = paced();
        other.name = "db".into();
        other.interface = interface.into();
        Arc::make_mut(&mut other.router).vrid = locum_vrrp::Vrid::new(52).expect("1..=255");
        for (held, last) in other.addresses.iter_mut().zip([20, 21]) {
            held.address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        }
        other
    };
    // Two of each of four, and what was through after 550 ms once more.
    for (interface, most, total) in [("eth0", 1, 10), ("eth1", 2, 12)] {
        let mut node = promoted(plan([paced(), other(interface)]));
        let first = announced(node.run_for(Duration::from_millis(1)));
        assert_eq!(first.len(), most, "{interface} {first:?}");
        let rest = by_gap(&mut node, 12);
        assert!(rest.iter().all(|frames| frames.len() <= most), "{interface} {rest:?}");
        assert_eq!(first.len() + rest.concat().len(), total, "{rest:?}");
    }
}

/// G-016: a master that gives up says nothing more, whatever waits, and is not woken for it.
#[test]
fn queue_is_emptied_when_it_leaves_master() {
    let mut slow = paced();
    announce_of(&mut slow).garp_interval = Duration::from_secs(1);
    let mut node = promoted(plan([slow]));
    node.run_for(Duration::from_millis(1));
    node.hear(PEER, 150);
    assert_eq!(node.role(), Role::Resigning);
    let margin = node.deadline().expect("it resigns");
    assert!(announced(node.run_for(Duration::from_millis(500))).is_empty());
    assert_eq!(node.role(), Role::Backup);
    let due = node.deadline().expect("it waits for its master");
    assert!(due.since(margin) > Duration::from_secs(3), "not for a frame");
}

/// G-016, V-235, V-241: after a pause nothing is announced before the timers have spoken.
#[test]
fn node_that_slept_announces_nothing_of_what_waited() {
    let mut node = promoted(plan([paced()]));
    node.run_for(Duration::from_millis(1));
    node.sleep(Duration::from_secs(10));
    let instance = node.id();
    let other = node.feed(Input::Sent { instance, report: SendReport::default() }).to_vec();
    assert!(announced(&other).is_empty(), "another input");
    let out = node.feed(Input::Timeout).to_vec();
    assert_eq!((announced(&out), sent_priorities(&out)), (vec![], vec![]));
    assert_eq!(node.role(), Role::Backup);
}

/// G-015: without a gap a burst is one batch; a gap for NA does not delay ARP.
#[test]
fn without_a_gap_of_its_kind_a_burst_leaves_at_once() {
    let mut unpaced = paced();
    announce_of(&mut unpaced).garp_interval = Duration::ZERO;
    announce_of(&mut unpaced).gna_interval = GAP;
    let mut node = promoted(plan([unpaced]));
    let frames = announced(node.run_for(Duration::from_millis(1)));
    assert_eq!(frames, [FIRST, SECOND, FIRST, SECOND]);
}

/// G-020, G-024: an address on another device is announced there, when that can be heard.
#[test]
fn device_that_comes_up_announces_the_addresses_it_holds() {
    let mut apart = instance("web", 51, 100);
    apart.addresses[0].detail(|all| all.device = Some("eth1".into()));
    let mut node = Node::with_links();
    node.link("eth1", false);
    node.plan_with(plan([apart]), Vec::new());
    let out = node.run_for(Duration::from_millis(3700)).to_vec();
    assert_eq!((node.role(), announced(&out)), (Role::Master, vec![]));
    node.confirm_applies();
    let out = node.link("eth1", true).to_vec();
    assert_eq!(announced(&out), [FIRST; 5]);
    let again = LinkState {
        name: "eth1".into(),
        index: 3,
        running: true,
        mac: Some([2, 0, 0, 0, 0, 9]),
        mtu: 1500,
        addresses: vec![IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2))],
        forwards_v6: false,
    };
    let out = node.feed(Input::Link(again.clone())).to_vec();
    assert_eq!(announced(&out), [FIRST; 5], "it has another hardware address");
    let out = node.feed(Input::Link(LinkState { mtu: 1400, ..again })).to_vec();
    assert!(announced(&out).is_empty(), "hosts need not know that");
}

/// G-018.
#[test]
fn link_without_a_hardware_address_is_not_announced_on() {
    let mut node = Node::with_links();
    node.feed(Input::Link(LinkState {
        name: "eth0".into(),
        index: 2,
        running: true,
        mac: None,
        mtu: 1500,
        addresses: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2))],
        forwards_v6: false,
    }));
    node.plan_with(plan([instance("web", 51, 100)]), Vec::new());
    let out = node.run_for(Duration::from_secs(10)).to_vec();
    assert_eq!((node.role(), announced(&out)), (Role::Master, vec![]));
}

/// The deadline of a drain is that of the frame that waits.
#[test]
fn deadline_is_that_of_the_next_frame() {
    let mut node = promoted(plan([paced()]));
    node.run_for(Duration::from_millis(1));
    let since = |deadline: Option<Time>| deadline.expect("a frame waits").since(Time::ZERO);
    let frame = since(node.deadline());
    assert!(frame < Duration::from_millis(103_610 + 101), "{frame:?}");
}

/// G-017: also for what a reload adds.
#[test]
fn strict_ipv6_master_announces_an_added_address_without_a_burst() {
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let strict = |addresses: &[&str]| {
        let mut strict = instance("six", 51, 100);
        Arc::make_mut(&mut strict.router).family = locum_vrrp::Family::V6;
        Arc::make_mut(&mut strict.router).profile = locum_vrrp::Profile::Strict;
        Arc::make_mut(&mut strict.router).transport =
            locum_vrrp::Transport::Multicast { group: ip("ff02::12") };
        Arc::make_mut(&mut strict.router).addresses =
            addresses.iter().map(|text| ip(text)).collect();
        let held = strict.addresses[0].clone();
        let held = |text: &&str| locum_plan::VirtualAddress {
            address: ip(text),
            prefix: 64,
            ..held.clone()
        };
        strict.addresses = addresses.iter().map(held).collect();
        strict
    };
    let mut node = Node::prompt(plan([]));
    node.feed(Input::Link(LinkState {
        name: "eth0".into(),
        index: 2,
        running: true,
        mac: Some([2, 0, 0, 0, 0, 2]),
        mtu: 1500,
        addresses: vec![ip("fe80::2")],
        forwards_v6: true,
    }));
    node.plan_with(plan([strict(&["fe80::100"])]), Vec::new());
    let out = node.run_for(Duration::from_millis(10_000)).to_vec();
    assert_eq!(announced(&out), [ip("fe80::100"); 3]);
    let two = ["fe80::100", "2001:db8::1"];
    let out = node.plan_with(plan([strict(&two)]), Vec::new()).to_vec();
    assert_eq!(announced(&out), two.map(ip));
}
