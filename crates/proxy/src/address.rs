//! Does this node still have an address?

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Discard. A datagram socket that is connected sends nothing.
const ANY_PORT: u16 = 9;

/// No interface has it. What cannot be told counts as there.
pub fn is_gone(address: IpAddr) -> bool {
    if address.is_loopback() || address.is_unspecified() {
        return false;
    }
    match UdpSocket::bind((address, 0)) {
        Err(error) => error.kind() == io::ErrorKind::AddrNotAvailable,
        // With the ip_nonlocal_bind sysctl every address can be bound, had or not.
        Ok(_) => leads_elsewhere(address),
    }
}

/// Whether a packet to `address` would leave this node: one to an address of its own comes from
/// that same address.
fn leads_elsewhere(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let Ok(socket) = UdpSocket::bind((any, 0)) else { return false };
    match socket.connect((address, ANY_PORT)).and_then(|()| socket.local_addr()) {
        Ok(source) => source.ip() != address,
        Err(error) => {
            use io::ErrorKind::{HostUnreachable, NetworkUnreachable};
            matches!(error.kind(), HostUnreachable | NetworkUnreachable)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_nobody_is_gone_and_those_of_every_node_are_not() {
        let is_gone = |text: &str| is_gone(text.parse().unwrap());
        assert!(is_gone("192.0.2.77"), "a documentation address");
        assert!(is_gone("2001:db8::77"));
        for there in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::"] {
            assert!(!is_gone(there), "{there}");
        }
    }

    /// What stands in for a bind that proves nothing.
    #[test]
    fn a_packet_to_an_address_of_nobody_leads_elsewhere_and_one_to_our_own_does_not() {
        assert!(leads_elsewhere("192.0.2.77".parse().unwrap()));
        assert!(leads_elsewhere("2001:db8::77".parse().unwrap()));
        assert!(!leads_elsewhere("127.0.0.1".parse().unwrap()));
        let own = nix::ifaddrs::getifaddrs().unwrap().filter_map(|interface| {
            let address = interface.address?;
            address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()))
        });
        for address in own {
            assert!(!leads_elsewhere(address), "{address}");
        }
    }
}
