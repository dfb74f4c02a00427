//! Listens to what the kernel tells about links and addresses, and keeps the observed table true.
//!
//! ```text
//!   notification ──► observed ──► changed? ──► event
//!   overrun ───────► dump ───────────┘
//! ```
//!
//! The kernel drops notifications when they come faster than they are read, and says so. Then
//! everything is dumped and reported again: a listener that takes each event as a level is right
//! afterwards.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::{fs, io};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::address::FoundAddress;
use super::filter::drop_own_renewals;
use super::links::{KernelLink, LinkSnapshot};
use super::observed::{LostAddress, Observed};
use super::switch::is_switched_on;
use crate::attribute::attributes;
use crate::transport::{
    DATAGRAM_OCTETS, NetlinkMessage, NetlinkMessages, NetlinkTransport, Raw, receive,
};

/// Multicast groups: links, addresses of both families, IPv6 forwarding switches.
const GROUPS: [u32; 4] = [1, 5, 9, 25];
const RTM_NEWNETCONF: u16 = 80;
const NETCONFA_IFINDEX: u16 = 1;
/// struct netconfmsg with its padding.
const NETCONF_HEADER_OCTETS: usize = 4;
/// struct ifinfomsg, all zero: every link.
const ALL_LINKS: [u8; 16] = [0; 16];
/// struct ifaddrmsg, all zero: addresses of every family on every link.
const ALL_ADDRESSES: [u8; 8] = [0; 8];
/// Room for some 1000 notifications: a batch of removals takes 128, or 256 if each one takes
/// another address of its subnet along.
const RECEIVE_BUFFER_OCTETS: usize = 1 << 20;
/// Datagrams read in a row. Others wait while somebody changes addresses without end.
const DRAIN_DATAGRAMS: usize = 4096;

/// Something changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MonitorEvent {
    /// The whole state of a link that is new or has changed; once for each at the beginning, and
    /// for all of them after notifications were lost. Several changes in a row may be one event.
    Link(LinkSnapshot),
    /// It does not exist any more, or has another name now.
    LinkGone { name: Arc<str> },
    /// An address that our [`Netlink`](super::Netlink) holds, with our mark or counted as
    /// held, is gone and we did not ask for it.
    AddressLost {
        interface: Arc<str>,
        address: IpAddr,
        /// Who asked for it, as "name (pid 123)". `None` when the kernel did it by itself (lifetime
        /// over, link down), and for every IPv6 address: there the kernel does not tell.
        culprit: Option<String>,
    },
}

/// An IPv4 address that the kernel removed within a request of ours.
#[derive(Debug)]
pub(crate) struct Removed {
    pub found: FoundAddress,
    /// As the kernel described it: what puts it back.
    pub body: Vec<u8>,
}

