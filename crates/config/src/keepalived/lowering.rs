//! What is known while statements become settings: findings so far, and what `global_defs` said of
//! scripts.

use crate::keepalived::blocks::Statement;
use crate::span::Report;

/// What a lowering knows besides the block it is in.
pub(crate) struct Lowering<'r> {
    pub report: &'r mut Report,
    /// User and group of scripts that name none.
    pub script_user: Option<(Option<String>, Option<String>)>,
    /// The block whose table has this keyword, for one that stands elsewhere.
    pub home_of: fn(&str) -> Option<&'static str>,
}

/// What a block is read into.
pub(crate) trait BlockTarget {
    /// Reads a statement by the row of a setting; `false` when no row has its keyword.
    fn setting(&mut self, lowering: &mut Lowering<'_>, statement: &Statement) -> bool;

    /// The keywords that `setting` knows, for suggestions.
    fn keywords() -> Vec<&'static str>;
}

/// A block without settings of its own: its table of rows is its whole vocabulary.
macro_rules! without_settings {
    ($target:ty) => {
        impl $crate::keepalived::lowering::BlockTarget for $target {
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
