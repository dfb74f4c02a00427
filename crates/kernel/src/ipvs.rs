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

pub use model::DestId;
pub use model::DestSpec;
pub use model::Family;
pub use model::Forwarding;
pub use model::ObservedDest;
pub use model::ObservedService;
pub use model::Operation;
pub use model::Protocol;
pub use model::ServiceFlags;
pub use model::ServiceId;
pub use model::ServiceSpec;
pub use model::Tunnel;
pub use session::Error;
pub use session::Failure;
pub use session::Ipvs;
pub use session::Report;
