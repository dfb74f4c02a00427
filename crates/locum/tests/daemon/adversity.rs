//! What a hostile user and a dead file system do to a daemon: nothing that lasts.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{VIP, config};
use crate::support::{LIMIT, Namespace, Node, locum_at, stderr, stdout};

/// A process that says "ready" once it has done its evil, and ends with its standard input.
struct Leashed {
    child: Child,
    _leash: ChildStdin,
}

impl Leashed {
    /// `None`, with the reason printed, where the machine does not allow it.
    fn start(mut command: Command) -> Option<Self> {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let leash = child.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.trim() == "ready" {
            return Some(Self { child, _leash: leash });
        }
        drop(leash);
        let output = child.wait_with_output().unwrap();
        let reason = stderr(&output);
        assert!(std::env::var_os("LOCUM_REQUIRE_LAB").is_none(), "the lab is required: {reason}");
        eprintln!("skipped: not possible here: {reason}");
        None
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Another user listens on the name by which daemons of one network namespace know each other.
fn squat(namespace: &Namespace) -> Option<Leashed> {
    let squatter = "socket(S, AF_UNIX, SOCK_STREAM, 0) && bind(S, pack_sockaddr_un(\"\\0locum\")) \
                    && listen(S, 8) or die \"$!\"; $| = 1; print \"ready\\n\"; <STDIN>";
    let mut command = namespace.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command.args(["perl", "-MSocket", "-e", squatter]);
    Leashed::start(command)
}

#[test]
fn a_user_who_sits_on_the_daemons_name_keeps_it_from_nothing() {
    let Some(namespace) = Namespace::new() else { return };
    let Some(_squatter) = squat(&namespace) else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    node.wait_for_role("master");
    let log = node.log();
    assert!(log.contains("WARN user id 65534 holds the abstract socket"), "{log}");
    let stopped = node.locum(&["stop"]);
    assert_eq!(stopped.status.code(), Some(0), "{}", stderr(&stopped));
    assert_eq!(node.ended().code(), Some(0));
}

/// Puts a file system that never answers over the configuration, until dropped. Only the daemon's
/// mount namespace has it.
fn hang_configuration(node: &Node<'_>) -> Option<Leashed> {
    // The kernel asks whoever holds descriptor 3 for the file, and nobody reads the question.
    let script = "exec 3<>/dev/fuse && mount -i -t fuse dead \"$0\" \
                  -o fd=3,rootmode=100644,user_id=0,group_id=0 && echo ready && exec cat";
    let mut command = node.namespace.command("nsenter");
    command.args(["--target", &node.pid().to_string(), "--mount", "--", "sh", "-c", script]);
    command.arg(node.path("locum.toml"));
    Leashed::start(command)
}

/// A daemon with a mount namespace of its own.
fn start_apart(namespace: &Namespace) -> Node<'_> {
    let mut node = Node::new(namespace, &config("500ms", ""));
    let start = format!("exec unshare --mount -- '{}' \"$@\"", env!("CARGO_BIN_EXE_locum"));
    node.program = node.script("start", &start).into();
    node.start();
    node.wait_for_role("master");
    node
}

/// Asks for a reload and comes back when the daemon is reading.
fn begin_reload(node: &Node<'_>) -> Child {
    let ask = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_locum"));
        command.arg("reload").arg("--run-dir").arg(node.path("run"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // One of the two is refused, since the other's is under way.
    let (mut one, mut other) = (ask(), ask());
    let begun = Instant::now();
    let (refused, reading) = loop {
        if one.try_wait().unwrap().is_some() {
            break (one, other);
        }
        if other.try_wait().unwrap().is_some() {
            break (other, one);
        }
        assert!(begun.elapsed() < LIMIT, "both wait: {}", node.log());
        std::thread::sleep(Duration::from_millis(5));
    };
    let refused = refused.wait_with_output().unwrap();
    assert!(stderr(&refused).contains("another reload is under way"), "{}", stderr(&refused));
    reading
}

fn adverts_sent(status: &Value) -> u64 {
    let counters = status["instances"][0]["counters"].as_array().unwrap();
    let sent = counters.iter().find(|one| one["name"] == "advertisement-sent").unwrap();
    sent["value"].as_u64().unwrap()
}

#[test]
fn a_configuration_on_a_dead_file_system_holds_up_its_reload_and_nothing_else() {
    let Some(namespace) = Namespace::new() else { return };
    let node = start_apart(&namespace);
    let Some(dead) = hang_configuration(&node) else { return };
    let mut reload = begin_reload(&node);

    let before = adverts_sent(&node.status());
    node.wait_for("adverts", |status| adverts_sent(status) > before + 5);
    assert!(namespace.has(VIP), "its lease is renewed");
    assert_eq!(node.locum(&["status"]).status.code(), Some(0));
    assert!(reload.try_wait().unwrap().is_none(), "it is still being read");

    drop(dead);
    let mut said = String::new();
    reload.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(reload.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("cannot read the file"), "{said}");
    assert_eq!(node.status()["instances"][0]["role"], "master");
}

#[test]
fn a_daemon_that_is_reading_a_dead_file_ends_when_asked_to() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = start_apart(&namespace);
    let Some(_dead) = hang_configuration(&node) else { return };
    let mut reload = begin_reload(&node);
    let begun = Instant::now();
    let stopped = locum_at(&node.path("run"), &["stop"]);
    assert_eq!(stopped.status.code(), Some(0), "{}", stderr(&stopped));
    assert_eq!(node.ended().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    reload.wait().unwrap();
    assert!(!namespace.has(VIP));
}

/// A user whom nothing else runs as.
const USER: &str = "61234";

/// A daemon of a user whom the task limit binds, unlike root, and that has what it needs besides.
fn start_as_a_user(node: &mut Node<'_>) {
    let program = node.copy_program(env!("CARGO_BIN_EXE_locum").as_ref(), "locum");
    let start = format!(
        "chown -R {USER}:{USER} \"$(dirname \"$0\")\" && exec setpriv --reuid={USER} \
         --regid={USER} --clear-groups --inh-caps=+net_admin,+net_raw \
         --ambient-caps=+net_admin,+net_raw -- {} \"$@\"",
        program.display()
    );
    node.program = node.script("start", &start).into();
    node.start();
}

/// Asks for, or sets, how many tasks the daemon's user may have. As that user, who may without any
/// privilege.
fn task_limit(node: &Node<'_>, words: &[&str]) -> String {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups", "--"]);
    let output = command.args(["prlimit", "--pid", &node.pid().to_string()]).args(words).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output).trim().to_owned()
}

#[test]
fn a_task_limit_ends_no_daemon_and_loses_no_hook() {
    let Some(namespace) = Namespace::new() else { return };
    if !namespace.as_root {
        return eprintln!("skipped: only root can become another user");
    }
    let mut node = Node::new(&namespace, "");
    let hook = node.script("hook", "echo \"$LOCUM_STATE\"");
    // Their threads have gone when the next run is due.
    let extra = format!(
        "notify_fault = [\"{hook}\"]\ntrack = [\"well\", \"there\"]\n\
         [check.well]\nscript = [\"true\"]\ninterval = \"2500ms\"\nrise = 1\nfall = 1\n\
         weight = -10\n[check.there]\nprocess = \"locum\"\ninterval = \"2500ms\"\nrise = 1\n\
         fall = 1\nweight = -10\n"
    );
    node.write("locum.toml", &config("500ms", &extra));
    start_as_a_user(&mut node);
    node.wait_for_role("master");
    node.wait_for("both checks", |status| {
        status["checks"].as_array().unwrap().iter().all(|check| check["up"] == true)
    });

    let most = task_limit(&node, &["--nproc", "--output=HARD", "--noheadings"]);
    task_limit(&node, &["--nproc=1:"]);
    node.wait_for("checks without room", |status| {
        status["checks"].as_array().unwrap().iter().all(|check| {
            check["detail"].as_str().is_some_and(|text| text.contains("raise TasksMax"))
        })
    });
    namespace.ip(&["link", "set", "v0", "down"]);
    let postponed = node.wait_for_entry("hook", |entry| entry["kind"] == "hook");
    assert_eq!(postponed["outcome"], "postponed", "{postponed:#}");
    let detail = postponed["detail"].as_str().unwrap();
    assert!(detail.contains("tried again") && detail.contains("LimitNPROC"), "{detail}");

    task_limit(&node, &[&format!("--nproc={most}:")]);
    let run = node.wait_for_entry("hook", |entry| entry["outcome"] == "ok");
    assert_eq!(run["output"], "FAULT\n", "{run:#}");
    assert_eq!(run["event"], postponed["event"]);
    assert_eq!(node.status()["pid"], node.pid());
}

/// A daemon whose run directory is a file system of a few pages, all in use.
fn start_on_a_full_disk(node: &mut Node<'_>) {
    let script = "mkdir -m 700 \"$1\" \"$2\" && mount -t tmpfs -o size=16k,mode=700 tiny \"$2\" && \
                  { head -c 100000 /dev/zero > \"$2/ballast\" 2>/dev/null || true; } && \
                  exec \"$3\" run -c \"$4\" --run-dir \"$2\" --socket \"$1/control.sock\"";
    let (run, tiny) = (node.path("run"), node.path("tiny"));
    let start = format!(
        "exec unshare --mount -- sh -c '{script}' sh '{}' '{}' '{}' '{}'",
        run.display(),
        tiny.display(),
        env!("CARGO_BIN_EXE_locum"),
        node.path("locum.toml").display()
    );
    node.program = node.script("start", &start).into();
    node.start();
}

#[test]
fn a_full_run_directory_costs_the_history_file_alone_and_only_while_it_is_full() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    start_on_a_full_disk(&mut node);
    node.wait_for_role("master");
    let kinds = node.history();
    assert!(kinds.iter().any(|entry| entry["kind"] == "started"), "{kinds:#?}");
    let inside = |words: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args(["--target", &node.pid().to_string(), "--mount", "--"]).args(words);
        stdout(&command.output().unwrap())
    };
    let tiny = node.path("tiny");
    let file = tiny.join("history.jsonl");
    assert!(!inside(&["cat", file.to_str().unwrap()]).contains("started"));

