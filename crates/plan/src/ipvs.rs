//! What a node asks of IPVS as a whole, beyond the tables of its services.

use std::net::IpAddr;
use std::sync::Arc;

use crate::name::Name;

/// What concerns all services that IPVS serves. `None` and `false` leave the kernel's value as it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct IpvsSettings {
    /// How long the kernel remembers an idle TCP connection: whole seconds, at least 1.
    pub tcp_timeout_s: Option<u32>,
    /// The same once one side has closed it.
    pub tcp_fin_timeout_s: Option<u32>,
    /// The same of UDP.
    pub udp_timeout_s: Option<u32>,
    /// Connections of a server that is gone end with their next packet, instead of losing all of them
    /// silently (net.ipv4.vs.expire_nodest_conn, I-042).
    pub expire_nodest_conn: bool,
    /// Persistent clients of a server without weight go to another one with their next connection
    /// (net.ipv4.vs.expire_quiescent_template, I-041).
    pub expire_quiescent_template: bool,
    /// What becomes of a connection whose client uses its port again: 0..=7, as the kernel documents
    /// net.ipv4.vs.conn_reuse_mode.
    pub conn_reuse_mode: Option<u8>,
    pub sync: Option<ConnectionSync>,
}

/// Connections that the other directors hear of, so that they go on after a failover.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionSync {
    /// The interface between the directors.
    pub interface: Name,
    /// Whose role it follows: its master sends, the others listen.
    pub instance: Name,
    /// The same on all directors; 0 hears all.
    pub id: u8,
    /// Octets of one datagram: 1,024..=65,487.
    pub longest: Option<u16>,
    /// A multicast group.
    pub group: Option<IpAddr>,
    pub port: Option<u16>,
    pub ttl: Option<u8>,
    /// Packets of a connection after which it is sent for the first time, and every how many again:
    /// the first is less than the second (net.ipv4.vs.sync_threshold).
    pub threshold: Option<(u32, u32)>,
    /// Seconds between two messages about the same connection that say the same
    /// (net.ipv4.vs.sync_refresh_period).
    pub refresh_s: Option<u32>,
}

/// What of that is wanted now: a level.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WantedIpvs {
    pub settings: Arc<IpvsSettings>,
    /// What this node does with its connections; `None` is nothing.
    pub sync: Option<SyncRole>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SyncRole {
    /// Sends what becomes of its connections.
    Sender,
    /// Hears of those of the master.
    Receiver,
}
