//! Facts the kernel refused while others of the same instance are in place, and when each of them
//! is asked for again.
//!
//! ```text
//!   refused ──► Pausing ──pause over──► Asked ──accepted──► forgotten
//!                  ▲                      │
//!                  └──────refused─────────┘  the pause doubles
//! ```

use std::time::Duration;

use locum_vrrp::Time;

use super::fact::Fact;

/// The first pause: what was wrong for a moment is over by then, and a lease that could not be
/// renewed has not run out yet.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The pause doubles up to 32 s: an operator who has removed the reason does not wait for long, and
/// a lasting one costs nothing.
const MOST_DOUBLINGS: u32 = 5;

#[derive(PartialEq, Debug)]
pub struct RefusedFacts(Vec<RefusedFact>);

/// One of them.
#[derive(PartialEq, Debug)]
pub struct RefusedFact {
    pub fact: Fact,
    /// The kernel's words.
    pub error: String,
    /// Refusals in a row.
    refusals: u32,
    turn: Turn,
}

#[derive(PartialEq, Debug)]
enum Turn {
    /// Refused at `since`, and not asked for again before `until`.
    Pausing { since: Time, until: Time },
    /// The kernel has not answered yet.
    Asked,
}

/// What an answer says about one fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalChange {
    /// What was known already.
    None,
    /// Refused, which is new or has another reason now.
    Refused,
    /// Accepted after having been refused.
    Accepted,
}

impl RefusedFacts {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &RefusedFact> {
        self.0.iter()
    }

    pub fn contains(&self, fact: &Fact) -> bool {
        self.0.iter().any(|refused| refused.fact.is_same(fact))
    }

    /// It was refused, and its pause is not over.
    pub fn is_pausing(&self, fact: &Fact) -> bool {
        let pausing = self.0.iter().filter(|refused| !matches!(refused.turn, Turn::Asked));
        pausing.into_iter().any(|refused| refused.fact.is_same(fact))
    }

    /// When the first pause is over.
    pub fn deadline(&self) -> Option<Time> {
        self.0.iter().filter_map(RefusedFact::until).min()
    }

    /// Ends the pauses that are over: these facts are asked for with the next level.
    pub fn ask(&mut self, now: Time) {
        for refused in &mut self.0 {
            if refused.until().is_some_and(|until| until <= now) {
                refused.turn = Turn::Asked;
            }
        }
    }

    /// Something has happened to their interface: the reason may be gone.
    pub fn retry_soon(&mut self, interface: &str, now: Time) {
        for refused in self.0.iter_mut().filter(|refused| **refused.fact.interface() == *interface)
        {
            if let Turn::Pausing { since, until } = &mut refused.turn {
                refused.refusals = 0;
                *until = (*until).min((*since + SHORTEST_PAUSE).max(now));
            }
        }
    }

    /// Forgets what is not wanted any more, or in another form now.
    pub fn retain_wanted(&mut self, wanted: &[Fact]) {
        self.0.retain(|refused| wanted.contains(&refused.fact));
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The kernel has answered for `fact`; `error` when it refused.
    pub fn answer(&mut self, fact: &Fact, error: Option<String>, now: Time) -> RefusalChange {
        let known = self.0.iter().position(|refused| refused.fact.is_same(fact));
        match (known, error) {
            (None, None) => RefusalChange::None,
            (Some(at), None) => {
                self.0.remove(at);
                RefusalChange::Accepted
            }
            (None, Some(error)) => {
                let mut refused =
                    RefusedFact { fact: fact.clone(), error, refusals: 0, turn: Turn::Asked };
                refused.pause(now);
                self.0.push(refused);
                RefusalChange::Refused
            }
            (Some(at), Some(error)) => {
                let refused = &mut self.0[at];
                refused.pause(now);
                let is_new = refused.error != error;
                refused.error = error;
                if is_new { RefusalChange::Refused } else { RefusalChange::None }
            }
        }
    }
}

impl RefusedFact {
    /// End of its pause; `None` while the kernel is being asked.
    pub fn until(&self) -> Option<Time> {
        match self.turn {
            Turn::Pausing { until, .. } => Some(until),
            Turn::Asked => None,
        }
    }

    fn pause(&mut self, now: Time) {
        let until = now + SHORTEST_PAUSE * (1 << self.refusals);
        self.turn = Turn::Pausing { since: now, until };
        self.refusals = (self.refusals + 1).min(MOST_DOUBLINGS);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use locum_plan::VirtualAddress;

    use super::*;
    use crate::facts::HeldAddress;

    fn fact() -> Fact {
        Fact::Address(HeldAddress {
            interface: "eth0".into(),
            address: VirtualAddress::new(Ipv4Addr::new(192, 0, 2, 10).into(), 24),
            lease_seconds: Some(3),
        })
    }

    fn refuse(refused: &mut RefusedFacts, now: Time) -> RefusalChange {
        refused.answer(&fact(), Some("no".to_owned()), now)
    }

    #[test]
    fn the_pause_doubles_up_to_half_a_minute_and_begins_anew_after_an_acceptance() {
        let mut refused = RefusedFacts::new();
        let mut now = Time::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            refuse(&mut refused, now);
            let until = refused.deadline().unwrap();
            pauses.push(until.since(now).as_secs());
            now = until;
            refused.ask(now);
            assert_eq!(refused.deadline(), None, "the kernel is asked, nothing is pending");
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 32, 32]);
        assert_eq!(refused.answer(&fact(), None, now), RefusalChange::Accepted);
        refuse(&mut refused, now);
        assert_eq!(refused.deadline(), Some(now + SHORTEST_PAUSE));
    }

    #[test]
    fn the_same_refusal_is_reported_once_and_another_reason_again() {
        let mut refused = RefusedFacts::new();
        assert_eq!(refuse(&mut refused, Time::ZERO), RefusalChange::Refused);
        assert_eq!(refuse(&mut refused, Time::ZERO), RefusalChange::None);
        let other = Some("permission denied".to_owned());
        assert_eq!(refused.answer(&fact(), other, Time::ZERO), RefusalChange::Refused);
    }

    #[test]
    fn a_change_of_the_interface_shortens_a_pause_but_not_below_the_shortest() {
        let mut refused = RefusedFacts::new();
        for _ in 0..6 {
            refuse(&mut refused, Time::ZERO);
        }
        let at = |ms| Time::ZERO + Duration::from_millis(ms);
        refused.retry_soon("eth1", at(10));
        assert_eq!(refused.deadline(), Some(at(32_000)));
        refused.retry_soon("eth0", at(10));
        assert_eq!(refused.deadline(), Some(at(1000)));
        refused.retry_soon("eth0", at(5000));
        assert_eq!(refused.deadline(), Some(at(1000)), "it is due already");
    }
}
