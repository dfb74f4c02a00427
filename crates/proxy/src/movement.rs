//! When something last moved on a connection, and whether one side has said all.

use std::cell::Cell;

use tokio::sync::Notify;
use tokio::time::Instant;

#[derive(Debug)]
pub struct Movement {
    last: Cell<Instant>,
    half_closed: Cell<bool>,
    turned: Notify,
}

impl Movement {
    pub fn begin() -> Self {
        Self {
            last: Cell::new(Instant::now()),
            half_closed: Cell::new(false),
            turned: Notify::new(),
        }
    }

    pub fn note(&self) {
        self.last.set(Instant::now());
    }

    pub fn last(&self) -> Instant {
        self.last.get()
    }

    pub fn half_close(&self) {
        self.note();
        self.half_closed.set(true);
        self.turned.notify_one();
    }

    pub fn is_half_closed(&self) -> bool {
        self.half_closed.get()
    }

    /// Resolves once for each side that has said all since.
    pub async fn half_closed(&self) {
        self.turned.notified().await;
    }
}
