//! The document of `locum status --json`. Times are RFC 3339 in UTC, ages in milliseconds measured
//! by a clock that does not jump.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Everything one daemon knows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StatusDocument {
    /// Version of the program, as `locum --version` says it.
    pub version: String,
    pub pid: u32,
    /// This node's name.
    pub node: String,
    /// When this document was made.
    pub now: String,
    /// When the daemon began.
    pub started: String,
    /// The configuration file and the digest of all text read for it, equal on nodes that share it.
    pub config: String,
    pub digest: String,
    /// When the configuration took effect.
    pub configured: String,
    /// `true` when `problems` is empty.
    pub healthy: bool,
    /// One sentence each, the worst first.
    pub problems: Vec<String>,
    pub instances: Vec<InstanceStatus>,
    pub checks: Vec<CheckStatus>,
    pub services: Vec<ServiceStatus>,
    pub haproxy: Vec<HaproxyStatus>,
    /// Log lines and history entries that were dropped because a queue was full.
    pub dropped: u64,
}

/// One virtual router.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InstanceStatus {
    pub name: String,
    pub interface: String,
    pub vrid: u8,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// `initialize`, `backup`, `master`, `resigning` or `fault`.
    pub role: String,
    /// When it took that role.
    pub since: String,
    pub since_ms: u64,
    /// A word for programs, as in the history and the hooks' environment: `master-silent`, …
    pub cause: String,
    /// The same for a person.
    pub cause_text: String,
    /// As configured, before trackers.
    pub base_priority: u8,
    /// As it competes and stands on the wire.
    pub effective_priority: u8,
    /// What adds to and takes from the base priority, also where it is 0 now.
    pub weights: Vec<WeightStatus>,
    /// Who is master: an own address when this node is, the peer's otherwise, if known.
    pub master: Option<IpAddr>,
    pub addresses: Vec<String>,
    pub peers: Vec<PeerStatus>,
    /// Why it cannot take part; empty unless the role is `fault`.
    pub faults: Vec<String>,
    /// Advertisement interval in force, in milliseconds.
    pub interval_ms: u64,
    /// Does a higher priority take over from a lower master?
    pub preempt: bool,
    pub counters: Vec<Counter>,
}

/// What one tracked object does to a priority.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WeightStatus {
    /// The check or interface.
    pub name: String,
    pub up: bool,
    /// Added to the base priority now; negative is taken away.
    pub adjustment: i32,
    /// Whether its failure is a fault instead of an adjustment.
    pub faults: bool,
}

/// Another router of the same identifier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    pub address: IpAddr,
    /// In its last advert.
    pub priority: u8,
    /// Since its last advert.
    pub heard_ms: u64,
}

/// A count since the daemon began.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Counter {
    pub name: String,
    pub value: u64,
}

/// One check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CheckStatus {
    pub name: String,
    /// `null` until its first result.
    pub up: Option<bool>,
    /// Of the last run.
    pub detail: String,
    pub since: Option<String>,
    pub since_ms: Option<u64>,
}

/// One balanced service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub listen: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: String,
    pub scheduler: String,
    /// Is this node serving it now?
    pub active: bool,
    /// What moves its connections here: `ipvs`, `proxy`, or what the configuration asks for.
    pub backend: String,
    /// What the backend last said that is wrong.
    pub error: Option<String>,
    pub servers: Vec<ServerStatus>,
}

/// One real server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    pub address: SocketAddr,
    pub weight: u32,
    /// `null` until its first result; `true` when nothing checks it.
    pub up: Option<bool>,
    pub detail: String,
}

/// One supervised HAProxy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HaproxyStatus {
    pub name: String,
    pub config: String,
    /// `stopped`, `running`, `refused`, `restarting`, …
    pub state: String,
    pub detail: String,
}
