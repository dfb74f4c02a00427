//! `status`: ask, show, and say by the exit code whether something needs an operator.

use std::io::IsTerminal;
use std::thread;
use std::time::Duration;

use locum_control::client::ANSWER_TIMEOUT;
use locum_control::{Client, ClientError, HistoryEntry, Request, Response, StatusDocument};

use super::{no_answer, not_done, say, table, why};
use crate::cli::{Place, Status};
use crate::exit;

/// Between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Why there is nothing to show.
enum Missing {
    Answer(ClientError),
    Wrong(Response),
}

pub fn run(options: &Status, place: &Place) -> u8 {
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
    options: &Status,
    place: &Place,
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

fn show(options: &Status, status: &StatusDocument, history: &[HistoryEntry]) -> u8 {
    let text = if options.json {
        match serde_json::to_string_pretty(status) {
            Ok(text) => text + "\n",
            Err(error) => format!("locum: {error}\n"),
        }
    } else if options.why {
        why::explain(status, history)
    } else {
        table::render(status)
    };
    let clear = if options.watch && std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    say(&format!("{clear}{text}"));
    if status.healthy { exit::OK } else { exit::DEGRADED }
}
