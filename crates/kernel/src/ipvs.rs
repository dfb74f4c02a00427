//! The kernel's load balancer, over generic netlink.
//!
//! ```text
//!   wanted ──┐
//!            ├─► plan ──► ordered operations ──► codec ──► kernel
//!   dump  ───┘
//! ```
//!
//! Services outside `wanted` and `owned` are never touched.

pub mod codec;
mod model;
mod plan;
mod session;

pub use crate::family::Family;
pub use model::{
    DestId, DestSpec, Forwarding, ObservedDest, ObservedService, Operation, Protocol, ServiceFlags,
    ServiceId, ServiceSpec, Tunnel,
};
pub use session::{Error, Failure, Ipvs, Report};
