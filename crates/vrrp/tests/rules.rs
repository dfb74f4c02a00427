//! Rules of the state machine that need more than one event: candidates, fitness, patience, owners,
//! reception, strict profile, reports.

#[path = "rules/bench.rs"]
mod bench;
#[path = "rules/candidates.rs"]
mod candidates;
#[path = "rules/fitness.rs"]
mod fitness;
#[path = "rules/held_back.rs"]
mod held_back;
#[path = "rules/owners.rs"]
mod owners;
#[path = "rules/profiles.rs"]
mod profiles;
#[path = "rules/receive.rs"]
mod receive;
#[path = "rules/report.rs"]
mod report;
