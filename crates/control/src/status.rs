//! The document of `locum status --json`. Times are RFC 3339 in UTC, ages in milliseconds measured
//! by a clock that does not jump.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::rfc8347::Rfc8347;

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
    pub processes: Vec<ProcessStatus>,
    pub unmatched: Vec<Unmatched>,
    /// A stop is under way.
    pub stopping: bool,
    /// Log lines and history entries that were dropped because a queue was full.
    pub dropped: u64,
}

/// One virtual router.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct InstanceStatus {
    pub name: String,
    pub interface: String,
    pub vrid: u8,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Of VRRP: 2 or 3.
    pub version: u8,
    /// `initialize`, `backup`, `master`, `resigning` or `fault`.
    pub role: String,
    /// When it took that role.
    pub since: String,
    pub since_ms: u64,
    /// Why, in the words of the log and the history.
    pub cause: String,
    /// The same as one word, as `cause` of a transition in the history.
    #[serde(default)]
    pub cause_kind: String,
    /// As configured, before trackers.
    pub base_priority: u8,
    /// As it competes and stands on the wire.
    pub effective_priority: u8,
    /// What makes the difference between the two.
    pub adjustments: Vec<Adjustment>,
    /// Why it cannot take part; empty when it can.
    pub faults: Vec<String>,
    /// What it cannot serve here, the heaviest first: it competes behind every node that can. Empty
    /// too where that does not decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfit: Vec<UnfitObject>,
    /// Until it offers its mastership to whoever can serve; `null` unless it is master and unfit.
    #[serde(default)]
    pub offer_in_ms: Option<u64>,
    /// What keeps it from being master although it could be; `null` while nothing does.
    #[serde(default)]
    pub held_back: Option<HeldBackStatus>,
    /// Handed over by the operator: it stays backup while the other one lives.
    pub yielded: bool,
    /// Advertisement interval in milliseconds.
    pub interval_ms: u64,
    /// Source of our adverts; `null` while there is none.
    pub source: Option<IpAddr>,
    /// The router that is master as far as this node knows: its own source, or the peer.
    pub master: Option<IpAddr>,
    /// The other router last accepted as master.
    pub peer: Option<PeerStatus>,
    /// A router whose adverts are being discarded: it may be master too.
    pub discarded: Option<DiscardedStatus>,
    /// Addresses that this node has and the master that it follows has not: they are on no node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nowhere: Vec<IpAddr>,
    /// Addresses that the master has and this node has not: nowhere, if this node became master.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<IpAddr>,
    /// Virtual addresses with their prefix length.
    pub addresses: Vec<String>,
    /// Whether this node wants them to be on its interfaces now.
    pub holds_addresses: bool,
    /// Those of them that the kernel refused while others are held: it goes on without.
    pub missing: Vec<RefusedAddress>,
    /// Addresses that this node must not have and the kernel does not let go of.
    pub stuck: Vec<RefusedAddress>,
    /// Addresses that somebody else has put here, where this node is not their master:
    /// `ADDRESS/PREFIX on INTERFACE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unwanted: Vec<String>,
    /// The kernel has not answered for more than a second.
    #[serde(default)]
    pub apply_late: bool,
    /// Times an address that someone removed was put back.
    pub healed: u64,
    /// Being handed over because a reload removed it.
    pub leaving: bool,
    /// The same in the words of RFC 8347, and what it has beside.
    pub rfc8347: Rfc8347,
    /// All of them, by name.
    pub counters: Vec<Counter>,
}

/// An address that the kernel did not do as asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RefusedAddress {
    /// With its prefix length.
    pub address: String,
    pub interface: String,
    /// The kernel's words.
    pub error: String,
    /// Until it is asked again; 0 while it is being asked.
    pub again_ms: u64,
}

/// Why a router stays what it is although it could be master.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldBackStatus {
    /// `start-delay`, `refused`, `lets-pass` (what a master that cannot serve has put on offer, this
    /// node cannot serve either), `yielded`, `unfit` (nor can it serve more than a lower master),
    /// `no-preempt` or `preempt-delay`.
    pub reason: String,
    /// Until that is over; `null` where no time ends it.
    pub left_ms: Option<u64>,
}

/// Something of an instance that this node cannot serve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnfitObject {
    /// `service NAME` or `haproxy NAME`.
    pub object: String,
    /// What is missing; empty while nobody has looked, or while a recovery does not count yet.
    pub detail: String,
}

/// Whether this node can serve something, and whether clients are answered where it does.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ServedFitness {
    /// What `holds` says: `answering` where it is served, `capable` where it would have to be.
    pub aspect: String,
    /// `null` until somebody has looked.
    pub holds: Option<bool>,
    /// At least as many servers as its quorum take connections; `null` while nobody knows.
    pub populated: Option<bool>,
    /// What is missing; empty while nothing is.
    pub detail: String,
    /// Since when it is as it is, by `holds` and `populated` together.
    pub since: String,
    pub since_ms: u64,
    /// It has recovered, and does not count for that on a node that is not master for so long.
    pub hold_ms: Option<u64>,
    /// How often it was lost of late; 0 after ten minutes without a loss.
    pub losses: u32,
}

