//! The command line: words, defaults and help. What a command does is in [`crate::commands`] and
//! [`crate::daemon`].

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use locum_plan::MAX_WEIGHT;

/// Where the configuration is unless `-c` says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/locum/locum.toml";

/// Where a daemon keeps its socket, lock and history unless `--run-dir` says otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/locum";

/// Where in that directory a daemon writes what happened.
pub const HISTORY_FILE: &str = "history.jsonl";

/// Keeps a virtual IP and the service behind it alive on a group of Linux directors.
#[derive(Parser, Debug)]
#[command(name = "locum", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub place: DaemonArgs,
    #[command(subcommand)]
    pub command: CliCommand,
}

/// Which daemon is meant.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Which daemon")]
pub struct DaemonArgs {
    /// Control socket of the daemon [default: RUN_DIR/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Directory of the daemon's socket, lock and history
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
}

impl DaemonArgs {
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.run_dir.join("control.sock"))
    }
}

/// Of the commands that ask the daemon to do something.
const ASKING: &str = "Exit status: 0 done, 1 refused or failed, 2 no daemon";

#[derive(Subcommand, Debug)]
pub enum CliCommand {
    /// Run the daemon in the foreground
    #[command(after_help = "Exit status: 0 after a stop in order, 1 when it cannot start or was \
                            forced to end, 2 when the configuration has errors")]
    Run(RunArgs),
    /// Validate a configuration
    #[command(after_help = "Exit status: 0 clean, 1 warnings, 2 errors")]
    Check(CheckArgs),
    /// Read the configuration and all files that a HAProxy's names again; a wrong configuration is
    /// refused and changes nothing
    #[command(
        after_help = "Exit status: 0 in effect, 1 refused, or in effect but for what it says, \
                            2 no daemon"
    )]
    Reload,
    /// Hand everything over without losing a packet, then end the daemon
    #[command(after_help = ASKING)]
    Stop,
    /// Show who is master, since when and why
    #[command(after_help = "Exit status: 0 healthy, 1 degraded, 2 no daemon")]
    Status(StatusArgs),
    /// Show what happened and why
    #[command(after_help = "Exit status: 0 shown, 2 no daemon")]
    History(HistoryArgs),
    /// Hand an instance to its backup without losing a packet, and say what came of it
    #[command(after_help = "Exit status: 0 taken over, 1 refused, or nobody took it, 2 no daemon")]
    Switchover(SwitchoverArgs),
    /// Take a server of a service out, put it back, or give it another weight
    #[command(subcommand, after_help = ASKING)]
    Server(ServerCommand),
    /// Look at a service of the configuration; needs no daemon
    #[command(
        subcommand,
        after_help = "Exit status: 0 shown, 1 it is not served so, 2 the configuration has errors"
    )]
    Service(ServiceCommand),
    /// Show two directors at work in namespaces of their own; needs no configuration
    #[command(after_help = "Exit status: 0 every promise was kept, 1 one was broken or the show \
                            could not be given")]
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
    /// For lines that begin with `@ID` in a keepalived.conf [default: the host name up to its dot]
    #[arg(short = 'i', long, value_name = "ID")]
    pub config_id: Option<String>,
}

#[derive(Args, Debug)]
pub struct RunArgs {
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
pub struct CheckArgs {
    #[command(flatten)]
    pub configuration: Configuration,
    /// Also look for the interfaces, programs, users, files, ports and kernel features it needs
    #[arg(long)]
    pub host: bool,
    /// What a keepalived.conf may have wrong, and keepalived passes over, is an error
    #[arg(long)]
    pub strict: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Print one JSON object
    #[arg(long, conflicts_with_all = ["why", "watch"])]
    pub json: bool,
    /// Tell in sentences how each instance came to its role and priority
    #[arg(long)]
    pub why: bool,
    /// Show every server of every service; without it, of a service with more than ten, at most ten
    /// of those that are not up, and how many there are
    #[arg(long, conflicts_with_all = ["json", "why"])]
    pub all: bool,
    /// Show it again every second until interrupted
    #[arg(long)]
    pub watch: bool,
}

#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// Only the last so much, as 90s, 10m, 1h or 2d
    #[arg(long, value_name = "AGE", value_parser = an_age)]
    pub since: Option<Duration>,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

fn an_age(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text)
        .map_err(|_| "an age is a number and its unit, as 90s, 10m, 1h or 2d")
}

#[derive(Args, Debug)]
pub struct SwitchoverArgs {
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
    /// Hand over to whoever is there, also to a node that cannot serve
    #[arg(long)]
    pub force: bool,
}

#[derive(Subcommand, Debug)]
pub enum ServerCommand {
    /// Send it no new clients from this node; those that it has stay. It holds until `ready` or a reboot
    #[command(after_help = ASKING)]
    Drain(OrderedServer),
    /// Withdraw what was ordered: it has its own weight again
    #[command(after_help = ASKING)]
    Ready(OrderedServer),
    /// Give it another weight on this node. It holds until `ready` or a reboot
    #[command(after_help = ASKING)]
    Weight {
        #[command(flatten)]
        named: OrderedServer,
        /// 0 to 65535; 0 takes no new clients
        #[arg(value_name = "WEIGHT", value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_WEIGHT)))]
        weight: u32,
    },
}

#[derive(Subcommand, Debug)]
pub enum ServiceCommand {
    /// Print the configuration that HAProxy would run from for it and for what shares its process
    #[command(
        after_help = "Exit status: 0 shown, 1 it is not served by HAProxy, 2 the configuration has \
                      errors"
    )]
    ShowHaproxy {
        /// Name of the service
        #[arg(value_name = "SERVICE")]
        service: String,
        #[command(flatten)]
        configuration: Configuration,
    },
}

#[derive(Args, Clone, Debug)]
pub struct OrderedServer {
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// Address of the server, with its port where several have the address
    #[arg(value_name = "SERVER")]
    pub server: String,
    /// In steps over this time, as 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = a_time)]
    pub over: Option<Duration>,
}

fn a_time(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "a time is a number and its unit, as 30s, 5m or 1h")
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

    #[test]
    fn the_help_of_every_command_has_its_exit_status_and_its_own_options_first() {
        for command in Cli::command().get_subcommands_mut() {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            assert!(help.contains("Exit status: 0 "), "{name}: {help}");
        }
        let mut cli = Cli::command();
        cli.build();
        let status = cli.find_subcommand_mut("status").unwrap().render_long_help().to_string();
        let order = ["--json", "--watch", "Which daemon:", "--socket", "--run-dir"];
        let places: Vec<_> = order.iter().map(|word| status.find(word).unwrap()).collect();
        assert!(places.is_sorted(), "{status}");
    }

    #[test]
    fn an_age_that_is_none_is_refused_with_an_example() {
        for text in ["5", "yesterday", "", "-1h"] {
            assert!(an_age(text).unwrap_err().contains("90s"), "{text}");
        }
        assert_eq!(an_age("2d"), Ok(Duration::from_secs(2 * 86_400)));
    }
}
