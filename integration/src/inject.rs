//! Bad frames: raw VRRP packets with whatever is wrong with them, and announcements of what is not
//! there.

use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sys::socket::LinkAddr;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::MultiHeaders;
use nix::sys::socket::sendmmsg;
use nix::sys::socket::sendto;

use crate::node::Node;

/// Protocol number of VRRP.
const VRRP: i32 = 112;
/// The group of RFC 9568 §5.1.1.1.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// The group as an Ethernet address (RFC 1112 §6.4).
const GROUP_MAC: [u8; 6] = [0x01, 0x00, 0x5e, 0, 0, 18];
/// How often a second a flood sends a part of its frames.
const TICKS_PER_SECOND: u32 = 1000;

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

    /// The same in version 2 (RFC 2338), once a second, with a password of at most 8 bytes.
    pub fn version_2(vrid: u8, priority: u8, address: Ipv4Addr, password: Option<&str>) -> Self {
        let mut bytes = vec![0x21, vrid, priority, 1, u8::from(password.is_some()), 1, 0, 0];
        bytes.extend(address.octets());
        let mut data = [0; 8];
        let password = password.unwrap_or_default().as_bytes();
        data[..password.len()].copy_from_slice(password);
        bytes.extend(data);
        let mut forged = Self { bytes, ttl: 255 };
        forged.fix_checksum_of_message();
        forged
    }

    /// The whole Ethernet frame to the group.
    fn frame(&self, mac: [u8; 6], source: Ipv4Addr) -> Vec<u8> {
        let length = u16::try_from(20 + self.bytes.len()).expect("a message that fits a packet");
        let mut header = vec![0x45, 0xc0];
        header.extend(length.to_be_bytes());
        header.extend([0, 0, 0x40, 0, self.ttl, 112, 0, 0]);
        header.extend(source.octets());
        header.extend(GROUP.octets());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [&GROUP_MAC[..], &mac, &[0x08, 0x00], &header, &self.bytes].concat()
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
    send_many(node, source, forged, 1);
}

/// The same as often as is said, as fast as the sender's host can.
pub fn send_many(node: &Node, source: Ipv4Addr, forged: &Forged, count: u64) {
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
        let group = SocketAddrV4::new(GROUP, 0).into();
        for _ in 0..count {
            socket.send_to(&forged.bytes, &group).expect("cannot send a forged advert");
        }
    });
}

/// Sends a gratuitous ARP request for `address` from `eth0` of `node`, whether it has it or not.
pub fn announce(node: &Node, address: Ipv4Addr) {
    node.in_network(|| {
        let link = link_of_eth0();
        let mac = link.addr().expect("an Ethernet address");
        // Ethernet header of RFC 894, then ARP of RFC 826 as RFC 5227 §3 wants it.
        let mut frame = vec![0xff; 6];
        frame.extend(mac);
        frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
        frame.extend(mac);
        frame.extend(address.octets());
        frame.extend([0; 6]);
        frame.extend(address.octets());
        let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None)
            .expect("cannot open a packet socket");
        sendto(socket.as_raw_fd(), &frame, &link, MsgFlags::empty())
            .expect("cannot send an announcement");
    });
}

/// Frames that are sent again and again, as fast as a packet socket takes them.
pub struct Flood {
    socket: socket2::Socket,
    link: LinkAddr,
    frames: Vec<Vec<u8>>,
}

impl Flood {
    /// Of messages, each from its source address, all from the link address of `eth0` of `node`.
    pub fn of(node: &Node, messages: &[(Ipv4Addr, Forged)]) -> Self {
        node.in_network(|| {
            let link = link_of_eth0();
            let mac = link.addr().expect("an Ethernet address");
            let frames = messages.iter().map(|(source, forged)| forged.frame(mac, *source));
            let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None)
                .expect("cannot open a packet socket");
            Self { socket, link, frames: frames.collect() }
        })
    }

    /// Sends `rate` frames a second for as long as `period`, in turn; how many a second it were.
    pub fn send(&self, rate: u32, period: Duration) -> f64 {
        let per_tick = usize::try_from(rate / TICKS_PER_SECOND).unwrap_or(1).max(1);
        let mut headers = MultiHeaders::preallocate(per_tick, None);
        let addresses = vec![Some(self.link); per_tick];
        let mut frames = self.frames.iter().cycle();
        let (start, mut sent) = (Instant::now(), 0_usize);
        let mut due = start;
        while start.elapsed() < period {
            let batch: Vec<[IoSlice<'_>; 1]> =
                frames.by_ref().take(per_tick).map(|frame| [IoSlice::new(frame)]).collect();
            let fd = self.socket.as_raw_fd();
            let flags = MsgFlags::empty();
            // What the device has no room for is not counted.
            sent += sendmmsg(fd, &mut headers, &batch, &addresses, [], flags)
                .map_or(0, Iterator::count);
            due += Duration::from_secs(1) / TICKS_PER_SECOND;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        sent as f64 / start.elapsed().as_secs_f64()
    }
}

fn link_of_eth0() -> LinkAddr {
    let links = nix::ifaddrs::getifaddrs().expect("cannot list links");
    let link = links.filter(|entry| entry.interface_name == "eth0");
    let link = link.filter_map(|entry| entry.address?.as_link_addr().copied()).next();
    link.expect("eth0 has a link address")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture;

    #[test]
    fn a_forged_frame_is_an_advert_with_a_correct_header() {
        let (source, vip) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 9));
        let frame = Forged::version_2(51, 254, vip, Some("wrong")).frame([2; 6], source);
        let Some(capture::Kind::Advert(advert)) = capture::decode(&frame) else {
            panic!("{frame:?}")
        };
        assert_eq!((advert.version, advert.vrid, advert.priority), (2, 51, 254));
        assert_eq!((advert.source, advert.mac), (source.into(), [2; 6]));
        assert_eq!((checksum(&frame[14..34]), checksum(&frame[34..])), (0, 0));
    }
}
