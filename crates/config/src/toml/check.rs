//! `[check.NAME]`, and the spelling of commands and weights.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ::toml::de::DeValue;

use crate::defaults;
use crate::span::{At, Span};
use crate::toml::keys::{self, Key};
use crate::toml::reader::{Reader, Table, Value};
use crate::values;
use crate::wish::{CheckWish, Field};
use locum_plan::{Command, CommandLine, ProbeKind, StatusRange, Weight};

pub(super) fn read(reader: &mut Reader<'_>, table: &Table<'_, '_>, name: At<String>) -> CheckWish {
    CheckWish {
        span: name.span,
        probe: probe(reader, table),
        interval: reader.optional(table, "interval", Reader::duration),
        timeout: reader.optional(table, "timeout", Reader::duration),
        rise: reader.optional(table, "rise", Reader::count),
        fall: reader.optional(table, "fall", Reader::count),
        weight: reader.optional(table, "weight", weight),
        starts_failed: reader.optional(table, "starts_failed", Reader::boolean),
        name,
    }
}

/// Exactly one of the five kinds.
fn probe(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Field<ProbeKind> {
    let host = reader.optional(table, "host", host);
    let expect = reader.optional(table, "expect", expect);
    let user = reader.optional(table, "user", Reader::text);
    let group = reader.optional(table, "group", Reader::text);
    let as_user = |line: CommandLine| Command {
        line,
        user: user.as_ref().map(|at| at.value.clone()),
        group: group.as_ref().map(|at| at.value.clone()),
    };
    let kinds: [(&str, Field<ProbeKind>); 5] = [
        (
            "script",
            mapped(reader.field(table, "script", argv), |line| ProbeKind::Script(as_user(line))),
        ),
        (
            "shell",
            mapped(reader.field(table, "shell", shell), |line| ProbeKind::Script(as_user(line))),
        ),
        (
            "process",
            mapped(reader.field(table, "process", process), |name| ProbeKind::Process { name }),
        ),
        ("tcp", mapped(reader.field(table, "tcp", target), |target| ProbeKind::Tcp { target })),
        (
            "http",
            mapped(reader.field(table, "http", url), |url| ProbeKind::Http {
                target: url.target,
                path: url.path,
                host: host.as_ref().map(|at| at.value.clone()).or(url.host),
                expect: expect.as_ref().map_or_else(success, |at| at.value.clone()),
            }),
        ),
    ];
    let mut written = kinds.into_iter().filter(|(_, field)| !field.is_absent());
    let Some((kind, field)) = written.next() else { return Field::Absent };
    if let Some((other, _)) = written.next() {
        let text = format!("a check asks one thing: `{kind}` or `{other}`, not both");
        reader.report.error(table.span, "two-probes", text);
        return Field::Bad;
    }
    let is_http = kind == "http";
    let is_command = kind == "script" || kind == "shell";
    for (name, span, fits) in [
        ("host", host.as_ref().map(|at| at.span), is_http),
        ("expect", expect.as_ref().map(|at| at.span), is_http),
        ("user", user.as_ref().map(|at| at.span), is_command),
        ("group", group.as_ref().map(|at| at.span), is_command),
    ] {
        misplaced(reader, name, span.filter(|_| !fits), kind);
    }
    field
}

fn misplaced(reader: &mut Reader<'_>, name: &str, span: Option<Span>, kind: &str) {
    if let Some(span) = span {
        let text = format!("`{name}` means nothing beside `{kind}`");
        reader.report.error(span, "misplaced-key", text);
    }
}

fn mapped<T, U>(field: Field<T>, change: impl FnOnce(T) -> U) -> Field<U> {
    match field {
        Field::Absent => Field::Absent,
        Field::Bad => Field::Bad,
        Field::Given(at) => Field::Given(at.map(change)),
    }
}

pub(super) fn success() -> Vec<StatusRange> {
    let (first, last) = defaults::HTTP_SUCCESS;
    vec![StatusRange { first, last }]
}

fn process(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<String> {
    reader.parsed(value, key, |text| {
        if text.is_empty() || text.contains(['/', '\0']) {
            Err(format!("`{text}` is not the name of a process, as `ps -o comm` shows it"))
        } else {
            Ok(text.to_owned())
        }
    })
}

/// A program and its arguments, or a program alone.
fn argv(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<CommandLine> {
    if let DeValue::String(program) = value.get_ref() {
        let reason = if program.is_empty() {
            "the program is empty".to_owned()
        } else if program.contains(char::is_whitespace) {
            let words: Vec<String> =
                program.split_whitespace().map(|word| format!("{word:?}")).collect();
            format!("no shell splits this: write [{}]", words.join(", "))
        } else {
            return Some(CommandLine::Argv(vec![program.clone().into_owned()]));
        };
        reader.bad_value(value, key, &reason);
        return None;
    }
    let words = reader.each(value, key, |reader, item| reader.text(item, key))?;
    let words: Vec<String> = words.into_iter().map(|at| at.value).collect();
    if words.first().is_none_or(String::is_empty) {
        reader.bad_value(value, key, "the program is missing");
        return None;
    }
    if words.iter().any(|word| word.contains('\0')) {
        reader.bad_value(value, key, "an argument contains a zero octet");
        return None;
    }
    Some(CommandLine::Argv(words))
}

fn shell(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<CommandLine> {
    reader.parsed(value, key, |text| {
        if text.trim().is_empty() || text.contains('\0') {
            Err("the line is empty".to_owned())
        } else {
            Ok(CommandLine::Shell(text.to_owned()))
        }
    })
}

/// A list of hooks: programs, word lists, or tables with a user. One program may stand alone.
pub(super) fn commands(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: &'static Key,
) -> Option<Vec<At<Command>>> {
    match value.get_ref() {
        DeValue::String(_) | DeValue::Table(_) => {
            let span = reader.span(value.span());
            command(reader, value, key).map(|command| vec![At::new(command, span)])
        }
        _other => reader.each(value, key, |reader, item| command(reader, item, key)),
    }
}

fn command(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<Command> {
    if !matches!(value.get_ref(), DeValue::Table(_)) {
        let line = argv(reader, value, key)?;
        return Some(Command { line, user: None, group: None });
    }
    let table = reader.open_value(value, &keys::COMMAND, key.name, key.shape)?;
    let script = reader.field(&table, "script", argv);
    let line = reader.field(&table, "shell", shell);
    let user = reader.optional(&table, "user", Reader::text);
    let group = reader.optional(&table, "group", Reader::text);
    if script.is_absent() == line.is_absent() {
        let text = "a command has either `script` or `shell`";
        reader.report.error(table.span, "bad-command", text);
        return None;
    }
    Some(Command {
        line: script.into_given().or(line.into_given())?.value,
        user: user.map(|at| at.value),
        group: group.map(|at| at.value),
    })
}

/// Largest weight: 254 less 1, so that it moves a priority across the whole range.
const MAX_WEIGHT: i64 = 253;

/// `-10`, or `{ value = 10, reverse = true }`.
pub(super) fn weight(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: &'static Key,
) -> Option<Weight> {
    let number = |reader: &mut Reader<'_>, value: &Value<'_>, key| {
        let number = reader.integer(value, key, -MAX_WEIGHT..=MAX_WEIGHT)?;
        i16::try_from(number).ok()
    };
    if !matches!(value.get_ref(), DeValue::Table(_)) {
        return number(reader, value, key).map(|value| Weight { value, reverse: false });
    }
    let table = reader.open_value(value, &keys::WEIGHTS, key.name, key.shape)?;
    let amount = reader.field(&table, "value", number);
    if amount.is_absent() {
        reader.report.error(table.span, "missing-key", "a weight has no `value`");
    }
    let reverse = reader.field(&table, "reverse", Reader::boolean);
    Some(Weight { value: *amount.value()?, reverse: reverse.value().copied().unwrap_or(false) })
}

fn target(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<SocketAddr> {
    reader.parsed(value, key, socket)
}

/// Address and port. Names are not looked up: a check must not wait for a resolver.
fn socket(text: &str) -> Result<SocketAddr, String> {
    let target = match text.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(|port| (Ipv4Addr::LOCALHOST, port).into()),
        None => text.parse::<SocketAddr>().ok(),
    };
    match target {
        Some(target) if target.port() != 0 => Ok(target),
        _ => Err(format!("`{text}` is not an IP address with a port")),
    }
}

struct Url {
    target: SocketAddr,
    path: String,
    host: Option<String>,
}

fn url(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<Url> {
    reader.parsed(value, key, parse_url)
}

fn parse_url(text: &str) -> Result<Url, String> {
    if text.starts_with("https://") {
        return Err("a check of https is not available: use a script with curl".to_owned());
    }
    let rest = text
        .strip_prefix("http://")
        .ok_or_else(|| format!("`{text}` does not begin with http://"))?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let target = socket(authority).or_else(|reason| {
        let bare = authority.trim_start_matches('[').trim_end_matches(']');
        let address = if bare == "localhost" {
            Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
        } else {
            bare.parse::<IpAddr>().ok()
        };
        address.map(|address| SocketAddr::new(address, 80)).ok_or(reason)
    })?;
    let host = authority.starts_with("localhost").then(|| authority.to_owned());
    Ok(Url { target, path: values::http_path(path)?, host })
}

pub(super) fn host(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: &'static Key,
) -> Option<String> {
    reader.parsed(value, key, values::http_host)
}

/// `200`, `"200-299"`, or a list of them.
pub(super) fn expect(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: &'static Key,
) -> Option<Vec<StatusRange>> {
    if !matches!(value.get_ref(), DeValue::Array(_)) {
        return status(reader, value, key).map(|range| vec![range]);
    }
    let ranges = reader.each(value, key, |reader, item| status(reader, item, key))?;
    if ranges.is_empty() {
        reader.bad_value(value, key, "the list is empty: nothing would be a success");
        return None;
    }
    Some(ranges.into_iter().map(|at| at.value).collect())
}

fn status(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<StatusRange> {
    if let DeValue::Integer(_) = value.get_ref() {
        let code = u16::try_from(reader.integer(value, key, 100..=599)?).ok()?;
        return Some(StatusRange { first: code, last: code });
    }
    reader.parsed(value, key, values::status_range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_an_address_and_defaults_to_port_80() {
        let parsed = |text: &str| parse_url(text).map(|url| (url.target.to_string(), url.path));
        let ok = |target: &str, path: &str| Ok((target.to_owned(), path.to_owned()));
        assert_eq!(parsed("http://127.0.0.1:8080/health"), ok("127.0.0.1:8080", "/health"));
        assert_eq!(parsed("http://127.0.0.1"), ok("127.0.0.1:80", "/"));
        assert_eq!(parsed("http://[::1]/x?y=1"), ok("[::1]:80", "/x?y=1"));
        assert_eq!(parsed("http://localhost/health"), ok("127.0.0.1:80", "/health"));
        assert_eq!(parsed("http://localhost:81"), ok("127.0.0.1:81", "/"));
        assert!(parsed("https://127.0.0.1/").is_err());
        assert!(parsed("http://example.com/").is_err());
        assert!(parsed("http://127.0.0.1/a b").is_err());
    }
}
