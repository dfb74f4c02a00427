//! Run the product's engine on 2 to 5 simulated nodes from one seed, and judge it after every
//! event.
//!
//! The engines are the ones that ship; the LAN, the kernels, the processes around them and time
//! are simulated, in one thread, with one source of chance. The same seed gives the same history,
//! so `locum-sim --seed N --trace` replays whatever a longer run has found.
//!
//! | module | owns |
//! |---|---|
//! | [`random`], [`schedule`] | chance; the order of what happens |
//! | [`scenario`] | what a seed says about nodes, routers and settings |
//! | [`lan`], [`wire`] | delay, loss, duplication, partitions; the IP header |
//! | [`kernel`], [`applier`], [`node`] | addresses and leases; who programs them; a host |
//! | [`adapter`] | the engine, and the faults planted around it |
//! | [`world`], [`execute`] | the loop; inputs in, outputs done |
//! | [`faults`] | what goes wrong, and how it is undone |
//! | [`judge`], [`calm`], [`takeover`] | the invariants: after every event; at rest; when a master dies |
//! | [`trace`] | one line per event |

pub mod adapter;
pub mod applier;
pub mod calm;
pub mod execute;
pub mod faults;
pub mod judge;
pub mod kernel;
pub mod lan;
pub mod node;
pub mod random;
pub mod scenario;
pub mod schedule;
pub mod takeover;
pub mod trace;
pub mod wire;
pub mod world;

pub use adapter::Plant;
pub use judge::Violation;
pub use trace::Trace;

use world::World;

/// What a run was like.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    pub violation: Option<Violation>,
    pub trace: Trace,
    /// Events that happened, for a measure of work.
    pub happenings: u64,
}

/// One seed to its end, or to its first broken rule.
pub fn run(seed: u64, plant: Option<Plant>, trace: Trace) -> Report {
    let mut world = World::new(seed, plant, trace);
    world.run();
    Report { seed, violation: world.violation, trace: world.trace, happenings: world.happenings }
}
