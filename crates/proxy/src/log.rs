//! The process's own log: lines that whoever controls it next takes along with an answer. What nobody takes
//! goes to the error output at the end.
//!
//! It needs no file and no other socket, which the sandbox would not give it, and a daemon that came back
//! hears it as the one before did.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::protocol::ProxyLogLine;

/// Lines kept for whoever asks next, which is as a rule within a second; older ones make room.
const LINE_COUNT: usize = 32;

/// Longest line, in octets.
const LINE_SIZE: usize = 512;

static PENDING: Mutex<Pending> = Mutex::new(Pending { lines: VecDeque::new(), lost: 0 });

#[derive(Debug)]
struct Pending {
    lines: VecDeque<ProxyLogLine>,
    /// Made room since somebody took the others.
    lost: u64,
}

impl Pending {
    fn push(&mut self, line: ProxyLogLine) {
        if self.lines.len() == LINE_COUNT {
            self.lines.pop_front();
            self.lost += 1;
        }
        self.lines.push_back(line);
    }

    fn take(&mut self) -> Vec<ProxyLogLine> {
        let lost = std::mem::take(&mut self.lost);
        let of_lost = ProxyLogLine {
            pid: std::process::id(),
            text: format!("{lost} earlier lines have been lost"),
        };
        (lost > 0).then_some(of_lost).into_iter().chain(self.lines.drain(..)).collect()
    }
}

/// From now on what this process logs is kept for [`take`].
pub fn begin() {
    // Whoever runs the proxy within another program has a log of his own.
    let _ = tracing::subscriber::set_global_default(Collector);
}

/// What has been logged since the last call, the oldest first.
pub fn take() -> Vec<ProxyLogLine> {
    PENDING.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// What nobody has taken goes where a person may find it.
pub fn end() {
    for line in take() {
        // There is nowhere else to say it.
        let _ = writeln!(std::io::stderr(), "locum proxy: {}", line.text);
    }
}

#[derive(Debug)]
struct Collector;

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = LineText::default();
        event.record(&mut text);
        let line = ProxyLogLine { pid: std::process::id(), text: text.whole() };
        PENDING.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    // Nothing here goes by spans.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The message, and the fields behind it.
#[derive(Debug, Default)]
struct LineText {
    message: String,
    fields: String,
}

impl LineText {
    fn whole(mut self) -> String {
        self.message.push_str(&self.fields);
        let end = self.message.floor_char_boundary(LINE_SIZE);
        self.message.truncate(end);
        self.message
    }
}

impl Visit for LineText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A String takes everything.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_message_and_fields_and_nothing_below_info_is_one() {
        tracing::subscriber::with_default(Collector, || {
            tracing::debug!("not this");
            tracing::warn!(service = "web", count = 3, error = %"refused", "accepting pauses");
            tracing::info!("{}", "ü".repeat(LINE_SIZE));
        });
        let lines = take();
        let texts: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts[0], "accepting pauses service=web count=3 error=refused");
        assert_eq!((texts.len(), texts[1].len()), (2, LINE_SIZE));
        assert!(lines.iter().all(|line| line.pid == std::process::id()));
        assert_eq!(take(), []);
    }

    #[test]
    fn older_lines_make_room_and_that_is_said() {
        let mut pending = Pending { lines: VecDeque::new(), lost: 0 };
        for n in 0..LINE_COUNT + 5 {
            pending.push(ProxyLogLine { pid: 7, text: n.to_string() });
        }
        let lines = pending.take();
        assert_eq!(lines.len(), LINE_COUNT + 1);
        assert_eq!(lines[0].text, "5 earlier lines have been lost");
        assert_eq!((&*lines[1].text, &*lines[LINE_COUNT].text), ("5", "36"));
        assert_eq!(pending.take(), []);
    }
}
