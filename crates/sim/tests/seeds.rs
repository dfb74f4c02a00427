//! The seeds of the ordinary tests, and the faults that they must find.

use locum_sim::{Plant, Trace, run};

/// Enough to meet every kind of fault many times, and few enough for every build.
const SEEDS: u64 = 256;

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
    assert_found(Plant::Skew, &["timer"]);
}

/// An address is announced before it is there (G-020).
#[test]
fn an_early_announcement_is_found() {
    assert_found(Plant::AnnounceEarly, &["announce"]);
}

/// A master that resigns leaves nobody with the addresses (V-240).
#[test]
fn a_resignation_without_hold_is_found() {
    assert_found(Plant::NoHold, &["handover"]);
}

/// Some seed breaks one of `rules` with the plant and none without it.
fn assert_found(plant: Plant, rules: &[&str]) {
    let found = (0..SEEDS).find(|seed| {
        let with = run(*seed, Some(plant), Trace::Off).violation;
        with.is_some_and(|violation| rules.contains(&violation.rule))
            && run(*seed, None, Trace::Off).violation.is_none()
    });
    assert!(found.is_some(), "{plant:?} hides from {SEEDS} seeds");
}
