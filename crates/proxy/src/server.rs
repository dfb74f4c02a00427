//! One real server of one service: its weight in force, its counters, and until when its
//! connections may go on once it leaves.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::protocol::ServerStatus;
use tokio::sync::watch;
use tokio::time::Instant;

#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    pub weight: Cell<u32>,
    /// Connections under way, those being made included.
    pub active: Cell<u64>,
    pub connected: Cell<u64>,
    pub failures: Cell<u64>,
    /// The scheduler's: what weighted round robin owes it.
    pub credit: Cell<i64>,
    /// The scheduler's: when it was chosen last, in turns.
    pub turn: Cell<u64>,
    /// When its connections are closed; `None` while it is wanted.
    close_at: watch::Sender<Option<Instant>>,
}

impl Server {
    pub fn new(address: SocketAddr, weight: u32) -> Self {
        Self {
            address,
            weight: Cell::new(weight),
            active: Cell::new(0),
            connected: Cell::new(0),
            failures: Cell::new(0),
            credit: Cell::new(0),
            turn: Cell::new(0),
            close_at: watch::Sender::new(None),
        }
    }

    /// It takes no new connections; those under way may last for `drain` from the first call on.
    pub fn leave(&self, drain: Duration) {
        self.close_at.send_if_modified(|close_at| match close_at {
            Some(_) => false,
            None => {
                *close_at = Some(Instant::now() + drain);
                true
            }
        });
    }

    /// Its connections end now, unless it is wanted.
    pub fn abandon(&self) {
        self.close_at.send_if_modified(|close_at| match close_at {
            Some(at) => {
                *at = Instant::now();
                true
            }
            None => false,
        });
    }

    /// It is wanted again: its connections go on.
    pub fn stay(&self) {
        self.close_at.send_if_modified(|close_at| close_at.take().is_some());
    }

    pub fn is_leaving(&self) -> bool {
        self.close_at.borrow().is_some()
    }

    /// Resolves when this server's connections shall end.
    pub async fn closed(&self) {
        let mut close_at = self.close_at.subscribe();
        loop {
            let deadline = *close_at.borrow_and_update();
            // INVARIANT: `self` owns the sender, so `changed` cannot fail while it is borrowed.
            match deadline {
                None => drop(close_at.changed().await),
                Some(deadline) => tokio::select! {
                    () = tokio::time::sleep_until(deadline) => return,
                    _ = close_at.changed() => {}
                },
            }
        }
    }

    pub fn status(&self) -> ServerStatus {
        ServerStatus {
            address: self.address,
            weight: self.weight.get(),
            leaving: self.is_leaving(),
            active: self.active.get(),
            connected: self.connected.get(),
            failures: self.failures.get(),
        }
    }
}

/// A connection of a server, counted from the choice to the end.
#[derive(Debug)]
pub struct InFlight(Rc<Server>);

impl InFlight {
    pub fn begin(server: Rc<Server>) -> Self {
        server.active.set(server.active.get() + 1);
        Self(server)
    }

    pub fn server(&self) -> &Server {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
    }
}
