//! Rules of one node: an input list arranged, an output list asserted.

mod absence;
mod announcements;
mod answers;
mod candidates;
mod corners;
mod election;
mod fitness;
mod handover;
mod links;
mod node;
mod partial;
mod peers;
mod services;
mod strain;
