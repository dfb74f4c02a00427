//! What each backend can serve: one row each. Validation and the choice of a backend read the rows;
//! nothing else in the house says what a backend can do.

use crate::traffic::{Forwarding, Protocol};

/// What the operator wants a service to be served by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BackendChoice {
    /// The first of [`BackendKind::AUTOMATIC`] that can do what the service asks and has here what it needs.
    Auto,
    Only(BackendKind),
}

/// What serves a service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BackendKind {
    Ipvs,
    /// Address translation by the kernel's packet filter.
    Nftables,
    /// The built-in proxy.
    Proxy,
    /// A HAProxy with a configuration made from the service.
    Haproxy,
}

/// What a backend can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    pub kind: BackendKind,
    /// As the configuration writes it.
    pub name: &'static str,
    /// As a sentence for the operator names it.
    pub title: &'static str,
    pub protocols: &'static [Protocol],
    /// Serves one service at several addresses and ports.
    pub listens_on_several: bool,
    /// Serves what a packet filter marked, whatever its address.
    pub listens_on_marks: bool,
    /// Serves every port of an address, or a server's port that follows the client's.
    pub listens_on_all_ports: bool,
    pub forwardings: &'static [Forwarding],
    /// Schedulers it brings along.
    pub schedulers: &'static [&'static str],
    /// Whether others may exist, as kernel modules of the user's own.
    pub has_more_schedulers: bool,
    /// Knows the flags of its schedulers.
    pub has_scheduler_flags: bool,
    /// Keeps a client on its server.
    pub persists: bool,
    /// What may tell one client from another beside the address.
    pub persistence_engines: &'static [&'static str],
    /// Gives each datagram to a server of its own.
    pub sends_one_packet: bool,
    /// Forwards to different servers of a service in different ways.
    pub forwards_by_server: bool,
    /// Ways to wrap packets for a tunnel, by [`crate::Encapsulation::name`].
    pub encapsulations: &'static [&'static str],
    /// Keeps a most of connections for each server.
    pub bounds_servers: bool,
    /// Lets one that had the most have new ones again below another number.
    pub bounds_servers_below: bool,
    /// What it serves on the unspecified address, that is on every address of the host. An answer to a
    /// datagram has to come from the address that was asked.
    pub listens_on_any: &'static [Protocol],
    /// Ways of forwarding that reach a server of the other address family.
    pub crosses_families: &'static [Forwarding],
    /// Keeps limits of connections.
    pub limits_connections: bool,
    /// Reads HTTP.
    pub reads_http: bool,
    /// Ends the TLS of clients, and speaks it to servers.
    pub speaks_tls: bool,
    /// Whose connections it introduces by the PROXY protocol, in and out.
    pub introduces: &'static [Protocol],
    /// Has something to keep ready on a backup.
    pub has_warm_standby: bool,
}

const IPVS: Capabilities = Capabilities {
    kind: BackendKind::Ipvs,
    name: "ipvs",
    title: "IPVS",
    protocols: &[Protocol::Tcp, Protocol::Udp, Protocol::Sctp],
    listens_on_several: true,
    listens_on_marks: true,
    listens_on_all_ports: true,
    forwardings: &[Forwarding::Nat, Forwarding::Direct, Forwarding::Tunnel],
    schedulers: &[
        "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "mh", "dh", "fo", "ovf", "sed", "nq",
        "twos",
    ],
    has_more_schedulers: true,
    has_scheduler_flags: true,
    persists: true,
    persistence_engines: &["sip"],
    sends_one_packet: true,
    forwards_by_server: true,
    encapsulations: &["ipip", "gue", "gre"],
    bounds_servers: true,
    bounds_servers_below: true,
    listens_on_any: &[],
    // I-017: only a tunnel crosses families in the kernel.
    crosses_families: &[Forwarding::Tunnel],
    limits_connections: false,
    reads_http: false,
    speaks_tls: false,
    introduces: &[],
    has_warm_standby: false,
};

