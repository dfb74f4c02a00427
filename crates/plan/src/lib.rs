//! What an operator wants, checked: a `Plan` that exists is valid.
//!
//! | module | owns |
//! |---|---|
//! | `instance`, `track` | a virtual router with its addresses and hooks, and what it follows |
//! | `fitness` | how what a node can serve decides its place among the nodes |
//! | `check`, `question`, `command` | what is asked, over the network or here, and the programs that are run |
//! | `service`, `listener`, `traffic` | what listens where; what is wanted of it now |
//! | `http` | what a service asks of who reads HTTP or ends TLS |
//! | `server`, `selection`, `quorum` | the servers behind it, how one is chosen, and how many are enough |
//! | `introduction` | who a client is, said by one proxy to the next |
//! | `limits` | how much of a node a service may use |
//! | `ipvs` | what a node asks of IPVS beyond the tables of its services |
//! | `backend`, `lack` | what each backend can do, and what of a service it cannot |
//!
//! The nouns here are the operator's (instance, check, service, server). The I/O ring and the
//! engine speak in them; how a file spells them is the front-ends' business.

mod backend;
mod check;
mod command;
mod fitness;
mod http;
mod instance;
mod introduction;
mod ipvs;
mod lack;
mod limits;
mod listener;
mod name;
mod question;
mod quorum;
mod selection;
mod server;
mod service;
mod text;
mod track;
mod traffic;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use backend::{BackendChoice, BackendKind, Capabilities};
pub use check::{
    Check, Checker, Health, Outcome, Probe, ReportedWeight, Retry, Unrunnable, Verdict,
};
pub use command::{Command, CommandLine, TurnHooks};
pub use fitness::{FitnessPolicy, LEVELS_AMONG_UNKNOWN, Ranking, Served};
pub use http::{
    ClientTls, CookieMode, HttpAccess, HttpRedirect, HttpRoute, HttpService, HttpUser,
    PasswordHash, RedirectTarget, RequestCondition, RequestMatch, RequestPart, ServerTls,
    ServerTrust, StatsPage, StickyCookie,
};
pub use instance::{AddressDetails, Hooks, Instance, Lease, Scope, VirtualAddress};
pub use introduction::{HeaderVersion, Introduction, SourceNetwork};
pub use ipvs::{ConnectionSync, IpvsSettings, SyncRole, WantedIpvs};
pub use lack::Lack;
pub use limits::ServiceLimits;
pub use listener::{AddressRange, Listener, listeners_in_words};
pub use name::Name;
pub use question::{
    BodyDigest, BodyPattern, CheckSource, DnsQuestion, DnsRecord, GrpcQuestion, HttpMethod,
    HttpPage, HttpQuestion, HttpVersion, PostgresUser, Question, StatusRange, Tls, Trust,
    UdpQuestion, UdpReply,
};
pub use quorum::{Quorum, QuorumUnit};
pub use selection::{Persistence, Scheduler, SchedulerFlags};
pub use server::{ConnectionBounds, FailedServer, MAX_WEIGHT, Server, SorryServer, WantedServer};
pub use service::{
    Activity, HaproxyFile, HttpTarget, Service, Standby, WantedHaproxy, WantedService,
    WantedServices,
};
pub use text::{first_few, thousands};
pub use track::{Track, Tracked, Weight};
pub use traffic::{Encapsulation, Forwarding, Protocol, TunnelChecksum};

/// Everything one node shall do.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Plan {
    /// This node's name: key of the per-node values, host name unless given.
    pub node: Name,
    /// The other nodes and the address each is known by, for `switchover --to`.
    pub nodes: Vec<Node>,
    /// Shared with the engine, which keeps each one.
    pub instances: Vec<Arc<Instance>>,
    pub checks: Vec<Check>,
    pub services: Vec<Service>,
    /// HAProxies, each run from the user's own file.
    pub haproxy: Vec<HaproxyFile>,
    pub ipvs: Arc<IpvsSettings>,
    pub hooks: HookSettings,
    /// SHA-256 over the text of all files read, in hexadecimal: equal on all nodes that share a file.
    pub digest: String,
}

impl Plan {
    /// Of all instances, as many as they are.
    pub fn virtual_addresses(&self) -> Arc<[IpAddr]> {
        let all = self.instances.iter().flat_map(|instance| &instance.addresses);
        all.map(|one| one.address).collect()
    }
}

/// What a tracked object adds to a priority, or takes from it: the weight of this pairing, or else the
/// object's own; `checks` are those of the plan.
pub fn weight_of(track: &Track, checks: &[Check]) -> Weight {
    let own = |name: &Name| checks.iter().find(|check| check.name == *name);
    let of_check = || track.object.check().and_then(own).map(|check| check.weight);
    track.weight.or_else(of_check).unwrap_or_default()
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub name: Name,
    pub address: Option<IpAddr>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HookSettings {
    /// A hook that runs longer is killed with its process group.
    pub timeout: Duration,
}

impl Default for HookSettings {
    /// Long enough for a floating-IP API call, short enough that a hung one is seen.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30) }
    }
}
