//! Rules of one node: an input list arranged, an output list asserted.

mod absence;
mod announcements;
mod answers;
mod candidates;
mod corners;
mod election;
mod fitness;
mod handover;
mod ipvs;
mod links;
mod node;
mod partial;
mod peers;
mod servers;
mod services;
mod strain;
