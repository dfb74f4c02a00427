//! Configuration text to one validated [`Plan`], or [`diagnostic::Diagnostics`].
//!
//! Pure: the text comes in as an argument, and so do included files, through [`Source`].
//!
//! ```text
//!   locum.toml ──────► toml ───────┐
//!                                  ├──► wish ──► assemble ──► validate ──► Plan
//!   keepalived.conf ─► keepalived ─┘     │          │            │
//!                       lexer, blocks    └──────────┴────────────┴───────► Diagnostics
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`diagnostic`] | findings with a place, and how they print |
//! | [`source`] | where text comes from |
//! | `load` | reading, recognising the dialect, the digest, and the order of the steps |
//! | `span` | places in the files read |
//! | `toml`, `keepalived` | the two front-ends: spelling only |
//! | `wish` | what both front-ends produce: typed, spanned, nothing filled in |
//! | `assemble`, `defaults` | wishes plus defaults become a plan |
//! | `validate` | rules that need more than one field |

pub mod diagnostic;
pub mod source;

mod assemble;
mod defaults;
mod duration;
mod glob;
mod keepalived;
mod load;
mod span;
mod suggest;
mod toml;
mod validate;
mod values;
mod wish;

use std::sync::Arc;

use locum_plan::Plan;

pub use diagnostic::{Diagnostic, Diagnostics, Place, Severity};
pub use source::{MemorySource, Source, SourceError};

/// What a configuration cannot know by itself.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// `--node NAME`: which entry of the per-node values this node is. `None`: the host name, in
    /// full or up to its first dot.
    pub node: Option<&'a str>,
    /// The machine's host name, as the kernel has it.
    pub host_name: &'a str,
    /// keepalived's `-i ID`, for lines that begin with `@id`; the short host name when `None`.
    pub config_id: Option<&'a str>,
}

impl<'a> Context<'a> {
    /// A context that follows the host name alone.
    pub const fn host(host_name: &'a str) -> Self {
        Self { node: None, host_name, config_id: None }
    }
}

/// What became of a configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Present exactly when no diagnostic is an error; warnings may remain.
    pub plan: Option<Arc<Plan>>,
    /// Sorted by file and position.
    pub diagnostics: Diagnostics,
    /// What this plan asks of the host, with the place that asks: for `check --host`, which turns
    /// an unmet one into a [`Diagnostic::at`] that place.
    pub needs: Vec<Need>,
}

/// Something the host must have for the plan to work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Need {
    pub kind: NeedKind,
    pub place: Place,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum NeedKind {
    /// A network interface of this name.
    Interface(String),
    /// An executable: an absolute path, or a name looked up in PATH.
    Program(String),
    /// A file that can be read.
    File(String),
    /// An entry of the user database.
    User(String),
    /// An entry of the group database.
    Group(String),
    /// IPVS in the kernel: the service cannot be had from the built-in proxy.
    Ipvs,
    /// An address of this machine, usable as a source.
    Address(std::net::IpAddr),
}

/// Reads `path` and what it includes, and makes a plan of it. The dialect is recognised by the
/// content, not by the name. Reports as many errors at once as it can find; never panics.
pub fn load(source: &dyn Source, path: &str, context: &Context<'_>) -> Loaded {
    load::load(source, path, context)
}
