//! Services and destinations as IPVS knows them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::family::IpFamily;
use crate::ip_protocol::IpProtocol;

/// Identity of a service (I-030). IPVS cannot change it: with another address or port it is another
/// service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ServiceId {
    Listener {
        protocol: IpProtocol,
        address: IpAddr,
        port: u16,
    },
    /// Packets that carry this firewall mark.
    Mark {
        family: IpFamily,
        mark: u32,
    },
}

impl ServiceId {
    pub fn listener(protocol: IpProtocol, listen: SocketAddr) -> Self {
        Self::Listener { protocol, address: listen.ip(), port: listen.port() }
    }

    pub fn family(&self) -> IpFamily {
        match self {
            Self::Listener { address, .. } => IpFamily::of(*address),
            Self::Mark { family, .. } => *family,
        }
    }
}

/// As `ipvsadm` users write it: `tcp 192.0.2.10:80`, `fwmark 77 (ipv4)`.
impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener { protocol, address, port } => {
                write!(f, "{} {}", protocol.name(), SocketAddr::new(*address, *port))
            }
            Self::Mark { family: IpFamily::V4, mark } => write!(f, "fwmark {mark} (ipv4)"),
            Self::Mark { family: IpFamily::V6, mark } => write!(f, "fwmark {mark} (ipv6)"),
        }
    }
}

/// Service flags without the kernel's own "hashed" bit (I-014).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ServiceFlags(pub u32);

impl ServiceFlags {
    pub const PERSISTENT: Self = Self(0x1);
    /// UDP: schedule each datagram by itself.
    pub const ONE_PACKET: Self = Self(0x4);
    /// sh and mh: try another server when the chosen one has no weight.
    pub const FALLBACK: Self = Self(0x8);
    /// sh and mh: hash the source port too.
    pub const PORT: Self = Self(0x10);
    /// Of the scheduler: what it means is its own.
    pub const SCHEDULER_3: Self = Self(0x20);

    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A service with all its options.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServiceSpec {
    pub id: ServiceId,
    /// At most 15 octets; its module is loaded on demand by the kernel.
    pub scheduler: String,
    pub flags: ServiceFlags,
    /// Seconds a client stays with its server; has effect with [`ServiceFlags::PERSISTENT`].
    pub persistence_seconds: u32,
    /// Clients of one network of this prefix length persist together: 0..=32 or 1..=128.
    pub client_prefix: u8,
    /// Persistence engine, such as `sip`.
    pub persistence_engine: Option<String>,
}

impl ServiceSpec {
    /// Without persistence.
    pub fn new(id: ServiceId, scheduler: impl Into<String>) -> Self {
        let client_prefix = match id.family() {
            IpFamily::V4 => 32,
            IpFamily::V6 => 128,
        };
        Self {
            id,
            scheduler: scheduler.into(),
            flags: ServiceFlags::default(),
            persistence_seconds: 0,
            client_prefix,
            persistence_engine: None,
        }
    }

    /// Kernel modules that it needs, unless the kernel is built with them.
    pub fn modules(&self) -> Vec<String> {
        let engine = self.persistence_engine.iter().map(|name| engine_module(name));
        std::iter::once(scheduler_module(&self.scheduler)).chain(engine).collect()
    }
}

/// The kernel module of a persistence engine.
pub fn engine_module(name: &str) -> String {
    format!("ip_vs_pe_{name}")
}

/// The kernel module of a scheduler.
pub fn scheduler_module(name: &str) -> String {
    format!("ip_vs_{name}")
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ForwardingMethod {
    /// NAT; the only one that may translate the port (I-016).
    Masq,
    Local,
    Tunnel(Tunnel),
    Direct,
    Bypass,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Tunnel {
    Ipip,
    /// `port` is not zero. `flags`: 0 none, 1 checksum, 2 remote checksum.
    Gue {
        port: u16,
        flags: u16,
    },
    Gre {
        flags: u16,
    },
}

/// Identity of a destination within its service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DestId {
    pub address: IpAddr,
    pub port: u16,
}

impl fmt::Display for DestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// A destination with all its options.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DestSpec {
    pub id: DestId,
    pub forwarding: ForwardingMethod,
    /// 0..=2^31 - 1; 0 takes no new connections (I-040).
    pub weight: u32,
    /// Connections above which it takes no new ones; 0 is no limit.
    pub upper_threshold: u32,
    /// Connections below which it takes new ones again; not above `upper_threshold`.
    pub lower_threshold: u32,
}

impl DestSpec {
    pub fn new(server: SocketAddr, forwarding: ForwardingMethod, weight: u32) -> Self {
        Self {
            id: DestId { address: server.ip(), port: server.port() },
            forwarding,
            weight,
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }
}

/// A service that the kernel has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObservedService {
    pub spec: ServiceSpec,
    pub dests: Vec<ObservedDest>,
    pub traffic: IpvsTraffic,
}

/// Counters of a service or destination since it was added or somebody zeroed them, and the kernel's
/// estimate of the last seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IpvsTraffic {
    /// Connections scheduled.
    pub connections: u64,
    /// New ones.
    pub connections_a_second: u64,
    /// From clients, and to them as far as answers come this way.
    pub octets_in: u64,
    pub octets_out: u64,
    pub octets_in_a_second: u64,
    pub octets_out_a_second: u64,
}

/// A destination that the kernel has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObservedDest {
    pub spec: DestSpec,
    pub active_connections: u32,
    pub inactive_connections: u32,
    pub persistent_connections: u32,
    pub traffic: IpvsTraffic,
}

/// One change in the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    SetService(ServiceSpec),
    NewService(ServiceSpec),
    NewDest(ServiceId, DestSpec),
    SetDest(ServiceId, DestSpec),
    DelDest(ServiceId, DestId),
    /// Takes its destinations with it.
    DelService(ServiceId),
}
