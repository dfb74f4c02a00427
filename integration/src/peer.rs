//! The daemons that meet in the lab, behind one trait: Locum, keepalived, FRR's vrrpd.
//!
//! A test says what virtual router it wants as a [`Router`]; each peer spells that in its own
//! configuration. Who is master is read from the kernel (who holds the address), not from a peer.

mod frr;
mod keepalived;
mod locum;

use std::net::IpAddr;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;

pub use self::frr::Frr;
pub use self::keepalived::Keepalived;
pub use self::keepalived::QuietKeepalived;
pub use self::locum::Language;
pub use self::locum::Locum;
pub use self::locum::command as locum_command;
use crate::node::Node;
use crate::process::Process;
use crate::process::Taken;
use crate::process::Whom;

/// A kind of director daemon.
pub trait Peer {
    /// Its name, for messages and tables.
    fn label(&self) -> &'static str;

    /// Programs it needs on the machine.
    fn programs(&self) -> &'static [&'static str];

    /// Starts it on `node` with these virtual routers, and returns without waiting for an election.
    fn start(&self, node: &Node, routers: &[Router]) -> Running;
}

/// VRRP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    V2,
    V3,
}

/// Whether a better priority takes over from a worse master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preempt {
    Yes,
    No,
    After(Duration),
}

/// Explicit peers instead of the multicast group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unicast {
    pub source: IpAddr,
    pub peers: Vec<IpAddr>,
}

/// A script that changes the priority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScriptCheck {
    /// Path of an executable on the node.
    pub script: String,
    /// Whole seconds, as keepalived knows no less.
    pub interval: Duration,
    pub weight: i16,
}

/// A virtual router as a test wants it, in nobody's dialect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Router {
    pub name: String,
    pub interface: String,
    pub vrid: u8,
    pub priority: u8,
    pub version: Version,
    pub interval: Duration,
    /// Address and prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    pub preempt: Preempt,
    /// PASS authentication, version 2 only.
    pub password: Option<String>,
    pub unicast: Option<Unicast>,
    pub check: Option<ScriptCheck>,
}

impl Router {
    /// Version 3, once a second, preempting, multicast, on `eth0`.
    pub fn new(vrid: u8, priority: u8, addresses: &[&str]) -> Self {
        let parse = |text: &&str| {
            let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
            let address = address.parse().unwrap_or_else(|_| panic!("{text} is no address"));
            (address, prefix.parse().unwrap_or_else(|_| panic!("{text} has no prefix length")))
        };
        Self {
            name: format!("router{vrid}"),
            interface: "eth0".to_owned(),
            vrid,
            priority,
            version: Version::V3,
            interval: Duration::from_secs(1),
            addresses: addresses.iter().map(parse).collect(),
            preempt: Preempt::Yes,
            password: None,
            unicast: None,
            check: None,
        }
    }

    /// The same with another interval; whole centiseconds in version 3, whole seconds in version 2.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The same on another link, where the same number is another router.
    #[must_use]
    pub fn on(mut self, interface: &str) -> Self {
        self.name = format!("router{}-{interface}", self.vrid);
        interface.clone_into(&mut self.interface);
        self
    }

    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    #[must_use]
    pub fn preempt(mut self, preempt: Preempt) -> Self {
        self.preempt = preempt;
        self
    }

    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    #[must_use]
    pub fn unicast(mut self, source: IpAddr, peers: &[IpAddr]) -> Self {
        self.unicast = Some(Unicast { source, peers: peers.to_vec() });
        self
    }

    #[must_use]
    pub fn check(mut self, script: &str, weight: i16) -> Self {
        let interval = Duration::from_secs(1);
        self.check = Some(ScriptCheck { script: script.to_owned(), interval, weight });
        self
    }

    /// The address clients use: the last, since an IPv6 router starts with a link-local one.
    pub fn vip(&self) -> IpAddr {
        self.addresses.last().expect("a router without addresses").0
    }

    /// Skew time (RFC 9568 §6.1): in version 3 a fraction of the interval, in version 2 of a second.
    pub fn skew(&self) -> Duration {
        let unit = match self.version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.interval,
        };
        unit * (256 - u32::from(self.priority)) / 256
    }

    /// How long a backup of this router waits for a silent master.
    pub fn down_interval(&self) -> Duration {
        self.interval * 3 + self.skew()
    }
}

/// A started daemon: killed when dropped.
pub struct Running {
    label: &'static str,
    /// The one that speaks VRRP is the last.
    processes: Vec<Process>,
    socket: Option<String>,
}

impl Running {
    fn new(label: &'static str, processes: Vec<Process>) -> Self {
        Self { label, processes, socket: None }
    }

    pub fn label(&self) -> &'static str {
        self.label
    }

    /// The process that speaks VRRP, or its parent.
    pub fn process(&mut self) -> &mut Process {
        self.processes.last_mut().expect("a peer without processes")
    }

    /// Its process alone: without a socket to ask it by.
    ///
    /// # Panics
    /// When it is several.
    pub fn into_process(mut self) -> Process {
        // INVARIANT: a peer has at least one.
        let process = self.processes.pop().expect("a peer without processes");
        assert!(self.processes.is_empty(), "{} is several processes", self.label);
        process
    }

    /// `kill -9` of the daemon and everything it started, at once: what an out-of-memory kill of
    /// the unit's group does.
    pub fn kill(&mut self) {
        self.each(Whom::Family, Signal::SIGKILL);
    }

    /// `kill -9` of the daemon's own process only. It is gone then: on a busy machine a process
    /// takes its time to die (each of its packet and netfilter sockets is closed only when all
    /// processors have passed a point of rest), and a second one would find it still there.
    pub fn kill_main(&mut self) {
        self.each(Whom::Main, Signal::SIGKILL);
        for process in &mut self.processes {
            process.wait(crate::wait::seconds(60));
        }
    }

    /// What it and all that it has started takes, by what each was started as.
    pub fn taken(&self) -> Vec<(String, Taken)> {
        self.processes.iter().flat_map(Process::taken).collect()
    }

    /// Asks it to stop, as a service manager does.
    pub fn terminate(&mut self) {
        self.each(Whom::Main, Signal::SIGTERM);
    }

    /// Freezes it.
    pub fn pause(&mut self) {
        self.each(Whom::Family, Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.each(Whom::Family, Signal::SIGCONT);
    }

    /// Asks it to read its configuration again.
    pub fn hang_up(&mut self) {
        self.each(Whom::Main, Signal::SIGHUP);
    }

    /// Waits until all its processes have ended.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.processes.iter_mut().map(|process| process.wait(limit)).last().expect("a process")
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        self.processes.iter().map(Process::log).collect()
    }

    /// Path of its control socket on the node, where it has one.
    pub fn socket(&self) -> Option<&str> {
        self.socket.as_deref()
    }

    fn each(&mut self, whom: Whom, signal: Signal) {
        for process in self.processes.iter_mut().rev() {
            process.signal(whom, signal);
        }
    }
}
