//! Addresses put on and taken off interfaces, and what links and addresses do.
//!
//! ```text
//!   apply(hold, drop) ──► Netlink ──► request socket ──► kernel
//!                                                          │
//!   next() ◄── Monitor ◄── multicast socket ◄──────────────┘
//! ```
//!
//! An address is *ours* when it carries our [`MARK`]. An address that exists without it is never
//! renewed, changed or removed.

mod address;
mod apply;
mod ledger;
mod links;
mod monitor;
mod plan;

pub use address::AddressSpec;
pub use address::MARK;
pub use address::Marked;
pub use address::Scope;
pub use apply::Action;
pub use apply::ApplyError;
pub use apply::Failure;
pub use apply::Netlink;
pub use links::LinkSnapshot;
pub use monitor::Monitor;
pub use monitor::MonitorEvent;

/// First release whose addresses keep a mark (IFA_PROTO).
const MARKS_SINCE: (u32, u32) = (5, 18);

/// Does this kernel keep the [`MARK`] of an address, by its release? Where it does not, a process
/// that follows another one cannot tell that one's addresses from a stranger's. A release that
/// cannot be read counts as one that does.
pub fn keeps_marks() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release_keeps_marks(&release)
}

fn release_keeps_marks(release: &str) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= MARKS_SINCE,
        (_, _) => true,
    }
}

/// Index of the interface with this name, in the caller's network namespace.
pub fn link_index(name: &str) -> std::io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_keep_marks_since_5_18() {
        assert!(!release_keeps_marks("5.10.0-28-amd64\n"));
        assert!(!release_keeps_marks("5.17.15"));
        assert!(release_keeps_marks("5.18.0"));
        assert!(release_keeps_marks("6.1.0-18-amd64\n"));
        assert!(release_keeps_marks("unknown"));
    }
}
