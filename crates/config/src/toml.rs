//! The native front-end: TOML, one file for all nodes. Spelling only; meaning is `assemble`'s.

mod check;
mod instance;
mod keys;
mod reader;
mod service;

use std::path::PathBuf;

use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};

use crate::Context;
use crate::span::{At, Finding, Report, Span};
use crate::toml::keys::Section;
use crate::toml::reader::{Reader, Table, Value};
use crate::wish::{HaproxyWish, Wishes};
use locum_plan::{Dialect, Name, Node};

/// Syntax errors told of one file. One missing bracket makes an error of every line that follows;
/// so does a file in another language.
const MAX_SYNTAX_ERRORS: usize = 5;

/// Reads the file of this number. `None` when it is no TOML, which is reported.
pub(crate) fn read(file: u32, context: &Context<'_>, report: &mut Report) -> Option<Wishes> {
    let text = report.files.get(file as usize)?.text.clone();
    let (document, errors) = DeTable::parse_recoverable(&text);
    if !errors.is_empty() {
        let more = errors.len().saturating_sub(MAX_SYNTAX_ERRORS);
        for (at, error) in errors.iter().take(MAX_SYNTAX_ERRORS).enumerate() {
            let finding = syntax_error(file, &text, error, report);
            if more > 0 && at + 1 == MAX_SYNTAX_ERRORS {
                finding.note(format!(
                    "{more} more follow, perhaps only because of these: mend the first"
                ));
            }
        }
        return None;
    }
    let mut reader = Reader { report, file, node: None, nodes: Vec::new() };
    let whole = reader.span(0..0);
    let document = reader.open(document.get_ref(), whole, &keys::DOCUMENT);
    reader.nodes = nodes(&mut reader, &document);
    reader.node = this_node(&mut reader, &document, context);
    let wishes = Wishes {
        dialect: Dialect::Toml,
        instances: entries(&mut reader, &document, "instance", &keys::INSTANCE)
            .iter()
            .map(|(table, name)| instance::read(&mut reader, table, name.clone()))
            .collect(),
        checks: named(&mut reader, &document, "check", &keys::CHECK)
            .iter()
            .map(|(table, name)| check::read(&mut reader, table, name.clone()))
            .collect(),
        services: entries(&mut reader, &document, "service", &keys::SERVICE)
            .iter()
            .map(|(table, name)| service::read(&mut reader, table, name.clone()))
            .collect(),
        haproxy: entries(&mut reader, &document, "haproxy", &keys::HAPROXY)
            .iter()
            .map(|(table, name)| haproxy(&mut reader, table, name.clone()))
            .collect(),
        hook_timeout: hook_timeout(&mut reader, &document),
        node: reader.node.clone().unwrap_or_else(|| Name::from(context.host_name)),
        nodes: std::mem::take(&mut reader.nodes),
    };
    Some(wishes)
}

/// One of the parser's own errors, with what its words leave open.
fn syntax_error<'r>(
    file: u32,
    text: &str,
    error: &::toml::de::Error,
    report: &'r mut Report,
) -> Finding<'r> {
    let range = error.span().unwrap_or(text.len()..text.len());
    let span = Span { file, start: range.start as u32, end: range.end as u32 };
    match error.message() {
        "duplicate key" => {
            let key = text.get(range).unwrap_or_default();
            report
                .error(span, "syntax", format!("`{key}` is defined twice"))
                .help("merge the two, or remove one")
        }
        message if message.contains("comma between array elements") => report
            .error(span, "syntax", message)
            .help("the list before it may lack its closing `]`"),
        message => report.error(span, "syntax", message),
    }
}

/// The tables of `[[name]]`, with the name each carries.
fn entries<'t, 'i>(
    reader: &mut Reader<'_>,
    document: &Table<'t, 'i>,
    key: &'static str,
    section: &'static Section,
) -> Vec<(Table<'t, 'i>, At<String>)> {
    let Some(value) = document.entries.get(key) else { return Vec::new() };
    let DeValue::Array(items) = value.get_ref() else {
        let span = reader.span(value.span());
        let text = format!("`{key}` must be written with two brackets, as in [[{key}]]");
        reader.report.error(span, "wrong-type", text);
        return Vec::new();
    };
    let mut tables = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let shape = "tables, as in [[name]]";
        let Some(table) = reader.open_value(item, section, key, shape) else { continue };
        let name = reader.field(&table, "name", Reader::text);
        if name.is_absent() {
            let text = format!("{} has no `name`", section.what);
            reader.report.error(table.span, "missing-key", text);
        }
        let stand_in = At::new(format!("#{}", index + 1), table.span);
        tables.push((table, name.into_given().unwrap_or(stand_in)));
    }
    tables
}

