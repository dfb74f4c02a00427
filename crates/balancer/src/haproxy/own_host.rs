//! What this host is asked about itself: which addresses are its own, and what its sockets do.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use locum_kernel::netlink::is_switched_on;
use locum_kernel::own_links::{OwnLink, own_links};
use locum_kernel::sock_diag::SockDiag;

/// How long what was read holds: an address of the node comes and goes with its role, and an inquiry
/// is asked once a second.
const FRESH: Duration = Duration::from_millis(500);

/// Read when they are asked for, and not more often than that is worth.
#[derive(Debug, Default)]
pub(crate) struct OwnHost {
    /// `None` until there is one to be had: a moment without descriptors passes.
    diag: Option<SockDiag>,
    read_at: Option<Instant>,
    links: Vec<OwnLink>,
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
        self.links(now).iter().any(|link| link.has(address))
    }

    /// Whether a process may listen there: the address is its own, or it lets processes listen at
    /// others. `true` also when nobody can say.
    pub(crate) fn lets_listen(&mut self, address: IpAddr, now: Instant) -> bool {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        let switch = || format!("/proc/sys/net/{family}/ip_nonlocal_bind");
        let has = self.has(address, now) || self.links.is_empty();
        has || is_switched_on(Path::new(&switch()))
    }

    fn links(&mut self, now: Instant) -> &[OwnLink] {
        if self.read_at.is_none_or(|at| now.saturating_duration_since(at) >= FRESH) {
            self.read_at = Some(now);
            self.links = own_links();
        }
        &self.links
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
