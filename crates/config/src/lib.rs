//! Configuration text to one validated `Plan`, or [`diagnostic::Diagnostics`].
//!
//! Pure: the text comes in as an argument, and so do included files, through [`Source`].
//!
//! ```text
//!   locum.toml ──────► toml ───────┐
//!                        ▲         ├──► parsed ──► assemble ──► validate ──► Plan
//!                     settings     │      │           │            │
//!                        ▼         │      └───────────┴────────────┴───────► Diagnostics
//!   keepalived.conf ─► keepalived ─┘
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`diagnostic`] | findings with a place, and how they print |
//! | [`source`] | where text comes from |
//! | `load` | reading, recognising the dialect, the digest, and the order of the steps |
//! | `span` | places in the files read |
//! | `settings` | one row for each setting: spelling in both languages, range, default, sentence |
//! | `toml`, `keepalived` | the two front-ends: grammar, and what one row cannot say |
//! | `parsed` | what both front-ends produce: typed, with places, nothing filled in |
//! | `assemble` | what was parsed, plus defaults, becomes a plan |
//! | [`reference`] | the reference page and the JSON schema, from the rows |
//! | `validate` | rules that need more than one field |

pub mod diagnostic;
pub mod reference;
pub mod source;

mod assemble;
mod context;
mod dialect;
mod duration;
mod field;
mod glob;
mod interned;
mod keepalived;
mod load;
mod need;
mod parsed;
mod settings;
mod span;
mod suggest;
mod toml;
mod validate;
mod values;

pub use context::Context;
pub use diagnostic::{Diagnostic, Diagnostics, Place, Severity};
pub use load::Loaded;
pub use need::{Need, NeedKind};
pub use source::{MemorySource, Source, SourceError};

/// Reads `path` and what it includes, and makes a plan of it. The dialect is recognised by the
/// content, not by the name. Reports as many errors at once as it can find; never panics.
pub fn load(source: &dyn Source, path: &str, context: &Context<'_>) -> Loaded {
    load::load(source, path, context)
}