/// The tables of `[key.NAME]`.
fn named<'t, 'i>(
    reader: &mut Reader<'_>,
    document: &Table<'t, 'i>,
    key: &'static str,
    section: &'static Section,
) -> Vec<(Table<'t, 'i>, At<String>)> {
    let Some(value) = document.entries.get(key) else { return Vec::new() };
    let DeValue::Table(all) = value.get_ref() else {
        let span = reader.span(value.span());
        let text = format!("`{key}` must be tables, as in [{key}.NAME]");
        reader.report.error(span, "wrong-type", text);
        return Vec::new();
    };
    let mut tables: Vec<(Table<'t, 'i>, At<String>)> = Vec::new();
    for (name, item) in all.iter() {
        let shape = format!("a table, as in [{key}.{}]", name.get_ref());
        let opened = reader.open_value(item, section, name.get_ref(), &shape);
        let name = At::new(name.get_ref().clone().into_owned(), reader.span(name.span()));
        tables.extend(opened.map(|table| (table, name)));
    }
    // The parser sorts by name; people read in the order of the file.
    tables.sort_by_key(|(_, name)| name.span.start);
    tables
}

fn nodes(reader: &mut Reader<'_>, document: &Table<'_, '_>) -> Vec<Node> {
    named(reader, document, "nodes", &keys::NODE)
        .iter()
        .map(|(table, name)| {
            let address = reader.optional(table, "address", instance::ip_address);
            Node { name: Name::from(name.value.as_str()), address: address.map(|at| at.value) }
        })
        .collect()
}

/// Which node this is: the one given, else the host name in full or up to its first dot.
fn this_node(
    reader: &mut Reader<'_>,
    document: &Table<'_, '_>,
    context: &Context<'_>,
) -> Option<Name> {
    let wanted = context.node.unwrap_or(context.host_name);
    let Some(value) = document.entries.get("nodes") else { return Some(Name::from(wanted)) };
    let short = wanted.split('.').next().unwrap_or(wanted);
    let find = |name: &str| reader.nodes.iter().find(|node| *node.name == *name);
    let found = match context.node {
        Some(given) => find(given),
        None => find(wanted).or_else(|| find(short)),
    };
    if let Some(node) = found {
        return Some(node.name.clone());
    }
    let names: Vec<&str> = reader.nodes.iter().map(|node| &*node.name).collect();
    let (text, help) = match context.node {
        Some(given) => {
            (format!("there is no node `{given}`"), format!("the file has {}", names.join(", ")))
        }
        None => (
            format!("this host is called `{wanted}`, and no node is"),
            format!("say which one it is with --node NAME: {}", names.join(", ")),
        ),
    };
    let span = section_span(reader, document, value);
    reader.report.error(span, "unknown-node", text).help(help);
    None
}

/// Where `[nodes.…]` begins: an implied table has no place of its own.
fn section_span(reader: &Reader<'_>, document: &Table<'_, '_>, value: &Value<'_>) -> Span {
    let key = document.entries.keys().find(|key| key.get_ref() == "nodes").map(Spanned::span);
    reader.span(key.unwrap_or_else(|| value.span()))
}

fn hook_timeout(
    reader: &mut Reader<'_>,
    document: &Table<'_, '_>,
) -> Option<At<std::time::Duration>> {
    let value = document.entries.get("hooks")?;
    let table = reader.open_value(value, &keys::HOOKS, "hooks", "a table, as in [hooks]")?;
    let timeout = reader.optional(&table, "timeout", Reader::duration)?;
    if timeout.value.is_zero() {
        reader.report.error(timeout.span, "zero-timeout", "the timeout of hooks is longer than 0");
    }
    Some(timeout)
}

fn haproxy(reader: &mut Reader<'_>, table: &Table<'_, '_>, name: At<String>) -> HaproxyWish {
    let path = |reader: &mut Reader<'_>, value: &Value<'_>, key: &'static keys::Key| {
        let text = reader.text(value, key)?;
        if text.is_empty() {
            reader.bad_value(value, key, "the path is empty");
            return None;
        }
        Some(PathBuf::from(text))
    };
    HaproxyWish {
        name,
        instance: reader.optional(table, "instance", Reader::text),
        config: reader.field(table, "config", path),
        program: reader.optional(table, "program", path),
        standby: reader.optional(table, "standby", service::standby),
    }
}
