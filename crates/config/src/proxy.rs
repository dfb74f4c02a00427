//! What the balancer tells the built-in proxy's process, and what it hears back.
//!
//! One JSON object per line over a stream socket on which the proxy listens. The balancer sends a
//! [`Request`], the proxy answers each with one [`Status`]. The level is complete: what it does not
//! name is not served any more. An older proxy outlives the daemon it was started by, so fields are
//! only ever added, with a default, and unknown ones are ignored.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Longest line either side reads, in octets: some 50,000 servers. A longer one is a fault.
pub const LINE_LIMIT: usize = 4 << 20;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
pub enum Request {
    /// From now on serve exactly these. An empty level makes the proxy exit once it is drained.
    Serve { services: Vec<ProxyService> },
    /// Only answer.
    Status,
}

/// One wanted service. Its name is its identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProxyService {
    pub name: String,
    pub listen: SocketAddr,
    /// rr, wrr, lc, wlc or sh.
    pub scheduler: String,
    /// How long connections may go on after their server or their service left, milliseconds.
    pub drain_ms: u64,
    /// The port is taken, but connections are refused: what a warm standby does.
    #[serde(default)]
    pub ready_only: bool,
    pub servers: Vec<ProxyServer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProxyServer {
    pub address: SocketAddr,
    /// 0..=65535; 0 takes no new connections.
    pub weight: u32,
}

/// What the proxy does at the moment of the answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    /// Client connections under way, over all services, leaving ones included.
    pub active: u64,
    /// Most client connections it takes at a time.
    pub limit: u64,
    /// How often accepting paused because descriptors or memory ran out.
    pub accept_pauses: u64,
    /// The request could not be read; nothing was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub services: Vec<ServiceStatus>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub listen: SocketAddr,
    pub state: ServiceState,
    /// Client connections under way.
    pub active: u64,
    /// Client connections accepted since the proxy started.
    pub accepted: u64,
    /// Clients turned away because no server took them.
    pub refused: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub servers: Vec<ServerStatus>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum ServiceState {
    Listening,
    /// As [`ProxyService::ready_only`] asks.
    Ready,
    /// Not wanted any more: takes no clients, lets the last connections finish.
    Leaving,
    /// Could not listen. The next level tries again.
    Failed {
        error: String,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    pub address: SocketAddr,
    pub weight: u32,
    /// Not wanted any more, or weight 0: takes no new connections.
    pub leaving: bool,
    pub active: u64,
    /// Connections made since the proxy started.
    pub connected: u64,
    /// Attempts that failed or timed out.
    pub failures: u64,
}
