//! `history`: one line per thing that happened.

use std::fmt::Write;
use std::time::SystemTime;

use locum_control::client::ANSWER_TIMEOUT;
use locum_control::{HistoryEntry, Record, Request, Response};

use super::{ask, no_answer, not_done, say};
use crate::cli::{History, Place};
use crate::exit;

pub fn run(options: &History, place: &Place) -> u8 {
    let since_ms = options.since.map(|age| {
        let since = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        since
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    });
    let entries = match ask(place, &Request::History { since_ms }, ANSWER_TIMEOUT) {
        Ok(Response::History { entries }) => entries,
        Ok(other) => return not_done(other),
        Err(error) => return no_answer(&error),
    };
    let line = if options.json { json } else { human };
    say(&entries.iter().map(line).collect::<String>());
    exit::OK
}

fn json(entry: &HistoryEntry) -> String {
    match serde_json::to_string(entry) {
        Ok(line) => line + "\n",
        Err(error) => {
            eprintln!("locum: {error}");
            String::new()
        }
    }
}

/// The line of an entry; a hook that did not go well has its output indented below.
fn human(entry: &HistoryEntry) -> String {
    let mut text = format!("{}  {}\n", entry.at, entry.text);
    if let Record::Hook { outcome, output, .. } = &entry.record
        && outcome != "ok"
    {
        for line in output.lines() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "    | {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_hook_shows_its_output() {
        let entry = HistoryEntry {
            at_ms: 0,
            at: "1970-01-01T00:00:00.000Z".into(),
            pid: 1,
            event: 2,
            instance: Some("web".into()),
            text: "(web) hook /bin/x: exited with status 1".into(),
            record: Record::Hook {
                command: "/bin/x".into(),
                outcome: "failed".into(),
                detail: "exited with status 1".into(),
                took_ms: 5,
                output: "no such host\n".into(),
            },
        };
        let expected = "1970-01-01T00:00:00.000Z  (web) hook /bin/x: exited with status 1\n    \
                        | no such host\n";
        assert_eq!(human(&entry), expected);
    }
}
