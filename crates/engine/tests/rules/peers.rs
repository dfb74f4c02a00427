//! Who a datagram is from and for: unicast instances that share a VRID, and what peers send.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{EventKind, Input, InstanceId, Output, Packet};
use locum_plan::Instance;
use locum_vrrp::packet::encode_advert;
use locum_vrrp::{ChecksumForm, Family, Role, RouterSettings, Transport, UnicastPeer};

use crate::node::{Node, PEER, VIP, instance, plan};

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18));
const WEB_PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 21));
const DB_PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 22));

fn unicast(name: &str, peer: IpAddr) -> Instance {
    let mut unicast = instance(name, 51, 100);
    let peers = vec![UnicastPeer { address: peer, ttl: None }];
    Arc::make_mut(&mut unicast.router).transport =
        Transport::Unicast { peers, ttl: 255, check_source: false };
    unicast
}

fn hear(node: &mut Node, source: IpAddr, destination: IpAddr, form: ChecksumForm) -> Vec<Output> {
    hear_from(node, &instance("peer", 51, 150).router, source, destination, form)
}

/// An advert of a router with these settings.
fn hear_from(
    node: &mut Node,
    settings: &RouterSettings,
    source: IpAddr,
    destination: IpAddr,
    form: ChecksumForm,
) -> Vec<Output> {
    let message = encode_advert(settings, settings.priority, source, destination, form);
    let (IpAddr::V4(from), IpAddr::V4(to)) = (source, destination) else { panic!("IPv4 only") };
    let total = u16::try_from(20 + message.len()).expect("short");
    let mut bytes = vec![0x45, 0xc0];
    bytes.extend(total.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 255, 112, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(message);
    let interface = "eth0";
    let packet = Packet {
        interface,
        family: Family::V4,
        bytes: &bytes,
        source,
        destination,
        hop_limit: None,
        truncated: false,
    };
    node.feed(Input::Packet(packet)).to_vec()
}

fn heard_by(node: &Node) -> Vec<(String, Option<IpAddr>)> {
    let instances = node.status().instances;
    let one = |i: &locum_engine::status::InstanceSnapshot| {
        (i.name.to_string(), i.master.as_ref().map(|master| master.address))
    };
    instances.iter().map(one).collect()
}

/// V-332: one VRID, one local address, two pairs.
#[test]
fn unicast_instances_of_one_vrid_each_hear_their_own_peers() {
    let mut node = Node::started(plan([unicast("web", WEB_PEER), unicast("db", DB_PEER)]));
    let (web, db) = (|at| ("web".to_owned(), at), |at| ("db".to_owned(), at));
    hear(&mut node, DB_PEER, OWN, ChecksumForm::Pseudo);
    assert_eq!(heard_by(&node), [web(None), db(Some(DB_PEER))]);
    hear(&mut node, WEB_PEER, OWN, ChecksumForm::Pseudo);
    assert_eq!(heard_by(&node), [web(Some(WEB_PEER)), db(Some(DB_PEER))]);
}

/// V-332: each sends to its own.
#[test]
fn unicast_instances_of_one_vrid_each_advertise_to_their_own_peers() {
    let mut node = Node::started(plan([unicast("web", WEB_PEER), unicast("db", DB_PEER)]));
    let out = node.run_for(Duration::from_millis(3700)).to_vec();
    let mut sent: Vec<(String, IpAddr)> = Vec::new();
    for output in &out {
        if let Output::Advertise(datagram) = output {
            sent.push((name_of(&node, datagram.instance), datagram.destination));
        }
    }
    assert_eq!(sent, [("web".to_owned(), WEB_PEER), ("db".to_owned(), DB_PEER)], "V-320");
}

fn name_of(node: &Node, id: InstanceId) -> String {
    let all = node.status().instances;
    all.iter().find(|one| one.id == id).expect("an instance of the plan").name.to_string()
}

/// V-332: a reload keeps each to its name, also when the file lists them the other way round.
#[test]
fn unicast_instances_of_one_vrid_keep_their_state_over_a_reload() {
    let mut node = Node::started(plan([unicast("web", WEB_PEER), unicast("db", DB_PEER)]));
    node.run_for(Duration::from_millis(2000));
    hear(&mut node, DB_PEER, OWN, ChecksumForm::Pseudo);
    node.run_for(Duration::from_millis(1650));
    let roles = |node: &Node| {
        let instances = node.status().instances;
        instances.iter().map(|i| (i.name.to_string(), i.role)).collect::<Vec<_>>()
    };
    assert_eq!(roles(&node), [("web".into(), Role::Master), ("db".into(), Role::Backup)]);
    node.plan_with(plan([unicast("db", DB_PEER), unicast("web", WEB_PEER)]), Vec::new());
    assert_eq!(roles(&node), [("db".into(), Role::Backup), ("web".into(), Role::Master)]);
    node.plan_with(plan([unicast("db", DB_PEER), unicast("site", WEB_PEER)]), Vec::new());
    assert_eq!(roles(&node), [("db".into(), Role::Backup), ("site".into(), Role::Master)]);
    let three = [unicast("new", PEER), unicast("db", DB_PEER), unicast("site", WEB_PEER)];
    node.plan_with(plan(three), Vec::new());
    assert_eq!(roles(&node)[0], ("new".into(), Role::Backup), "it takes nobody's place");
    assert_eq!(roles(&node)[2], ("site".into(), Role::Master));
}

/// V-042: the form is told once per peer; the counters have every advert.
#[test]
fn other_checksum_form_is_reported_once_per_peer() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    let reports_about = |out: &[Output], peer: IpAddr| {
        let all = out.iter().filter(|output| {
            matches!(output, Output::Notify(event)
                if matches!(&event.kind, EventKind::Mismatch { peer: about, what }
                    if *about == peer && what.contains("checksum")))
        });
        all.count()
    };
    let out = hear(&mut node, PEER, GROUP, ChecksumForm::Message);
    assert_eq!(reports_about(&out, PEER), 1, "{out:#?}");
    let out = hear(&mut node, PEER, GROUP, ChecksumForm::Message);
    assert_eq!(reports_about(&out, PEER), 0, "it is followed now, V-043");
    let out = hear(&mut node, WEB_PEER, GROUP, ChecksumForm::Pseudo);
    assert_eq!(reports_about(&out, WEB_PEER), 1);
    let out = hear(&mut node, WEB_PEER, GROUP, ChecksumForm::Pseudo);
    assert_eq!(reports_about(&out, WEB_PEER), 0, "it was told");
    let counters = node.status().instances[0].counters.clone();
    assert!(counters.contains(&("checksum-form-message", 2)));
    assert!(counters.contains(&("checksum-form-pseudo", 2)));
}

