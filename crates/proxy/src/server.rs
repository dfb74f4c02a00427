//! One real server of one service: its weight in force, its counters, and until when its
//! connections may go on.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::movement::Movement;
use crate::protocol::{ProxyLimits, ServerStatus};
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
    /// Most connections that it may have.
    most: Cell<u64>,
    /// What was meant for it came back to us: it is passed over until then.
    looped_until: Cell<Option<Instant>>,
    terms: watch::Sender<Terms>,
}

/// Until when connections may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Terms {
    /// `None` while the server is wanted.
    close_at: Option<Instant>,
    /// Without anything moving.
    idle: Duration,
    half_closed: Duration,
}

/// Why a connection ends before its two sides have ended it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// The server left.
    Left,
    /// Nothing moved.
    Idle,
}

/// A server behind which we are ourselves is asked again after this long: the address may have moved.
const LOOP_PAUSE: Duration = Duration::from_secs(10);

/// Beyond what the clock can count.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

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
            most: Cell::new(u64::MAX),
            looped_until: Cell::new(None),
            terms: watch::Sender::new(Terms {
                close_at: None,
                idle: FOR_EVER,
                half_closed: FOR_EVER,
            }),
        }
    }

    /// From now on, for connections that it has as well.
    pub fn limit(&self, limits: &ProxyLimits) {
        self.most.set(limits.per_server.map_or(u64::MAX, u64::from));
        let idle = Duration::from_millis(limits.idle_ms).min(FOR_EVER);
        let half_closed = Duration::from_millis(limits.half_closed_ms).min(FOR_EVER);
        self.terms.send_if_modified(|terms| {
            let before = std::mem::replace(terms, Terms { idle, half_closed, ..*terms });
            before != *terms
        });
    }

    /// It takes no clients by its weight or because it leads back to us.
    pub fn is_out(&self) -> bool {
        self.weight.get() == 0 || self.leads_back()
    }

    /// A connection to it came back to us a moment ago.
    pub fn leads_back(&self) -> bool {
        self.looped_until.get().is_some_and(|until| Instant::now() < until)
    }

    pub fn has_room(&self) -> bool {
        self.active.get() < self.most.get()
    }

    /// A connection to it came back to us.
    pub fn note_loop(&self) {
        self.looped_until.set(Some(Instant::now() + LOOP_PAUSE));
    }

    /// It takes no new connections; those under way may last for `drain` from the first call on.
    pub fn leave(&self, drain: Duration) {
        self.terms.send_if_modified(|terms| {
            let is_new = terms.close_at.is_none();
            let at = terms.close_at.unwrap_or_else(|| Instant::now() + drain.min(FOR_EVER));
            terms.close_at = Some(at);
            is_new
        });
    }

    /// Its connections end now, unless it is wanted.
    pub fn abandon(&self) {
        self.terms.send_if_modified(|terms| match &mut terms.close_at {
            Some(at) => {
                *at = Instant::now();
                true
            }
            None => false,
        });
    }

    /// It is wanted again: its connections go on.
    pub fn stay(&self) {
        self.terms.send_if_modified(|terms| terms.close_at.take().is_some());
    }

    pub fn is_leaving(&self) -> bool {
        self.terms.borrow().close_at.is_some()
    }

    /// Resolves when the connection on which this moves shall end.
    pub async fn ended(&self, movement: &Movement) -> Cut {
        let mut terms = self.terms.subscribe();
        loop {
            let now = *terms.borrow_and_update();
            let still = match movement.is_half_closed() {
                true => now.half_closed,
                false => now.idle,
            };
            let idle_at = movement.last() + still;
            let (at, end) = match now.close_at {
                Some(close_at) if close_at <= idle_at => (close_at, Cut::Left),
                Some(_) | None => (idle_at, Cut::Idle),
            };
            if at <= Instant::now() {
                return end;
            }
            // INVARIANT: `self` owns the sender, so `changed` cannot fail while it is borrowed.
            tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                _ = terms.changed() => {}
                () = movement.half_closed() => {}
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

    pub fn server(&self) -> &Rc<Server> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
    }
}
