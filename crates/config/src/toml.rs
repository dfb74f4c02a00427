//! The native front-end: TOML, one file for all nodes. Spelling only; meaning is `assemble`'s.

pub(crate) mod hints;
pub(crate) mod reader;

use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};

use crate::context::Context;
use crate::dialect::Dialect;
use crate::parsed::{
    LateInterfaces, Parsed, ParsedCheck, ParsedHaproxy, ParsedHookSettings, ParsedInstance,
    ParsedIpvs, ParsedNode, ParsedService, TransportKind,
};
use crate::settings::check::CHECK;
use crate::settings::form;
use crate::settings::instance::{INSTANCE, PRIORITY};
use crate::settings::ipvs::IPVS;
use crate::settings::node::{HAPROXY, HOOKS, NODE};
use crate::settings::row::Noun;
use crate::settings::service::SERVICE;
use crate::span::{At, Finding, Report, Span};
use crate::toml::reader::{Key, Reader, Value};
use locum_plan::{Name, Node};

/// Syntax errors reported of one file. One missing bracket makes an error of every line that follows;
/// so does a file in another language.
const MAX_SYNTAX_ERRORS: usize = 5;

/// Reads the file of this number. `None` when it is no TOML, which is reported.
pub(crate) fn read(file: u32, context: &Context<'_>, report: &mut Report) -> Option<Parsed> {
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
    let document = document.get_ref();
    known_keys(&mut reader, document);
    reader.nodes = nodes(&mut reader, document);
    reader.node = this_node(&mut reader, document, context);
    Some(Parsed {
        dialect: Dialect::Toml,
        instances: instances(&mut reader, document),
        checks: checks(&mut reader, document),
        services: services(&mut reader, document),
        haproxy: haproxy(&mut reader, document),
        ipvs: ipvs(&mut reader, document),
        hooks: hooks(&mut reader, document),
        node: reader.node.clone().unwrap_or_else(|| Name::from(context.host_name)),
        is_node_known: reader.node.is_some(),
        nodes: std::mem::take(&mut reader.nodes),
        late_interfaces: LateInterfaces::Missed,
    })
}

/// The tables of a document, with how each is written.
pub(crate) static DOCUMENT: [(&str, &str); 7] = [
    ("nodes", NODE.head),
    ("instance", INSTANCE.head),
    ("check", CHECK.head),
    ("service", SERVICE.head),
    ("haproxy", HAPROXY.head),
    ("ipvs", IPVS.head),
    ("hooks", HOOKS.head),
];

fn known_keys(reader: &mut Reader<'_>, document: &DeTable<'_>) {
    for (name, _) in document.iter() {
        let text: &str = name.get_ref().as_ref();
        if !DOCUMENT.iter().any(|(key, _)| *key == text) {
            let span = reader.span(name.span());
            let known = DOCUMENT.iter().map(|(key, _)| *key);
            let hint = hints::hint(None, text).map(str::to_owned);
            reader.unknown_key(span, text, "the configuration", hint, known);
        }
    }
}

fn instances(reader: &mut Reader<'_>, document: &DeTable<'_>) -> Vec<ParsedInstance> {
    let entries = entries(reader, document, "instance", &INSTANCE);
    let read = entries.into_iter().map(|NamedTable { table, name, span }| {
        let mut instance = ParsedInstance::new(span, name);
        INSTANCE.read(reader, table, &mut instance);
        instance.priorities = PRIORITY.of_all(reader, table);
        transport(reader.report, &mut instance);
        instance
    });
    read.collect()
}

fn checks(reader: &mut Reader<'_>, document: &DeTable<'_>) -> Vec<ParsedCheck> {
    let entries = named(reader, document, "check");
    let read = entries.into_iter().map(|NamedTable { table, name, span }| {
        let mut check = ParsedCheck { span: name.span, name, ..ParsedCheck::default() };
        CHECK.read(reader, table, &mut check);
        check.checker = check.asked.checker(reader.report, span);
        check
    });
    read.collect()
}

fn services(reader: &mut Reader<'_>, document: &DeTable<'_>) -> Vec<ParsedService> {
    let entries = entries(reader, document, "service", &SERVICE);
    let read = entries.into_iter().map(|NamedTable { table, name, .. }| {
        let mut service = ParsedService { span: name.span, name, ..ParsedService::default() };
        SERVICE.read(reader, table, &mut service);
        service
    });
    read.collect()
}

fn haproxy(reader: &mut Reader<'_>, document: &DeTable<'_>) -> Vec<ParsedHaproxy> {
    let entries = entries(reader, document, "haproxy", &HAPROXY);
    let read = entries.into_iter().map(|NamedTable { table, name, .. }| {
        let mut haproxy = ParsedHaproxy { name, ..ParsedHaproxy::default() };
        HAPROXY.read(reader, table, &mut haproxy);
        haproxy
    });
    read.collect()
}

fn ipvs(reader: &mut Reader<'_>, document: &DeTable<'_>) -> ParsedIpvs {
    let mut ipvs = ParsedIpvs::default();
    if let Some(value) = document.get("ipvs") {
        let key = Key { name: "ipvs", shape: "a table, as in [ipvs]" };
        IPVS.open(reader, value, key, &mut ipvs);
    }
    ipvs
}