/// G-021, V-033: what is not advertised is announced all the same.
#[test]
fn excluded_addresses_are_announced_and_not_advertised() {
    let mut with_excluded = instance("web", 51, 100);
    let mut excluded = with_excluded.addresses[0].clone();
    excluded.address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));
    with_excluded.addresses.push(excluded);
    let mut node = Node::prompt(plan([with_excluded]));
    let out = node.run_for(Duration::from_millis(3700)).to_vec();
    let announced = out.iter().find_map(|output| match output {
        Output::Announce { frames, .. } => Some(frames),
        _ => None,
    });
    let announced: Vec<IpAddr> = announced.expect("G-011").iter().map(|f| f.address).collect();
    let both = [VIP.into(), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11))];
    assert_eq!(announced[..4], [both, both].concat(), "G-011: all of them once, then again");
    let advert = out.iter().find_map(|output| match output {
        Output::Advertise(datagram) => Some(&datagram.message),
        _ => None,
    });
    assert_eq!(advert.expect("an advert")[3], 1, "count of addresses");
}

/// V-072: what the kernel has cut is not looked into.
#[test]
fn truncated_datagram_is_a_length_error_of_its_interface() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    let bytes = crate::node::advert(PEER, 150);
    node.feed(Input::Packet(Packet {
        interface: "eth0",
        family: Family::V4,
        bytes: &bytes,
        source: PEER,
        destination: GROUP,
        hop_limit: None,
        truncated: true,
    }));
    assert_eq!(heard_by(&node), [("web".to_owned(), None)], "V-127");
    let expected = [("eth0".into(), vec![("packet-length-errors", 1)])];
    assert_eq!(node.status().unmatched, expected);
}

