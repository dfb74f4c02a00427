//! Bad adverts: raw VRRP packets with whatever is wrong with them.

use std::net::Ipv4Addr;
use std::net::SocketAddrV4;

use crate::node::Node;

/// Protocol number of VRRP.
const VRRP: i32 = 112;
/// The group of RFC 9568 §5.1.1.1.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// A VRRP version 3 message for IPv4, correct but for what a test changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forged {
    /// Everything after the IP header.
    pub bytes: Vec<u8>,
    /// 255, or the kernel of the receiver must refuse it.
    pub ttl: u8,
}

impl Forged {
    /// A correct one: checksum over pseudo-header and message, as keepalived wants it.
    pub fn correct(source: Ipv4Addr, vrid: u8, priority: u8, address: Ipv4Addr) -> Self {
        let mut bytes = vec![0x31, vrid, priority, 1, 0, 100, 0, 0];
        bytes.extend(address.octets());
        let mut forged = Self { bytes, ttl: 255 };
        forged.fix_checksum(source);
        forged
    }

    /// Makes the checksum right again after a change of the bytes.
    pub fn fix_checksum(&mut self, source: Ipv4Addr) {
        self.bytes[6..8].fill(0);
        let length = u16::try_from(self.bytes.len()).expect("a message that fits a packet");
        let mut covered = Vec::new();
        covered.extend(source.octets());
        covered.extend(GROUP.octets());
        covered.extend([0, 112]);
        covered.extend(length.to_be_bytes());
        covered.extend(&self.bytes);
        let sum = checksum(&covered);
        self.bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    }

    /// The same over the message alone, password included, as version 2 wants it (RFC 2338 §5.3.8).
    pub fn fix_checksum_of_message(&mut self) {
        self.bytes[6..8].fill(0);
        let sum = checksum(&self.bytes);
        self.bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Sends a message to the group from `eth0` of `node`, whose address there is `source`.
pub fn send(node: &Node, source: Ipv4Addr, forged: &Forged) {
    node.in_network(|| {
        let socket = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::RAW,
            Some(socket2::Protocol::from(VRRP)),
        )
        .expect("cannot open a raw socket");
        socket.set_multicast_if_v4(&source).expect("cannot choose the interface");
        socket.set_multicast_ttl_v4(u32::from(forged.ttl)).expect("cannot set the TTL");
        socket.set_multicast_loop_v4(false).expect("cannot switch the loop off");
        socket
            .send_to(&forged.bytes, &SocketAddrV4::new(GROUP, 0).into())
            .expect("cannot send a forged advert");
    });
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // INVARIANT: the loop above left 16 bits.
    !u16::try_from(sum).expect("folded")
}
