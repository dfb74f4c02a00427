//! A client that opens a new connection every few milliseconds, whatever became of those before.

use std::io;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::node::Node;
use crate::web;

/// Time between two connections.
pub const SPACING: Duration = Duration::from_millis(5);
/// A connection or an answer that takes longer has timed out.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How many connections ended in which way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcomes {
    pub answered: usize,
    /// A reset came for the first packet: the address is there and nobody listens.
    pub refused: usize,
    /// Nothing came, or the client's own kernel knew of nobody at that address.
    pub timed_out: usize,
    /// Everything else, and the reason of the last of them: a reset, an answer that is an error.
    pub failed: usize,
    pub reason: Option<String>,
}

impl Outcomes {
    fn add(&mut self, outcome: &io::Result<String>) {
        match outcome {
            Ok(_) => self.answered += 1,
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused => self.refused += 1,
                ErrorKind::TimedOut
                | ErrorKind::WouldBlock
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable => self.timed_out += 1,
                _ => {
                    self.failed += 1;
                    self.reason = Some(error.to_string());
                }
            },
        }
    }

    /// Adds those of another series.
    pub fn extend(&mut self, other: Self) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.timed_out += other.timed_out;
        self.failed += other.failed;
        self.reason = other.reason.or(self.reason.take());
    }
}

/// A running series.
pub struct Connections {
    stop: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Outcomes>>,
    thread: JoinHandle<()>,
}

impl Connections {
    /// Starts to ask `address` from `client`.
    pub fn start(client: &Node, address: IpAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let outcomes = Arc::new(Mutex::new(Outcomes::default()));
        let thread = client.spawn_in_network({
            let (stop, outcomes) = (Arc::clone(&stop), Arc::clone(&outcomes));
            move || open(SocketAddr::from((address, 80)), &stop, &outcomes)
        });
        Self { stop, outcomes, thread }
    }

    /// Ends it once every connection has its outcome.
    pub fn stop(self) -> Outcomes {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the connections failed");
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn open(address: SocketAddr, stop: &AtomicBool, outcomes: &Mutex<Outcomes>) {
    // A thread is in the network of the one that starts it.
    thread::scope(|scope| {
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            scope.spawn(|| {
                let outcome = web::request(address, "lab", "/health", PATIENCE);
                outcomes.lock().unwrap_or_else(PoisonError::into_inner).add(&outcome);
            });
            due += SPACING;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_distinguished_and_added() {
        let mut all = Outcomes::default();
        all.add(&Ok("srv1".to_owned()));
        all.add(&Err(ErrorKind::ConnectionRefused.into()));
        all.add(&Err(ErrorKind::HostUnreachable.into()));
        all.add(&Err(io::Error::other("HTTP/1.1 503")));
        all.extend(Outcomes { timed_out: 2, ..Outcomes::default() });
        let counts = (all.answered, all.refused, all.timed_out, all.failed);
        assert_eq!((counts, all.reason.as_deref()), ((1, 1, 3, 1), Some("HTTP/1.1 503")));
    }
}
