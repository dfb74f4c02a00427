//! Services: what listens where, the servers behind it, and what of that is wanted now.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::check::Health;
use crate::limits::ServiceLimits;
use crate::listener::Listener;
use crate::name::Name;
use crate::traffic::{Forwarding, Protocol};

/// A load-balanced service.
#[derive(Clone, PartialEq, Debug)]
pub struct Service {
    pub name: Name,
    /// Served while this instance is master here; `None` is always.
    pub instance: Option<Name>,
    pub listen: Listener,
    pub protocol: Protocol,
    pub backend: Backend,
    pub scheduler: Scheduler,
    pub failed: FailedServer,
    pub standby: Standby,
    /// How long the proxy lets connections finish after it lost its role or a server left.
    pub drain: Duration,
    pub limits: ServiceLimits,
    /// Servers that take connections, up or not checked, with which it can serve; at least 1.
    pub quorum: u32,
    pub servers: Vec<Server>,
}

impl Service {
    /// A service of which nothing is said but its name and where it listens: it has no servers yet.
    pub fn new(name: Name, listen: Listener) -> Self {
        Self {
            name,
            instance: None,
            listen,
            protocol: Protocol::Tcp,
            backend: Backend::Auto,
            scheduler: Scheduler("rr".to_owned()),
            failed: FailedServer::default(),
            standby: Standby::default(),
            drain: Duration::from_secs(30),
            limits: ServiceLimits::default(),
            quorum: 1,
            servers: Vec::new(),
        }
    }
}

/// Scheduler by its IPVS name; [`crate::Capabilities::schedulers`] says who knows which.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Scheduler(pub String);

/// What becomes of a server whose health check fails.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum FailedServer {
    /// Leaves the table; its connections go with it.
    #[default]
    Remove,
    /// Stays with weight 0: established connections go on (I-044).
    Quiesce,
}

/// What a node that is not master keeps ready.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Standby {
    /// Nothing runs: no process, no socket.
    #[default]
    Cold,
    /// The process runs and has its ports before the node holds their addresses.
    Warm,
}

impl Standby {
    /// What a node does for a service whose address it holds, or does not.
    pub fn activity(self, holds: bool) -> Activity {
        match (holds, self) {
            (true, _) => Activity::Active,
            (false, Self::Warm) => Activity::Ready,
            (false, Self::Cold) => Activity::Idle,
        }
    }
}

/// A server of a service.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Server {
    pub address: SocketAddr,
    /// 0..=65535; 0 takes no new connections.
    pub weight: u32,
    pub forwarding: Forwarding,
    /// It is up while all of these are; nobody asks when there is none.
    pub health: Vec<Health>,
}

impl Server {
    /// As it is sent clients to while it is up.
    pub fn wanted(&self) -> WantedServer {
        WantedServer { address: self.address, weight: self.weight, forwarding: self.forwarding }
    }
}

/// A HAProxy supervised from its own configuration file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HaproxyFile {
    pub name: Name,
    /// Serves while this instance is master here; `None` is always.
    pub instance: Option<Name>,
    pub config: PathBuf,
    /// The program; `haproxy` is looked up in PATH.
    pub program: PathBuf,
    pub standby: Standby,
    /// Where a client of it is answered while it serves; without one, wherever its file says that it
    /// listens, as far as that can be asked without a server behind it.
    pub answer: Option<HttpTarget>,
}

/// What `http://ADDRESS/PATH` names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HttpTarget {
    pub address: SocketAddr,
    /// For the `Host` header; the address when there is none.
    pub host: Option<String>,
    /// From its first slash on.
    pub path: String,
}

/// What this node shall do for each service and HAProxy of its plan now: a level, reconciled by the
/// balancer.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WantedServices {
    /// Shared, so that a level which differs in one service costs little more than that one.
    pub services: Vec<Arc<WantedService>>,
    pub haproxy: Vec<WantedHaproxy>,
}

impl WantedServices {
    /// As it is for the backends: what runs here, or shall.
    pub fn running(&self) -> Self {
        let services = self.services.iter().filter(|one| one.activity != Activity::Idle);
        let haproxy = self.haproxy.iter().filter(|one| one.activity != Activity::Idle);
        Self { services: services.cloned().collect(), haproxy: haproxy.cloned().collect() }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct WantedService {
    pub service: Arc<Service>,
    pub activity: Activity,
    /// The servers to send clients to, with the weight in force; failed ones are absent or have
    /// weight 0, as [`FailedServer`] says. None while nothing runs.
    pub servers: Vec<WantedServer>,
    /// How long the address of the service stays on this node when no daemon renews it, and how
    /// long therefore it may be served without one; `None` for ever.
    pub lease: Option<Duration>,
}

/// A server to send clients to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WantedServer {
    pub address: SocketAddr,
    /// The weight in force; 0 takes no new connections.
    pub weight: u32,
    pub forwarding: Forwarding,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Activity {
    /// Serve.
    Active,
    /// Keep ready but serve nobody ([`Standby::Warm`]).
    Ready,
    /// Run nothing, and see whether it could be served ([`Standby::Cold`]).
    Idle,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedHaproxy {
    pub file: Arc<HaproxyFile>,
    pub activity: Activity,
}
