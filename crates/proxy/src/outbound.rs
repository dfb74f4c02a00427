//! Our own sockets towards servers, of both transports, so that what comes back to us through one is
//! known.
//!
//! A server may be a service of this same proxy: that is a chain, and chains are well. When the way of
//! a client leads to a service that it has passed already it is a loop, which would take places
//! until none are left.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::protocol::ProxyTransport;
use crate::relay;
use crate::server::RunningServer;

/// The services that a client has passed, the last one first.
#[derive(Debug)]
pub struct Way {
    service: String,
    before: Option<Rc<Way>>,
}

impl Way {
    pub fn through(service: &str, before: Option<Rc<Way>>) -> Rc<Self> {
        Rc::new(Self { service: service.to_owned(), before })
    }

    pub fn has_passed(&self, service: &str) -> bool {
        let mut way = Some(self);
        while let Some(here) = way {
            if here.service == service {
                return true;
            }
            way = here.before.as_deref();
        }
        false
    }
}

/// Both ends of a connection, without what only one of them knows of an address, and how it is carried.
type Ends = (ProxyTransport, [(IpAddr, u16); 2]);

fn ends(kind: ProxyTransport, ours: SocketAddr, theirs: SocketAddr) -> Ends {
    (kind, [ours, theirs].map(|end| (end.ip().to_canonical(), end.port())))
}

/// All sockets that are bound for a server, those whose connection is being made included.
#[derive(Debug, Default)]
pub struct Outbound(RefCell<HashMap<Ends, Errand>>);

/// Whom a socket is for: the way of its client, and the server that was chosen.
type Errand = (Rc<Way>, Rc<RunningServer>);

impl Outbound {
    /// Connects to a server for a client that came by this way. The time it may take is the caller's
    /// to limit.
    pub async fn connect(
        self: &Rc<Self>,
        server: &Rc<RunningServer>,
        way: &Rc<Way>,
    ) -> io::Result<(TcpStream, Leg)> {
        let address = server.address;
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        relay::prepare(&socket);
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => {
                return Err(error);
            }
            Err(_) | Ok(()) => {}
        }
        // Before anybody else can run: what it leads to may be accepted next.
        let leg = self.note(&socket, ProxyTransport::Tcp, server, way)?;
        let stream = TcpStream::from_std(socket.into())?;
        // Refused or unreachable is an error of the socket, which it is asked for only then.
        let ready = stream.ready(Interest::WRITABLE).await?;
        match ready.is_write_closed().then(|| stream.take_error()).transpose()?.flatten() {
            Some(error) => Err(error),
            None => Ok((stream, leg)),
        }
    }

    /// A socket that is bound for `server` now, for a client that came by this way.
    ///
    /// # Errors
    /// The kernel does not say from where it goes.
    pub fn note(
        self: &Rc<Self>,
        socket: &Socket,
        kind: ProxyTransport,
        server: &Rc<RunningServer>,
        way: &Rc<Way>,
    ) -> io::Result<Leg> {
        let ours = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let ends = ends(kind, ours, server.address);
        self.0.borrow_mut().insert(ends, (way.clone(), server.clone()));
        Ok(Leg { outbound: self.clone(), ends })
    }

    /// The way of a client that is a socket of ours, and the server that we took for one when we sent it
    /// here.
    pub fn find(&self, kind: ProxyTransport, peer: SocketAddr, here: SocketAddr) -> Option<Errand> {
        self.0.borrow().get(&ends(kind, peer, here)).cloned()
    }
}

/// The socket is known as one of ours for as long as this lives.
#[derive(Debug)]
pub struct Leg {
    outbound: Rc<Outbound>,
    ends: Ends,
}

impl Drop for Leg {
    fn drop(&mut self) {
        self.outbound.0.borrow_mut().remove(&self.ends);
    }
}
