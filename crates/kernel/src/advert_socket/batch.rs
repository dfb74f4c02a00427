//! Many datagrams in one system call: buffers for `recvmmsg` and `sendmmsg`, allocated once.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::ptr;

use super::family::IPV4_HEADER_OCTETS;
use super::family::wrong_family;
use crate::family::IpFamily;

/// Datagrams in one system call: a turn through the kernel costs about as much as one of them.
const BATCH: usize = 32;

/// Room for the control messages of one datagram: an `in6_pktinfo` and a hop limit. An IPv4 header
/// fits too.
const CONTROL_OCTETS: usize =
    control_space(size_of::<libc::in6_pktinfo>()) + control_space(size_of::<libc::c_int>());

/// Octets of a control message with a value of this length, up to where the next one begins.
const fn control_space(value: usize) -> usize {
    (size_of::<libc::cmsghdr>() + value).next_multiple_of(align_of::<libc::cmsghdr>())
}

/// Aligned as the headers of control messages have to be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct ControlOctets([u8; CONTROL_OCTETS]);

const EMPTY: ControlOctets = ControlOctets([0; CONTROL_OCTETS]);

/// What is known of one received datagram beside its octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IPv4: from the header; IPv6: from the control message, `None` when it is missing.
    pub hop_limit: Option<u8>,
    /// The kernel cut the datagram or its control messages (V-072).
    pub truncated: bool,
}

/// Buffers for what one call receives.
pub struct ReceiveBatch {
    /// Of one slot.
    octets: usize,
    data: Vec<u8>,
    names: Vec<libc::sockaddr_in6>,
    controls: Vec<ControlOctets>,
    slices: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    received: usize,
    family: IpFamily,
}

impl ReceiveBatch {
    /// `octets` is the longest datagram expected; longer ones are cut and marked.
    pub fn new(octets: usize) -> Self {
        // SAFETY: all members are integers or arrays of integers, for which zero is valid.
        let name: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
        // SAFETY: all members are integers or pointers, for which zero is valid.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Self {
            octets,
            data: vec![0; octets * BATCH],
            names: vec![name; BATCH],
            controls: vec![EMPTY; BATCH],
            slices: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH],
            headers: vec![header; BATCH],
            received: 0,
            family: IpFamily::V4,
        }
    }

    /// Whether the last call filled every slot, so that there may be more.
    pub fn is_full(&self) -> bool {
        self.received == BATCH
    }

    pub fn is_empty(&self) -> bool {
        self.received == 0
    }

    /// What the last call received, with its octets. IPv4: with the IP header. IPv6: the message
    /// alone.
    pub fn iter(&self) -> impl Iterator<Item = (Received, &[u8])> {
        (0..self.received).map(|slot| self.slot(slot))
    }

    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, family: IpFamily) -> io::Result<()> {
        self.family = family;
        self.received = 0;
        self.point();
        let flags = libc::MSG_DONTWAIT;
        let count = loop {
            // SAFETY: each header points to a slice of the size it says, and the slice to a slot of
            // `data`; for IPv6 also to a name and a control buffer. All of them are owned by `self`,
            // borrowed exclusively, and not moved during the call. The kernel accepts no time limit
            // here.
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    BATCH as libc::c_uint,
                    flags,
                    ptr::null_mut(),
                )
            };
            match usize::try_from(count) {
                Ok(count) => break count,
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error if error.kind() == io::ErrorKind::WouldBlock => break 0,
                    error => return Err(error),
                },
            }
        };
        self.received = count.min(BATCH);
        Ok(())
    }

    /// Gives the kernel all of every buffer: it has shortened those it used.
    fn point(&mut self) {
        let data = self.data.chunks_exact_mut(self.octets);
        for (slice, octets) in self.slices.iter_mut().zip(data) {
            *slice = libc::iovec { iov_base: octets.as_mut_ptr().cast(), iov_len: octets.len() };
        }
        let slots = self.headers.iter_mut().zip(&mut self.slices);
        let slots = slots.zip(self.names.iter_mut().zip(&mut self.controls));
        for ((header, slice), (name, control)) in slots {
            header.msg_len = 0;
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_flags = 0;
            match self.family {
                // The IP header comes with the datagram and says it all.
                IpFamily::V4 => {
                    header.msg_hdr.msg_name = ptr::null_mut();
                    header.msg_hdr.msg_namelen = 0;
                    header.msg_hdr.msg_control = ptr::null_mut();
                    header.msg_hdr.msg_controllen = 0;
                }
                IpFamily::V6 => {
                    header.msg_hdr.msg_name = ptr::from_mut(name).cast();
                    header.msg_hdr.msg_namelen = size_of_val(name) as libc::socklen_t;
                    header.msg_hdr.msg_control = ptr::from_mut(control).cast();
                    header.msg_hdr.msg_controllen = CONTROL_OCTETS as _;
                }
            }
        }
    }

    fn slot(&self, slot: usize) -> (Received, &[u8]) {
        let header = &self.headers[slot];
        let data = &self.data[slot * self.octets..(slot + 1) * self.octets];
        let octets = &data[..data.len().min(header.msg_len as usize)];
        let cut = libc::MSG_TRUNC | libc::MSG_CTRUNC;
        let mut received = Received {
            source: Ipv4Addr::UNSPECIFIED.into(),
            destination: Ipv4Addr::UNSPECIFIED.into(),
            hop_limit: None,
            truncated: header.msg_hdr.msg_flags & cut != 0,
        };
        match self.family {
            IpFamily::V4 => read_header(octets, &mut received),
            IpFamily::V6 => {
                received.source = Ipv6Addr::from(self.names[slot].sin6_addr.s6_addr).into();
                received.destination = Ipv6Addr::UNSPECIFIED.into();
                read_control(&self.controls[slot], &header.msg_hdr, &mut received);
            }
        }
        (received, octets)
    }
}

