//! Adverts and frames over a real pair of links, each test in a network namespace of its own.

mod adverts;
mod namespace;

use std::io::Read;
use std::time::Duration;

use locum_kernel::advert_socket::IpFamily;
use locum_kernel::advert_socket::Outgoing;
use locum_kernel::advert_socket::ReceiveBatch;
use locum_kernel::advert_socket::SendBatch;
use locum_kernel::frame_socket::FrameSocket;
use locum_kernel::netlink::link_index;

use adverts::GROUP_V4;
use adverts::GROUP_V6;
use adverts::accept_own_addresses;
use adverts::address;
use adverts::await_readable;
use adverts::everything;
use adverts::open;
use adverts::read;
use adverts::send;
use adverts::wait;
use namespace::connect;
use namespace::in_namespace;
use namespace::ip;
use namespace::keep_order;
use namespace::veth_pair;

#[test]
fn v_054_v_070_an_ipv4_advert_arrives_with_header_source_and_ttl() {
    in_namespace("v_054_v_070_an_ipv4_advert_arrives_with_header_source_and_ttl", || {
        veth_pair();
        accept_own_addresses();
        ip("addr add 192.0.2.1/24 dev left");
        ip("addr add 192.0.2.2/24 dev right");
        let left = open("left", IpFamily::V4, &[GROUP_V4], everything());
        let right = open("right", IpFamily::V4, &[GROUP_V4], everything());
        for ttl in [255, 1] {
            send(&left, "192.0.2.1", GROUP_V4, ttl, b"message");
            let (received, octets) = wait(&right);
            assert_eq!(received.source, address("192.0.2.1"));
            assert_eq!(received.destination, address(GROUP_V4));
            assert_eq!(received.hop_limit, Some(ttl));
            assert!(!received.truncated);
            assert_eq!(octets[0], 0x45);
            assert_eq!(octets[1], 0xc0, "DSCP CS6");
            assert_eq!(&octets[20..], b"message");
        }
        assert_eq!(read(&left), [], "no loop to the sender");
    });
}

#[test]
fn v_054_v_071_an_ipv6_advert_arrives_with_hop_limit_and_destination() {
    in_namespace("v_054_v_071_an_ipv6_advert_arrives_with_hop_limit_and_destination", || {
        veth_pair();
        ip("addr add fe80::1/64 dev left nodad");
        ip("addr add fe80::2/64 dev right nodad");
        let left = open("left", IpFamily::V6, &[GROUP_V6], everything());
        let right = open("right", IpFamily::V6, &[GROUP_V6], everything());
        for ttl in [255, 64] {
            send(&left, "fe80::1", GROUP_V6, ttl, b"message");
            let (received, octets) = wait(&right);
            assert_eq!(received.source, address("fe80::1"));
            assert_eq!(received.destination, address(GROUP_V6));
            assert_eq!(received.hop_limit, Some(ttl));
            assert!(!received.truncated);
            assert_eq!(octets, b"message", "without the IP header");
        }
        assert_eq!(read(&left), [], "no loop to the sender");
    });
}

#[test]
fn v_072_a_datagram_longer_than_the_buffer_is_marked() {
    in_namespace("v_072_a_datagram_longer_than_the_buffer_is_marked", || {
        veth_pair();
        ip("addr add fe80::1/64 dev left nodad");
        let left = open("left", IpFamily::V6, &[], everything());
        let right = open("right", IpFamily::V6, &[GROUP_V6], everything());
        send(&left, "fe80::1", GROUP_V6, 255, b"message");
        send(&left, "fe80::1", GROUP_V6, 255, b"mess");
        let mut batch = ReceiveBatch::new(4);
        let mut all = Vec::new();
        while all.len() < 2 {
            await_readable(&right);
            right.receive(&mut batch).expect("received");
            all.extend(
                batch.iter().map(|(received, octets)| (received.truncated, octets.to_vec())),
            );
        }
        assert_eq!(all, [(true, b"mess".to_vec()), (false, b"mess".to_vec())]);
    });
}

#[test]
fn a_socket_hears_only_its_own_interface_and_group() {
    in_namespace("a_socket_hears_only_its_own_interface_and_group", || {
        veth_pair();
        accept_own_addresses();
        ip("link add other type veth peer name other2");
        connect("other", "other2");
        let left = open("left", IpFamily::V4, &[], everything());
        let other = open("other", IpFamily::V4, &[GROUP_V4], everything());
        let joined = open("right", IpFamily::V4, &[GROUP_V4], everything());
        let not_joined = open("right", IpFamily::V4, &[], everything());
        send(&left, "192.0.2.1", GROUP_V4, 255, b"one");
        wait(&joined);
        assert_eq!(read(&other), []);
        assert_eq!(read(&not_joined), []);
    });
}

