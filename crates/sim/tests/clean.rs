//! The engine that ships breaks no rule in any of the ordinary seeds.

use locum_sim::{Trace, run};

/// Enough to meet every kind of fault many times, and few enough for every build.
const SEEDS: u64 = 256;

#[test]
fn every_seed_keeps_every_rule() {
    let broken: Vec<String> = (0..SEEDS)
        .filter_map(|seed| {
            let violation = run(seed, None, Trace::Off).violation?;
            Some(format!("seed {seed}: {violation}; replay: locum-sim --seed {seed} --trace"))
        })
        .collect();
    assert!(broken.is_empty(), "{} of {SEEDS} seeds:\n{}", broken.len(), broken.join("\n"));
}
