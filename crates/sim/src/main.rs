//! `locum-sim`: run seeds, or replay one with its trace.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use locum_sim::{Plant, Report, Trace, run};

/// Lines before a violation that show how it came about.
const TAIL: usize = 60;

/// Run the engine on simulated nodes and judge it after every event.
#[derive(Parser)]
#[command(name = "locum-sim", version)]
struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 256)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event.
    #[arg(long)]
    trace: bool,
    /// Put a fault around the engine that an invariant has to find.
    #[arg(long)]
    plant: Option<Plant>,
    /// Go on after a seed that breaks a rule, one line for each.
    #[arg(long)]
    all: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let plant = options.plant;
    let seeds = match options.seed {
        Some(seed) => seed..seed.saturating_add(1),
        None => options.first..options.first.saturating_add(options.seeds),
    };
    let (mut ran, mut broken, mut happenings) = (0_u64, 0_u64, 0_u64);
    for seed in seeds {
        let trace = if options.trace { Trace::Kept(Vec::new()) } else { Trace::Off };
        let report = run(seed, plant, trace);
        ran += 1;
        happenings += report.happenings;
        print_lines(report.trace.lines());
        let Some(violation) = &report.violation else { continue };
        broken += 1;
        println!("seed {seed}: {violation}");
        if !options.all {
            if !options.trace {
                print_tail(&run(seed, plant, Trace::Kept(Vec::new())));
            }
            let plant = plant.and_then(|plant| plant.to_possible_value());
            let plant = plant.map(|p| format!(" --plant {}", p.get_name())).unwrap_or_default();
            println!("replay: locum-sim --seed {seed} --trace{plant}");
            break;
        }
    }
    println!("{ran} seeds, {happenings} events, {broken} broken");
    if broken > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn print_tail(report: &Report) {
    let lines = report.trace.lines();
    print_lines(&lines[lines.len().saturating_sub(TAIL)..]);
}

/// A reader that has seen enough, as `head` has, ends the printing and nothing else.
fn print_lines(lines: &[String]) {
    let mut out = std::io::stdout().lock();
    for line in lines {
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
}
