//! Where text comes from. The crate reads no file by itself.

use std::collections::BTreeMap;
use std::fmt;

/// Why a path could not be read or listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceError {
    /// No such file or directory.
    NotFound,
    /// Anything else, as a person should read it: "permission denied".
    Failed(String),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such file"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for SourceError {}

/// Files by path. Paths are `/`-separated; a relative one is relative to wherever the
/// implementation stands. Patterns are expanded by this crate, from [`Source::list`].
pub trait Source {
    /// The whole content of a file. An implementation should refuse files above
    /// [`MAX_FILE_SIZE`] before it has read them.
    fn read(&self, path: &str) -> Result<Vec<u8>, SourceError>;

    /// Names of the entries of a directory, in any order, without `.` and `..`. The empty path is
    /// where relative paths start.
    fn list(&self, directory: &str) -> Result<Vec<String>, SourceError>;
}

/// Octets of one file: a configuration of ten thousand services has about two million.
pub const MAX_FILE_SIZE: usize = 16 << 20;

/// Why there is no text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unread {
    /// There is no such file, or it could not be read.
    Missing(SourceError),
    /// It was read, and is no text that could be used.
    Unusable(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(error) => write!(f, "cannot read the file: {error}"),
            Self::Unusable(reason) => f.write_str(reason),
        }
    }
}

/// The octets of a file, refused above [`MAX_FILE_SIZE`].
pub(crate) fn read(source: &dyn Source, path: &str) -> Result<Vec<u8>, Unread> {
    let octets = source.read(path).map_err(Unread::Missing)?;
    if octets.len() > MAX_FILE_SIZE {
        let reason = format!("the file is longer than {} MiB", MAX_FILE_SIZE >> 20);
        return Err(Unread::Unusable(reason));
    }
    if let Some(reason) = no_text(&octets) {
        return Err(Unread::Unusable(reason.to_owned()));
    }
    Ok(octets)
}

/// Why these octets are no text at all: one sentence instead of a finding for each line of an
/// archive or a program.
fn no_text(octets: &[u8]) -> Option<&'static str> {
    if octets.starts_with(&[0xff, 0xfe]) || octets.starts_with(&[0xfe, 0xff]) {
        return Some("the file is UTF-16: save it as UTF-8");
    }
    octets.contains(&0).then_some("the file is not text but binary data")
}

/// What some editors put before UTF-8 text.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// Files held in memory, for tests and for text that came over a socket.
#[derive(Clone, Default, Debug)]
pub struct MemorySource {
    files: BTreeMap<String, Vec<u8>>,
}

impl MemorySource {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces one file.
    pub fn with(mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), content.into());
        self
    }
}

impl Source for MemorySource {
    fn read(&self, path: &str) -> Result<Vec<u8>, SourceError> {
        self.files.get(path).cloned().ok_or(SourceError::NotFound)
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, SourceError> {
        let prefix = match directory {
            "" => String::new(),
            "/" => "/".to_owned(),
            other => format!("{other}/"),
        };
        let mut names: Vec<String> = self
            .files
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix))
            .filter_map(|rest| rest.split('/').next())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        names.dedup();
        if names.is_empty() { Err(SourceError::NotFound) } else { Ok(names) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_source_lists_each_entry_of_a_directory_once() {
        let source =
            MemorySource::new().with("/etc/a.conf", "").with("/etc/d/b", "").with("/etc/d/c", "");
        assert_eq!(source.list("/etc"), Ok(vec!["a.conf".to_owned(), "d".to_owned()]));
        assert_eq!(source.list("/"), Ok(vec!["etc".to_owned()]));
        assert_eq!(source.list("/usr"), Err(SourceError::NotFound));
    }
}
