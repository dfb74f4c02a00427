//! Who has a say, besides the router, when an instance would become master.

use locum_plan::Name;
use locum_vrrp::{Cause, Time};

/// Asked in the drain in which an instance proposes its mastership, and in every drain from then on
/// until it decides or the candidacy is over. It never delays anybody beyond the bound (V-273).
pub trait Arbiter {
    /// `cause` is why `instance` would become master.
    fn decide(&mut self, now: Time, instance: &Name, cause: &Cause) -> Decision;
}

/// What an arbiter makes of one proposal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    Grant,
    /// The instance listens for a whole down interval before it asks again (V-272).
    Refuse,
    /// Not yet: ask again.
    Defer,
}

/// Nobody has a say: whatever is proposed is granted at once.
#[derive(Clone, Copy, Debug)]
pub struct Unopposed;

impl Arbiter for Unopposed {
    fn decide(&mut self, _: Time, _: &Name, _: &Cause) -> Decision {
        Decision::Grant
    }
}
