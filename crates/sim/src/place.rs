//! Names and addresses of the simulated network: links, nodes and virtual addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use locum_plan::Name;
use locum_vrrp::Family;

use crate::virtual_router::VirtualRouter;

/// The links a node may have. Each joins all nodes in a LAN of its own.
pub const INTERFACES: [&str; 2] = ["eth0", "eth1"];

pub fn interface(link: usize) -> Name {
    Name::from(INTERFACES[link])
}

/// The link of this name; none of the simulated nodes has another.
pub fn link_of(interface: &str) -> Option<usize> {
    INTERFACES.iter().position(|name| *name == interface)
}

pub fn node_name(node: usize) -> Name {
    Name::from(format!("lb{}", node + 1).as_str())
}

/// The address a node sends this router's adverts from. Peers across IPv6 routers know each other
/// by global addresses, neighbours by link-local ones.
pub fn sender_address(node: usize, router: &VirtualRouter) -> IpAddr {
    match (router.unicast, router.family) {
        (true, Family::V6) => global_address(node, router.link),
        (false, Family::V6) | (_, Family::V4) => node_address(node, router.family, router.link),
    }
}

pub fn global_address(node: usize, link: usize) -> IpAddr {
    let subnet = 0xff + link as u16;
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, 11 + node as u16))
}

/// A node's first address of a family on a link. Higher nodes win ties.
pub fn node_address(node: usize, family: Family, link: usize) -> IpAddr {
    let (last, link) = (11 + node as u16, link as u16);
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2 + link as u8, last as u8)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, link, last)),
    }
}

/// The virtual address at `index` of the virtual router with this number.
pub fn virtual_address(family: Family, number: u8, index: u8) -> IpAddr {
    let (number, index) = (u16::from(number), u16::from(index));
    match (family, index) {
        (Family::V4, _) => IpAddr::V4(Ipv4Addr::new(10, 0, number as u8, index as u8 + 1)),
        // The first of a version 3 list is link-local: RFC 9568 §5.2.9.
        (Family::V6, 0) => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 1, number, 1)),
        (Family::V6, _) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, index)),
    }
}
