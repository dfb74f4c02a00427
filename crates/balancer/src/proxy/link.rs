//! The balancer's end of the proxy's control socket. Every call is bounded.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use locum_proxy::protocol::{LINE_LIMIT, ProxyRequest, ProxyStatus};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::process::Identity;

/// A proxy answers in microseconds, a new one in milliseconds; one that does not in this time hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Link {
    stream: BufReader<UnixStream>,
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// Nothing came in time: the process may hang.
    #[error("the proxy does not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent,
    #[error("the proxy hung up: {0}")]
    Gone(io::Error),
    /// In its own words. The link goes on.
    #[error("the proxy refuses: {0}")]
    Refused(String),
    /// Nothing was sent. The link goes on.
    #[error("these are more services than one request to the proxy holds ({LINE_LIMIT} octets)")]
    TooLarge,
    #[error("the proxy's answer is longer than {LINE_LIMIT} octets and was not read")]
    AnswerTooLarge,
    #[error("the proxy's answer makes no sense: {0}")]
    Malformed(serde_json::Error),
}

impl AskError {
    /// Whether the link can be used after it: no answer is still on its way.
    pub(super) fn leaves_link(&self) -> bool {
        match self {
            Self::Refused(_) | Self::TooLarge => true,
            Self::Silent | Self::Gone(_) | Self::AnswerTooLarge | Self::Malformed(_) => false,
        }
    }
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Gone(error),
        }
    }
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

    pub(super) fn ask(&mut self, request: &ProxyRequest) -> Result<ProxyStatus, AskError> {
        let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
        line.push(b'\n');
        if line.len() > LINE_LIMIT {
            return Err(AskError::TooLarge);
        }
        self.stream.get_mut().write_all(&line)?;
        let mut answer = Vec::new();
        (&mut self.stream).take(LINE_LIMIT as u64).read_until(b'\n', &mut answer)?;
        if answer.last() != Some(&b'\n') {
            return Err(match answer.len() {
                LINE_LIMIT => AskError::AnswerTooLarge,
                _ => AskError::Gone(io::ErrorKind::UnexpectedEof.into()),
            });
        }
        let status: ProxyStatus = serde_json::from_slice(&answer).map_err(AskError::Malformed)?;
        match status.error {
            Some(error) => Err(AskError::Refused(error)),
            None => Ok(status),
        }
    }
}
