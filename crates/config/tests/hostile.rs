//! Bad text is answered with findings, never with a panic, and never with a plan beside an error.

// Cases are files; only the library itself reads none.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;

use locum_config::{Context, MemorySource, load};

/// Every example and every conformance case.
fn examples() -> Vec<Vec<u8>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folders = ["tests/cases", "tests/data", "tests/data/seed", "../../etc"];
    let mut paths: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).expect("a folder of examples"))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml" || end == "conf"))
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a readable example")).collect()
}

/// Loads and holds the loader to its contract.
fn survive(text: &[u8]) {
    let source = MemorySource::new().with("x", text).with("included/good.conf", "x");
    let loaded = load(&source, "x", &Context::host("lb1"));
    assert_eq!(loaded.plan.is_some(), !loaded.diagnostics.has_errors());
    let printed = loaded.diagnostics.to_string();
    assert!(printed.lines().all(|line| line.chars().count() < 2000), "{printed}");
}

/// A small generator with a fixed seed (xorshift), so that a failure comes back.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

#[test]
fn no_truncation_of_an_example_panics() {
    for text in examples() {
        for end in 0..text.len() {
            survive(&text[..end]);
        }
    }
}

#[test]
fn no_mutation_of_an_example_panics() {
    let mut dice = Dice(0x5eed_1234_abcd_0001);
    let spice = b"{}[]\"'\\\n=#!$@~,.:/-0129 \t\0\xff\xc3(";
    for text in examples().iter().filter(|text| !text.is_empty()) {
        for _ in 0..400 {
            let mut mutant = text.clone();
            for _ in 0..1 + dice.below(4) {
                let at = dice.below(mutant.len());
                match dice.below(4) {
                    0 => mutant[at] = spice[dice.below(spice.len())],
                    1 => mutant.insert(at, spice[dice.below(spice.len())]),
                    2 => drop(mutant.drain(at..(at + dice.below(20)).min(mutant.len()))),
                    _ => {
                        let end = (at + dice.below(60)).min(mutant.len());
                        let piece = mutant[at..end].to_vec();
                        let to = dice.below(mutant.len());
                        mutant.splice(to..to, piece);
                    }
                }
                if mutant.is_empty() {
                    break;
                }
            }
            survive(&mutant);
        }
    }
}

#[test]
fn deep_nesting_and_endless_expansion_are_refused_in_bounded_time() {
    survive("a {\n".repeat(100_000).as_bytes());
    survive("}\n".repeat(100_000).as_bytes());
    survive(format!("x = {}", "[".repeat(100_000)).as_bytes());
    let mut bomb = String::from("$A0=xxxxxxxxxx\n");
    for level in 1..30 {
        let previous = level - 1;
        bomb += &format!("$A{level}=${{A{previous}}}${{A{previous}}}${{A{previous}}}\n");
    }
    bomb += "vrrp_instance ${A29} {\n}\n";
    survive(bomb.as_bytes());
    survive(format!("include {}\n", "{a,b}".repeat(40)).as_bytes());
}
