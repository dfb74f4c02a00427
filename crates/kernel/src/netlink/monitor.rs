//! What links and addresses do.
//!
//! ```text
//!   notification ──► table ──► changed? ──► event
//!   overrun ───────► dump ──────┘
//! ```
//!
//! The kernel drops notifications when they come faster than they are read, and says so. Then
//! everything is dumped and told again: a listener that takes each event as a level is right
//! afterwards.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use netlink_sys::Socket;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::attribute::attributes;
use crate::netlink::LinkSnapshot;
use crate::netlink::address::Found;
use crate::netlink::apply::addresses;
use crate::netlink::ledger::Holding;
use crate::netlink::ledger::Ledger;
use crate::netlink::links::Link;
use crate::netlink::links::Table;
use crate::transport::DATAGRAM_OCTETS;
use crate::transport::Messages;
use crate::transport::Raw;
use crate::transport::Transport;
use crate::transport::receive;

/// Multicast groups: links, addresses of both families, IPv6 forwarding switches.
const GROUPS: [u32; 4] = [1, 5, 9, 25];
const RTM_NEWNETCONF: u16 = 80;
const NETCONFA_IFINDEX: u16 = 1;
/// struct netconfmsg with its padding.
const NETCONF_HEADER_OCTETS: usize = 4;
/// struct ifinfomsg, all zero: every link.
const ALL_LINKS: [u8; 16] = [0; 16];
/// Room for some 1000 notifications: one renewal of 255 addresses by several instances at once.
const RECEIVE_BUFFER_OCTETS: usize = 1 << 20;

/// Something changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MonitorEvent {
    /// The whole state of a link that is new or has changed; once for each at the beginning, and
    /// for all of them after notifications were lost.
    Link(LinkSnapshot),
    /// It does not exist any more, or has another name now.
    LinkGone { name: Arc<str> },
    /// An address that our [`Netlink`](crate::netlink::Netlink) holds, with our mark or counted as
    /// held, is gone and we did not ask for it.
    AddressLost {
        interface: Arc<str>,
        address: IpAddr,
        /// Who asked for it, as "name (pid 123)". `None` when the kernel did it by itself (lifetime
        /// over, link down), and for every IPv6 address: there the kernel does not tell.
        culprit: Option<String>,
    },
}

