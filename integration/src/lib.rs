//! The lab: real machines in miniature, on which the daemon meets real peers.
//!
//! ```text
//!   client ──┐                     ┌── lb1 (eth0, eth1) ──┐
//!            ├── bridge `front` ───┤                      ├── bridge `back` ── srv1, srv2
//!            │   192.168.1.0/24    └── lb2 (eth0, eth1) ──┘   10.0.0.0/24
//! ```
//!
//! Every machine is a [`node::Node`]: its own network, process, mount and host name namespaces,
//! held by one small process that ends when this one does, however it ends. So nothing is left
//! behind after a panic or a `kill -9`, tests run in parallel, and a director finds `eth0`,
//! `/run` and `/etc/keepalived` as it would on a machine of its own.
//!
//! This crate builds, disturbs and watches; what should have happened is said in `tests/`.

pub mod bench;
pub mod capture;
pub mod datagram;
pub mod inject;
pub mod lab;
pub mod lateness;
pub mod measure;
pub mod node;
pub mod old_clients;
pub mod order;
pub mod outage;
pub mod pair;
pub mod peer;
pub mod probe;
pub mod process;
pub mod real_server;
pub mod require;
pub mod sctp;
pub mod service;
pub mod software;
pub mod vm;
pub mod wait;
pub mod web;
