//! The script runner against real processes, well-behaved and hostile.

mod harness;

use std::fs;
use std::time::{Duration, Instant};

use harness::{Bench, once, script, shell, wait_for_death};
use locum_check::{End, Launcher, Ran};
use locum_plan::{Checker, Command, Outcome, Probe, Verdict};

const LONG: Duration = Duration::from_secs(15);
/// For what hangs: until then a busy machine has started a shell that says its first words.
const SHORT: Duration = Duration::from_secs(3);
/// For a gigabyte through three processes.
const VERY_LONG: Duration = Duration::from_secs(180);

fn outcome(command: Command) -> Outcome {
    once(Checker::Script(command), LONG)
}

fn hook(command: &Command, environment: &[(&str, &str)], timeout: Duration) -> Ran {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let environment: Vec<_> = environment.iter().map(owned).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(Launcher::new(1).run(command, &environment, timeout))
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

#[test]
fn status_zero_passes() {
    let outcome = outcome(Command::argv(["/bin/true"]));
    assert_eq!((outcome.verdict, outcome.detail.as_str()), (Verdict::Pass, "exited with status 0"));
    assert!(outcome.took > Duration::ZERO && outcome.took < LONG);
}

#[test]
fn another_status_fails_and_quotes_the_first_line() {
    let outcome = outcome(shell("echo; echo 'no database' >&2; echo more; exit 3"));
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert_eq!(outcome.detail, "exited with status 3: no database");
}

#[test]
fn arguments_reach_the_program_without_a_shell() {
    let ran = hook(&Command::argv(["/bin/echo", "a  b", "$HOME", ";", "*"]), &[], LONG);
    assert_eq!((ran.end, ran.output.as_str()), (End::Exited(0), "a  b $HOME ; *\n"));
}

#[test]
fn a_bare_name_is_looked_up_in_path() {
    assert_eq!(outcome(Command::argv(["true"])).verdict, Verdict::Pass);
}

#[test]
fn a_signal_fails_and_is_named() {
    let outcome = outcome(shell("kill -SEGV $$"));
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert_eq!(outcome.detail, "killed by SIGSEGV");
}

#[test]
fn a_missing_program_cannot_run() {
    for (program, detail) in [
        ("/nowhere/check.sh", "/nowhere/check.sh: no such file"),
        (
            "locum-no-such-program",
            "no program \"locum-no-such-program\" in PATH: give its full path",
        ),
        ("/tmp", "/tmp: is a directory"),
    ] {
        let outcome = outcome(Command::argv([program]));
        assert_eq!((outcome.verdict, outcome.detail.as_str()), (Verdict::CannotRun, detail));
    }
}

#[test]
fn what_a_running_script_cannot_run_is_a_failure_of_the_check() {
    for (script, status) in [("/nowhere/check.sh", 127), ("exit 126", 126), ("exit 127", 127)] {
        let outcome = outcome(shell(script));
        assert_eq!(outcome.verdict, Verdict::Fail);
        let detail = format!("exited with status {status}");
        assert!(outcome.detail.starts_with(&detail), "{}", outcome.detail);
    }
}

#[test]
fn a_script_that_is_not_executable_or_lacks_its_interpreter_cannot_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let plain = script(directory.path(), "plain.sh", "644", "#!/bin/sh\nexit 0\n");
    let plain_outcome = outcome(Command::argv([plain.to_string_lossy()]));
    assert_eq!(plain_outcome.verdict, Verdict::CannotRun);
    assert!(
        plain_outcome.detail.contains("permission denied: make it executable"),
        "{plain_outcome:?}"
    );

    let orphan = script(directory.path(), "orphan.sh", "755", "#!/nowhere/python\n");
    let orphan_outcome = outcome(Command::argv([orphan.to_string_lossy()]));
    assert_eq!(orphan_outcome.verdict, Verdict::CannotRun);
    assert!(orphan_outcome.detail.contains("interpreter"), "{orphan_outcome:?}");
}

