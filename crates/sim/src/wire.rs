//! What the simulated socket adds to and reads from an advertisement's octets.
//!
//! The oracle reads the few fields it judges by itself, so that a fault in the product's codec
//! cannot hide from it.

use std::net::IpAddr;
use std::time::Duration;

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

impl Advert {
    pub const fn interval(self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }
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

/// Octets of the fields in the message. RFC 9568 §5.2.
pub const PRIORITY: usize = 2;
const INTERVAL: usize = 4;
const CHECKSUM: usize = 6;

/// Puts `value` at `offset` and corrects the checksum for it, whatever that covers: RFC 1624 §3.
/// Outside of the message nothing happens.
pub fn rewrite(message: &mut [u8], offset: usize, value: u8) {
    let Some(octet) = message.get_mut(offset) else { return };
    let old = std::mem::replace(octet, value);
    correct(message, offset, old, value);
}

/// The checksum of a message in which the octet at `offset` was `old` and is `new` now.
pub fn correct(message: &mut [u8], offset: usize, old: u8, new: u8) {
    if offset & !1 == CHECKSUM || message.len() <= CHECKSUM + 1 {
        return;
    }
    let word = |octet: u8| u16::from(octet) << if offset.is_multiple_of(2) { 8 } else { 0 };
    let sum = !u16::from_be_bytes([message[CHECKSUM], message[CHECKSUM + 1]]);
    let mut sum = u32::from(sum) + u32::from(!word(old)) + u32::from(word(new));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[CHECKSUM..CHECKSUM + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Makes the sender's interval another one.
pub fn rewrite_interval(version: Version, message: &mut [u8], centis: u16) {
    match version {
        Version::V2 => rewrite(message, INTERVAL + 1, (centis / 100) as u8),
        Version::V3 => {
            let [high, low] = centis.to_be_bytes();
            rewrite(message, INTERVAL, high & 0x0f);
            rewrite(message, INTERVAL + 1, low);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{read, rewrite, rewrite_interval, wrap};
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

    /// The words of [`MESSAGE`] add up to what its checksum makes 0xffff, pseudo header included;
    /// whatever is rewritten must leave that sum alone.
    #[test]
    fn a_rewritten_field_keeps_the_checksum_right() {
        let sum = |message: &[u8]| {
            let words = message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
            let sum: u32 = words.sum();
            (sum & 0xffff) + (sum >> 16)
        };
        let mut message = MESSAGE;
        rewrite(&mut message, super::PRIORITY, 254);
        rewrite_interval(Version::V3, &mut message, 1);
        let advert = read(Version::V3, &message).map(|a| (a.priority, a.interval_ms));
        assert_eq!(advert, Some((254, 10)));
        assert_eq!(sum(&message), sum(&MESSAGE));
        assert_ne!(message[6..8], MESSAGE[6..8]);
    }
}
