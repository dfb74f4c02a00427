//! One real server of one service: its weight in force, its counters, and until when its
//! connections may go on.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::movement::Movement;
use crate::protocol::{ProxyHeaderVersion, ProxyLimits, ProxyServerStatus};
use crate::queue::ServerQueue;
use tokio::sync::watch;
use tokio::time::Instant;

#[derive(Debug)]
pub struct RunningServer {
    pub address: SocketAddr,
    pub weight: Cell<u32>,
    /// Connections under way, those being made included.
    pub active: Cell<u64>,
    pub connected: Cell<u64>,
    pub failures: Cell<u64>,
    /// From clients to it, and back.
    pub bytes_in: Cell<u64>,
    pub bytes_out: Cell<u64>,
    /// The scheduler's: what weighted round robin owes it.
    pub credit: Cell<i64>,
    /// The scheduler's: when it was chosen last, in turns.
    pub turn: Cell<u64>,
    /// Most connections that it may have.
    most: Cell<u64>,
    /// Its own most and least, and whether it had the most and waits for the least.
    bounds: Cell<(Option<u64>, Option<u64>)>,
    is_filled: Cell<bool>,
    /// What was meant for it came back to us: it is passed over until then.
    looped_until: Cell<Option<Instant>>,
    /// It did not answer: others are asked before it until then.
    suspect_until: Cell<Option<Instant>>,
    /// From that failure on; doubled by the next one.
    suspicion: Cell<Duration>,
    failed_at: Cell<Option<Instant>>,
    /// How it is told who a client is.
    pub introduced: Cell<Option<ProxyHeaderVersion>>,
    terms: watch::Sender<Terms>,
    /// Who waits for room here, or elsewhere.
    queue: Rc<ServerQueue>,
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

/// A server that did not accept is asked again after this long by one client at a time.
const SHORTEST_SUSPICION: Duration = Duration::from_secs(1);
const LONGEST_SUSPICION: Duration = Duration::from_secs(30);

/// What was sent to a host where nobody is has been refused after this long: three seconds are what a
/// router asks for a neighbour.
const CONSENT: Duration = Duration::from_secs(5);

/// Beyond what the clock can count.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl RunningServer {
    pub fn new(address: SocketAddr, weight: u32, queue: &Rc<ServerQueue>) -> Self {
        Self {
            address,
            weight: Cell::new(weight),
            active: Cell::new(0),
            connected: Cell::new(0),
            failures: Cell::new(0),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            credit: Cell::new(0),
            turn: Cell::new(0),
            most: Cell::new(u64::MAX),
            bounds: Cell::new((None, None)),
            is_filled: Cell::new(false),
            looped_until: Cell::new(None),
            suspect_until: Cell::new(None),
            suspicion: Cell::new(SHORTEST_SUSPICION),
            failed_at: Cell::new(None),
            introduced: Cell::new(None),
            terms: watch::Sender::new(Terms {
                close_at: None,
                idle: FOR_EVER,
                half_closed: FOR_EVER,
            }),
            queue: queue.clone(),
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

    /// With `max` connections it gets no new ones until it has less than `min`, or than three
    /// quarters of `max`.
    pub fn bound(&self, max: Option<u32>, min: Option<u32>) {
        let bounds = (max.map(u64::from), min.map(u64::from));
        if self.bounds.replace(bounds) != bounds {
            self.is_filled.set(false);
        }
    }

    pub fn has_room(&self) -> bool {
        self.active.get() < self.most.get() && !self.is_filled()
    }

    fn is_filled(&self) -> bool {
        let (Some(max), min) = self.bounds.get() else { return false };
        let active = self.active.get();
        // With few connections three quarters are none, and it would never get one again.
        let enough = min.unwrap_or(max - max / 4).max(1);
        let is_filled = if self.is_filled.get() { active >= enough } else { active >= max };
        self.is_filled.set(is_filled);
        is_filled
    }

    /// A connection to it came back to us.
    pub fn note_loop(&self) {
        self.looped_until.set(Some(Instant::now() + LOOP_PAUSE));
    }

    /// A client asked it for a connection in vain: the next ones are sent to others before their
    /// checks have noticed.
    pub fn note_failure(&self) {
        self.failures.set(self.failures.get() + 1);
        let (now, pause) = (Instant::now(), self.suspicion.get());
        self.failed_at.set(Some(now));
        self.suspect_until.set(Some(now + pause));
        self.suspicion.set((pause * 2).min(LONGEST_SUSPICION));
    }

    /// A client has a connection to it. Of datagrams that says nothing of the server: see
    /// [`RunningServer::note_answer`].
    pub fn note_connected(&self) {
        self.connected.set(self.connected.get() + 1);
    }

    /// It accepted, or said something: clients trust it again.
    pub fn note_answer(&self) {
        if self.suspect_until.take().is_some() {
            self.suspicion.set(SHORTEST_SUSPICION);
        }
    }

    /// What it was sent since `begun` has not been refused. A server that never answers, as one that
    /// collects logs, shows in no other way that it is there.
    pub fn note_silence(&self, begun: Instant, now: Instant) {
        // Who began before the failure may only not have heard of it yet.
        let is_later = self.failed_at.get().is_some_and(|failed_at| failed_at <= begun);
        if is_later && now >= begun + CONSENT {
            self.note_answer();
        }
    }

    /// It did not answer a moment ago. Once that is over one client finds out for all: whoever asks
    /// next finds it suspect again.
    pub fn is_suspect(&self) -> bool {
        self.suspect_until.get().is_some_and(|until| Instant::now() < until)
    }

    fn note_attempt(&self) {
        if self.suspect_until.get().is_some() {
            self.suspect_until.set(Some(Instant::now() + self.suspicion.get()));
        }
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

    pub fn status(&self) -> ProxyServerStatus {
        ProxyServerStatus {
            address: self.address,
            weight: self.weight.get(),
            leaving: self.is_leaving(),
            active: self.active.get(),
            connected: self.connected.get(),
            failures: self.failures.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
        }
    }
}

/// A connection of a server, counted from the choice to the end.
#[derive(Debug)]
pub struct InFlight(Rc<RunningServer>);

impl InFlight {
    /// `server` is about to be asked.
    pub fn begin(server: Rc<RunningServer>) -> Self {
        server.note_attempt();
        server.active.set(server.active.get() + 1);
        Self(server)
    }

    pub fn server(&self) -> &Rc<RunningServer> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
        self.0.queue.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspect() -> Rc<RunningServer> {
        let server = RunningServer::new("192.0.2.1:53".parse().unwrap(), 1, &Rc::default());
        server.note_failure();
        Rc::new(server)
    }

    #[test]
    fn a_connection_is_no_answer_and_whoever_asks_makes_a_suspect_wait() {
        let server = suspect();
        server.note_connected();
        assert!(server.is_suspect());
        server.suspect_until.set(Some(Instant::now()));
        assert!(!server.is_suspect(), "one client may find out");
        drop(InFlight::begin(server.clone()));
        assert!(server.is_suspect(), "for all");
        server.note_answer();
        assert!(!server.is_suspect());
        drop(InFlight::begin(server.clone()));
        assert!(!server.is_suspect());
    }

    #[test]
    fn each_failure_without_an_answer_doubles_the_pause() {
        let server = suspect();
        server.note_failure();
        assert_eq!(server.suspicion.get(), 4 * SHORTEST_SUSPICION);
        server.note_answer();
        assert_eq!(server.suspicion.get(), SHORTEST_SUSPICION);
    }

    #[test]
    fn silence_for_long_enough_after_the_failure_is_consent() {
        let before = Instant::now();
        let server = suspect();
        let begun = Instant::now();
        server.note_silence(before, before + 2 * CONSENT);
        server.note_silence(begun, begun + CONSENT - Duration::from_millis(1));
        assert!(server.is_suspect());
        server.note_silence(begun, begun + CONSENT);
        assert!(!server.is_suspect());
    }
}
