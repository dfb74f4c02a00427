//! What is known while statements become settings: findings so far, and what `global_defs` said.

use std::net::IpAddr;

use locum_vrrp::Version;

use crate::keepalived::blocks::Statement;
use crate::parsed::{Field, ParsedInstance};
use crate::span::{Report, Span};

/// What a lowering knows besides the block it is in.
pub(crate) struct Lowering<'r> {
    pub report: &'r mut Report,
    pub globals: Globals,
    /// The block whose table has this keyword, for one that stands elsewhere.
    pub home_of: fn(&str) -> Option<&'static str>,
}

/// What applies to all instances and scripts of the file.
#[derive(Default)]
pub(crate) struct Globals {
    /// What every instance is that does not say otherwise.
    pub instance: ParsedInstance,
    /// Version of IPv4 instances.
    pub version: Field<Version>,
    /// User and group of scripts that name none.
    pub script_user: Option<(Option<String>, Option<String>)>,
    /// One frame per address and no second burst, where nothing else is said.
    pub min_garp: Field<bool>,
    pub group_v4: Field<IpAddr>,
    pub group_v6: Field<IpAddr>,
    pub strict: Option<Span>,
}

/// What a block is read into.
pub(crate) trait Target {
    /// Reads a statement by the row of a setting; `false` when no row has its keyword.
    fn setting(&mut self, lowering: &mut Lowering<'_>, statement: &Statement) -> bool;

    /// The keywords that `setting` knows, for suggestions.
    fn keywords() -> Vec<&'static str>;
}

/// A block without settings of its own: its table of rows is its whole vocabulary.
macro_rules! without_settings {
    ($target:ty) => {
        impl $crate::keepalived::lowering::Target for $target {
            fn setting(
                &mut self,
                _: &mut $crate::keepalived::lowering::Lowering<'_>,
                _: &$crate::keepalived::blocks::Statement,
            ) -> bool {
                false
            }

            fn keywords() -> Vec<&'static str> {
                Vec::new()
            }
        }
    };
}
pub(super) use without_settings;
