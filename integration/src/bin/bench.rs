//! The promised numbers, ours beside keepalived's in one run: `scripts/bench SUBCOMMAND`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::Subcommand;
use locum_integration::bench;
use locum_integration::bench::fleet::Size;
use locum_integration::bench::flood::Strength;
use locum_integration::bench::flood::Wrong;
use locum_integration::bench::soak::Course;

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
    /// New connections all the time, through handovers and the death of the master's host
    Service {
        /// Planned handovers of each kind
        #[arg(long, default_value_t = 20)]
        runs: u32,
        /// Deaths of the master's host
        #[arg(long, default_value_t = 3)]
        deaths: u32,
    },
    /// What serves on the master fails, and on both
    Fitness {
        /// Of each failure
        #[arg(long, default_value_t = 1)]
        runs: u32,
        /// Each on both directors for so long: how often the master is another
        #[arg(long, value_parser = humantime::parse_duration)]
        both_for: Option<Duration>,
    },
    /// Requests carried, beside HAProxy
    Balance {
        /// Turns of each under each load
        #[arg(long, default_value_t = 3)]
        turns: u32,
        /// How long a turn lasts
        #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
        period: Duration,
    },
    /// Tables of 1,000 services loaded in a guest, beside ipvsadm
    Ipvs,
    /// Full load while servers are killed, drained and added, with handovers
    Soak {
        #[arg(long = "for", default_value = "10m", value_parser = humantime::parse_duration)]
        lasts: Duration,
        /// One of: a server is killed, started, drained, ready, added, drained, removed
        #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
        change_every: Duration,
        #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
        handover_every: Duration,
    },
    /// Health checks of many servers, beside HAProxy
    Checks {
        #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
        servers: u32,
        /// How long each is measured
        #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
        period: Duration,
    },
    /// Bad adverts as fast as a machine can send them
    Flood {
        #[arg(
            long,
            value_delimiter = ',',
            value_enum,
            default_value = "checksum,vrid,version,auth,lower"
        )]
        kinds: Vec<Wrong>,
        /// Packets a second
        #[arg(long, default_value_t = 100_000)]
        rate: u32,
        /// How long each lasts
        #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
        period: Duration,
        /// Of the real adverts
        #[arg(long, default_value = "100ms", value_parser = humantime::parse_duration)]
        interval: Duration,
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
        What::Service { runs, deaths } => bench::service::service(runs, deaths),
        What::Fitness { runs, both_for } => bench::fitness::fitness(runs, both_for),
        What::Balance { turns, period } => bench::balance::balance(turns, period),
        What::Ipvs => bench::ipvs::ipvs(),
        What::Soak { lasts, change_every, handover_every } => {
            bench::soak::soak(Course { lasts, change_every, handover_every })
        }
        What::Checks { servers, period } => bench::checks::checks(servers, period),
        What::Flood { kinds, rate, period, interval } => {
            bench::flood::flood(&kinds, Strength { rate, period, interval })
        }
    };
    println!("{}", if met { "promise kept" } else { "promise broken" });
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
