//! What is made from the rows of settings stands in the repository as it is made, and the sample
//! shows the settings there are.

// The files are the repository's; only the library itself reads none.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;

use locum_config::reference;
use serde_json::Value;

fn etc(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../etc").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const REMEDY: &str = "run: cargo run -p locum-config --example reference";

#[test]
fn the_reference_page_is_the_one_the_rows_make() {
    assert!(etc("manual/settings.md") == reference::page(), "{REMEDY}");
}

#[test]
fn the_page_of_keepalived_is_the_one_the_rows_make() {
    assert!(etc("manual/keepalived.md") == reference::keepalived_page(), "{REMEDY}");
}

#[test]
fn the_schema_is_the_one_the_rows_make() {
    let written: Value = serde_json::from_str(&etc("locum.schema.json")).expect("JSON");
    assert!(written == reference::schema(), "{REMEDY}");
}

/// Settings that few need: the reference page has them.
const NOT_IN_SAMPLE: [&str; 131] = [
    "instance.profile",
    "instance.group",
    "instance.source",
    "instance.checksum",
    "instance.down_multiplier",
    "instance.answer_lower",
    "instance.answer_higher",
    "instance.owner_ignores_adverts",
    "instance.start_delay",
    "address.device",
    "address.label",
    "address.scope",
    "address.broadcast",
    "address.dad",
    "address.prefix_route",
    "peer.min_ttl",
    "peer.max_ttl",
    "announce.refresh",
    "announce.refresh_repeat",
    "announce.lower_priority_repeat",
    "announce.lower_priority_delay",
    "track.service",
    "track.haproxy",
    "weight.value",
    "weight.reverse",
    "command.shell",
    "command.group",
    "check.shell",
    "check.tcp",
    "check.host",
    "check.group",
    "check.address",
    "check.dns",
    "check.smtp",
    "check.udp",
    "check.mysql",
    "check.postgres",
    "check.redis",
    "check.grpc",
    "check.type",
    "check.over_tcp",
    "check.helo",
    "check.reply",
    "check.reply_min",
    "check.reply_max",
    "check.password",
    "check.tls",
    "check.ping",
    "check.method",
    "check.payload",
    "check.version",
    "check.body",
    "check.regex",
    "check.sha256",
    "check.md5",
    "check.sni",
    "check.verify",
    "check.ca",
    "check.certificate",
    "check.key",
    "check.source",
    "check.mark",
    "check.retry_delay",
    "check.warm_up",
    "check.starts_failed",
    "service.serve",
    "service.fwmark",
    "service.family",
    "service.scheduler_flags",
    "service.persistence",
    "service.one_packet",
    "service.tunnel",
    "persistence.timeout",
    "persistence.granularity",
    "persistence.engine",
    "tunnel.type",
    "tunnel.port",
    "tunnel.checksum",
    "server.tunnel",
    "server.min_connections",
    "server.notify_up",
    "server.notify_down",
    "sorry.tunnel",
    "sorry.unused",
    "health.tcp",
    "health.host",
    "health.port",
    "health.dns",
    "health.smtp",
    "health.udp",
    "health.mysql",
    "health.postgres",
    "health.redis",
    "health.grpc",
    "health.type",
    "health.over_tcp",
    "health.helo",
    "health.reply",
    "health.reply_min",
    "health.reply_max",
    "health.password",
    "health.tls",
    "health.ping",
    "health.agent",
    "health.script",
    "health.user",
    "health.group",
    "health.weighs",
    "health.file",
    "health.factor",
    "health.address",
    "health.https",
    "health.method",
    "health.payload",
    "health.version",
    "health.regex",
    "health.sha256",
    "health.md5",
    "health.sni",
    "health.verify",
    "health.certificate",
    "health.key",
    "health.source",
    "health.mark",
    "health.retry_delay",
    "health.warm_up",
    "header.begins",
    "header.ends",
    "header.contains",
    "header.matches",
    "haproxy.program",
];

#[test]
fn the_sample_shows_every_setting_that_is_not_left_to_the_reference() {
    let sample = etc("locum.toml");
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words: Vec<&str> = sample.split(|c| !word(c)).collect();
    let is_shown = |key: &str| {
        let mut places = sample.match_indices(key);
        words.contains(&key)
            && places.any(|(at, _)| {
                let rest = sample[at + key.len()..].trim_start();
                rest.starts_with('=') && !sample[..at].ends_with(word)
            })
    };
    let paths = reference::paths();
    for (path, key) in &paths {
        let is_left_out = NOT_IN_SAMPLE.contains(&path.as_str());
        assert!(is_shown(key) || is_left_out, "{path} is neither in etc/locum.toml nor left out");
    }
    for path in NOT_IN_SAMPLE {
        assert!(paths.iter().any(|(known, _)| known == path), "{path} is no setting");
    }
}

/// A validator of the little of JSON schema that ours uses.
fn fits(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.trim_start_matches("#/$defs/");
        return fits(value, &root["$defs"][name], root);
    }
    for all in schema["allOf"].as_array().into_iter().flatten() {
        fits(value, all, root)?;
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let mut tried = choices.iter().map(|choice| fits(value, choice, root));
        if !tried.any(|result| result.is_ok()) {
            return Err(format!("{value} is none of {choices:?}"));
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.contains(value).then_some(()).ok_or_else(|| format!("{value}: {words:?}"));
    }
    match schema["type"].as_str() {
        Some("integer") => {
            let number = value.as_i64().ok_or_else(|| format!("{value} is no number"))?;
            let (low, high) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
            let is_in = low.is_none_or(|low| low <= number) && high.is_none_or(|h| number <= h);
            is_in.then_some(()).ok_or_else(|| format!("{number} is out of range"))
        }
        Some("boolean") => value.as_bool().map(|_| ()).ok_or_else(|| format!("{value}")),
        Some("string") => value.as_str().map(|_| ()).ok_or_else(|| format!("{value}")),
        Some("array") => {
            let items = value.as_array().ok_or_else(|| format!("{value} is no list"))?;
            items.iter().try_for_each(|item| fits(item, &schema["items"], root))
        }
        Some("object") => object_fits(value, schema, root),
        _ => Ok(()),
    }
}

fn object_fits(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    let members = value.as_object().ok_or_else(|| format!("{value} is no table"))?;
    for required in schema["required"].as_array().into_iter().flatten() {
        let key = required.as_str().unwrap_or_default();
        if !members.contains_key(key) {
            return Err(format!("`{key}` is missing in {value}"));
        }
    }
    for (key, member) in members {
        let known = &schema["properties"][key];
        let other = &schema["additionalProperties"];
        match (known.is_null(), other) {
            (false, _) => fits(member, known, root)?,
            (true, Value::Bool(false)) => return Err(format!("unknown key `{key}`")),
            (true, other) => fits(member, other, root)?,
        }
    }
    Ok(())
}

fn check(text: &str) -> Result<(), String> {
    let table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
    let value = serde_json::to_value(table).map_err(|error| error.to_string())?;
    let schema = reference::schema();
    fits(&value, &schema, &schema)
}

#[test]
fn the_schema_accepts_what_a_load_accepts() {
    assert_eq!(check(&etc("locum.toml")), Ok(()));
    let mut accepted = 0;
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folders =
        ["tests/cases", "tests/data", "../../etc/examples"].map(|folder| package.join(folder));
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a folder"));
    for entry in entries {
        let path = entry.expect("readable").path();
        let (Some("toml"), Ok(text)) =
            (path.extension().and_then(|end| end.to_str()), std::fs::read_to_string(&path))
        else {
            continue;
        };
        let source = locum_config::MemorySource::new().with("file", text.clone());
        let loaded = locum_config::load(&source, "file", &locum_config::Context::host("lb1"));
        if loaded.plan.is_some() {
            accepted += 1;
            let text = text.trim_start_matches('\u{feff}');
            assert_eq!(check(text), Ok(()), "{}", path.display());
        }
    }
    assert!(accepted >= 4, "only {accepted} cases load");
}

#[test]
fn the_schema_refuses_what_no_row_has() {
    let instance = |line: &str| {
        format!("[[instance]]\nname = \"a\"\ninterface = \"e\"\nvrid = 1\naddresses = []\n{line}\n")
    };
    assert_eq!(check(&instance("priority = { a = 1, b = 255 }")), Ok(()));
    for line in ["priority = 256", "colour = 1", "profile = \"lenient\"", "announce = { x = 1 }"] {
        assert!(check(&instance(line)).is_err(), "{line}");
    }
}
