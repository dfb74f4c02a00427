//! Sockets of checks: opened from where the plan says, connected, and what a refusal means.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use locum_plan::CheckSource;
use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::{Answer, Whom};

/// Why there is no socket to ask with, or nobody to ask.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The target refused, or cannot be reached.
    Target(io::Error),
    /// This host cannot ask as the plan says; the text is for the operator.
    Host(String),
}

impl From<DialError> for Answer {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Target(error) => refusal(&error),
            DialError::Host(reason) => Self::unasked(reason),
        }
    }
}

/// What comes first on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FirstWord {
    Ours,
    /// What they say, or nothing.
    Theirs,
}

/// Connects to the target.
pub(crate) async fn connect(whom: Whom<'_>, first: FirstWord) -> Result<TcpStream, DialError> {
    let socket = open(whom, Type::STREAM, Some(Protocol::TCP))?;
    if first == FirstWord::Ours {
        // What we say confirms the connection to the server, and no packet of its own. One more is no
        // reason to fail.
        let _one_packet_more = socket.set_tcp_quickack(false);
    }
    let socket = TcpSocket::from_std_stream(socket.into());
    let mut stream = socket.connect(whom.target).await.map_err(DialError::Target)?;
    if let Some(header) = whom.origin.and_then(|origin| origin.header) {
        stream.write_all(header.of_nobody()).await.map_err(DialError::Target)?;
    }
    Ok(stream)
}

/// Closes a connection on which all has been said by a reset: it leaves no port taken behind, here or
/// there, and costs one packet instead of three.
pub(crate) fn reset(stream: &TcpStream) {
    // Else it ends as others do.
    let _closed_in_turn = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// A socket that does not block, with all that its origin says.
pub(crate) fn open(
    whom: Whom<'_>,
    kind: Type,
    protocol: Option<Protocol>,
) -> Result<Socket, DialError> {
    let domain = Domain::for_address(whom.target);
    let socket = Socket::new(domain, kind.nonblocking(), protocol).map_err(DialError::Target)?;
    if let Some(origin) = whom.origin {
        leave_from(&socket, origin).map_err(DialError::Host)?;
    }
    Ok(socket)
}

fn leave_from(socket: &Socket, origin: &CheckSource) -> Result<(), String> {
    if let Some(interface) = &origin.interface {
        socket.bind_device(Some(interface.as_bytes())).map_err(|error| {
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENODEV) => format!("no interface {interface} to ask from"),
                Some(Errno::EPERM) => format!(
                    "not allowed to ask from interface {interface}: the daemon needs CAP_NET_RAW"
                ),
                _ => format!("cannot ask from interface {interface}: {error}"),
            }
        })?;
    }
    if let Some(mark) = origin.mark {
        socket.set_mark(mark).map_err(|error| {
            format!("cannot mark packets with {mark}: {error}: the daemon needs CAP_NET_ADMIN")
        })?;
    }
    if let Some(source) = origin.source {
        bind(socket, source).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EADDRNOTAVAIL) => {
                format!("cannot ask from {}: it is no address of this host", source.ip())
            }
            Some(Errno::EADDRINUSE) => format!("cannot ask from {source}: the port is in use"),
            _ => format!("cannot ask from {source}: {error}"),
        })?;
    }
    Ok(())
}

fn bind(socket: &Socket, source: SocketAddr) -> io::Result<()> {
    let kind = socket.r#type()?;
    if kind == Type::RAW {
        // It has no ports, and of IPv6 refuses the option.
    } else if source.port() == 0 {
        // Else each run would take a port that no other target can have then.
        setsockopt(socket, IpBindAddressNoPort, &true)?;
    } else if kind == Type::STREAM {
        // Closed by a reset: else the connection would keep its port from the next run for a minute.
        socket.set_reuse_address(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
    }
    socket.bind(&SockAddr::from(source))
}

/// A target that cannot be reached has failed; a host that cannot try has learnt nothing of it.
pub(crate) fn refusal(error: &io::Error) -> Answer {
    let out_of = |what: &str| Answer::unasked(format!("cannot connect: {what}"));
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE) => out_of("out of file descriptors: raise LimitNOFILE"),
        Some(Errno::EADDRNOTAVAIL) => out_of("no local address or port to connect from"),
        Some(Errno::ENOMEM | Errno::ENOBUFS) => out_of("out of memory for sockets"),
        // It never will, and no client's connection goes there either.
        Some(Errno::EAFNOSUPPORT) => Answer::fail("this host does not speak the address family"),
        Some(errno) => Answer::fail(errno.desc().to_lowercase()),
        None => Answer::fail(error.to_string().to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_socket_can_leave_from_an_address() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let _context = runtime.as_ref().expect("a runtime").enter();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let target: SocketAddr = address.parse().expect("an address");
            let origin = CheckSource { source: Some(target), ..CheckSource::default() };
            let whom = Whom { target, origin: Some(&origin) };
            let echo = if target.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
            for (kind, protocol) in [
                (Type::STREAM, Protocol::TCP),
                (Type::DGRAM, Protocol::UDP),
                (Type::DGRAM, echo),
                (Type::RAW, echo),
            ] {
                match open(whom, kind, Some(protocol)) {
                    // Not everybody is allowed to have one that pings.
                    Err(DialError::Target(error)) if protocol == echo => {
                        assert!(error.raw_os_error().is_some(), "{kind:?} {error}");
                    }
                    opened => drop(opened.expect("it is bound")),
                }
            }
        }
    }
}
