//! A raw IP socket on one interface for a protocol that speaks to its link neighbours by
//! multicast or unicast.
//!
//! The kernel delivers what was sent to this host or to the joined group with this protocol number
//! and came in on this interface. What a filter in the kernel takes away is described at
//! [`FILTER`]; everything else, however malformed, is delivered for the caller to count.

use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockaddrStorage;
use nix::sys::socket::recvmsg;
use nix::sys::socket::sendmsg;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;
use socket2::Domain;
use socket2::InterfaceIndexOrAddress;
use socket2::Protocol;
use socket2::SockFilter;
use socket2::Socket;
use socket2::Type;

/// DSCP CS6, network control.
const TRAFFIC_CLASS: u8 = 0xc0;
/// Default for what is sent without a hop limit of its own.
const HOP_LIMIT: u8 = 255;
/// Highest queueing priority; above 6 only with CAP_NET_ADMIN.
const PRIORITY: u32 = 7;
const PRIORITY_UNPRIVILEGED: u32 = 6;
const IPV4_HEADER_OCTETS: usize = 20;
/// More than a receive buffer holds; under a flood there would always be one more.
const MAX_STRANGERS: usize = 1024;

/// Takes away frames that were sent to the broadcast MAC, that the interface only saw because it
/// is in promiscuous mode, or that came round by the loopback. None of them is a datagram sent to
/// this socket by the protocol's rules, so no counter of bad datagrams misses one. Everything the
/// protocol has a discard reason for (hop limit, length, version, checksum, …) passes.
///
/// Not needed in the filter: the protocol number and the interface are the socket's own, fragments
/// are put together before a raw socket sees them.
const FILTER: [SockFilter; 6] = {
    // Codes of the classic BPF: load absolute word, jump if equal, return constant.
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    const BROADCAST: u32 = 1;
    const OTHER_HOST: u32 = 3;
    const LOOPBACK: u32 = 5;
    [
        SockFilter::new(LOAD, 0, 0, PACKET_TYPE),
        SockFilter::new(JUMP_IF_EQUAL, 3, 0, BROADCAST),
        SockFilter::new(JUMP_IF_EQUAL, 2, 0, OTHER_HOST),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, LOOPBACK),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
};

/// What to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdvertSettings {
    pub interface: String,
    /// Index of `interface`; groups are joined by it.
    pub index: u32,
    pub family: Family,
    /// IP protocol number.
    pub protocol: u8,
    /// Multicast groups to join, of `family`; none for unicast only.
    pub groups: Vec<IpAddr>,
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
    /// The kernel cut the datagram or its control messages (V-072).
    pub truncated: bool,
}

/// Non-blocking: wait for readiness through [`AsFd`].
#[derive(Debug)]
pub struct AdvertSocket {
    socket: Socket,
    family: Family,
    protocol: u8,
    index: u32,
}

