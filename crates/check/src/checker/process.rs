//! The process probe: a process of this name is there. What `killall -0 NAME` asks, without a
//! fork, without root, and with one look at /proc for all probes that are due.
//!
//! A name means what it means to killall (psmisc), tried beside it: the kernel cuts names to 15
//! bytes, so for a name that long the command line decides, where any argument whose file name
//! begins with the cut name completes it (`/bin/sh /opt/a_rather_long_name.sh`).
//! One thing differs on purpose: a zombie does not count. It serves nobody, though a signal can
//! still be sent to it.
//!
//! ```text
//!   probe A ──┐                              ┌──► A
//!   probe B ──┼─► a view younger than MAX_AGE? ─► B     else: one scan on a thread of its own
//!   probe C ──┘                              └──► C
//! ```

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use locum_plan::{Outcome, Verdict};
use tokio::sync::watch;
use tokio::time::{self, Instant};

/// A view of /proc begun this long before a question still answers it. A tenth of the shortest
/// sensible interval, and long enough for all that fall due together.
const MAX_AGE: Duration = Duration::from_millis(50);

/// The kernel's limit for a process name, without the final NUL (TASK_COMM_LEN − 1).
const KERNEL_NAME_BYTES: usize = 15;

/// Read of one command line; the program and its script are at the start.
const COMMAND_LINE_BYTES: u64 = 4096;

/// Asks once.
pub(crate) async fn probe(table: &Arc<ProcessTable>, name: &str, timeout: Duration) -> Outcome {
    let begin = Instant::now();
    let (verdict, detail) = if name.contains('/') {
        (Verdict::CannotRun, format!("\"{name}\" is a path: give the name of the process alone"))
    } else {
        match time::timeout(timeout, table.view(begin)).await {
            Ok(view) => view.judge(name),
            Err(_) => (Verdict::CannotRun, format!("/proc gave no answer within {timeout:?}")),
        }
    };
    Outcome { verdict, detail, took: begin.elapsed(), weight: None }
}

/// The shared view of all processes.
#[derive(Debug)]
pub(crate) struct ProcessTable {
    latest: watch::Sender<Option<Arc<ProcessNames>>>,
    /// A scan runs; there is never a second one, also when the first hangs in the kernel.
    scanning: AtomicBool,
}

impl ProcessTable {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { latest: watch::Sender::new(None), scanning: AtomicBool::new(false) })
    }

    /// A view that was begun at most [`MAX_AGE`] before `asked`.
    async fn view(self: &Arc<Self>, asked: Instant) -> Arc<ProcessNames> {
        let mut latest = self.latest.subscribe();
        loop {
            if let Some(view) = &*latest.borrow_and_update()
                && view.begun + MAX_AGE >= asked
            {
                return Arc::clone(view);
            }
            self.scan();
            // The sender lives as long as `self`, so this only returns for news.
            let _outcomes = latest.changed().await;
        }
    }

    /// Begins a scan unless one runs.
    fn scan(self: &Arc<Self>) {
        if self.scanning.swap(true, Ordering::AcqRel) {
            return;
        }
        let table = Arc::clone(self);
        let scan = move || table.publish(ProcessNames::take(Path::new("/proc")));
        if let Err(error) = thread::Builder::new().name("locum-proc".into()).spawn(scan) {
            let error = format!("no thread to read /proc ({error}): raise TasksMax or LimitNPROC");
            self.publish(ProcessNames { error: Some(error), ..ProcessNames::empty() });
        }
    }

    fn publish(&self, view: ProcessNames) {
        self.scanning.store(false, Ordering::Release);
        self.latest.send_replace(Some(Arc::new(view)));
    }
}

/// The names of all processes at one moment.
#[derive(Debug)]
struct ProcessNames {
    begun: Instant,
    /// Complete names of the living.
    living: HashSet<Box<[u8]>>,
    /// First 15 bytes of longer names that no argument completes.
    cut: HashSet<Box<[u8]>>,
    /// Names of zombies, maybe cut.
    zombies: HashSet<Box<[u8]>>,
    error: Option<String>,
}

impl ProcessNames {
    fn empty() -> Self {
        Self {
            begun: Instant::now(),
            living: HashSet::new(),
            cut: HashSet::new(),
            zombies: HashSet::new(),
            error: None,
        }
    }

    fn take(proc: &Path) -> Self {
        let mut view = Self::empty();
        if let Err(error) = view.read(proc) {
            view.error = Some(format!("cannot read {}: {error}", proc.display()));
        }
        view
    }

    fn read(&mut self, proc: &Path) -> io::Result<()> {
        let mut text = Vec::with_capacity(COMMAND_LINE_BYTES as usize);
        for entry in fs::read_dir(proc)? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            // A process may end at any moment: then it is not there, which is what was asked.
            let path = entry.path();
            if read_start(&path.join("stat"), &mut text).is_ok()
                && let Some((name, state)) = parse_stat(&text)
            {
                let name = Box::from(name);
                self.add(name, state, || {
                    let mut line = Vec::new();
                    read_start(&path.join("cmdline"), &mut line).map(|()| line).unwrap_or_default()
                });
            }
        }
        Ok(())
    }

    fn add(&mut self, name: Box<[u8]>, state: u8, command_line: impl FnOnce() -> Vec<u8>) {
        if matches!(state, b'Z' | b'X' | b'x') {
            self.zombies.insert(name);
        } else if name.len() != KERNEL_NAME_BYTES {
            self.living.insert(name);
        } else if let Some(whole) = complete(&name, &command_line()) {
            self.living.insert(whole.into());
        } else {
            self.cut.insert(name);
        }
    }

    fn judge(&self, name: &str) -> (Verdict, String) {
        if let Some(error) = &self.error {
            return (Verdict::CannotRun, error.clone());
        }
        let bytes = name.as_bytes();
        let start = &bytes[..bytes.len().min(KERNEL_NAME_BYTES)];
        let maybe_cut = bytes.len() >= KERNEL_NAME_BYTES && self.cut.contains(start);
        if self.living.contains(bytes) || maybe_cut {
            (Verdict::Pass, "running".into())
        } else if self.zombies.contains(start) {
            (Verdict::Fail, format!("process \"{name}\" is dead, a zombie"))
        } else {
            (Verdict::Fail, format!("no process named \"{name}\""))
        }
    }
}

fn read_start(path: &Path, text: &mut Vec<u8>) -> io::Result<()> {
    text.clear();
    File::open(path)?.take(COMMAND_LINE_BYTES).read_to_end(text).map(|_| ())
}

/// Name and state from `/proc/PID/stat`: `42 (name) S ...`, where the name may hold anything.
fn parse_stat(text: &[u8]) -> Option<(&[u8], u8)> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    Some((text.get(open + 1..close)?, *text.get(close + 2)?))
}

/// The file name among the arguments that a cut name is the start of.
fn complete<'a>(cut: &[u8], command_line: &'a [u8]) -> Option<&'a [u8]> {
    command_line
        .split(|byte| *byte == 0)
        .filter_map(|argument| argument.rsplit(|byte| *byte == b'/').next())
        .find(|name| name.starts_with(cut))
}