/// Notifications, in order.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<Socket>,
    /// For dumps.
    transport: Transport,
    ledger: Ledger,
    /// Port of the socket that changes addresses for us.
    own_port: u32,
    table: Table,
    events: VecDeque<MonitorEvent>,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Subscribes first and dumps afterwards, so that nothing falls between.
    pub(crate) fn open(ledger: Ledger, own_port: u32) -> io::Result<Self> {
        // Registering a socket without a runtime would panic.
        tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        // Beyond the system's limit only with CAP_NET_ADMIN; a small buffer overruns sooner.
        if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &RECEIVE_BUFFER_OCTETS).is_err() {
            let _ = socket.set_rx_buf_sz(RECEIVE_BUFFER_OCTETS as libc::c_int);
        }
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        // SAFETY: the socket owns its descriptor, closes it only when dropped, and is reachable only
        // by shared reference while it is registered.
        let socket = unsafe { AsyncFd::register(socket) }?;
        let mut monitor = Self {
            socket,
            transport: Transport::open(NETLINK_ROUTE)?,
            ledger,
            own_port,
            table: Table::default(),
            events: VecDeque::new(),
            buffer: Vec::with_capacity(DATAGRAM_OCTETS),
        };
        monitor.synchronise()?;
        Ok(monitor)
    }

    /// The next event. Cancel-safe. An error is final: the socket is of no use any more.
    pub async fn next(&mut self) -> io::Result<MonitorEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let buffer = &mut self.buffer;
            let read = |socket: &Socket| receive(socket, buffer);
            match self.socket.async_io(Interest::READABLE, read).await {
                Ok(true) => self.take_datagram(),
                Ok(false) => {}
                Err(error) if is_overrun(&error) => self.recover()?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Notifications were lost.
    fn recover(&mut self) -> io::Result<()> {
        tracing::warn!("netlink notifications were lost, reading all links and addresses again");
        // What is still queued is older than the dump that follows.
        loop {
            match receive(self.socket.get_ref(), &mut self.buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_overrun(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.table.untell();
        self.synchronise()
    }

    /// Makes the table equal to the kernel, and tells what differs.
    fn synchronise(&mut self) -> io::Result<()> {
        let messages = self.transport.dump(libc::RTM_GETLINK, &ALL_LINKS)??;
        let links: Vec<_> =
            messages.iter().filter_map(|message| Link::parse(&message.body)).collect();
        let found = addresses(&mut self.transport)?;

        for index in self.table.indices() {
            if links.iter().all(|link| link.index != index) {
                self.link_gone(index);
            }
        }
        // Links that vanished while nobody listened are in no table.
        self.ledger.keep_links(|index| links.iter().any(|link| link.index == index));
        for link in links {
            self.link_seen(link);
        }
        self.table.clear_addresses();
        for found in found {
            self.table.set_address(found);
        }
        for index in self.table.indices() {
            self.tell(index);
            for (address, entry) in self.ledger.of_link(index) {
                if entry.holding != Holding::Void && !self.table.has_address(index, address) {
                    self.lost(index, address, entry.prefix, None);
                }
            }
        }
        Ok(())
    }

    fn take_datagram(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        for raw in Messages(&buffer) {
            self.take_message(&raw);
        }
        self.buffer = buffer;
    }

    fn take_message(&mut self, raw: &Raw<'_>) {
        match raw.kind {
            libc::RTM_NEWLINK => {
                if let Some(link) = Link::parse(raw.body) {
                    let index = link.index;
                    self.link_seen(link);
                    self.tell(index);
                }
            }
            libc::RTM_DELLINK => {
                if let Some(link) = Link::parse(raw.body) {
                    self.link_gone(link.index);
                }
            }
            libc::RTM_NEWADDR => {
                if let Some(found) = Found::parse(raw.body) {
                    self.address_seen(found);
                }
            }
            libc::RTM_DELADDR => {
                if let Some(found) = Found::parse(raw.body) {
                    self.address_gone(&found, raw.port);
                }
            }
            RTM_NEWNETCONF => {
                let index = netconf_index(raw.body);
                if let Some((index, name)) = index.and_then(|at| Some((at, self.table.name(at)?))) {
                    self.table.set_forwarding(index, forwards_v6(&name));
                    self.tell(index);
                }
            }
            // The groups also carry what we have no use for.
            _ => {}
        }
    }

    fn link_seen(&mut self, link: Link) {
        let forwards = forwards_v6(&link.name);
        if let Some(name) = self.table.set_link(link, forwards) {
            self.events.push_back(MonitorEvent::LinkGone { name });
        }
    }

    fn link_gone(&mut self, index: u32) {
        self.ledger.forget_link(index);
        if let Some(name) = self.table.remove_link(index) {
            self.events.push_back(MonitorEvent::LinkGone { name });
        }
    }

    fn address_seen(&mut self, found: Found) {
        let index = found.index;
        if found.marked {
            self.ledger.saw_mark();
        } else {
            self.ledger.contradicted((index, found.address));
        }
        self.table.set_address(found);
        self.tell(index);
    }

    fn address_gone(&mut self, found: &Found, port: u32) {
        self.table.remove_address(found);
        self.tell(found.index);
        // What we removed with one of ours in the same subnet is put back by who removed it.
        if port != self.own_port {
            self.lost(found.index, found.address, found.prefix, Some(port));
        }
    }

    /// Reports it if it was held.
    fn lost(&mut self, index: u32, address: IpAddr, prefix: u8, port: Option<u32>) {
        let Some(interface) = self.table.name(index) else { return };
        if self.ledger.disappeared((index, address), prefix) {
            let culprit = port.and_then(culprit);
            self.events.push_back(MonitorEvent::AddressLost { interface, address, culprit });
        }
    }

    fn tell(&mut self, index: u32) {
        let ledger = &self.ledger;
        let is_ours = |found: &Found| found.marked || ledger.is_ours((found.index, found.address));
        if let Some(snapshot) = self.table.tell(index, is_ours) {
            self.events.push_back(MonitorEvent::Link(snapshot));
        }
    }
}

fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// The interface a netconf message is about; `None` for "all" and "default".
fn netconf_index(body: &[u8]) -> Option<u32> {
    let mut list = attributes(body.get(NETCONF_HEADER_OCTETS..)?);
    let index = list.find(|attribute| attribute.kind == NETCONFA_IFINDEX)?.value;
    u32::try_from(i32::from_ne_bytes(index.try_into().ok()?)).ok()
}

/// Without IPv6 on the link there is no such file, and nothing is forwarded.
fn forwards_v6(interface: &str) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/forwarding");
    fs::read(path).is_ok_and(|text| text.first().is_some_and(|digit| *digit != b'0'))
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
