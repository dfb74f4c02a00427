//! Configuration text from the file system.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use locum_config::source::MAX_FILE_SIZE;
use locum_config::{Source, SourceError};

/// Reads files; relative paths start at the working directory.
#[derive(Clone, Copy, Debug)]
pub struct FileSource;

impl Source for FileSource {
    fn read(&self, path: &str) -> Result<Vec<u8>, SourceError> {
        let file = File::open(path).map_err(explain)?;
        if file.metadata().map_err(explain)?.is_dir() {
            return Err(SourceError::Failed("is a directory".to_owned()));
        }
        // One octet more than allowed, so that a pipe or a growing file is noticed too.
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
