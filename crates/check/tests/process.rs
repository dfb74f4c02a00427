//! The process probe beside the killall of psmisc, on real processes.

mod harness;

use std::fs;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use harness::{PATIENCE, once, script};
use locum_plan::{Checker, Outcome, Verdict};

fn ask(name: &str) -> Outcome {
    once(Checker::Process { name: name.into() }, PATIENCE)
}

/// What killall says, where it is installed.
fn killall(name: &str) -> Option<bool> {
    let asked = Process::new("killall").args(["-q", "-0", name]).status();
    asked.ok().map(|status| status.success())
}

/// A process that runs until dropped.
struct Running(Child);

impl Running {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let child = Process::new(program).args(arguments).stdout(Stdio::piped()).spawn();
        Self(child.expect("a process"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("reaped");
    }
}

/// A program under a name of our choice.
fn program(directory: &Path, name: &str) -> std::path::PathBuf {
    let path = directory.join(name);
    let copied = Process::new("cp").arg("/bin/sleep").arg(&path).status();
    assert!(copied.expect("cp").success());
    path
}

/// Asks for each name, and killall too: both must answer as expected.
fn assert_found(expected: &[(&str, bool)]) {
    for (name, found) in expected {
        let outcome = ask(name);
        assert_eq!(outcome.verdict == Verdict::Pass, *found, "{name}: {outcome:?}");
        assert!(killall(name).is_none_or(|too| too == *found), "killall differs on {name}");
    }
}

#[test]
fn a_short_name_is_compared_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&program(directory.path(), "locum-shrt"), &["1000"]);
    assert_found(&[("locum-shrt", true), ("locum-shr", false), ("locum-shrtt", false)]);
    drop(running);
    let gone = ask("locum-shrt");
    assert_eq!(
        (gone.verdict, gone.detail.as_str()),
        (Verdict::Fail, "no process named \"locum-shrt\"")
    );
}

#[test]
fn a_name_longer_than_the_kernel_keeps_is_completed_from_the_command_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let _running = Running::start(&program(directory.path(), "locum-long-name-one"), &["1000"]);
    assert_found(&[
        ("locum-long-name-one", true),
        ("locum-long-name-two", false),
        ("locum-long-name", false),
        ("locum-long-nam", false),
    ]);
}

#[test]
fn a_name_of_exactly_the_kernels_length_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let _running = Running::start(&program(directory.path(), "locum-fifteen-c"), &["1000"]);
    assert_found(&[("locum-fifteen-c", true), ("locum-fifteen-cc", false)]);
}

#[test]
fn a_script_is_found_by_its_own_long_name_behind_the_interpreter() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = script(directory.path(), "locum-script-name.sh", "755", "#!/bin/sh\nread line\n");
    let child = Process::new(&path).stdin(Stdio::piped()).spawn().expect("a script");
    let _running = Running(child);
    assert_found(&[("locum-script-name.sh", true), ("locum-script-na", false)]);
}

#[test]
fn a_name_that_no_argument_completes_is_matched_by_what_the_kernel_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    // A process that renames itself, as servers do for their workers.
    let line = "printf locum-renamed-0 > /proc/$$/comm; echo ready; read x";
    let mut child = Process::new("/bin/sh")
        .args(["-c", line])
        .current_dir(&directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut ready = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut output, &mut ready).expect("a line");
    let _running = Running(child);
    let in_arguments = ask("locum-renamed-0");
    assert_eq!(in_arguments.verdict, Verdict::Pass, "{in_arguments:?}");
    assert_found(&[("locum-renamed-0", true), ("locum-renamed-0-worker", true)]);
    assert_found(&[("locum-renamed-1", false)]);
}

#[test]
fn a_name_with_parentheses_and_spaces_is_read_right() {
    let directory = tempfile::tempdir().expect("a directory");
    let _running = Running::start(&program(directory.path(), "lo) R (cum"), &["1000"]);
    assert_eq!(ask("lo) R (cum").verdict, Verdict::Pass);
    assert_eq!(ask("lo").verdict, Verdict::Fail);
}

#[test]
fn a_zombie_is_dead() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = Process::new(program(directory.path(), "locum-zombie"))
        .arg("0")
        .spawn()
        .expect("a process");
    let pid = rustix::process::Pid::from_child(&child);
    let exited = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(pid), exited).expect("an exit");
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("a zombie");
    assert!(stat.contains(") Z "), "{stat}");
    let outcome = ask("locum-zombie");
    child.wait().expect("reaped");
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert_eq!(outcome.detail, "process \"locum-zombie\" is dead, a zombie");
}

#[test]
fn a_path_is_refused_with_advice() {
    let outcome = ask("/usr/sbin/haproxy");
    assert_eq!(outcome.verdict, Verdict::CannotRun);
    assert!(outcome.detail.contains("give the name of the process alone"), "{outcome:?}");
}

#[test]
fn a_process_that_ends_is_missed_within_the_interval() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&program(directory.path(), "locum-mortal"), &["1000"]);
    let bench = harness::Bench::new();
    let kind = Checker::Process { name: "locum-mortal".into() };
    let interval = Duration::from_millis(100);
    bench.probes.start(1, locum_plan::Probe::new(kind, interval, PATIENCE));
    assert_eq!(bench.next().1.verdict, Verdict::Pass);
    drop(running);
    bench.forget();
    // The run that was under way may still have seen it, and a look at all processes serves those
    // that ask soon after.
    let verdicts: Vec<_> = (0..3).map(|_| bench.next().1.verdict).collect();
    assert_eq!(verdicts.last(), Some(&Verdict::Fail), "{verdicts:?}");
}