const NFTABLES: Capabilities = Capabilities {
    kind: BackendKind::Nftables,
    name: "nftables",
    title: "nftables",
    protocols: &[Protocol::Tcp, Protocol::Udp, Protocol::Sctp],
    listens_on_several: true,
    listens_on_marks: false,
    listens_on_all_ports: false,
    forwardings: &[Forwarding::Nat],
    // It counts no connections, so none that goes by their number.
    schedulers: &["rr", "wrr", "sh", "mh"],
    has_more_schedulers: false,
    has_scheduler_flags: false,
    persists: true,
    persistence_engines: &[],
    sends_one_packet: false,
    forwards_by_server: false,
    encapsulations: &[],
    bounds_servers: false,
    bounds_servers_below: false,
    listens_on_any: &[],
    crosses_families: &[],
    limits_connections: false,
    reads_http: false,
    speaks_tls: false,
    introduces: &[],
    has_warm_standby: false,
};

const PROXY: Capabilities = Capabilities {
    kind: BackendKind::Proxy,
    name: "proxy",
    title: "the built-in proxy",
    protocols: &[Protocol::Tcp, Protocol::Udp],
    listens_on_several: true,
    listens_on_marks: false,
    listens_on_all_ports: false,
    forwardings: &[Forwarding::Nat],
    schedulers: &["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "sh", "mh"],
    has_more_schedulers: false,
    has_scheduler_flags: false,
    persists: true,
    persistence_engines: &[],
    sends_one_packet: true,
    forwards_by_server: false,
    encapsulations: &[],
    bounds_servers: true,
    bounds_servers_below: true,
    listens_on_any: &[Protocol::Tcp],
    crosses_families: &[Forwarding::Nat],
    limits_connections: true,
    reads_http: false,
    speaks_tls: false,
    introduces: &[Protocol::Tcp],
    has_warm_standby: true,
};

/// Whom nobody has asked for a HAProxy does not get one: it is a program of its own, with releases of
/// its own, that may not be there.
const HAPROXY: Capabilities = Capabilities {
    kind: BackendKind::Haproxy,
    name: "haproxy",
    title: "HAProxy",
    protocols: &[Protocol::Tcp],
    listens_on_several: true,
    listens_on_marks: false,
    listens_on_all_ports: false,
    forwardings: &[Forwarding::Nat],
    schedulers: &["rr", "wrr", "lc", "wlc", "fo", "sh", "mh"],
    has_more_schedulers: false,
    has_scheduler_flags: false,
    persists: true,
    persistence_engines: &[],
    sends_one_packet: false,
    forwards_by_server: false,
    encapsulations: &[],
    bounds_servers: true,
    bounds_servers_below: false,
    listens_on_any: &[Protocol::Tcp],
    crosses_families: &[Forwarding::Nat],
    limits_connections: true,
    reads_http: true,
    speaks_tls: true,
    introduces: &[Protocol::Tcp],
    has_warm_standby: true,
};

impl BackendKind {
    pub const ALL: [Self; 4] = [Self::Ipvs, Self::Nftables, Self::Proxy, Self::Haproxy];

    /// Those of an automatic choice, in the order in which it prefers them.
    pub const AUTOMATIC: [Self; 3] = [Self::Ipvs, Self::Nftables, Self::Proxy];

    pub const fn capabilities(self) -> &'static Capabilities {
        match self {
            Self::Ipvs => &IPVS,
            Self::Nftables => &NFTABLES,
            Self::Proxy => &PROXY,
            Self::Haproxy => &HAPROXY,
        }
    }

    /// As the configuration writes it.
    pub const fn name(self) -> &'static str {
        self.capabilities().name
    }
}

impl Capabilities {
    /// Whether it has, or may have, a scheduler of this name.
    pub fn schedules(&self, scheduler: &str) -> bool {
        // IPVS takes this name for a service that sends nobody anywhere.
        let is_none = scheduler == "none";
        self.has_more_schedulers && !is_none || self.schedulers.contains(&scheduler)
    }
}
