//! What inquiries ask this host itself: which addresses are its own, and what its sockets do.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use locum_kernel::sock_diag::SockDiag;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

/// How long what was read holds: an address of the node comes and goes with its role, and an inquiry
/// is asked once a second.
const FRESH: Duration = Duration::from_millis(500);

/// Read when they are asked for, and not more often than that is worth.
#[derive(Debug, Default)]
pub(super) struct OwnHost {
    /// `None` until there is one to be had: a moment without descriptors passes.
    diag: Option<SockDiag>,
    read_at: Option<Instant>,
    addresses: Vec<IpAddr>,
    /// Of loopback interfaces, which have all addresses of their networks.
    networks: Vec<(IpAddr, IpAddr)>,
}

impl OwnHost {
    pub(super) fn diag(&mut self) -> Option<&mut SockDiag> {
        self.diag_by(SockDiag::open)
    }

    fn diag_by(&mut self, open: impl FnOnce() -> io::Result<SockDiag>) -> Option<&mut SockDiag> {
        if self.diag.is_none() {
            self.diag = open().ok();
        }
        self.diag.as_mut()
    }

    /// Whether this address is its own; false when nobody can say.
    pub(super) fn has(&mut self, address: IpAddr, now: Instant) -> bool {
        if self.read_at.is_none_or(|at| now.saturating_duration_since(at) >= FRESH) {
            self.read_at = Some(now);
            self.read();
        }
        self.addresses.contains(&address)
            || self
                .networks
                .iter()
                .any(|(network, mask)| masked(*network, *mask) == masked(address, *mask))
    }

    fn read(&mut self) {
        self.addresses.clear();
        self.networks.clear();
        for one in getifaddrs().into_iter().flatten() {
            let Some(address) = one.address.as_ref().and_then(ip) else { continue };
            self.addresses.push(address);
            if one.flags.contains(InterfaceFlags::IFF_LOOPBACK)
                && let Some(mask) = one.netmask.as_ref().and_then(ip)
            {
                self.networks.push((address, mask));
            }
        }
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// `None` for a mask of the other family.
fn masked(address: IpAddr, mask: IpAddr) -> Option<u128> {
    match (address, mask) {
        (IpAddr::V4(address), IpAddr::V4(mask)) => {
            Some(u128::from(address.to_bits() & mask.to_bits()))
        }
        (IpAddr::V6(address), IpAddr::V6(mask)) => Some(address.to_bits() & mask.to_bits()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_networks_are_here_and_documentation_addresses_are_not() {
        let mut host = OwnHost::default();
        let mut contain = |text: &str| host.has(text.parse().unwrap(), Instant::now());
        assert!(contain("127.0.0.1"));
        assert!(contain("127.250.3.4"));
        assert!(!contain("192.0.2.77"));
        assert!(!contain("2001:db8::77"));
    }

    #[test]
    fn sockets_are_asked_again_after_a_moment_without_descriptors() {
        let mut host = OwnHost::default();
        let shortage = || Err(io::Error::from_raw_os_error(nix::libc::EMFILE));
        assert!(host.diag_by(shortage).is_none());
        assert!(host.diag().is_some());
        assert!(host.diag_by(shortage).is_some(), "it is kept");
    }
}
