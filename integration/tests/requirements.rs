//! The specifications against the code: which test covers a requirement, or why none does
//! (`data/requirements.txt`), and that nobody follows a requirement that is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use locum_integration::require;

/// The election and the announcements. Each MUST and SHOULD has a test or a reason.
const SPECIFICATION: &str = "crates/vrrp/SPEC.md";

/// IPVS; read for its identifiers only.
const OTHERS: [&str; 1] = ["crates/kernel/IPVS.md"];

fn read(file: &str) -> String {
    let path = require::workspace().join(file);
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Each requirement of a specification, and whether it is a MUST or a SHOULD. It is one line,
/// `- V-001 MUST …`, or one row of a table, `| V-100 | …`, which is a MUST.
fn requirements(text: &str) -> BTreeMap<String, bool> {
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let entry = match (line.strip_prefix("- "), line.strip_prefix("| ")) {
            (Some(rule), _) => rule.split_once(' ').map(|(id, rest)| (id, rest.split(' ').next())),
            (None, Some(row)) => row.split_once(" |").map(|(id, _)| (id, Some("MUST"))),
            (None, None) => None,
        };
        let Some((id, level)) = entry.filter(|(id, _)| id_at(id, 0).is_some()) else { continue };
        let is_due = match level {
            Some("MUST" | "SHOULD") => true,
            Some("MAY" | "NOTE") => false,
            other => panic!("{id}: {other:?} is no level"),
        };
        assert!(all.insert(id.to_owned(), is_due).is_none(), "{id} stands there twice");
    }
    all
}

/// Why no test names a requirement.
fn reasons() -> BTreeMap<String, String> {
    let text = read("integration/data/requirements.txt");
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (id, reason) = line.split_once(" | ").expect("an id and a reason");
        let twice = all.insert(id.to_owned(), reason.to_owned());
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

/// As [`named`], without what lies within a range: a specification has gaps.
fn named_alone(text: &str) -> BTreeSet<String> {
    text.match_indices(['V', 'G', 'I']).filter_map(|(at, _)| id_at(text, at)).collect()
}

/// `V-051` and `v_051`, and all from the first to the second of `V-100..V-121`.
fn named(text: &str) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut last: Option<(usize, String)> = None;
    for (at, _) in text.match_indices(['V', 'G', 'I', 'v', 'g']) {
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

/// Every Rust file but this one, whose examples are no requirements.
fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for directory in ["crates", "integration"] {
        rust_files(&require::workspace().join(directory), &mut files);
    }
    files.retain(|path| !path.ends_with("requirements.rs"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_default();
        (path, text)
    };
    files.into_iter().map(read).collect()
}

#[test]
fn every_must_is_named_by_a_test_or_has_a_reason() {
    let mut tested: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (path, text) in sources() {
        for id in named(&test_text(&path, &text)) {
            tested.entry(id).or_insert_with(|| path.clone());
        }
    }
    let requirements = requirements(&read(SPECIFICATION));
    assert!(requirements.len() > 200, "only {} requirements are found", requirements.len());
    let reasons = reasons();
    let mut faults = Vec::new();
    for (id, is_due) in &requirements {
        match (reasons.get(id), tested.get(id)) {
            (None, None) if *is_due => {
                faults.push(format!("{id}: no test names it, and there is no reason"));
            }
            (Some(reason), Some(path)) => {
                faults.push(format!("{id}: {} names it, beside \"{reason}\"", path.display()));
            }
            (None, None) | (None, Some(_)) | (Some(_), None) => {}
        }
    }
    let strangers = reasons.keys().filter(|id| !requirements.contains_key(*id));
    faults.extend(strangers.map(|id| format!("{id}: a reason for no requirement")));
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// A reference that points nowhere helps nobody who wants to know why the code is as it is.
#[test]
fn code_names_no_requirement_that_no_specification_has() {
    let specifications = [SPECIFICATION].into_iter().chain(OTHERS);
    let known: BTreeSet<String> =
        specifications.flat_map(|file| requirements(&read(file)).into_keys()).collect();
    let mut faults = Vec::new();
    for (path, text) in sources() {
        for id in named(&text).difference(&known) {
            faults.push(format!("{}: {id} is in no specification", path.display()));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// A document of ours that names a requirement names one that is there.
#[test]
fn specifications_refer_to_requirements_that_are_there() {
    let texts: Vec<String> = [SPECIFICATION].into_iter().chain(OTHERS).map(read).collect();
    let known: BTreeSet<String> =
        texts.iter().flat_map(|text| requirements(text).into_keys()).collect();
    let missing: Vec<String> =
        texts.iter().flat_map(|text| named_alone(text)).filter(|id| !known.contains(id)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn requirements_are_lines_and_rows() {
    let text =
        "- V-001 MUST a\n  V-002 MUST b\n| V-100 | IP | c |\n- G-005 NOTE d\n- MUST e\n| ID |";
    let found: Vec<_> = requirements(text).into_iter().collect();
    let expected = [("G-005", false), ("V-001", true), ("V-100", true)];
    assert_eq!(found, expected.map(|(id, is_due)| (id.to_owned(), is_due)));
}

#[test]
fn ids_are_found_alone_in_names_and_in_ranges() {
    let found: Vec<String> =
        named("V-051, fn v_059_is, G-001..G-003 V3-4-01 V-10 xV-060").into_iter().collect();
    assert_eq!(found, ["G-001", "G-002", "G-003", "V-051", "V-059"]);
}
