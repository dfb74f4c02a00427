//! What the monitor tells about real links, each test in a network namespace of its own.

mod namespace;

use std::time::Duration;

use locum_kernel::netlink::{
    AddressSpec, KernelFact, KernelScope, LinkSnapshot, MonitorEvent, Netlink, WantedFacts,
    link_index,
};

use namespace::{in_namespace, ip, sysctl, veth_pair};

/// Longer than anything here takes, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn with_netlink(test: &str, body: impl AsyncFnOnce(&mut Netlink) + Send + 'static) {
    in_namespace(test, move || {
        veth_pair();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            body(&mut Netlink::connect().expect("netlink")).await;
        });
    });
}

async fn next(netlink: &mut Netlink) -> MonitorEvent {
    let event = tokio::time::timeout(PATIENCE, netlink.next()).await;
    event.expect("an event comes in time").expect("netlink works")
}

/// The next state of `left` that is as wanted.
async fn left_until(netlink: &mut Netlink, wanted: impl Fn(&LinkSnapshot) -> bool) -> LinkSnapshot {
    loop {
        if let MonitorEvent::Link(link) = next(netlink).await
            && &*link.name == "left"
            && wanted(&link)
        {
            return link;
        }
    }
}

#[test]
fn every_link_is_reported_at_the_beginning() {
    with_netlink("every_link_is_reported_at_the_beginning", async |netlink| {
        let mut links = Vec::new();
        while links.len() < 3 {
            if let MonitorEvent::Link(link) = next(netlink).await {
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
fn carrier_and_switch_are_distinguished() {
    with_netlink("carrier_and_switch_are_distinguished", async |netlink| {
        left_until(netlink, |link| link.running).await;
        ip("link set right down");
        left_until(netlink, |link| link.up && !link.running).await;
        ip("link set left down");
        left_until(netlink, |link| !link.up && !link.running).await;
        ip("link set right up");
        ip("link set left up");
        left_until(netlink, |link| link.up && link.running).await;
    });
}

#[test]
fn a_renamed_link_is_gone_under_its_old_name() {
    with_netlink("a_renamed_link_is_gone_under_its_old_name", async |netlink| {
        ip("link set right down");
        ip("link set right name wan");
        while next(netlink).await != (MonitorEvent::LinkGone { name: "right".into() }) {}
        loop {
            if let MonitorEvent::Link(link) = next(netlink).await
                && &*link.name == "wan"
            {
                break;
            }
        }
        ip("link del wan");
        let mut gone = Vec::new();
        while gone.len() < 2 {
            if let MonitorEvent::LinkGone { name } = next(netlink).await {
                gone.push(name.to_string());
            }
        }
        gone.sort();
        assert_eq!(gone, ["left", "wan"]);
    });
}

#[test]
fn sources_follow_the_addresses_and_exclude_marked_ones() {
    with_netlink("sources_follow_the_addresses_and_exclude_marked_ones", async |netlink| {
        ip("addr add 192.0.2.1/24 dev left");
        ip("addr add 192.0.2.2/24 dev left");
        ip("addr add 2001:db8::1/64 dev left nodad");
        let link = left_until(netlink, |link| link.addresses.len() >= 4).await;
        assert_eq!(link.addresses[0].to_string(), "192.0.2.1");
        assert_eq!(link.addresses[1].to_string(), "192.0.2.2");
        assert!(link.addresses[2].to_string().starts_with("fe80::"), "{link:?}");
        assert_eq!(link.addresses[3].to_string(), "2001:db8::1");
        ip("addr del 192.0.2.1/24 dev left");
        left_until(netlink, |link| !link.addresses.contains(&[192, 0, 2, 1].into())).await;
    });
}

#[test]
fn forwarding_of_ipv6_is_reported() {
    with_netlink("forwarding_of_ipv6_is_reported", async |netlink| {
        left_until(netlink, |link| !link.forwards_v6).await;
        sysctl("ipv6/conf/left/forwarding", "1");
        left_until(netlink, |link| link.forwards_v6).await;
        sysctl("ipv6/conf/all/forwarding", "0");
        left_until(netlink, |link| !link.forwards_v6).await;
    });
}

#[test]
fn others_are_reported_at_once_and_our_own_addresses_never() {
    let test = "others_are_reported_at_once_and_our_own_addresses_never";
    with_netlink(test, async |netlink| {
        left_until(netlink, |link| link.running && !link.addresses.is_empty()).await;
        let hold: Vec<_> = (0..255)
            .map(|host| {
                KernelFact::from(AddressSpec {
                    interface: "left".into(),
                    address: [192, 0, 2, host].into(),
                    prefix: 32,
                    broadcast: None,
                    label: None,
                    scope: KernelScope::Global,
                    nodad: true,
                    noprefixroute: false,
                    valid_seconds: Some(60),
                })
            })
            .collect();
        for _ in 0..2 {
            netlink.apply(&WantedFacts { hold: &hold, drop: &[] }).expect("added, then renewed");
        }
        // Many at once by somebody else, while nobody reads: one event.
        let lines: String =
            (0..50).map(|host| format!("addr add 198.51.100.{host}/32 dev left\n")).collect();
        let mut child = std::process::Command::new("ip")
            .args(["-batch", "-"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("ip runs");
        std::io::Write::write_all(&mut child.stdin.take().expect("piped"), lines.as_bytes())
            .expect("written");
        assert!(child.wait().expect("ip ends").success());
        let MonitorEvent::Link(link) = next(netlink).await else { panic!("a link has changed") };
        let foreign =
            |link: &LinkSnapshot, host: u8| link.addresses.contains(&[198, 51, 100, host].into());
        assert!((0..50).all(|host| foreign(&link, host)), "{link:?}");
        assert!(!link.addresses.contains(&[192, 0, 2, 7].into()), "ours is no news: {link:?}");
        ip("addr del 198.51.100.7/32 dev left");
        let MonitorEvent::Link(link) = next(netlink).await else { panic!("a link has changed") };
        assert!(!foreign(&link, 7) && foreign(&link, 8));
    });
}
