//! Instances: a virtual router with its addresses, what it tracks, and its hooks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_vrrp::RouterSettings;

use crate::command::Command;
use crate::fitness::FitnessPolicy;
use crate::name::Name;
use crate::track::{Track, Tracked};

/// A virtual router with its addresses, trackers and hooks.
#[derive(Clone, PartialEq, Debug)]
pub struct Instance {
    pub name: Name,
    pub interface: Name,
    /// Shared with the router itself.
    pub router: Arc<RouterSettings>,
    /// Installed and announced by the master: advertised ones first, then the excluded (V-033).
    pub addresses: Vec<VirtualAddress>,
    /// What decides whether it may take part, and with what priority.
    pub track: Vec<Track>,
    /// How what it serves decides its place among the nodes; `None`: it does not.
    pub fitness: Option<Box<FitnessPolicy>>,
    /// Shared by the instances that have the same.
    pub hooks: Arc<Hooks>,
    pub lease: Lease,
    /// A new master hands TCP connections that it does not know to its predecessor while that still
    /// answers.
    pub keep_connections: bool,
}

impl Instance {
    /// An instance of which nothing is said but who it is on the wire.
    pub fn new(name: Name, interface: Name, router: RouterSettings) -> Self {
        Self {
            name,
            interface,
            router: Arc::new(router),
            addresses: Vec::new(),
            track: Vec::new(),
            fitness: None,
            hooks: Arc::default(),
            lease: Lease::Auto,
            keep_connections: false,
        }
    }

    /// Everything whose state has a say in whether it takes part, and with what priority.
    pub fn follows(&self) -> impl Iterator<Item = &Tracked> {
        let served = self.policy().into_iter().flat_map(|policy| &policy.served);
        let tracked = self.track.iter().map(|track| &track.object);
        tracked.chain(served.map(|served| &served.object))
    }

    /// How what it serves decides its place; `None` for an owner too, whose priority never changes.
    pub fn policy(&self) -> Option<&FitnessPolicy> {
        self.fitness.as_deref().filter(|_| !self.router.priority.is_owner())
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct VirtualAddress {
    pub address: IpAddr,
    pub prefix: u8,
    pub scope: Scope,
    /// IPv6 duplicate address detection stays off unless asked for (V-255).
    pub duplicate_detection: bool,
    /// No prefix route for it.
    pub no_prefix_route: bool,
    /// Apart, because few addresses say any of it; [`Self::detail`] changes it.
    pub details: Option<Box<AddressDetails>>,
}

/// What is seldom said of an address.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct AddressDetails {
    /// Device to put it on; the instance's interface when `None`.
    pub device: Option<Name>,
    pub broadcast: Option<IpAddr>,
    pub label: Option<Name>,
}

impl VirtualAddress {
    /// An address with nothing but its prefix length said of it.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        Self {
            address,
            prefix,
            scope: Scope::Global,
            duplicate_detection: false,
            no_prefix_route: false,
            details: None,
        }
    }

    /// Device to put it on; the instance's interface when `None`.
    pub fn device(&self) -> Option<&Name> {
        self.details.as_ref()?.device.as_ref()
    }

    pub fn broadcast(&self) -> Option<IpAddr> {
        self.details.as_ref()?.broadcast
    }

    pub fn label(&self) -> Option<&Name> {
        self.details.as_ref()?.label.as_ref()
    }

    /// Changes what is seldom said of it.
    pub fn detail(&mut self, change: impl FnOnce(&mut AddressDetails)) {
        let mut details = self.details.take().map_or_else(AddressDetails::default, |all| *all);
        change(&mut details);
        self.details = (details != AddressDetails::default()).then(|| Box::new(details));
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

/// Hooks of one instance. State hooks run first, then the generic ones.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Hooks {
    pub master: Vec<Command>,
    pub backup: Vec<Command>,
    pub fault: Vec<Command>,
    pub stop: Vec<Command>,
    /// Called with `INSTANCE NAME STATE PRIORITY` appended.
    pub any: Vec<Command>,
}
