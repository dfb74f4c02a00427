//! One director: a real daemon, this very program, on its machine; its configuration, its life, and
//! what it says over its control socket.

use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use locum_control::Client;
use locum_control::HistoryEntry;
use locum_control::Request;
use locum_control::Response;
use locum_control::StatusDocument;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::network::Machine;
use super::sandbox::THIS_PROGRAM;

/// The virtual router and the service, as they are called in the configuration.
pub const INSTANCE: &str = "web";

/// Time between two adverts: the usual one, so that the figures are those of an ordinary set-up.
pub const ADVERT_INTERVAL: Duration = Duration::from_secs(1);

/// What both directors are started with: one file, valid on each.
pub const CONFIGURATION: &str = r#"# One file for both directors: what differs is keyed by node.
[nodes.lb1]
address = "192.0.2.1"
[nodes.lb2]
address = "192.0.2.2"

[[instance]]
name = "web"
interface = "eth0"
vrid = 51
priority = { lb1 = 150, lb2 = 100 }
advert_interval = "1s"
addresses = ["192.0.2.10/24"]

[[service]]
name = "www"
instance = "web"
listen = "192.0.2.10:80"
backend = "proxy"
scheduler = "rr"
standby = "warm"
drain = "2s"
health = { http = "/health", interval = "500ms" }
servers = [
  { address = "198.51.100.11:80" },
  { address = "198.51.100.12:80" },
]
"#;

/// A daemon has the answer at hand; a dead one must not hold up the show.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// A command is answered when it has begun; a busy machine may need a moment.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// A director and what is known of its daemon.
#[derive(Debug)]
pub struct Director {
    name: &'static str,
    config: PathBuf,
    run_dir: PathBuf,
    log: PathBuf,
    daemon: Option<Child>,
    /// Processes that the daemon keeps, as it said last: they die with the host, not with it.
    helpers: Vec<u32>,
    /// Events that have been handed out, by process and number.
    reported: HashSet<(u32, u64)>,
    since_ms: u64,
}

impl Director {
    /// One without a daemon, whose files are below `home`.
    pub fn new(name: &'static str, home: &Path, config: &Path) -> Self {
        Self {
            name,
            config: config.to_owned(),
            run_dir: home.join(name),
            log: home.join(format!("{name}.log")),
            daemon: None,
            helpers: Vec::new(),
            reported: HashSet::new(),
            since_ms: wall_clock_ms(),
        }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Starts its daemon over whatever an earlier one left behind.
    ///
    /// # Errors
    /// When the program or its log cannot be opened.
    pub fn start(&mut self, machine: &Machine) -> Result<(), String> {
        let failed = |error| format!("cannot start the daemon of {}: {error}", self.name);
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed)?;
        let errors = log.try_clone().map_err(failed)?;
        let mut command = Command::new(THIS_PROGRAM);
        command.arg0("locum").args(["run", "--node", self.name, "-c"]).arg(&self.config);
        command.arg("--run-dir").arg(&self.run_dir);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.daemon = Some(machine.enter(move || command.spawn())?.map_err(failed)?);
        Ok(())
    }

    /// Ends the daemon alone, at once and without a word.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended by itself; after the wait it has.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Ends everything that runs on the machine, as a loss of power does.
    pub fn kill_all(&mut self) {
        self.kill();
        for pid in self.helpers.drain(..) {
            // It may have ended by itself.
            let _ = nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        // What a machine keeps in memory is gone after a boot.
        let _ = fs::remove_dir_all(&self.run_dir);
    }

    /// Its exit status once the daemon has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.daemon.as_mut()?.try_wait().ok().flatten()?;
        self.daemon = None;
        Some(status)
    }

    /// Asks for its status; `None` while it has no daemon that answers.
    pub fn status(&mut self) -> Option<StatusDocument> {
        let Ok(Response::Status { status }) = self.call(&Request::Status, ANSWER_TIMEOUT) else {
            return None;
        };
        self.helpers = status.processes.iter().filter_map(|process| process.pid).collect();
        Some(*status)
    }

    /// What it has noted since it was asked last, oldest first.
    pub fn change(&mut self) -> Vec<HistoryEntry> {
        let request = Request::History { since_ms: Some(self.since_ms) };
        let Ok(Response::History { mut entries }) = self.call(&request, ANSWER_TIMEOUT) else {
            return Vec::new();
        };
        entries.retain(|entry| self.reported.insert((entry.pid, entry.event)));
        entries
    }

    /// Gives it a command.
    ///
    /// # Errors
    /// What it answered instead of doing it.
    pub fn command(&self, request: &Request) -> Result<(), String> {
        match self.call(request, COMMAND_TIMEOUT)? {
            Response::Done { .. } => Ok(()),
            Response::Refused { reason } => Err(format!("{} refused: {reason}", self.name)),
            Response::Error { message } => Err(format!("{} failed: {message}", self.name)),
            Response::Status { .. } | Response::History { .. } => {
                Err(format!("{} answered something else", self.name))
            }
        }
    }

    /// The last `count` lines of its log.
    pub fn last_words(&self, count: usize) -> Vec<String> {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let first = lines.len().saturating_sub(count);
        lines.into_iter().skip(first).map(str::to_owned).collect()
    }

    fn call(&self, request: &Request, limit: Duration) -> Result<Response, String> {
        let client = Client::connect(&self.run_dir.join("control.sock"));
        let answer = client.and_then(|mut client| client.call(request, limit));
        answer.map_err(|error| error.to_string())
    }
}

/// The clock of the history's time stamps.
fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use locum_config::Context;
    use locum_config::Source;
    use locum_config::SourceError;

    use super::*;

    struct Shown;

    impl Source for Shown {
        fn read(&self, _path: &str) -> Result<Vec<u8>, SourceError> {
            Ok(CONFIGURATION.as_bytes().to_vec())
        }

        fn list(&self, _directory: &str) -> Result<Vec<String>, SourceError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn one_file_is_a_clean_configuration_of_both_directors() {
        for (node, priority) in [("lb1", 150), ("lb2", 100)] {
            let context = Context { node: Some(node), ..Context::host("") };
            let loaded = locum_config::load(&Shown, "locum.toml", &context);
            assert_eq!(loaded.diagnostics.to_string(), "");
            let plan = loaded.plan.expect("no diagnostics");
            let instance = &plan.instances[0];
            assert_eq!(&*instance.name, INSTANCE);
            assert_eq!(instance.router.interval.as_duration(), ADVERT_INTERVAL);
            assert_eq!(instance.router.priority.0, priority);
        }
    }
}
