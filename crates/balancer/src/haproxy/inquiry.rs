//! One client of our own at one listener: is it let in, and does it get a word?

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;
use std::{io, ops};

use locum_kernel::sock_diag::{SockDiag, TcpState};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};

/// How long an answer may take before it counts as none.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// What HAProxy answers by itself, with status 400 or by closing: no server hears of it.
const NO_REQUEST: &[u8] = b"LOCUM\r\n\r\n";

/// What is expected of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Expected {
    /// It lets in, and nothing is said: there is a server behind it that would hear it, or a cipher
    /// before it.
    Acceptance,
    /// Any word, or the end of the connection.
    Word { say: Vec<u8> },
    /// HTTP with one of these statuses.
    Status { say: Vec<u8>, good: ops::RangeInclusive<u16> },
}

impl Expected {
    pub(super) fn word(before: &[u8]) -> Self {
        Self::Word { say: [before, NO_REQUEST].concat() }
    }
}

/// A connection under way.
#[derive(Debug)]
pub(super) struct Inquiry {
    stream: TcpStream,
    to: SocketAddr,
    stage: InquiryStage,
    heard: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InquiryStage {
    Connecting,
    /// The kernel has shaken hands, and nobody has accepted it.
    Queued,
    Accepted,
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InquiryReply {
    Waits(InquiryStage),
    Answered,
    Refused,
    /// With this status, or without any.
    Rejected(Option<u16>),
    /// For a reason on our side, which says nothing of the listener.
    NotAsked,
}

impl Inquiry {
    /// Begins it, without waiting.
    pub(super) fn ask(to: SocketAddr) -> Result<Self, InquiryReply> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let descriptor =
            socket(family, SockType::Stream, flags, None).map_err(|_| InquiryReply::NotAsked)?;
        match connect(descriptor.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
            Err(error) => return Err(failed(&error.into())),
        }
        let stream = TcpStream::from(descriptor);
        Ok(Self { stream, to, stage: InquiryStage::Connecting, heard: Vec::new() })
    }

    /// Goes on as far as it goes without waiting.
    pub(super) fn poll(
        &mut self,
        expected: &Expected,
        diag: Option<&mut SockDiag>,
    ) -> InquiryReply {
        if self.stage == InquiryStage::Connecting {
            match self.stream.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return failed(&error),
            }
            if self.stream.peer_addr().is_err() {
                return InquiryReply::Waits(InquiryStage::Connecting);
            }
            self.stage = InquiryStage::Queued;
            if let Expected::Word { say } | Expected::Status { say, .. } = expected
                && self.stream.write_all(say).is_err()
            {
                // Closed already: the process, or the kernel for it, has let us go.
                return InquiryReply::Answered;
            }
        }
        if self.stage == InquiryStage::Queued && self.is_accepted(diag) {
            self.stage = InquiryStage::Accepted;
        }
        match expected {
            Expected::Acceptance if self.stage == InquiryStage::Accepted => InquiryReply::Answered,
            Expected::Acceptance => InquiryReply::Waits(self.stage),
            Expected::Word { .. } => self.listen(None),
            Expected::Status { good, .. } => self.listen(Some(good)),
        }
    }

    /// Without a kernel that says so, whoever is connected counts as accepted.
    fn is_accepted(&self, diag: Option<&mut SockDiag>) -> bool {
        let Some(diag) = diag else { return true };
        let Ok(own) = self.stream.local_addr() else { return true };
        match diag.connection(self.to, own) {
            Ok(Some(connection)) => connection.inode != 0 || connection.state == TcpState::Closing,
            // Its other end is not here, or under another address.
            Ok(None) | Err(_) => true,
        }
    }

    fn listen(&mut self, good: Option<&ops::RangeInclusive<u16>>) -> InquiryReply {
        let mut buffer = [0; 512];
        loop {
            match self.stream.read(&mut buffer) {
                // A process that lets go is none that hangs; it may have rules against us.
                Ok(0) => {
                    return if good.is_none() {
                        InquiryReply::Answered
                    } else {
                        InquiryReply::Rejected(None)
                    };
                }
                Ok(count) => self.heard.extend(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return InquiryReply::Waits(self.stage);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) if good.is_none() => return InquiryReply::Answered,
                Err(_) => return InquiryReply::Rejected(None),
            }
            match (good, status(&self.heard)) {
                (None, _) => return InquiryReply::Answered,
                (Some(good), Some(status)) if good.contains(&status) => {
                    return InquiryReply::Answered;
                }
                (Some(_), Some(status)) => return InquiryReply::Rejected(Some(status)),
                (Some(_), None) if self.heard.len() > buffer.len() => {
                    return InquiryReply::Rejected(None);
                }
                (Some(_), None) => {}
            }
        }
    }
}

/// What an error of the connection says.
fn failed(error: &io::Error) -> InquiryReply {
    match error.kind() {
        ErrorKind::ConnectionRefused => InquiryReply::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => InquiryReply::Answered,
        _ => InquiryReply::NotAsked,
    }
}

/// That of the first line of an HTTP/1 answer, as soon as it is there.
fn status(heard: &[u8]) -> Option<u16> {
    let rest = heard.strip_prefix(b"HTTP/1.")?;
    let digits = rest.get(2..5)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// An address at which a client of this host reaches a listener there; `None` when there is none.
/// `is_local` says of an address whether it is this host's.
pub(super) fn reachable(
    bound: SocketAddr,
    is_local: impl FnOnce(IpAddr) -> bool,
) -> Option<SocketAddr> {
    let address = match bound.ip() {
        IpAddr::V4(any) if any.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(any) if any.is_unspecified() => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        // Would need to be told the interface.
        IpAddr::V6(address) if address.is_unicast_link_local() => return None,
        address if address.is_loopback() || is_local(address) => address,
        _ => return None,
    };
    Some(SocketAddr::new(address, bound.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_known_when_its_line_is_there() {
        assert_eq!(status(b"HTTP/1.1 503 Service Unavailable\r\n"), Some(503));
        assert_eq!(status(b"HTTP/1.0 200"), Some(200));
        for octets in
            [&b""[..], b"HTTP/1.1 20", b"HTTP/2 200 OK", b"SSH-2.0-x 200", b"HTTP/1.1 2xx"]
        {
            assert_eq!(status(octets), None, "{octets:?}");
        }
    }

    #[test]
    fn only_addresses_of_this_host_are_asked() {
        let ours = IpAddr::from([192, 0, 2, 1]);
        for (bound, expected) in [
            ("0.0.0.0:80", Some("127.0.0.1:80")),
            ("[::]:80", Some("[::1]:80")),
            ("127.0.0.7:80", Some("127.0.0.7:80")),
            ("192.0.2.1:80", Some("192.0.2.1:80")),
            ("192.0.2.2:80", None),
            ("[fe80::1]:80", None),
        ] {
            let found = reachable(bound.parse().unwrap(), |address| address == ours);
            assert_eq!(found, expected.map(|expected| expected.parse().unwrap()), "{bound}");
        }
    }
}
