//! Addresses the kernel refused while others of the same instance are in place, and when each of
//! them is asked for again.
//!
//! ```text
//!   refused ──► Pausing ──pause over──► Asked ──accepted──► forgotten
//!                  ▲                      │
//!                  └──────refused─────────┘  the pause doubles
//! ```

use std::time::Duration;

use locum_vrrp::Time;

use crate::output::HeldAddress;

/// The first pause: what was wrong for a moment is over by then, and an address that could not be
/// renewed has not run out yet.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The pause doubles up to 32 s: an operator who has removed the reason does not wait for long, and
/// a lasting one costs nothing.
const MOST_DOUBLINGS: u32 = 5;

#[derive(Debug, Default)]
pub struct MissingAddresses(Vec<Missing>);

/// One of them.
#[derive(Debug)]
pub struct Missing {
    pub held: HeldAddress,
    /// The kernel's words.
    pub error: String,
    /// Refusals in a row.
    refusals: u32,
    turn: Turn,
}

#[derive(Debug)]
enum Turn {
    /// Refused at `since`, and not asked for again before `until`.
    Pausing { since: Time, until: Time },
    /// The kernel has not answered yet.
    Asked,
}

/// What an answer says about one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// What was known already.
    None,
    /// Refused, which is new or has another reason now.
    Refused,
    /// Accepted after having been refused.
    Accepted,
}

impl MissingAddresses {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Missing> {
        self.0.iter()
    }

    pub fn contains(&self, held: &HeldAddress) -> bool {
        self.0.iter().any(|missing| missing.held.is_same(held))
    }

    /// It is missing, and its pause is not over.
    pub fn is_pausing(&self, held: &HeldAddress) -> bool {
        let pausing = self.0.iter().filter(|missing| !matches!(missing.turn, Turn::Asked));
        pausing.into_iter().any(|missing| missing.held.is_same(held))
    }

    /// When the first pause is over.
    pub fn deadline(&self) -> Option<Time> {
        self.0.iter().filter_map(Missing::until).min()
    }

    /// Ends the pauses that are over: these addresses are asked for with the next level.
    pub fn ask(&mut self, now: Time) {
        for missing in &mut self.0 {
            if missing.until().is_some_and(|until| until <= now) {
                missing.turn = Turn::Asked;
            }
        }
    }

    /// Something has happened to their interface: the reason may be gone.
    pub fn hasten(&mut self, interface: &str, now: Time) {
        for missing in self.0.iter_mut().filter(|missing| &*missing.held.interface == interface) {
            if let Turn::Pausing { since, until } = &mut missing.turn {
                missing.refusals = 0;
                *until = (*until).min((*since + SHORTEST_PAUSE).max(now));
            }
        }
    }

    /// Forgets what is not wanted any more, or in another form now.
    pub fn retain_wanted(&mut self, wanted: &[HeldAddress]) {
        self.0.retain(|missing| wanted.contains(&missing.held));
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The kernel has answered for `held`; `error` when it refused.
    pub fn answer(&mut self, held: &HeldAddress, error: Option<String>, now: Time) -> Change {
        let known = self.0.iter().position(|missing| missing.held.is_same(held));
        match (known, error) {
            (None, None) => Change::None,
            (Some(at), None) => {
                self.0.remove(at);
                Change::Accepted
            }
            (None, Some(error)) => {
                let mut missing =
                    Missing { held: held.clone(), error, refusals: 0, turn: Turn::Asked };
                missing.pause(now);
                self.0.push(missing);
                Change::Refused
            }
            (Some(at), Some(error)) => {
                let missing = &mut self.0[at];
                missing.pause(now);
                let is_news = missing.error != error;
                missing.error = error;
                if is_news { Change::Refused } else { Change::None }
            }
        }
    }
}

impl Missing {
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

    fn held() -> HeldAddress {
        HeldAddress {
            interface: "eth0".into(),
            address: VirtualAddress::new(Ipv4Addr::new(192, 0, 2, 10).into(), 24),
            lease_seconds: Some(3),
        }
    }

    fn refuse(missing: &mut MissingAddresses, now: Time) -> Change {
        missing.answer(&held(), Some("no".to_owned()), now)
    }

    #[test]
    fn the_pause_doubles_up_to_half_a_minute_and_begins_anew_after_an_acceptance() {
        let mut missing = MissingAddresses::default();
        let mut now = Time::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            refuse(&mut missing, now);
            let until = missing.deadline().unwrap();
            pauses.push(until.since(now).as_secs());
            now = until;
            missing.ask(now);
            assert_eq!(missing.deadline(), None, "the kernel is asked, nothing is pending");
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 32, 32]);
        assert_eq!(missing.answer(&held(), None, now), Change::Accepted);
        refuse(&mut missing, now);
        assert_eq!(missing.deadline(), Some(now + SHORTEST_PAUSE));
    }

    #[test]
    fn the_same_refusal_is_news_once_and_another_reason_is_news_again() {
        let mut missing = MissingAddresses::default();
        assert_eq!(refuse(&mut missing, Time::ZERO), Change::Refused);
        assert_eq!(refuse(&mut missing, Time::ZERO), Change::None);
        let other = Some("permission denied".to_owned());
        assert_eq!(missing.answer(&held(), other, Time::ZERO), Change::Refused);
    }

    #[test]
    fn news_of_the_interface_shorten_a_pause_but_not_below_the_shortest() {
        let mut missing = MissingAddresses::default();
        for _ in 0..6 {
            refuse(&mut missing, Time::ZERO);
        }
        let at = |ms| Time::ZERO + Duration::from_millis(ms);
        missing.hasten("eth1", at(10));
        assert_eq!(missing.deadline(), Some(at(32_000)));
        missing.hasten("eth0", at(10));
        assert_eq!(missing.deadline(), Some(at(1000)));
        missing.hasten("eth0", at(5000));
        assert_eq!(missing.deadline(), Some(at(1000)), "it is due already");
    }
}
