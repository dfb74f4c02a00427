//! TCP sockets of this network namespace as the kernel sees them (`NETLINK_SOCK_DIAG`): has somebody
//! accepted this connection, and how many wait for that.
//!
//! A connection is there as soon as the kernel has shaken hands for it. It gets an inode when a
//! process accepts it, and loses it again when that process closes it: without one it waits in the
//! queue of its listener, or is closed.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::errno::Errno;

use crate::transport::{NetlinkMessage, NetlinkRequest, NetlinkTransport};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// What one TCP socket is found by. The cookie, which would name one socket of several, is left
/// open.
///
/// ```text
///  0               1               2               3
///  +---------------+---------------+---------------+---------------+
///  | family        | protocol      | extensions    | 0             |  struct inet_diag_req_v2
///  | states, a bit for each, in host order                         |
///  | local port, in network order  | peer port                     |
///  | local address, 16 octets, an IPv4 address in the first four   |
///  | peer address, 16 octets                                       |
///  | interface, 0 for any                                          |
///  | cookie, 8 octets, all ones for any                            |
///  +---------------------------------------------------------------+
/// ```
const REQUEST_OCTETS: usize = 56;

/// struct inet_diag_msg: family, state, timer and retransmissions, the addresses as in the request
/// (48 octets), then in host order when the timer expires, receive queue, send queue, user and
/// inode. Attributes follow.
const ANSWER_OCTETS: usize = 72;

/// Where the ports, addresses, interface and cookie of a socket stand in an answer, and in a request
/// for exactly that socket.
const ANSWERED_IDENTITY: std::ops::Range<usize> = 4..52;
const ASKED_IDENTITY: std::ops::Range<usize> = 8..56;

const TCP_ESTABLISHED: u8 = 1;
const TCP_SYN_SENT: u8 = 2;
const TCP_SYN_RECV: u8 = 3;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
const TCP_NEW_SYN_RECV: u8 = 12;

/// A connection between two sockets, from the side of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpConnection {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// 0: nobody has accepted it yet, or it was closed on this side.
    pub inode: u32,
    pub state: TcpState,
}

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcpState {
    /// The hands are not shaken yet, as far as this end knows.
    Opening,
    Established,
    /// One end has closed it, or both.
    Closing,
}

/// A socket that listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpListening {
    pub local: SocketAddr,
    pub inode: u32,
    /// Connections that wait to be accepted.
    pub waiting: u32,
    /// How many may wait; the kernel ignores further clients, who try again.
    pub room: u32,
}

/// A netlink socket for such questions. Needs no privilege.
#[derive(Debug)]
pub struct SockDiag(NetlinkTransport);

impl SockDiag {
    /// # Errors
    /// When there is no socket to be had, or the kernel was built without it.
    pub fn open() -> io::Result<Self> {
        Ok(Self(NetlinkTransport::open(NETLINK_SOCK_DIAG)?))
    }

    /// The end of a connection that has `local` on this host. `None` when there is none: the kernel
    /// has not answered its SYN, or has forgotten it.
    ///
    /// # Errors
    /// When the kernel cannot say.
    pub fn connection(
        &mut self,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> io::Result<Option<TcpConnection>> {
        let body = request(u32::MAX, local, peer);
        let request = NetlinkRequest { kind: SOCK_DIAG_BY_FAMILY, flags: 0, body };
        let answers = self.0.exchange(&[request])?;
        let found = answers.into_iter().next().unwrap_or_default().into_result();
        let found = match found {
            Ok(messages) => messages,
            Err(error) if error.errno() == Errno::ENOENT => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = found.iter().find_map(|message| connection(&message.body));
        // Where there is no such connection the kernel finds its listener.
        Ok(found.filter(|found| found.local.port() == local.port() && found.peer == peer))
    }

    /// Resets every connection that has one of these addresses on this host; both ends learn it at
    /// once. Returns how many there were. Needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// When the kernel cannot say or refuses, as one without CONFIG_INET_DIAG_DESTROY does. Some may
    /// have been reset.
    pub fn reset_at(&mut self, addresses: &HashSet<IpAddr>) -> io::Result<usize> {
        let without = [TCP_TIME_WAIT, TCP_CLOSE, TCP_LISTEN];
        let states = without.iter().fold(u32::MAX, |states, state| states & !(1 << state));
        let mut requests = Vec::new();
        for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            let any = SocketAddr::new(any, 0);
            let question = request(states, any, any);
            self.0.dump_each(SOCK_DIAG_BY_FAMILY, &question, |answer| {
                let ours = describe(answer).is_some_and(|one| addresses.contains(&one.local.ip()));
                if let Some(identity) = answer.get(ANSWERED_IDENTITY).filter(|_| ours) {
                    let mut body = question.clone();
                    body[ASKED_IDENTITY].copy_from_slice(identity);
                    requests.push(NetlinkRequest { kind: SOCK_DESTROY, flags: 0, body });
                }
            })??;
        }
        for answer in self.0.exchange(&requests)? {
            match answer.into_result() {
                // It has ended by itself.
                Err(error) if error.errno() == Errno::ENOENT => {}
                outcome => drop(outcome?),
            }
        }
        Ok(requests.len())
    }

    /// All sockets that listen at this port, of both families.
    ///
    /// # Errors
    /// When the kernel cannot say.
    pub fn listeners(&mut self, port: u16) -> io::Result<Vec<TcpListening>> {
        let mut found = self.listeners_at(port)?;
        found.retain(|listener| listener.local.port() == port);
        Ok(found)
    }

    /// All sockets that listen in this network namespace.
    ///
    /// # Errors
    /// When the kernel cannot say.
    pub fn all_listeners(&mut self) -> io::Result<Vec<TcpListening>> {
        self.listeners_at(0)
    }

    /// To the kernel, port 0 is any.
    fn listeners_at(&mut self, port: u16) -> io::Result<Vec<TcpListening>> {
        let mut found = Vec::new();
        for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            let body =
                request(1 << TCP_LISTEN, SocketAddr::new(any, port), SocketAddr::new(any, 0));
            let messages: Vec<NetlinkMessage> = self.0.dump(SOCK_DIAG_BY_FAMILY, &body)??;
            found.extend(messages.iter().filter_map(|message| listening(&message.body)));
        }
        Ok(found)
    }
}

