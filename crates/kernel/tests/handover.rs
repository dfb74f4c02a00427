//! Connections that began at a predecessor go on there, and new ones are ours.
//!
//! ```text
//!   client ── left │ right ── us ──(copies)──► predecessor
//! ```
//!
//! The client is a socket that speaks frames, so that it can say what a client says whose connection
//! another host has.

mod namespace;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use locum_kernel::frame_socket::FrameSocket;
use locum_kernel::netlink::link_index;
use locum_kernel::nftables::{Handovers, Predecessor};
use socket2::{Domain, Protocol, Socket, Type};

use namespace::{in_namespace, ip, sysctl, veth_pair};

const PATIENCE: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(60);
const US: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PREDECESSOR: [u8; 6] = [2, 0, 0, 0, 0, 3];

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;
const PORT: u16 = 8080;

/// Addresses of one family.
#[derive(Clone, Copy)]
struct Net {
    vip: IpAddr,
    client: IpAddr,
    predecessor: IpAddr,
}

const V4: Net = Net {
    vip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
    client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
    predecessor: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3)),
};
const V6: Net = Net {
    vip: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 10)),
    client: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
    // As adverts of IPv6 have it.
    predecessor: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 3)),
};

/// The far end of the cable: the client and the predecessor, frame by frame.
struct Far {
    frames: FrameSocket,
    index: u32,
    heard: Socket,
}

impl Far {
    fn new() -> Self {
        let protocol = Protocol::from(i32::from(0x0003u16.to_be()));
        let heard = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).expect("packet socket");
        heard.set_read_timeout(Some(PATIENCE)).expect("time limit");
        let index = link_index("left").expect("left");
        Self { frames: FrameSocket::open().expect("frame socket"), index, heard }
    }

    /// A segment of the client's.
    fn say(&self, net: Net, port: u16, flags: u8) {
        let frame = frame(net, port, flags);
        let sent = self.frames.send_batch(&[(self.index, &frame)]);
        assert_eq!(sent.sent, 1, "{:?}", sent.failed);
    }

    /// To whom our end sends next about this client port, and the flags.
    fn next(&self, net: Net, port: u16) -> ([u8; 6], u8) {
        self.next_of(net, port).expect("a frame before patience is over")
    }

    /// `None` when nothing comes for as long as the socket waits.
    fn next_of(&self, net: Net, port: u16) -> Option<([u8; 6], u8)> {
        let mut frame = [0; 2048];
        loop {
            let length = (&self.heard).read(&mut frame).ok()?;
            let frame = &frame[..length];
            if frame.get(6..12) != Some(&US) {
                continue;
            }
            let tcp = 14 + header_octets(net);
            let Some(tcp) = frame.get(tcp..) else { continue };
            let ports = [port.to_be_bytes(), PORT.to_be_bytes()];
            let is_about = |from: usize| tcp.get(from..from + 2) == Some(&ports[0]);
            if !(is_about(0) || is_about(2)) || tcp.len() < 20 {
                continue;
            }
            return Some((frame[..6].try_into().expect("six octets"), tcp[13]));
        }
    }
}

