//! `status`: ask, show, and say by the exit code whether something needs an operator.

use std::io::IsTerminal;
use std::thread;
use std::time::Duration;

use locum_control::client::ANSWER_TIMEOUT;
use locum_control::{Client, ClientError, HistoryEntry, Request, Response, StatusDocument};

use super::table::{self, Extent};
use super::{no_answer, not_done};
use crate::cli::{DaemonArgs, StatusArgs};
use crate::exit;
use crate::terminal::{complain, in_one_line, say, say_exactly};
use crate::text::why;

/// Between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Why there is nothing to show.
enum Missing {
    Answer(ClientError),
    Wrong(Response),
}

pub fn run(options: &StatusArgs, place: &DaemonArgs) -> u8 {
    loop {
        let shown = match look(options, place) {
            Ok((status, history)) => show(options, &status, &history),
            Err(Missing::Answer(error)) => no_answer(&error),
            Err(Missing::Wrong(response)) => not_done(response),
        };
        if !options.watch {
            return shown;
        }
        thread::sleep(WATCH_INTERVAL);
    }
}

fn look(
    options: &StatusArgs,
    place: &DaemonArgs,
) -> Result<(Box<StatusDocument>, Vec<HistoryEntry>), Missing> {
    let mut client = Client::connect(&place.socket()).map_err(Missing::Answer)?;
    let mut ask = |request| client.call(&request, ANSWER_TIMEOUT).map_err(Missing::Answer);
    let status = match ask(Request::Status)? {
        Response::Status { status } => status,
        other => return Err(Missing::Wrong(other)),
    };
    if !options.why {
        return Ok((status, Vec::new()));
    }
    match ask(Request::History { since_ms: None })? {
        Response::History { entries } => Ok((status, entries)),
        other => Err(Missing::Wrong(other)),
    }
}

fn show(options: &StatusArgs, status: &StatusDocument, history: &[HistoryEntry]) -> u8 {
    if options.watch && std::io::stdout().is_terminal() {
        say_exactly("\x1b[H\x1b[2J");
    }
    if options.json {
        match serde_json::to_string_pretty(status) {
            Ok(text) => say_exactly(&format!("{text}\n")),
            Err(error) => complain(&format!("locum: {error}\n")),
        }
    } else {
        say(&for_people(options, status, history));
    }
    if status.healthy { exit::OK } else { exit::DEGRADED }
}

fn for_people(options: &StatusArgs, status: &StatusDocument, history: &[HistoryEntry]) -> String {
    let status = in_one_line(status);
    if options.why {
        let history: Vec<_> = history.iter().map(in_one_line).collect();
        why::explain(&status, &history)
    } else {
        table::render(&status, if options.all { Extent::Whole } else { Extent::Screen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::sample;

    #[test]
    fn neither_page_gives_orders_to_a_terminal_or_has_a_line_that_somebody_else_wrote() {
        let mut document = sample::document();
        let foreign = "\x1b[2J\n  ! all is well".to_owned();
        document.problems[0].clone_from(&foreign);
        document.instances[0].cause.clone_from(&foreign);
        document.checks[0].detail = foreign;
        for why in [false, true] {
            let options = StatusArgs { json: false, why, watch: false, all: false };
            let page = for_people(&options, &document, &sample::history());
            assert!(page.contains("\\u{1b}[2J\\n  ! all is well"), "{page}");
            let forged = |line: &str| line.trim() == "! all is well" || line.contains('\x1b');
            assert!(!page.lines().any(forged), "{page}");
        }
    }
}
