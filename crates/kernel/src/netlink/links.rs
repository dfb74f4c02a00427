//! A link as notifications tell it, and the state of it that is reported. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressFlags;
use netlink_packet_route::link::{LinkFlags, LinkHeader};

use super::address::FoundAddress;
use crate::attribute::{attributes, text};

/// Length of struct ifinfomsg.
const LINK_HEADER_OCTETS: usize = 16;

/// The whole state of one link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkSnapshot {
    pub name: Arc<str>,
    pub index: u32,
    /// IFF_UP: the operator wants it up.
    pub up: bool,
    /// IFF_UP and IFF_RUNNING: it is up and has carrier.
    pub running: bool,
    /// `None` with IFF_NOARP, or when it is not six octets long, or all zero (G-018).
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    /// Every address that answers here and is not ours, whoever put it there. Ours are known from
    /// what was applied. IPv4 first, primary ones before secondary ones, then IPv6 with link-local
    /// ones first; none that is tentative or failed duplicate address detection. Each can be a
    /// source.
    pub addresses: Vec<IpAddr>,
    /// The link forwards IPv6.
    pub forwards_v6: bool,
}

/// A link without its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KernelLink {
    pub index: u32,
    pub name: Arc<str>,
    flags: LinkFlags,
    mac: Option<[u8; 6]>,
    mtu: u32,
}

impl KernelLink {
    /// Reads the body of an RTM_NEWLINK or RTM_DELLINK; `None` for what is about something else,
    /// such as the ports of a bridge. Only what we need is decoded, so that an attribute unknown to
    /// us cannot hide a link.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let header = LinkHeader::parse(body).ok()?;
        if header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let (mut name, mut address, mut mtu) = (None, None, 0);
        for attribute in attributes(body.get(LINK_HEADER_OCTETS..)?) {
            let value = attribute.value;
            match attribute.kind {
                libc::IFLA_IFNAME => name = Some(text(value)),
                libc::IFLA_ADDRESS => address = <[u8; 6]>::try_from(value).ok(),
                libc::IFLA_MTU => mtu = value.try_into().map_or(0, u32::from_ne_bytes),
                _ => {}
            }
        }
        let has_arp = !header.flags.contains(LinkFlags::Noarp);
        Some(Self {
            index: header.index,
            name: name?.into(),
            flags: header.flags,
            mac: address.filter(|mac| has_arp && *mac != [0; 6]),
            mtu,
        })
    }

    /// One that is up and running.
    #[cfg(test)]
    pub(crate) fn named(index: u32, name: &str) -> Self {
        let flags = LinkFlags::Up | LinkFlags::Running;
        Self { index, name: name.into(), flags, mac: None, mtu: 1500 }
    }

    pub(super) fn snapshot(&self, addresses: Vec<IpAddr>, forwards_v6: bool) -> LinkSnapshot {
        let up = self.flags.contains(LinkFlags::Up);
        LinkSnapshot {
            name: self.name.clone(),
            index: self.index,
            up,
            running: up && self.flags.contains(LinkFlags::Running),
            mac: self.mac,
            mtu: self.mtu,
            addresses,
            forwards_v6,
        }
    }
}

/// Usable source addresses of these, which stand in the kernel's order: the best of each family
/// first.
pub(super) fn sources<'a>(addresses: impl Iterator<Item = &'a FoundAddress>) -> Vec<IpAddr> {
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed;
    // Optimistic addresses are tentative, and yet may be used.
    let usable = |found: &&FoundAddress| {
        !found.flags.intersects(unusable) || found.flags.contains(AddressFlags::Optimistic)
    };
    let mut sources: Vec<(u8, IpAddr)> =
        addresses.filter(usable).map(|found| (rank(found), found.address)).collect();
    // Stable: within a rank, the kernel's own order.
    sources.sort_by_key(|(rank, _)| *rank);
    sources.dedup_by_key(|(_, address)| *address);
    sources.into_iter().map(|(_, address)| address).collect()
}

