//! Run probes and report raw outcomes; run hooks under the same rules.
//!
//! What a run of outcomes *means* (rise, fall, weight) is the engine's business. This crate only
//! asks the question, on time, within limits, without ever keeping its caller waiting.
//!
//! ```text
//!   election thread          probe thread (tokio, one thread)
//!   Probes::start ──queue──► one task per probe ──► script   fork, exec, process group
//!   Probes::stop             absolute schedule      process  /proc, shared by all probes
//!                            one run at a time      tcp      connect
//!   report(id, Outcome) ◄─── never two at once      http     request, head, body
//!                                                   …        dns, smtp, databases, ping, gRPC
//! ```
//!
//! Descriptors: what asks over the network holds one while it runs, a script two. A host with thousands of probes
//! needs a matching `LimitNOFILE`; a run without a descriptor is reported as
//! [`CannotRun`](locum_plan::Verdict::CannotRun) and tried again at its next turn.
//!
//! Children are reaped one by one through their pidfd. Nothing else in the process may reap
//! children it did not start (`waitpid(-1)`, `SIGCHLD` ignored).

mod checker;
mod group;
mod output;
mod runtime;
mod schedule;
mod spawn;

pub use checker::{End, Ran};
pub use runtime::Probes;
pub use spawn::Launcher;