/// The socket that notifications come from, and what they have told.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: AsyncFd<Socket>,
    /// Port of the socket that changes addresses for us.
    own_port: u32,
    pub observed: Observed,
    /// What our own requests removed, until it is taken.
    pub removed: Vec<Removed>,
    events: VecDeque<MonitorEvent>,
    /// Something was missed, or the kernel contradicts the table: only a dump tells what is there.
    pub stale: bool,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Subscribes; what is there is dumped afterwards, so that nothing falls between.
    pub(crate) fn open(observed: Observed, own_port: u32) -> io::Result<Self> {
        Ok(Self {
            socket: subscribe(own_port)?,
            own_port,
            observed,
            removed: Vec::new(),
            events: VecDeque::new(),
            stale: true,
            buffer: Vec::with_capacity(DATAGRAM_OCTETS),
        })
    }

    /// Subscribes anew, and goes on with what is known. After an error the old socket stays.
    pub(crate) fn reopen(&mut self, own_port: u32) -> io::Result<()> {
        self.socket = subscribe(own_port)?;
        self.own_port = own_port;
        self.forget_removed();
        self.stale = true;
        Ok(())
    }

    /// The next event. Cancel-safe.
    pub(crate) async fn next(
        &mut self,
        transport: &mut NetlinkTransport,
    ) -> io::Result<MonitorEvent> {
        loop {
            self.synchronise(transport)?;
            if self.events.is_empty() {
                let changed = self.observed.changed_links();
                self.events.extend(changed.into_iter().map(MonitorEvent::Link));
            }
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let buffer = &mut self.buffer;
            let read = |socket: &Socket| receive(socket, buffer);
            let outcome = self.socket.async_io(Interest::READABLE, read).await;
            self.take(outcome)?;
            // Several changes of one link are one event.
            self.drain()?;
        }
    }

    /// Makes the table true: reads what the kernel has told, and looks for itself if something was
    /// missed.
    pub(crate) fn catch_up(&mut self, transport: &mut NetlinkTransport) -> io::Result<()> {
        self.drain()?;
        self.synchronise(transport)
    }

    /// Reads what the kernel has told, without waiting for more.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        for _ in 0..DRAIN_DATAGRAMS {
            match receive(self.socket.get_ref(), &mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                outcome => self.take(outcome)?,
            }
        }
        Ok(())
    }

    /// What one reading of the socket brought.
    fn take(&mut self, outcome: io::Result<bool>) -> io::Result<()> {
        match outcome {
            Ok(true) => self.take_datagram(),
            Ok(false) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                tracing::warn!("netlink notifications were lost, reading all links and addresses");
                self.stale = true;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// If something was missed, makes the table equal to the kernel and reports everything again.
    fn synchronise(&mut self, transport: &mut NetlinkTransport) -> io::Result<()> {
        if !self.stale {
            return Ok(());
        }
        // What is still queued is older than the dump that follows.
        self.drain()?;
        let messages = transport.dump(libc::RTM_GETLINK, &ALL_LINKS)??;
        let links: Vec<_> =
            messages.iter().filter_map(|message| KernelLink::parse(&message.body)).collect();
        let found = addresses(transport)?;
        self.stale = false;

        for index in self.observed.link_indices() {
            if links.iter().all(|link| link.index != index) {
                self.link_gone(index);
            }
        }
        for link in links {
            self.link_seen(link);
        }
        for lost in self.observed.replace_addresses(found) {
            self.lost(lost, None);
        }
        self.observed.report_all_links();
        Ok(())
    }

    fn take_datagram(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        for raw in NetlinkMessages(&buffer) {
            self.take_message(&raw);
        }
        self.buffer = buffer;
    }

    fn take_message(&mut self, raw: &Raw<'_>) {
        match raw.kind {
            libc::RTM_NEWLINK => {
                if let Some(link) = KernelLink::parse(raw.body) {
                    self.link_seen(link);
                }
            }
            libc::RTM_DELLINK => {
                if let Some(link) = KernelLink::parse(raw.body) {
                    self.link_gone(link.index);
                }
            }
            libc::RTM_NEWADDR => {
                if let Some(found) = FoundAddress::parse(raw.body) {
                    self.observed.set_address(found);
                }
            }
            libc::RTM_DELADDR => {
                if let Some(found) = FoundAddress::parse(raw.body) {
                    self.address_gone(found, raw);
                }
            }
            RTM_NEWNETCONF => {
                let index = netconf_index(raw.body);
                if let Some((index, name)) =
                    index.and_then(|at| Some((at, self.observed.name(at)?)))
                {
                    self.observed.set_forwarding(index, forwards_v6(&name));
                }
            }
            // The groups also carry what we have no use for.
            _ => {}
        }
    }

    fn link_seen(&mut self, link: KernelLink) {
        let forwards = forwards_v6(&link.name);
        if let Some(name) = self.observed.set_link(link, forwards) {
            self.events.push_back(MonitorEvent::LinkGone { name });
        }
    }

    fn link_gone(&mut self, index: u32) {
        if let Some(name) = self.observed.remove_link(index) {
            self.events.push_back(MonitorEvent::LinkGone { name });
        }
    }

    fn address_gone(&mut self, found: FoundAddress, raw: &Raw<'_>) {
        self.observed.remove_address(found.index, found.address, found.prefix);
        if raw.port == self.own_port {
            // Asked for, or taken along with one of its subnet: who asked knows which.
            self.removed.push(Removed { found, body: raw.body.to_vec() });
        } else if let Some(lost) = self.observed.disappeared(&found) {
            self.lost(lost, Some(raw.port));
        }
    }

    /// What was read too late to be put back is lost, if it is still held.
    pub(crate) fn forget_removed(&mut self) {
        for removed in std::mem::take(&mut self.removed) {
            if let Some(lost) = self.observed.disappeared(&removed.found) {
                self.lost(lost, None);
            }
        }
    }

    /// Reports that a held address is gone, and who asked for it if anyone did.
    fn lost(&mut self, lost: LostAddress, port: Option<u32>) {
        let LostAddress { interface, address } = lost;
        let culprit = port.and_then(culprit);
        self.events.push_back(MonitorEvent::AddressLost { interface, address, culprit });
    }
}

/// A socket that hears everything but our own renewals.
fn subscribe(own_port: u32) -> io::Result<AsyncFd<Socket>> {
    // Registering a socket without a runtime would panic.
    tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    // Beyond the system's limit only with CAP_NET_ADMIN; a small buffer overruns sooner.
    if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &RECEIVE_BUFFER_OCTETS).is_err() {
        let _ = socket.set_rx_buf_sz(RECEIVE_BUFFER_OCTETS as libc::c_int);
    }
    drop_own_renewals(&SockRef::from(&socket), own_port)?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    // SAFETY: the socket owns its descriptor, closes it only when dropped, and is reachable only by
    // shared reference while it is registered.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// Every address in this network namespace.
pub(crate) fn addresses(transport: &mut NetlinkTransport) -> io::Result<Vec<FoundAddress>> {
    let messages: Vec<NetlinkMessage> = transport.dump(libc::RTM_GETADDR, &ALL_ADDRESSES)??;
    Ok(messages.iter().filter_map(|message| FoundAddress::parse(&message.body)).collect())
}

/// The interface a netconf message is about; `None` for "all" and "default".
fn netconf_index(body: &[u8]) -> Option<u32> {
    let mut list = attributes(body.get(NETCONF_HEADER_OCTETS..)?);
    let index = list.find(|attribute| attribute.kind == NETCONFA_IFINDEX)?.value;
    u32::try_from(i32::from_ne_bytes(index.try_into().ok()?)).ok()
}

/// Without IPv6 on the link there is no such file, and nothing is forwarded.
fn forwards_v6(interface: &str) -> bool {
    is_switched_on(format!("/proc/sys/net/ipv6/conf/{interface}/forwarding"))
}

/// Who owns the netlink socket with this port. A process's first socket has its process number;
/// further ones have numbers from which nothing can be told.
fn culprit(port: u32) -> Option<String> {
    let pid = i32::try_from(port).ok().filter(|pid| *pid > 0)?;
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => Some(format!("{} (pid {pid})", name.trim_end())),
        // Programs such as `ip` are often gone before one can look.
        Err(_) => Some(format!("a process that has ended (pid {pid})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_culprit_is_named_by_process_and_the_kernel_is_nobody() {
        assert_eq!(culprit(0), None);
        assert_eq!(culprit(u32::MAX - 4096), None);
        let own = culprit(std::process::id());
        assert!(own.is_some_and(|name| name.ends_with(&format!("(pid {})", std::process::id()))));
        let gone = culprit(i32::MAX as u32);
        assert_eq!(gone.as_deref(), Some("a process that has ended (pid 2147483647)"));
    }
}
