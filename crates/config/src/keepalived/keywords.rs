//! What a keyword row is, and how a block is read by its rows.

use crate::keepalived::blocks::Statement;
use crate::keepalived::inside;
use crate::keepalived::lowering::{BlockTarget, LINE_IGNORED, Lowering};
pub(crate) use crate::keepalived::shape::Shape;

/// One keyword of one block. The tables of rows and the keywords of settings are the whole
/// vocabulary.
pub(crate) struct KeywordRow<T: 'static> {
    pub name: &'static str,
    pub shape: Shape,
    pub effect: KeywordEffect<T>,
    /// For the page of compatibility: how it acts here where that is not what keepalived does, or
    /// why nobody misses it.
    pub note: &'static str,
}

/// A row that acts, and not quite as in keepalived.
pub(crate) const fn differs<T>(note: &'static str, row: KeywordRow<T>) -> KeywordRow<T> {
    let KeywordRow { name, shape, effect, .. } = row;
    KeywordRow { name, shape, effect, note }
}

pub(crate) enum KeywordEffect<T: 'static> {
    /// Lowered into the target.
    Set(fn(&mut Lowering<'_>, &mut T, &Statement)),
    /// Means nothing here, and nobody misses it.
    Accept,
    /// Means nothing here, and somebody may miss it: a warning with this reason.
    Ignore(&'static str),
    /// keepalived dropped it long ago, and logs it as unknown.
    Dead,
    /// Would change the behaviour, and is not there yet: an error with this reason.
    Refuse(&'static str),
}

/// A row that is lowered.
pub(crate) const fn set<T>(
    name: &'static str,
    shape: Shape,
    handler: fn(&mut Lowering<'_>, &mut T, &Statement),
) -> KeywordRow<T> {
    KeywordRow { name, shape, effect: KeywordEffect::Set(handler), note: "" }
}

/// A row that is passed over in silence, for this reason.
pub(crate) const fn accept<T>(name: &'static str, note: &'static str) -> KeywordRow<T> {
    KeywordRow { name, shape: Shape::Any, effect: KeywordEffect::Accept, note }
}

/// A row that keepalived itself dropped long ago.
pub(crate) const fn dead<T>(name: &'static str) -> KeywordRow<T> {
    let note = "keepalived knows it no more";
    KeywordRow { name, shape: Shape::Any, effect: KeywordEffect::Dead, note }
}

pub(crate) const fn ignore<T>(name: &'static str, reason: &'static str) -> KeywordRow<T> {
    KeywordRow { name, shape: Shape::Any, effect: KeywordEffect::Ignore(reason), note: reason }
}

pub(crate) const fn refuse<T>(name: &'static str, reason: &'static str) -> KeywordRow<T> {
    KeywordRow { name, shape: Shape::Any, effect: KeywordEffect::Refuse(reason), note: reason }
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
                self.inside(name, statement);
            }
            KeywordEffect::Dead => {
                let text = format!("keepalived knows `{name}` no more");
                self.report.forgiven(statement.span(), "dead-keyword", text, LINE_IGNORED);
            }
        }
    }

    /// What stands in a refused block is looked at too: one wants the whole list of what to change.
    fn inside(&mut self, name: &str, statement: &Statement) {
        let known = inside::BLOCKS.iter().find(|(block, ..)| *block == name);
        let (Some((_, what, rows)), Some(block)) = (known, &statement.block) else { return };
        for one in block {
            match rows.iter().find(|(keyword, _)| *keyword == one.keyword().text) {
                Some((_, shape)) => {
                    self.fits(*shape, one);
                }
                None => self.unknown(what, one, || rows.iter().map(|(keyword, _)| *keyword)),
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
