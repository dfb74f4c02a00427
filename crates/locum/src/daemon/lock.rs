//! One daemon per run directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

/// Held while this process is the daemon of its run directory. The kernel releases it with the
/// process, however that ends, so a crash leaves nothing to clean up.
#[derive(Debug)]
pub struct RunDirLock {
    _held: Flock<File>,
}

impl RunDirLock {
    /// Makes the directory when it is missing, and takes its lock.
    ///
    /// # Errors
    /// A sentence for the operator; it names the process that holds the lock.
    pub fn take(run_dir: &Path) -> Result<Self, String> {
        make_directory(run_dir)
            .map_err(|error| format!("cannot create {}: {error}", run_dir.display()))?;
        let path = run_dir.join("locum.lock");
        let fail = |error: io::Error| format!("cannot lock {}: {error}", path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        let mut held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(format!(
                    "{} already runs in {}: stop it with `locum stop --run-dir {}`, \
                     or choose another --run-dir",
                    holder(file),
                    run_dir.display(),
                    run_dir.display()
                ));
            }
            Err((_, error)) => return Err(fail(error.into())),
        };
        held.set_len(0)
            .and_then(|()| held.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(held, "{}", std::process::id()))
            .map_err(fail)?;
        Ok(Self { _held: held })
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
    DirBuilder::new().recursive(true).mode(0o755).create(path)
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
}