#[test]
fn a_script_without_an_interpreter_line_is_given_to_the_shell() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = script(directory.path(), "bare.sh", "755", "echo \"got $1\"; exit 4\n");
    let ran = hook(&Command::argv([&*path.to_string_lossy(), "this"]), &[], LONG);
    assert_eq!((ran.end, ran.output.as_str()), (End::Exited(4), "got this\n"));
}

#[test]
fn an_unknown_user_or_group_cannot_run() {
    let user = Some("locum-no-such-user".to_owned());
    let group = Some("locum-no-such-group".to_owned());
    for (user, group, word) in [(user, None, "user"), (None, group, "group")] {
        let outcome = outcome(Command { user, group, ..Command::argv(["/bin/true"]) });
        assert_eq!(outcome.verdict, Verdict::CannotRun);
        assert!(outcome.detail.starts_with(&format!("no {word} \"locum-no-such-")), "{outcome:?}");
    }
}

#[test]
fn root_runs_a_command_as_its_user_with_no_other_groups() {
    if !is_root() {
        return;
    }
    let command = Command { user: Some("nobody".into()), ..shell("id -un; id -G; id -g") };
    let ran = hook(&command, &[], LONG);
    let lines: Vec<_> = ran.output.lines().collect();
    assert_eq!(lines[0], "nobody", "{ran:?}");
    assert_eq!(lines[1], lines[2], "only the primary group: {ran:?}");
    let group = Some("daemon".to_owned());
    let ran = hook(&Command { group, user: Some("nobody".into()), ..shell("id -gn") }, &[], LONG);
    assert_eq!(ran.output, "daemon\n");
}

#[test]
fn a_user_who_may_not_run_the_script_is_named() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = script(directory.path(), "mine.sh", "700", "#!/bin/sh\n");
    let command =
        Command { user: Some("nobody".into()), ..Command::argv([path.to_string_lossy()]) };
    let outcome = outcome(command);
    assert_eq!(outcome.verdict, Verdict::CannotRun);
    assert!(outcome.detail.ends_with("make it executable for nobody"), "{outcome:?}");
}

#[test]
fn the_environment_is_a_short_list_and_what_is_given() {
    // As every test, this one has variables that are nobody's business.
    assert!(std::env::vars_os().any(|(name, _)| name == "CARGO_MANIFEST_DIR"));
    let given = [("LOCUM_STATE", "MASTER"), ("LD_PRELOAD", "/nowhere.so")];
    let ran = hook(&Command::argv(["/usr/bin/env"]), &given, LONG);
    let names: Vec<_> = ran.output.lines().filter_map(|line| line.split('=').next()).collect();
    for name in &names {
        let known = ["PATH", "LANG", "LANGUAGE", "TZ", "HOME", "SHELL", "USER", "LOGNAME"];
        let is_known = known.contains(name) || name.starts_with("LC_") || *name == "LOCUM_STATE";
        assert!(is_known, "{name}: {ran:?}");
    }
    assert!(names.contains(&"PATH") && names.contains(&"HOME"), "{ran:?}");
    assert!(ran.output.lines().any(|line| line == "LOCUM_STATE=MASTER"), "{ran:?}");
}

#[test]
fn home_and_name_are_those_of_the_user_it_runs_as() {
    let line = "echo $HOME $USER $LOGNAME $SHELL; getent passwd \"$(id -u)\"";
    let mut commands = vec![shell(line)];
    if is_root() {
        commands.push(Command { user: Some("daemon".into()), ..shell(line) });
    }
    for command in commands {
        let ran = hook(&command, &[], LONG);
        let (environment, entry) = ran.output.trim().split_once('\n').expect("two lines");
        let fields: Vec<_> = entry.split(':').collect();
        let expected = [fields[5], fields[0], fields[0], fields[6]].join(" ");
        assert_eq!(environment, expected);
    }
}

#[test]
fn standard_input_is_empty() {
    assert_eq!(hook(&shell("cat; exit 5"), &[], LONG).end, End::Exited(5));
}

