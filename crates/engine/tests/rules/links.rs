//! What a link must have for an instance to take part: a source of adverts, and room for them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{Input, LinkState, Output};
use locum_plan::{Instance, Track, Tracked, Weight};
use locum_vrrp::{Family, LastEvent, Role, Transport, UnicastPeer};

use crate::node::{Node, PEER, VIP, instance, plan};

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 4));
/// Of eth1, on every node under test.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));

fn link(addresses: &[IpAddr]) -> LinkState {
    LinkState {
        name: "eth0".into(),
        index: 2,
        running: true,
        mac: Some([2, 0, 0, 0, 0, 2]),
        mtu: 1500,
        addresses: addresses.to_vec(),
        forwards_v6: false,
    }
}

fn unicast() -> Instance {
    let mut unicast = instance("web", 51, 100);
    let peers = vec![UnicastPeer { address: PEER, ttl: None }];
    Arc::make_mut(&mut unicast.router).transport =
        Transport::Unicast { peers, ttl: 255, check_source: false };
    unicast
}

fn from(source: IpAddr) -> Instance {
    let mut sourced = instance("web", 51, 100);
    Arc::make_mut(&mut sourced.router).source = Some(source);
    sourced
}

fn sources(out: &[Output]) -> Vec<IpAddr> {
    out.iter()
        .filter_map(|output| match output {
            Output::Advertise(datagram) => Some(datagram.source),
            _ => None,
        })
        .collect()
}

fn last_event(node: &Node) -> LastEvent {
    node.status().instances[0].standard.report.last_event
}

/// V-051: nothing is sent, and nobody is master.
#[test]
fn configured_source_that_the_host_does_not_have_is_a_fault_until_it_has_it() {
    for unicast_too in [false, true] {
        let mut sourced = if unicast_too { unicast() } else { instance("web", 51, 100) };
        Arc::make_mut(&mut sourced.router).source = Some(OTHER);
        let mut node = Node::started(plan([sourced]));
        assert_eq!(node.role(), Role::Fault);
        let faults = format!("{:?}", node.status().instances[0].faults);
        assert!(faults.contains("192.0.2.4"), "{faults}");
        assert!(sources(node.run_for(Duration::from_secs(10))).is_empty());
        node.feed(Input::Link(link(&[OWN, OTHER])));
        assert_eq!(node.role(), Role::Backup);
        assert_eq!(last_event(&node), LastEvent::PrimaryIpAddress, "V-238");
        let out = node.run_for(Duration::from_secs(4)).to_vec();
        assert_eq!(sources(&out).first(), Some(&OTHER), "V-050");
        node.feed(Input::Link(link(&[OWN])));
        assert_eq!(node.role(), Role::Fault);
        assert_eq!(last_event(&node), LastEvent::NoPrimaryIpAddress, "V-238");
    }
}

/// V-050: as the address of a loopback, which the peers have a route to.
#[test]
fn configured_source_may_be_on_another_link_of_the_host() {
    let node = Node::started(plan([from(ELSEWHERE)]));
    assert_eq!(node.role(), Role::Backup);
    assert_eq!(node.status().instances[0].source, Some(ELSEWHERE));
}

/// V-050: other links have the same link-local addresses.
#[test]
fn configured_link_local_source_must_be_on_the_link_itself() {
    let own: IpAddr = "fe80::2".parse().expect("an address");
    let mut six = from(own);
    Arc::make_mut(&mut six.router).family = Family::V6;
    let mut node = Node::started(plan([six]));
    node.feed(Input::Link(LinkState { name: "eth1".into(), index: 3, ..link(&[own]) }));
    assert_eq!(node.role(), Role::Fault);
    node.feed(Input::Link(link(&[own])));
    assert_eq!(node.role(), Role::Backup);
}

/// V-050: a kernel that keeps no mark shows virtual addresses among its own.
#[test]
fn virtual_address_is_no_source_except_for_its_owner() {
    for (priority, source) in [(100, OWN), (255, VIP.into())] {
        let mut node = Node::started(plan([instance("web", 51, priority)]));
        node.feed(Input::Link(link(&[VIP.into(), OWN])));
        assert_eq!(node.status().instances[0].source, Some(source), "{priority}");
    }
}