/// The part of one tracked object in a priority.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Adjustment {
    /// `check NAME`, `interface NAME`, `service NAME` or `haproxy NAME`.
    pub name: String,
    /// Added to the base priority now; negative is taken away.
    pub value: i32,
}

/// Another router of the same identifier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    pub address: IpAddr,
    /// In its last advert.
    pub priority: u8,
    /// By that priority it cannot serve all of the instance either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfit: bool,
    /// Since its last advert.
    pub heard_ms: u64,
}

/// Another router that is heard and not believed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiscardedStatus {
    pub source: IpAddr,
    /// What is wrong with its last advert.
    pub reason: String,
    /// Since its last advert.
    pub heard_ms: u64,
}

/// Datagrams on an interface that no instance could take.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unmatched {
    pub interface: String,
    /// Those that are not zero.
    pub counters: Vec<Counter>,
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
    /// When it came up or went down.
    pub since: String,
    pub since_ms: u64,
    /// It cannot be run and is left out, as keepalived does.
    pub ignored: bool,
}

/// One balanced service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    /// The first few addresses with their ports, ranges and marks, for a person.
    pub listen: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// By its IPVS name.
    pub scheduler: String,
    /// Is this node wanted to serve it now?
    pub active: bool,
    /// `ipvs`, `nftables`, `proxy` or `haproxy`; `null` while nothing serves it.
    pub backend: Option<String>,
    /// Why that one, where the configuration leaves the choice (`backend = "auto"`) and it did not fall
    /// on the first of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_choice: Option<String>,
    /// `serving`, `ready`, `leaving`, `failed`, or `idle` when nothing serves it.
    pub state: String,
    /// What is wrong.
    pub error: Option<String>,
    /// The instance whose addresses it follows; `null`: it is served on every node.
    #[serde(default)]
    pub instance: Option<String>,
    #[serde(default)]
    pub fitness: ServedFitness,
    /// It serves, but is full, or reaches itself, or this host runs out of something it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strained: Option<String>,
    /// Client connections under way and accepted so far; 0 where the backend does not count them.
    pub connections: u64,
    pub accepted: u64,
    /// Clients that wait until a server has room; `null` where the backend lets nobody wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
    /// `null` where the backend does not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficStatus>,
    #[serde(default)]
    pub quorum: QuorumState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sorry: Option<SorryStatus>,
    pub servers: Vec<ServerStatus>,
}

/// Whether a service has enough servers, by what its clients are sent to: an operator who drains
/// servers here changes that, and not whether the node can serve (`populated`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct QuorumState {
    pub reached: bool,
    /// What the servers that are sent clients come to.
    pub sum: u32,
    /// `servers` or `weight`.
    pub unit: String,
    pub quorum: u32,
    pub hysteresis: u32,
    /// Why it is not reached; empty while it is.
    #[serde(default)]
    pub shortage: String,
    /// Since when it is reached or lost.
    #[serde(default)]
    pub since: String,
    #[serde(default)]
    pub since_ms: u64,
}

/// The server for when the quorum is lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SorryStatus {
    pub address: SocketAddr,
    /// It has the clients.
    pub in_use: bool,
    /// Connections to it under way; 0 where the backend does not count them.
    pub connections: u64,
}

/// One real server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    pub address: SocketAddr,
    /// As configured.
    pub weight: u32,
    /// `null`: nobody checks it, or not yet.
    pub up: Option<bool>,
    pub detail: String,
    /// This node could not ask it, and `detail` says why: `up` is what it was before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unasked: bool,
    /// Connections to it under way; 0 where the backend does not count them.
    pub connections: u64,
    /// What it shall have: its checks and an operator have a say. 0 while it is down, or the sorry
    /// server has the clients.
    #[serde(default)]
    pub weight_in_force: u32,
    /// How far it has come on the way to that weight, while it rises or falls in steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp_percent: Option<u32>,
    /// What an operator has ordered: `drain` or `weight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Connections that are over and still remembered; `null` where the backend does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactive: Option<u64>,
    /// New connections a second; `null` where the backend does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_rate: Option<u64>,
    /// `null` where the backend does not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficStatus>,
}

/// Octets carried since what carries them began to, from clients (in) and to them (out). What servers
/// send to clients by another way, as by direct routing, is not among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TrafficStatus {
    pub octets_in: u64,
    pub octets_out: u64,
    /// A second, of the last ones; `null` where the backend does not estimate it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets_in_rate: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets_out_rate: Option<u64>,
}

/// One supervised HAProxy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HaproxyStatus {
    pub name: String,
    /// Is it wanted to run on this node now?
    pub active: bool,
    /// What is wrong, HAProxy's own message included.
    pub error: Option<String>,
    /// As of a service.
    #[serde(default)]
    pub instance: Option<String>,
    #[serde(default)]
    pub fitness: ServedFitness,
    /// It serves, but cannot take up a change, or is overloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strained: Option<String>,
}

/// One process that the daemon keeps running: the built-in proxy, each HAProxy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessStatus {
    pub name: String,
    /// `proxy` or `haproxy`.
    pub backend: String,
    /// `running`, `waiting` (for its next start) or `stopping`.
    pub state: String,
    pub pid: Option<u32>,
    /// Starts after the first since the daemon began, reloads not counted.
    pub restarts: u64,
    pub error: Option<String>,
}
