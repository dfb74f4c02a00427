//! What the tests of this crate share: a probe thread whose outcomes arrive in a channel, script
//! files, and waiting for a process to end.

#![allow(dead_code, reason = "every test binary uses its own part")]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use locum_check::Probes;
use locum_plan::{Checker, Command, CommandLine, Outcome, Probe};
use nix::poll::{PollFd, PollFlags, PollTimeout};

/// Longest wait for anything in a test: reached only when the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Bench {
    pub probes: Probes,
    outcomes: Receiver<(u32, Outcome)>,
}

impl Bench {
    pub fn new() -> Self {
        let (sender, outcomes) = channel();
        let report = move |outcomes: Vec<_>| {
            outcomes.into_iter().for_each(|outcome| drop(sender.send(outcome)))
        };
        Self { probes: Probes::spawn(report).expect("a probe thread"), outcomes }
    }

    pub fn next(&self) -> (u32, Outcome) {
        self.outcomes.recv_timeout(PATIENCE).expect("an outcome in time")
    }

    /// Forgets what was reported until now, so that of one probe at most one outcome, that of the
    /// run under way, is still older than this call.
    pub fn forget(&self) {
        while self.outcomes.try_recv().is_ok() {}
    }

    /// Whether anything is reported within this time.
    pub fn next_within(&self, time: Duration) -> Option<(u32, Outcome)> {
        self.outcomes.recv_timeout(time).ok()
    }
}

/// The first outcome of a probe with this time-out.
pub fn once(kind: Checker, timeout: Duration) -> Outcome {
    let bench = Bench::new();
    bench.probes.start(1, Probe::new(kind, PATIENCE, timeout));
    bench.next().1
}

pub fn shell(line: impl Into<String>) -> Command {
    Command { line: CommandLine::Shell(line.into()), user: None, group: None }
}

/// A port that refuses connections for as long as the socket is held: what nobody holds may be
/// given to a neighbouring test. `listen` makes it accept.
pub fn closed_port() -> (SocketAddr, socket2::Socket) {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).expect("bound");
    let address = socket.local_addr().expect("an address").as_socket().expect("an IP address");
    (address, socket)
}

/// Writes a script by another process: a descriptor of ours that is open for writing while a
/// neighbouring test forks would make it "busy".
pub fn script(directory: &Path, name: &str, mode: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    let mut writer = Process::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod \"$1\" \"$0\""])
        .arg(&path)
        .arg(mode)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    writer.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
    assert!(writer.wait().expect("an exit").success());
    path
}

/// Waits until this process is dead; panics when it is not in time.
pub fn wait_for_death(pid: &str) {
    let raw = pid.trim().parse().expect("a process id");
    let pid = rustix::process::Pid::from_raw(raw).expect("not zero");
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return;
    };
    let mut events = [PollFd::new(std::os::fd::AsFd::as_fd(&pidfd), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).expect("short");
    let dead = nix::poll::poll(&mut events, patience).expect("poll");
    assert_eq!(dead, 1, "process {raw} is still alive");
}

/// Waits for something that is looked at again and again.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
