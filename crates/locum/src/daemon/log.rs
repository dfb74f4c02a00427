//! Log lines to standard error, without ever keeping a thread waiting for its reader.
//!
//! A terminal that is stopped or a log daemon that hangs must not delay a lease. So lines go into a
//! bounded queue and one thread writes them; when the queue is full, new lines are dropped and
//! counted, and the count is written as soon as there is room.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::cli::{LogFormat, LogLevel};

/// Lines waiting for the writer: a burst of every instance changing its role twice.
const QUEUE_LINES: usize = 1024;

/// How long the last lines may take to leave when the daemon ends.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// Lines are short; the writer formats nothing.
const STACK_BYTES: usize = 64 * 1024;

enum Item {
    Line(Vec<u8>),
    /// Everything before this has been written.
    Flush(SyncSender<()>),
}

/// Keeps the writer's queue open; ask it to [`Log::flush`] before the process ends.
#[derive(Clone)]
pub struct Log {
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Log {
    /// Installs the process's subscriber and starts the writer.
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn start(format: LogFormat, level: LogLevel) -> io::Result<Self> {
        let (queue, lines) = mpsc::sync_channel(QUEUE_LINES);
        let log = Self { queue, dropped: Arc::new(AtomicU64::new(0)) };
        let dropped = Arc::clone(&log.dropped);
        thread::Builder::new()
            .name("log".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || write_lines(&lines, &dropped))?;

        let ours = match level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        };
        // Libraries speak only of what is wrong.
        let filter =
            Targets::new().with_target("locum", ours).with_default(LevelFilter::WARN.min(ours));
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(log.clone())
            .with_target(false)
            .with_ansi(io::stderr().is_terminal());
        // The journal has its own time stamps.
        let journal = std::env::var_os("JOURNAL_STREAM").is_some();
        let registry = tracing_subscriber::registry().with(filter);
        let installed = match (format, journal) {
            (LogFormat::Json, _) => tracing::subscriber::set_global_default(
                registry.with(layer.json().flatten_event(true)),
            ),
            (LogFormat::Text, false) => {
                tracing::subscriber::set_global_default(registry.with(layer))
            }
            (LogFormat::Text, true) => {
                tracing::subscriber::set_global_default(registry.with(layer.without_time()))
            }
        };
        installed.map_err(io::Error::other)?;
        Ok(log)
    }

    /// Lines dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the lines so far are written, or the reader has proved too slow.
    pub fn flush(&self) {
        let (done, is_done) = mpsc::sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(FLUSH_LIMIT);
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// One line being handed over; the subscriber writes it in one piece.
pub struct Line<'a>(&'a Log);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.queue.try_send(Item::Line(bytes.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.0.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Until the process ends. Lines are dropped only while others wait, so the count is looked at
/// after each of those.
fn write_lines(lines: &Receiver<Item>, dropped: &AtomicU64) {
    let mut told = 0;
    for item in lines {
        let mut stderr = io::stderr().lock();
        match item {
            // A closed standard error is no reason to end.
            Item::Line(line) => drop(stderr.write_all(&line)),
            Item::Flush(done) => drop(done.send(())),
        }
        let now = dropped.load(Ordering::Relaxed);
        if now != told {
            let _ = writeln!(stderr, "{} log lines were dropped: their reader is slow", now - told);
            told = now;
        }
    }
}
