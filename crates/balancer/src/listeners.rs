//! Which of the kernel's listeners are at an address that somebody listens at, or wants to.

use std::net::SocketAddr;

use locum_kernel::sock_diag::TcpListening;

/// Whether what listens may be in the way of what is wanted; the kernel knows. `::` may listen for
/// IPv4 too, and ours never does.
pub(crate) fn meets(listening: SocketAddr, wanted: SocketAddr) -> bool {
    let (there, ours) = (listening.ip().to_canonical(), wanted.ip().to_canonical());
    let is_one_family = there.is_ipv4() == ours.is_ipv4();
    listening.port() == wanted.port()
        && (there == ours
            || (there.is_unspecified() && (is_one_family || there.is_ipv6()))
            || (ours.is_unspecified() && is_one_family))
}

/// Of these listeners those that clients of `bound` come to: as the kernel finds them, at exactly
/// that address, else at all addresses of its family, else at all of both families.
pub(crate) fn heard_at(bound: SocketAddr, listeners: &[TcpListening]) -> Vec<TcpListening> {
    let address = bound.ip().to_canonical();
    let near = || listeners.iter().filter(|one| meets(one.local, bound)).copied();
    let those = |is_right: &dyn Fn(SocketAddr) -> bool| -> Vec<TcpListening> {
        near().filter(|one| is_right(one.local)).collect()
    };
    let exact = those(&|local| local.ip().to_canonical() == address);
    if !exact.is_empty() {
        return exact;
    }
    let of_family = those(&|local| local.ip().to_canonical().is_ipv4() == address.is_ipv4());
    if of_family.is_empty() { near().collect() } else { of_family }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_meet_at_one_port_and_an_address_that_both_take() {
        for (listening, wanted, expected) in [
            ("10.0.0.1:80", "10.0.0.1:80", true),
            ("10.0.0.1:80", "10.0.0.1:81", false),
            ("10.0.0.1:80", "10.0.0.2:80", false),
            ("0.0.0.0:80", "10.0.0.2:80", true),
            ("10.0.0.1:80", "0.0.0.0:80", true),
            ("[::]:80", "10.0.0.2:80", true),
            ("[::]:80", "[2001:db8::1]:80", true),
            ("[2001:db8::1]:80", "[::]:80", true),
            ("[::ffff:10.0.0.2]:80", "10.0.0.2:80", true),
            // Ours takes IPv6 alone.
            ("10.0.0.1:80", "[::]:80", false),
            ("0.0.0.0:80", "[::]:80", false),
            ("0.0.0.0:80", "[2001:db8::1]:80", false),
        ] {
            let address = |text: &str| text.parse().unwrap();
            let met = meets(address(listening), address(wanted));
            assert_eq!(met, expected, "{listening} {wanted}");
        }
    }

    /// The queues of two listeners at one port are two queues.
    #[test]
    fn clients_of_an_address_come_to_its_own_listener_before_that_of_all() {
        let all = ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "10.0.0.1:80", "10.0.0.1:81"];
        for (bound, listening, expected) in [
            ("[::]:80", &all[..], &["[::]:80"][..]),
            ("0.0.0.0:80", &all[..], &["0.0.0.0:80"]),
            // Each process of one HAProxy has its own.
            ("10.0.0.1:80", &all[..], &["10.0.0.1:80", "10.0.0.1:80"]),
            ("10.0.0.2:80", &all[..], &["0.0.0.0:80"]),
            ("10.0.0.2:80", &all[1..], &["[::]:80"]),
            ("[2001:db8::1]:80", &all[..], &["[::]:80"]),
            ("[2001:db8::1]:80", &all[2..], &[]),
            ("10.0.0.1:82", &all[..], &[]),
        ] {
            let listener = |text: &&str| TcpListening {
                local: text.parse().unwrap(),
                inode: 1,
                waiting: 0,
                room: 128,
            };
            let listening: Vec<_> = listening.iter().map(listener).collect();
            let found = heard_at(bound.parse().unwrap(), &listening);
            let found: Vec<_> = found.iter().map(|one| one.local.to_string()).collect();
            assert_eq!(found, expected, "{bound}");
        }
    }
}
