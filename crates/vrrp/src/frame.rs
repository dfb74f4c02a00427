//! Ethernet frames that tell a link where an address lives now: gratuitous ARP and unsolicited
//! neighbour advertisement. RFC 9568 §8.1.2 and §8.2.2, RFC 5227, RFC 4861 §4.4, SPEC.md §14.
//!
//! Whole frames, because they leave by a packet socket: tentative addresses, duplicate address
//! detection and missing routes cannot hold them back (G-008).

use std::net::{Ipv4Addr, Ipv6Addr};

use pnet::packet::Packet;
use pnet::packet::arp::{Arp, ArpHardwareTypes, ArpOperations, ArpPacket, MutableArpPacket};
use pnet::packet::ethernet::{
    EtherType, EtherTypes, Ethernet, EthernetPacket, MutableEthernetPacket,
};
use pnet::packet::icmpv6::ndp::{
    Icmpv6Codes, MutableNeighborAdvertPacket, NdpOption, NdpOptionTypes, NeighborAdvert,
    NeighborAdvertFlags, NeighborAdvertPacket,
};
use pnet::packet::icmpv6::{Icmpv6Packet, Icmpv6Types, checksum};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv6::{Ipv6, Ipv6Packet, MutableIpv6Packet};
use pnet::util::MacAddr;

/// A hardware address.
pub type Mac = [u8; 6];

/// The forms of a gratuitous ARP. Sender and target address are the virtual address in all.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ArpForm {
    /// Request, target hardware address broadcast: keepalived, FRR, holo (G-003).
    #[default]
    RequestBroadcast,
    /// Request, target hardware address zero: RFC 5227.
    RequestZero,
    /// Request, target hardware address the announced one: RFC 9568 §8.1.2 with errata 7947, 7949.
    RequestSelf,
    /// Reply, target hardware address the announced one, the only reply Linux counts as gratuitous:
    /// for hosts that learn from nothing else (G-004).
    Reply,
}

/// What the R flag of a neighbour advertisement says of its sender (G-006).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Speaker {
    /// Forwards IPv6.
    Router,
    Host,
}

/// Gratuitous ARP for `address`, which now lives at `mac`: a frame of 42 octets to everybody
/// (G-001, G-002). The device pads it.
///
/// ```text
///  0         6         12     14       22          28         32          38         42
/// +---------+---------+------+--------+-----------+----------+-----------+----------+
/// | ff × 6  |   mac   | 0806 | 1 0800 | sender    | sender   | target    | target   |
/// |         |         |      | 6 4 op | mac       | address  | by form   | address  |
/// +---------+---------+------+--------+-----------+----------+-----------+----------+
/// ```
pub fn gratuitous_arp(mac: Mac, address: Ipv4Addr, form: ArpForm) -> Vec<u8> {
    let sender = MacAddr::from(mac);
    let (operation, target) = match form {
        ArpForm::RequestBroadcast => (ArpOperations::Request, MacAddr::broadcast()),
        ArpForm::RequestZero => (ArpOperations::Request, MacAddr::zero()),
        ArpForm::RequestSelf => (ArpOperations::Request, sender),
        ArpForm::Reply => (ArpOperations::Reply, sender),
    };
    let mut body = [0; ArpPacket::minimum_packet_size()];
    // INVARIANT: the buffer has the size this packet asks for.
    let mut packet = MutableArpPacket::new(&mut body).expect("buffer of an ARP packet");
    packet.populate(&Arp {
        hardware_type: ArpHardwareTypes::Ethernet,
        protocol_type: EtherTypes::Ipv4,
        hw_addr_len: 6,
        proto_addr_len: 4,
        operation,
        sender_hw_addr: sender,
        sender_proto_addr: address.octets().into(),
        target_hw_addr: target,
        target_proto_addr: address.octets().into(),
        payload: Vec::new(),
    });
    ethernet(MacAddr::broadcast(), sender, EtherTypes::Arp, body.to_vec())
}

