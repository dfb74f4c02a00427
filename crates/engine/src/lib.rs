//! Decide everything: all routers, trackers and services of one node.
//!
//! `(state, now, Input) → ordered Outputs, the last of them a Deadline`. Pure: no clock, socket,
//! file, random number or log. The whole product is [`Engine::handle`] and
//! the two enums [`Input`] and [`Output`].
//!
//! ```text
//!   packet ───────────►  ┌───────────────────────────────┐ ──► Advertise  sent at once
//!   timeout ──────────►  │ routers   role, priority      │ ──► Apply{seq} wanted addresses
//!   probe outcome ────►  │ trackers  rise, fall, weight  │ ──► Serve{seq} wanted services
//!   link, addresses ──►  │ services  health              │ ──► Announce   after Apply{seq}
//!   applied, sent ────►  │ plan                          │ ──► Notify     log, history, API
//!   command ──────────►  │                               │ ──► Hook       queued per instance
//!   plan ─────────────►  └───────────────────────────────┘ ──► Probe, Listen, Masters, Reply, Stopped
//!                                                          ──► Deadline   always last
//! ```
//!
//! Contract: feed one `Input`, take every `Output` in order until `Deadline`, then feed the next.
//! A late, early or repeated `Timeout` is harmless. *Levels* (`Apply`, `Serve`, `Probe`, `Listen`,
//! `Masters`) say what should be true and may be applied twice; *edges* (`Advertise`, `Announce`, `Notify`,
//! `Hook`) happen once.

mod announce;
mod arbiter;
mod commands;
mod drain;
mod eligibility;
mod engine;
mod explain;
pub mod facts;
mod fault;
mod fitness;
mod groups;
mod hooks;
mod ids;
mod index;
mod input;
mod instance;
mod instances;
mod invariants;
mod listening;
mod offer;
mod order;
mod output;
mod packets;
mod probes;
mod promises;
mod ramp;
mod reload;
mod results;
mod server;
mod service;
mod services;
mod serving;
pub mod status;
mod strain;
mod table;
mod tracker;

pub use arbiter::{Arbiter, Decision};
pub use engine::Engine;
pub use facts::{Asked, Fact, FactKey, Handover, HeldAddress, Refusal, Removal, Whose};
pub use fault::{Fault, PriorityCause, PriorityPart};
pub use fitness::Aspect;
pub use ids::{CommandId, InstanceId, Owner, ProbeId, Seq};
pub use input::{
    Inherited, Input, LinkState, OperatorCommand, Packet, RunMode, SendReport, Successor, Target,
};
pub use order::{ServerOrder, StandingOrder};
pub use output::{
    Announcement, Awaited, Event, EventKind, HookOwner, HookRun, Listen, Masters, OutgoingAdvert,
    Output, ProbeChange, Reply,
};