/// Fills in what an IPv4 header says; a raw socket delivers at least the fixed part of it.
fn read_header(octets: &[u8], received: &mut Received) {
    let Some(header) = octets.first_chunk::<IPV4_HEADER_OCTETS>() else { return };
    received.hop_limit = Some(header[8]);
    received.source = Ipv4Addr::new(header[12], header[13], header[14], header[15]).into();
    received.destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]).into();
}

/// Fills in what the control messages say: length (of the machine's word), level and type, then the
/// value. Of messages that do not fit the rest is missing.
fn read_control(control: &ControlOctets, header: &libc::msghdr, received: &mut Received) {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let length = CONTROL_OCTETS.min(header.msg_controllen);
    let mut rest = &control.0[..length];
    while rest.len() >= HEADER {
        // SAFETY: there are enough octets for one, all of whose values are valid; it need not be
        // aligned.
        let message: libc::cmsghdr = unsafe { ptr::read_unaligned(rest.as_ptr().cast()) };
        let length = message.cmsg_len as usize;
        let Some(value) = rest.get(HEADER..length) else { return };
        match (message.cmsg_level, message.cmsg_type) {
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(address) = value.first_chunk::<16>() {
                    received.destination = Ipv6Addr::from(*address).into();
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                let limit = value.first_chunk::<4>().map(|limit| i32::from_ne_bytes(*limit));
                received.hop_limit = limit.and_then(|limit| u8::try_from(limit).ok());
            }
            // Nothing else was asked for.
            _ => {}
        }
        let Some(next) = rest.get(control_space(value.len())..) else { return };
        rest = next;
    }
}

/// One datagram to send. The socket adds the IP header.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    pub message: &'a [u8],
}

/// Buffers for what one call sends.
#[derive(Default)]
pub struct SendBatch {
    names: Vec<SocketName>,
    /// IPv4: the header. IPv6: the control messages.
    fronts: Vec<ControlOctets>,
    slices: Vec<[libc::iovec; 2]>,
    headers: Vec<libc::mmsghdr>,
}

/// Destination of a datagram, for the kernel.
enum SocketName {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

/// What all datagrams of a socket have in common.
pub(super) struct Sender<'a> {
    pub socket: BorrowedFd<'a>,
    pub family: IpFamily,
    pub index: u32,
    pub protocol: u8,
    pub traffic_class: u8,
}

