//! The `locum` command: the daemon and everything an operator says to it.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`] | words, defaults, help |
//! | [`commands`] | what each command but `run` does |
//! | [`daemon`] | `run`: the threads around the engine |
//! | [`demo`] | the local demonstration |
//! | [`configuration`], [`source`] | which file, read as which node |
//! | [`obstacles`] | what keeps a plan from being served here, as findings |
//! | [`terminal`] | what a person reads, free of orders to a terminal |
//! | [`text`] | sentences for operators |
//! | [`exit`] | exit codes |

mod cli;
mod commands;
mod configuration;
mod daemon;
mod demo;
mod exit;
mod obstacles;
mod source;
mod terminal;
mod text;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, CliCommand};

fn main() -> ExitCode {
    // The proxy is started by the balancer, not by an operator, and reads its own arguments.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "proxy") {
        // It is started by a path that says nothing; a name is all that `ps` and `top` show. It
        // works without.
        let _ = nix::sys::prctl::set_name(c"locum-proxy");
        return locum_proxy::main_process(words.map(|word| word.to_string_lossy().into_owned()));
    }
    let Cli { place, command } = Cli::parse();
    match command {
        CliCommand::Run(options) => daemon::run(&options, &place),
        CliCommand::Check(options) => commands::check::run(&options).into(),
        CliCommand::Status(options) => commands::status::run(&options, &place).into(),
        CliCommand::History(options) => commands::history::run(&options, &place).into(),
        CliCommand::Reload => commands::operate::reload(&place).into(),
        CliCommand::Stop => commands::operate::stop(&place).into(),
        CliCommand::Server(command) => commands::server::run(&command, &place).into(),
        CliCommand::Service(command) => commands::service::run(&command, &place).into(),
        CliCommand::Demo(options) => demo::run(&options),
        CliCommand::Switchover(options) => commands::switchover::run(&options, &place).into(),
    }
}
