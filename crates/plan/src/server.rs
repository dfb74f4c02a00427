//! A server of a service, and how it is to be used now.

use std::net::SocketAddr;

use crate::check::Health;
use crate::command::TurnHooks;
use crate::introduction::HeaderVersion;
use crate::traffic::{Encapsulation, Forwarding};

/// Most that a weight may be: what every backend takes.
pub const MAX_WEIGHT: u32 = 65_535;

/// A server of a service.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Server {
    /// Port 0 is the port that the client asked for.
    pub address: SocketAddr,
    /// 0..=[`MAX_WEIGHT`]; 0 takes no new connections.
    pub weight: u32,
    pub forwarding: Forwarding,
    pub encapsulation: Encapsulation,
    pub bounds: ConnectionBounds,
    /// It is told who a client is ahead of all that the client says; `None`: it sees us.
    pub introduced: Option<HeaderVersion>,
    pub failed: FailedServer,
    /// Down until its checks have passed, instead of up until one fails.
    pub alpha: bool,
    pub hooks: TurnHooks,
    /// It is up while all of these are; nobody asks when there is none.
    pub health: Vec<Health>,
}

impl Server {
    /// A server of weight 1 that is forwarded to by nat and not asked.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            weight: 1,
            forwarding: Forwarding::Nat,
            encapsulation: Encapsulation::Ipip,
            bounds: ConnectionBounds::default(),
            introduced: None,
            failed: FailedServer::default(),
            alpha: false,
            hooks: TurnHooks::default(),
            health: Vec::new(),
        }
    }

    /// As it is sent clients to while it is up.
    pub fn wanted(&self) -> WantedServer {
        WantedServer {
            address: self.address,
            weight: self.weight,
            forwarding: self.forwarding,
            encapsulation: self.encapsulation,
            bounds: self.bounds,
            introduced: self.introduced,
        }
    }
}

/// How many connections a server may have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ConnectionBounds {
    /// With so many it gets no new ones, at least 1; `None`: no limit.
    pub max: Option<u32>,
    /// Once it had the most, it gets new ones below this, at most `max`; `None`: below three quarters
    /// of `max`.
    pub min: Option<u32>,
}

impl ConnectionBounds {
    pub const fn any(self) -> bool {
        self.max.is_some() || self.min.is_some()
    }
}

/// What becomes of a server whose health check fails.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum FailedServer {
    /// Leaves the table; its connections go with it.
    #[default]
    Remove,
    /// Stays with weight 0: established connections go on (I-044).
    Quiesce,
}
/// Where clients go while the quorum of a service is lost. Nobody asks whether it is up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SorryServer {
    /// Port 0 is the port that the client asked for.
    pub address: SocketAddr,
    pub forwarding: Forwarding,
    pub encapsulation: Encapsulation,
    pub introduced: Option<HeaderVersion>,
    /// What becomes of it when the quorum is reached again.
    pub unused: FailedServer,
}

impl SorryServer {
    /// As it is sent clients to: it alone, so that any weight is all of them.
    pub fn wanted(&self) -> WantedServer {
        WantedServer {
            address: self.address,
            weight: 1,
            forwarding: self.forwarding,
            encapsulation: self.encapsulation,
            bounds: ConnectionBounds::default(),
            introduced: self.introduced,
        }
    }
}

/// A server to send clients to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WantedServer {
    /// Port 0 is the port that the client asked for.
    pub address: SocketAddr,
    /// The weight in force; 0 takes no new connections.
    pub weight: u32,
    pub forwarding: Forwarding,
    pub encapsulation: Encapsulation,
    pub bounds: ConnectionBounds,
    /// As [`Server::introduced`].
    pub introduced: Option<HeaderVersion>,
}
