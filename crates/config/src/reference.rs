//! The reference page and the JSON schema of a locum.toml, made from the rows of all settings.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::settings::form::Schema;
use crate::settings::nouns;
use crate::settings::row::{Block, Described, PerNode, SettingFacts};
use crate::toml::DOCUMENT;

/// A page in Markdown: every table, every setting, what it may be and what it is when unset.
pub fn page() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         Made from the tables in `crates/config/src/settings` by \
         `cargo run -p locum-config --example reference`; do not edit it by hand.\n\n\
         A value marked *per node* may be a table keyed by node name, as in \
         `{ lb1 = 150, lb2 = 100 }`.\n",
    );
    for noun in nouns() {
        chapter(&mut page, noun);
    }
    page
}

/// A page in Markdown: every keyword of a keepalived.conf, and what it does here.
pub fn keepalived_page() -> String {
    crate::keepalived::compatibility::page()
}

fn chapter(page: &mut String, noun: &dyn Described) {
    // Writing to a String cannot fail.
    let _ = write!(page, "\n## {}\n\n`{}`: {}\n", noun.name(), noun.head(), noun.about());
    for facts in noun.facts() {
        let _ = write!(page, "\n### {}.{}\n\n{}\n\n", noun.name(), facts.key, facts.about);
        entry(page, &facts);
    }
}

fn entry(page: &mut String, facts: &SettingFacts) {
    let per_node = match facts.per_node {
        PerNode::Yes => " (*per node*)",
        PerNode::No => "",
    };
    let _ = writeln!(page, "- Value: {}{per_node}", facts.shape);
    if facts.is_required {
        page.push_str("- Required\n");
    } else {
        unset(page, facts);
    }
    let keywords: Vec<String> = facts
        .keywords
        .iter()
        .map(|(block, name, _)| format!("`{name}` in {}", block_name(*block)))
        .collect();
    if !keywords.is_empty() {
        let _ = writeln!(page, "- keepalived.conf: {}", keywords.join(", "));
    }
}

/// What it is when nobody sets it, and why.
fn unset(page: &mut String, facts: &SettingFacts) {
    let _ = write!(page, "- Unset: {}", facts.default);
    if let Some(theirs) = &facts.keepalived_default {
        let _ = write!(page, "; in a keepalived.conf {theirs}");
    }
    if facts.why.is_empty() {
        page.push('\n');
    } else {
        let _ = writeln!(page, " ({})", facts.why);
    }
}

const fn block_name(block: Block) -> &'static str {
    match block {
        Block::Globals => "`global_defs`",
        Block::Instance => "`vrrp_instance`",
        Block::Script => "`vrrp_script`",
        Block::VirtualServer => "`virtual_server`",
        Block::RealServer => "`real_server`",
        Block::Checker => "`TCP_CHECK` and `HTTP_GET`",
    }
}

/// The JSON schema (draft 2020-12) that editors check a locum.toml with. It says less than a load
/// does: rules between settings are not in it.
pub fn schema() -> Value {
    let mut definitions = Map::new();
    for noun in nouns() {
        definitions.insert(noun.name().to_owned(), table(noun));
    }
    let mut properties = Map::new();
    for (key, head) in DOCUMENT {
        let name = if key == "nodes" { "node" } else { key };
        let table = json!({ "$ref": format!("#/$defs/{name}") });
        let whole = if head.starts_with("[[") {
            json!({ "type": "array", "items": table })
        } else if head.ends_with(".NAME]") {
            json!({ "type": "object", "additionalProperties": table })
        } else {
            table
        };
        properties.insert(key.to_owned(), whole);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "locum.toml",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "$defs": definitions,
    })
}

fn table(noun: &dyn Described) -> Value {
    let facts = noun.facts();
    let required: Vec<&str> =
        facts.iter().filter(|facts| facts.is_required).map(|facts| facts.key).collect();
    let properties: Map<String, Value> =
        facts.iter().map(|facts| (facts.key.to_owned(), property(facts))).collect();
    json!({
        "type": "object",
        "description": noun.about(),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(facts: &SettingFacts) -> Value {
    let value = of(&facts.schema);
    let value = match facts.per_node {
        PerNode::Yes => {
            json!({ "anyOf": [value, { "type": "object", "additionalProperties": value }] })
        }
        PerNode::No => json!({ "allOf": [value] }),
    };
    let mut property = Map::new();
    property.insert("description".to_owned(), facts.about.into());
    if let Value::Object(value) = value {
        property.extend(value);
    }
    Value::Object(property)
}

fn of(schema: &Schema) -> Value {
    match schema {
        Schema::Whole(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Schema::Boolean => json!({ "type": "boolean" }),
        Schema::Text => json!({ "type": "string" }),
        Schema::Duration => {
            json!({ "type": "string", "pattern": "^\\s*[0-9.]+\\s*(us|µs|ms|s|m|h)\\s*$" })
        }
        Schema::Words(words) => json!({ "enum": words }),
        Schema::Table(name) => json!({ "$ref": format!("#/$defs/{name}") }),
        Schema::ByName(value) => json!({ "type": "object", "additionalProperties": of(value) }),
        Schema::List(item) => json!({ "type": "array", "items": of(item) }),
        Schema::Any(choices) => json!({ "anyOf": choices.iter().map(of).collect::<Vec<_>>() }),
    }
}

/// The path of every setting, as in `instance.vrid`: for checks of the sample.
pub fn paths() -> Vec<(String, &'static str)> {
    let all = nouns().into_iter();
    let paths = all.flat_map(|noun| {
        let facts = noun.facts().into_iter();
        facts.map(move |facts| (format!("{}.{}", noun.name(), facts.key), facts.key))
    });
    paths.collect()
}
