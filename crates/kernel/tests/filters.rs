//! Which datagrams reach a socket, over a real pair of links, each test in a network namespace of
//! its own.

mod adverts;
mod namespace;

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use locum_kernel::advert_socket::AdvertSettings;
use locum_kernel::advert_socket::AdvertSocket;
use locum_kernel::advert_socket::Filter;
use locum_kernel::advert_socket::IpFamily;
use locum_kernel::advert_socket::Outgoing;
use locum_kernel::advert_socket::SendBatch;
use locum_kernel::advert_socket::filter::Foreign;
use locum_kernel::advert_socket::filter::MessageKind;
use locum_kernel::advert_socket::filter::Ours;
use locum_kernel::advert_socket::filter::Sources;

use adverts::GROUP_V4;
use adverts::GROUP_V6;
use adverts::Tested;
use adverts::accept_own_addresses;
use adverts::address;
use adverts::everything;
use adverts::open;
use adverts::opened;
use adverts::read;
use adverts::send;
use adverts::settings;
use adverts::wait;
use namespace::in_namespace;
use namespace::ip;
use namespace::veth_pair;

/// Source, another source, group and the receiving host of each family.
const PLACES: [(IpFamily, [&str; 4]); 2] = [
    (IpFamily::V4, ["192.0.2.1", "192.0.2.3", GROUP_V4, "192.0.2.2"]),
    (IpFamily::V6, ["fe80::1", "fe80::3", GROUP_V6, "fe80::2"]),
];

/// What is for a router of version 3 with VRID 51.
const MESSAGE: [u8; 12] = [0x31, 51, 100, 1, 0, 100, 0, 0, 192, 0, 2, 10];

fn cable() {
    veth_pair();
    accept_own_addresses();
    ip("addr add 192.0.2.2/24 dev right");
    ip("addr add fe80::2/64 dev right nodad");
    // IPv4 sends from any source; IPv6 only from those it has.
    for source in ["fe80::1", "fe80::3", "fe80::4", "fe81::1"] {
        ip(&format!("addr add {source}/64 dev left nodad"));
    }
}

fn ours() -> Ours {
    Ours {
        kinds: vec![kind(0x21, &[52]), kind(0x31, &[51, 200])],
        least_octets: 8,
        group_hop_limit: 255,
        unicast_hop_limit: Some(254),
        checksum_protocol: None,
    }
}

fn kind(first: u8, seconds: &[u8]) -> MessageKind {
    MessageKind { first, seconds: seconds.iter().copied().collect(), secret: None }
}

/// So rarely let in that no test sees a foreign one.
fn only_ours() -> Filter {
    let foreign = Foreign::Sample { ours: ours(), one_in: u32::MAX };
    Filter { sources: Sources::Any, foreign }
}

fn changed(at: usize, octet: u8) -> Vec<u8> {
    let mut message = MESSAGE.to_vec();
    message[at] = octet;
    message
}

/// All that was sent before a last one of ours.
fn read_until_last(tested: &Tested) -> Vec<(u8, Vec<u8>)> {
    const LAST: u8 = 200;
    let mut all = Vec::new();
    loop {
        let (received, octets) = wait(tested);
        let message = if received.source.is_ipv4() { &octets[20..] } else { &octets[..] };
        if message.get(1) == Some(&LAST) {
            return all;
        }
        all.push((received.hop_limit.expect("known"), message.to_vec()));
    }
}

#[test]
fn foreign_datagrams_die_in_the_kernel() {
    in_namespace("foreign_datagrams_die_in_the_kernel", || {
        cable();
        for (family, [source, _, group, host]) in PLACES {
            let left = open("left", family, &[], everything());
            let witness = open("right", family, &[group], everything());
            let filtered = open("right", family, &[group], only_ours());
            let cases = [
                ("ours", group, 255, MESSAGE.to_vec(), true),
                (
                    "of version 2",
                    group,
                    255,
                    {
                        let mut m = changed(0, 0x21);
                        m[1] = 52;
                        m
                    },
                    true,
                ),
                ("ours by unicast, one hop", host, 254, MESSAGE.to_vec(), true),
                ("another VRID", group, 255, changed(1, 52), false),
                ("another version", group, 255, changed(0, 0x21), false),
                ("another type", group, 255, changed(0, 0x32), false),
                ("one hop away", group, 254, MESSAGE.to_vec(), false),
                ("two hops away by unicast", host, 253, MESSAGE.to_vec(), false),
                ("too short", group, 255, MESSAGE[..7].to_vec(), false),
                ("one octet", group, 255, MESSAGE[..1].to_vec(), false),
            ];
            for (_, destination, ttl, message, _) in &cases {
                send(&left, source, destination, *ttl, message);
            }
            send(&left, source, group, 255, &changed(1, 200));
            let expected = |all: bool| -> Vec<_> {
                let passing = cases.iter().filter(|case| all || case.4);
                passing.map(|case| (case.2, case.3.clone())).collect()
            };
            assert_eq!(read_until_last(&filtered), expected(false));
            let mut seen = cases.iter();
            loop {
                let (received, octets) = wait(&witness);
                let Some((what, .., passes)) = seen.next() else { break };
                assert_eq!(ours().include(family, &received, &octets), *passes, "{what}");
            }
        }
    });
}

