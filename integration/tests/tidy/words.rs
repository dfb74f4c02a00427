//! One word for one thing, and one thing for one word: `crates/GLOSSARY.md` enforced.

use std::collections::{BTreeMap, BTreeSet};

use crate::report;
use crate::source::{built_code, code, crate_of, files, text, words};

const GLOSSARY: &str = "crates/GLOSSARY.md";

/// Where a word must not stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Where {
    /// In identifiers and the names of files.
    Names,
    /// There, and in comments and messages.
    Anywhere,
}

/// A word, and what to say instead.
struct Banned {
    word: String,
    instead: String,
    place: Where,
}

/// The rows of the glossary's last table: `| not | but | where |`.
fn banned() -> Vec<Banned> {
    let text = text(&locum_integration::require::workspace().join(GLOSSARY));
    let (_, table) = text.split_once("| not | but | where |\n").expect("the table of banned words");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [word, instead, place] = cells[..] else { panic!("three cells: {line}") };
        let place = match place {
            "names" => Where::Names,
            "anywhere" => Where::Anywhere,
            other => panic!("{word}: {other} is no place"),
        };
        Banned { word: word.to_owned(), instead: instead.to_owned(), place }
    };
    rows.map(row).collect()
}

/// Every Rust file but these, which speak about words.
fn sources() -> impl Iterator<Item = (std::path::PathBuf, String)> {
    let all = files("", &["rs"]).into_iter();
    all.filter(|path| !path.components().any(|part| part.as_os_str() == "tidy"))
        .map(|path| (path.clone(), text(&path)))
}

#[test]
fn banned_words_are_used_by_nobody() {
    let banned = banned();
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let names = format!("{} {}", code(&text), stem.unwrap_or_default());
        let names: BTreeSet<String> = words(&names).into_iter().collect();
        let anywhere: BTreeSet<String> = words(&text).into_iter().collect();
        for Banned { word, instead, place } in &banned {
            let is_used = match place {
                Where::Names => names.contains(word),
                Where::Anywhere => names.contains(word) || anywhere.contains(word),
            };
            if is_used {
                faults.push(format!("{}: not \"{word}\" but {instead}", path.display()));
            }
        }
    }
    report(&faults);
}

/// One definition for each name over all crates. The simulator is left out: what it models has the
/// names of what is modelled.
#[test]
fn a_type_name_has_one_meaning() {
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files("crates", &["rs"]) {
        let holder = crate_of(&path);
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
        let is_built = path.components().any(|part| part.as_os_str() == "src") && !is_test;
        if holder == "sim" || !is_built {
            continue;
        }
        for name in types(&built_code(&text(&path))) {
            defined.entry(name).or_default().push(path.display().to_string());
        }
    }
    assert!(defined.len() > 300, "only {} types are found", defined.len());
    let several = defined.into_iter().filter(|(_, paths)| paths.len() > 1);
    let fault = |(name, paths): (String, Vec<String>)| {
        format!("{name}: one name for several types ({})", paths.join(", "))
    };
    report(&several.map(fault).collect::<Vec<_>>());
}

/// Names of the types that are defined outside functions and blocks.
fn types(code: &str) -> Vec<String> {
    let name = |line: &str| {
        let line = line.strip_prefix("pub").map_or(line, |rest| match rest.split_once(')') {
            Some((_, rest)) if rest.starts_with(' ') && line.starts_with("pub(") => rest,
            Some(_) | None => rest,
        });
        let (kind, rest) = line.trim_start().split_once(' ')?;
        let end = rest.find(|one: char| !one.is_alphanumeric()).unwrap_or(rest.len());
        let is_type = ["struct", "enum", "trait", "type", "union"].contains(&kind);
        is_type.then(|| rest[..end].to_owned())
    };
    code.lines().filter(|line| !line.starts_with(' ')).filter_map(name).collect()
}

#[test]
fn types_are_found_at_the_margin() {
    let code = "pub struct One;\npub(crate) enum Two {\n    type Three = u8;\n}\ntrait Four: Sized {\n\
                pub(in crate::five) type Six<'a> = &'a str;\npub fn structure() {}";
    assert_eq!(types(code), ["One", "Two", "Four", "Six"]);
}
