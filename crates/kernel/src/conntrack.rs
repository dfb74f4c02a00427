//! Connections as the kernel tracks them: which there are of a listener, and the end of some.
//!
//! ```text
//!   client ──asks──► listener        what a connection was sent for
//!   server ──answers──►              who answers it: the listener itself, or where it was sent
//! ```

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use crate::attribute::{Attributes, attributes};
use crate::family::{IpFamily, address};
pub use crate::ip_protocol::IpProtocol;
use crate::transport::{KernelError, NetlinkRequest, NetlinkTransport};

/// NFNL_SUBSYS_CTNETLINK, the upper octet of a message's type.
const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const GET_STATISTICS: u16 = 5;

/// struct nfgenmsg: family u8, version u8, resource u16.
const HEADER_OCTETS: usize = 4;
/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;

/// CTA_*.
const ASKED: u16 = 1;
const ANSWERED: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// CTA_TUPLE_*.
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
/// CTA_IP_*.
const SOURCE_V4: u16 = 1;
const DESTINATION_V4: u16 = 2;
const SOURCE_V6: u16 = 3;
const DESTINATION_V6: u16 = 4;
/// CTA_PROTO_*.
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// IPS_DST_NAT.
const SENT_ELSEWHERE: u32 = 1 << 5;

/// Listeners for which the kernel is asked one by one; of more it is asked for all that it has.
const ASKED_ALONE: usize = 16;

/// What clients send to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NatListener {
    pub protocol: IpProtocol,
    pub address: SocketAddr,
}

/// A connection that the kernel tracks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackedConnection {
    /// What its client asked for.
    pub listener: NatListener,
    /// Who answers: the listener itself where the connection was sent nowhere else.
    pub server: SocketAddr,
    pub is_sent_elsewhere: bool,
    /// What names it to the kernel, in the kernel's octets.
    identity: Vec<u8>,
}

/// Of which listener which connections may go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptConnections {
    pub listener: NatListener,
    pub servers: BTreeSet<SocketAddr>,
}

impl KeptConnections {
    /// Whether it has to end. What is sent nowhere else goes on where the protocol itself begins
    /// anew; the others would never be sent anywhere as long as the client goes on.
    fn ends(&self, connection: &TrackedConnection) -> bool {
        let begins_anew = connection.listener.protocol == IpProtocol::Tcp;
        connection.listener == self.listener
            && !self.servers.contains(&connection.server)
            && (connection.is_sent_elsewhere || !begins_anew)
    }
}

/// A session with the kernel's connection tracking in one network namespace.
#[derive(Debug)]
pub struct Conntrack(NetlinkTransport);

impl Conntrack {
    /// # Errors
    /// When there is no socket.
    pub fn open() -> io::Result<Self> {
        NetlinkTransport::open(NETLINK_NETFILTER).map(Self)
    }

    /// Whether the kernel would answer at all.
    pub(crate) fn answers(&mut self) -> io::Result<Result<(), KernelError>> {
        let kind = SUBSYSTEM << 8 | GET_STATISTICS;
        let request = NetlinkRequest { kind, flags: 0, body: vec![0; HEADER_OCTETS] };
        let answers = self.0.exchange(&[request])?;
        Ok(answers.into_iter().next().unwrap_or_default().into_result().map(drop))
    }

