//! Two directors with one virtual router each: the first has the better priority unless a test
//! says otherwise.

use std::net::IpAddr;
use std::time::Duration;

use crate::lab::Lab;
use crate::lab::Shape;
use crate::peer::Peer;
use crate::peer::Router;
use crate::peer::Running;
use crate::require;
use crate::wait;
use crate::wait::seconds;

/// Priority of the first director.
pub const FIRST: u8 = 150;
/// Priority of the second.
pub const SECOND: u8 = 100;
/// The address the two share.
pub const VIP: &str = "192.168.1.100/24";
/// Longer than any election with an interval of a second takes on a busy machine.
pub const ELECTION: Duration = seconds(30);

/// Which daemon runs on which director.
#[derive(Clone, Copy)]
pub struct Kinds {
    pub first: &'static dyn Peer,
    pub second: &'static dyn Peer,
}

impl Kinds {
    /// Whether the machine has what both need.
    #[must_use]
    pub fn available(self) -> bool {
        let mut programs = vec!["nft", "ip"];
        programs.extend(self.first.programs());
        programs.extend(self.second.programs());
        require::lab(&programs)
    }

    fn of(self, director: usize) -> &'static dyn Peer {
        if director == 0 { self.first } else { self.second }
    }
}

/// A lab of two directors, and the daemon that runs on each.
pub struct Pair {
    // The daemons end before the machines they run on.
    running: [Option<Running>; 2],
    pub lab: Lab,
    kinds: Kinds,
    pub routers: [Router; 2],
}

impl Pair {
    /// Builds the machines; no daemon runs yet. `router` says what the director at a position has.
    pub fn new(shape: Shape, kinds: Kinds, router: impl Fn(usize) -> Router) -> Self {
        let lab = Lab::new(shape);
        Self { running: [None, None], lab, kinds, routers: [router(0), router(1)] }
    }

    /// Starts both and waits until the first is master and the second has heard of it: one that is
    /// started with it and does not may be master for a moment as well.
    pub fn settled(shape: Shape, kinds: Kinds, router: impl Fn(usize) -> Router) -> Self {
        let mut pair = Self::new(shape, kinds, router);
        pair.start(0);
        pair.start(1);
        let adverts = pair.routers[0].interval * 2;
        wait::lasting("lb1 alone is master", ELECTION, adverts, || pair.masters() == [0]);
        pair
    }

    /// Starts the daemon of a director.
    pub fn start(&mut self, director: usize) {
        let kind = self.kinds.of(director);
        let router = std::slice::from_ref(&self.routers[director]);
        // The old one ends before the new one starts.
        self.running[director] = None;
        self.running[director] = Some(kind.start(&self.lab.directors[director], router));
    }

    /// Takes over a daemon that a test has started itself.
    pub fn adopt(&mut self, director: usize, running: Running) {
        self.running[director] = Some(running);
    }

    /// The daemon of a director.
    ///
    /// # Panics
    /// When it was not started.
    pub fn daemon(&mut self, director: usize) -> &mut Running {
        self.running[director].as_mut().expect("the daemon was not started")
    }

    /// The shared address.
    pub fn vip(&self) -> IpAddr {
        self.routers[0].vip()
    }

    /// Waits until this director, and no other, holds the address.
    pub fn expect_master(&self, director: usize) -> Duration {
        let what = format!("lb{} alone is master", director + 1);
        wait::until(&what, ELECTION, || self.masters() == [director])
    }

    /// Waits until this director holds the address, whoever else still does.
    pub fn expect_takeover(&self, director: usize) -> Duration {
        let what = format!("lb{} takes over", director + 1);
        wait::until(&what, ELECTION, || self.masters().contains(&director))
    }

    /// Waits until both hold the address.
    pub fn expect_both(&self) {
        wait::until("both are master", ELECTION, || self.masters() == [0, 1]);
    }

    /// Positions of those that hold the address.
    pub fn masters(&self) -> Vec<usize> {
        self.lab.holders(self.vip())
    }
}
