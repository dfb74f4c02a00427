//! The kernel's load balancer, over generic netlink.
//!
//! ```text
//!   wanted ──┐
//!            ├─► plan ──► ordered operations ──► codec ──► kernel
//!   dump  ───┘
//! ```
//!
//! Services outside `wanted` and `owned` are never touched.

mod model;
mod session;

pub use model::DestId;
pub use model::DestSpec;
pub use model::Family;
pub use model::Forwarding;
pub use model::Protocol;
pub use model::ServiceFlags;
pub use model::ServiceId;
pub use model::ServiceSpec;
pub use model::Tunnel;
pub use session::Error;
pub use session::Failure;
pub use session::Ipvs;
pub use session::ObservedDest;
pub use session::ObservedService;
pub use session::Report;
