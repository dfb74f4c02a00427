//! What the kernel shall have on its interfaces, and what links and addresses do.
//!
//! ```text
//!   apply_all(changes) ──► plan ──► request socket ──► kernel
//!                           ▲              │             │
//!                       observed ◄── answers             │
//!                           ▲                            │
//!   next() ◄── events ◄── monitor ◄── multicast socket ◄─┘
//! ```
//!
//! An address is *ours* when it carries our [`MARK`]. An address that exists without it is never
//! renewed or changed, and removed only for [`RemovalScope::Anyones`].

mod address;
mod apply;
mod fact;
mod filter;
mod links;
mod monitor;
mod observed;
mod plan;
mod switch;

pub use address::{AddressSpec, KernelScope, MARK, MarkedAddress, keeps_marks};
pub use apply::{ApplyError, FactAction, FactFailure, Netlink};
pub use fact::{FactRemoval, KernelFact, RemovalScope, WantedFacts};
pub use links::LinkSnapshot;
pub use monitor::MonitorEvent;
pub use switch::is_switched_on;

/// Index of the interface with this name, in the caller's network namespace.
pub fn link_index(name: &str) -> std::io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name)?)
}