fn hooks(reader: &mut Reader<'_>, document: &DeTable<'_>) -> ParsedHookSettings {
    let mut hooks = ParsedHookSettings::default();
    if let Some(value) = document.get("hooks") {
        let key = Key { name: "hooks", shape: "a table, as in [hooks]" };
        HOOKS.open(reader, value, key, &mut hooks);
    }
    hooks
}

/// `transport = "unicast"`, `unicast = {…}`, or both: where it is said, if it is.
fn transport(report: &mut Report, instance: &mut ParsedInstance) {
    let kind = instance.transport.value().copied();
    if let (Some(TransportKind::Multicast), Some(span)) = (kind, instance.unicast.span) {
        let text = "`unicast` goes with `transport = \"unicast\"`";
        report.error(span, "transport-conflict", text);
        instance.unicast.span = None;
        return;
    }
    if let (Some(TransportKind::Unicast), None) = (kind, instance.unicast.span) {
        instance.unicast.span = instance.transport.span();
    }
    if let (Some(_), Some(group)) = (instance.unicast.span, instance.group.given()) {
        report.error(group.span, "transport-conflict", "`group` goes with multicast");
    }
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

/// A table with the name it carries.
struct NamedTable<'t, 'i> {
    table: &'t DeTable<'i>,
    name: At<String>,
    span: Span,
}

/// The tables of `[[key]]`.
fn entries<'t, 'i, N>(
    reader: &mut Reader<'_>,
    document: &'t DeTable<'i>,
    key: &'static str,
    noun: &Noun<N>,
) -> Vec<NamedTable<'t, 'i>> {
    let Some(value) = document.get(key) else { return Vec::new() };
    let DeValue::Array(items) = value.get_ref() else {
        let span = reader.span(value.span());
        let text = format!("`{key}` must be written with two brackets, as in [[{key}]]");
        reader.report.error(span, "wrong-type", text);
        return Vec::new();
    };
    let mut tables = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let span = reader.span(item.span());
        let DeValue::Table(table) = item.get_ref() else {
            reader.wrong_type(item, Key { name: key, shape: "tables, as in [[name]]" });
            continue;
        };
        let stand_in = || At::new(format!("#{}", index + 1), span);
        let name = match table.get("name") {
            Some(value) => {
                let key = Key { name: "name", shape: form::TEXT_SHAPE };
                let text = reader.text(value, key);
                text.map_or_else(stand_in, |text| At::new(text, reader.span(value.span())))
            }
            None => {
                let text = format!("{} has no `name`", noun.what);
                reader.report.error(span, "missing-key", text);
                stand_in()
            }
        };
        tables.push(NamedTable { table, name, span });
    }
    tables
}

/// The tables of `[key.NAME]`, in the order of the file: the parser sorts by name.
fn named<'t, 'i>(
    reader: &mut Reader<'_>,
    document: &'t DeTable<'i>,
    key: &'static str,
) -> Vec<NamedTable<'t, 'i>> {
    let Some(value) = document.get(key) else { return Vec::new() };
    let DeValue::Table(all) = value.get_ref() else {
        let span = reader.span(value.span());
        let text = format!("`{key}` must be tables, as in [{key}.NAME]");
        reader.report.error(span, "wrong-type", text);
        return Vec::new();
    };
    let mut tables = Vec::new();
    for (name, item) in all.iter() {
        let span = reader.span(item.span());
        let DeValue::Table(table) = item.get_ref() else {
            let shape = format!("a table, as in [{key}.{}]", name.get_ref());
            reader.wrong_type(item, Key { name: name.get_ref().as_ref(), shape: &shape });
            continue;
        };
        let name = At::new(name.get_ref().clone().into_owned(), reader.span(name.span()));
        tables.push(NamedTable { table, name, span });
    }
    tables.sort_by_key(|entry| entry.name.span.start);
    tables
}

fn nodes(reader: &mut Reader<'_>, document: &DeTable<'_>) -> Vec<Node> {
    let entries = named(reader, document, "nodes");
    let read = entries.into_iter().map(|NamedTable { table, name, .. }| {
        let mut node = ParsedNode::default();
        NODE.read(reader, table, &mut node);
        let address = node.address.value().copied();
        Node { name: Name::from(name.value.as_str()), address }
    });
    read.collect()
}

/// Which node this is: the one given, else the host name in full or up to its first dot.
fn this_node(
    reader: &mut Reader<'_>,
    document: &DeTable<'_>,
    context: &Context<'_>,
) -> Option<Name> {
    let wanted = context.node.unwrap_or(context.host_name);
    let Some(value) = document.get("nodes") else { return Some(Name::from(wanted)) };
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
fn section_span(reader: &Reader<'_>, document: &DeTable<'_>, value: &Value<'_>) -> Span {
    let key = document.keys().find(|key| key.get_ref() == "nodes").map(Spanned::span);
    reader.span(key.unwrap_or_else(|| value.span()))
}
