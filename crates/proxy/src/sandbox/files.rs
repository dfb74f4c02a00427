//! Landlock: the file system is shut, and so are abstract sockets and signals towards others.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};

/// The newest that is asked for; an older kernel grants what it knows of it.
const NEWEST: ABI = ABI::V6;

#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, and landlock in lsm=)")]
    Unknown,
    #[error("{0}")]
    Ruleset(#[from] landlock::RulesetError),
    #[error("{0}")]
    Directory(#[from] landlock::PathFdError),
}

/// From now on this thread opens nothing. The control socket can be removed, where its directory lets
/// us.
///
/// # Errors
/// Nothing has changed.
pub fn shut(socket: &Path) -> Result<(), FilesError> {
    let directory = socket.parent().filter(|path| !path.as_os_str().is_empty());
    let directory = PathFd::new(directory.unwrap_or(Path::new(".")))?;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rule(PathBeneath::new(directory, AccessFs::RemoveFile))?
        .restrict_self()?;
    match status.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced => Err(FilesError::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io, thread};

    use super::*;

    #[test]
    fn nothing_is_opened_and_nothing_removed_but_beside_the_control_socket() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let paths = [own.path(), other.path()].map(|directory| directory.join("proxy.sock"));
        paths.iter().for_each(|path| fs::write(path, "here").unwrap());
        let [beside, elsewhere] = paths;
        // The thread alone is shut in, and ends.
        let tried = thread::spawn(move || {
            if let Err(error) = shut(&beside) {
                assert!(std::env::var_os("LOCUM_REQUIRE_LAB").is_none(), "{error}");
                eprintln!("skipped: {error}");
                return;
            }
            let denied = |result: io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            };
            denied(fs::read_to_string(&beside).map(drop));
            denied(fs::read_dir("/").map(drop));
            denied(fs::write(beside.with_extension("new"), "x"));
            denied(fs::remove_file(&elsewhere));
            fs::remove_file(&beside).unwrap();
        });
        tried.join().unwrap();
    }
}
