//! One blocking call to a daemon, for the command line.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::protocol::{Envelope, PROTOCOL_VERSION, Request, Response, to_line};

/// Longest response read: 10,000 history entries with their hooks' output stay below it.
const MAX_RESPONSE_BYTES: u64 = 256 * 1024 * 1024;

/// Longest path of a socket: what `sun_path` of unix(7) holds before its final zero.
const MAX_PATH_BYTES: usize = 107;

/// Time for a question whose answer the daemon has at hand.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a command that may have to read files first; above the daemon's own limit, so that its
/// explanation arrives.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(65);

/// Time for a daemon to end after it said that it would: it waits for a successor, then for its
/// hooks and processes, and has limits of its own below this.
pub const END_TIMEOUT: Duration = Duration::from_secs(95);

#[derive(Debug, Error)]
pub enum ClientError {
    #[error(
        "no daemon answers on {}: is locum running? start it with `locum run`, \
         or name its socket with --socket", path.display()
    )]
    NoDaemon { path: PathBuf },
    #[error(
        "{} is not a socket: name the control socket of a daemon with --socket", path.display()
    )]
    NotASocket { path: PathBuf },
    #[error(
        "the path of a socket has at most {MAX_PATH_BYTES} bytes, and {} has {}",
        path.display(), path.as_os_str().len()
    )]
    TooLong { path: PathBuf },
    #[error("not allowed to open {}: use root or the daemon's user", path.display())]
    NotAllowed { path: PathBuf },
    #[error("cannot open {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("the daemon on {} gave no answer within {} seconds", path.display(), limit.as_secs())]
    Silent { path: PathBuf, limit: Duration },
    #[error("the daemon on {} closed the connection without an answer", path.display())]
    Closed { path: PathBuf },
    #[error("cannot talk to the daemon on {}: {source}", path.display())]
    Talk { path: PathBuf, source: io::Error },
    #[error(
        "the daemon on {} answered what this locum does not understand ({reason}): \
         use the locum command of the same release", path.display()
    )]
    Strange { path: PathBuf, reason: String },
}

/// A connection to one daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// # Errors
    /// When nobody listens at `path`, or this user may not.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|error| refused(path, error))?;
        Ok(Self { path: path.to_owned(), stream: BufReader::new(stream) })
    }

    /// Asks and waits at most `limit` for each piece of the answer.
    ///
    /// # Errors
    /// When the daemon ends, is silent, or speaks another version.
    pub fn call(&mut self, request: &Request, limit: Duration) -> Result<Response, ClientError> {
        let stream = self.stream.get_ref();
        let bounded =
            stream.set_read_timeout(Some(limit)).and(stream.set_write_timeout(Some(limit)));
        bounded.map_err(|error| self.failed(error, limit))?;
        if let Err(error) = self.stream.get_mut().write_all(&to_line(request)) {
            // A daemon that refuses the connection has said why before it closed.
            if error.kind() != io::ErrorKind::BrokenPipe {
                return Err(self.failed(error, limit));
            }
        }
        let mut line = Vec::new();
        let read = self.stream.by_ref().take(MAX_RESPONSE_BYTES).read_until(b'\n', &mut line);
        if let Err(error) = read {
            return Err(self.failed(error, limit));
        }
        if line.last() != Some(&b'\n') {
            return Err(ClientError::Closed { path: self.path.clone() });
        }
        self.understand(&line)
    }

    /// Waits until the daemon has closed the connection, which it does by ending.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub fn wait_for_end(mut self, limit: Duration) -> Result<(), ClientError> {
        let bounded = self.stream.get_ref().set_read_timeout(Some(limit));
        bounded.map_err(|error| self.failed(error, limit))?;
        match self.stream.read(&mut [0]) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(self.failed(error, limit)),
        }
    }

    fn understand(&self, line: &[u8]) -> Result<Response, ClientError> {
        let strange = |reason| ClientError::Strange { path: self.path.clone(), reason };
        let envelope: Envelope<Response> =
            serde_json::from_slice(line).map_err(|error| strange(error.to_string()))?;
        if envelope.version != PROTOCOL_VERSION {
            return Err(strange(format!("protocol version {}", envelope.version)));
        }
        Ok(envelope.body)
    }

    fn failed(&self, source: io::Error, limit: Duration) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::Silent { path, limit }
            }
            io::ErrorKind::ConnectionReset => ClientError::Closed { path },
            _ => ClientError::Talk { path, source },
        }
    }
}

/// Why there is no connection. The kernel refuses one to a file as it does one to a socket that a
/// dead daemon has left.
fn refused(path: &Path, source: io::Error) -> ClientError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => ClientError::NoDaemon { path },
        io::ErrorKind::ConnectionRefused => match fs::metadata(&path) {
            Ok(found) if !found.file_type().is_socket() => ClientError::NotASocket { path },
            Ok(_) | Err(_) => ClientError::NoDaemon { path },
        },
        io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path },
        io::ErrorKind::InvalidInput if path.as_os_str().len() > MAX_PATH_BYTES => {
            ClientError::TooLong { path }
        }
        _ => ClientError::Connect { path, source },
    }
}
