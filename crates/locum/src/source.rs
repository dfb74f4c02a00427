//! Configuration text from the file system.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use locum_config::source::MAX_FILE_SIZE;
use locum_config::{Source, SourceError};
use nix::fcntl::OFlag;

/// Reads files; relative paths start at the working directory.
#[derive(Clone, Copy, Debug)]
pub struct FileSource;

impl Source for FileSource {
    fn read(&self, path: &str) -> Result<Vec<u8>, SourceError> {
        // Opening a pipe that nobody writes to would wait for ever.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)
            .map_err(explain)?;
        let kind = file.metadata().map_err(explain)?.file_type();
        if kind.is_dir() {
            return Err(SourceError::Failed("is a directory".to_owned()));
        }
        if !kind.is_file() {
            return Err(SourceError::Failed(
                "is a pipe or a device: only a regular file is read".to_owned(),
            ));
        }
        // One octet more than allowed, so that a growing file is noticed too.
        let mut content = Vec::new();
        let limit = MAX_FILE_SIZE as u64 + 1;
        file.take(limit).read_to_end(&mut content).map_err(explain)?;
        if content.len() > MAX_FILE_SIZE {
            return Err(SourceError::Failed(format!("larger than {} MiB", MAX_FILE_SIZE >> 20)));
        }
        Ok(content)
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, SourceError> {
        let directory = if directory.is_empty() { Path::new(".") } else { Path::new(directory) };
        let mut names = Vec::new();
        for entry in fs::read_dir(directory).map_err(explain)? {
            let name = entry.map_err(explain)?.file_name();
            names.push(name.to_string_lossy().into_owned());
        }
        Ok(names)
    }
}

fn explain(error: io::Error) -> SourceError {
    match error.kind() {
        io::ErrorKind::NotFound => SourceError::NotFound,
        io::ErrorKind::PermissionDenied => SourceError::Failed("permission denied".to_owned()),
        _ => SourceError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("locum.toml");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(FileSource.read(path.to_str().unwrap())));
        let refused = receiver.recv_timeout(Duration::from_secs(10)).expect("it does not wait");
        assert!(matches!(refused, Err(SourceError::Failed(why)) if why.contains("regular file")));
    }
}