/// V-052.
#[test]
fn adverts_leave_from_the_new_address_when_the_link_has_another() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    node.feed(Input::Link(link(&[OTHER])));
    let out = node.run_for(Duration::from_secs(1)).to_vec();
    assert_eq!(sources(&out), [OTHER]);
    assert_eq!(node.role(), Role::Master);
}

/// V-030: an advert that does not leave would make a second master.
#[test]
fn more_addresses_than_the_link_carries_are_a_fault() {
    let mut many = instance("web", 51, 100);
    let address = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
    Arc::make_mut(&mut many.router).addresses = (100..200).map(address).collect();
    let mut node = Node::started(plan([many]));
    assert_eq!(node.role(), Role::Backup);
    // 28 octets of headers and 4 for each of 100 addresses.
    for (mtu, role) in [(428, Role::Backup), (427, Role::Fault), (1500, Role::Backup)] {
        node.feed(Input::Link(LinkState { mtu, ..link(&[OWN]) }));
        assert_eq!(node.role(), role, "{mtu}");
    }
    node.feed(Input::Link(LinkState { mtu: 427, ..link(&[OWN]) }));
    let faults = format!("{:?}", node.status().instances[0].faults);
    assert!(faults.contains("most: 99"), "{faults}");
}

/// V-333: the master sends to us without having to ask who we are.
#[test]
fn unicast_backup_announces_its_own_address_when_a_fault_ends() {
    let own_announced = |out: &[Output]| {
        out.iter().any(|output| {
            matches!(output, Output::Announce { frames, .. }
                if frames.len() == 1 && frames[0].address == OWN && frames[0].frame[28..32] == [192, 0, 2, 2])
        })
    };
    for (transported, announces) in [(unicast(), true), (instance("web", 51, 100), false)] {
        let mut node = Node::with_links();
        let out = node.plan_with(plan([transported]), Vec::new()).to_vec();
        assert!(!own_announced(&out), "a start is no end of a fault");
        node.link("eth0", false);
        let out = node.link("eth0", true).to_vec();
        assert_eq!(own_announced(&out), announces, "{out:#?}");
        let out = node.run_for(Duration::from_secs(4)).to_vec();
        assert!(!own_announced(&out), "once");
    }
}

/// V-238.
#[test]
fn last_event_reports_the_interface() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    assert_eq!(last_event(&node), LastEvent::Startup);
    node.link("eth0", false);
    assert_eq!(last_event(&node), LastEvent::InterfaceDown);
    node.link("eth0", true);
    assert_eq!(last_event(&node), LastEvent::InterfaceUp);
}

/// The state of a tracked interface is known before the first plan names it, and follows the link.
#[test]
fn a_tracked_interface_changes_the_priority_of_those_that_track_it() {
    let mut web = instance("web", 51, 100);
    let weight = Some(Weight { value: -30, reverse: false });
    web.track = vec![Track { object: Tracked::Interface("eth1".into()), weight }];
    let mut db = instance("db", 52, 100);
    db.addresses[0].address = Ipv4Addr::new(192, 0, 2, 11).into();
    let mut node = Node::master(plan([web, db]));
    let priorities = |node: &Node| {
        let status = node.status();
        status.instances.iter().map(|one| one.priority.0).collect::<Vec<_>>()
    };
    assert_eq!(priorities(&node), [100, 100], "the link is up from the start");
    node.link("eth1", false);
    assert_eq!(priorities(&node), [70, 100]);
    let parts = node.status().instances.remove(0).adjustments;
    assert_eq!(parts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["interface eth1 -30"]);
    node.link("eth1", true);
    assert_eq!(priorities(&node), [100, 100]);
}

/// The weight of an interface is 0 unless the pairing says otherwise: without carrier, a fault.
#[test]
fn a_tracked_interface_that_is_not_there_is_a_fault_until_it_comes() {
    let mut web = instance("web", 51, 100);
    web.track = vec![Track { object: Tracked::Interface("eth9".into()), weight: None }];
    let mut node = Node::started(plan([web]));
    let faults = node.status().instances.remove(0).faults;
    assert_eq!(
        faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["tracked interface eth9 is down"]
    );
    node.link("eth9", true);
    assert_eq!(node.status().instances[0].faults, []);
    assert_eq!(node.role(), Role::Backup);
}