/// Unsolicited neighbour advertisement for `address`, which now lives at `mac`: a frame of 86
/// octets to all nodes, S clear and O set, with the target link-layer address (G-006, G-007).
///
/// ```text
///  0         6         12     14             54    58      62        78     80     86
/// +---------+---------+------+--------------+-----+-------+---------+------+------+
/// | 33 33 0 |   mac   | 86dd | IPv6 header  | 136 | R S O | address | 2  1 | mac  |
/// | 0  0  1 |         |      | → ff02::1    | 0 ✓ |       |         |      |      |
/// +---------+---------+------+--------------+-----+-------+---------+------+------+
/// ```
pub fn neighbor_advertisement(mac: Mac, address: Ipv6Addr, speaker: Speaker) -> Vec<u8> {
    let sender = MacAddr::from(mac);
    let router_flag = match speaker {
        Speaker::Router => NeighborAdvertFlags::Router,
        Speaker::Host => 0,
    };
    let mut body = [0; NeighborAdvertPacket::minimum_packet_size() + LINK_LAYER_OPTION_LENGTH];
    // INVARIANT: the buffer is larger than the smallest packet of this kind.
    let mut packet = MutableNeighborAdvertPacket::new(&mut body).expect("buffer of an NA");
    packet.populate(&NeighborAdvert {
        icmpv6_type: Icmpv6Types::NeighborAdvert,
        icmpv6_code: Icmpv6Codes::NoCode,
        checksum: 0,
        flags: router_flag | NeighborAdvertFlags::Override,
        reserved: 0,
        target_addr: address.octets().into(),
        options: vec![NdpOption {
            option_type: NdpOptionTypes::TargetLLAddr,
            length: 1,
            data: mac.to_vec(),
        }],
        payload: Vec::new(),
    });
    // INVARIANT: an NA is longer than the smallest ICMPv6 packet.
    let icmp = Icmpv6Packet::new(packet.packet()).expect("buffer of an NA");
    let sum = checksum(&icmp, &address.octets().into(), &ALL_NODES.octets().into());
    packet.set_checksum(sum);
    ethernet(ALL_NODES_MAC, sender, EtherTypes::Ipv6, ipv6(address, &body))
}

/// ICMPv6 from `source` to all nodes, hop limit 255 as RFC 4861 §7.1.2 demands.
fn ipv6(source: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut octets = vec![0; Ipv6Packet::minimum_packet_size() + payload.len()];
    // INVARIANT: the buffer is as long as the smallest packet of this kind or longer.
    let mut packet = MutableIpv6Packet::new(&mut octets).expect("buffer of an IPv6 packet");
    packet.populate(&Ipv6 {
        version: 6,
        traffic_class: 0,
        flow_label: 0,
        payload_length: payload.len() as u16,
        next_header: IpNextHeaderProtocols::Icmpv6,
        hop_limit: u8::MAX,
        source: source.octets().into(),
        destination: ALL_NODES.octets().into(),
        payload: payload.to_vec(),
    });
    octets
}

fn ethernet(
    destination: MacAddr,
    source: MacAddr,
    ethertype: EtherType,
    payload: Vec<u8>,
) -> Vec<u8> {
    let mut octets = vec![0; EthernetPacket::minimum_packet_size() + payload.len()];
    // INVARIANT: the buffer is as long as the smallest packet of this kind or longer.
    let mut packet = MutableEthernetPacket::new(&mut octets).expect("buffer of a frame");
    packet.populate(&Ethernet { destination, source, ethertype, payload });
    octets
}

/// ff02::1, all nodes of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Its Ethernet address. RFC 2464 §7.
const ALL_NODES_MAC: MacAddr = MacAddr(0x33, 0x33, 0, 0, 0, 1);

/// Type, length, six octets of address. RFC 4861 §4.6.1.
const LINK_LAYER_OPTION_LENGTH: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

    /// G-001, G-003; the frame of vector ARP-05.
    #[test]
    fn default_arp_is_a_broadcast_request_for_the_address_itself() {
        let frame = gratuitous_arp(MAC, Ipv4Addr::new(192, 0, 2, 1), ArpForm::default());
        #[rustfmt::skip]
        assert_eq!(frame, [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 0x08, 0x06,
            0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x01,
            0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 192, 0, 2, 1,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 192, 0, 2, 1,
        ]);
    }

    /// G-006: only the R flag says who speaks; S is never set and O always.
    #[test]
    fn host_and_router_differ_in_the_router_flag() {
        let address = "2001:db8::1".parse().unwrap();
        let flags = |speaker| neighbor_advertisement(MAC, address, speaker)[58];
        assert_eq!(flags(Speaker::Router), 0b1010_0000);
        assert_eq!(flags(Speaker::Host), 0b0010_0000);
    }

    /// G-007.
    #[test]
    fn neighbor_advertisement_ends_with_the_target_link_layer_address() {
        let frame = neighbor_advertisement(MAC, "fe80::1".parse().unwrap(), Speaker::Host);
        assert_eq!(frame.len(), 86);
        assert_eq!(frame[78..80], [2, 1]);
        assert_eq!(frame[80..], MAC);
    }
}