    /// Ends what may not go on; returns how many there were.
    ///
    /// # Errors
    /// When the kernel cannot say, or refuses.
    pub fn cut(&mut self, kept: &[KeptConnections]) -> io::Result<usize> {
        let listeners: Vec<_> = kept.iter().map(|one| one.listener).collect();
        let mut requests = Vec::new();
        self.visit(&listeners, |one| {
            if kept.iter().any(|kept| kept.ends(&one)) {
                requests.push(delete(&one));
            }
        })?;
        for answer in self.0.exchange(&requests)? {
            match answer.into_result() {
                Ok(_) => {}
                // It has ended by itself.
                Err(error) if error.errno() == Errno::ENOENT => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(requests.len())
    }

    /// Hands over the connections of these listeners, of which there may be very many.
    ///
    /// # Errors
    /// When the kernel cannot say. Some may have been handed over.
    pub fn visit(
        &mut self,
        listeners: &[NatListener],
        mut hear: impl FnMut(TrackedConnection),
    ) -> io::Result<()> {
        let wanted: BTreeSet<_> = listeners.iter().copied().collect();
        let requests: Vec<Vec<u8>> = if wanted.len() <= ASKED_ALONE {
            wanted.iter().map(of_listener).collect()
        } else {
            let families: BTreeSet<u8> =
                wanted.iter().map(|one| IpFamily::of(one.address.ip()).number()).collect();
            families.into_iter().map(|family| vec![family, 0, 0, 0]).collect()
        };
        for body in requests {
            self.0.dump_each(SUBSYSTEM << 8 | GET, &body, |body| {
                let found = connection(body).filter(|one| wanted.contains(&one.listener));
                found.into_iter().for_each(&mut hear);
            })??;
        }
        Ok(())
    }
}

/// Asks for the connections of one listener. Kernels before 5.8 do not know how, and send all.
fn of_listener(listener: &NatListener) -> Vec<u8> {
    const FILTER_ASKED: u16 = 1;
    const BY_DESTINATION: u32 = 1 << 1;
    const BY_PROTOCOL: u32 = 1 << 3;
    const BY_DESTINATION_PORT: u32 = 1 << 5;
    let NatListener { protocol, address } = listener;
    let mut tuple = Attributes::default();
    let mut by = BY_PROTOCOL | BY_DESTINATION_PORT;
    // Of IPv6 addresses kernels up to 6.18 send those that are not the one that was asked for.
    if let IpAddr::V4(address) = address.ip() {
        let mut addresses = Attributes::default();
        addresses.put(DESTINATION_V4, &address.octets());
        tuple.put(TUPLE_ADDRESSES | NESTED, addresses.octets());
        by |= BY_DESTINATION;
    }
    let mut ports = Attributes::default();
    ports.put(PROTOCOL_NUMBER, &[protocol.number()]);
    ports.put(DESTINATION_PORT, &address.port().to_be_bytes());
    tuple.put(TUPLE_PROTOCOL | NESTED, ports.octets());
    let mut filter = Attributes::default();
    filter.put(FILTER_ASKED, &by.to_ne_bytes());
    let mut body = Attributes::after(vec![IpFamily::of(address.ip()).number(), 0, 0, 0]);
    body.put(ASKED | NESTED, tuple.octets());
    body.put(FILTER | NESTED, filter.octets());
    body.into_octets()
}

fn delete(connection: &TrackedConnection) -> NetlinkRequest {
    NetlinkRequest { kind: SUBSYSTEM << 8 | DELETE, flags: 0, body: connection.identity.clone() }
}

/// One end of a tuple, and the other.
struct ConnectionTuple {
    protocol: u8,
    source: SocketAddr,
    destination: SocketAddr,
}

fn connection(body: &[u8]) -> Option<TrackedConnection> {
    let header = body.get(..HEADER_OCTETS)?;
    let mut identity = Attributes::after(header.to_vec());
    let (mut asked, mut answered, mut status) = (None, None, 0);
    for attribute in attributes(&body[HEADER_OCTETS..]) {
        match attribute.kind {
            ASKED => {
                asked = tuple(attribute.value);
                identity.put(ASKED | NESTED, attribute.value);
            }
            ANSWERED => answered = tuple(attribute.value),
            STATUS => status = u32::from_be_bytes(attribute.value.try_into().ok()?),
            // Another one with the same addresses may have begun meanwhile.
            ID | ZONE => identity.put(attribute.kind, attribute.value),
            _ => {}
        }
    }
    let (asked, answered): (ConnectionTuple, ConnectionTuple) = (asked?, answered?);
    Some(TrackedConnection {
        listener: NatListener {
            protocol: IpProtocol::of(asked.protocol)?,
            address: asked.destination,
        },
        server: answered.source,
        is_sent_elsewhere: status & SENT_ELSEWHERE != 0,
        identity: identity.into_octets(),
    })
}

fn tuple(octets: &[u8]) -> Option<ConnectionTuple> {
    let (mut source, mut destination) = (None, None);
    let (mut protocol, mut ports) = (None, [None, None]);
    let port = |octets: &[u8]| octets.first_chunk().map(|two| u16::from_be_bytes(*two));
    for part in attributes(octets) {
        for one in attributes(part.value) {
            match (part.kind, one.kind) {
                (TUPLE_ADDRESSES, SOURCE_V4 | SOURCE_V6) => source = address(one.value),
                (TUPLE_ADDRESSES, DESTINATION_V4 | DESTINATION_V6) => {
                    destination = address(one.value);
                }
                (TUPLE_PROTOCOL, PROTOCOL_NUMBER) => protocol = one.value.first().copied(),
                (TUPLE_PROTOCOL, SOURCE_PORT) => ports[0] = port(one.value),
                (TUPLE_PROTOCOL, DESTINATION_PORT) => ports[1] = port(one.value),
                _ => {}
            }
        }
    }
    Some(ConnectionTuple {
        protocol: protocol?,
        source: SocketAddr::new(source?, ports[0]?),
        destination: SocketAddr::new(destination?, ports[1]?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(protocol: IpProtocol) -> NatListener {
        NatListener { protocol, address: "192.0.2.10:53".parse().unwrap() }
    }

    /// As the kernel sends it.
    fn octets(protocol: IpProtocol, server: SocketAddr, status: u32) -> Vec<u8> {
        let side = |source: SocketAddr, destination: SocketAddr| {
            let (mut addresses, mut ports) = (Attributes::default(), Attributes::default());
            for (end, v4, v6, port) in [
                (source, SOURCE_V4, SOURCE_V6, SOURCE_PORT),
                (destination, DESTINATION_V4, DESTINATION_V6, DESTINATION_PORT),
            ] {
                match end.ip() {
                    IpAddr::V4(address) => addresses.put(v4, &address.octets()),
                    IpAddr::V6(address) => addresses.put(v6, &address.octets()),
                }
                ports.put(port, &end.port().to_be_bytes());
            }
            ports.put(PROTOCOL_NUMBER, &[protocol.number()]);
            let mut tuple = Attributes::default();
            tuple.put(TUPLE_ADDRESSES | NESTED, addresses.octets());
            tuple.put(TUPLE_PROTOCOL | NESTED, ports.octets());
            tuple
        };
        let client: SocketAddr = "192.0.2.1:4000".parse().unwrap();
        let mut body = Attributes::after(vec![2, 0, 0, 0]);
        body.put(ASKED | NESTED, side(client, listener(protocol).address).octets());
        body.put(ANSWERED | NESTED, side(server, client).octets());
        body.put(STATUS, &status.to_be_bytes());
        body.put(ID, &[1, 2, 3, 4]);
        body.into_octets()
    }

    #[test]
    fn a_connection_is_read_and_a_cut_message_is_none() {
        let server = "10.0.0.1:5353".parse().unwrap();
        let whole = octets(IpProtocol::Udp, server, SENT_ELSEWHERE | 1);
        let found = connection(&whole).unwrap();
        assert_eq!((found.listener, found.server), (listener(IpProtocol::Udp), server));
        assert!(found.is_sent_elsewhere);
        let named: Vec<u16> =
            attributes(&found.identity[HEADER_OCTETS..]).map(|one| one.kind).collect();
        assert_eq!(named, [ASKED, ID]);
        let answered_at = whole.len() - 16;
        for end in 0..answered_at {
            assert_eq!(connection(&whole[..end]), None, "{end}");
        }
    }

    #[test]
    fn what_has_lost_its_server_ends_and_datagrams_that_were_sent_nowhere() {
        let there: SocketAddr = "10.0.0.1:53".parse().unwrap();
        let gone: SocketAddr = "10.0.0.2:53".parse().unwrap();
        let own = listener(IpProtocol::Udp).address;
        let (tcp, udp) = (IpProtocol::Tcp, IpProtocol::Udp);
        for (protocol, server, status, expected) in [
            (tcp, there, SENT_ELSEWHERE, false),
            (tcp, gone, SENT_ELSEWHERE, true),
            (tcp, own, 0, false),
            (udp, there, SENT_ELSEWHERE, false),
            (udp, gone, SENT_ELSEWHERE, true),
            (udp, own, 0, true),
        ] {
            let found = connection(&octets(protocol, server, status)).unwrap();
            let kept = KeptConnections { listener: listener(protocol), servers: [there].into() };
            assert_eq!(kept.ends(&found), expected, "{protocol:?} {server}");
            let other = KeptConnections { listener: listener(IpProtocol::Sctp), ..kept };
            assert!(!other.ends(&found), "of another listener");
        }
    }
}
