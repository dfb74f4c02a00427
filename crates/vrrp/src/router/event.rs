//! What can happen to a router, and what it does at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::receive::Heard;
use crate::role::{Cause, Role};
use crate::settings::{Fitness, Priority, RouterSettings};

/// What can happen to a router.
#[derive(Clone, Debug)]
pub enum RouterEvent<'a> {
    /// Time has passed.
    Timeout,
    /// A valid advert of another router; [`Router::receive`] makes it.
    Heard(&'a Heard),
    /// Nothing stands in the way of taking part.
    Eligible,
    /// Something does; `can_send` says whether the link still carries a farewell.
    Fault { reasons: String, can_send: bool },
    /// The effective priority, at start and whenever it changes.
    Priority(Priority),
    /// An earlier run's addresses are in place and their lease is valid (V-242).
    Adopt,
    /// The mastership it has proposed is its own ([`RouterAction::Propose`]).
    Grant,
    /// It is not: somebody who has a say objects.
    Refuse,
    /// Give up for good: operator stop, or removal from the configuration.
    Stop(Cause),
    /// The stop is taken back: the instance is in the configuration again.
    Resume,
    /// Give up to whoever takes it, and leave it to them while they live. `claim` is advertised just
    /// before: it says to nodes that cannot serve whether they shall let it pass (V-282).
    Switchover { claim: Option<Priority> },
    /// Whether this node can serve, and whom it leaves alone while it cannot.
    Fitness(Fitness),
    /// Give up to whoever takes it, because another node may serve and this one does not; taken
    /// back when nobody does (V-283).
    Offer { reasons: String },
    /// What was offered is not on offer any more, unless somebody has taken it (V-283).
    TakeBack,
    /// New settings of the same identity, and the effective priority under them.
    Settings(Arc<RouterSettings>, Priority),
}

/// What a router does at once, in order. Levels (addresses, deadline) are read from it instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouterAction {
    /// One logical advertisement; the packet is built when sent.
    Advertise { priority: Priority },
    /// It would become master, and waits for [`RouterEvent::Grant`] or [`RouterEvent::Refuse`], but no longer
    /// than until [`Router::candidate`](super::Router::candidate) says.
    Propose { cause: Cause },
    /// It has changed its role.
    Changed { from: Role, to: Role, cause: Cause },
    /// Announce every address this often, after they are in place.
    Announce { repeat: u8 },
    /// A lower master was heard: the first advert of a conflict.
    ConflictBegan { peer: IpAddr, priority: Priority },
    /// It has fallen silent: repair what it may have misled.
    ConflictEnded { peer: IpAddr, priority: Priority },
    /// An owner concedes to another owner, or claims its priority again (V-176).
    ClaimChanged { from: Priority, to: Priority, peer: IpAddr },
    /// The advert before this one leaves so much after its time: peers may have given up (V-059).
    Late { by: Duration },
}
