//! What one proxy hands over to the next: the sockets through which clients come, the sessions of
//! datagrams, and which client stays with which server.
//!
//! ```text
//! successor ─ {"request":"handover"} ─►
//!           ◄─ {"part":{sockets,sessions,stays}} ── with a descriptor for each socket and session, in order
//!           ◄─ {"part":…} …
//!           ◄─ {"end":{status}} ──
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::protocol::{ProxyStatus, ProxyTransport};
use crate::succession::line_socket::{LineSocket, MOST_DESCRIPTORS, send};

/// Clients that stay with their servers, in one line: far from what a line may hold.
const MOST_STAYS: usize = 4096;

#[derive(Debug, Default)]
pub struct Estate {
    pub sockets: Vec<(SocketLabel, OwnedFd)>,
    pub sessions: Vec<(SessionLabel, OwnedFd)>,
    pub stays: Vec<StayLabel>,
}

/// A socket through which clients come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SocketLabel {
    pub transport: ProxyTransport,
    /// As it was asked for.
    pub address: SocketAddr,
    /// Clients are let in; else the port is taken and no more.
    pub is_open: bool,
}

/// A session of datagrams; the descriptor is that of its socket towards the server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionLabel {
    pub service: String,
    /// The address that the client asks, as the service names it.
    pub here: SocketAddr,
    pub client: SocketAddr,
    pub server: SocketAddr,
}

/// A client that stays with a server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StayLabel {
    pub service: String,
    pub network: IpAddr,
    pub server: SocketAddr,
    /// For so long, milliseconds; `None`: longer than the clock can count.
    pub left_ms: Option<u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct EstatePart {
    #[serde(default)]
    sockets: Vec<SocketLabel>,
    #[serde(default)]
    sessions: Vec<SessionLabel>,
    #[serde(default)]
    stays: Vec<StayLabel>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EstateLine {
    Part(EstatePart),
    End(Box<ProxyStatus>),
}

impl Estate {
    /// Sends all of it, and how the proxy is once it has nothing of it any more.
    ///
    /// # Errors
    /// Of the socket.
    pub async fn send(&self, stream: &UnixStream, status: ProxyStatus) -> io::Result<()> {
        for some in self.sockets.chunks(MOST_DESCRIPTORS) {
            let sockets = some.iter().map(|(label, _)| label.clone()).collect();
            let part = EstatePart { sockets, ..EstatePart::default() };
            send_line(stream, &EstateLine::Part(part), some.iter().map(|(_, one)| one.as_fd()))
                .await?;
        }
        for some in self.sessions.chunks(MOST_DESCRIPTORS) {
            let sessions = some.iter().map(|(label, _)| label.clone()).collect();
            let part = EstatePart { sessions, ..EstatePart::default() };
            send_line(stream, &EstateLine::Part(part), some.iter().map(|(_, one)| one.as_fd()))
                .await?;
        }
        for some in self.stays.chunks(MOST_STAYS) {
            let part = EstatePart { stays: some.to_vec(), ..EstatePart::default() };
            send_line(stream, &EstateLine::Part(part), std::iter::empty()).await?;
        }
        send_line(stream, &EstateLine::End(Box::new(status)), std::iter::empty()).await
    }

    /// What the proxy at the other end sends.
    ///
    /// # Errors
    /// Of the socket; `InvalidData` when it says something else.
    pub async fn receive(from: &mut LineSocket) -> io::Result<(Self, ProxyStatus)> {
        let mut all = Self::default();
        loop {
            match serde_json::from_slice(&from.line().await?)? {
                EstateLine::End(status) => return Ok((all, *status)),
                EstateLine::Part(part) => {
                    for label in part.sockets {
                        all.sockets.push((label, descriptor(from)?));
                    }
                    for label in part.sessions {
                        all.sessions.push((label, descriptor(from)?));
                    }
                    all.stays.extend(part.stays);
                }
            }
        }
    }

    /// The socket of this address, which is as open as it shall be, or can be made so.
    pub fn take_socket(
        &mut self,
        transport: ProxyTransport,
        address: SocketAddr,
        is_open: bool,
    ) -> Option<OwnedFd> {
        let is_it = |(label, _): &(SocketLabel, OwnedFd)| {
            label.transport == transport && label.address == address
        };
        let at = self.sockets.iter().position(is_it)?;
        let (label, socket) = self.sockets.swap_remove(at);
        // One that lets clients in cannot be made to refuse them: its port is free once it is closed.
        (is_open || !label.is_open).then_some(socket)
    }

    /// The sessions at this address of a service.
    pub fn take_sessions(
        &mut self,
        service: &str,
        here: SocketAddr,
    ) -> Vec<(SessionLabel, OwnedFd)> {
        let is_it = |(label, _): &mut (SessionLabel, OwnedFd)| {
            label.service == service && label.here == here
        };
        self.sessions.extract_if(.., is_it).collect()
    }

    pub fn take_stays(&mut self, service: &str) -> Vec<StayLabel> {
        self.stays.extract_if(.., |label| label.service == service).collect()
    }
}

async fn send_line(
    stream: &UnixStream,
    line: &EstateLine,
    descriptors: impl Iterator<Item = BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    send(stream, &text, &descriptors.collect::<Vec<_>>()).await
}

fn descriptor(from: &mut LineSocket) -> io::Result<OwnedFd> {
    from.descriptor().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// Many more than go with one line.
    #[test]
    fn what_is_handed_over_comes_whole_and_each_descriptor_with_its_label() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut estate = Estate::default();
            for n in 0..300_u16 {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let here = socket.local_addr().unwrap();
                let client = SocketAddr::from(([192, 0, 2, 1], n));
                let label =
                    SessionLabel { service: "dns".to_owned(), here, client, server: client };
                estate.sessions.push((label, socket.into()));
                let address = SocketAddr::from(([0, 0, 0, 0], n));
                let label =
                    SocketLabel { transport: ProxyTransport::Udp, address, is_open: n % 2 == 0 };
                estate.sockets.push((label, UdpSocket::bind("127.0.0.1:0").unwrap().into()));
            }
            let stay = StayLabel {
                service: "web".to_owned(),
                network: [192, 0, 2, 0].into(),
                server: "192.0.2.9:80".parse().unwrap(),
                left_ms: Some(1),
            };
            estate.stays = vec![stay; MOST_STAYS + 1];
            let status = ProxyStatus { pid: 7, ..ProxyStatus::default() };
            let mut receiver = LineSocket::new(theirs);
            let (sent, received) =
                tokio::join!(estate.send(&ours, status), Estate::receive(&mut receiver));
            sent.unwrap();
            let (mut received, status) = received.unwrap();
            assert_eq!((status.pid, received.stays.len()), (7, MOST_STAYS + 1));
            assert_eq!((received.sockets.len(), received.sessions.len()), (300, 300));
            for (label, socket) in &received.sessions {
                let socket = UdpSocket::from(socket.try_clone().unwrap());
                assert_eq!(socket.local_addr().unwrap(), label.here);
            }
            let mut take = |n: u16, is_open| {
                let address = SocketAddr::from(([0, 0, 0, 0], n));
                received.take_socket(ProxyTransport::Udp, address, is_open).is_some()
            };
            assert!(take(0, true) && !take(0, true), "each once");
            assert!(take(1, true) && take(3, false), "one that is not open can be opened");
            assert!(!take(2, false) && !take(2, true), "an open one is closed instead");
            assert!(!take(999, true));
        });
    }
}
