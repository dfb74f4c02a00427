//! A raw IP socket on one interface for a protocol that speaks to its link neighbours by
//! multicast or unicast.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

/// What to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdvertSettings {
    pub interface: String,
    /// Index of `interface`; groups are joined by it.
    pub index: u32,
    pub family: Family,
    /// IP protocol number.
    pub protocol: u8,
    /// Multicast group to join, of `family`; `None` for unicast only.
    pub group: Option<IpAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Family {
    V4,
    V6,
}

/// One received datagram; its octets are in the caller's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Octets in the buffer. IPv4: with the IP header. IPv6: the payload only.
    pub len: usize,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IPv4: from the header; IPv6: from the control message, `None` when it is missing.
    pub hop_limit: Option<u8>,
    /// The kernel cut the datagram or its control messages.
    pub truncated: bool,
}

/// Non-blocking: wait for readiness through [`AsFd`].
#[derive(Debug)]
pub struct AdvertSocket {
    socket: socket2::Socket,
}

impl AdvertSocket {
    /// Needs CAP_NET_RAW.
    pub fn open(settings: &AdvertSettings) -> io::Result<Self> {
        let _ = settings;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The next datagram, or `None` when there is none now.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let _ = (&self.socket, buffer);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sends `message` behind an IP header with this source, TTL or hop limit, and DSCP CS6.
    /// `WouldBlock` when the queue of the interface is full: the datagram is lost.
    pub fn send(
        &self,
        source: IpAddr,
        destination: IpAddr,
        ttl: u8,
        message: &[u8],
    ) -> io::Result<()> {
        let _ = (source, destination, ttl, message);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Leaves and joins `group` again, so that the host reports it afresh; harmless when it was
    /// not joined. Call it when the link comes up (V-075).
    pub fn rejoin(&self, group: IpAddr) -> io::Result<()> {
        let _ = group;
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl AsFd for AdvertSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
