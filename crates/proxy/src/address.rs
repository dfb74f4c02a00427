//! Does this node still have an address?

use std::io;
use std::net::{IpAddr, UdpSocket};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};

/// No interface has it. What cannot be told counts as there.
pub fn is_gone(address: IpAddr) -> bool {
    if address.is_loopback() || address.is_unspecified() {
        return false;
    }
    match UdpSocket::bind((address, 0)) {
        Err(error) => error.kind() == io::ErrorKind::AddrNotAvailable,
        // With the ip_nonlocal_bind sysctl every address can be bound, had or not.
        Ok(_) => is_nowhere(address),
    }
}

fn is_nowhere(address: IpAddr) -> bool {
    getifaddrs().is_ok_and(|mut all| all.all(|one| address_of(&one) != Some(address)))
}

fn address_of(interface: &InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_nobody_is_gone_and_those_of_every_node_are_not() {
        let is_gone = |text: &str| is_gone(text.parse().unwrap());
        assert!(is_gone("192.0.2.77"), "a documentation address");
        assert!(is_gone("2001:db8::77"));
        for there in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::"] {
            assert!(!is_gone(there), "{there}");
        }
    }

    /// What stands in for a bind that proves nothing.
    #[test]
    fn an_address_of_nobody_is_nowhere_and_each_of_our_own_is_somewhere() {
        assert!(is_nowhere("192.0.2.77".parse().unwrap()));
        assert!(is_nowhere("2001:db8::77".parse().unwrap()));
        assert!(!is_nowhere("127.0.0.1".parse().unwrap()));
        for address in getifaddrs().unwrap().filter_map(|interface| address_of(&interface)) {
            assert!(!is_nowhere(address), "{address}");
        }
    }

    /// The kernel would send to a second one of a subnet from the first.
    #[test]
    fn each_of_two_addresses_of_one_subnet_is_there_and_a_third_is_not() {
        // The thread has the namespace to itself, and both end.
        let namespace = std::thread::spawn(|| {
            if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
                assert!(std::env::var_os("LOCUM_REQUIRE_LAB").is_none(), "{error}");
                eprintln!("skipped: cannot make a network namespace: {error}");
                return;
            }
            let script = "ip link set lo up && ip address add 192.0.2.10/24 dev lo && \
                          ip address add 192.0.2.11/24 dev lo && sysctl -qw net.ipv4.ip_nonlocal_bind=1";
            let done = std::process::Command::new("sh").args(["-c", script]).status().unwrap();
            assert!(done.success());
            let is_gone = |text: &str| is_gone(text.parse().unwrap());
            assert_eq!(
                ["192.0.2.10", "192.0.2.11", "192.0.2.12"].map(is_gone),
                [false, false, true]
            );
        });
        namespace.join().unwrap();
    }
}
