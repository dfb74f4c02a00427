//! Adverts and frames over a real pair of links, each test in a network namespace of its own.

mod namespace;

use std::io::Read;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use locum_kernel::advert_socket::AdvertSettings;
use locum_kernel::advert_socket::AdvertSocket;
use locum_kernel::advert_socket::Family;
use locum_kernel::advert_socket::Received;
use locum_kernel::frame_socket::FrameSocket;
use locum_kernel::netlink::link_index;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use namespace::connect;
use namespace::in_namespace;
use namespace::ip;
use namespace::sysctl;
use namespace::veth_pair;

const GROUP_V4: &str = "224.0.0.18";
const GROUP_V6: &str = "ff02::12";
const PROTOCOL: u8 = 112;
/// Longer than anything here takes, even on a loaded machine.
const PATIENCE_MS: u16 = 20_000;

/// Both ends are of one host, which normally refuses datagrams from itself.
fn accept_own_addresses() {
    for link in ["all", "left", "right"] {
        sysctl(&format!("ipv4/conf/{link}/rp_filter"), "0");
        sysctl(&format!("ipv4/conf/{link}/accept_local"), "1");
    }
}

fn open(interface: &str, family: Family, group: Option<&str>) -> AdvertSocket {
    AdvertSocket::open(&AdvertSettings {
        interface: interface.into(),
        index: link_index(interface).expect("it exists"),
        family,
        protocol: PROTOCOL,
        groups: group.map(address).into_iter().collect(),
    })
    .expect("opened")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn wait(socket: &AdvertSocket, buffer: &mut [u8]) -> Received {
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut ready, PollTimeout::from(PATIENCE_MS)), Ok(1), "a datagram comes in time");
    socket.recv(buffer).expect("received").expect("there is one")
}

#[test]
fn v_054_v_070_an_ipv4_advert_arrives_with_header_source_and_ttl() {
    in_namespace("v_054_v_070_an_ipv4_advert_arrives_with_header_source_and_ttl", || {
        veth_pair();
        accept_own_addresses();
        ip("addr add 192.0.2.1/24 dev left");
        ip("addr add 192.0.2.2/24 dev right");
        let left = open("left", Family::V4, Some(GROUP_V4));
        let right = open("right", Family::V4, Some(GROUP_V4));
        let mut buffer = [0; 1500];
        for ttl in [255, 1] {
            left.send(address("192.0.2.1"), address(GROUP_V4), ttl, b"message").expect("sent");
            let received = wait(&right, &mut buffer);
            assert_eq!(received.source, address("192.0.2.1"));
            assert_eq!(received.destination, address(GROUP_V4));
            assert_eq!(received.hop_limit, Some(ttl));
            assert!(!received.truncated);
            assert_eq!(received.len, 20 + b"message".len());
            assert_eq!(buffer[0], 0x45);
            assert_eq!(buffer[1], 0xc0, "DSCP CS6");
            assert_eq!(&buffer[20..received.len], b"message");
        }
        assert_eq!(left.recv(&mut buffer).expect("nothing"), None, "no loop to the sender");
    });
}

#[test]
fn v_054_v_071_an_ipv6_advert_arrives_with_hop_limit_and_destination() {
    in_namespace("v_054_v_071_an_ipv6_advert_arrives_with_hop_limit_and_destination", || {
        veth_pair();
        ip("addr add fe80::1/64 dev left nodad");
        ip("addr add fe80::2/64 dev right nodad");
        let left = open("left", Family::V6, Some(GROUP_V6));
        let right = open("right", Family::V6, Some(GROUP_V6));
        let mut buffer = [0; 1500];
        for ttl in [255, 64] {
            left.send(address("fe80::1"), address(GROUP_V6), ttl, b"message").expect("sent");
            let received = wait(&right, &mut buffer);
            assert_eq!(received.source, address("fe80::1"));
            assert_eq!(received.destination, address(GROUP_V6));
            assert_eq!(received.hop_limit, Some(ttl));
            assert!(!received.truncated);
            assert_eq!(&buffer[..received.len], b"message", "without the IP header");
        }
        assert_eq!(left.recv(&mut buffer).expect("nothing"), None, "no loop to the sender");
    });
}

#[test]
fn v_072_a_datagram_longer_than_the_buffer_is_marked() {
    in_namespace("v_072_a_datagram_longer_than_the_buffer_is_marked", || {
        veth_pair();
        ip("addr add fe80::1/64 dev left nodad");
        let left = open("left", Family::V6, None);
        let right = open("right", Family::V6, Some(GROUP_V6));
        left.send(address("fe80::1"), address(GROUP_V6), 255, b"message").expect("sent");
        let received = wait(&right, &mut [0; 4]);
        assert!(received.truncated);
        assert_eq!(received.len, 4);
    });
}

#[test]
fn a_socket_hears_only_its_own_interface_and_group() {
    in_namespace("a_socket_hears_only_its_own_interface_and_group", || {
        veth_pair();
        accept_own_addresses();
        ip("link add other type veth peer name other2");
        connect("other", "other2");
        let left = open("left", Family::V4, None);
        let other = open("other", Family::V4, Some(GROUP_V4));
        let joined = open("right", Family::V4, Some(GROUP_V4));
        let not_joined = open("right", Family::V4, None);
        left.send(address("192.0.2.1"), address(GROUP_V4), 255, b"one").expect("sent");
        wait(&joined, &mut [0; 100]);
        assert_eq!(other.recv(&mut [0; 100]).expect("nothing"), None);
        assert_eq!(not_joined.recv(&mut [0; 100]).expect("nothing"), None);
    });
}

#[test]
fn v_075_a_group_can_be_joined_again_after_the_link_was_down() {
    in_namespace("v_075_a_group_can_be_joined_again_after_the_link_was_down", || {
        veth_pair();
        accept_own_addresses();
        let left = open("left", Family::V4, None);
        let right = open("right", Family::V4, None);
        right.rejoin(address(GROUP_V4)).expect("joined for the first time");
        ip("link set right down");
        // The loss of the link is reported once.
        let _ = right.recv(&mut [0; 100]);
        connect("left", "right");
        right.rejoin(address(GROUP_V4)).expect("joined again");
        left.send(address("192.0.2.1"), address(GROUP_V4), 255, b"one").expect("sent");
        assert_eq!(wait(&right, &mut [0; 100]).len, 23);
        assert!(right.rejoin(address(GROUP_V6)).is_err(), "the other family's group");
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