/// V-400.
#[test]
fn counters_outlive_a_reload() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    node.hear(PEER, 150);
    node.hear(PEER, 0);
    let counted = node.status().instances[0].counters.clone();
    assert!(counted.contains(&("advertisement-rcvd", 2)), "{counted:?}");
    node.plan_with(plan([instance("web", 51, 120)]), Vec::new());
    assert_eq!(node.status().instances[0].counters, counted);
}

/// V-403, V-124: a new master, a datagram that breaks the protocol, a router that differs from us:
/// each is told, and the latter two once.
#[test]
fn notifications_report_a_master_a_protocol_error_and_a_router_error() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    let reported = |out: &[Output], is_it: fn(&EventKind) -> bool| {
        let events = out
            .iter()
            .filter(|output| matches!(output, Output::Notify(event) if is_it(&event.kind)));
        events.count()
    };
    let mut broken = crate::node::advert(PEER, 50);
    broken[26] ^= 1;
    let mut differs = RouterSettings::clone(&instance("peer", 51, 50).router);
    differs.addresses = vec![DB_PEER];
    for first in [1, 0] {
        let out = node.hear_bytes(&broken).to_vec();
        assert_eq!(reported(&out, |kind| matches!(kind, EventKind::Discard { .. })), first);
        let out = hear_from(&mut node, &differs, PEER, GROUP, ChecksumForm::Pseudo);
        assert_eq!(reported(&out, |kind| matches!(kind, EventKind::Mismatch { .. })), first);
    }
    let out = node.run_for(Duration::from_millis(3700)).to_vec();
    let promoted =
        |kind: &EventKind| matches!(kind, EventKind::Transition { to: Role::Master, .. });
    assert_eq!(reported(&out, promoted), 1);
}

/// An address that only one of the nodes has is on no node while the other one is master: status has
/// it for as long, and not once in the history alone.
#[test]
fn a_backup_says_which_addresses_its_master_does_not_have() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    let own = instance("web", 51, 100).router.addresses.clone();
    let differing = |node: &Node| node.status().instances[0].differing.clone();
    let mut sender = RouterSettings::clone(&instance("peer", 51, 150).router);
    hear_from(&mut node, &sender, PEER, GROUP, ChecksumForm::Pseudo);
    assert_eq!(differing(&node), None, "alike");
    sender.addresses = vec![DB_PEER];
    hear_from(&mut node, &sender, PEER, GROUP, ChecksumForm::Pseudo);
    let found = differing(&node).expect("they differ");
    assert_eq!((found.master, &found.ours_only), (PEER, &own));
    assert_eq!(found.theirs_only, [DB_PEER]);
    // It gets one more, and is looked at again.
    node.run_for(Duration::from_millis(1100));
    sender.addresses.extend(&own);
    hear_from(&mut node, &sender, PEER, GROUP, ChecksumForm::Pseudo);
    assert_eq!(differing(&node).map(|found| found.ours_only), Some(Vec::new()));
    node.run_for(Duration::from_millis(3700));
    assert_eq!(node.status().instances[0].role, Role::Master);
    assert_eq!(differing(&node), None, "a master has them all");
}

fn masters(out: &[Output]) -> Vec<Vec<IpAddr>> {
    let masters = out.iter().filter_map(|output| match output {
        Output::Masters(masters) => Some(masters.sources.clone()),
        _ => None,
    });
    masters.collect()
}

#[test]
fn the_sockets_hear_which_sources_the_instances_follow() {
    let two = || plan([instance("web", 51, 100), instance("db", 52, 100)]);
    let mut node = Node::started(two());
    let mut hear = |vrid, source, priority| {
        let sender = instance("peer", vrid, priority).router;
        masters(&hear_from(&mut node, &sender, source, GROUP, ChecksumForm::Pseudo))
    };
    assert_eq!(hear(51, PEER, 150), [[PEER]]);
    assert!(hear(51, PEER, 150).is_empty());
    assert!(hear(52, PEER, 150).is_empty(), "the same one for the other instance");
    assert!(hear(52, WEB_PEER, 50).is_empty(), "a lower one is nobody's master");
    assert_eq!(hear(52, WEB_PEER, 200), [[PEER, WEB_PEER]]);
    assert_eq!(masters(node.plan_with(plan([instance("web", 51, 100)]), Vec::new())), [[PEER]]);
}
