//! The PROXY protocol, versions 1 and 2: ahead of everything else a line, or a block of octets, says
//! between which ends the client meant to speak.
//!
//! ```text
//!  PROXY TCP4 192.0.2.1 192.0.2.10 51000 80\r\n                                     version 1
//!
//!  +---------------------------+---------+------------+---------+------------------+
//!  | 0d 0a 0d 0a 00 0d 0a 51   | version | family     | octets  | addresses, ports |  version 2
//!  | 55 49 54 0a               | command | transport  | to come | and more         |
//!  +---------------------------+---------+------------+---------+------------------+
//! ```
//!
//! What comes from outside is read to its last octet and no further, and none of it is kept: a line has
//! at most [`LONGEST_LINE`] octets, a block [`LONGEST_BLOCK`]. How long that may take is the
//! caller's to limit.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::protocol::ProxyHeaderVersion;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Of version 1, with its end.
const LONGEST_LINE: usize = 107;

/// Of version 2, behind its first 16 octets. Certificates of clients are the longest that anybody adds.
const LONGEST_BLOCK: usize = 4096;

/// Version 2 in the upper half, and in the lower one whether a client is spoken for.
const OWN: u8 = 0x20;
const FOR_CLIENT: u8 = 0x21;

const UNKNOWN: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// Between which ends a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientEnds {
    pub client: SocketAddr,
    /// What it asked for.
    pub asked: SocketAddr,
}

/// What stood there is no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no PROXY protocol")]
pub struct NoHeader;

