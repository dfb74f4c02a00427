//! What each command but `run` does. Each returns its exit code.

pub mod check;
pub mod history;
pub mod host;
pub mod operate;
#[cfg(test)]
pub mod sample;
pub mod server;
pub mod service;
pub mod status;
pub mod switchover;
pub mod table;

use std::time::Duration;

use locum_control::{Client, ClientError, Request, Response};

use crate::cli::DaemonArgs;
use crate::exit;
use crate::terminal::{complain, say};

/// Asks the daemon one question on a connection of its own.
fn ask(place: &DaemonArgs, request: &Request, limit: Duration) -> Result<Response, ClientError> {
    Client::connect(&place.socket())?.call(request, limit)
}

/// Says on standard error why there is no answer, and gives the exit code for it.
fn no_answer(error: &ClientError) -> u8 {
    complain(&format!("locum: {error}\n"));
    exit::NO_DAEMON
}

/// Says on standard error what came instead of the answer, and gives the exit code for it.
fn not_done(response: Response) -> u8 {
    match response {
        Response::Refused { reason } => {
            complain(&format!("locum: refused: {}\n", reason.trim_end()));
        }
        Response::Error { message } => complain(&format!("locum: {message}\n")),
        Response::Status { .. } | Response::History { .. } | Response::Done { .. } => {
            complain("locum: the daemon answered another question: use the same release\n");
        }
    }
    exit::FAILED
}

/// Says what became of a command, and gives the exit code for it.
fn report(answer: Result<Response, ClientError>) -> u8 {
    match answer {
        Ok(Response::Done { message, incomplete }) => {
            say(&format!("{message}\n"));
            if incomplete { exit::FAILED } else { exit::OK }
        }
        Ok(other) => not_done(other),
        Err(error) => no_answer(&error),
    }
}