/// With the pseudo header of the family, or over the message alone.
#[test]
fn a_wrong_checksum_is_foreign() {
    in_namespace("a_wrong_checksum_is_foreign", || {
        cable();
        for (family, [source, _, group, _]) in PLACES {
            let left = open("left", family, &[], everything());
            let ours = Ours { checksum_protocol: Some(112), ..ours() };
            let foreign = Foreign::Sample { ours, one_in: u32::MAX };
            let filter = Filter { sources: Sources::Any, foreign };
            let right = open("right", family, &[group], filter);
            let octets = |text| match address(text) {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            let mut pseudo = [octets(source), octets(group)].concat();
            pseudo.extend([0, 112, 0, MESSAGE.len() as u8]);
            let summed = [&pseudo[..], &[]].map(|covered| with_checksum(&MESSAGE, covered));
            for message in &summed {
                send(&left, source, group, 255, message);
                for at in 2..message.len() {
                    let mut wrong = message.clone();
                    wrong[at] ^= 0x10;
                    send(&left, source, group, 255, &wrong);
                }
            }
            send(&left, source, group, 255, &with_checksum(&changed(1, 200), &pseudo));
            let heard: Vec<_> = read_until_last(&right).into_iter().map(|heard| heard.1).collect();
            assert_eq!(heard, summed);
        }
    });
}

/// RFC 1071, over what is given first and the message.
fn with_checksum(message: &[u8], covered: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[6..8].fill(0);
    let pairs = covered.chunks(2).chain(message.chunks(2));
    let mut sum: u32 = pairs.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    message[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    message
}

#[test]
fn a_filter_is_replaced_while_datagrams_arrive() {
    in_namespace("a_filter_is_replaced_while_datagrams_arrive", || {
        cable();
        for (family, [source, _, group, _]) in PLACES {
            let left = open("left", family, &[], everything());
            let right = open("right", family, &[group], only_ours());
            for filter in [everything(), only_ours()] {
                let is_lax = filter == everything();
                right.attach(&filter).expect("attached");
                send(&left, source, group, 255, &changed(1, 1));
                send(&left, source, group, 255, &changed(1, 200));
                assert_eq!(read_until_last(&right).len(), usize::from(is_lax));
            }
        }
    });
}

/// A socket that is being opened hears every interface and everything, before it is bound.
#[test]
fn nothing_foreign_is_received_however_early_it_comes() {
    in_namespace("nothing_foreign_is_received_however_early_it_comes", || {
        cable();
        for (family, [source, _, group, _]) in PLACES {
            let left = open("left", family, &[], everything()).socket;
            // Joined for good, so that the host takes what is sent to the group.
            let _joined = open("right", family, &[group], only_ours());
            let ended = AtomicBool::new(false);
            let foreign = changed(1, 1);
            let message = Outgoing {
                source: address(source),
                destination: address(group),
                ttl: 255,
                message: &foreign,
            };
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut batch = SendBatch::default();
                    while !ended.load(Ordering::Relaxed) {
                        left.send(&mut batch, &[message; 16], |_, _| {});
                    }
                });
                let heard: usize = (0..200)
                    .map(|_| read(&open("right", family, &[group], only_ours())).len())
                    .sum();
                ended.store(true, Ordering::Relaxed);
                assert_eq!(heard, 0);
            });
        }
    });
}

#[test]
fn two_sockets_share_what_arrives_by_its_source() {
    in_namespace("two_sockets_share_what_arrives_by_its_source", || {
        cable();
        for (family, [source, other, group, _]) in PLACES {
            let left = open("left", family, &[], everything());
            let listed = vec![address(other), address("192.0.2.99"), address(source)];
            let filter = |sources| Filter { sources, ..only_ours() };
            let only = open("right", family, &[group], filter(Sources::Only(listed.clone())));
            let except = open("right", family, &[group], filter(Sources::Except(listed)));
            let strangers = match family {
                IpFamily::V4 => ["192.0.2.4", "192.1.2.1"],
                IpFamily::V6 => ["fe80::4", "fe81::1"],
            };
            for from in [source, other, strangers[0], strangers[1]] {
                send(&left, from, group, 255, &MESSAGE);
                send(&left, from, group, 255, &changed(1, 1));
            }
            let heard = |tested: &Tested| [wait(tested).0.source, wait(tested).0.source];
            assert_eq!(heard(&only), [source, other].map(address));
            assert_eq!(heard(&except), strangers.map(address));
            assert_eq!((read(&only), read(&except)), (Vec::new(), Vec::new()));
        }
    });
}

/// Valid adverts from changing sources fill one socket's buffer; the master's have their own.
#[test]
fn the_adverts_of_a_known_master_are_not_crowded_out() {
    const FLOOD: u16 = 2000;
    const ADVERTS: usize = 20;
    in_namespace("the_adverts_of_a_known_master_are_not_crowded_out", || {
        cable();
        let left = open("left", IpFamily::V4, &[], everything());
        let master = vec![address("192.0.2.3")];
        let open = |sources| {
            let filter = Filter { sources, ..only_ours() };
            opened(&AdvertSettings {
                receive_buffer: 64 * 1024,
                ..settings("right", IpFamily::V4, &[GROUP_V4], filter)
            })
        };
        let one_for_all = open(Sources::Any);
        let masters = open(Sources::Only(master.clone()));
        let others = open(Sources::Except(master.clone()));
        let flood = |socket: &AdvertSocket| {
            for number in 0..FLOOD {
                let [high, low] = number.to_be_bytes();
                send(socket, &format!("10.0.{high}.{low}"), GROUP_V4, 255, &MESSAGE);
            }
        };
        flood(&left);
        for _ in 0..ADVERTS {
            send(&left, "192.0.2.3", GROUP_V4, 255, &MESSAGE);
        }
        for _ in 0..ADVERTS {
            assert_eq!(wait(&masters).0.source, master[0]);
        }
        assert_eq!(read(&masters), []);
        let of_master = |tested: &Tested| {
            read(tested).iter().filter(|(received, _)| received.source == master[0]).count()
        };
        assert_eq!(of_master(&others), 0, "nothing twice");
        assert!(of_master(&one_for_all) < ADVERTS, "the flood was none");
    });
}
