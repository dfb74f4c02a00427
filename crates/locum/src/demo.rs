//! `locum demo`: the main job in front of one's eyes, with nothing to prepare and nothing left
//! behind.
//!
//! ```text
//!   client ───┬─── front bridge, 192.0.2.0/24 ──────────┐
//!             │                                         │
//!          lb1: locum run                         lb2: locum run        virtual IP 192.0.2.10
//!             │                                         │
//!             └─── back bridge, 198.51.100.0/24 ──┬─────┴──┐
//!                                                srv1    srv2
//! ```
//!
//! Every machine is a network namespace of this process; the daemons are this very program. What is
//! promised is measured from the client, and the exit status says whether it was kept.
//!
//! | module | owns |
//! |---|---|
//! | [`sandbox`] | namespaces, and that nothing outlives the show |
//! | [`network`] | machines, cables and addresses |
//! | [`director`] | one daemon: its configuration, its life, what it says |
//! | [`series`] | requests and which of them were answered |
//! | [`traffic`] | the client's probes and requests, and those who answer them |
//! | [`stage`] | all of it together, watched |
//! | [`script`] | what happens, what is promised, what was measured |
//! | [`view`] | how it looks, on a terminal and as plain lines |

mod director;
mod network;
mod sandbox;
mod script;
mod series;
mod stage;
mod traffic;
mod view;

use std::process::ExitCode;

use clap::Args;
use clap::ValueEnum;

/// A promise was broken, or the show could not be given.
const EXIT_FAILURE: u8 = 1;

/// How the demonstration is shown.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Print one line per fact instead of a picture; for scripts and logs
    #[arg(long)]
    pub plain: bool,
    /// Which of the demonstration's own processes this is
    #[arg(long, value_enum, default_value_t = Part::Audience, hide = true)]
    part: Part,
}

/// The processes of the demonstration, each the parent of the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    /// What the user started: makes the namespaces and hands back the exit status.
    Audience,
    /// First process of the process namespace: collects orphans, and ends everything by ending.
    Init,
    /// Builds the network and plays the script.
    Stage,
}

/// Gives the demonstration. Must be called before the process has a second thread.
///
/// Exit status: 0 when everything promised happened, else 1.
pub fn run(options: &Options) -> ExitCode {
    let outcome = match options.part {
        Part::Audience => sandbox::give(options.plain),
        Part::Init => sandbox::init(options.plain),
        Part::Stage => script::play(options.plain),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            for line in error.lines() {
                eprintln!("locum demo: {line}");
            }
            ExitCode::from(EXIT_FAILURE)
        }
    }
}
