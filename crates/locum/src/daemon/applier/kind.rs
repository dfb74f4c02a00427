//! What all kinds of facts have in common: how the kernel is made to have them.
//!
//! | module | kind |
//! |---|---|
//! | `handover` | connections that a predecessor keeps, in nftables |
//! | `address` | virtual addresses, by netlink |

use std::io;
use std::sync::Arc;

use locum_engine::{Fact, FactKey, Inherited, Owner, Refusal, Removal, Seq};
use locum_kernel::netlink::{MonitorEvent, Netlink};

/// What the kernel shall have for one owner.
#[derive(Debug)]
pub struct Apply {
    pub seq: Seq,
    pub owner: Owner,
    pub hold: Arc<[Fact]>,
    pub drop: Vec<Removal>,
}

/// Levels that are carried out together.
pub struct ApplyRound<'a> {
    pub netlink: &'a mut Netlink,
    pub levels: &'a [Apply],
    /// One for each level: the facts that the kernel did not do, or that nothing is known.
    pub answers: Vec<Result<Vec<Refusal>, String>>,
}

impl ApplyRound<'_> {
    /// The kernel did not do these facts of the level at this place.
    pub fn refuse(&mut self, level: usize, refused: impl IntoIterator<Item = Refusal>) {
        if let Some(Ok(refusals)) = self.answers.get_mut(level) {
            refusals.extend(refused);
        }
    }
}

/// One kind of fact.
pub trait FactKind {
    /// What an earlier run left under our mark. Asks the kernel.
    fn inherited(&mut self, _: &mut Netlink) -> io::Result<Vec<Inherited>> {
        Ok(Vec::new())
    }

    /// Makes the kernel have what the levels hold. One that does it in one go drops the rest too.
    fn hold(&mut self, round: &mut ApplyRound<'_>);

    /// Withdraws what they drop.
    fn withdraw(&mut self, _: &mut ApplyRound<'_>) {}

    /// What this event says is gone, and who took it away where that is known.
    fn lost(&mut self, _: &MonitorEvent) -> Option<(FactKey, Option<String>)> {
        None
    }
}