#[test]
fn v_075_a_group_can_be_joined_again_after_the_link_was_down() {
    in_namespace("v_075_a_group_can_be_joined_again_after_the_link_was_down", || {
        veth_pair();
        accept_own_addresses();
        let left = open("left", IpFamily::V4, &[], everything());
        let right = open("right", IpFamily::V4, &[], everything());
        right.rejoin(address(GROUP_V4)).expect("joined for the first time");
        ip("link set right down");
        // The loss of the link is reported once.
        let _ = right.receive(&mut ReceiveBatch::new(100));
        connect("left", "right");
        right.rejoin(address(GROUP_V4)).expect("joined again");
        send(&left, "192.0.2.1", GROUP_V4, 255, b"one");
        assert_eq!(wait(&right).1.len(), 23);
        assert!(right.rejoin(address(GROUP_V6)).is_err(), "the other family's group");
    });
}

/// An instance that speaks by multicast and one that speaks by unicast share the interface's
/// socket: were there one for each, both would get what was sent to the host.
#[test]
fn one_socket_hears_each_datagram_to_its_groups_and_its_host_once() {
    in_namespace("one_socket_hears_each_datagram_to_its_groups_and_its_host_once", || {
        veth_pair();
        accept_own_addresses();
        ip("addr add 192.0.2.2/24 dev right");
        keep_order(&["192.0.2.2"]);
        let other_group = "224.0.0.200";
        let left = open("left", IpFamily::V4, &[], everything());
        let right = open("right", IpFamily::V4, &[GROUP_V4, other_group], everything());
        let destinations = [GROUP_V4, "192.0.2.2", other_group];
        for to in destinations {
            send(&left, "192.0.2.1", to, 255, b"message");
        }
        let heard = destinations.map(|_| wait(&right).0.destination);
        assert_eq!(heard, destinations.map(address));
        assert_eq!(read(&right), [], "each of them once");
    });
}

#[test]
fn a_batch_goes_out_in_order_and_what_cannot_be_sent_does_not_stop_it() {
    let test = "a_batch_goes_out_in_order_and_what_cannot_be_sent_does_not_stop_it";
    in_namespace(test, || {
        veth_pair();
        accept_own_addresses();
        ip("addr add 192.0.2.2/24 dev right");
        ip("addr add fe80::1/64 dev left nodad");
        ip("addr add fe80::2/64 dev right nodad");
        keep_order(&["192.0.2.2", "fe80::2"]);
        let groups = [
            (IpFamily::V4, "192.0.2.1", GROUP_V4, "192.0.2.2"),
            (IpFamily::V6, "fe80::1", GROUP_V6, "fe80::2"),
        ];
        for (family, source, group, host) in groups {
            let left = open("left", family, &[], everything());
            let right = open("right", family, &[group], everything());
            // Longer than one call, groups and hosts mixed, and one of the other family.
            let numbers: Vec<[u8; 1]> = (0..100).map(|number| [number]).collect();
            let messages: Vec<_> = numbers
                .iter()
                .map(|number| Outgoing {
                    source: address(source),
                    destination: match number[0] {
                        50 if family == IpFamily::V4 => address(GROUP_V6),
                        50 => address(GROUP_V4),
                        number if number % 7 == 0 => address(host),
                        _ => address(group),
                    },
                    ttl: 255,
                    message: number,
                })
                .collect();
            let mut failed = Vec::new();
            left.send(&mut SendBatch::default(), &messages, |at, _| failed.push(at));
            assert_eq!(failed, [50]);
            for number in (0..100).filter(|number| *number != 50) {
                let (received, octets) = wait(&right);
                assert_eq!(octets.last(), Some(&number));
                assert_eq!(received.destination, messages[usize::from(number)].destination);
            }
        }
    });
}

#[test]
fn g_024_frames_leave_by_their_device_and_one_bad_index_does_not_stop_the_batch() {
    let test = "g_024_frames_leave_by_their_device_and_one_bad_index_does_not_stop_the_batch";
    in_namespace(test, || {
        veth_pair();
        const LOCAL_EXPERIMENT: u16 = 0x88b5;
        let kind = socket2::Type::RAW;
        let protocol = socket2::Protocol::from(i32::from(LOCAL_EXPERIMENT.to_be()));
        let mut witness =
            socket2::Socket::new(socket2::Domain::PACKET, kind, Some(protocol)).expect("witness");
        witness.set_read_timeout(Some(Duration::from_secs(20))).expect("time limit");

        let frames: Vec<Vec<u8>> = (0..200u8)
            .map(|number| {
                let mut frame = vec![0xff; 6];
                frame.extend([2, 0, 0, 0, 0, 1]);
                frame.extend(LOCAL_EXPERIMENT.to_be_bytes());
                frame.resize(60, number);
                frame
            })
            .collect();
        let left = link_index("left").expect("it exists");
        let index = |number: usize| if number == 100 { 9999 } else { left };
        let list: Vec<_> =
            frames.iter().enumerate().map(|(number, frame)| (index(number), &frame[..])).collect();
        let batch = FrameSocket::open().expect("opened").send_batch(&list);
        assert_eq!(batch.sent, 199);
        assert_eq!(batch.failed.len(), 1);
        assert_eq!(batch.failed[0].0, 100);

        let mut buffer = [0; 100];
        for number in (0..200u8).filter(|number| *number != 100) {
            let length = witness.read(&mut buffer).expect("a frame comes in time");
            assert_eq!(length, 60);
            assert_eq!(buffer[..60], frames[usize::from(number)][..]);
        }
    });
}
