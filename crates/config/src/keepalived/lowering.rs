//! What is known while statements become settings: findings so far, and what `global_defs` said of
//! scripts.

use crate::field::Field;
use crate::keepalived::blocks::Statement;
use crate::span::{At, Finding, Report, Span};

/// What a lowering knows besides the block it is in.
pub(crate) struct Lowering<'r> {
    pub report: &'r mut Report,
    /// User and group of scripts that name none.
    pub script_user: Option<(Option<String>, Option<String>)>,
    /// The block whose table has this keyword, for one that stands elsewhere.
    pub home_of: fn(&str) -> Option<&'static str>,
    /// The setting being read is one without which there is nothing to run.
    pub is_essential: bool,
    /// What is in effect where a line says nothing usable.
    pub effect: &'static str,
}

/// What is in effect where a line says nothing usable.
pub(crate) const LINE_IGNORED: &str = "the line is ignored";

impl Lowering<'_> {
    /// A line that keepalived logs and passes over: forgiven, unless nothing runs without it.
    pub fn fault(
        &mut self,
        span: Span,
        code: &'static str,
        message: impl Into<String>,
    ) -> Finding<'_> {
        if self.is_essential {
            self.report.error(span, code, message)
        } else {
            self.report.forgiven(span, code, message, self.effect)
        }
    }

    /// Reads an argument without which keepalived passes over the whole block.
    pub fn of_block<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.or_else("the block is ignored", read)
    }

    /// Reads what, when it is not usable, has this effect.
    pub fn or_else<T>(
        &mut self,
        effect: &'static str,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let before = std::mem::replace(&mut self.effect, effect);
        let found = read(self);
        self.effect = before;
        found
    }

    /// The one name of a block; keepalived passes over a block without one, and over one with two.
    pub fn only_name(&mut self, statement: &Statement) -> Option<At<String>> {
        if let [name] = statement.arguments() {
            return Some(At::new(name.text.clone(), name.span));
        }
        let text = format!("`{}` needs one name", statement.keyword().text);
        let effect = "the block is ignored";
        self.report.forgiven(statement.span(), "missing-name", text, effect);
        None
    }
}

/// Takes what was read; what was not usable leaves what is there, as in keepalived.
pub(crate) fn put<T>(slot: &mut Field<T>, read: Option<At<T>>) {
    if let Some(read) = read {
        *slot = Field::Given(read);
    }
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
