//! One daemon per run directory, and a run directory that nobody else can meddle with.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};

/// Only the daemon's user looks into the directory: a lock that others can open, others can hold.
const DIRECTORY_MODE: u32 = 0o700;
const LOCK_MODE: u32 = 0o600;

/// Who may write into a directory may replace what is in it.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Held while this process is the daemon of its run directory. The kernel releases it with the
/// process, however that ends, so a crash leaves nothing to clean up.
#[derive(Debug)]
pub struct RunDirLock {
    held: Flock<File>,
    path: PathBuf,
}

impl RunDirLock {
    /// Makes the directory when it is missing, and takes its lock.
    ///
    /// # Errors
    /// A sentence for the operator: it names the process that holds the lock, or says why the
    /// directory is not to be trusted.
    pub fn take(run_dir: &Path) -> Result<Self, String> {
        make_directory(run_dir).map_err(|error| refused("create", run_dir, &error))?;
        check_directory(run_dir)?;
        let path = run_dir.join("locum.lock");
        let fail = |error: io::Error| refused("lock", &path, &error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(LOCK_MODE)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path)
            .map_err(fail)?;
        let mut held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(format!(
                    "{} already runs in {}: stop it with `locum stop --run-dir {}`; only in \
                     another network namespace another --run-dir helps",
                    holder(file),
                    run_dir.display(),
                    run_dir.display()
                ));
            }
            Err((_, error)) => return Err(fail(error.into())),
        };
        held.set_permissions(Permissions::from_mode(LOCK_MODE))
            .and_then(|()| held.set_len(0))
            .and_then(|()| held.seek(SeekFrom::Start(0)))
            .map_err(fail)?;
        // On a full disk the lock holds as well; only whoever is turned away cannot be told by whom.
        let _ = writeln!(held, "{}", std::process::id());
        Ok(Self { held, path })
    }

    /// Whether its file is still where another daemon would look for it.
    pub fn is_held(&self) -> bool {
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        let ours = self.held.metadata().map(identity);
        let found = fs::symlink_metadata(&self.path).map(identity);
        matches!((ours, found), (Ok(ours), Ok(found)) if ours == found)
    }
}

/// The holder writes its process id after it has the lock; for a moment there may be none.
fn holder(file: File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("a locum daemon (process {})", text.trim()),
        Ok(_) | Err(_) => "a locum daemon".to_owned(),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

fn check_directory(path: &Path) -> Result<(), String> {
    let found = fs::metadata(path).map_err(|error| refused("look at", path, &error))?;
    let user = nix::unistd::geteuid().as_raw();
    let shown = path.display();
    if found.uid() != user {
        return Err(format!(
            "{shown} belongs to user id {} and this is user id {user}: \
             give --run-dir a directory of its own",
            found.uid()
        ));
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(format!(
            "{shown} can be changed by other users: run `chmod go-w {shown}`, \
             or give --run-dir a directory of its own"
        ));
    }
    Ok(())
}

fn refused(what: &str, path: &Path, error: &io::Error) -> String {
    let path = path.display();
    if error.kind() == io::ErrorKind::PermissionDenied {
        return format!("cannot {what} {path}: {error}: run as root, or give --run-dir");
    }
    format!("cannot {what} {path}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_hears_who_holds_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let run_dir = directory.path().join("run");
        let first = RunDirLock::take(&run_dir).unwrap();
        let error = RunDirLock::take(&run_dir).unwrap_err();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        RunDirLock::take(&run_dir).unwrap();
    }

    #[test]
    fn nobody_else_can_open_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let run_dir = directory.path().join("run");
        fs::create_dir(&run_dir).unwrap();
        fs::write(run_dir.join("locum.lock"), "1").unwrap();
        fs::set_permissions(run_dir.join("locum.lock"), Permissions::from_mode(0o644)).unwrap();
        RunDirLock::take(&run_dir).unwrap();
        assert_eq!(fs::metadata(run_dir.join("locum.lock")).unwrap().mode() & 0o777, 0o600);

        let made = directory.path().join("made");
        RunDirLock::take(&made).unwrap();
        assert_eq!(fs::metadata(&made).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_others_can_change_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o770, 0o1777] {
            fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
            let error = RunDirLock::take(directory.path()).unwrap_err();
            assert!(error.contains("chmod go-w"), "{error}");
        }
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        RunDirLock::take(directory.path()).unwrap();
    }

    #[test]
    fn a_lock_whose_file_was_removed_or_replaced_is_not_held() {
        let directory = tempfile::tempdir().unwrap();
        let run_dir = directory.path().join("run");
        let lock = RunDirLock::take(&run_dir).unwrap();
        assert!(lock.is_held());
        fs::remove_dir_all(&run_dir).unwrap();
        assert!(!lock.is_held());
        let second = RunDirLock::take(&run_dir).unwrap();
        assert!(!lock.is_held() && second.is_held());
    }

    #[test]
    fn who_is_not_root_hears_what_to_do() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let text = refused("create", Path::new("/run/locum"), &error);
        assert!(text.ends_with("run as root, or give --run-dir"), "{text}");
    }
}
