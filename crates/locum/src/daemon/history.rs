//! What happened, kept: a bounded ring in memory and a file of JSON lines that outlives the daemon.
//!
//! `history.jsonl` in the run directory is appended to; at [`MAX_FILE_BYTES`] it becomes
//! `history.jsonl.1` and a new one begins. A file that cannot be written costs the memory of it
//! across restarts and nothing else.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use locum_control::{HistoryEntry, Record};
use nix::fcntl::OFlag;

use crate::cli::HISTORY_FILE;

/// Entries in memory, and so in an answer: a month of a quiet pair, about half a megabyte.
const MAX_ENTRIES: usize = 1_000;

/// Size of the file before it is turned over; two of them are kept.
const MAX_FILE_BYTES: u64 = 1 << 20;

const FILE_MODE: u32 = 0o600;

/// A longer line is no entry of ours.
const MAX_LINE_BYTES: usize = 64 * 1024;

pub struct History {
    entries: VecDeque<HistoryEntry>,
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl History {
    /// Reads what earlier daemons left in `run_dir`; lines that cannot be read are left out.
    pub fn open(run_dir: &Path) -> Self {
        let path = run_dir.join(HISTORY_FILE);
        let mut history =
            Self { entries: VecDeque::new(), path: path.clone(), file: None, bytes: 0 };
        history.read(&old(&path));
        history.read(&path);
        history.reopen();
        history
    }

    /// Adds an entry that happens now.
    pub fn push(&mut self, event: u64, instance: Option<&str>, text: String, record: Record) {
        let now = SystemTime::now();
        let entry = HistoryEntry {
            at_ms: unix_ms(now),
            at: humantime::format_rfc3339_millis(now).to_string(),
            pid: std::process::id(),
            event,
            instance: instance.map(str::to_owned),
            text,
            record,
        };
        self.write(&entry);
        self.remember(entry);
    }

    /// Oldest first, those not older than `since_ms`.
    pub fn since(&self, since_ms: u64) -> Vec<HistoryEntry> {
        self.entries.iter().filter(|entry| entry.at_ms >= since_ms).cloned().collect()
    }

    fn remember(&mut self, entry: HistoryEntry) {
        if self.entries.len() == MAX_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    fn read(&mut self, path: &Path) {
        let Ok(file) = File::open(path) else { return };
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            if line.len() <= MAX_LINE_BYTES
                && let Ok(entry) = serde_json::from_slice(&line)
            {
                self.remember(entry);
            }
        }
    }

    fn write(&mut self, entry: &HistoryEntry) {
        let Ok(mut line) = serde_json::to_vec(entry) else { return };
        line.push(b'\n');
        if self.bytes >= MAX_FILE_BYTES {
            // Without the rename the file goes on growing, and the next entry tries again.
            if fs::rename(&self.path, old(&self.path)).is_ok() {
                self.reopen();
            }
        }
        let Some(file) = &mut self.file else { return };
        match file.write_all(&line) {
            Ok(()) => self.bytes += line.len() as u64,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "history file given up");
                self.file = None;
            }
        }
    }

    /// Opens the file by its path again, after it was renamed or removed.
    pub fn reopen(&mut self) {
        match open(&self.path) {
            Ok((file, bytes)) => {
                self.file = Some(file);
                self.bytes = bytes;
            }
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "no history file");
                self.file = None;
            }
        }
    }
}

/// What hooks and checks printed is in it: not for every user's eyes.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(FILE_MODE)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

/// Milliseconds since 1970; 0 for a clock before that.
pub fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(history: &History) -> Vec<String> {
        history.since(0).into_iter().map(|entry| entry.text).collect()
    }

    #[test]
    fn entries_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut history = History::open(directory.path());
        history.push(1, Some("web"), "one".into(), Record::Note {});
        history.push(2, None, "two".into(), Record::Ended {});
        drop(history);
        let again = History::open(directory.path());
        assert_eq!(texts(&again), ["one", "two"]);
        assert_eq!(again.since(0)[0].instance.as_deref(), Some("web"));
        assert!(again.since(u64::MAX).is_empty());
    }

    #[test]
    fn only_its_owner_can_read_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.jsonl");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        History::open(directory.path());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_line_costs_only_itself() {
        let directory = tempfile::tempdir().unwrap();
        History::open(directory.path()).push(1, None, "one".into(), Record::Note {});
        let path = directory.path().join("history.jsonl");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"half\n\xff\xfe\n").unwrap();
        History::open(directory.path()).push(2, None, "two".into(), Record::Note {});
        assert_eq!(texts(&History::open(directory.path())), ["one", "two"]);
    }

    #[test]
    fn memory_and_files_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let mut history = History::open(directory.path());
        let text = "x".repeat(4096);
        for number in 0..1200 {
            history.push(number, None, text.clone(), Record::Note {});
        }
        assert_eq!(history.since(0).len(), MAX_ENTRIES);
        let total: u64 = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(total < 2 * MAX_FILE_BYTES + 16 * 1024, "{total} bytes");
    }
}
