//! `history`: one line per thing that happened.

use std::fmt::Write;
use std::path::Path;
use std::time::SystemTime;

use locum_control::client::ANSWER_TIMEOUT;
use locum_control::{HistoryEntry, Record, Request, Response};

use super::{ask, no_answer, not_done};
use crate::cli::{DaemonArgs, HISTORY_FILE, HistoryArgs};
use crate::exit;
use crate::terminal::{complain, one_line, say, say_exactly};

pub fn run(options: &HistoryArgs, place: &DaemonArgs) -> u8 {
    let since_ms = options.since.map(|age| {
        let since = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        since
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    });
    let entries = match ask(place, &Request::History { since_ms }, ANSWER_TIMEOUT) {
        Ok(Response::History { entries }) => entries,
        Ok(other) => return not_done(other),
        Err(error) => {
            let code = no_answer(&error);
            point_to_the_file(&place.run_dir.join(HISTORY_FILE));
            return code;
        }
    };
    if options.json {
        say_exactly(&entries.iter().map(json).collect::<String>());
    } else {
        say(&entries.iter().map(human).collect::<String>());
    }
    exit::OK
}

/// What a daemon wrote outlives it.
fn point_to_the_file(path: &Path) {
    if path.exists() {
        complain(&format!("locum: what the last daemon wrote is in {}\n", path.display()));
    }
}

fn json(entry: &HistoryEntry) -> String {
    match serde_json::to_string(entry) {
        Ok(line) => line + "\n",
        Err(error) => {
            complain(&format!("locum: {error}\n"));
            String::new()
        }
    }
}

/// The line of an entry; below it the output of a hook that did not go well, or why a
/// configuration was refused.
fn human(entry: &HistoryEntry) -> String {
    let mut text = format!("{}  {}\n", one_line(&entry.at), one_line(&entry.text));
    let below = if let Record::Hook { outcome, output, .. } = &entry.record
        && outcome != "ok"
    {
        output
    } else if let Record::ReloadRefused { reason } = &entry.record {
        reason
    } else {
        return text;
    };
    for line in below.lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    | {}", one_line(line));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_configuration_shows_what_is_wrong_with_it() {
        let entry = HistoryEntry {
            at_ms: 0,
            at: "1970-01-01T00:00:00.000Z".into(),
            pid: 1,
            event: 2,
            instance: None,
            text: "configuration refused: the running one stays".into(),
            record: Record::ReloadRefused { reason: "f:1:2: error: no\n    1 | x\n".into() },
        };
        let expected = "1970-01-01T00:00:00.000Z  configuration refused: the running one stays\n    \
                        | f:1:2: error: no\n    |     1 | x\n";
        assert_eq!(human(&entry), expected);
    }

    #[test]
    fn what_a_hook_printed_gives_no_orders_to_a_terminal_and_is_exact_in_json() {
        let output = "\x1b]0;owned\x07\r\nno\u{9b}2J\n";
        let entry = HistoryEntry {
            at_ms: 0,
            at: "1970-01-01T00:00:00.000Z".into(),
            pid: 1,
            event: 2,
            instance: Some("web".into()),
            text: "(web) hook\n1970-01-01T00:00:00.000Z  (web) forged".into(),
            record: Record::Hook {
                command: "/bin/x".into(),
                outcome: "failed".into(),
                detail: String::new(),
                took_ms: 5,
                output: output.into(),
            },
        };
        let expected = "1970-01-01T00:00:00.000Z  (web) hook\\n1970-01-01T00:00:00.000Z  (web) \
                        forged\n    | \\u{1b}]0;owned\\u{7}\n    | no\\u{9b}2J\n";
        assert_eq!(human(&entry), expected);
        let back: HistoryEntry = serde_json::from_str(&json(&entry)).unwrap();
        assert_eq!(back, entry);
    }

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