    inside(&["rm", tiny.join("ballast").to_str().unwrap()]);
    let missing = |_: &Value| {
        let written = inside(&["cat", file.to_str().unwrap()]);
        let has = |kind: &str| written.contains(&format!("\"kind\":\"{kind}\""));
        has("started") && has("transition")
    };
    node.wait_for("what had found no room", missing);
    let log = node.log();
    assert_eq!(log.matches("cannot write").count(), 1, "said once: {log}");
    assert!(log.contains("is written again"), "{log}");
}

#[test]
fn a_log_that_has_no_room_ends_nothing_and_the_history_says_so_once() {
    let Some(namespace) = Namespace::new() else { return };
    // A warning is printed before the log begins.
    let unused = "[check.spare]\nprocess = \"spare\"\n";
    let mut node = Node::new(&namespace, &config("500ms", unused));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    node.start_logging_to(full.into());
    node.wait_for_role("master");
    let is_reported = |entry: &Value| {
        entry["text"].as_str().is_some_and(|text| text.contains("log lines cannot be written"))
    };
    node.wait_for_entry("mention", is_reported);
    let before = processor_ticks(&node);
    std::thread::sleep(Duration::from_secs(1));
    let used = processor_ticks(&node) - before;
    assert!(used < 50, "{used} hundredths of a second in one");
    node.signal("USR1");
    let stopped = node.locum(&["stop"]);
    assert_eq!(stopped.status.code(), Some(0), "{}", stderr(&stopped));
    assert_eq!(node.ended().code(), Some(0));
    let written = std::fs::read_to_string(node.path("run/history.jsonl")).unwrap();
    assert_eq!(written.matches("log lines cannot be written").count(), 1, "{written}");
}

/// What the daemon has used of a processor, in hundredths of a second.
fn processor_ticks(node: &Node<'_>) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn no_descriptor_that_the_daemon_was_started_with_reaches_a_hook() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, "");
    let hook = node.script("hook", "readlink /proc/self/fd/7; echo looked");
    node.write("locum.toml", &config("500ms", &format!("notify = [\"{hook}\"]")));
    let start = format!("exec 7</etc/passwd; exec '{}' \"$@\"", env!("CARGO_BIN_EXE_locum"));
    node.program = node.script("start", &start).into();
    node.start();
    let entry = node.wait_for_entry("hook", |entry| entry["kind"] == "hook");
    assert_eq!(entry["output"], "looked\n", "{entry:#}");
}
