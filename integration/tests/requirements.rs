//! Which test covers a requirement of the specification, or why none does: `data/requirements.txt`
//! against the tests of the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use locum_integration::require;

/// What one line of the ledger says.
struct Requirement {
    /// MUST or SHOULD.
    is_due: bool,
    /// Why no test names it.
    note: Option<String>,
}

fn ledger() -> BTreeMap<String, Requirement> {
    let file = require::workspace().join("integration/data/requirements.txt");
    let text = fs::read_to_string(file).expect("the ledger");
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (head, note) = match line.split_once(" | ") {
            Some((head, note)) => (head, Some(note.to_owned())),
            None => (line, None),
        };
        let (id, level) = head.split_once(' ').expect("an id and a level");
        let is_due = match level {
            "MUST" | "SHOULD" => true,
            "MAY" | "NOTE" => false,
            other => panic!("{id}: {other} is no level"),
        };
        let twice = all.insert(id.to_owned(), Requirement { is_due, note });
        assert!(twice.is_none(), "{id} is listed twice");
    }
    all
}

/// Every Rust file below.
fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// The part of a file that is test: all of it in a folder or a file of tests, else what follows
/// the attribute.
fn test_text(path: &Path, text: &str) -> String {
    let is_test = path.components().any(|part| part.as_os_str() == "tests")
        || path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
    let from = if is_test { Some(0) } else { text.find("#[cfg(test)]") };
    from.map_or(String::new(), |from| text[from..].to_owned())
}

/// `V-051` and `v_051`, and all from the first to the second of `V-100..V-121`.
fn named(text: &str) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut last: Option<(usize, String)> = None;
    for (at, _) in text.match_indices(['V', 'G', 'v', 'g']) {
        let Some(id) = id_at(text, at) else { continue };
        if let Some((end, first)) = &last
            && matches!(text.get(*end..at), Some(".." | " to "))
            && first[..1] == id[..1]
        {
            let number = |id: &str| id[2..].parse::<u16>().expect("three digits");
            let all = number(first)..=number(&id);
            ids.extend(all.map(|number| format!("{}-{number:03}", &id[..1])));
        }
        last = Some((at + id.len(), id.clone()));
        ids.insert(id);
    }
    ids
}

fn id_at(text: &str, at: usize) -> Option<String> {
    let bytes = text.as_bytes();
    let before = at.checked_sub(1).and_then(|at| bytes.get(at));
    let id = bytes.get(at..at + 5)?;
    let begins = before.is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-');
    let ends = bytes.get(at + 5).is_none_or(|byte| !byte.is_ascii_digit());
    let digits = id[2..].iter().all(u8::is_ascii_digit);
    let joint = if id[0].is_ascii_uppercase() { b'-' } else { b'_' };
    if !begins || !ends || !digits || id[1] != joint {
        return None;
    }
    let number = std::str::from_utf8(&id[2..]).ok()?;
    Some(format!("{}-{number}", char::from(id[0].to_ascii_uppercase())))
}

#[test]
fn every_must_is_named_by_a_test_or_has_a_reason() {
    let mut files = Vec::new();
    for directory in ["crates", "integration"] {
        rust_files(&require::workspace().join(directory), &mut files);
    }
    let mut tested: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in files.iter().filter(|path| !path.ends_with("requirements.rs")) {
        let text = fs::read_to_string(path).unwrap_or_default();
        for id in named(&test_text(path, &text)) {
            tested.entry(id).or_insert_with(|| path.clone());
        }
    }
    let ledger = ledger();
    let mut faults = Vec::new();
    for (id, requirement) in &ledger {
        match (&requirement.note, tested.get(id)) {
            (None, None) if requirement.is_due => {
                faults.push(format!("{id}: no test names it, and the ledger has no reason"));
            }
            (Some(note), Some(path)) => {
                faults.push(format!("{id}: {} names it, beside \"{note}\"", path.display()));
            }
            (None, None) | (None, Some(_)) | (Some(_), None) => {}
        }
    }
    let strangers = tested.iter().filter(|(id, _)| !ledger.contains_key(*id));
    faults.extend(strangers.map(|(id, path)| format!("{id}: {} invents it", path.display())));
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn ids_are_found_alone_in_names_and_in_ranges() {
    let found: Vec<String> =
        named("V-051, fn v_059_is, G-001..G-003 V3-4-01 V-10 xV-060").into_iter().collect();
    assert_eq!(found, ["G-001", "G-002", "G-003", "V-051", "V-059"]);
}
