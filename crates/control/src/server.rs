//! The control socket: who may speak, how much, for how long.
//!
//! Each client has a task of its own with a bounded buffer and time-outs, so that a slow, silent or
//! hostile one costs one slot and nothing else. Requests of all clients go into one bounded
//! channel; when it is full, a client waits.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::protocol::{MAX_REQUEST_BYTES, Request, Response, parse_request, to_line};

/// Clients at a time. Operators, a few monitors and watchers; each costs a descriptor.
const MAX_CLIENTS: usize = 32;

/// A client that asks nothing for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that does not take its answer for so long is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest a request may take: a reload may read from a slow file system.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause after a failed accept: it fails for want of descriptors, and those need time to return.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The owner may do everything; root may anyway. Others are stopped by the mode before the
/// credentials are asked.
const SOCKET_MODE: u32 = 0o600;

/// A request and the place for its answer. Dropping `answer` answers the client that the daemon is
/// ending.
#[derive(Debug)]
pub struct Call {
    pub request: Request,
    pub answer: oneshot::Sender<Response>,
}

#[derive(Debug, Error)]
pub enum ServerError {
    #[error("another daemon answers on {}: stop it, or choose another --socket", path.display())]
    Busy { path: PathBuf },
    #[error(
        "{} exists and is not a socket: remove it, or choose another --socket", path.display()
    )]
    NotASocket { path: PathBuf },
    #[error("cannot open the control socket {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
}

/// The file a control socket was bound to: by its inode, since another may take its path later.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketPlace {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketPlace {
    fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Whether the path still leads to this very file. Once it does not, no new client finds the
    /// way to the server.
    pub fn is_held(&self) -> bool {
        Self::of(&self.path).is_ok_and(|found| found == *self)
    }
}

/// A listening control socket. Its file is removed when this is dropped, unless another has taken
/// its path.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    owner: u32,
    file: SocketFile,
}

impl ControlServer {
    /// Listens at `path` with mode 0600, in place of a socket that nobody answers on. `owner` is
    /// the user id that may speak, besides 0. Must run within a tokio runtime.
    ///
    /// # Errors
    /// When somebody answers there, when it is some other file, or what the system says.
    pub fn bind(path: &Path, owner: u32) -> Result<Self, ServerError> {
        let open = |source| ServerError::Open { path: path.to_owned(), source };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ServerError::NotASocket { path: path.to_owned() });
            }
            Ok(_) => {
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(ServerError::Busy { path: path.to_owned() });
                }
                std::fs::remove_file(path).map_err(open)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(open(error)),
        }
        let listener = UnixListener::bind(path).map_err(open)?;
        let file = SocketFile(SocketPlace::of(path).map_err(open)?);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))
            .map_err(open)?;
        Ok(Self { listener, owner, file })
    }

    pub fn path(&self) -> &Path {
        &self.file.0.path
    }

    /// For watching over the file while [`ControlServer::serve`] runs.
    pub fn place(&self) -> SocketPlace {
        self.file.0.clone()
    }

    /// Serves until `calls` has no receiver any more.
    pub async fn serve(self, calls: mpsc::Sender<Call>) {
        let slots = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "control socket: cannot accept a client");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
                () = calls.closed() => return,
            };
            let slot = Arc::clone(&slots).try_acquire_owned();
            let owner = self.owner;
            let calls = calls.clone();
            tokio::spawn(async move {
                let stranger = stranger(&stream, owner);
                let (reader, writer) = stream.into_split();
                match (stranger, slot) {
                    (Some(message), _) => refuse(writer, message).await,
                    (None, Ok(_slot)) => serve_client(reader, writer, calls).await,
                    (None, Err(_)) => {
                        let message =
                            format!("{MAX_CLIENTS} clients are connected already: try again later");
                        refuse(writer, message).await;
                    }
                }
            });
        }
    }
}

/// Removes its socket when the daemon ends.
#[derive(Debug)]
struct SocketFile(SocketPlace);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.0.is_held() {
            // Should it fail, the next daemon replaces what nobody answers on.
            let _ = std::fs::remove_file(&self.0.path);
        }
    }
}

/// Why the process at the other end may not speak; `None` when it may.
fn stranger(stream: &UnixStream, owner: u32) -> Option<String> {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == owner => None,
        Ok(peer) => Some(format!(
            "user id {} may not control this daemon: use root or user id {owner}",
            peer.uid()
        )),
        Err(error) => Some(format!("the kernel does not say who asks: {error}")),
    }
}

async fn serve_client(
    reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
    calls: mpsc::Sender<Call>,
) {
    let mut reader = BufReader::with_capacity(1024, reader);
    let mut line = Vec::new();
    loop {
        let request = match read_line(&mut reader, &mut line).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(message) => return refuse(writer, message).await,
        };
        let response = ask(request, &calls).await;
        let last = matches!(response, Response::Error { .. });
        if !write(&mut writer, &response).await || last {
            return;
        }
    }
}

/// The next request; `None` when the client has closed, is idle or cannot be read; a message when
/// what it says is no request.
async fn read_line(
    reader: &mut BufReader<OwnedReadHalf>,
    line: &mut Vec<u8>,
) -> Result<Option<Request>, String> {
    line.clear();
    let mut limited = reader.take(MAX_REQUEST_BYTES as u64);
    match timeout(IDLE_TIMEOUT, limited.read_until(b'\n', line)).await {
        Err(_) | Ok(Err(_) | Ok(0)) => return Ok(None),
        Ok(Ok(_)) => {}
    }
    if line.last() != Some(&b'\n') {
        if line.len() >= MAX_REQUEST_BYTES {
            return Err(format!("request is longer than {MAX_REQUEST_BYTES} bytes"));
        }
        // Half a line and then the end: nothing was asked.
        return Ok(None);
    }
    line.pop();
    parse_request(line).map(Some)
}

async fn ask(request: Request, calls: &mpsc::Sender<Call>) -> Response {
    let ending = || Response::Error { message: "the daemon is ending".to_owned() };
    let (answer, answered) = oneshot::channel();
    if calls.send(Call { request, answer }).await.is_err() {
        return ending();
    }
    match timeout(ANSWER_TIMEOUT, answered).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => ending(),
        Err(_) => Response::Error {
            message: format!("no result within {} seconds: see the log", ANSWER_TIMEOUT.as_secs()),
        },
    }
}

async fn refuse(mut writer: OwnedWriteHalf, message: String) {
    write(&mut writer, &Response::Error { message }).await;
}

/// Whether the client took it.
async fn write(writer: &mut OwnedWriteHalf, response: &Response) -> bool {
    matches!(timeout(WRITE_TIMEOUT, writer.write_all(&to_line(response))).await, Ok(Ok(())))
}
