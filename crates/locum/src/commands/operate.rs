//! `reload` and `stop`: ask the daemon and print what became of it.

use locum_control::client::{COMMAND_TIMEOUT, END_TIMEOUT};
use locum_control::{Client, Request};

use super::{ask, no_answer, report};
use crate::cli::DaemonArgs;
use crate::exit;
use crate::terminal::{complain, say};

pub fn reload(place: &DaemonArgs) -> u8 {
    report(ask(place, &Request::Reload, COMMAND_TIMEOUT))
}

/// Returns when the daemon has ended.
pub fn stop(place: &DaemonArgs) -> u8 {
    let mut client = match Client::connect(&place.socket()) {
        Ok(client) => client,
        Err(error) => return no_answer(&error),
    };
    let code = report(client.call(&Request::Stop, COMMAND_TIMEOUT));
    if code != exit::OK {
        return code;
    }
    match client.wait_for_end(END_TIMEOUT) {
        Ok(()) => {
            say("stopped\n");
            exit::OK
        }
        Err(error) => {
            complain(&format!("locum: {error}\n"));
            exit::FAILED
        }
    }
}
