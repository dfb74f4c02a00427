//! FRR's vrrpd as a peer: zebra beside it, and a macvlan with the virtual MAC per router.
//!
//! vrrpd does not add addresses itself: they stand on the macvlan, which zebra keeps without
//! carrier while the router is backup.

use std::fmt::Write as _;

use super::Peer;
use super::Preempt;
use super::Router;
use super::Running;
use super::Version;
use crate::node::Node;
use crate::wait;

const ZEBRA_SOCKET: &str = "/run/frr/zserv.api";

/// Debian's FRR.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frr;

impl Peer for Frr {
    fn label(&self) -> &'static str {
        "frr"
    }

    fn programs(&self) -> &'static [&'static str] {
        &["zebra", "vrrpd"]
    }

    fn start(&self, node: &Node, routers: &[Router]) -> Running {
        node.shell("mkdir -p /run/frr && chown frr:frr /run/frr && rm -f /run/frr/*");
        routers.iter().for_each(|router| add_macvlan(node, router));
        // Both daemons give up their privileges before they read their configuration.
        node.write("/run/lab/zebra.conf", "");
        node.write("/run/lab/vrrpd.conf", &render(routers));
        let zebra =
            node.spawn(&["/usr/lib/frr/zebra", "-A", "127.0.0.1", "-f", "/run/lab/zebra.conf"]);
        wait::until("zebra listens", wait::seconds(30), || node.path(ZEBRA_SOCKET).exists());
        let vrrpd =
            node.spawn(&["/usr/lib/frr/vrrpd", "-A", "127.0.0.1", "-f", "/run/lab/vrrpd.conf"]);
        Running::new(self.label(), vec![zebra, vrrpd])
    }
}

/// The device on which vrrpd finds the addresses of a router. Bridge mode, as FRR's manual asks;
/// without carrier from the start, or it would answer before vrrpd knows of it.
fn add_macvlan(node: &Node, router: &Router) {
    let v6 = router.vip().is_ipv6();
    let (device, family) = if v6 { ("vrrp6", 2) } else { ("vrrp4", 1) };
    let (device, vrid) = (format!("{device}-{}", router.vrid), router.vrid);
    let mut script = format!(
        "ip link del {device} 2>/dev/null || true
         ip link add {device} link eth0 type macvlan mode bridge
         ip link set {device} address 00:00:5e:00:{family:02x}:{vrid:02x}
         ip link set {device} protodown on
         ip link set {device} up\n"
    );
    for (address, prefix) in &router.addresses {
        let _ = writeln!(script, "ip addr add {address}/{prefix} dev {device}");
    }
    node.shell(&script);
}

fn render(routers: &[Router]) -> String {
    let mut text = String::from("interface eth0\n");
    for router in routers {
        let vrid = router.vrid;
        let version = match router.version {
            Version::V2 => 2,
            Version::V3 => 3,
        };
        let no = match router.preempt {
            Preempt::Yes => "",
            Preempt::No => "no ",
            Preempt::After(_) => panic!("FRR has no preempt delay"),
        };
        assert!(router.interface == "eth0", "the macvlan stands on it");
        assert!(router.check.is_none() && router.unicast.is_none() && router.password.is_none());
        let _ = writeln!(
            text,
            " vrrp {vrid} version {version}\n vrrp {vrid} priority {}\n \
             vrrp {vrid} advertisement-interval {}\n {no}vrrp {vrid} preempt",
            router.priority,
            router.interval.as_millis(),
        );
        for (address, _) in &router.addresses {
            let family = if address.is_ipv6() { "ipv6" } else { "ip" };
            let _ = writeln!(text, " vrrp {vrid} {family} {address}");
        }
    }
    text
}
