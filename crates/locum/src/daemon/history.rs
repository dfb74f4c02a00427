//! What happened, kept: a bounded ring in memory and a file of JSON lines that outlives the daemon.
//!
//! `history.jsonl` in the run directory is appended to; at [`MAX_FILE_BYTES`] it becomes
//! `history.jsonl.1` and a new one begins. While the file cannot be written, what happens is kept in
//! memory alone; as soon as there is room again, all of that which is still there follows.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
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
    /// Length of the file, in whole lines.
    bytes: u64,
    /// So many of the newest entries are not in the file.
    unwritten: usize,
    /// The log knows that the file cannot be written.
    is_reported: bool,
}

impl History {
    /// Reads what earlier daemons left in `run_dir`; lines that cannot be read are left out.
    pub fn open(run_dir: &Path) -> Self {
        let path = run_dir.join(HISTORY_FILE);
        let mut history = Self {
            entries: VecDeque::new(),
            path: path.clone(),
            file: None,
            bytes: 0,
            unwritten: 0,
            is_reported: false,
        };
        history.read(&old(&path));
        history.read(&path);
        history.catch_up();
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
        self.remember(entry);
        self.unwritten += 1;
        self.catch_up();
    }

    /// Writes what could not be written before, if it can be now. Call it now and then.
    pub fn catch_up(&mut self) {
        let result = self.write_rest();
        let path = self.path.display();
        match result {
            Ok(()) if self.is_reported => {
                self.is_reported = false;
                tracing::info!("{path} is written again: nothing that is still known is missing");
            }
            Err(error) if !self.is_reported => {
                self.is_reported = true;
                tracing::warn!(
                    "cannot write {path}: {error}: going on without, and with it as soon as it can \
                     be written"
                );
            }
            Ok(()) | Err(_) => {}
        }
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

    fn write_rest(&mut self) -> io::Result<()> {
        self.unwritten = self.unwritten.min(self.entries.len());
        loop {
            if self.file.is_none() {
                let (file, bytes) = open(&self.path)?;
                self.file = Some(file);
                self.bytes = bytes;
            }
            let next = self.entries.len() - self.unwritten;
            let Some(entry) = self.entries.get(next) else { return Ok(()) };
            let mut line = serde_json::to_vec(entry)?;
            line.push(b'\n');
            // Without the rename the file goes on growing, and the next entry tries again.
            if self.bytes >= MAX_FILE_BYTES && fs::rename(&self.path, old(&self.path)).is_ok() {
                self.file = None;
                continue;
            }
            let Some(file) = &mut self.file else { continue };
            if let Err(error) = file.write_all(&line) {
                // Half a line would spoil the next one; a file that cannot even be cut is opened
                // again, which looks at its end.
                if file.set_len(self.bytes).is_err() {
                    self.file = None;
                }
                return Err(error);
            }
            self.bytes += line.len() as u64;
            self.unwritten -= 1;
        }
    }

    /// Opens the file by its path again, after it was renamed or removed.
    pub fn reopen(&mut self) {
        self.file = None;
        self.catch_up();
    }
}

/// The file with its length, which ends with a line. What hooks and checks printed is in it: not for
/// every user's eyes.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(FILE_MODE)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    let mut bytes = file.metadata()?.len();
    let mut last = [b'\n'];
    if bytes > 0 {
        file.read_exact_at(&mut last, bytes - 1)?;
    }
    if last != [b'\n'] {
        // A daemon was killed, or found no room, in the middle of a line.
        file.write_all(b"\n")?;
        bytes += 1;
    }
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
    fn half_a_line_costs_no_other() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("history.jsonl"), "{\"half").unwrap();
        History::open(directory.path()).push(1, None, "one".into(), Record::Note {});
        assert_eq!(texts(&History::open(directory.path())), ["one"]);
    }

    #[test]
    fn what_could_not_be_written_follows_when_it_can() {
        let directory = tempfile::tempdir().unwrap();
        // A directory in its place is as good as a full disk.
        let path = directory.path().join("history.jsonl");
        fs::create_dir(&path).unwrap();
        let mut history = History::open(directory.path());
        history.push(1, None, "one".into(), Record::Note {});
        history.push(2, None, "two".into(), Record::Note {});
        assert_eq!(texts(&history), ["one", "two"]);
        fs::remove_dir(&path).unwrap();
        history.catch_up();
        assert_eq!(texts(&History::open(directory.path())), ["one", "two"]);
        history.push(3, None, "three".into(), Record::Note {});
        assert_eq!(texts(&History::open(directory.path())), ["one", "two", "three"]);
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
