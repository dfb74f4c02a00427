//! What an operator has said of servers, beside the configuration: it holds until it is withdrawn, over
//! reloads and restarts.

use std::fmt;
use std::net::SocketAddr;

use locum_plan::Name;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerOrder {
    /// No new clients; those that it has stay.
    Drain,
    /// In place of the configured weight, and of what checks say: 0..=[`locum_plan::MAX_WEIGHT`]; more is that.
    Weight(u32),
}

/// One that is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandingOrder {
    pub service: Name,
    pub server: SocketAddr,
    pub order: ServerOrder,
}

/// `drained by the operator`, `weight 5 by the operator`.
impl fmt::Display for ServerOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drain => f.write_str("drained by the operator"),
            Self::Weight(weight) => write!(f, "weight {weight} by the operator"),
        }
    }
}
