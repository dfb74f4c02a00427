//! Which links and addresses the host of the calling thread has, read once.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

/// A link with its addresses at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnLink {
    pub name: String,
    pub is_loopback: bool,
    /// Each with the length of its network's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl OwnLink {
    /// Whether packets for `address` are for this host because of this link. A loopback has all
    /// IPv4 addresses of its networks; of IPv6 it has no others than its own.
    pub fn has(&self, address: IpAddr) -> bool {
        let is_covered = |(own, length): &(IpAddr, u8)| {
            self.is_loopback && own.is_ipv4() && prefix(*own, *length) == prefix(address, *length)
        };
        self.addresses.iter().any(|one| one.0 == address || is_covered(one))
    }
}

/// All links, those without an address too. Empty when the kernel cannot be asked.
pub fn own_links() -> Vec<OwnLink> {
    let mut links: Vec<OwnLink> = Vec::new();
    for interface in getifaddrs().into_iter().flatten() {
        // An address with a label has it in place of the name: `eth0:web`.
        let name = interface.interface_name.split(':').next().unwrap_or_default();
        let at = links.iter().position(|link| link.name == name).unwrap_or_else(|| {
            links.push(OwnLink {
                name: name.to_owned(),
                is_loopback: interface.flags.contains(InterfaceFlags::IFF_LOOPBACK),
                addresses: Vec::new(),
            });
            links.len() - 1
        });
        let Some(own) = interface.address.as_ref().and_then(ip) else { continue };
        let length = match interface.netmask.as_ref().and_then(ip) {
            Some(IpAddr::V4(mask)) => mask.to_bits().leading_ones(),
            Some(IpAddr::V6(mask)) => mask.to_bits().leading_ones(),
            None => u32::from(address_bits(own)),
        };
        let length = u8::try_from(length).unwrap_or(address_bits(own));
        links[at].addresses.push((own, length));
    }
    links
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// Length of an address of this family.
pub fn address_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The first `length` bits and the family of an address.
pub fn prefix(address: IpAddr, length: u8) -> (u8, u128) {
    let all = address_bits(address);
    let value = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    (all, value.checked_shr(u32::from(all.saturating_sub(length))).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_has_the_ipv4_addresses_of_its_networks_and_other_links_their_own() {
        let addresses = ["127.0.0.1/8", "::1/128", "2001:db8::1/64"].map(|text| {
            let (address, length) = text.split_once('/').unwrap();
            (address.parse().unwrap(), length.parse().unwrap())
        });
        let mut link =
            OwnLink { name: "lo".to_owned(), is_loopback: true, addresses: addresses.to_vec() };
        let has = |link: &OwnLink, text: &str| link.has(text.parse().unwrap());
        assert!(has(&link, "127.0.0.1") && has(&link, "127.250.3.4") && has(&link, "2001:db8::1"));
        assert!(!has(&link, "128.0.0.1") && !has(&link, "2001:db8::2") && !has(&link, "::2"));
        link.is_loopback = false;
        assert!(has(&link, "127.0.0.1") && !has(&link, "127.250.3.4"));
    }

    #[test]
    fn the_loopback_of_this_host_is_listed() {
        let links = own_links();
        let loopback = links.iter().find(|link| link.is_loopback).expect("a loopback");
        assert_eq!(loopback.name, "lo");
    }

    #[test]
    fn a_prefix_is_compared_within_its_family() {
        assert_eq!(prefix("10.0.0.1".parse().unwrap(), 0), (32, 0));
        assert_eq!(prefix("::1".parse().unwrap(), 0), (128, 0));
        assert_ne!(prefix("10.0.0.1".parse().unwrap(), 8), prefix("11.0.0.1".parse().unwrap(), 8));
    }
}
