//! What this daemon started or installed, in a file under the run directory, so that the next one
//! can tell its own from a stranger's. The run directory does not survive a reboot, and neither do
//! processes and tables.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Nothing is remembered where there is no file. A file that cannot be read is reported and
    /// taken for none: better to leave something of ours behind than to touch what is not.
    pub(crate) fn load<T: DeserializeOwned + Default>(&self) -> T {
        let read = || match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
            Err(error) => Err(error),
        };
        read().unwrap_or_else(|error| {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot read what an earlier run left, check by hand");
            T::default()
        })
    }

    /// Replaces the file whole or not at all, so that a crash never leaves half of it.
    pub(crate) fn save<T: Serialize>(&self, state: &T) {
        let draft = self.path.with_extension("new");
        let write = || {
            fs::write(&draft, serde_json::to_vec(state)?)?;
            fs::rename(&draft, &self.path)
        };
        if let Err(error) = write() {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot remember what is ours, a crash would leave it behind");
        }
    }
}
