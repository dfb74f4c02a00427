//! Connections of a predecessor that still answers go on there, and nowhere once it has let go.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{Fact, FactKey, Handover, Output};
use locum_plan::Instance;
use locum_vrrp::{Priority, Role, Transport, UnicastPeer};

use crate::node::{Node, PEER, VIP, instance, plan};

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// What a predecessor answers at an interval of 1 s, less the reserve: 100 ms, 300 ms, 50 ms.
const WINDOW: Duration = Duration::from_millis(350);

fn keeping() -> Instance {
    Instance { keep_connections: true, ..instance("web", 51, 100) }
}

/// The last level of these outputs.
fn level(out: &[Output]) -> Option<(Arc<[Fact]>, Vec<Fact>)> {
    out.iter().rev().find_map(|output| match output {
        Output::Apply { hold, drop, .. } => {
            Some((Arc::clone(hold), drop.iter().map(|one| one.fact.clone()).collect()))
        }
        _ => None,
    })
}

/// A new master whose predecessor has just released, and what it did then.
fn after_release(instance: Instance) -> (Node, Vec<Output>) {
    let destination = match &instance.router.transport {
        Transport::Multicast { group } => *group,
        Transport::Unicast { .. } => OWN,
    };
    let mut node = Node::started(plan([instance]));
    node.hear_at(destination, PEER, 200);
    node.hear_at(destination, PEER, Priority::RELEASE.0);
    while let Some(deadline) = node.deadline()
        && node.role() != Role::Master
    {
        let out = node.run_until(deadline).to_vec();
        if node.role() == Role::Master {
            let cause = node.status().instances[0].cause.clone();
            assert_eq!(cause, format!("{PEER} released its mastership"));
            return (node, out);
        }
    }
    panic!("it does not take over");
}

/// The first level of these outputs that holds something.
fn takeover(out: &[Output]) -> (usize, Option<Handover>) {
    let first =
        out.iter().find(|output| matches!(output, Output::Apply { hold, .. } if !hold.is_empty()));
    let Some(Output::Apply { hold, .. }) = first else { panic!("nothing is held: {out:#?}") };
    (hold.len(), hold.iter().find_map(Fact::handover).cloned())
}

#[test]
fn a_successor_hands_connections_over_until_the_predecessor_lets_go() {
    let (mut node, out) = after_release(keeping());
    let (count, handover) = takeover(&out);
    let handover = handover.expect("it took over from a predecessor");
    assert_eq!((count, handover.host, handover.address), (2, PEER, VIP.into()));
    let out = node.confirm_applies().to_vec();
    assert!(out.iter().any(|output| matches!(output, Output::Announce { .. })), "{out:#?}");
    let out = node.run_for(WINDOW - Duration::from_millis(2)).to_vec();
    assert_eq!(level(&out), None, "too early");
    let out = node.run_for(Duration::from_millis(4)).to_vec();
    let (hold, drop) = level(&out).expect("the window is over");
    assert!(hold.iter().all(|fact| fact.address().is_some()), "{hold:?}");
    assert_eq!(drop, [Fact::Handover(Box::new(handover))]);
    assert!(
        !out.iter().any(|output| matches!(output, Output::Announce { .. })),
        "no news to hosts"
    );
}

#[test]
fn a_kernel_without_a_packet_filter_takes_the_address_all_the_same() {
    let (mut node, _) = after_release(keeping());
    let out = node.refuse_handovers("no such protocol").to_vec();
    assert_eq!(node.role(), Role::Master);
    assert!(out.iter().any(|output| matches!(output, Output::Announce { .. })), "{out:#?}");
    let refused = node.status().instances.remove(0).refused;
    let refused: Vec<_> = refused.iter().map(|one| (one.fact.key(), &*one.error)).collect();
    let handover = FactKey::Handover { address: VIP.into() };
    assert_eq!(refused, [(handover, "no such protocol")], "status names what is no address too");
}

#[test]
fn without_a_predecessor_that_answers_nothing_is_handed_over() {
    let mut node = Node::started(plan([keeping()]));
    node.hear(PEER, 200);
    let out = node.run_for(Duration::from_secs(5)).to_vec();
    assert_eq!(node.role(), Role::Master, "its master is silent");
    assert_eq!(takeover(&out), (1, None));
}

#[test]
fn whoever_does_not_want_it_or_is_behind_a_router_hands_nothing_over() {
    let unwanted = Instance { keep_connections: false, ..keeping() };
    let mut routed = keeping();
    let peer = UnicastPeer { address: PEER, ttl: None };
    Arc::make_mut(&mut routed.router).transport =
        Transport::Unicast { peers: vec![peer], ttl: 64, check_source: true };
    for instance in [unwanted, routed] {
        let (_, out) = after_release(instance);
        assert_eq!(takeover(&out), (1, None));
    }
}
