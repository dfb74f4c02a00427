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
//! | [`scenario`], [`virtual_router`], [`place`] | what a seed says about nodes, routers, addresses |
//! | [`lan`], [`wire`] | delay, loss, duplication, partitions; the IP header |
//! | [`kernel`], [`applier`], [`node`] | addresses and leases; who programs them; a host |
//! | [`adapter`], [`plant`] | the engine and its clock; the faults planted around it |
//! | [`objector`] | who has a say when an instance would become master |
//! | [`orders`] | what an operator orders of servers |
//! | [`world`], [`execute`] | the loop; inputs in, outputs done |
//! | [`faults`] | what goes wrong, and how it is undone |
//! | [`judge`], [`output_rules`], [`holding`] | the invariants after every event: of inputs, words, addresses |
//! | [`readiness`] | the invariants of what waits for somebody else's answer |
//! | [`rest`], [`quiescence`], [`takeover`] | the invariants at rest, during a handover, when a master dies |
//! | [`trace`] | one line per event |

pub mod adapter;
pub mod applier;
pub mod execute;
pub mod faults;
mod fitness;
pub mod holding;
pub mod judge;
pub mod kernel;
pub mod lan;
pub mod node;
pub mod objector;
pub mod orders;
pub mod output_rules;
pub mod place;
pub mod plant;
pub mod quiescence;
pub mod random;
pub mod readiness;
pub mod rest;
pub mod scenario;
pub mod schedule;
pub mod takeover;
pub mod trace;
pub mod virtual_router;
pub mod wire;
pub mod world;

pub use judge::{RULES, Violation};
pub use plant::Plant;
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
