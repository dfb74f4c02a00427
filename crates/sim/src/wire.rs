//! What the simulated socket adds to and reads from an advertisement's octets.
//!
//! The oracle reads the few fields it judges by itself, so that a fault in the product's codec
//! cannot hide from it.

use std::net::IpAddr;

use locum_vrrp::{Family, Version};

/// Fixed by RFC 791 for a header without options.
const IPV4_HEADER_LENGTH: usize = 20;
const VRRP_PROTOCOL: u8 = 112;
/// CS6, as network control traffic is marked.
const TRAFFIC_CLASS: u8 = 0xc0;

/// Octets before the VRRP message in what a raw socket delivers.
pub const fn header_length(family: Family) -> usize {
    match family {
        Family::V4 => IPV4_HEADER_LENGTH,
        Family::V6 => 0,
    }
}

/// The datagram as the receiver's raw socket delivers it.
pub fn wrap(source: IpAddr, destination: IpAddr, ttl: u8, message: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else {
        return message.to_vec();
    };
    let total = u16::try_from(IPV4_HEADER_LENGTH + message.len()).unwrap_or(u16::MAX);
    let mut bytes = vec![0x45, TRAFFIC_CLASS];
    bytes.extend(total.to_be_bytes());
    bytes.extend([0, 0, 0, 0, ttl, VRRP_PROTOCOL, 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    let checksum = internet_checksum(&bytes);
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend(message);
    bytes
}

fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The fields the oracle needs. RFC 9568 §5.2, RFC 3768 §5.3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advert {
    pub vrid: u8,
    pub priority: u8,
    /// As sent: seconds in version 2, centiseconds in version 3.
    pub interval_ms: u64,
}

/// `None` when it is too short to be one.
pub fn read(version: Version, message: &[u8]) -> Option<Advert> {
    let head: [u8; 8] = message.get(..8)?.try_into().ok()?;
    let interval_ms = match version {
        Version::V2 => u64::from(head[5]) * 1000,
        Version::V3 => u64::from(u16::from_be_bytes([head[4], head[5]]) & 0x0fff) * 10,
    };
    Some(Advert { vrid: head[1], priority: head[2], interval_ms })
}

#[cfg(test)]
mod tests {
    use super::{read, wrap};
    use locum_vrrp::Version;

    /// Vector V3-4-01 of the conformance specification.
    const MESSAGE: [u8; 12] =
        [0x31, 0x33, 0x64, 0x01, 0x00, 0x64, 0x05, 0xd4, 0xc0, 0x00, 0x02, 0x01];

    #[test]
    fn an_ipv4_header_is_added_as_the_kernel_would() {
        let source = [192, 0, 2, 2].into();
        let destination = [224, 0, 0, 18].into();
        let header =
            [0x45, 0xc0, 0, 0x20, 0, 0, 0, 0, 0xff, 0x70, 0x18, 0x99, 192, 0, 2, 2, 224, 0, 0, 18];
        let datagram = wrap(source, destination, 255, &MESSAGE);
        assert_eq!(datagram[..20], header);
        assert_eq!(datagram[20..], MESSAGE);
    }

    #[test]
    fn the_oracle_reads_priority_and_interval() {
        let advert = read(Version::V3, &MESSAGE).map(|a| (a.vrid, a.priority, a.interval_ms));
        assert_eq!(advert, Some((51, 100, 1000)));
    }
}