impl AdvertSocket {
    /// Needs CAP_NET_RAW. Refused when a group is not a multicast address of `family`, or the
    /// interface has no room or no support for it.
    pub fn open(settings: &AdvertSettings) -> io::Result<Self> {
        let AdvertSettings { interface, index, family, protocol, groups } = settings;
        let domain = match family {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let kind = Type::RAW.nonblocking();
        let socket = Socket::new(domain, kind, Some(Protocol::from(i32::from(*protocol))))?;
        socket.attach_filter(&FILTER)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        match family {
            Family::V4 => {
                socket.set_header_included_v4(true)?;
                socket.set_multicast_all_v4(false)?;
                socket.set_multicast_loop_v4(false)?;
            }
            Family::V6 => {
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
        let socket = Self { socket, family: *family, protocol: *protocol, index: *index };
        for group in groups {
            socket.join(*group)?;
        }
        socket.discard_strangers()?;
        Ok(socket)
    }

    /// The next datagram, or `None` when there is none now. After an error such as "network is
    /// down" the socket goes on working when the interface does.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut control = cmsg_space!(libc::in6_pktinfo, libc::c_int);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.as_raw_fd();
        let message = loop {
            match recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control), flags) {
                Ok(message) => break message,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        let cut = MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC;
        let mut received = Received {
            len: message.bytes,
            source: message.address.as_ref().map_or(self.unspecified(), ip_of),
            destination: self.unspecified(),
            hop_limit: None,
            truncated: message.flags.intersects(cut),
        };
        // Of control messages that do not fit, none can be trusted.
        if let Ok(messages) = message.cmsgs() {
            for message in messages {
                match message {
                    ControlMessageOwned::Ipv6PacketInfo(info) => {
                        received.destination = Ipv6Addr::from(info.ipi6_addr.s6_addr).into();
                    }
                    ControlMessageOwned::Ipv6HopLimit(limit) => {
                        received.hop_limit = u8::try_from(limit).ok();
                    }
                    // Nothing else was asked for.
                    _ => {}
                }
            }
        }
        if self.family == Family::V4 {
            read_header(&buffer[..received.len], &mut received);
        }
        Ok(Some(received))
    }

    /// Sends `message` behind an IP header with this source, TTL or hop limit, and DSCP CS6.
    /// Multicast and unicast both leave by this interface. `WouldBlock` when the send buffer is full:
    /// the datagram is lost.
    pub fn send(
        &self,
        source: IpAddr,
        destination: IpAddr,
        ttl: u8,
        message: &[u8],
    ) -> io::Result<()> {
        let mut flags = MsgFlags::MSG_DONTWAIT;
        if destination.is_multicast() {
            // A neighbour is never behind a router.
            flags |= MsgFlags::from_bits_retain(libc::MSG_DONTROUTE);
        }
        let fd = self.socket.as_raw_fd();
        match (self.family, source, destination) {
            (Family::V4, IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = self.header(source, destination, ttl, message.len())?;
                let to = SockaddrStorage::from(SocketAddr::from((destination, 0)));
                let slices = [IoSlice::new(&header), IoSlice::new(message)];
                sendmsg(fd, &slices, &[], flags, Some(&to))?;
            }
            (Family::V6, IpAddr::V6(source), IpAddr::V6(destination)) => {
                let to = std::net::SocketAddrV6::new(destination, 0, 0, self.index);
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
                    ipi6_ifindex: self.index,
                };
                let limit = libc::c_int::from(ttl);
                let control =
                    [ControlMessage::Ipv6PacketInfo(&info), ControlMessage::Ipv6HopLimit(&limit)];
                let to = SockaddrStorage::from(SocketAddr::V6(to));
                sendmsg(fd, &[IoSlice::new(message)], &control, flags, Some(&to))?;
            }
            _ => return Err(wrong_family()),
        }
        Ok(())
    }

    /// Leaves and joins `group` again, so that the host reports it afresh; harmless when it was
    /// not joined. Call it when the link comes up (V-075).
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
            (Family::V4, IpAddr::V4(group)) => {
                self.socket.join_multicast_v4_n(&group, &self.by_index())
            }
            (Family::V6, IpAddr::V6(group)) => self.socket.join_multicast_v6(&group, self.index),
            (Family::V4, IpAddr::V6(_)) | (Family::V6, IpAddr::V4(_)) => Err(wrong_family()),
        }
    }

    /// Between its creation and its binding the socket hears every interface. Whatever came in
    /// until now goes: from one of our own peers it comes again.
    fn discard_strangers(&self) -> io::Result<()> {
        for _ in 0..MAX_STRANGERS {
            if self.recv(&mut [0; IPV4_HEADER_OCTETS])?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn by_index(&self) -> InterfaceIndexOrAddress {
        InterfaceIndexOrAddress::Index(self.index)
    }

    fn unspecified(&self) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// The kernel fills in identification and checksum.
    fn header(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        ttl: u8,
        message_octets: usize,
    ) -> io::Result<[u8; IPV4_HEADER_OCTETS]> {
        const VERSION_AND_LENGTH: u8 = 0x45;
        let too_long = |_| io::Error::from_raw_os_error(libc::EMSGSIZE);
        let total = u16::try_from(IPV4_HEADER_OCTETS + message_octets).map_err(too_long)?;
        let mut header = [0; IPV4_HEADER_OCTETS];
        header[0] = VERSION_AND_LENGTH;
        header[1] = TRAFFIC_CLASS;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[8] = ttl;
        header[9] = self.protocol;
        header[12..16].copy_from_slice(&source.octets());
        header[16..20].copy_from_slice(&destination.octets());
        Ok(header)
    }
}

impl AsFd for AdvertSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn wrong_family() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "address is not of the socket's family")
}

/// Fills in what an IPv4 header says; a raw socket delivers at least the fixed part of it.
fn read_header(octets: &[u8], received: &mut Received) {
    let Some(header) = octets.first_chunk::<IPV4_HEADER_OCTETS>() else { return };
    received.hop_limit = Some(header[8]);
    received.source = Ipv4Addr::new(header[12], header[13], header[14], header[15]).into();
    received.destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]).into();
}

fn ip_of(address: &SockaddrStorage) -> IpAddr {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => v4.ip().into(),
        (None, Some(v6)) => v6.ip().into(),
        (None, None) => Ipv4Addr::UNSPECIFIED.into(),
    }
}
