//! The command line: words, defaults and help. What a command does is in [`crate::commands`] and
//! [`crate::daemon`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Where the configuration is unless `-c` says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/locum/locum.toml";

/// Where a daemon keeps its socket, lock and history unless `--run-dir` says otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/locum";

/// Keeps a virtual IP and the service behind it alive on a group of Linux directors.
#[derive(Parser, Debug)]
#[command(name = "locum", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub place: Place,
    #[command(subcommand)]
    pub command: Command,
}

/// Which daemon is meant.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// Control socket of the daemon [default: RUN_DIR/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Directory of the daemon's socket, lock and history
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
}

impl Place {
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.run_dir.join("control.sock"))
    }
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the daemon in the foreground
    Run(Run),
    /// Validate a configuration: 0 clean, 1 warnings, 2 errors
    Check(Check),
    /// Read the configuration again; a wrong one is refused and changes nothing
    Reload,
    /// Hand everything over without losing a packet, then end the daemon
    Stop,
    /// Show who is master, since when and why: 0 healthy, 1 degraded, 2 no daemon
    Status(Status),
    /// Show what happened and why
    History(History),
    /// Hand an instance to its backup without losing a packet
    Switchover(Switchover),
    /// Show two directors at work in namespaces of their own; needs no configuration
    Demo(crate::demo::Options),
}

/// Which configuration, seen from which node.
#[derive(Args, Debug)]
pub struct Configuration {
    /// Configuration file, TOML or keepalived.conf
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Name of this node in the configuration [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
}

#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    pub configuration: Configuration,
    /// One line per decision, or one JSON object
    #[arg(long, value_name = "FORM", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Least severe kind of message to log
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    pub configuration: Configuration,
    /// Also look for the interfaces, programs, users and kernel features it needs
    #[arg(long)]
    pub host: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Status {
    /// Print one JSON object
    #[arg(long, conflicts_with_all = ["why", "watch"])]
    pub json: bool,
    /// Tell in sentences how each instance came to its role and priority
    #[arg(long)]
    pub why: bool,
    /// Show it again every second until interrupted
    #[arg(long)]
    pub watch: bool,
}

#[derive(Args, Debug)]
pub struct History {
    /// Only the last so much, as 90s, 10m, 1h or 2d
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    pub since: Option<std::time::Duration>,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Switchover {
    /// Name of the instance
    #[arg(value_name = "INSTANCE", required_unless_present = "all")]
    pub instance: Option<String>,
    /// Hand over every instance
    #[arg(long, conflicts_with = "instance")]
    pub all: bool,
    /// Node that shall take over; refused unless it is the only other one
    #[arg(long, value_name = "NODE")]
    pub to: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_socket_follows_the_run_directory_unless_named() {
        let cli = Cli::parse_from(["locum", "status", "--run-dir", "/tmp/x"]);
        assert_eq!(cli.place.socket(), PathBuf::from("/tmp/x/control.sock"));
        let cli = Cli::parse_from(["locum", "--socket", "/tmp/y", "status"]);
        assert_eq!(cli.place.socket(), PathBuf::from("/tmp/y"));
    }
}
