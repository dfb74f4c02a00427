//! What a haproxy.cfg says of where its HAProxy listens ([`binds`]) and of what else it is made from
//! ([`named`]).
//!
//! Pure, and lenient: HAProxy itself judges its file. A line that is not understood says nothing, and
//! what only the running process can know (a name to resolve, a variable of its environment, the
//! branch of an `.if`) is left out.
//!
//! ```text
//!   text ──► lines of words ──► sections ──► binds
//!                        └────────────────► named files
//! ```

mod binds;
mod line;
mod named;

pub(crate) use binds::{Bind, Mode, binds};
pub(crate) use named::{PathKind, named};
