//! What a row is: a setting with its spelling, its form, its default and its place.

use crate::dialect::Dialect;
use ::toml::de::{DeTable, DeValue};

use crate::field::Field;
use crate::keepalived::blocks::Statement;
use crate::keepalived::lowering::Lowering;
use crate::settings::form::{self, Form, Schema};
use crate::span::{At, Report, Span};
use crate::toml::hints;
use crate::toml::reader::{Key, Reader, Value};
use locum_plan::Name;

/// Whether the value may be a table keyed by node name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PerNode {
    Yes,
    No,
}

/// The block of a keepalived.conf that a keyword stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Block {
    Globals,
    Instance,
    Script,
    VirtualServer,
    RealServer,
    Checker,
}

/// A keyword of keepalived.conf with the meaning of a setting.
pub(crate) enum Keyword<T: 'static> {
    /// Its argument is the value, spelled as the form says.
    Plain(Block, &'static str),
    /// Read by this function.
    By(Block, &'static str, fn(&mut Lowering<'_>, &Statement) -> Option<At<T>>),
    /// Read by the front-end, because other lines have a say.
    Own(Block, &'static str),
}

/// Who reads a keyword.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadBy {
    Row,
    FrontEnd,
}

impl<T: 'static> Keyword<T> {
    pub const fn name(&self) -> (Block, &'static str) {
        match self {
            Self::Plain(block, name) | Self::By(block, name, _) | Self::Own(block, name) => {
                (*block, *name)
            }
        }
    }

    const fn read_by(&self) -> ReadBy {
        match self {
            Self::Plain(..) | Self::By(..) => ReadBy::Row,
            Self::Own(..) => ReadBy::FrontEnd,
        }
    }
}

