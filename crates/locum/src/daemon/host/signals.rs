//! What signals ask for.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// Does nothing here, but something in other daemons of this kind; its name.
    Unused(&'static str),
}

pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hang_up: Stream,
    user_1: Stream,
    user_2: Stream,
    /// Never read: listening to it undoes that whoever started the daemon ignored it, which would
    /// take every exit status of a hook away.
    _child: Stream,
}

impl Signals {
    /// From now on these signals are read here. Must run within a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
            _child: signal(SignalKind::child())?,
        })
    }

    /// The next one. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hang_up.recv() => Signal::Reload,
            _ = self.user_1.recv() => Signal::Unused("SIGUSR1"),
            _ = self.user_2.recv() => Signal::Unused("SIGUSR2"),
        }
    }

    /// Until a [`Signal::Stop`]; others are forgotten.
    pub async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }
}
