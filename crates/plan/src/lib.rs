//! What an operator wants, checked: a `Plan` that exists is valid.
//!
//! The nouns here are the operator's (instance, check, service, server). The I/O ring and the
//! engine speak in them; how a file spells them is the front-ends' business.

mod backend;
mod text;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use locum_vrrp::RouterSettings;

pub use backend::{Backend, BackendKind, Capabilities, Lack};
pub use text::first_few;

/// Name of an instance, check, service or node. Cheap to clone.
pub type Name = Arc<str>;

/// Everything one node shall do.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// This node's name: key of the per-node values, host name unless given.
    pub node: Name,
    /// The other nodes and the address each is known by, for `switchover --to`.
    pub nodes: Vec<Node>,
    pub instances: Vec<Instance>,
    pub checks: Vec<Check>,
    pub services: Vec<Service>,
    /// HAProxies, each run from the user's own file.
    pub haproxy: Vec<HaproxyFile>,
    pub hooks: HookSettings,
    /// SHA-256 over the text of all files read, in hexadecimal: equal on all nodes that share a file.
    pub digest: String,
}

impl Plan {
    /// The weight an object has by itself, where the instance that tracks it gives none.
    pub fn weight_of(&self, object: &Tracked) -> Weight {
        match object {
            Tracked::Check(name) => {
                let mut checks = self.checks.iter();
                checks.find(|check| check.name == *name).map_or_else(Weight::default, |c| c.weight)
            }
            Tracked::Interface(_) => Weight::default(),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub name: Name,
    pub address: Option<IpAddr>,
}

/// A virtual router with its addresses, trackers and hooks.
#[derive(Clone, PartialEq, Debug)]
pub struct Instance {
    pub name: Name,
    pub interface: Name,
    pub router: RouterSettings,
    /// Installed and announced by the master: advertised ones first, then the excluded (V-033).
    pub addresses: Vec<VirtualAddress>,
    /// What decides whether it may take part, and with what priority.
    pub track: Vec<Track>,
    pub hooks: Hooks,
    pub lease: Lease,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct VirtualAddress {
    pub address: IpAddr,
    pub prefix: u8,
    /// Device to put it on; the instance's interface when `None`.
    pub device: Option<Name>,
    pub broadcast: Option<IpAddr>,
    pub label: Option<Name>,
    pub scope: Scope,
    /// IPv6 duplicate address detection stays off unless asked for (V-255).
    pub duplicate_detection: bool,
    /// No prefix route for it.
    pub no_prefix_route: bool,
}

impl VirtualAddress {
    /// An address with nothing but its prefix length said of it.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        Self {
            address,
            prefix,
            device: None,
            broadcast: None,
            label: None,
            scope: Scope::Global,
            duplicate_detection: false,
            no_prefix_route: false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Scope {
    #[default]
    Global,
    Site,
    Link,
    Host,
}

/// How long the kernel keeps a virtual address that nobody renews.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lease {
    /// The shortest time in which a backup takes over, in whole seconds, at least 1.
    Auto,
    /// Whole seconds, at least 1.
    Fixed(Duration),
    /// Addresses stay for ever, as keepalived's do.
    Off,
}

/// One object an instance tracks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Track {
    pub object: Tracked,
    /// Weight of this pairing; the object's own when `None`.
    pub weight: Option<Weight>,
}

/// What can be tracked: each is up, down or not known yet. A new kind is a variant here, its name in
/// `Display`, and a source of its state in the engine's trackers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Tracked {
    /// A check of the plan; its own weight unless the pairing has one.
    Check(Name),
    /// The carrier of a network interface; a fault while down unless the pairing has a weight.
    Interface(Name),
}

impl Tracked {
    pub fn name(&self) -> &Name {
        match self {
            Self::Check(name) | Self::Interface(name) => name,
        }
    }
}

/// As operators read it in the status and in the history: `check app`, `interface eth1`.
impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check(name) => write!(f, "check {name}"),
            Self::Interface(name) => write!(f, "interface {name}"),
        }
    }
}

/// What a tracked object does to a priority: 0 failing is a fault; positive is added while up;
/// negative is subtracted while down. `reverse` swaps up and down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weight {
    /// −253..=253.
    pub value: i16,
    pub reverse: bool,
}

/// A probe that adjusts priorities.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    pub name: Name,
    pub probe: Probe,
    /// Consecutive successes before it counts as up, at least 1.
    pub rise: u32,
    /// Consecutive failures before it counts as down, at least 1.
    pub fall: u32,
    pub weight: Weight,
    /// Starts down and needs `rise` successes, instead of taking the first result.
    pub starts_failed: bool,
    pub unrunnable: Unrunnable,
}