fn request(states: u32, local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // INVARIANT: both are small numbers.
    let [family, protocol] =
        [family, libc::IPPROTO_TCP].map(|number| u8::try_from(number).expect("a small number"));
    let mut body = vec![family, protocol, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(local.port().to_be_bytes());
    body.extend(peer.port().to_be_bytes());
    for address in [local.ip(), peer.ip()] {
        let end = body.len() + 16;
        match address {
            IpAddr::V4(address) => body.extend(address.octets()),
            IpAddr::V6(address) => body.extend(address.octets()),
        }
        body.resize(end, 0);
    }
    body.extend(0_u32.to_ne_bytes());
    body.extend([0xff; 8]);
    debug_assert_eq!(body.len(), REQUEST_OCTETS);
    body
}

/// What every answer says; the two queues mean other things for a listener.
struct SocketAnswer {
    state: u8,
    local: SocketAddr,
    peer: SocketAddr,
    receive_queue: u32,
    send_queue: u32,
    inode: u32,
}

fn describe(body: &[u8]) -> Option<SocketAnswer> {
    let octets: &[u8; ANSWER_OCTETS] = body.first_chunk()?;
    let port = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
    let word = |at: usize| {
        u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
    };
    let address = |at: usize| match i32::from(octets[0]) {
        libc::AF_INET => octets[at..].first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        libc::AF_INET6 => {
            // IPv4 clients of a socket of both families.
            let address = octets[at..].first_chunk::<16>().map(|octets| IpAddr::from(*octets));
            address.map(|address| address.to_canonical())
        }
        _ => None,
    };
    Some(SocketAnswer {
        state: octets[1],
        local: SocketAddr::new(address(8)?, port(4)),
        peer: SocketAddr::new(address(24)?, port(6)),
        receive_queue: word(56),
        send_queue: word(60),
        inode: word(68),
    })
}

/// `None` for a listener and for what is cut.
fn connection(body: &[u8]) -> Option<TcpConnection> {
    let SocketAnswer { state, local, peer, inode, .. } = describe(body)?;
    let state = match state {
        TCP_LISTEN => return None,
        TCP_ESTABLISHED => TcpState::Established,
        TCP_SYN_SENT | TCP_SYN_RECV | TCP_NEW_SYN_RECV => TcpState::Opening,
        _ => TcpState::Closing,
    };
    Some(TcpConnection { local, peer, inode, state })
}

/// `None` for anything else and for what is cut.
fn listening(body: &[u8]) -> Option<TcpListening> {
    let SocketAnswer { state, local, receive_queue, send_queue, inode, .. } = describe(body)?;
    let found = TcpListening { local, inode, waiting: receive_queue, room: send_queue };
    (state == TCP_LISTEN).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn octets(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    /// Linux 6.18, little endian: 127.0.0.9:7777 with one client in its queue of two.
    const LISTENER: &str = "
        020a0000 1e610000 7f000009000000000000000000000000 00000000000000000000000000000000
        00000000 0100000000000000 00000000 01000000 02000000 00000000 ee6f0000
        0500080000000000 08000f0000000000 0c0015000100000000000000 0600160052000000";
    /// The client, from the listener's side, before it was accepted, after that, and after the
    /// listener's side closed it.
    const QUEUED: &str = "
        02010000 1e619182 7f000009000000000000000000000000 7f000001000000000000000000000000
        00000000 0200000000000000 00000000 00000000 00000000 00000000 00000000";
    const ACCEPTED: &str = "
        02010000 1e619182 7f000009000000000000000000000000 7f000001000000000000000000000000
        00000000 0200000000000000 00000000 00000000 00000000 00000000 f36f0000";
    const CLOSED: &str = "
        02040100 1e619182 7f000009000000000000000000000000 7f000001000000000000000000000000
        00000000 0200000000000000 c8000000 00000000 01000000 00000000 00000000";

    #[test]
    #[cfg(target_endian = "little")]
    fn answers_of_the_kernel_are_read() {
        let (local, peer) = ("127.0.0.9:7777", "127.0.0.1:37250");
        let [local, peer] = [local, peer].map(|text| text.parse::<SocketAddr>().unwrap());
        let expected = TcpListening { local, inode: 28654, waiting: 1, room: 2 };
        assert_eq!(listening(&octets(LISTENER)), Some(expected));
        assert_eq!(connection(&octets(LISTENER)), None);
        for (answer, inode, state) in [
            (QUEUED, 0, TcpState::Established),
            (ACCEPTED, 28659, TcpState::Established),
            (CLOSED, 0, TcpState::Closing),
        ] {
            let expected = TcpConnection { local, peer, inode, state };
            assert_eq!(connection(&octets(answer)), Some(expected));
            assert_eq!(listening(&octets(answer)), None);
        }
    }

    #[test]
    fn what_is_cut_or_of_another_family_says_nothing() {
        let whole = octets(LISTENER);
        for end in 0..ANSWER_OCTETS {
            assert_eq!(listening(&whole[..end]), None);
        }
        let mut other = whole;
        other[0] = 1;
        assert_eq!(listening(&other), None);
    }

    #[test]
    fn a_request_names_both_ends() {
        let [local, peer] = ["[2001:db8::1]:80", "[2001:db8::2]:258"].map(|a| a.parse().unwrap());
        let body = request(1, local, peer);
        let expected = "
            0a060000 01000000 0050 0102 20010db8000000000000000000000001
            20010db8000000000000000000000002 00000000 ffffffffffffffff";
        assert_eq!(body[8..], octets(expected)[8..]);
        assert_eq!((body[0], body[1], body.len()), (10, 6, REQUEST_OCTETS));
        let body = request(1, "10.0.0.1:80".parse().unwrap(), "10.0.0.2:1".parse().unwrap());
        assert_eq!(body[8..24], octets("0050 0001 0a000001 0000000000000000"));
        assert_eq!(body[28..32], [10, 0, 0, 2]);
    }

    /// One that is accepted has an inode, and before that it is counted in the queue.
    #[test]
    fn a_connection_gets_its_inode_when_it_is_accepted() {
        let mut diag = SockDiag::open().unwrap();
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let bound = listener.local_addr().unwrap();
            let to = match address {
                "[::]:0" => SocketAddr::from(([127, 0, 0, 1], bound.port())),
                _ => bound,
            };
            let waiting = |diag: &mut SockDiag| {
                let found = diag.listeners(bound.port()).unwrap();
                let ours: Vec<_> = found.iter().filter(|one| one.local == bound).collect();
                assert_eq!(ours.len(), 1, "{found:?}");
                ours[0].waiting
            };
            assert_eq!(waiting(&mut diag), 0);
            let mut client = TcpStream::connect(to).unwrap();
            let peer = client.local_addr().unwrap();
            assert_eq!(waiting(&mut diag), 1);
            let queued = diag.connection(to, peer).unwrap().unwrap();
            assert_eq!((queued.inode, queued.state), (0, TcpState::Established));
            let (accepted, _) = listener.accept().unwrap();
            assert_ne!(diag.connection(to, peer).unwrap().unwrap().inode, 0);
            assert_eq!(waiting(&mut diag), 0);
            // The other end is another socket.
            assert_ne!(diag.connection(peer, to).unwrap().unwrap().inode, 0);
            drop(accepted);
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            let closed = diag.connection(to, peer).unwrap();
            assert!(
                closed.is_none_or(|closed| (closed.inode, closed.state) == (0, TcpState::Closing))
            );
            let stranger = SocketAddr::new(peer.ip(), bound.port());
            assert_eq!(diag.connection(to, stranger).unwrap(), None, "its listener is no match");
            drop(listener);
            assert_eq!(diag.connection(to, stranger).unwrap(), None);
        }
    }
}
