//! What the wire hears of leases that are renewed.
//!
//! Whatever it changes, a request for an IPv6 address makes the kernel join all groups of its
//! interface anew and report them, as if the interface had just come up. No flag and no lifetime
//! avoids that. What can be had is one round of reports for all addresses of an interface.

mod namespace;

use std::io::Read;
use std::time::Duration;

use locum_kernel::netlink::{AddressSpec, Change, Fact, Netlink, Scope};
use socket2::{Domain, Protocol, Socket, Type};

use namespace::{in_namespace, sysctl, veth_pair};

/// Reports are repeated within a second; on a busy machine a little later.
const QUIET: Duration = Duration::from_secs(2);

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

fn leased(host: u16) -> [Fact; 1] {
    [Fact::Address(AddressSpec {
        interface: "left".into(),
        address: [0x2001, 0xdb8, 0, 0, 0, 0, 0, host].into(),
        prefix: 64,
        broadcast: None,
        label: None,
        scope: Scope::Global,
        nodad: true,
        noprefixroute: false,
        valid_seconds: Some(60),
    })]
}

#[test]
fn many_ipv6_leases_renewed_together_are_as_quiet_as_one() {
    in_namespace("many_ipv6_leases_renewed_together_are_as_quiet_as_one", || {
        veth_pair();
        // The far end hears and says nothing.
        sysctl("ipv6/conf/right/disable_ipv6", "1");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("runtime");
        let _inside = runtime.enter();
        let mut netlink = Netlink::connect().expect("netlink");
        let holds: Vec<_> = (1..=100).map(leased).collect();
        let changes: Vec<_> = holds.iter().map(|hold| Change { hold, drop: &[] }).collect();
        let socket = listen();
        let mut apply = |changes: &[Change<'_>]| {
            assert!(netlink.apply_all(changes).iter().all(Result::is_ok));
            reports(&socket)
        };
        let _added = apply(&changes);
        let one = apply(&changes[..1]);
        let hundred = apply(&changes);
        println!("reports after renewing one lease: {one}, a hundred leases: {hundred}");
        // Each report lists a part of the groups when they are too many for one frame.
        assert!(hundred <= 4 * one, "{hundred} reports");
    });
}
