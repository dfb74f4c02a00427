//! What a socket delivers, less its IP header. Step V-100 of the validation pipeline.

use std::net::IpAddr;

use pnet::packet::ip::IpNextHeaderProtocol;
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;

use crate::checksum::PROTOCOL;
use crate::discard::Discard;

/// One VRRP datagram as a socket delivered it, without its IP header.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// TTL or hop limit; `None` when the kernel gave none (V-103).
    pub hop_limit: Option<u8>,
    /// The VRRP message: from the version octet on, no padding.
    pub message: &'a [u8],
}

/// Takes off the IPv4 header that a raw socket delivers in front of the message (V-070).
///
/// The message begins where the header length says, options or not, and ends where the total
/// length says: what follows is padding of the link (V-073). The kernel has verified the header
/// checksum and put fragments together.
///
/// # Errors
/// [`Discard::PacketLengthErrors`] when the octets are no IPv4 header, carry another protocol, or
/// are fewer than the total length says (V-100).
pub fn strip_ipv4(bytes: &[u8]) -> Result<Datagram<'_>, Discard> {
    let header = Ipv4Packet::new(bytes).ok_or(Discard::PacketLengthErrors)?;
    let start = usize::from(header.get_header_length()) * 4;
    let end = usize::from(header.get_total_length());
    let sane = header.get_version() == 4
        && start >= Ipv4Packet::minimum_packet_size()
        && header.get_next_level_protocol() == VRRP;
    let message = bytes.get(start..end).filter(|_| sane).ok_or(Discard::PacketLengthErrors)?;
    Ok(Datagram {
        source: IpAddr::from(header.get_source().octets()),
        destination: IpAddr::from(header.get_destination().octets()),
        hop_limit: Some(header.get_ttl()),
        message,
    })
}

/// Takes off an IPv6 header. Raw IPv6 sockets deliver none (V-071); captures do.
///
/// # Errors
/// [`Discard::PacketLengthErrors`] when the octets are no IPv6 header, have an extension header or
/// another protocol next, or are fewer than the payload length says (V-100).
pub fn strip_ipv6(bytes: &[u8]) -> Result<Datagram<'_>, Discard> {
    let header = Ipv6Packet::new(bytes).ok_or(Discard::PacketLengthErrors)?;
    let start = Ipv6Packet::minimum_packet_size();
    let end = start + usize::from(header.get_payload_length());
    let sane = header.get_version() == 6 && header.get_next_header() == VRRP;
    let message = bytes.get(start..end).filter(|_| sane).ok_or(Discard::PacketLengthErrors)?;
    Ok(Datagram {
        source: IpAddr::from(header.get_source().octets()),
        destination: IpAddr::from(header.get_destination().octets()),
        hop_limit: Some(header.get_hop_limit()),
        message,
    })
}

const VRRP: IpNextHeaderProtocol = IpNextHeaderProtocol(PROTOCOL);

#[cfg(test)]
mod tests {
    use super::*;

    /// 192.0.2.2 to 224.0.0.18, TTL 255, one octet of message.
    fn ipv4() -> Vec<u8> {
        let mut bytes = vec![0x45, 0xc0, 0, 21, 0, 0, 0, 0, 255, 112, 0, 0];
        bytes.extend([192, 0, 2, 2, 224, 0, 0, 18, 0x31]);
        bytes
    }

    /// V-073.
    #[test]
    fn padding_after_the_total_length_is_not_message() {
        let mut bytes = ipv4();
        bytes.extend([0; 25]);
        assert_eq!(strip_ipv4(&bytes).unwrap().message, [0x31]);
    }

    /// V-070.
    #[test]
    fn options_before_the_message_are_skipped() {
        let mut bytes = ipv4();
        bytes[0] = 0x46;
        bytes[3] = 25;
        bytes.splice(20..20, [1, 1, 1, 1]);
        assert_eq!(strip_ipv4(&bytes).unwrap().message, [0x31]);
    }

    /// V-100: each octet that makes the header unsound.
    #[test]
    fn unsound_ipv4_header_is_a_length_error() {
        let unsound: [(&str, usize, u8); 6] = [
            ("version 6", 0, 0x65),
            ("header of 16 octets", 0, 0x44),
            ("header longer than the packet", 0, 0x4f),
            ("total length beyond what was received", 3, 22),
            ("total length within the header", 3, 19),
            ("protocol 51", 9, 51),
        ];
        for (what, offset, octet) in unsound {
            let mut bytes = ipv4();
            bytes[offset] = octet;
            assert_eq!(strip_ipv4(&bytes).err(), Some(Discard::PacketLengthErrors), "{what}");
        }
        for length in 0..ipv4().len() {
            let cut = &ipv4()[..length];
            assert_eq!(strip_ipv4(cut).err(), Some(Discard::PacketLengthErrors), "{length}");
        }
    }

    /// V-100.
    #[test]
    fn unsound_ipv6_header_is_a_length_error() {
        let mut sound = vec![0x6c, 0, 0, 0, 0, 1, 112, 255];
        sound.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        sound.extend([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x31]);
        let datagram = strip_ipv6(&sound).unwrap();
        assert_eq!((datagram.hop_limit, datagram.message), (Some(255), &[0x31][..]));
        for (what, offset, octet) in [
            ("version 4", 0, 0x4c),
            ("payload length beyond what was received", 5, 2),
            ("extension header", 6, 0),
        ] {
            let mut bytes = sound.clone();
            bytes[offset] = octet;
            assert_eq!(strip_ipv6(&bytes).err(), Some(Discard::PacketLengthErrors), "{what}");
        }
    }
}