fn rank(found: &FoundAddress) -> u8 {
    match found.address {
        IpAddr::V4(_) if !found.flags.contains(AddressFlags::Secondary) => 0,
        IpAddr::V4(_) => 1,
        IpAddr::V6(address) if address.is_unicast_link_local() => 2,
        IpAddr::V6(_) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(address: &str, flags: AddressFlags) -> FoundAddress {
        let address = address.parse().unwrap();
        FoundAddress { index: 1, address, prefix: 24, flags, marked: false, valid_seconds: None }
    }

    /// struct ifinfomsg of an Ethernet link, index 7, with these flags, and attributes.
    fn body(family: u8, flags: LinkFlags, mac: &[u8]) -> Vec<u8> {
        let mut body = vec![family, 0, 1, 0, 7, 0, 0, 0];
        body.extend(flags.bits().to_ne_bytes());
        body.extend([0; 4]);
        let attributes: [(u16, &[u8]); 4] = [
            (libc::IFLA_IFNAME, b"eth0\0"),
            (libc::IFLA_MTU, &1400u32.to_ne_bytes()),
            (libc::IFLA_ADDRESS, mac),
            (9999, b"?"),
        ];
        for (kind, value) in attributes {
            body.extend((value.len() as u16 + 4).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
            body.resize((body.len() + 3) & !3, 0);
        }
        body
    }

    #[test]
    fn g_018_noarp_and_odd_hardware_have_no_mac() {
        let mac = [2, 0, 0, 0, 0, 1];
        let parse = |flags, mac: &[u8]| KernelLink::parse(&body(0, flags, mac)).unwrap();
        let ether = parse(LinkFlags::Up, &mac);
        assert_eq!((&*ether.name, ether.index, ether.mtu), ("eth0", 7, 1400));
        assert_eq!(ether.mac, Some(mac));
        assert_eq!(parse(LinkFlags::Up | LinkFlags::Noarp, &mac).mac, None);
        assert_eq!(parse(LinkFlags::Up, &[1; 20]).mac, None, "infiniband");
        assert_eq!(parse(LinkFlags::Up, &[0; 6]).mac, None, "loopback");
    }

    #[test]
    fn a_bridge_port_message_is_not_about_the_link() {
        let bridge = libc::AF_BRIDGE as u8;
        assert_eq!(KernelLink::parse(&body(bridge, LinkFlags::Up, &[2; 6])), None);
    }

    #[test]
    fn cut_messages_never_panic() {
        let whole = body(0, LinkFlags::Up, &[2; 6]);
        for end in 0..whole.len() {
            let _ = KernelLink::parse(&whole[..end]);
            let _ = FoundAddress::parse(&whole[..end]);
        }
    }

    #[test]
    fn running_needs_up_and_carrier() {
        let running = |flags| {
            KernelLink { flags, ..KernelLink::named(1, "eth0") }.snapshot(vec![], false).running
        };
        assert!(running(LinkFlags::Up | LinkFlags::Running));
        assert!(!running(LinkFlags::Up));
        assert!(!running(LinkFlags::Running));
    }

    #[test]
    fn sources_are_ranked_and_exclude_those_in_detection() {
        let none = AddressFlags::empty();
        let addresses = [
            found("2001:db8::1", none),
            found("2001:db8::2", AddressFlags::Tentative),
            found("2001:db8::3", AddressFlags::Tentative | AddressFlags::Dadfailed),
            found("fe80::1", none),
            found("192.0.2.2", AddressFlags::Secondary),
            found("192.0.2.1", none),
        ];
        let sources = sources(addresses.iter());
        let sources: Vec<_> = sources.iter().map(ToString::to_string).collect();
        assert_eq!(sources, ["192.0.2.1", "192.0.2.2", "fe80::1", "2001:db8::1"]);
    }
}
