//! Make the observed service set equal the wanted one through a backend.
//!
//! [`Balancer::apply`] takes what this node shall serve now and hands each service to its backend;
//! [`Balancer::tick`] watches what runs and puts it right. Both are level-triggered: doing them
//! twice changes nothing. The balancer decides nothing about health or roles, and it touches only
//! what it made itself, which it remembers under the run directory, so that a restarted daemon goes
//! on with the tables and processes of the one before.
//!
//! ```text
//!                    ┌─► ipvs      kernel tables
//! apply, tick ──► Balancer ─► proxy     one process, all its services, over a unix socket
//!                    └─► haproxy   one process per file of the user's own
//! ```

mod backend;
mod balancer;
mod haproxy;
mod ipvs;
mod process;
mod proxy;
mod remembered;
mod status;

pub use backend::Event;
pub use balancer::{Balancer, BalancerSettings, ServeError};
pub use haproxy::{HaproxyRefusal, haproxy_refuses};
pub use status::{
    BackendKind, BalancerStatus, ProcessState, ProcessStatus, ServerStatus, ServiceState,
    ServiceStatus,
};
