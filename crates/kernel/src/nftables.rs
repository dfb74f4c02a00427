//! The kernel's packet filter, over netlink: tables of our own, and elements in them that run out.
//!
//! | module | owns |
//! |---|---|
//! | `codec` | tables, chains, sets, rules and elements as octets |
//! | `session` | transactions: all of it or nothing |
//! | [`handover`](Handovers) | connections of the predecessor go on through it |
//! | `lease` | leases of IPv6 addresses that nobody on the wire hears of |
//!
//! Nobody else's table is read or touched. Somebody may flush ours with all others: whatever needs
//! one makes it anew when it is missing.

mod codec;
mod handover;
mod lease;
mod session;

pub use handover::{Handovers, Predecessor};
pub(crate) use lease::{LeaseId, Leases};
pub use session::NftablesError;