impl SendBatch {
    /// Sends all of them, in order. One that fails does not stop the others: `failed` hears its
    /// position and why.
    pub(super) fn send(
        &mut self,
        sender: &Sender<'_>,
        messages: &[Outgoing<'_>],
        mut failed: impl FnMut(usize, io::Error),
    ) {
        let mut next = 0;
        while next < messages.len() {
            let multicast = messages[next].destination.is_multicast();
            let alike = messages[next..].iter().take(BATCH);
            let alike = alike.take_while(|one| one.destination.is_multicast() == multicast);
            let end = next + alike.count();
            match self.send_some(sender, &messages[next..end], multicast) {
                Ok(sent) => next += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel stops before the one it does not take.
                Err(error) => {
                    failed(next, error);
                    next += 1;
                }
            }
        }
    }

    /// Sends as many as the kernel takes, at least one.
    fn send_some(
        &mut self,
        sender: &Sender<'_>,
        messages: &[Outgoing<'_>],
        multicast: bool,
    ) -> io::Result<usize> {
        self.names.clear();
        self.fronts.clear();
        for message in messages {
            let (name, front) = match addressed(sender, message) {
                Ok(addressed) => addressed,
                // What stands before it goes first; then it is the first, and its error is told.
                Err(error) if self.names.is_empty() => return Err(error),
                Err(_) => break,
            };
            self.names.push(name);
            self.fronts.push(front);
        }
        self.point(messages);
        let mut flags = libc::MSG_DONTWAIT;
        if multicast {
            // A neighbour is never behind a router.
            flags |= libc::MSG_DONTROUTE;
        }
        // SAFETY: there are as many headers as is said. Each points to one address and one or two
        // slices of the sizes it says, and for IPv6 to control messages; all are owned by `self` or
        // by `messages`, outlive the call and do not move in between. The kernel only reads through
        // them and writes `msg_len` of the headers.
        let sent = unsafe {
            libc::sendmmsg(
                sender.socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                flags,
            )
        };
        match usize::try_from(sent) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => Ok(sent),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Makes the headers for all `names`.
    fn point(&mut self, messages: &[Outgoing<'_>]) {
        self.slices.clear();
        self.headers.clear();
        for (front, message) in self.fronts.iter_mut().zip(messages) {
            let front =
                libc::iovec { iov_base: front.0.as_mut_ptr().cast(), iov_len: IPV4_HEADER_OCTETS };
            let message = libc::iovec {
                iov_base: message.message.as_ptr().cast_mut().cast(),
                iov_len: message.message.len(),
            };
            self.slices.push([front, message]);
        }
        for (name, slices) in self.names.iter_mut().zip(&mut self.slices) {
            // SAFETY: all members are integers or pointers, for which zero is valid.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            let message = &mut header.msg_hdr;
            match name {
                SocketName::V4(name) => {
                    message.msg_name = ptr::from_mut(name).cast();
                    message.msg_namelen = size_of_val(name) as libc::socklen_t;
                    message.msg_iov = slices.as_mut_ptr();
                    message.msg_iovlen = 2;
                }
                SocketName::V6(name) => {
                    message.msg_name = ptr::from_mut(name).cast();
                    message.msg_namelen = size_of_val(name) as libc::socklen_t;
                    message.msg_control = slices[0].iov_base;
                    message.msg_iov = &mut slices[1];
                    message.msg_iovlen = 1;
                    message.msg_controllen = CONTROL_OCTETS as _;
                }
            }
            self.headers.push(header);
        }
    }
}

fn addressed(
    sender: &Sender<'_>,
    message: &Outgoing<'_>,
) -> io::Result<(SocketName, ControlOctets)> {
    match (sender.family, message.source, message.destination) {
        (IpFamily::V4, IpAddr::V4(source), IpAddr::V4(destination)) => {
            let front = ipv4_header(sender, source, destination, message)?;
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: 0,
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(destination.octets()) },
                sin_zero: [0; 8],
            };
            Ok((SocketName::V4(name), front))
        }
        (IpFamily::V6, IpAddr::V6(source), IpAddr::V6(destination)) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: 0,
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: destination.octets() },
                sin6_scope_id: sender.index,
            };
            Ok((SocketName::V6(name), ipv6_control(sender.index, source, message.ttl)))
        }
        (IpFamily::V4 | IpFamily::V6, _, _) => Err(wrong_family()),
    }
}

/// The kernel fills in identification and checksum.
fn ipv4_header(
    sender: &Sender<'_>,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    message: &Outgoing<'_>,
) -> io::Result<ControlOctets> {
    const VERSION_AND_LENGTH: u8 = 0x45;
    let too_long = |_| io::Error::from_raw_os_error(libc::EMSGSIZE);
    let total = IPV4_HEADER_OCTETS + message.message.len();
    let total = u16::try_from(total).map_err(too_long)?;
    let mut control = EMPTY;
    let header = &mut control.0;
    header[0] = VERSION_AND_LENGTH;
    header[1] = sender.traffic_class;
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[8] = message.ttl;
    header[9] = sender.protocol;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    Ok(control)
}

/// Source, interface and hop limit.
fn ipv6_control(index: u32, source: Ipv6Addr, hop_limit: u8) -> ControlOctets {
    let mut value = [0; size_of::<libc::in6_pktinfo>()];
    value[..16].copy_from_slice(&source.octets());
    value[16..].copy_from_slice(&index.to_ne_bytes());
    let mut control = EMPTY;
    let used = put_control(&mut control.0, libc::IPV6_PKTINFO, &value);
    let limit = libc::c_int::from(hop_limit).to_ne_bytes();
    put_control(&mut control.0[used..], libc::IPV6_HOPLIMIT, &limit);
    control
}

/// Writes one control message; the octets it takes.
fn put_control(room: &mut [u8], kind: libc::c_int, value: &[u8]) -> usize {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    const LEVEL: usize = size_of::<usize>();
    let length = HEADER + value.len();
    room[..LEVEL].copy_from_slice(&length.to_ne_bytes());
    room[LEVEL..LEVEL + 4].copy_from_slice(&libc::IPPROTO_IPV6.to_ne_bytes());
    room[LEVEL + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
    room[HEADER..length].copy_from_slice(value);
    control_space(value.len())
}
