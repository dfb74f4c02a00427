//! The kernel's packet filter, over netlink: tables of our own, and elements in them that run out.
//!
//! | module | owns |
//! |---|---|
//! | `codec` | tables, chains, sets and elements as octets |
//! | `rule` | what rules do, as octets |
//! | `session` | transactions: all of it or nothing |
//! | [`handover`](Handovers) | connections of the predecessor go on through it |
//! | [`balancer`](NatBalancer) | makes services by address translation what is wanted, and looks after them |
//! | `balance` | the table of those services, and what changes it |
//! | `service` | such a service, as whoever wants it says it |
//! | `slots` | which server a number stands for |
//! | `lease` | leases of IPv6 addresses that nobody on the wire hears of |
//!
//! Nobody else's table is read or touched. Somebody may flush ours with all others: whatever needs
//! one makes it anew when it is missing.

mod balance;
mod balancer;
mod codec;
mod handover;
mod lease;
mod rule;
mod service;
mod session;
mod slots;

pub use balancer::{ConnectionSweep, NatBalancer, NatLoad, NatReport};
pub use handover::{Handovers, Predecessor};
pub(crate) use lease::{LeaseId, Leases};
pub use service::{NatPersistence, NatSelection, NatServer, NatService};
pub use session::NftablesError;
