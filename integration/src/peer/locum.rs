//! Locum as a peer: the binary under test, in either of its configuration languages.

use std::fmt::Write as _;
use std::process::Output;

use super::Peer;
use super::Preempt;
use super::Router;
use super::Running;
use super::Version;
use super::keepalived;
use crate::node::Node;
use crate::require;

const RUN_DIR: &str = "/run/locum";
/// The control socket within the run directory.
pub const SOCKET: &str = "/run/locum/control.sock";

/// In which language the daemon is given its configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Language {
    #[default]
    Toml,
    Keepalived,
}

/// The daemon under test.
#[derive(Clone, Copy, Debug, Default)]
pub struct Locum {
    pub language: Language,
}

impl Locum {
    /// Configured in keepalived's language.
    pub const DROP_IN: Self = Self { language: Language::Keepalived };
    /// Configured in TOML.
    pub const NATIVE: Self = Self { language: Language::Toml };

    /// Starts it with a configuration of one's own, in either language.
    pub fn start_with(self, node: &Node, config: &str) -> Running {
        self.configure(node, config);
        self.start_again(node)
    }

    /// Starts it with the configuration it had, over whatever an earlier run left behind.
    pub fn start_again(self, node: &Node) -> Running {
        self.start_under(node, &[])
    }

    /// The same by way of another program, which becomes it.
    pub fn start_under(self, node: &Node, wrapper: &[&str]) -> Running {
        let binary = require::locum().to_string_lossy();
        let daemon = [&*binary, "run", "-c", self.path(), "--run-dir", RUN_DIR];
        let argv = [wrapper, &daemon].concat();
        let mut running = Running::new(self.label(), vec![node.spawn(&argv)]);
        running.socket = Some(SOCKET.to_owned());
        running
    }

    /// Replaces the configuration file, without telling the daemon.
    pub fn configure(self, node: &Node, config: &str) {
        node.write(self.path(), config);
    }

    /// The routers in this language.
    pub fn render(self, routers: &[Router]) -> String {
        match self.language {
            Language::Toml => render_toml(routers),
            Language::Keepalived => keepalived::render(routers),
        }
    }

    fn path(self) -> &'static str {
        match self.language {
            Language::Toml => "/run/lab/locum.toml",
            Language::Keepalived => "/run/lab/keepalived.conf",
        }
    }
}

impl Peer for Locum {
    fn label(&self) -> &'static str {
        "locum"
    }

    fn programs(&self) -> &'static [&'static str] {
        &[]
    }

    fn start(&self, node: &Node, routers: &[Router]) -> Running {
        self.start_with(node, &self.render(routers))
    }
}

/// Runs a command of the binary against the daemon on `node`: `locum(node, &["status", "--json"])`.
pub fn command(node: &Node, arguments: &[&str]) -> Output {
    let binary = require::locum().to_string_lossy();
    let mut argv = vec![&*binary];
    argv.extend(arguments);
    argv.extend(["--socket", SOCKET]);
    node.output(&argv)
}

fn render_toml(routers: &[Router]) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{arguments}");
    };
    for router in routers {
        let version = match router.version {
            Version::V2 => 2,
            Version::V3 => 3,
        };
        line(format_args!("[[instance]]\nname = \"{}\"", router.name));
        line(format_args!("interface = \"{}\"", router.interface));
        line(format_args!("vrid = {}\npriority = {}", router.vrid, router.priority));
        line(format_args!("version = {version}"));
        line(format_args!("advert_interval = \"{}ms\"", router.interval.as_millis()));
        let addresses: Vec<String> = router
            .addresses
            .iter()
            .map(|(address, prefix)| format!("{address}/{prefix}"))
            .collect();
        line(format_args!("addresses = {addresses:?}"));
        match router.preempt {
            Preempt::Yes => {}
            Preempt::No => line(format_args!("preempt = false")),
            Preempt::After(delay) => {
                line(format_args!("preempt = \"{}ms\"", delay.as_millis()));
            }
        }
        if let Some(password) = &router.password {
            line(format_args!("auth = {{ type = \"simple\", password = \"{password}\" }}"));
        }
        if let Some(unicast) = &router.unicast {
            let peers: Vec<String> = unicast.peers.iter().map(ToString::to_string).collect();
            line(format_args!("source = \"{}\"\ntransport = \"unicast\"", unicast.source));
            line(format_args!("unicast = {{ peers = {peers:?} }}"));
        }
        if let Some(check) = &router.check {
            let name = format!("check-{}", router.name);
            line(format_args!("track = [\"{name}\"]\n\n[check.{name}]"));
            line(format_args!("script = [\"{}\"]", check.script));
            line(format_args!("interval = \"{}s\"", check.interval.as_secs()));
            line(format_args!("weight = {}\n", check.weight));
        }
    }
    text
}
