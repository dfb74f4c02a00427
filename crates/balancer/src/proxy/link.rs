//! The balancer's end of the proxy's control socket. Every call is bounded.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use locum_proxy::protocol::{LINE_LIMIT, Request, Status};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::process::Identity;

/// A proxy answers in microseconds; one that does not in this time hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Link {
    stream: BufReader<UnixStream>,
}

impl Link {
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Who listens at the other end.
    pub(super) fn peer(&self) -> Option<Identity> {
        let peer = getsockopt(self.stream.get_ref(), PeerCredentials).ok()?;
        Identity::of(u32::try_from(peer.pid()).ok()?)
    }

    /// After an error the link is of no use any more: an answer may still be on its way.
    pub(super) fn ask(&mut self, request: &Request) -> io::Result<Status> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        if line.len() > LINE_LIMIT {
            let text = format!("more services than one request holds ({LINE_LIMIT} octets)");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.stream.get_mut().write_all(&line)?;
        let mut answer = Vec::new();
        (&mut self.stream).take(LINE_LIMIT as u64).read_until(b'\n', &mut answer)?;
        if answer.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status: Status = serde_json::from_slice(&answer)?;
        match status.error {
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            None => Ok(status),
        }
    }
}
