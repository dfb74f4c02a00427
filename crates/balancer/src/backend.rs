//! What every backend can do: the seam behind which IPVS, the proxy and HAProxy are alike.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use locum_plan::{Name, WantedServices};

use crate::balancer::ServeError;
use crate::status::BalancerStatus;

/// Serves its share of the wanted level.
///
/// A backend is level-triggered and remembers the last share: [`Backend::tick`] goes on with it
/// after a failure, a crash of a process, or a deadline. No call waits longer than about two
/// seconds per process.
pub(crate) trait Backend {
    /// Make what this backend serves exactly `share`; return what could not be done.
    fn apply(&mut self, share: &WantedServices, now: Instant) -> Vec<ServeError>;

    /// Look after what runs.
    fn tick(&mut self, now: Instant) -> Vec<Event>;

    /// How long from `now` the next tick may wait; `None` when nothing runs and nothing is wanted.
    fn next_tick(&self, now: Instant) -> Option<Duration>;

    /// Add what this backend serves and runs.
    fn status(&mut self, status: &mut BalancerStatus);
}

/// Something that changed by itself, between two levels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// This service or HAProxy is not served any more, and why. It is tried again.
    Failed { name: Name, error: String },
    /// It is served again.
    Recovered { name: Name },
    /// For the log: a process was adopted, restarted or had to be killed.
    Note { name: Name, text: String },
}

/// What to say of two sets of failures, one after the other.
pub(crate) fn changes(before: &BTreeMap<Name, String>, now: &BTreeMap<Name, String>) -> Vec<Event> {
    let failed = now.iter().filter(|(name, error)| before.get(*name) != Some(*error));
    let recovered = before.keys().filter(|name| !now.contains_key(*name));
    failed
        .map(|(name, error)| Event::Failed { name: name.clone(), error: error.clone() })
        .chain(recovered.map(|name| Event::Recovered { name: name.clone() }))
        .collect()
}
