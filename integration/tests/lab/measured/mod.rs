//! Scenarios whose result is a time or a number of lost probes, and one that makes and unmakes so many
//! machines that others wait for the kernel: each is alone on the machine.

mod crash;
mod differential;
mod fitness;
mod handover;
mod limits;
mod probes;
mod promotion;
