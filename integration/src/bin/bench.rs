//! The promised numbers, ours beside keepalived's in one run: `scripts/bench SUBCOMMAND`.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("usage: locum-bench handover|failover|crash|election [--runs N]");
    ExitCode::from(2)
}
