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
    /// When its connections are cut; `None` while it is wanted.
    cut: watch::Sender<Option<Instant>>,
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
            cut: watch::Sender::new(None),
        }
    }

    /// It takes no new connections; those under way may last for `drain` from the first call on.
    pub fn leave(&self, drain: Duration) {
        self.cut.send_if_modified(|cut| match cut {
            Some(_) => false,
            None => {
                *cut = Some(Instant::now() + drain);
                true
            }
        });
    }

    /// Its connections end now, unless it is wanted.
    pub fn abandon(&self) {
        self.cut.send_if_modified(|cut| match cut {
            Some(at) => {
                *at = Instant::now();
                true
            }
            None => false,
        });
    }

    /// It is wanted again: its connections go on.
    pub fn stay(&self) {
        self.cut.send_if_modified(|cut| cut.take().is_some());
    }

    pub fn is_leaving(&self) -> bool {
        self.cut.borrow().is_some()
    }

    /// Resolves when this server's connections shall end.
    pub async fn cut(&self) {
        let mut cut = self.cut.subscribe();
        loop {
            let deadline = *cut.borrow_and_update();
            // INVARIANT: `self` owns the sender, so `changed` cannot fail while it is borrowed.
            match deadline {
                None => drop(cut.changed().await),
                Some(deadline) => tokio::select! {
                    () = tokio::time::sleep_until(deadline) => return,
                    _ = cut.changed() => {}
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

/// A connection's place at a server: counted from the choice to the end.
#[derive(Debug)]
pub struct Seat(Rc<Server>);

impl Seat {
    pub fn take(server: Rc<Server>) -> Self {
        server.active.set(server.active.get() + 1);
        Self(server)
    }

    pub fn server(&self) -> &Server {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
    }
}
