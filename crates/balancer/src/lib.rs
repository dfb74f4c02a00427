//! Make the observed service set equal the wanted one through a backend.
//!
//! [`Balancer::apply`] takes what this node shall serve now and hands each service to its backend;
//! [`Balancer::tick`] watches what runs and puts it right; [`Balancer::progress`] says what does not
//! answer clients yet. All are level-triggered: doing them twice changes nothing. The balancer
//! decides nothing about roles or the health of servers, only whether a HAProxy that it runs answers.
//! It touches only what it made itself, which it writes down under the run directory, so that a
//! restarted daemon goes on with the tables and processes of the one before.
//!
//! ```text
//!                    ┌─► ipvs      kernel tables
//!                    ├─► nftables  rules of the kernel's packet filter
//! apply, tick ──► Balancer ─► proxy     one process, all its services, over a unix socket
//!                    ├─► haproxy   one process per file of the user's own
//!                    ├─► generated a HAProxy per instance, from a file made of its services
//!                    └─► verify    what does not run here, and whether it could
//! ```

mod backend;
mod backoff;
mod balancer;
mod choice;
mod generated;
mod haproxy;
mod ipvs;
mod listeners;
mod nftables;
mod process;
mod proxy;
mod round;
mod state_file;
mod status;
mod user;
mod verify;

pub use backend::{BalancerSettings, Note, Progress, ServeError};
pub use balancer::Balancer;
pub use generated::haproxy_text;
pub use state_file::StateFile;
pub use status::{
    BalancedServer, BalancedService, BalancedState, BalancerStatus, CarriedOctets, ProcessState,
    SupervisedProcess,
};
pub use verify::{Obstacle, ObstacleKind, verify};
