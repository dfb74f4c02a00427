//! Speak to Linux: addresses, links, sockets, IPVS, nftables. Knows nothing of elections.
//!
//! | module | owns |
//! |---|---|
//! | [`clock`] | now |
//! | [`descriptors`] | what programs started by us inherit |
//! | [`memory`] | how this process asks for memory and gives it back |
//! | [`netlink`] | addresses put on and taken off interfaces; what links and addresses do |
//! | [`advert_socket`] | a raw IP socket on one interface, for multicast protocols with one hop |
//! | [`own_links`] | links and addresses of this host, read once |
//! | [`poller`] | waits for descriptors and a moment |
//! | [`sock_diag`] | what the kernel knows of a TCP connection or listener |
//! | [`frame_socket`] | Ethernet frames out, in batches |
//! | [`ports`] | whose a TCP listener is, and whether one more would be let in |
//! | [`ipvs`] | the kernel's load balancer, over generic netlink |
//! | [`nftables`] | tables of ours in the packet filter: services, connections handed over, quiet leases |
//! | [`conntrack`] | connections as the kernel tracks them, and the end of some |
//!
//! Everything here executes and observes; nothing decides. No module blocks for longer than the
//! kernel takes to carry out a request.

pub mod advert_socket;
pub mod clock;
pub mod conntrack;
pub mod descriptors;
pub mod frame_socket;
pub mod ipvs;
pub mod memory;
pub mod netlink;
pub mod nftables;
pub mod own_links;
pub mod poller;
pub mod ports;
pub mod sock_diag;

mod attribute;
mod diff;
mod family;
mod ip_protocol;
mod transport;

pub use transport::KernelError;
