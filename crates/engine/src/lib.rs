//! Decide everything: all routers, trackers and services of one node.
//!
//! `(state, now, Input) → ordered Outputs, the last of them a Deadline`. Pure: no clock, socket,
//! file, random number or log. The whole product is the two enums below.
//!
//! ```text
//!   packet ───────────►  ┌───────────────────────────────┐ ──► Advertise  sent at once
//!   timeout ──────────►  │ routers   role, priority      │ ──► Apply{seq} wanted addresses
//!   probe outcome ────►  │ trackers  rise, fall, weight  │ ──► Announce   after Apply{seq}
//!   link, addresses ──►  │ services  health              │ ──► Serve{seq} wanted services
//!   applied{seq} ─────►  │ plan                          │ ──► Notify     log, history, API
//!   command ──────────►  │                               │ ──► Hook       queued per instance
//!   plan ─────────────►  └───────────────────────────────┘ ──► Probe      start, change, stop
//!                                                          ──► Reply, Stopped, Deadline
//! ```
//!
//! Contract: feed one `Input`, take every `Output` in order until `Deadline`, then feed the next.
//! A late, early or repeated `Timeout` is harmless. *Levels* (`Apply`, `Serve`, `Probe`) say what
//! should be true and may be applied twice; *edges* (`Advertise`, `Announce`, `Notify`, `Hook`)
//! happen once.

mod input;
mod output;

pub use input::{Command, CommandId, Inherited, Input, LinkState, Packet, Target};
pub use output::{
    Announcement, Datagram, Event, EventKind, HeldAddress, HookRun, Output, ProbeChange, ProbeId,
    Reply, Seq,
};
