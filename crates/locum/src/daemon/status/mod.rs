//! What `locum status` shows, made from snapshots of the engine and the balancer.

pub mod document;
mod rfc8347;
pub mod wall_clock;
