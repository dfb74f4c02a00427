//! The control socket and the run directory under a daemon that goes on for months.
//!
//! Someone may clear `/run`. The daemon then goes on, but no command reaches it and another one
//! could take the directory. So both are looked at every second and made again.

use std::path::Path;

use locum_control::{Call, ControlServer, SocketPlace};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

use super::run_dir_lock::RunDirLock;
use crate::cli::DaemonArgs;

/// A socket that is served, and the lock of the directory it lies in.
pub struct ControlSocket {
    place: DaemonArgs,
    lock: RunDirLock,
    file: SocketPlace,
    calls: Sender<Call>,
    /// `None` after it lost its file and could not get a new one.
    serving: Option<JoinHandle<()>>,
    /// Why it could not, as last reported.
    reported: Option<String>,
}

/// What [`ControlSocket::keep`] has to say.
#[derive(PartialEq, Eq, Debug)]
pub enum SocketChange {
    /// Files in the run directory are to be opened again.
    Restored(String),
    Lost(String),
}

impl ControlSocket {
    /// Puts every request that comes into `calls`. Must run within a tokio runtime.
    pub fn serve(
        place: DaemonArgs,
        lock: RunDirLock,
        server: ControlServer,
        calls: Sender<Call>,
    ) -> Self {
        let file = server.place();
        let serving = Some(tokio::spawn(server.serve(calls.clone())));
        Self { place, lock, file, calls, serving, reported: None }
    }

    /// Makes again what is gone. `None` when there is nothing to say.
    pub async fn keep(&mut self) -> Option<SocketChange> {
        if self.serving.is_some() && self.lock.is_held() && self.file.is_held() {
            return None;
        }
        self.close().await;
        let path = self.place.socket();
        match self.restore(&path) {
            Ok(()) => {
                self.reported = None;
                let path = path.display();
                Some(SocketChange::Restored(format!(
                    "the control socket {path} was removed: made again"
                )))
            }
            Err(error) if self.reported.as_ref() == Some(&error) => None,
            Err(error) => {
                self.reported = Some(error.clone());
                Some(SocketChange::Lost(format!("the control socket was removed: {error}")))
            }
        }
    }

    /// Answers no new client.
    pub async fn close(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // It ends by being aborted, and has dropped its server then.
            let _ = serving.await;
        }
    }

    fn restore(&mut self, path: &Path) -> Result<(), String> {
        if !self.lock.is_held() {
            self.lock = RunDirLock::take(&self.place.run_dir)?;
        }
        let server = bind(path)?;
        self.file = server.place();
        self.serving = Some(tokio::spawn(server.serve(self.calls.clone())));
        Ok(())
    }
}

/// For the daemon's own user and root.
///
/// # Errors
/// A sentence for the operator.
pub fn bind(path: &Path) -> Result<ControlServer, String> {
    let owner = nix::unistd::geteuid().as_raw();
    ControlServer::bind(path, owner).map_err(|error| error.to_string())
}
