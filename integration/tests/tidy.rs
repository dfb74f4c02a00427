//! What the eye should not have to check: lengths, headers, leftovers, purity, words, circles.

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/words.rs"]
mod words;

use std::fs;

use locum_integration::require;

use source::{files, text};

/// Longest Rust file, in lines: more than one idea hides in a longer one.
const LONGEST: usize = 800;

/// Words of unfinished work, in halves so that this file does not hold them.
const LEFTOVERS: [(&str, &str); 5] =
    [("TO", "DO"), ("FIX", "ME"), ("XX", "X:"), ("#[ig", "nore"), ("db", "g!(")];

/// Paths of the machine something was written on.
const MACHINE_PATHS: [(&str, &str); 3] = [("/wo", "rk/"), ("/ho", "me/"), ("/ro", "ot/")];

/// What the pure ring must not name, with the reason.
const IMPURE: [(&str, &str); 9] = [
    ("Instant", "time comes in as an argument"),
    ("SystemTime", "time comes in as an argument"),
    ("UdpSocket", "packets come in as inputs"),
    ("TcpStream", "packets come in as inputs"),
    ("std::fs", "text comes in as an argument"),
    ("std::thread", "state has one owner"),
    ("std::env", "the environment comes in as an argument"),
    ("rand::", "chance comes in as an argument"),
    ("tracing::", "a decision leaves as an output"),
];

const PURE: [&str; 4] =
    ["crates/vrrp/src", "crates/plan/src", "crates/config/src", "crates/engine/src"];

/// Says everything that is wrong at once.
fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_rust_file_is_short_and_says_what_it_owns() {
    let mut faults = Vec::new();
    for path in files("", &["rs"]) {
        let text = text(&path);
        let lines = text.lines().count();
        if lines > LONGEST {
            faults.push(format!("{}: {lines} lines, at most {LONGEST}", path.display()));
        }
        if !text.starts_with("//!") {
            faults.push(format!("{}: does not begin with //!", path.display()));
        }
    }
    report(&faults);
}

#[test]
fn nothing_is_left_unfinished_and_no_machine_is_named() {
    let mut faults = Vec::new();
    for path in files("", &["rs", "md", "toml"]) {
        for (number, line) in text(&path).lines().enumerate() {
            let words = LEFTOVERS.iter().chain(&MACHINE_PATHS).map(|(a, b)| format!("{a}{b}"));
            for word in words.filter(|word| line.contains(word)) {
                faults.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    report(&faults);
}

#[test]
fn pure_ring_names_no_clock_socket_file_thread_or_log() {
    let mut faults = Vec::new();
    for directory in PURE {
        for path in files(directory, &["rs"]) {
            let text = text(&path);
            // Comments may speak of what the code must not do.
            let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
            for (number, line) in code.enumerate() {
                let words = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
                for word in words {
                    let hit = IMPURE.iter().find(|(banned, _)| {
                        word == *banned
                            || word.rsplit("::").next() == Some(banned)
                            || banned.contains("::") && word.starts_with(banned)
                    });
                    if let Some((_, reason)) = hit {
                        let place = format!("{}:{}", path.display(), number + 1);
                        faults.push(format!("{place}: {word}: {reason}"));
                    }
                }
            }
        }
    }
    report(&faults);
}

#[test]
fn documents_that_a_reader_looks_for_are_there() {
    for name in [
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "crates/ARCHITECTURE.md",
        "crates/CHANGELOG.md",
        "crates/GLOSSARY.md",
        "crates/vrrp/SPEC.md",
        "crates/kernel/IPVS.md",
    ] {
        assert!(require::workspace().join(name).is_file(), "{name} is missing");
    }
}

#[test]
fn scripts_stop_at_the_first_error() {
    let directory = require::workspace().join("scripts");
    for entry in fs::read_dir(directory).expect("scripts").flatten() {
        let text = text(&entry.path());
        assert!(text.starts_with("#!/usr/bin/env bash\n"), "{}", entry.path().display());
        assert!(text.contains("\nset -euo pipefail\n"), "{}", entry.path().display());
    }
}
