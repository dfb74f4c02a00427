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
mod modules;
mod plan;
mod session;
mod sync;
pub mod sync_codec;
mod values;

pub use crate::family::IpFamily;
pub use crate::ip_protocol::IpProtocol;
pub use model::{
    DestId, DestSpec, ForwardingMethod, IpvsTraffic, ObservedDest, ObservedService, Operation,
    ServiceFlags, ServiceId, ServiceSpec, Tunnel, engine_module, scheduler_module,
};
pub use modules::ModuleLoader;
pub use session::{Ipvs, IpvsError, Reconciliation, RefusedOperation, SyncFailure};
pub use sync::{SyncChange, SyncState, SyncThread};
pub use sync_codec::ConnectionTimeouts;
pub use values::{set_value, value};
