//! What a keyword row is, and how a block is read by its rows.

use crate::keepalived::blocks::Statement;
use crate::keepalived::lowering::{BlockTarget, LINE_IGNORED, Lowering};

/// One keyword of one block. The tables of rows and the keywords of settings are the whole
/// vocabulary.
pub(crate) struct KeywordRow<T: 'static> {
    pub name: &'static str,
    pub shape: Shape,
    pub effect: KeywordEffect<T>,
}

/// What may follow the keyword.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// From so many to so many arguments.
    Line(usize, usize),
    /// From so many to so many arguments, then a block.
    Block(usize, usize),
    /// Anything: keepalived accepts it, and we do not look inside.
    Any,
}

pub(crate) enum KeywordEffect<T: 'static> {
    /// Lowered into the target.
    Set(fn(&mut Lowering<'_>, &mut T, &Statement)),
    /// Means nothing here, and nobody misses it.
    Accept,
    /// Means nothing here, and somebody may miss it: a warning with this reason.
    Ignore(&'static str),
    /// Would change the behaviour, and is not there yet: an error with this reason.
    Refuse(&'static str),
}

/// A row that is lowered.
pub(crate) const fn set<T>(
    name: &'static str,
    shape: Shape,
    handler: fn(&mut Lowering<'_>, &mut T, &Statement),
) -> KeywordRow<T> {
    KeywordRow { name, shape, effect: KeywordEffect::Set(handler) }
}

pub(crate) const fn accept<T>(name: &'static str) -> KeywordRow<T> {
    KeywordRow { name, shape: Shape::Any, effect: KeywordEffect::Accept }
}

pub(crate) const fn ignore<T>(name: &'static str, reason: &'static str) -> KeywordRow<T> {
    KeywordRow { name, shape: Shape::Any, effect: KeywordEffect::Ignore(reason) }
}

pub(crate) const fn refuse<T>(name: &'static str, reason: &'static str) -> KeywordRow<T> {
    KeywordRow { name, shape: Shape::Any, effect: KeywordEffect::Refuse(reason) }
}

impl Lowering<'_> {
    /// Reads the statements of a block by its table.
    pub fn run<T: BlockTarget>(
        &mut self,
        what: &str,
        rows: &'static [KeywordRow<T>],
        target: &mut T,
        statements: &[Statement],
    ) {
        for statement in statements {
            if !self.by(rows, target, statement) && !target.setting(self, statement) {
                let known = || rows.iter().map(|row| row.name).chain(T::keywords());
                self.unknown(what, statement, known);
            }
        }
    }

    /// Reads the statement by the row that has its keyword; `false` when none has.
    pub fn by<T>(
        &mut self,
        rows: &'static [KeywordRow<T>],
        target: &mut T,
        statement: &Statement,
    ) -> bool {
        let row = rows.iter().find(|row| row.name == statement.keyword().text);
        if let Some(row) = row {
            self.apply(row, target, statement);
        }
        row.is_some()
    }

    fn apply<T>(&mut self, row: &KeywordRow<T>, target: &mut T, statement: &Statement) {
        if !self.fits(row.shape, statement) {
            return;
        }
        let name = row.name;
        match row.effect {
            KeywordEffect::Set(handler) => handler(self, target, statement),
            KeywordEffect::Accept => {}
            KeywordEffect::Ignore(reason) => {
                let text = format!("`{name}` has no effect here: {reason}");
                self.report.warning(statement.span(), "ignored-keyword", text);
            }
            // Generators write all blocks, and an empty one asks for nothing.
            KeywordEffect::Refuse(_) if statement.block.as_ref().is_some_and(Vec::is_empty) => {}
            KeywordEffect::Refuse(reason) => {
                let text = format!("`{name}` is not supported yet");
                self.report.error(statement.span(), "unsupported", text).help(reason);
            }
        }
    }

    /// The statement has as many arguments as it needs, and a block if it must. keepalived ends at
    /// an argument that is missing, and passes over one too many.
    pub fn fits(&mut self, shape: Shape, statement: &Statement) -> bool {
        let name = &statement.keyword().text;
        let (low, high, wants_block) = match shape {
            Shape::Any => return true,
            Shape::Line(low, high) => (low, high, false),
            Shape::Block(low, high) => (low, high, true),
        };
        let count = statement.arguments().len();
        if count < low {
            let text = match low {
                1 => format!("`{name}` needs an argument"),
                _ => format!("`{name}` needs {low} arguments"),
            };
            self.report.error(statement.span(), "missing-argument", text);
            return false;
        }
        if let Some(extra) = statement.arguments().get(high) {
            let text = format!("`{name}` does not take this argument");
            self.report.forgiven(extra.span, "extra-argument", text, "it is ignored");
        }
        match (wants_block, &statement.block) {
            (true, None) => {
                let text = format!("`{name}` needs a block in braces");
                let effect = "it is taken for an empty one";
                self.report.forgiven(statement.span(), "missing-block", text, effect);
            }
            (false, Some(_)) => {
                let text = format!("`{name}` takes no block");
                let effect = "the block is ignored";
                self.report.forgiven(statement.span(), "extra-block", text, effect);
            }
            (true, Some(_)) | (false, None) => {}
        }
        true
    }

    /// A keyword that no table of the block has.
    pub fn unknown<I: Iterator<Item = &'static str>>(
        &mut self,
        what: &str,
        statement: &Statement,
        known: impl FnOnce() -> I,
    ) {
        let keyword = statement.keyword();
        let text = format!("unknown keyword `{}` in {what}", keyword.text);
        let effect = match statement.block {
            Some(_) => "the block is ignored",
            None => LINE_IGNORED,
        };
        let finding = self.report.forgiven(keyword.span, "unknown-keyword", text, effect);
        // Of what repeats, the first was looked up.
        if !finding.is_kept() {
            return;
        }
        match (self.home_of)(&keyword.text) {
            Some(block) => drop(finding.help(format!("it belongs in {block}"))),
            None => drop(finding.suggest(&keyword.text, known())),
        }
    }
}
