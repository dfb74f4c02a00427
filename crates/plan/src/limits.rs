//! How much of a node one service may use, and how long what stands still may stay.

use std::time::Duration;

/// Limits of one service. The built-in proxy keeps them; what a backend does not keep is
/// [`crate::Lack::Limits`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ServiceLimits {
    /// Most client connections at a time, at least 1; `None`: as many as the service's share of
    /// the descriptors allows.
    pub connections: Option<u32>,
    /// Most connections to one server at a time, at least 1; `None`: no such limit.
    pub per_server: Option<u32>,
    /// Most connections of one client address at a time, at least 1; `None`: no such limit.
    pub per_source: Option<u32>,
    /// Most clients that wait at a time until a server has room, at least 1; `None`: as many as the service
    /// can have.
    pub waiting: Option<u32>,
    /// One that has waited for this long is turned away.
    pub queue: Duration,
    /// A server that has not accepted after this is passed over.
    pub connect: Duration,
    /// A connection on which nothing moved in either direction for this long ends.
    pub idle: Duration,
    /// The same once one side has said all that it has to say.
    pub half_closed: Duration,
}

impl ServiceLimits {
    /// Whether a number of connections is limited, beyond what the host allows.
    pub const fn count(&self) -> bool {
        self.connections.is_some()
            || self.per_server.is_some()
            || self.per_source.is_some()
            || self.waiting.is_some()
    }
}

impl ServiceLimits {
    /// How long a client of UDP that says nothing is remembered where nobody says otherwise: as long as
    /// IPVS does.
    pub const DATAGRAMS_IDLE: Duration = Duration::from_secs(5 * 60);
}

impl Default for ServiceLimits {
    /// Nothing but time-outs: people wait no longer than a minute, one retransmitted SYN, IPVS' own idle time, and for a half-closed
    /// connection what IPVS gives one in FIN_WAIT.
    fn default() -> Self {
        Self {
            connections: None,
            per_server: None,
            per_source: None,
            waiting: None,
            queue: Duration::from_secs(60),
            connect: Duration::from_secs(3),
            idle: Duration::from_secs(15 * 60),
            half_closed: Duration::from_secs(2 * 60),
        }
    }
}
