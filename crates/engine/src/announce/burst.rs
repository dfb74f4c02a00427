//! What waits to be announced, and until when.

use std::time::Duration;

use locum_vrrp::Time;

/// A burst that waits for what it speaks of.
#[derive(Debug, Default)]
pub struct PendingAnnouncement(pub Option<Burst>);

#[derive(Debug)]
pub struct Burst {
    /// How often each address is announced at once, at least 1.
    pub repeat: u8,
    pub since: Time,
    /// The bound has passed: what is in place was announced, and the rest follows.
    pub is_overdue: bool,
}

impl PendingAnnouncement {
    pub fn add(&mut self, repeat: u8, now: Time) {
        match &mut self.0 {
            Some(burst) => burst.repeat = burst.repeat.max(repeat),
            None if repeat > 0 => self.0 = Some(Burst { repeat, since: now, is_overdue: false }),
            None => {}
        }
    }

    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// When it goes out, ready or not.
    pub fn deadline(&self, limit: Duration) -> Option<Time> {
        self.0.as_ref().filter(|burst| !burst.is_overdue).map(|burst| burst.since + limit)
    }
}
