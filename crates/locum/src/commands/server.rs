//! `server`: gives a server of a service another weight, or its own back.

use locum_control::client::COMMAND_TIMEOUT;
use locum_control::{Request, ServerRequest};

use super::{ask, report};
use crate::cli::{DaemonArgs, OrderedServer, ServerCommand};
use crate::text::millis;

pub fn run(command: &ServerCommand, place: &DaemonArgs) -> u8 {
    let (named, order) = match command {
        ServerCommand::Drain(named) => (named, ServerRequest::Drain),
        ServerCommand::Ready(named) => (named, ServerRequest::Ready),
        ServerCommand::Weight { named, weight } => {
            (named, ServerRequest::Weight { weight: *weight })
        }
    };
    let OrderedServer { service, server, over } = named.clone();
    let over_ms = over.map_or(0, millis);
    let request = Request::Server { service, server, order, over_ms };
    report(ask(place, &request, COMMAND_TIMEOUT))
}
