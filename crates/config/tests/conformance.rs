//! Every file in `tests/cases` yields exactly the findings written beside it.

// Cases are files; only the library itself reads none.
#![allow(clippy::disallowed_methods)]

mod support;

use std::collections::HashSet;

use locum_config::reference;

#[test]
fn every_case_yields_the_findings_written_down() {
    let mut wrong = Vec::new();
    let cases = support::cases();
    assert!(cases.len() >= 20, "only {} cases found", cases.len());
    for case in cases {
        let expected = std::fs::read_to_string(support::expected(&case)).unwrap_or_default();
        let actual = support::outcome(&case);
        if actual != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- actual\n{actual}", case.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nif this is meant: cargo run -p locum-config --example bless",
        wrong.join("\n")
    );
}

/// A finding about a keepalived.conf names no key and no table of ours.
#[test]
fn findings_about_a_keepalived_file_are_in_its_words() {
    let page = reference::page();
    let quoted = |text: &str| -> Vec<String> {
        text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let lines = page.lines().filter(|line| line.starts_with("- keepalived.conf:"));
    let keywords: HashSet<String> = lines.flat_map(quoted).collect();
    let keys: HashSet<&str> = reference::paths().into_iter().map(|(_, key)| key).collect();
    assert!(keywords.contains("virtual_ipaddress") && keys.contains("addresses"));
    let mut wrong = Vec::new();
    for case in support::cases() {
        if case.extension().is_some_and(|end| end == "toml") {
            continue;
        }
        let outcome = support::outcome(&case);
        // Words of the file itself are its own: an address has a `label` in both languages.
        let file = std::fs::read(&case).expect("a readable case");
        let file = String::from_utf8_lossy(&file).into_owned();
        let is_ours = |line: &str| {
            let mut words = quoted(line).into_iter();
            let is_key = |word: &str| {
                keys.contains(word) && !keywords.contains(word) && !file.contains(word)
            };
            line.contains(" = \"") || line.contains("[[") || words.any(|word| is_key(&word))
        };
        let findings = outcome.lines().filter(|line| line.contains(": ") && !line.contains(" | "));
        wrong.extend(findings.filter(|line| is_ours(line)).map(str::to_owned));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
