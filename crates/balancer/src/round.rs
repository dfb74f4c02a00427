//! What is looked at again and again, and how often that may be.

use std::time::{Duration, Instant};

/// A round that takes long is made less often, so that it takes no more of a processor than one
/// part in this many.
const SHARE: u32 = 50;

/// The last look at something that is looked at again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LookRound {
    pub at: Instant,
    pub took: Duration,
}

impl LookRound {
    /// How long the next one may wait, where they are made so often.
    pub(crate) fn wait(self, interval: Duration, now: Instant) -> Duration {
        (self.at + interval.max(self.took * SHARE)).saturating_duration_since(now)
    }
}
