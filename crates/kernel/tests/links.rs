//! What the monitor tells about real links, each test in a network namespace of its own.

mod namespace;

use std::time::Duration;

use locum_kernel::netlink::LinkSnapshot;
use locum_kernel::netlink::Monitor;
use locum_kernel::netlink::MonitorEvent;
use locum_kernel::netlink::Netlink;
use locum_kernel::netlink::link_index;

use namespace::in_namespace;
use namespace::ip;
use namespace::sysctl;
use namespace::veth_pair;

/// Longer than anything here takes, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn with_monitor(test: &str, body: impl AsyncFnOnce(&mut Monitor) + Send + 'static) {
    in_namespace(test, move || {
        veth_pair();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let (_, mut monitor) = Netlink::connect().expect("netlink");
            body(&mut monitor).await;
        });
    });
}

async fn next(monitor: &mut Monitor) -> MonitorEvent {
    let event = tokio::time::timeout(PATIENCE, monitor.next()).await;
    event.expect("an event comes in time").expect("netlink works")
}

/// The next state of `left` that is as wanted.
async fn left_until(monitor: &mut Monitor, wanted: impl Fn(&LinkSnapshot) -> bool) -> LinkSnapshot {
    loop {
        if let MonitorEvent::Link(link) = next(monitor).await
            && &*link.name == "left"
            && wanted(&link)
        {
            return link;
        }
    }
}

#[test]
fn every_link_is_told_at_the_beginning() {
    with_monitor("every_link_is_told_at_the_beginning", async |monitor| {
        let mut links = Vec::new();
        while links.len() < 3 {
            if let MonitorEvent::Link(link) = next(monitor).await {
                links.push(link);
            }
        }
        let names: Vec<_> = links.iter().map(|link| &*link.name).collect();
        assert_eq!(names, ["lo", "right", "left"]);
        let left = &links[2];
        assert_eq!(left.index, link_index("left").expect("it exists"));
        assert_eq!(left.mtu, 1500);
        assert!(left.up && left.running && left.mac.is_some());
        assert_eq!(links[0].mac, None, "the loopback has no MAC address");
    });
}

#[test]
fn carrier_and_switch_are_told_apart() {
    with_monitor("carrier_and_switch_are_told_apart", async |monitor| {
        left_until(monitor, |link| link.running).await;
        ip("link set right down");
        left_until(monitor, |link| link.up && !link.running).await;
        ip("link set left down");
        left_until(monitor, |link| !link.up && !link.running).await;
        ip("link set right up");
        ip("link set left up");
        left_until(monitor, |link| link.up && link.running).await;
    });
}

#[test]
fn a_renamed_link_is_gone_under_its_old_name() {
    with_monitor("a_renamed_link_is_gone_under_its_old_name", async |monitor| {
        ip("link set right down");
        ip("link set right name wan");
        while next(monitor).await != (MonitorEvent::LinkGone { name: "right".into() }) {}
        loop {
            if let MonitorEvent::Link(link) = next(monitor).await
                && &*link.name == "wan"
            {
                break;
            }
        }
        ip("link del wan");
        let mut gone = Vec::new();
        while gone.len() < 2 {
            if let MonitorEvent::LinkGone { name } = next(monitor).await {
                gone.push(name.to_string());
            }
        }
        gone.sort();
        assert_eq!(gone, ["left", "wan"]);
    });
}

#[test]
fn sources_follow_the_addresses_and_exclude_marked_ones() {
    with_monitor("sources_follow_the_addresses_and_exclude_marked_ones", async |monitor| {
        ip("addr add 192.0.2.1/24 dev left");
        ip("addr add 192.0.2.2/24 dev left");
        ip("addr add 2001:db8::1/64 dev left nodad");
        let link = left_until(monitor, |link| link.addresses.len() >= 4).await;
        assert_eq!(link.addresses[0].to_string(), "192.0.2.1");
        assert_eq!(link.addresses[1].to_string(), "192.0.2.2");
        assert!(link.addresses[2].to_string().starts_with("fe80::"), "{link:?}");
        assert_eq!(link.addresses[3].to_string(), "2001:db8::1");
        ip("addr del 192.0.2.1/24 dev left");
        left_until(monitor, |link| !link.addresses.contains(&[192, 0, 2, 1].into())).await;
    });
}

#[test]
fn forwarding_of_ipv6_is_told() {
    with_monitor("forwarding_of_ipv6_is_told", async |monitor| {
        left_until(monitor, |link| !link.forwards_v6).await;
        sysctl("ipv6/conf/left/forwarding", "1");
        left_until(monitor, |link| link.forwards_v6).await;
        sysctl("ipv6/conf/all/forwarding", "0");
        left_until(monitor, |link| !link.forwards_v6).await;
    });
}
