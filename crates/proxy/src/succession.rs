//! One proxy after the other, without a client noticing: a new process takes over the sockets of the one
//! before it, with all that waits in them, and the one before lets its connections finish.
//!
//! ```text
//! balancer ── Serve ──► successor ── handover ──► predecessor
//!                           │ ◄── sockets, sessions, stays ── │  it lets nobody in any more
//!          ◄── Status ──    │ ── every later request ───────► │  what fails there is cut there too
//!                           │ ◄── its status ──────────────── │  and counts here
//! ```
//!
//! The sockets themselves are passed (SCM_RIGHTS), not opened once more beside the old ones (SO_REUSEPORT):
//! what the kernel has accepted waits in the queue of one socket and would be reset with it, and no
//! other process of the same user shall be let in.

mod estate;
mod line_socket;
mod sums;

use std::io;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::protocol::{ProxyRequest, ProxyStatus};
use line_socket::LineSocket;

pub use estate::{Estate, SessionLabel, SocketLabel, StayLabel};

/// Its whole estate takes some milliseconds; whoever asked us waits for a second.
const HANDOVER_LIMIT: Duration = Duration::from_millis(700);

/// A proxy answers in microseconds.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);

/// The proxy before this one.
#[derive(Debug)]
pub struct ProxyBefore {
    /// `None` once it has ended, or does not answer.
    socket: Option<LineSocket>,
    has_handed_over: bool,
    /// As it said last.
    latest: ProxyStatus,
}

impl ProxyBefore {
    /// Must be called while this process may still open sockets of its kind.
    ///
    /// # Errors
    /// Nobody answers there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = BlockingStream::connect(path)?;
        stream.set_nonblocking(true)?;
        let socket = Some(LineSocket::new(UnixStream::from_std(stream)?));
        Ok(Self { socket, has_handed_over: false, latest: ProxyStatus::default() })
    }

    /// What it hands over, the first time; from then on it lets nobody in.
    ///
    /// # Errors
    /// It did not, and has to be taken for one that serves on.
    pub async fn hand_over(&mut self) -> io::Result<Option<Estate>> {
        if self.has_handed_over {
            return Ok(None);
        }
        let socket = self.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let ask = async {
            socket.send(b"{\"request\":\"handover\"}\n").await?;
            Estate::receive(socket).await
        };
        let answered = timeout(HANDOVER_LIMIT, ask).await.map_err(io::Error::from).flatten();
        match answered {
            Ok((estate, status)) => {
                self.latest = status;
                self.has_handed_over = true;
                Ok(Some(estate))
            }
            Err(error) => {
                self.socket = None;
                Err(error)
            }
        }
    }

    /// Says on what was asked here, and adds how it is to our own answer.
    pub async fn join(&mut self, request: &ProxyRequest, line: &[u8], own: &mut ProxyStatus) {
        if !self.has_handed_over {
            return;
        }
        let whole = matches!(request, ProxyRequest::Serve { .. } | ProxyRequest::Status);
        self.ask(line, whole).await;
        sums::add(own, &self.latest, whole);
        own.log.append(&mut self.latest.log);
    }

    /// Looks whether it has ended, where nobody asks for anything.
    pub async fn look(&mut self) {
        if self.has_handed_over {
            self.ask(b"{\"request\":\"status\"}\n", true).await;
        }
    }

    async fn ask(&mut self, line: &[u8], whole: bool) {
        if let Some(socket) = &mut self.socket {
            let ask = async {
                // One that has ended hears nothing, and has said how it was at the end.
                let sent = socket.send(line).await;
                let answer = socket.line().await;
                let answer = if answer.is_err() { sent.and(answer) } else { answer };
                Ok::<ProxyStatus, io::Error>(serde_json::from_slice(&answer?)?)
            };
            match timeout(ANSWER_LIMIT, ask).await.map_err(io::Error::from).flatten() {
                Ok(mut status) if whole => {
                    // What it said before and nobody has taken yet.
                    status.log.splice(..0, self.latest.log.drain(..));
                    self.latest = status;
                }
                Ok(status) => sums::renew(&mut self.latest, status),
                Err(error) => {
                    let ended = [io::ErrorKind::UnexpectedEof, io::ErrorKind::BrokenPipe];
                    if !ended.contains(&error.kind()) {
                        tracing::warn!(%error, "the proxy before this one is left alone");
                    }
                    self.socket = None;
                    sums::end(&mut self.latest);
                }
            }
        }
    }

    /// It finishes what it had when we took over, as far as it said.
    pub fn is_finishing(&self) -> bool {
        self.has_handed_over && self.socket.is_some()
    }
}
