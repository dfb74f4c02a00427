//! What the wire hears of leases that are renewed.
//!
//! Whatever it changes, a request for an IPv6 address makes the kernel join all groups of its
//! interface anew and report them, as if the interface had just come up. No flag and no lifetime
//! avoids that: what is renewed must be something else.

mod namespace;

use std::io::Read;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use locum_kernel::frame_socket::FrameSocket;
use locum_kernel::netlink::{
    AddressSpec, FactRemoval, KernelFact, KernelScope, Netlink, RemovalScope, WantedFacts,
    link_index,
};
use socket2::{Domain, Protocol, Socket, Type};

use namespace::{in_namespace, sysctl, veth_pair};

/// Reports are repeated within a second; on a busy machine a little later.
const QUIET: Duration = Duration::from_secs(2);

/// The kernel answers at once; a busy machine does not.
const ANSWER: Duration = Duration::from_millis(200);
/// Longer than anything here takes, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Where the IPv6 header tells what follows it, and hop-by-hop options the same.
const NEXT_HEADER_AT: usize = 14 + 6;
const OPTIONS_AT: usize = 14 + 40;
const HOP_BY_HOP: u8 = 0;
const ICMPV6: u8 = 58;
/// Behind eight octets of options.
const ICMPV6_KIND_AT: usize = OPTIONS_AT + 8;
const MLD_V2_REPORT: u8 = 143;

/// Hears every IPv6 frame that arrives in this network namespace.
fn listen() -> Socket {
    let protocol = Protocol::from(i32::from(ETHERTYPE_IPV6.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).expect("packet socket");
    socket.set_read_timeout(Some(QUIET)).expect("time limit");
    socket
}

fn is_report(frame: &[u8]) -> bool {
    frame.get(NEXT_HEADER_AT) == Some(&HOP_BY_HOP)
        && frame.get(OPTIONS_AT) == Some(&ICMPV6)
        && frame.get(ICMPV6_KIND_AT) == Some(&MLD_V2_REPORT)
}

/// Reports until nothing has been heard for a while.
fn reports(socket: &Socket) -> usize {
    let (mut count, mut frame) = (0, [0; 2048]);
    let mut socket: &Socket = socket;
    while let Ok(length) = socket.read(&mut frame) {
        count += usize::from(is_report(&frame[..length]));
    }
    count
}

fn host(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host)
}

fn leased(number: u16, seconds: u32) -> [KernelFact; 1] {
    [KernelFact::Address(AddressSpec {
        interface: "left".into(),
        address: host(number).into(),
        prefix: 64,
        broadcast: None,
        label: None,
        scope: KernelScope::Global,
        nodad: true,
        noprefixroute: false,
        valid_seconds: Some(seconds),
    })]
}

/// A netlink whose far end hears everything and says nothing.
fn with_far_end(test: &str, body: impl FnOnce(&mut Netlink) + Send + 'static) {
    in_namespace(test, || {
        veth_pair();
        sysctl("ipv6/conf/right/disable_ipv6", "1");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("runtime");
        let _inside = runtime.enter();
        body(&mut Netlink::connect().expect("netlink"));
    });
}

#[test]
fn a_renewal_of_ipv6_leases_is_not_heard() {
    with_far_end("a_renewal_of_ipv6_leases_is_not_heard", |netlink| {
        let holds: Vec<_> = (1..=100).map(|host| leased(host, 3)).collect();
        let changes: Vec<_> = holds.iter().map(|hold| WantedFacts { hold, drop: &[] }).collect();
        let socket = listen();
        let mut apply = || {
            assert!(netlink.apply_all(&changes).iter().all(Result::is_ok));
        };
        apply();
        let added = reports(&socket);
        assert!(added > 0, "the first time the kernel joins their groups");
        (0..20).for_each(|_| apply());
        assert_eq!(reports(&socket), 0);
    });
}

#[test]
fn an_ipv6_address_whose_lease_is_over_is_answered_for_by_nobody() {
    with_far_end("an_ipv6_address_whose_lease_is_over_is_answered_for_by_nobody", |netlink| {
        let hold = leased(1, 3);
        netlink.apply(&WantedFacts { hold: &hold, drop: &[] }).expect("added");
        assert_eq!(netlink.marked_addresses().expect("dump").len(), 1);
        let (frames, index) =
            (FrameSocket::open().expect("frames"), link_index("right").expect("right"));
        let socket = listen();
        socket.set_read_timeout(Some(ANSWER)).expect("time limit");
        let solicitation = solicitation();
        let is_answered = || {
            assert_eq!(frames.send_batch(&[(index, &solicitation)]).sent, 1);
            let mut frame = [0; 2048];
            let mut socket: &Socket = &socket;
            while let Ok(length) = socket.read(&mut frame) {
                if is_advertisement(&frame[..length]) {
                    return true;
                }
            }
            false
        };
        let wait_until_answered = |wanted: bool| {
            let limit = Instant::now() + PATIENCE;
            while is_answered() != wanted {
                assert!(Instant::now() < limit, "still not {wanted}");
            }
        };
        // The kernel joins the group of the address a moment after it has taken it.
        wait_until_answered(true);
        wait_until_answered(false);
        let left = netlink.marked_addresses().expect("dump");
        assert_eq!(left.len(), 1, "the kernel keeps it for longer");
        assert_eq!(left[0].valid_seconds, Some(0), "and it counts as lost");
        netlink.apply(&WantedFacts { hold: &hold, drop: &[] }).expect("renewed");
        wait_until_answered(true);
        let flushed = std::process::Command::new("nft").args(["flush", "ruleset"]).status();
        assert!(flushed.expect("nft runs").success());
        netlink.apply(&WantedFacts { hold: &hold, drop: &[] }).expect("made anew");
        let left = netlink.marked_addresses().expect("dump")[0].valid_seconds;
        assert!(left.is_some_and(|left| (1..=3).contains(&left)), "{left:?}");
        let drop = [FactRemoval { fact: hold[0].clone(), whose: RemovalScope::Ours }];
        netlink.apply(&WantedFacts { hold: &[], drop: &drop }).expect("removed");
        let tables = std::process::Command::new("nft").args(["list", "tables"]).output();
        assert_eq!(tables.expect("nft runs").stdout, b"", "nothing is left behind");
    });
}

/// From the far end: who has `leased(1)`?
fn solicitation() -> Vec<u8> {
    let (source, target) = (host(0xff), host(1));
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1];
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([1, 1, 2, 0, 0, 0, 0, 9]);
    // INVARIANT: 32 octets.
    let length = u8::try_from(message.len()).expect("short");
    let mut pseudo = [&source.octets()[..], &group, &[0, 0, 0, length, 0, 0, 0, ICMPV6]].concat();
    pseudo.extend(&message);
    let sum: u32 = pseudo.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    message[2..4].copy_from_slice(&(!u16::try_from(sum).expect("folded")).to_be_bytes());
    let mut frame = vec![0x33, 0x33, 0xff, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0, 0, length, ICMPV6, 255]);
    frame.extend(source.octets());
    frame.extend(group);
    frame.extend(message);
    frame
}

fn is_advertisement(frame: &[u8]) -> bool {
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    frame.get(NEXT_HEADER_AT) == Some(&ICMPV6)
        && frame.get(OPTIONS_AT) == Some(&NEIGHBOUR_ADVERTISEMENT)
}
