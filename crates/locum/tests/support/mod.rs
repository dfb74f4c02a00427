//! A daemon of the built binary in a network namespace of its own, and what tests ask of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest anything here may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A network namespace with a veth pair `v0` (10.9.0.1/24) and `v1`, both up. It lives as long as
/// the process that holds it, and that one ends with its standard input.
pub struct Namespace {
    holder: Child,
    _leash: ChildStdin,
    pub as_root: bool,
}

impl Namespace {
    /// `None`, with the reason printed, where namespaces are not allowed.
    pub fn new() -> Option<Self> {
        let as_root = fs::metadata("/proc/self")
            .is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == 0);
        let setup = "ip link set lo up && ip link add v0 type veth peer name v1 \
                     && ip link set v0 up && ip link set v1 up && ip addr add 10.9.0.1/24 dev v0 \
                     && echo ready && exec cat";
        let mut command = Command::new("unshare");
        if !as_root {
            command.args(["--user", "--map-root-user"]);
        }
        let mut holder = command
            .args(["--net", "--", "sh", "-c", setup])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let leash = holder.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.trim() == "ready" {
            return Some(Self { holder, _leash: leash, as_root });
        }
        drop(leash);
        let output = holder.wait_with_output().unwrap();
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        assert!(
            std::env::var_os("LOCUM_REQUIRE_LAB").is_none(),
            "no network namespace although the lab is required: {reason}"
        );
        eprintln!("skipped: no network namespace here: {reason}");
        None
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net"]);
        if !self.as_root {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }

    /// Whether `v0` has this address.
    pub fn has(&self, address: &str) -> bool {
        let output =
            self.command("ip").args(["-o", "address", "show", "dev", "v0"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(&format!(" {address} "))
    }

    pub fn ip(&self, words: &[&str]) {
        assert!(self.command("ip").args(words).status().unwrap().success(), "ip {words:?}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A directory with a configuration and a run directory, and perhaps a daemon on them.
pub struct Node<'a> {
    pub namespace: &'a Namespace,
    directory: tempfile::TempDir,
    daemon: Option<Child>,
    /// The program that [`Node::start`] starts.
    pub program: PathBuf,
}

impl<'a> Node<'a> {
    pub fn new(namespace: &'a Namespace, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_locum"));
        let node = Self { namespace, directory, daemon: None, program };
        node.write("locum.toml", config);
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Writes an executable shell script.
    pub fn script(&self, name: &str, content: &str) -> String {
        let text = format!("{name}.text");
        self.write(&text, &format!("#!/bin/sh\n{content}\n"));
        let path = self.copy_program(&self.path(&text), name);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Copies a program. Another process does: a descriptor of ours that is open for writing while
    /// a neighbouring test forks would make the copy "busy" for whoever runs it.
    pub fn copy_program(&self, program: &Path, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(Command::new("cp").arg(program).arg(&path).status().unwrap().success());
        path
    }

    fn run_command(&self) -> Command {
        let mut command = self.namespace.command(&self.program);
        command
            .arg("run")
            .arg("--run-dir")
            .arg(self.path("run"))
            .arg("-c")
            .arg(self.path("locum.toml"));
        command
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&mut self) {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.path("log")).unwrap();
        self.start_logging_to(log.into());
    }

    /// As [`Node::start`], with another place for its log.
    pub fn start_logging_to(&mut self, log: Stdio) {
        self.daemon = Some(self.run_command().stderr(log).spawn().unwrap());
        self.wait_for("an answer", |status| status.get("node").is_some());
    }

    /// Starts a daemon that is expected to end by itself.
    pub fn start_in_vain(&self) -> Output {
        let mut daemon =
            self.run_command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while daemon.try_wait().unwrap().is_none() {
            if begun.elapsed() > LIMIT {
                daemon.kill().unwrap();
                let output = daemon.wait_with_output().unwrap();
                panic!("it runs: {}", String::from_utf8_lossy(&output.stderr));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon.wait_with_output().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Waits for the daemon to end by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = daemon.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > LIMIT {
                daemon.kill().unwrap();
                panic!("the daemon does not end\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Runs one of the other commands on this daemon.
    pub fn locum(&self, words: &[&str]) -> Output {
        locum_at(&self.path("run"), words)
    }

    pub fn status(&self) -> Value {
        let output = self.locum(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Asks for the status until `is_so`.
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.status();
            if is_so(&status) {
                return status;
            }
            assert!(begun.elapsed() < LIMIT, "no {what}: {status:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn wait_for_role(&self, role: &str) -> Value {
        self.wait_for(role, |status| status["instances"][0]["role"] == role)
    }

    /// The history, oldest first.
    pub fn history(&self) -> Vec<Value> {
        let output = self.locum(&["history", "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Reads the history until an entry is there.
    pub fn wait_for_entry(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let history = self.history();
            if let Some(entry) = history.iter().find(|entry| is_it(entry)) {
                return entry.clone();
            }
            assert!(begun.elapsed() < LIMIT, "no {what}: {history:#?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Runs the built binary against a run directory.
pub fn locum_at(run_dir: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_locum"))
        .args(words)
        .arg("--run-dir")
        .arg(run_dir)
        .output()
        .unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