/// What a setting is when nobody sets it.
pub(crate) enum Unset<T: 'static> {
    /// It must be written.
    Required,
    /// Nothing; the text says what that means.
    Nothing(&'static str),
    /// This value, for this reason.
    Value(fn(Dialect) -> T, &'static str),
    /// What other settings say: how, and why.
    Follows(&'static str, &'static str),
}

/// How to look at a field, and how to set it; made by [`field`].
pub(crate) type FieldAccess<N, T> = (fn(&N) -> &Field<T>, fn(&mut N) -> &mut Field<T>);

/// One setting of a noun `N`, of type `T`.
pub(crate) struct Setting<N: 'static, T: 'static> {
    key: &'static str,
    form: Form<T>,
    get: fn(&N) -> &Field<T>,
    slot: fn(&mut N) -> &mut Field<T>,
    per_node: PerNode,
    default: Unset<T>,
    keywords: &'static [Keyword<T>],
    about: &'static str,
}

impl<N: 'static, T: 'static> Setting<N, T> {
    /// A setting without default and without keyword; `about` is a sentence for the manual.
    pub const fn new(
        key: &'static str,
        form: Form<T>,
        (get, slot): FieldAccess<N, T>,
        default: Unset<T>,
        about: &'static str,
    ) -> Self {
        Self { key, form, get, slot, per_node: PerNode::No, default, keywords: &[], about }
    }

    /// Nodes may have different values.
    pub const fn per_node(mut self) -> Self {
        self.per_node = PerNode::Yes;
        self
    }

    pub const fn keywords(mut self, keywords: &'static [Keyword<T>]) -> Self {
        self.keywords = keywords;
        self
    }
}

impl<N: 'static, T: Clone + 'static> Setting<N, T> {
    /// The value, or the default of the dialect.
    ///
    /// # Panics
    /// For a setting without [`Unset::Value`], whatever was parsed.
    pub fn of(&self, parsed: &N, dialect: Dialect) -> T {
        let default = match &self.default {
            Unset::Value(of, _) => Some(of),
            Unset::Required | Unset::Nothing(_) | Unset::Follows(..) => None,
        };
        // INVARIANT: only rows with a value are asked; every load asks all of them.
        let default = default.expect("a row with a default");
        (self.get)(parsed).value().map_or_else(|| default(dialect), T::clone)
    }
}

impl<N: Default + 'static, T: Clone + PartialEq + 'static> Setting<N, T> {
    /// What each node has, by its name: the nodes of the file, or where it lists none those that
    /// the value is for. What is wrong of another node is for that node to hear, and left out here.
    ///
    /// # Panics
    /// As [`Self::of`].
    pub fn of_all(&self, reader: &Reader<'_>, table: &DeTable<'_>) -> Vec<(Name, T)> {
        let mut unheard = Report::default();
        let mut aside =
            Reader { report: &mut unheard, file: reader.file, node: None, nodes: Vec::new() };
        let shape = self.form.shape();
        let key = Key { name: self.key, shape: &shape };
        let nodes = reader.nodes.iter().map(|node| node.name.clone());
        let Some(value) = table.get(self.key) else {
            let default = self.of(&N::default(), Dialect::Toml);
            return nodes.map(|node| (node, default.clone())).collect();
        };
        match (self.per_node, value.get_ref()) {
            (PerNode::Yes, DeValue::Table(entries)) => {
                let is_node = |name: &str| {
                    let mut known = reader.nodes.iter();
                    reader.nodes.is_empty() || known.any(|node| *node.name == *name)
                };
                let entries = entries.iter().filter(|(name, _)| is_node(name.get_ref()));
                let read = entries.filter_map(|(name, value)| {
                    let read = self.form.read(&mut aside, value, key)?;
                    Some((Name::from(name.get_ref().as_ref()), read))
                });
                read.collect()
            }
            (PerNode::Yes | PerNode::No, _) => {
                let read = self.form.read(&mut aside, value, key);
                nodes.filter_map(|node| Some((node, read.clone()?))).collect()
            }
        }
    }
}

/// The [`FieldAccess`] of a field of a noun.
macro_rules! field {
    ($noun:ty, $type:ty, $($part:ident).+) => {{
        fn get(noun: &$noun) -> &$crate::field::Field<$type> {
            &noun.$($part).+
        }
        fn slot(noun: &mut $noun) -> &mut $crate::field::Field<$type> {
            &mut noun.$($part).+
        }
        (get as fn(&$noun) -> &$crate::field::Field<$type>,
         slot as fn(&mut $noun) -> &mut $crate::field::Field<$type>)
    }};
}
pub(crate) use field;

/// A row of a table, whatever its type.
pub(crate) trait Row<N: 'static>: Sync {
    fn key(&self) -> &'static str;
    /// For the manual, the schema and the sample.
    fn facts(&self) -> SettingFacts;
    /// Those of keepalived.conf that mean it.
    fn keywords(&self) -> Vec<(Block, &'static str, ReadBy)>;
    /// Reads the value of this key.
    fn read(&self, reader: &mut Reader<'_>, value: &Value<'_>, noun: &mut N);
    /// Reads the statement when its keyword is this row's; `false` when it is not.
    fn lower(
        &self,
        lowering: &mut Lowering<'_>,
        block: Block,
        statement: &Statement,
        noun: &mut N,
    ) -> bool;
    /// Takes the value of `from` where `noun` has none.
    fn inherit(&self, noun: &mut N, from: &N);
}

/// What a row says of its setting, as text.
#[derive(Clone, Debug)]
pub(crate) struct SettingFacts {
    pub key: &'static str,
    pub shape: String,
    pub schema: Schema,
    pub per_node: PerNode,
    pub is_required: bool,
    /// As it would be written in a locum.toml, or in words; empty when it must be written.
    pub default: String,
    /// As keepalived.conf means it, where that is another value.
    pub keepalived_default: Option<String>,
    pub why: &'static str,
    pub keywords: Vec<(Block, &'static str, ReadBy)>,
    pub about: &'static str,
}

impl<N: 'static, T: Clone + PartialEq + Sync + 'static> Row<N> for Setting<N, T> {
    fn key(&self) -> &'static str {
        self.key
    }

    fn facts(&self) -> SettingFacts {
        let (default, keepalived_default, why) = match &self.default {
            Unset::Required => (String::new(), None, ""),
            Unset::Nothing(meaning) => ((*meaning).to_owned(), None, ""),
            Unset::Follows(how, why) => ((*how).to_owned(), None, *why),
            Unset::Value(of, why) => {
                let (ours, theirs) = (of(Dialect::Toml), of(Dialect::Keepalived));
                let differs = (ours != theirs).then(|| self.form.spell(&theirs));
                (self.form.spell(&ours), differs, *why)
            }
        };
        SettingFacts {
            key: self.key,
            shape: self.form.shape(),
            schema: self.form.schema(),
            per_node: self.per_node,
            is_required: matches!(self.default, Unset::Required),
            default,
            keepalived_default,
            why,
            keywords: self.keywords(),
            about: self.about,
        }
    }

    fn keywords(&self) -> Vec<(Block, &'static str, ReadBy)> {
        let all = self.keywords.iter().map(|keyword| {
            let (block, name) = keyword.name();
            (block, name, keyword.read_by())
        });
        all.collect()
    }

    fn read(&self, reader: &mut Reader<'_>, value: &Value<'_>, noun: &mut N) {
        let shape = self.form.shape();
        let key = Key { name: self.key, shape: &shape };
        let picked = match self.per_node {
            PerNode::Yes => reader.for_node(value, self.key),
            PerNode::No => Some(value),
        };
        *(self.slot)(noun) = match picked {
            Some(value) => {
                let span = reader.span(value.span());
                let read = self.form.read(reader, value, key);
                read.map(|value| At::new(value, span)).into()
            }
            None => Field::Bad,
        };
    }

    fn lower(
        &self,
        lowering: &mut Lowering<'_>,
        block: Block,
        statement: &Statement,
        noun: &mut N,
    ) -> bool {
        let name = statement.keyword().text.as_str();
        let mut keywords = self.keywords.iter();
        let Some(keyword) = keywords.find(|keyword| keyword.name() == (block, name)) else {
            return false;
        };
        lowering.is_essential = matches!(self.default, Unset::Required);
        let read = match keyword {
            Keyword::Plain(..) => lowering
                .fits(self.form.words(), statement)
                .then(|| self.form.lower(lowering, statement)),
            Keyword::By(_, _, read) => {
                lowering.fits(self.form.words(), statement).then(|| read(lowering, statement))
            }
            Keyword::Own(..) => None,
        };
        let is_essential = std::mem::take(&mut lowering.is_essential);
        match (read, is_essential) {
            (Some(Some(read)), _) => *(self.slot)(noun) = Field::Given(read),
            (Some(None), true) | (None, true) => *(self.slot)(noun) = Field::Bad,
            (Some(None), false) | (None, false) => {}
        }
        !matches!(keyword, Keyword::Own(..))
    }

    fn inherit(&self, noun: &mut N, from: &N) {
        let own = (self.slot)(noun);
        if own.is_absent() {
            own.clone_from((self.get)(from));
        }
    }
}

/// A table inside the table of a noun, with rows of its own.
pub(crate) struct Nested<N: 'static, M: 'static> {
    key: &'static str,
    noun: &'static Noun<M>,
    shape: &'static str,
    get: fn(&N) -> &M,
    slot: fn(&mut N) -> &mut M,
    /// Notes where it stands.
    open: fn(&mut M, Span),
    about: &'static str,
}

impl<N: 'static, M: 'static> Nested<N, M> {
    pub const fn new(
        key: &'static str,
        shape: &'static str,
        noun: &'static Noun<M>,
        get: fn(&N) -> &M,
        slot: fn(&mut N) -> &mut M,
        open: fn(&mut M, Span),
        about: &'static str,
    ) -> Self {
        Self { key, noun, shape, get, slot, open, about }
    }
}

impl<N: 'static, M: 'static> Row<N> for Nested<N, M> {
    fn key(&self) -> &'static str {
        self.key
    }

    fn facts(&self) -> SettingFacts {
        SettingFacts {
            key: self.key,
            shape: self.shape.to_owned(),
            schema: Schema::Table(self.noun.name),
            per_node: PerNode::No,
            is_required: false,
            default: "that of each setting in it".to_owned(),
            keepalived_default: None,
            why: "",
            keywords: Vec::new(),
            about: self.about,
        }
    }

    fn keywords(&self) -> Vec<(Block, &'static str, ReadBy)> {
        Vec::new()
    }

    fn read(&self, reader: &mut Reader<'_>, value: &Value<'_>, noun: &mut N) {
        let inner = (self.slot)(noun);
        let key = Key { name: self.key, shape: self.shape };
        if let Some(span) = self.noun.open(reader, value, key, inner) {
            (self.open)(inner, span);
        }
    }

    fn lower(
        &self,
        lowering: &mut Lowering<'_>,
        block: Block,
        statement: &Statement,
        noun: &mut N,
    ) -> bool {
        self.noun.lower(lowering, block, statement, (self.slot)(noun))
    }

    fn inherit(&self, noun: &mut N, from: &N) {
        self.noun.inherit((self.slot)(noun), (self.get)(from));
    }
}

