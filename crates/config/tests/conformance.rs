//! Every file in `tests/cases` yields exactly the findings written beside it.

// Cases are files; only the library itself reads none.
#![allow(clippy::disallowed_methods)]

mod support;

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
