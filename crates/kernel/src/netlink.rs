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
pub use apply::ApplyError;
pub use apply::Failure;
pub use apply::Netlink;
pub use links::LinkSnapshot;
pub use monitor::Monitor;
pub use monitor::MonitorEvent;

/// Index of the interface with this name, in the caller's network namespace.
pub fn link_index(name: &str) -> std::io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name)?)
}