fn header_octets(net: Net) -> usize {
    if net.vip.is_ipv4() { 20 } else { 40 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn sum(octets: &[u8]) -> u16 {
    let mut sum: u32 = octets
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

fn frame(net: Net, port: u16, flags: u8) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(port.to_be_bytes());
    tcp.extend(PORT.to_be_bytes());
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let mut pseudo = [octets(net.client), octets(net.vip)].concat();
    pseudo.extend([0, 6, 0, 20]);
    pseudo.extend(&tcp);
    let checksum = sum(&pseudo).to_be_bytes();
    tcp[16..18].copy_from_slice(&checksum);
    let mut frame = [US, CLIENT].concat();
    if net.vip.is_ipv4() {
        frame.extend([0x08, 0x00]);
        let mut header = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
        header.extend(octets(net.client));
        header.extend(octets(net.vip));
        let checksum = sum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&checksum);
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
        frame.extend(octets(net.client));
        frame.extend(octets(net.vip));
    }
    frame.extend(tcp);
    frame
}

/// Our end has the address and somebody who listens there.
fn arrange(net: Net) -> (Far, Socket) {
    veth_pair();
    // The far end speaks by frames only.
    sysctl("ipv6/conf/left/disable_ipv6", "1");
    ip("link set right address 02:00:00:00:00:01");
    let (prefix, family) = if net.vip.is_ipv4() { (24, "-4") } else { (64, "-6") };
    let nodad = if net.vip.is_ipv6() { " nodad" } else { "" };
    ip(&format!("addr add {}/{prefix} dev right{nodad}", net.vip));
    for (address, mac) in
        [(net.client, "02:00:00:00:00:02"), (net.predecessor, "02:00:00:00:00:03")]
    {
        ip(&format!("{family} neigh replace {address} lladdr {mac} dev right"));
    }
    let domain = if net.vip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let listener = Socket::new(domain, Type::STREAM, None).expect("socket");
    listener.bind(&std::net::SocketAddr::from((net.vip, PORT)).into()).expect("address");
    listener.listen(16).expect("listener");
    (Far::new(), listener)
}

fn predecessor(net: Net) -> Predecessor {
    Predecessor { address: net.vip, host: net.predecessor, answers_for: LONG }
}

fn strays_go_to_the_predecessor_and_new_ones_are_ours(net: Net) {
    let (far, _listener) = arrange(net);
    far.say(net, 1000, ACK);
    assert_eq!(far.next(net, 1000), (CLIENT, RST), "nobody knows the connection");
    let mut handover = Handovers::connect();
    handover.begin(&[predecessor(net)]).expect("nftables");
    far.say(net, 1001, ACK);
    assert_eq!(far.next(net, 1001), (PREDECESSOR, ACK), "it goes where it began");
    far.say(net, 1002, SYN);
    assert_eq!(far.next(net, 1002), (CLIENT, SYN | ACK), "a new one is ours");
    far.say(net, 1002, ACK);
    far.say(net, 1003, ACK);
    assert_eq!(far.next(net, 1003).0, PREDECESSOR);
    // The answer to the acknowledgement of ours, which has a wrong number, and nothing copied.
    assert_eq!(far.next(net, 1002).0, CLIENT, "and stays ours");
    handover.forget(&[net.vip]).expect("nftables");
    far.say(net, 1004, ACK);
    assert_eq!(far.next(net, 1004), (CLIENT, RST), "it is over");
}

#[test]
fn connections_of_ipv4_go_on_at_the_predecessor() {
    in_namespace("connections_of_ipv4_go_on_at_the_predecessor", || {
        strays_go_to_the_predecessor_and_new_ones_are_ours(V4);
    });
}

#[test]
fn connections_of_ipv6_go_on_at_the_predecessor() {
    in_namespace("connections_of_ipv6_go_on_at_the_predecessor", || {
        strays_go_to_the_predecessor_and_new_ones_are_ours(V6);
    });
}

#[test]
fn a_handover_ends_by_itself() {
    in_namespace("a_handover_ends_by_itself", || {
        let (far, _listener) = arrange(V4);
        let mut handover = Handovers::connect();
        let short = Predecessor { answers_for: Duration::from_millis(300), ..predecessor(V4) };
        handover.begin(&[short]).expect("nftables");
        far.say(V4, 2000, ACK);
        assert_eq!(far.next(V4, 2000).0, PREDECESSOR);
        // One segment may be lost among so many: it is sent again.
        far.heard.set_read_timeout(Some(Duration::from_millis(20))).expect("time limit");
        let limit = Instant::now() + PATIENCE;
        while {
            far.say(V4, 2001, ACK);
            far.next_of(V4, 2001).is_none_or(|(to, _)| to == PREDECESSOR)
        } {
            assert!(Instant::now() < limit, "it goes on for ever");
        }
    });
}

#[test]
fn whoever_flushes_all_tables_ends_it_and_the_next_one_works() {
    in_namespace("whoever_flushes_all_tables_ends_it_and_the_next_one_works", || {
        let (far, _listener) = arrange(V4);
        let mut handover = Handovers::connect();
        handover.begin(&[predecessor(V4)]).expect("nftables");
        let flushed = std::process::Command::new("nft").args(["flush", "ruleset"]).status();
        assert!(flushed.expect("nft runs").success());
        let other = Predecessor { address: [192, 0, 2, 11].into(), ..predecessor(V4) };
        handover.begin(&[other]).expect("the table is made anew");
        handover.begin(&[predecessor(V4)]).expect("nftables");
        far.say(V4, 1001, ACK);
        assert_eq!(far.next(V4, 1001), (PREDECESSOR, ACK));
    });
}
