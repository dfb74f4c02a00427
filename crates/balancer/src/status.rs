//! What `locum status` shows of the balancer.

use std::net::SocketAddr;
use std::time::Duration;

use locum_plan::{Activity, BackendKind, Name};

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BalancerStatus {
    /// One per wanted service, then those that are still leaving.
    pub services: Vec<BalancedService>,
    /// One per supervised process: the proxy, each HAProxy.
    pub processes: Vec<SupervisedProcess>,
    /// As [`crate::Progress`] has it: HAProxies too, and without figures.
    pub strained: Vec<(Name, String)>,
    /// Of the services that were left to a choice and are not served by the first of all backends, why
    /// it fell as it did: a sentence each.
    pub choices: Vec<(Name, String)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BalancedService {
    pub name: Name,
    pub backend: BackendKind,
    /// "serving", "ready", "leaving" or "failed".
    pub state: BalancedState,
    /// Why it does not serve, for a person.
    pub error: Option<String>,
    /// What an operator has to know though it serves, with the figures of now, for a person.
    pub strained: Option<String>,
    /// Client connections under way, where the backend tells.
    pub active: u64,
    /// Clients accepted, where the backend tells.
    pub accepted: u64,
    /// Clients that wait until a server has room, where the backend lets them.
    pub waiting: Option<u64>,
    pub octets: Option<CarriedOctets>,
    pub servers: Vec<BalancedServer>,
}

/// What has been carried, where the backend tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CarriedOctets {
    /// From clients, and to them.
    pub inward: u64,
    pub outward: u64,
    /// Of the last seconds, inward and outward, where the backend estimates it.
    pub a_second: Option<(u64, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BalancedState {
    Serving,
    /// Kept ready on a node that is not master.
    Ready,
    /// Not wanted any more; its last connections finish.
    Leaving,
    Failed,
}

impl BalancedState {
    /// Of a service that is wanted; `error` says why it does not serve.
    pub(crate) fn of(activity: Activity, error: Option<&String>) -> Self {
        match (error, activity) {
            (Some(_), _) => Self::Failed,
            (None, Activity::Active) => Self::Serving,
            (None, Activity::Ready | Activity::Idle) => Self::Ready,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BalancedServer {
    pub address: SocketAddr,
    pub weight: u32,
    pub active: u64,
    pub failures: u64,
    /// Connections that are over and still remembered, where the backend tells.
    pub inactive: Option<u64>,
    /// New connections a second, where the backend tells.
    pub connection_rate: Option<u64>,
    pub octets: Option<CarriedOctets>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SupervisedProcess {
    /// "proxy", or the name of the HAProxy.
    pub name: Name,
    /// "proxy" or "haproxy".
    pub backend: &'static str,
    pub state: ProcessState,
    /// Another content of its file is being checked or started; what runs serves on.
    pub is_changing: bool,
    /// What its files say now could not be taken up, and is tried again.
    pub is_refused: bool,
    pub pid: Option<u32>,
    /// Starts after the first one since the daemon began, planned reloads not counted.
    pub restarts: u64,
    /// The last thing that went wrong, HAProxy's own message included. Of a HAProxy that is running
    /// and has not failed: what it is strained by.
    pub error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcessState {
    Running,
    /// Died or could not start; tried again after this long.
    Waiting {
        retry_in: Duration,
    },
    /// Told to end, finishing its connections.
    Stopping,
}