#[test]
fn a_script_leads_its_own_process_group() {
    let ran = hook(&shell("echo $$; ps -o pgid= -p $$"), &[], LONG);
    let numbers: Vec<_> = ran.output.split_whitespace().collect();
    assert_eq!(numbers[0], numbers[1], "{ran:?}");
}

#[test]
fn a_hanging_script_is_killed_with_all_its_children() {
    let begin = Instant::now();
    let ran = hook(&shell("sleep 1000 & echo $!; echo $$; sleep 1000"), &[], SHORT);
    assert_eq!(ran.end, End::TimedOut(SHORT));
    assert!(begin.elapsed() < LONG);
    assert_eq!(ran.output.lines().count(), 2, "{ran:?}");
    ran.output.lines().for_each(wait_for_death);
}

#[test]
fn a_script_that_ignores_the_terminate_signal_is_killed_after_the_grace() {
    let command = shell("trap '' TERM; echo $$; while :; do sleep 1000; done");
    let ran = hook(&command, &[], SHORT);
    assert_eq!(ran.end, End::TimedOut(SHORT));
    wait_for_death(&ran.output);
}

#[test]
fn a_script_may_clean_up_when_it_is_terminated() {
    let directory = tempfile::tempdir().expect("a directory");
    let mark = directory.path().join("cleaned");
    let line = format!("trap 'echo yes > {}; exit' TERM; sleep 1000 & wait", mark.display());
    assert_eq!(hook(&shell(line), &[], SHORT).end, End::TimedOut(SHORT));
    assert_eq!(fs::read_to_string(mark).expect("the trap has run"), "yes\n");
}

#[test]
fn a_time_out_is_reported_when_it_happens_not_after_the_kill() {
    let bench = Bench::new();
    let timeouts = [0, 700, 1400, 2100].map(|ms| SHORT + Duration::from_millis(ms));
    for (id, timeout) in (0..).zip(timeouts) {
        let command = shell("trap '' TERM; echo stuck; while :; do sleep 1000; done");
        let (kind, interval) = (Checker::Script(command), harness::PATIENCE);
        bench.probes.start(id, Probe::new(kind, interval, timeout));
    }
    let mut late = Vec::new();
    for timeout in timeouts {
        let (_, outcome) = bench.next();
        assert_eq!(outcome.verdict, Verdict::Fail);
        assert_eq!(outcome.detail, format!("timed out after {timeout:?}: stuck"));
        late.push(outcome.took.checked_sub(timeout).expect("not before the time"));
    }
    // The kill comes half a second later. A busy machine makes one or another late, and not all.
    assert!(late.iter().min() < Some(&Duration::from_millis(450)), "{late:?}");
}

#[test]
fn a_grandchild_that_holds_the_pipe_does_not_keep_the_run_waiting() {
    // In a session of its own it escapes the group's signals too.
    let ran = hook(&shell("setsid sleep 1000 & echo $!; exit 7"), &[], LONG);
    assert_eq!(ran.end, End::Exited(7));
    assert!(ran.took < LONG, "{ran:?}");
    kill(&ran.output);
}

#[test]
fn what_a_probe_leaves_in_the_background_is_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    let pid = directory.path().join("pid");
    let outcome = outcome(shell(format!("sleep 1000 & echo $! > {}", pid.display())));
    assert_eq!(outcome.verdict, Verdict::Pass);
    wait_for_death(&fs::read_to_string(pid).expect("a process id"));
}

#[test]
fn what_a_hook_leaves_in_the_background_may_go_on_and_write() {
    let directory = tempfile::tempdir().expect("a directory");
    let (go, done) = (directory.path().join("go"), directory.path().join("done"));
    let make = std::process::Command::new("mkfifo").args([&go, &done]).status();
    assert!(make.expect("mkfifo").success());
    let (go_path, done_path) = (go.display(), done.display());
    let line = format!("( read x < {go_path}; echo talking; echo $? > {done_path} ) &");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        assert_eq!(Launcher::new(1).run(&shell(line), &[], LONG).await.end, End::Exited(0));
        let both = tokio::task::spawn_blocking(move || {
            fs::write(go, "now\n").expect("somebody reads");
            fs::read_to_string(done).expect("somebody writes")
        });
        assert_eq!(both.await.expect("no panic"), "0\n");
    });
}

