//! What each command but `run` does. Each returns its exit code.

pub mod check;
pub mod history;
pub mod host;
pub mod operate;
#[cfg(test)]
mod sample;
pub mod status;
pub mod table;
pub mod why;

use std::io::Write;
use std::time::Duration;

use locum_control::{Client, ClientError, Request, Response};

use crate::cli::Place;
use crate::exit;

/// Asks the daemon one question on a connection of its own.
fn ask(place: &Place, request: &Request, limit: Duration) -> Result<Response, ClientError> {
    Client::connect(&place.socket())?.call(request, limit)
}

/// Says on standard error why there is no answer, and gives the exit code for it.
fn no_answer(error: &ClientError) -> u8 {
    eprintln!("locum: {error}");
    exit::NO_DAEMON
}

/// Says on standard error what came instead of the answer, and gives the exit code for it.
fn not_done(response: Response) -> u8 {
    match response {
        Response::Refused { reason } => eprintln!("locum: refused: {}", reason.trim_end()),
        Response::Error { message } => eprintln!("locum: {message}"),
        Response::Status { .. } | Response::History { .. } | Response::Done { .. } => {
            eprintln!("locum: the daemon answered another question: use the same release");
        }
    }
    exit::FAILED
}

/// Prints to standard output. A reader that has seen enough, as `head`, is no failure.
fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
