//! One line said to a HAProxy at its socket, and what it answers. Nothing here waits.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// Longest answer that is read, in octets: a line for each of some hundred thousand servers.
const ANSWER_LIMIT: usize = 64 << 20;

/// Longest line that is said: HAProxy reads one of its buffers, 16 KiB.
pub(super) const LINE_LIMIT: usize = 8 << 10;

#[derive(Debug)]
pub(super) struct SocketExchange {
    stream: UnixStream,
    unsaid: Vec<u8>,
    answer: Vec<u8>,
    pub begun: Instant,
}

impl SocketExchange {
    /// Says it, as far as that goes without waiting: commands with a `;` between them.
    pub(super) fn begin(path: &Path, line: &str, now: Instant) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let descriptor = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(descriptor.as_raw_fd(), &UnixAddr::new(path)?)?;
        let unsaid = format!("{line}\n").into_bytes();
        let stream = UnixStream::from(descriptor);
        let mut exchange = Self { stream, unsaid, answer: Vec::new(), begun: now };
        exchange.say()?;
        Ok(exchange)
    }

    fn say(&mut self) -> io::Result<()> {
        while !self.unsaid.is_empty() {
            match self.stream.write(&self.unsaid) {
                Ok(count) => drop(self.unsaid.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The whole answer, once HAProxy has closed; `None` while there is more to come.
    pub(super) fn poll(&mut self) -> Option<io::Result<String>> {
        if let Err(error) = self.say() {
            return Some(Err(error));
        }
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Some(Ok(String::from_utf8_lossy(&self.answer).into_owned())),
                Ok(count) => self.answer.extend(buffer.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(error)),
            }
            if self.answer.len() > ANSWER_LIMIT {
                return Some(Err(io::Error::other("its answer has no end")));
            }
        }
    }
}
