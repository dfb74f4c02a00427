//! The seeds of the ordinary tests, and the faults that they must find.

use clap::ValueEnum;
use locum_sim::{Plant, RULES, Trace, run};

/// Enough to meet every kind of fault many times, and few enough for every build.
const SEEDS: u64 = 512;

#[test]
fn a_seed_has_one_history() {
    for seed in 0..16 {
        let once = run(seed, None, Trace::Kept(Vec::new())).trace;
        let again = run(seed, None, Trace::Kept(Vec::new())).trace;
        assert_eq!(once.digest(), again.digest(), "seed {seed}");
    }
}

#[test]
fn seeds_differ() {
    let digest = |seed| run(seed, None, Trace::Kept(Vec::new())).trace.digest();
    assert_ne!(digest(1), digest(2));
}

/// A backup whose skew is cut to whole centiseconds takes over before its time (V-141).
#[test]
fn a_truncated_skew_is_found() {
    assert_found(Plant::Skew);
}

/// An address is announced before it is there (G-020).
#[test]
fn an_early_announcement_is_found() {
    assert_found(Plant::AnnounceEarly);
}

/// A master that resigns leaves nobody with the addresses (V-240).
#[test]
fn a_resignation_without_hold_is_found() {
    assert_found(Plant::NoHold);
}

/// No rule is there that cannot break.
#[test]
fn every_rule_has_a_planted_fault() {
    let found = |rule: &&&str| Plant::value_variants().iter().any(|plant| plant.rule() == **rule);
    let (_, untried): (Vec<&str>, Vec<&str>) = RULES.iter().partition(found);
    assert!(untried.is_empty(), "{untried:?}");
}

#[test]
fn every_planted_fault_is_found_by_the_rule_for_it() {
    let hidden: Vec<String> =
        Plant::value_variants().iter().filter_map(|plant| hides(*plant)).collect();
    assert!(hidden.is_empty(), "{}", hidden.join("\n"));
}

fn assert_found(plant: Plant) {
    assert_eq!(hides(plant), None);
}

/// `None` when some seed breaks the plant's rule with it, and none without it.
fn hides(plant: Plant) -> Option<String> {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        let Some(violation) = run(seed, Some(plant), Trace::Off).violation else { continue };
        if violation.rule == plant.rule() && run(seed, None, Trace::Off).violation.is_none() {
            return None;
        }
        others.push(violation.rule);
    }
    others.sort_unstable();
    others.dedup();
    Some(format!("{plant:?} hides from {SEEDS} seeds; rules it broke: {others:?}"))
}
