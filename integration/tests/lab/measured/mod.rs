//! Scenarios whose result is a time or a number of lost probes: each is alone on the machine.

mod crash;
mod fitness;
mod handover;
mod limits;
mod probes;
mod promotion;
