//! What links and addresses do.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

/// Something changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MonitorEvent {
    /// The whole state of a link that is new or has changed; once for each at the beginning, and
    /// for all of them after notifications were lost.
    Link(LinkSnapshot),
    /// It does not exist any more, or has another name now.
    LinkGone { name: Arc<str> },
    /// An address with our mark is gone and this process did not ask for it. `culprit` is the
    /// process that did; `None` when the kernel did it by itself (lifetime over, link down) or
    /// the process could not be found out.
    AddressLost { interface: Arc<str>, address: IpAddr, culprit: Option<String> },
}

/// The whole state of one link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkSnapshot {
    pub name: Arc<str>,
    pub index: u32,
    /// IFF_UP: the operator wants it up.
    pub up: bool,
    /// IFF_UP and IFF_RUNNING: it is up and has carrier.
    pub running: bool,
    /// `None` with IFF_NOARP, or when it is not six octets long, or all zero (G-018).
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    /// Usable as a source and not ours. IPv4 first, primary ones before secondary ones, then IPv6
    /// with link-local ones first; none that is tentative or failed duplicate address detection.
    pub addresses: Vec<IpAddr>,
    /// The link forwards IPv6.
    pub forwards_v6: bool,
}

/// Notifications, in order.
#[derive(Debug)]
pub struct Monitor {}

impl Monitor {
    /// The next event. Cancel-safe. An error is final: the socket is of no use any more.
    pub async fn next(&mut self) -> io::Result<MonitorEvent> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
