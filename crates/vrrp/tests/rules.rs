//! Rules of the state machine that need more than one event: owners, reception, strict
//! profile, reports.

#[path = "rules/bench.rs"]
mod bench;
#[path = "rules/owners.rs"]
mod owners;
#[path = "rules/profiles.rs"]
mod profiles;
#[path = "rules/receive.rs"]
mod receive;
#[path = "rules/report.rs"]
mod report;
