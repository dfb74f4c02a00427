//! Kernel state as a set of keyed facts: what each instance shall have, and what it must not.
//!
//! | module | owns |
//! |---|---|
//! | [`fact`] | what a fact is, its key, its lease, its place in the order |
//! | `wanted` | one instance: the facts it was told to have, the answers, renewals, repairs |
//! | `in_place` | which of them the kernel has said to be in place |
//! | `exceptions` | what few instances have to remember: refusals, repairs, what has to go |
//! | `refused` | facts the kernel refused while others are in place, and when each is asked again |
//!
//! A new kind of fact (a link, a route, a rule) is a variant in [`fact`]; nothing else here asks
//! what kind it is.

mod exceptions;
pub mod fact;
mod in_place;
mod refused;
mod wanted;

pub use fact::{Asked, Fact, FactKey, Handover, HeldAddress, Refusal, Removal, Whose};
pub use wanted::{Answered, Facts, Level, Wanted};
