//! A raw IP socket on one interface for a protocol that speaks to its link neighbours by
//! multicast or unicast.
//!
//! The kernel delivers what was sent to this host or to a joined group with this protocol number,
//! came in on this interface, and passes the socket's [`filter`]; however malformed it is, the
//! caller gets it, to count it. Many datagrams are read and sent by one system call ([`batch`]).

pub mod batch;
mod family;
pub mod filter;

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;
use socket2::Domain;
use socket2::InterfaceIndexOrAddress;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;

use family::IPV4_HEADER_OCTETS;
use family::wrong_family;

pub use crate::family::IpFamily;
pub use batch::Outgoing;
pub use batch::ReceiveBatch;
pub use batch::Received;
pub use batch::SendBatch;
pub use filter::Filter;

/// DSCP CS6, network control.
const TRAFFIC_CLASS: u8 = 0xc0;
/// Default for what is sent without a hop limit of its own.
const HOP_LIMIT: u8 = 255;
/// Highest queueing priority; above 6 only with CAP_NET_ADMIN.
const PRIORITY: u32 = 7;
const PRIORITY_UNPRIVILEGED: u32 = 6;
/// Reads, of a batch each, of what came before a new socket was deaf: more than its buffer holds.
const MAX_STRANGERS: usize = 64;

/// What to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdvertSettings {
    pub interface: String,
    /// Index of `interface`; groups are joined by it.
    pub index: u32,
    pub family: IpFamily,
    /// IP protocol number.
    pub protocol: u8,
    /// Multicast groups to join, of `family`; none for unicast only.
    pub groups: Vec<IpAddr>,
    pub filter: Filter,
    /// Octets of received datagrams that may wait, as the kernel counts them: for each a good half
    /// kilobyte more than its own.
    pub receive_buffer: usize,
}

/// Non-blocking: wait for readiness through [`AsFd`].
#[derive(Debug)]
pub struct AdvertSocket {
    socket: Socket,
    family: IpFamily,
    protocol: u8,
    index: u32,
}

impl AdvertSocket {
    /// Needs CAP_NET_RAW. Refused when a group is not a multicast address of `family`, or the
    /// interface has no room or no support for it. Joining waits for the kernel's lock on its
    /// interfaces, and so does closing a socket that has joined.
    ///
    /// Nothing but what passes the filter is ever received: until everything else is in place the
    /// socket is deaf.
    pub fn open(settings: &AdvertSettings) -> io::Result<Self> {
        let AdvertSettings { interface, index, family, protocol, groups, .. } = settings;
        let domain = match family {
            IpFamily::V4 => Domain::IPV4,
            IpFamily::V6 => Domain::IPV6,
        };
        let kind = Type::RAW.nonblocking();
        let socket = Socket::new(domain, kind, Some(Protocol::from(i32::from(*protocol))))?;
        socket.attach_filter(&filter::DEAF)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        match family {
            IpFamily::V4 => {
                socket.set_header_included_v4(true)?;
                socket.set_multicast_all_v4(false)?;
                socket.set_multicast_loop_v4(false)?;
            }
            IpFamily::V6 => {
                socket.set_multicast_all_v6(false)?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_if_v6(*index)?;
                socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
                socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
                socket.set_tclass_v6(TRAFFIC_CLASS.into())?;
                socket.set_recv_hoplimit_v6(true)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
        }
        // It only matters on a congested interface.
        if socket.set_priority(PRIORITY).is_err() {
            let _ = socket.set_priority(PRIORITY_UNPRIVILEGED);
        }
        grow(&socket, settings.receive_buffer);
        let socket = Self { socket, family: *family, protocol: *protocol, index: *index };
        for group in groups {
            socket.join(*group)?;
        }
        socket.discard_strangers()?;
        socket.attach(&settings.filter)?;
        Ok(socket)
    }

    /// Replaces the filter. Each datagram meets the old one or the new one; what has been received
    /// already stays.
    pub fn attach(&self, filter: &Filter) -> io::Result<()> {
        self.socket.attach_filter(&filter::program(self.family, filter))
    }

    /// Receives what there is now, at most one batch. After an error such as "network is down" the
    /// socket goes on working when the interface does.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<()> {
        batch.receive(self.socket.as_fd(), self.family)
    }

    /// Sends each message behind an IP header with its source and TTL or hop limit, and DSCP CS6.
    /// Multicast and unicast both leave by this interface. One that fails does not stop the others:
    /// `failed` hears its position and why. `WouldBlock` is a full send buffer: it is lost.
    pub fn send(
        &self,
        batch: &mut SendBatch,
        messages: &[Outgoing<'_>],
        failed: impl FnMut(usize, io::Error),
    ) {
        let sender = batch::Sender {
            socket: self.socket.as_fd(),
            family: self.family,
            index: self.index,
            protocol: self.protocol,
            traffic_class: TRAFFIC_CLASS,
        };
        batch.send(&sender, messages, failed);
    }

    /// Leaves and joins `group` again, so that the host reports it afresh; harmless when it was
    /// not joined. Call it when the link comes up (V-075). It waits like [`AdvertSocket::open`].
    pub fn rejoin(&self, group: IpAddr) -> io::Result<()> {
        // It may not have been joined, or been left with a link that went away.
        let _ = match group {
            IpAddr::V4(group) => self.socket.leave_multicast_v4_n(&group, &self.by_index()),
            IpAddr::V6(group) => self.socket.leave_multicast_v6(&group, self.index),
        };
        self.join(group)
    }

    fn join(&self, group: IpAddr) -> io::Result<()> {
        match (self.family, group) {
            (IpFamily::V4, IpAddr::V4(group)) => {
                self.socket.join_multicast_v4_n(&group, &self.by_index())
            }
            (IpFamily::V6, IpAddr::V6(group)) => self.socket.join_multicast_v6(&group, self.index),
            (IpFamily::V4, IpAddr::V6(_)) | (IpFamily::V6, IpAddr::V4(_)) => Err(wrong_family()),
        }
    }

    /// Between its creation and its deafness the socket hears every interface. That goes.
    fn discard_strangers(&self) -> io::Result<()> {
        let mut batch = ReceiveBatch::new(IPV4_HEADER_OCTETS);
        for _ in 0..MAX_STRANGERS {
            self.receive(&mut batch)?;
            if !batch.is_full() {
                break;
            }
        }
        Ok(())
    }

    fn by_index(&self) -> InterfaceIndexOrAddress {
        InterfaceIndexOrAddress::Index(self.index)
    }
}

impl AsFd for AdvertSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Beyond the host's limit only with CAP_NET_ADMIN; what it grants will have to do.
fn grow(socket: &Socket, octets: usize) {
    // The kernel doubles what is asked for, to have room for its own.
    let octets = octets / 2;
    if setsockopt(socket, sockopt::RcvBufForce, &octets).is_err() {
        let _ = socket.set_recv_buffer_size(octets);
    }
}