/// A row of a noun that is part of another, as a row of that other.
pub(crate) struct PartRow<N: 'static, M: 'static> {
    row: &'static dyn Row<M>,
    get: fn(&N) -> &M,
    slot: fn(&mut N) -> &mut M,
    /// The blocks whose keywords it has there.
    blocks: &'static [Block],
}

impl<N: 'static, M: 'static> PartRow<N, M> {
    pub const fn new(
        row: &'static dyn Row<M>,
        get: fn(&N) -> &M,
        slot: fn(&mut N) -> &mut M,
        blocks: &'static [Block],
    ) -> Self {
        Self { row, get, slot, blocks }
    }
}

impl<N: 'static, M: 'static> Row<N> for PartRow<N, M> {
    fn key(&self) -> &'static str {
        self.row.key()
    }

    fn facts(&self) -> SettingFacts {
        SettingFacts { keywords: self.keywords(), ..self.row.facts() }
    }

    fn keywords(&self) -> Vec<(Block, &'static str, ReadBy)> {
        let mut keywords = self.row.keywords();
        keywords.retain(|(block, ..)| self.blocks.contains(block));
        keywords
    }

    fn read(&self, reader: &mut Reader<'_>, value: &Value<'_>, noun: &mut N) {
        self.row.read(reader, value, (self.slot)(noun));
    }

    fn lower(
        &self,
        lowering: &mut Lowering<'_>,
        block: Block,
        statement: &Statement,
        noun: &mut N,
    ) -> bool {
        self.blocks.contains(&block)
            && self.row.lower(lowering, block, statement, (self.slot)(noun))
    }

    fn inherit(&self, noun: &mut N, from: &N) {
        self.row.inherit((self.slot)(noun), (self.get)(from));
    }
}

