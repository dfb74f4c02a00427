//! What this daemon started or installed, in a file under the run directory, so that the next one
//! can tell its own from a stranger's. The run directory does not survive a reboot, and neither do
//! processes and tables.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// `None` where there is no file. A file that cannot be read is reported and taken for none:
    /// better to leave something of ours behind than to touch what is not.
    pub fn load<T: DeserializeOwned>(&self) -> Option<T> {
        let read = || match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        read().unwrap_or_else(|error| {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot read what an earlier run left, check by hand");
            None
        })
    }

    /// Replaces the file whole or not at all, so that a crash never leaves half of it. Whoever can
    /// write it decides which processes are signalled: nobody else may, nor read it.
    pub fn save<T: Serialize>(&self, state: &T) {
        if let Err(error) = self.try_save(state) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot remember what is ours, a crash would leave it behind");
        }
    }

    /// As [`Self::save`], where somebody else has to be told.
    ///
    /// # Errors
    /// The file is what it was.
    pub fn try_save<T: Serialize>(&self, state: &T) -> io::Result<()> {
        replace_private(&self.path, &serde_json::to_vec(state)?)
    }
}

/// Replaces a file whole or not at all; nobody else may read it.
pub(crate) fn replace_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    create_private(&draft)?.write_all(content)?;
    fs::rename(&draft, path)
}

/// A new file at `path`, in place of what a crash left there. A link that somebody put there leads
/// nowhere: it is removed itself, and an exclusive creation follows none.
fn create_private(path: &Path) -> io::Result<fs::File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn nobody_else_reads_the_state_and_a_planted_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("shadow");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, directory.path().join("state.new")).unwrap();
        let file = StateFile::new(directory.path().join("state.json"));
        file.save(&[1, 2]);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(file.load::<Vec<i32>>(), Some(vec![1, 2]));
        let mode = fs::metadata(&file.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // What a crash left half-written does not stop the next save.
        fs::write(directory.path().join("state.new"), "[1").unwrap();
        file.save(&[3]);
        assert_eq!(file.load::<Vec<i32>>(), Some(vec![3]));
    }
}
