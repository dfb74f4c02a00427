//! Log lines to standard error, without ever keeping a thread waiting for its reader.
//!
//! A terminal that is stopped or a log daemon that hangs must not delay a lease. So lines go into a
//! bounded queue and one thread writes them; when the queue is full, new lines are dropped and
//! counted, and the count is written as soon as there is room.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;

use crate::cli::{LogFormat, LogLevel};
use crate::terminal::one_line;

/// Lines waiting for the writer: a burst of every instance changing its role twice.
const QUEUE_LINES: usize = 1024;

/// How long the last lines may take to leave when the daemon ends.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// Stands for an error without a number.
const UNKNOWN: i32 = nix::libc::EIO;

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
    lost: Arc<LostLines>,
}

/// Lines that reached nobody.
#[derive(Debug, Default)]
struct LostLines {
    /// Of them, all since the start.
    lines: AtomicU64,
    /// Error number of the last write, 0 while lines are written.
    error: AtomicI32,
}

impl Log {
    /// Installs the process's subscriber and starts the writer.
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn start(format: LogFormat, level: LogLevel) -> io::Result<Self> {
        let (queue, lines) = mpsc::sync_channel(QUEUE_LINES);
        let log = Self { queue, lost: Arc::default() };
        let lost = Arc::clone(&log.lost);
        thread::Builder::new()
            .name("log".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || write_lines(&lines, &lost, &mut io::stderr()))?;

        let ours = match level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        };
        // Libraries speak only of what is wrong.
        let filter =
            Targets::new().with_target("locum", ours).with_default(LevelFilter::WARN.min(ours));
        let layer = || tracing_subscriber::fmt::layer().with_writer(log.clone()).with_target(false);
        let text = || {
            let fields = debug_fn(write_field).delimited(" ");
            layer().fmt_fields(fields).with_ansi(io::stderr().is_terminal())
        };
        // The journal has its own time stamps.
        let journal = std::env::var_os("JOURNAL_STREAM").is_some();
        let registry = tracing_subscriber::registry().with(filter);
        let installed = match (format, journal) {
            (LogFormat::Json, _) => tracing::subscriber::set_global_default(
                registry.with(layer().json().flatten_event(true)),
            ),
            (LogFormat::Text, false) => {
                tracing::subscriber::set_global_default(registry.with(text()))
            }
            (LogFormat::Text, true) => {
                tracing::subscriber::set_global_default(registry.with(text().without_time()))
            }
        };
        installed.map_err(io::Error::other)?;
        Ok(log)
    }

    /// Lines lost since the start: no room in the queue, or none where they are written to.
    pub fn dropped(&self) -> u64 {
        self.lost.lines.load(Ordering::Relaxed)
    }

    /// Why lines cannot be written now.
    pub fn failure(&self) -> Option<io::Error> {
        let error = self.lost.error.load(Ordering::Relaxed);
        (error != 0).then(|| io::Error::from_raw_os_error(error))
    }

    /// Waits until the lines so far are written, or the reader has proved too slow.
    pub fn flush(&self) {
        let (done, is_done) = mpsc::sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(FLUSH_LIMIT);
        }
    }
}

/// One field of a line for people, free of orders to a terminal and of line ends.
fn write_field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = format!("{value:?}");
    match field.name() {
        "message" => write!(to, "{}", one_line(&value)),
        name => write!(to, "{name}={}", one_line(&value)),
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine(self)
    }
}

/// One line being handed over; the subscriber writes it in one piece.
pub struct LogLine<'a>(&'a Log);

impl Write for LogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.queue.try_send(Item::Line(bytes.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.0.lost.lines.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Until the process ends. A line that cannot be written is lost and the next one is tried: where it
/// goes may have room again. Lines are lost only while others come, so the count is looked at after
/// each of those.
fn write_lines(lines: &Receiver<Item>, lost: &LostLines, to: &mut impl Write) {
    let mut reported = 0;
    for item in lines {
        match item {
            Item::Line(line) => {
                let error = to.write_all(&line).err();
                if error.is_some() {
                    lost.lines.fetch_add(1, Ordering::Relaxed);
                }
                let number = error.map_or(0, |error| error.raw_os_error().unwrap_or(UNKNOWN));
                lost.error.store(number, Ordering::Relaxed);
            }
            Item::Flush(done) => drop(done.send(())),
        }
        let now = lost.lines.load(Ordering::Relaxed);
        let change = now - reported;
        if change > 0 && writeln!(to, "{change} log lines were lost: no room for them").is_ok() {
            reported = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use nix::errno::Errno;

    use super::*;

    /// Takes so many writes, refuses so many, takes the rest.
    struct Disk {
        good: usize,
        full: usize,
        written: String,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.good > 0 {
                self.good -= 1;
            } else if self.full > 0 {
                self.full -= 1;
                return Err(Errno::ENOSPC.into());
            }
            self.written.push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_find_no_room_are_counted_and_writing_goes_on() {
        let (queue, lines) = mpsc::channel();
        for number in 1..=4 {
            queue.send(Item::Line(format!("line {number}\n").into_bytes())).unwrap();
        }
        drop(queue);
        let lost = LostLines::default();
        // The second line, what is said of it, the third and what is said of both.
        let mut disk = Disk { good: 1, full: 4, written: String::new() };
        write_lines(&lines, &lost, &mut disk);
        let expected = "line 1\nline 4\n2 log lines were lost: no room for them\n";
        assert_eq!(disk.written, expected);
        assert_eq!(lost.lines.load(Ordering::Relaxed), 2);
        assert_eq!(lost.error.load(Ordering::Relaxed), 0, "it is over");
    }

    #[test]
    fn a_line_for_people_gives_no_orders_to_a_terminal() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let written = Mutex::new(file.reopen().unwrap());
        let layer = tracing_subscriber::fmt::layer().without_time().with_target(false);
        let layer = layer.with_writer(written).with_ansi(false);
        let layer = layer.fmt_fields(debug_fn(write_field).delimited(" "));
        let registry = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(registry, || {
            let (error, output) = ("\x1b[1m", "a\nb");
            tracing::warn!(event = 7, output, %error, "hook\n\x1b]0;x\x07");
        });
        let written = std::fs::read_to_string(file.path()).unwrap();
        let expected = " WARN hook\\n\\u{1b}]0;x\\u{7} event=7 output=\"a\\nb\" error=\\u{1b}[1m\n";
        assert_eq!(written, expected);
    }
}