/// What a check counts as whose program cannot be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unrunnable {
    /// Failing: what nobody can ask about is not known to work.
    #[default]
    Fails,
    /// As if nobody tracked it, until it can be run: keepalived's meaning.
    LeftOut,
}

/// What to run, how often, and for how long at most.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Probe {
    pub kind: Checker,
    /// From the start of one run to the start of the next.
    pub interval: Duration,
    pub timeout: Duration,
}

/// How something is asked whether it works: a check of this host or of a server of a service.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Checker {
    /// Passes when it exits with status 0.
    Script(Command),
    /// Is a process of this name there? What `killall -0 NAME` asks, without a fork.
    Process { name: String },
    /// Passes when the connection is accepted.
    Tcp { target: SocketAddr },
    /// Passes when the status of the answer to a GET is one of `expect`.
    Http { target: SocketAddr, path: String, host: Option<String>, expect: Vec<StatusRange> },
}

/// Inclusive range of HTTP status codes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

/// A program to run, as an argument vector or, where asked for, through a shell.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Command {
    pub line: CommandLine,
    /// User to run as; the daemon's own when `None`.
    pub user: Option<String>,
    pub group: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum CommandLine {
    /// Program and arguments, never empty.
    Argv(Vec<String>),
    /// Handed to `/bin/sh -c`.
    Shell(String),
}

impl Command {
    pub fn argv(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let words = words.into_iter().map(Into::into).collect();
        Self { line: CommandLine::Argv(words), user: None, group: None }
    }
}

/// As an operator would type it.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.line {
            CommandLine::Argv(words) => f.write_str(&words.join(" ")),
            CommandLine::Shell(line) => f.write_str(line),
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Outcome of one run of a probe, before rise and fall.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Why, for a person: "exited with status 1", "timed out after 2s", "connection refused".
    pub detail: String,
    /// Wall time of the run.
    pub took: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Pass,
    Fail,
    /// The probe itself could not be run (no such program, no descriptor): a check counts as its
    /// [`Unrunnable`] says, a server as failed.
    CannotRun,
}

/// Hooks of one instance. State hooks run first, then the generic ones.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hooks {
    pub master: Vec<Command>,
    pub backup: Vec<Command>,
    pub fault: Vec<Command>,
    pub stop: Vec<Command>,
    /// Called with `INSTANCE NAME STATE PRIORITY` appended.
    pub any: Vec<Command>,
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

/// A load-balanced service.
#[derive(Clone, PartialEq, Debug)]
pub struct Service {
    pub name: Name,
    /// Served while this instance is master here; `None` is always.
    pub instance: Option<Name>,
    pub listen: SocketAddr,
    pub protocol: Protocol,
    pub backend: Backend,
    pub scheduler: Scheduler,
    pub failed: FailedServer,
    pub standby: Standby,
    /// How long the proxy lets connections finish after it lost its role or a server was drained.
    pub drain: Duration,
    pub servers: Vec<Server>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// As a sentence names it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// Scheduler by its IPVS name; [`Capabilities::schedulers`] says who knows which.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Scheduler(pub String);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Forwarding {
    Nat,
    Direct,
    Tunnel,
}

/// One health check of a server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Health {
    pub probe: Probe,
    /// Consecutive successes before it counts as up, at least 1.
    pub rise: u32,
    /// Consecutive failures before it counts as down, at least 1.
    pub fall: u32,
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
    /// What a node does for a service whose address it holds, or does not. `None` is nothing.
    pub fn activity(self, holds: bool) -> Option<Activity> {
        match (holds, self) {
            (true, _) => Some(Activity::Active),
            (false, Self::Warm) => Some(Activity::Ready),
            (false, Self::Cold) => None,
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
}

/// What this node shall serve now: a level, reconciled by the balancer.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WantedServices {
    /// Shared, so that a level which differs in one service costs little more than that one.
    pub services: Vec<Arc<WantedService>>,
    pub haproxy: Vec<WantedHaproxy>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct WantedService {
    pub service: Arc<Service>,
    pub activity: Activity,
    /// The servers to send clients to, with the weight in force; failed ones are absent or have
    /// weight 0, as [`FailedServer`] says.
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
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedHaproxy {
    pub file: Arc<HaproxyFile>,
    pub activity: Activity,
}