#[test]
fn a_gigabyte_of_output_is_harmless() {
    let begin = Instant::now();
    let ran = hook(
        &shell("echo first; head -c 1000000000 /dev/zero | tr '\\0' x; echo last; exit 9"),
        &[],
        VERY_LONG,
    );
    assert_eq!(ran.end, End::Exited(9), "after {:?}", begin.elapsed());
    assert!(ran.output.len() < 5000);
    assert!(ran.output.starts_with("first\nxxx"), "{ran:?}");
    assert!(ran.output.ends_with("xxxlast\n"), "{ran:?}");
    assert!(ran.output.contains("bytes left out"));
}

#[test]
fn endless_output_ends_with_the_time_out_and_others_go_on() {
    let bench = Bench::new();
    let kind = |line: &str| Checker::Script(shell(line));
    let timeout = SHORT;
    bench.probes.start(1, Probe::new(kind("yes"), harness::PATIENCE, timeout));
    let interval = Duration::from_millis(100);
    bench.probes.start(2, Probe::new(kind("exit 0"), interval, timeout));
    let mut others = 0;
    loop {
        match bench.next() {
            (2, outcome) => {
                assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:?}");
                others += 1;
            }
            (_, outcome) => {
                assert_eq!(outcome.detail, "timed out after 3s: y");
                break;
            }
        }
    }
    assert!(others >= 4, "{others} runs beside the endless one");
}

#[test]
fn dropping_a_run_kills_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let pid = directory.path().join("pid");
    let make = std::process::Command::new("mkfifo").arg(&pid).status();
    assert!(make.expect("mkfifo").success());
    let command = shell(format!("sleep 1000 & echo $! > {}; wait", pid.display()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let pid = runtime.expect("a runtime").block_on(async {
        let read = tokio::task::spawn_blocking(move || fs::read_to_string(pid));
        let launcher = Launcher::new(1);
        tokio::select! {
            ran = launcher.run(&command, &[], LONG) => panic!("ended by itself: {ran:?}"),
            pid = read => pid.expect("no panic").expect("a process id"),
        }
    });
    wait_for_death(&pid);
}

#[test]
fn no_zombie_is_left_after_any_kind_of_end() {
    let me = std::process::id();
    let hooks = ["exit 0", "kill -9 $$", "sleep 1000 & exec sleep 1000"];
    for line in hooks {
        let ran = hook(&shell(format!("echo $$; {line}")), &[], SHORT);
        let pid = ran.output.trim().to_owned();
        assert!(!fs::exists(format!("/proc/{pid}")).expect("/proc"), "{line}: {ran:?} of {me}");
    }
}

#[test]
fn no_descriptor_of_ours_reaches_a_script() {
    let open = tempfile::NamedTempFile::new().expect("a file");
    let ran = hook(&Command::argv(["/bin/ls", "-l", "/proc/self/fd"]), &[], LONG);
    assert_eq!(ran.end, End::Exited(0));
    assert!(!ran.output.contains(&*open.path().to_string_lossy()), "{ran:?}");
    // Standard output and standard error; what the test itself inherited is not of our making.
    let pipes =
        ran.output.lines().filter(|line| line.contains(" 1 -> ") || line.contains(" 2 -> "));
    assert_eq!(pipes.filter(|line| line.contains("pipe:")).count(), 2, "{ran:?}");
}

#[test]
fn a_script_dies_of_a_broken_pipe_though_we_ignore_the_signal() {
    let ran = hook(&Command::argv(["/bin/grep", "SigIgn", "/proc/self/status"]), &[], LONG);
    let ignored = ran.output.split_whitespace().nth(1).expect("a mask");
    let ignored = u64::from_str_radix(ignored, 16).expect("hexadecimal");
    assert_eq!(ignored & 1 << (nix::sys::signal::Signal::SIGPIPE as u64 - 1), 0, "{ran:?}");
}

fn kill(pid: &str) {
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
}
