//! The ping probe: an echo request is answered.
//!
//! An unprivileged ping socket is used where the host lets us have one
//! (`net.ipv4.ping_group_range`), else a raw one, which needs CAP_NET_RAW.

use std::io;
use std::net::{IpAddr, SocketAddr};

use locum_plan::CheckSource;
use nix::errno::Errno;
use socket2::{Protocol, Type};
use tokio::net::UdpSocket;

use super::dial::{self, DialError};
use super::{Answer, WaitingFor, Whom};

/// Octets of an echo: header, and a text that says whose it is.
const ECHO: &[u8] = b"\0\0\0\0\0\0\0\x01locum asks whether anybody is here";

/// Longest answer that is looked at: an IPv4 header with options, and the echo.
const ANSWER_BYTES: usize = 60 + ECHO.len();

/// Answers of others that a raw socket is shown before the right one, at most.
const STRANGERS: usize = 4096;

/// Asks once.
pub(crate) async fn probe(whom: Whom<'_>, stage: &mut WaitingFor) -> Result<Answer, Answer> {
    *stage = "no echo";
    // A ping has no port, and the kernel takes the one of a source for the identifier.
    let target = SocketAddr::new(whom.target.ip(), 0);
    let origin = whom.origin.map(|origin| CheckSource {
        source: origin.source.map(|source| SocketAddr::new(source.ip(), 0)),
        ..origin.clone()
    });
    let whom = Whom { target, origin: origin.as_ref() };
    let protocol = if target.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let (socket, is_raw) = match dial::open(whom, Type::DGRAM, Some(protocol)) {
        Err(DialError::Target(error)) if is_denied(&error) => {
            let raw = dial::open(whom, Type::RAW, Some(protocol)).map_err(explain)?;
            (raw, true)
        }
        Err(error) => return Err(error.into()),
        Ok(socket) => (socket, false),
    };
    socket.connect(&target.into()).map_err(|error| dial::refusal(&error))?;
    let socket = UdpSocket::from_std(socket.into()).map_err(|error| dial::refusal(&error))?;
    let identifier = identifier();
    let request = request(target.ip(), identifier);
    socket.send(&request).await.map_err(|error| dial::refusal(&error))?;
    let mut answer = [0; ANSWER_BYTES];
    for _ in 0..STRANGERS {
        let length = socket.recv(&mut answer).await.map_err(|error| dial::refusal(&error))?;
        let wanted = is_raw.then_some(identifier);
        if is_reply(&answer[..length], target.ip(), is_raw, wanted) {
            return Ok(Answer::pass("echoed"));
        }
    }
    Err(Answer::fail("no echo among the answers of others"))
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EACCES | Errno::EPERM))
}

fn explain(error: DialError) -> Answer {
    match error {
        DialError::Target(error) if is_denied(&error) => Answer::unasked(
            "not allowed to ping: the daemon needs CAP_NET_RAW, or its group a place in \
             net.ipv4.ping_group_range",
        ),
        other => other.into(),
    }
}

/// What our echoes on a raw socket differ by from those of others, and from late ones of earlier runs: a
/// number of this run's own. On a ping socket the kernel puts its own in its place.
fn identifier() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU16, Ordering};
    // By chance, since other daemons on this host count too.
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new((RandomState::new().hash_one(()) & 0xffff) as u16));
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// RFC 792 and RFC 4443 §4.1. The kernel sums up for ICMPv6.
fn request(target: IpAddr, identifier: u16) -> Vec<u8> {
    let mut echo = ECHO.to_vec();
    echo[0] = if target.is_ipv4() { 8 } else { 128 };
    echo[4..6].copy_from_slice(&identifier.to_be_bytes());
    if target.is_ipv4() {
        let sum = checksum(&echo);
        echo[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    echo
}

/// RFC 1071.
fn checksum(octets: &[u8]) -> u16 {
    let words = octets
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default()));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn is_reply(answer: &[u8], target: IpAddr, is_raw: bool, identifier: Option<u16>) -> bool {
    // A raw IPv4 socket shows the IP header too.
    let header = match (is_raw && target.is_ipv4(), answer.first()) {
        (true, Some(first)) => usize::from(first & 0x0f) * 4,
        (true, None) => return false,
        (false, _) => 0,
    };
    let Some(echo) = answer.get(header..) else { return false };
    let kind = if target.is_ipv4() { 0 } else { 129 };
    let is_ours = |echo: &[u8]| {
        identifier.is_none_or(|identifier| echo.get(4..6) == Some(&identifier.to_be_bytes()[..]))
    };
    echo.first() == Some(&kind) && is_ours(echo) && echo.get(8..) == ECHO.get(8..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_sums_up_to_nothing() {
        let target = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(checksum(&request(target, 0x1234)), 0);
    }

    #[test]
    fn an_echo_of_an_earlier_run_is_no_reply() {
        let target = IpAddr::from([192, 0, 2, 1]);
        let (earlier, now) = (identifier(), identifier());
        let mut echo = request(target, earlier);
        echo[0] = 0;
        let raw = [&[0x45; 20][..], &echo].concat();
        assert!(!is_reply(&raw, target, true, Some(now)));
    }

    #[test]
    fn only_our_own_echo_is_a_reply() {
        let target = IpAddr::from([192, 0, 2, 1]);
        let mut echo = request(target, 7);
        assert!(!is_reply(&echo, target, false, None), "a request");
        echo[0] = 0;
        assert!(is_reply(&echo, target, false, None));
        let raw = [&[0x45; 20][..], &echo].concat();
        assert!(is_reply(&raw, target, true, Some(7)));
        assert!(!is_reply(&raw, target, true, Some(8)));
        assert!(!is_reply(&raw[..24], target, true, Some(7)));
        assert!(!is_reply(&[], target, true, Some(7)));
    }
}
