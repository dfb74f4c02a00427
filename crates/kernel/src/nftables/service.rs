//! A service balanced by address translation, as whoever wants it says it. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::conntrack::{KeptConnections, NatListener};
use crate::family::IpFamily;

/// A service and its servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatService {
    /// At least one, all of one family, and each of no other service.
    pub listeners: Vec<NatListener>,
    pub selection: NatSelection,
    pub persistence: Option<NatPersistence>,
    /// Of the family of the listeners.
    pub servers: Vec<NatServer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NatServer {
    pub address: SocketAddr,
    /// With 0 it keeps its connections and gets no new ones.
    pub weight: u32,
}

/// How a server is chosen for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NatSelection {
    /// One after the other, whatever their weights.
    Turns,
    WeightedTurns,
    /// By the client's address.
    SourceHash,
    /// The same, and a server that leaves takes few clients of others along.
    ConsistentHash,
}

/// A client stays with its server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NatPersistence {
    /// From its last new connection on.
    pub timeout: Duration,
    /// Clients that are equal in so many leading bits stay together; of an IPv4 address 32 and more
    /// are the whole of it.
    pub prefix: u8,
}

impl NatService {
    pub(super) fn family(&self) -> Option<IpFamily> {
        self.listeners.first().map(|listener| IpFamily::of(listener.address.ip()))
    }

    /// A name that `nft` can read, of no other service.
    pub(super) fn chain(&self) -> String {
        let Some(NatListener { protocol, address }) = self.listeners.first() else {
            return String::new();
        };
        let (protocol, port) = (protocol.name(), address.port());
        match address.ip() {
            IpAddr::V4(address) => format!("{protocol}-{address}-{port}"),
            IpAddr::V6(address) => {
                let parts = address.segments().map(|segment| format!("{segment:x}"));
                format!("{protocol}-{}-{port}", parts.join("."))
            }
        }
    }

    /// Each listener with the servers whose connections go on.
    pub(super) fn kept(&self) -> Vec<KeptConnections> {
        let servers: BTreeSet<_> = self.servers.iter().map(|server| server.address).collect();
        let kept = |listener: &NatListener| KeptConnections {
            listener: *listener,
            servers: servers.clone(),
        };
        self.listeners.iter().map(kept).collect()
    }

    /// Whether connections that `before` may have made go on no more with this one.
    pub(super) fn leaves_behind(&self, before: &Self) -> bool {
        let has = |server: &NatServer| self.servers.iter().any(|it| it.address == server.address);
        self.listeners != before.listeners || !before.servers.iter().all(has)
    }
}
