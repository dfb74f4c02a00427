//! The promised numbers, ours beside keepalived's in one run: `scripts/bench SUBCOMMAND`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::Subcommand;
use locum_integration::bench;
use locum_integration::bench::fleet::Size;

/// Measures what is promised, beside keepalived.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Probes lost in planned handovers
    Handover {
        #[arg(long, default_value_t = 20)]
        runs: u32,
    },
    /// The longest silence when the master falls silent
    Failover {
        #[arg(long, default_value_t = 3)]
        runs: u32,
    },
    /// The daemon killed and started again, left dead, asleep
    Crash,
    /// Processor time, memory and lateness of adverts of many instances
    Election {
        /// Instances and advert interval, as 255x100ms
        #[arg(long, value_delimiter = ',', default_value = "255x100ms,1020x100ms,2040x1s,4080x1s")]
        sizes: Vec<Size>,
        /// How long each is measured
        #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
        period: Duration,
    },
    /// Many instances that become master at once
    Promotion {
        /// Instances and advert interval, as 2040x1s
        #[arg(long, value_delimiter = ',', default_value = "2040x1s,4080x1s")]
        sizes: Vec<Size>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !bench::CONTESTANTS.iter().all(|kinds| kinds.available()) {
        return ExitCode::from(2);
    }
    let met = match arguments.what {
        What::Handover { runs } => bench::handover::handover(runs),
        What::Failover { runs } => bench::handover::failover(runs),
        What::Crash => bench::crash::crash(),
        What::Election { sizes, period } => bench::election::election(&sizes, period),
        What::Promotion { sizes } => bench::promotion::promotion(&sizes),
    };
    println!("{}", if met { "promise kept" } else { "promise broken" });
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
