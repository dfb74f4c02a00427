//! Since when a service has been full.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// A service that was full this long ago is reported as full: clients come and go, and whoever asks every
/// second must not miss it.
const LINGER: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub struct Fullness {
    since: Cell<Option<Instant>>,
    /// When it was seen full last.
    last: Cell<Option<Instant>>,
    /// Clients that were accepted and wait for a place.
    held: Cell<u64>,
}

impl Fullness {
    /// Takes in whether it is full now; since how long it is, or was a moment ago.
    pub fn review(&self, is_full: bool) -> Option<Duration> {
        let now = Instant::now();
        let is_over = self.last.get().is_none_or(|last| now - last > LINGER);
        if is_full || self.held() > 0 {
            if is_over && self.held() == 0 {
                self.since.set(Some(now));
            }
            self.since.set(self.since.get().or(Some(now)));
            self.last.set(Some(now));
        } else if is_over {
            self.since.set(None);
        }
        self.since.get().map(|since| now - since)
    }

    /// A client waits for as long as this lives.
    pub fn hold(&self) -> Held<'_> {
        self.review(true);
        self.held.set(self.held.get() + 1);
        Held(&self.held)
    }

    pub fn held(&self) -> u64 {
        self.held.get()
    }
}

#[derive(Debug)]
pub struct Held<'a>(&'a Cell<u64>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
