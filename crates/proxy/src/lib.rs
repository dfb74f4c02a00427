//! Move client connections to real servers, as a process of its own.
//!
//! The proxy owns listeners and connections and decides nothing: what to serve the balancer sends it
//! as a level ([`crate::protocol`]) over a unix socket on which the proxy listens. So a daemon that
//! crashed and came back finds it and goes on, and no connection is lost. A proxy that nobody
//! controls for [`Settings::orphan_timeout`] stops serving and exits: a dead node serves nothing.
//!
//! It carries TCP, and UDP as one session for each client: what is said here of a connection holds of a
//! session too.
//!
//! ```text
//!             Serve{services}           ┌─ Service ── listener ──► accept ─► scheduler ─► connect
//! balancer ──────────────────► control ─┼─ Service                                          │
//!          ◄──────────────────          │                 client ◄──── relay ────► server ◄─┘
//!                 Status                └─ Service ── socket ──► session of the client ──► server
//! ```
//!
//! One thread: a connection costs two sockets, a session one, neither a buffer while it is idle;
//! counters need no atomics, and the process stays small beside the election. Load never meets the
//! election thread. Once it runs the process is confined ([`sandbox`]).

mod address;
mod arguments;
mod control;
mod hash;
mod introduction;
mod log;
mod maglev;
mod movement;
mod outbound;
mod persistence;
pub mod protocol;
mod queue;
mod relay;
mod sandbox;
mod scheduler;
mod server;
mod service;
mod shares;
mod shortage;
mod sources;
mod succession;
mod table;

use std::process::ExitCode;

pub use arguments::Settings;
pub use control::Error;
pub use sandbox::Account;

/// Runs the proxy until it shall serve nothing, or is orphaned; the hidden `proxy` subcommand.
/// `arguments` are the words after `proxy`. Exit status: 0 drained, 1 could not run, 2 bad usage.
pub fn main_process(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let settings = match Settings::from_arguments(arguments) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("locum proxy: {error}");
            return ExitCode::from(2);
        }
    };
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("locum proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// As [`main_process`], with the settings already read. Blocks.
pub fn run(settings: Settings) -> Result<(), Error> {
    log::begin();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let result = tokio::task::LocalSet::new().block_on(&runtime, control::serve(settings));
    log::end();
    result
}
