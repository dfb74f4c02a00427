//! Rules of one node: an input list arranged, an output list asserted.

mod corners;
mod election;
mod node;
mod partial;
mod services;