/// The name of a noun: known before the rest, because findings need it.
pub(crate) struct NameRow {
    pub about: &'static str,
}

impl<N: 'static> Row<N> for NameRow {
    fn key(&self) -> &'static str {
        "name"
    }

    fn facts(&self) -> SettingFacts {
        SettingFacts {
            key: "name",
            shape: form::TEXT_SHAPE.to_owned(),
            schema: Schema::Text,
            per_node: PerNode::No,
            is_required: true,
            default: String::new(),
            keepalived_default: None,
            why: "",
            keywords: Vec::new(),
            about: self.about,
        }
    }

    fn keywords(&self) -> Vec<(Block, &'static str, ReadBy)> {
        Vec::new()
    }

    fn read(&self, _: &mut Reader<'_>, _: &Value<'_>, _: &mut N) {}

    fn lower(&self, _: &mut Lowering<'_>, _: Block, _: &Statement, _: &mut N) -> bool {
        false
    }

    fn inherit(&self, _: &mut N, _: &N) {}
}

/// All settings of one kind of table.
pub(crate) struct Noun<N: 'static> {
    /// In the schema and the manual.
    pub name: &'static str,
    /// How its table is written.
    pub head: &'static str,
    /// With its article, for messages: "in …".
    pub what: &'static str,
    pub about: &'static str,
    pub rows: &'static [&'static dyn Row<N>],
}

impl<N: 'static> Noun<N> {
    /// Reads every key of a table; reports those that do not belong there.
    pub fn read(&self, reader: &mut Reader<'_>, entries: &DeTable<'_>, noun: &mut N) {
        for (name, value) in entries.iter() {
            let text: &str = name.get_ref().as_ref();
            match self.rows.iter().find(|row| row.key() == text) {
                Some(row) => row.read(reader, value, noun),
                None => {
                    let span = reader.span(name.span());
                    let known = self.rows.iter().map(|row| row.key());
                    let hint = hints::hint(Some(self.name), text).map(str::to_owned);
                    let hint = hint.or_else(|| self.keyword_hint(text));
                    reader.unknown_key(span, text, self.what, hint, known);
                }
            }
        }
    }

    /// For a keyword of keepalived.conf that means a key of this table.
    fn keyword_hint(&self, word: &str) -> Option<String> {
        let means = |row: &&&dyn Row<N>| row.keywords().iter().any(|(_, name, _)| *name == word);
        let row = self.rows.iter().find(means)?;
        Some(format!("keepalived's `{word}` is `{}` here", row.key()))
    }

    /// Reads an inline table or `[x]`, and says where it stands; anything else is an error.
    pub fn open(
        &self,
        reader: &mut Reader<'_>,
        value: &Value<'_>,
        key: Key<'_>,
        noun: &mut N,
    ) -> Option<Span> {
        let span = reader.span(value.span());
        let DeValue::Table(entries) = value.get_ref() else {
            reader.wrong_type(value, key);
            return None;
        };
        self.read(reader, entries, noun);
        Some(span)
    }

    /// Reads the statement by the row that has its keyword; `false` when none has.
    pub fn lower(
        &self,
        lowering: &mut Lowering<'_>,
        block: Block,
        statement: &Statement,
        noun: &mut N,
    ) -> bool {
        self.rows.iter().any(|row| row.lower(lowering, block, statement, noun))
    }

    /// Every setting of `from` that `noun` does not have itself.
    pub fn inherit(&self, noun: &mut N, from: &N) {
        for row in self.rows {
            row.inherit(noun, from);
        }
    }
}

/// A noun without its type.
pub(crate) trait Described: Sync {
    fn name(&self) -> &'static str;
    fn head(&self) -> &'static str;
    fn about(&self) -> &'static str;
    fn facts(&self) -> Vec<SettingFacts>;
    fn keywords(&self) -> Vec<(Block, &'static str, ReadBy)>;
}

impl<N: 'static> Described for Noun<N> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn head(&self) -> &'static str {
        self.head
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn facts(&self) -> Vec<SettingFacts> {
        self.rows.iter().map(|row| row.facts()).collect()
    }

    fn keywords(&self) -> Vec<(Block, &'static str, ReadBy)> {
        self.rows.iter().flat_map(|row| row.keywords()).collect()
    }
}
