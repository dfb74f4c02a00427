//! The checksum of a VRRP message and the octets it covers. RFC 1071; SPEC.md §3.
//!
//! | message | covers |
//! |---|---|
//! | version 2 | the message with its authentication data |
//! | version 3, IPv4, form `Message` | the message (RFC 9568 §5.2.8) |
//! | version 3, IPv4, form `Pseudo` | IPv4 pseudo header and message |
//! | version 3, IPv4, keepalived up to 1.3.6 in unicast | the same, with 224.0.0.18 as destination |
//! | version 3, IPv6 | IPv6 pseudo header and message |
//!
//! Both pseudo headers are source, destination, length of the message and protocol 112, padded
//! with zeros in different places. Zeros add nothing, so one sum serves both families.

use std::net::{IpAddr, Ipv4Addr};

use crate::settings::{ChecksumForm, Family, Version, multicast_group};

/// IP protocol number of VRRP. RFC 9568 §5.1.1.4.
pub const PROTOCOL: u8 = 112;

/// What the checksum covers beside the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coverage {
    /// Nothing.
    Message,
    /// A pseudo header of the addresses in the IP header.
    Pseudo { source: IpAddr, destination: IpAddr },
}

impl Coverage {
    /// The coverage this message has by its version and family; `form` decides only where there is
    /// a choice, in version 3 over IPv4 (V-040). In unicast each copy has its own destination
    /// (V-045).
    pub const fn of(
        version: Version,
        form: ChecksumForm,
        source: IpAddr,
        destination: IpAddr,
    ) -> Self {
        match (version, Family::of(&source), form) {
            (Version::V2, Family::V4 | Family::V6, _)
            | (Version::V3, Family::V4, ChecksumForm::Message) => Self::Message,
            (Version::V3, Family::V4, ChecksumForm::Pseudo) | (Version::V3, Family::V6, _) => {
                Self::Pseudo { source, destination }
            }
        }
    }

    /// keepalived up to 1.3.6 in unicast: the group stands in the pseudo header, whatever the
    /// destination. Never accepted by itself (V-046).
    pub const fn legacy_unicast(source: Ipv4Addr) -> Self {
        Self::Pseudo { source: IpAddr::V4(source), destination: multicast_group(Family::V4) }
    }
}

/// The value of the checksum field. What `message` has there already is taken as zero; the message
/// has at least eight octets.
pub fn checksum(message: &[u8], coverage: Coverage) -> u16 {
    let field = sum(message.get(FIELD).unwrap_or_default());
    // One's complement arithmetic has no borrow: taking the field out is adding its complement.
    !fold(covered(message, coverage) + u64::from(!fold(field)))
}

/// Whether the checksum field of `message` is right. Zero has two representations, both right.
pub fn is_valid(message: &[u8], coverage: Coverage) -> bool {
    fold(covered(message, coverage)) == u16::MAX
}

/// Where the checksum stands in every version.
pub const FIELD: std::ops::Range<usize> = 6..8;

fn covered(message: &[u8], coverage: Coverage) -> u64 {
    sum(message)
        + match coverage {
            Coverage::Message => 0,
            Coverage::Pseudo { source, destination } => {
                address(source) + address(destination) + message.len() as u64 + u64::from(PROTOCOL)
            }
        }
}

fn address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    }
}

/// Sum of big-endian 16-bit words, an odd octet padded with zero on the right.
fn sum(octets: &[u8]) -> u64 {
    octets
        .chunks(2)
        .map(|word| (u64::from(word[0]) << 8) + u64::from(word.get(1).copied().unwrap_or(0)))
        .sum()
}

/// End-around carry until 16 bits are left.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn pseudo(destination: [u8; 4]) -> Coverage {
        Coverage::Pseudo { source: SOURCE.into(), destination: Ipv4Addr::from(destination).into() }
    }

    /// SPEC.md §3, hand check of V2-01.
    #[test]
    fn version_2_covers_message_and_authentication() {
        let mut message = [0; 20];
        message[..12]
            .copy_from_slice(&[0x21, 0x33, 0x64, 0x01, 0x00, 0x01, 0, 0, 0xc0, 0, 0x02, 0x01]);
        assert_eq!(checksum(&message, Coverage::Message), 0xb8c8);
        message[12..].copy_from_slice(b"secret\0\0");
        assert_ne!(checksum(&message, Coverage::Message), 0xb8c8);
    }

    /// SPEC.md §3, hand checks of V3-4-01, V3-4-02 and V3-4-07.
    #[test]
    fn version_3_has_three_readings_over_ipv4() {
        let message = [0x31, 0x33, 0x64, 0x01, 0x00, 0x64, 0, 0, 0xc0, 0, 0x02, 0x01];
        assert_eq!(checksum(&message, Coverage::Message), 0xa865);
        assert_eq!(checksum(&message, pseudo([224, 0, 0, 18])), 0x05d4);
        let message = [0x31, 0x33, 0x64, 0x01, 0x00, 0x0a, 0, 0, 0xc0, 0, 0x02, 0x01];
        assert_eq!(checksum(&message, pseudo([192, 0, 2, 3])), 0x243d);
        assert_eq!(checksum(&message, Coverage::legacy_unicast(SOURCE)), 0x062e);
    }

    #[test]
    fn field_is_taken_as_zero_whatever_it_holds() {
        for field in [[0, 0], [0xff, 0xff], [0xa8, 0x65], [0x12, 0x34]] {
            let mut message = [0x31, 0x33, 0x64, 0x01, 0x00, 0x64, 0, 0, 0xc0, 0, 0x02, 0x01];
            message[FIELD].copy_from_slice(&field);
            assert_eq!(checksum(&message, Coverage::Message), 0xa865);
            assert_eq!(is_valid(&message, Coverage::Message), field == [0xa8, 0x65]);
        }
    }

    /// Words 3133 and cecc add up to ffff, so that the field is zero.
    #[test]
    fn zero_checksum_is_valid_in_both_representations() {
        let mut message = [0x31, 0x33, 0xce, 0xcc, 0, 0, 0, 0];
        assert_eq!(checksum(&message, Coverage::Message), 0);
        assert!(is_valid(&message, Coverage::Message));
        message[FIELD].copy_from_slice(&[0xff, 0xff]);
        assert!(is_valid(&message, Coverage::Message));
    }

    #[test]
    fn odd_octet_is_padded_on_the_right() {
        let odd = [0x31, 0x33, 0x64, 0x01, 0x00, 0x64, 0, 0, 0xab];
        let even = [0x31, 0x33, 0x64, 0x01, 0x00, 0x64, 0, 0, 0xab, 0x00];
        assert_eq!(checksum(&odd, Coverage::Message), checksum(&even, Coverage::Message));
    }
}