impl From<NoHeader> for io::Error {
    fn from(error: NoHeader) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The header that says this.
pub fn header(version: ProxyHeaderVersion, ends: ClientEnds) -> Vec<u8> {
    let [client, asked] = [ends.client, ends.asked].map(canonical);
    match (client, asked) {
        (SocketAddr::V4(client), SocketAddr::V4(asked)) => {
            let octets = [client.ip().octets(), asked.ip().octets()].concat();
            write(version, ends_of(client, asked), ("TCP4", TCP_OVER_IPV4), &octets)
        }
        (client, asked) => {
            // Of two families both are written as the one that holds them.
            let octets = [client, asked].map(|end| mapped(end.ip()).octets()).concat();
            let [client, asked] =
                [client, asked].map(|end| SocketAddr::new(mapped(end.ip()).into(), end.port()));
            write(version, ends_of(client, asked), ("TCP6", TCP_OVER_IPV6), &octets)
        }
    }
}

fn ends_of(client: impl Into<SocketAddr>, asked: impl Into<SocketAddr>) -> ClientEnds {
    ClientEnds { client: client.into(), asked: asked.into() }
}

fn write(
    version: ProxyHeaderVersion,
    ends: ClientEnds,
    (word, family): (&str, u8),
    octets: &[u8],
) -> Vec<u8> {
    let ClientEnds { client, asked } = ends;
    let ports = [client.port(), asked.port()];
    match version {
        ProxyHeaderVersion::V1 => {
            let (from, to) = (client.ip(), asked.ip());
            format!("PROXY {word} {from} {to} {} {}\r\n", ports[0], ports[1]).into_bytes()
        }
        ProxyHeaderVersion::V2 => {
            let length = u8::try_from(octets.len() + 4).unwrap_or(u8::MAX);
            let ports = ports.map(u16::to_be_bytes).concat();
            [&SIGNATURE[..], &[FOR_CLIENT, family, 0, length], octets, &ports].concat()
        }
    }
}

fn canonical(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip().to_canonical(), end.port())
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Takes a header of either version from the stream. `None` when whoever sent it speaks for itself,
/// or for a client of which it can say nothing.
///
/// # Errors
/// Of the stream; `InvalidData` when something else stands there. Some of it has been taken.
pub async fn take_header(stream: &mut TcpStream) -> io::Result<Option<ClientEnds>> {
    // The shortest header is longer.
    let mut start = SIGNATURE;
    stream.read_exact(&mut start).await?;
    if start != SIGNATURE {
        return Ok(of_line(&take_line(stream, &start).await?)?);
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let mut block = vec![0; block_length(head)?];
    stream.read_exact(&mut block).await?;
    Ok(of_block(head, &block)?)
}

/// The rest of a line that begins like this, with all of it. What follows stays in the socket.
async fn take_line(stream: &mut TcpStream, start: &[u8]) -> io::Result<Vec<u8>> {
    if !start.starts_with(b"PROXY ") {
        return Err(NoHeader.into());
    }
    let mut line = start.to_vec();
    let mut seen = [0; LONGEST_LINE];
    while line.last() != Some(&b'\n') {
        let room = LONGEST_LINE - line.len();
        if room == 0 {
            return Err(NoHeader.into());
        }
        let seen = &mut seen[..room];
        let count = stream.peek(seen).await?;
        let end = seen[..count].iter().position(|octet| *octet == b'\n');
        let taken = &mut seen[..end.map_or(count, |end| end + 1)];
        if taken.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        stream.read_exact(taken).await?;
        line.extend_from_slice(taken);
    }
    Ok(line)
}

/// What a line of version 1 says.
fn of_line(line: &[u8]) -> Result<Option<ClientEnds>, NoHeader> {
    let text = line.strip_suffix(b"\r\n").ok_or(NoHeader)?;
    let text = std::str::from_utf8(text).map_err(|_| NoHeader)?;
    let mut words = text.strip_prefix("PROXY ").ok_or(NoHeader)?.split(' ');
    let family = words.next().ok_or(NoHeader)?;
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let mut word = || words.next().ok_or(NoHeader);
    let ips = [word()?, word()?];
    let ports = [port(word()?)?, port(word()?)?];
    if words.next().is_some() {
        return Err(NoHeader);
    }
    let of = |read: fn(&str) -> Option<IpAddr>| {
        let [client, asked] = ips.map(read);
        let [client, asked] = [client.ok_or(NoHeader)?, asked.ok_or(NoHeader)?];
        Ok(Some(ends_of((client, ports[0]), (asked, ports[1]))))
    };
    match family {
        "TCP4" => of(|text| text.parse::<Ipv4Addr>().ok().map(IpAddr::from)),
        "TCP6" => of(|text| text.parse::<Ipv6Addr>().ok().map(IpAddr::from)),
        _ => Err(NoHeader),
    }
}

fn port(text: &str) -> Result<u16, NoHeader> {
    let is_number = text.bytes().all(|octet| octet.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or(NoHeader)
}

/// How much comes behind these octets of version 2.
fn block_length(head: [u8; 4]) -> Result<usize, NoHeader> {
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    (length <= LONGEST_BLOCK).then_some(length).ok_or(NoHeader)
}

/// What version 2 says; more may stand behind the ports.
fn of_block(head: [u8; 4], block: &[u8]) -> Result<Option<ClientEnds>, NoHeader> {
    match (head[0], head[1]) {
        (OWN, _) | (FOR_CLIENT, UNKNOWN) => Ok(None),
        (FOR_CLIENT, TCP_OVER_IPV4) => {
            ends_in(block, |octets: [u8; 4]| Ipv4Addr::from(octets).into())
        }
        (FOR_CLIENT, TCP_OVER_IPV6) => {
            ends_in(block, |octets: [u8; 16]| Ipv6Addr::from(octets).into())
        }
        _ => Err(NoHeader),
    }
}

fn ends_in<const LENGTH: usize>(
    block: &[u8],
    address: fn([u8; LENGTH]) -> IpAddr,
) -> Result<Option<ClientEnds>, NoHeader> {
    let (client, rest) = block.split_first_chunk().ok_or(NoHeader)?;
    let (asked, rest) = rest.split_first_chunk().ok_or(NoHeader)?;
    let (ports, _) = rest.split_first_chunk::<4>().ok_or(NoHeader)?;
    let [a, b, c, d] = *ports;
    let ports = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    Ok(Some(ends_of((address(*client), ports[0]), (address(*asked), ports[1]))))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream as BlockingStream};

    use super::*;

    fn ends(client: &str, asked: &str) -> ClientEnds {
        ends_of(client.parse::<SocketAddr>().unwrap(), asked.parse::<SocketAddr>().unwrap())
    }

    fn v4() -> ClientEnds {
        ends("192.0.2.1:51000", "192.0.2.10:80")
    }

    fn v6() -> ClientEnds {
        ends("[2001:db8::1]:51000", "[2001:db8::10]:80")
    }

    /// What is read of these octets when they come in pieces of this size, and what is left.
    fn taken(octets: &[u8], size: usize) -> (io::Result<Option<ClientEnds>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = BlockingStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().unwrap().0;
        stream.set_nonblocking(true).unwrap();
        let octets = octets.to_vec();
        let sender = std::thread::spawn(move || {
            peer.set_nodelay(true).unwrap();
            // Whoever does not like it hangs up.
            let _ = octets.chunks(size).try_for_each(|piece| peer.write_all(piece));
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (result, mut stream) = runtime.block_on(async {
            let mut stream = TcpStream::from_std(stream).unwrap();
            (take_header(&mut stream).await, stream.into_std().unwrap())
        });
        stream.set_nonblocking(false).unwrap();
        sender.join().unwrap();
        let mut rest = Vec::new();
        // A reset, where something was refused, ends it too.
        let _ = stream.read_to_end(&mut rest);
        (result, rest)
    }

    #[test]
    fn what_is_written_is_as_the_specification_has_it() {
        let line = |ends| String::from_utf8(header(ProxyHeaderVersion::V1, ends)).unwrap();
        assert_eq!(line(v4()), "PROXY TCP4 192.0.2.1 192.0.2.10 51000 80\r\n");
        assert_eq!(line(v6()), "PROXY TCP6 2001:db8::1 2001:db8::10 51000 80\r\n");
        let mixed = ends("192.0.2.1:51000", "[2001:db8::10]:80");
        assert_eq!(line(mixed), "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::10 51000 80\r\n");
        let same = ends("[::ffff:192.0.2.1]:51000", "[::ffff:192.0.2.10]:80");
        assert_eq!(line(same), line(v4()));
        let block = header(ProxyHeaderVersion::V2, v4());
        assert_eq!(hex::encode(&block), "0d0a0d0a000d0a515549540a2111000cc0000201c000020ac7380050");
        assert_eq!(header(ProxyHeaderVersion::V2, v6()).len(), 16 + 36);
    }

    #[test]
    fn what_was_written_is_read_and_nothing_behind_it_however_it_comes() {
        for version in [ProxyHeaderVersion::V1, ProxyHeaderVersion::V2] {
            for ends in [v4(), v6()] {
                let octets = [&header(version, ends)[..], b"GET /\r\n"].concat();
                for size in [1, 7, octets.len()] {
                    let (result, rest) = taken(&octets, size);
                    assert_eq!(result.unwrap(), Some(ends));
                    assert_eq!(rest, b"GET /\r\n");
                }
            }
        }
    }

    #[test]
    fn more_behind_the_ports_is_passed_over_up_to_a_limit() {
        let with = |more: usize| {
            let mut octets = header(ProxyHeaderVersion::V2, v4());
            let length = u16::try_from(12 + more).unwrap();
            octets[14..16].copy_from_slice(&length.to_be_bytes());
            octets.extend(vec![7; more]);
            octets.push(b'x');
            taken(&octets, octets.len())
        };
        let (result, rest) = with(LONGEST_BLOCK - 12);
        assert_eq!((result.unwrap(), rest), (Some(v4()), b"x".to_vec()));
        assert_eq!(with(LONGEST_BLOCK - 11).0.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn who_speaks_for_nobody_is_itself() {
        assert_eq!(of_line(b"PROXY UNKNOWN\r\n"), Ok(None));
        assert_eq!(of_line(b"PROXY UNKNOWN ff:: x 1 2\r\n"), Ok(None));
        assert_eq!(of_block([OWN, UNKNOWN, 0, 0], &[]), Ok(None));
        assert_eq!(of_block([OWN, TCP_OVER_IPV4, 0, 12], &[1; 12]), Ok(None));
        assert_eq!(of_block([FOR_CLIENT, UNKNOWN, 0, 0], &[]), Ok(None));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.10 51000 80\n",
            "PROXY TCP4 192.0.2.1 192.0.2.10 51000\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.10 51000 80 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.10 51000 65536\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.10 +1 80\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.10 1 80\r\n",
            "PROXY TCP4 2001:db8::1 192.0.2.10 1 80\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.10 1 80\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.10 1 80\r\n",
            "PROXY \u{fc} 192.0.2.1 192.0.2.10 1 80\r\n",
            "PROXY \r\n",
            "\r\n",
            "",
        ] {
            assert_eq!(of_line(line.as_bytes()), Err(NoHeader), "{line}");
        }
        for (head, length) in [
            ([0x11, TCP_OVER_IPV4, 0, 12], 12),
            ([0x22, TCP_OVER_IPV4, 0, 12], 12),
            ([FOR_CLIENT, 0x12, 0, 12], 12),
            ([FOR_CLIENT, TCP_OVER_IPV4, 0, 11], 11),
            ([FOR_CLIENT, TCP_OVER_IPV6, 0, 35], 35),
        ] {
            assert_eq!(of_block(head, &vec![1; length]), Err(NoHeader), "{head:?}");
        }
        for octets in
            [&b"GET / HTTP/1.1\r\n"[..], &[b'P'; 200], &[b"PROXY ", &[b'x'; 200][..]].concat()]
        {
            let error = taken(octets, octets.len()).0.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        let half = &header(ProxyHeaderVersion::V1, v4())[..20];
        assert_eq!(taken(half, 20).0.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
