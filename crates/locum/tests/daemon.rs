//! The life of one daemon in a network namespace: election, stop, reload, crash, hooks, checks.

#[path = "daemon/adversity.rs"]
mod adversity;
mod support;

use std::fs;
use std::process::Command;

use support::{LIMIT, Namespace, Node, stderr, stdout};

const VIP: &str = "10.9.0.100/24";

/// An interval of half a second lets a busy machine cost no master its place.
fn config(interval: &str, extra: &str) -> String {
    format!(
        "[[instance]]\nname = \"web\"\ninterface = \"v0\"\nvrid = 51\npriority = 150\n\
         advert_interval = \"{interval}\"\naddresses = [\"{VIP}\"]\n{extra}\n"
    )
}

#[test]
fn a_lone_daemon_becomes_master_and_a_stop_takes_the_address_away() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    let status = node.wait_for_role("master");
    assert_eq!(status["healthy"], true, "{status:#}");
    assert_eq!(status["instances"][0]["addresses"][0], VIP);
    node.wait_for("address in the kernel", |_| namespace.has(VIP));
    assert_eq!(node.locum(&["status"]).status.code(), Some(0));
    assert!(node.log().contains("(web) Entering MASTER STATE"), "{}", node.log());

    let stopped = node.locum(&["stop"]);
    assert_eq!(stopped.status.code(), Some(0), "{}", stderr(&stopped));
    assert_eq!(node.ended().code(), Some(0));
    assert!(!namespace.has(VIP));
    assert!(!node.path("run/control.sock").exists());
    assert_eq!(node.locum(&["status"]).status.code(), Some(2));
}

#[test]
fn a_termination_signal_is_a_stop() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    node.wait_for_role("master");
    node.signal("TERM");
    assert_eq!(node.ended().code(), Some(0));
    assert!(!namespace.has(VIP));
}

#[test]
fn a_broken_configuration_never_replaces_the_running_one() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    let before = node.wait_for_role("master");

    node.write("locum.toml", &config("500ms", "prioritty = 3"));
    let refused = node.locum(&["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("prioritty"), "{}", stderr(&refused));
    let after = node.status();
    assert_eq!(after["digest"], before["digest"]);
    assert_eq!(after["instances"][0]["role"], "master");
    node.wait_for_entry("refusal", |entry| entry["kind"] == "reload-refused");

    node.write("locum.toml", &config("500ms", "").replace("150", "120"));
    let accepted = node.locum(&["reload"]);
    assert_eq!(accepted.status.code(), Some(0), "{}", stderr(&accepted));
    let after = node.status();
    assert_ne!(after["digest"], before["digest"]);
    assert_eq!(after["instances"][0]["base_priority"], 120);
    assert_eq!(after["instances"][0]["role"], "master", "a changed priority moves nothing");
}

#[test]
fn a_configuration_that_was_cut_off_takes_nothing_away() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    node.wait_for_role("master");
    node.write("locum.toml", "");
    let refused = node.locum(&["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
    assert!(stderr(&refused).contains("no instance and no service"), "{}", stderr(&refused));
    assert_eq!(node.status()["instances"][0]["role"], "master");
    let shown = stdout(&node.locum(&["history"]));
    assert!(shown.contains("    | ") && shown.contains("[empty]"), "{shown}");
}

#[test]
fn a_reload_shows_the_warnings_of_what_it_puts_in_effect() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    node.wait_for_role("master");
    let unused = "[check.spare]\nprocess = \"spare\"\n";
    node.write("locum.toml", &config("500ms", unused));
    let accepted = node.locum(&["reload"]);
    assert_eq!(accepted.status.code(), Some(0), "{}", stderr(&accepted));
    let text = stdout(&accepted);
    assert!(text.contains("[unused-check]") && text.contains("configuration in effect"), "{text}");
}

/// It said "1 unchanged" whatever became of the services, and success before HAProxy had said no.
#[test]
fn a_reload_says_what_of_the_services_it_took_up_and_what_it_could_not() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, "");
    let service = |port: u16| {
        format!(
            "[[service]]\nname = \"www\"\ninstance = \"web\"\nlisten = \"10.9.0.100:80\"\n\
             backend = \"proxy\"\nservers = [{{ address = \"10.9.0.1:{port}\" }}]\n"
        )
    };
    node.write("locum.toml", &config("500ms", &service(8080)));
    node.start();
    let status = node.wait_for("answer", |status| {
        let fitness = &status["services"][0]["fitness"];
        fitness["aspect"] == "answering" && fitness["holds"] == true
    });
    let served = &status["services"][0];
    assert_eq!((&served["instance"], &served["active"]), (&"web".into(), &true.into()));
    assert_eq!(served["fitness"]["populated"], true, "nobody checks its server: {status:#}");
    node.write("locum.toml", &config("500ms", &service(8081)));
    let accepted = node.locum(&["reload"]);
    assert_eq!(accepted.status.code(), Some(0), "{}", stderr(&accepted));
    let expected = "configuration in effect: 0 added, 0 changed, 0 removed, 1 unchanged; services: \
                    1 changed (www)\n";
    assert_eq!(stdout(&accepted), expected);
    node.wait_for_entry("mention", |entry| {
        entry["text"].as_str().is_some_and(|text| text.contains("services: 1 changed (www)"))
    });

    // Its file is fine, and it does not start all the same.
    let words = "echo '[ALERT] (7) : cannot bind socket [10.9.0.100:8081]' >&2; exit 1";
    let program = node.script("haproxy", &format!("[ \"$1\" = -c ] && exit 0\n{words}"));
    node.write("front.cfg", "");
    let file = node.path("front.cfg");
    let front = format!(
        "[[haproxy]]\nname = \"front\"\ninstance = \"web\"\nconfig = \"{}\"\n\
         program = \"{program}\"\n",
        file.display()
    );
    node.write("locum.toml", &config("500ms", &format!("{}{front}", service(8081))));
    let incomplete = node.locum(&["reload"]);
    let text = format!("{}{}", stdout(&incomplete), stderr(&incomplete));
    assert_eq!(incomplete.status.code(), Some(1), "{text}");
    assert!(text.contains("services: 1 unchanged; haproxy: 1 added (front)\n"), "{text}");
    let refused = "haproxy front: its files are NOT taken up, and tried again until they are: ";
    assert!(text.contains(refused) && text.contains("cannot bind socket"), "{text}");
    let status = node.status();
    let problems: Vec<&str> =
        status["problems"].as_array().unwrap().iter().filter_map(|one| one.as_str()).collect();
    let about = |word: &str| problems.iter().filter(|problem| problem.contains(word)).count();
    assert_eq!(about("cannot bind socket"), 1, "one fault, one sentence: {problems:#?}");
}

#[test]
fn a_hang_up_signal_is_a_reload() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    node.wait_for_role("master");
    node.write("locum.toml", &config("500ms", "").replace("150", "121"));
    node.signal("HUP");
    node.wait_for("new priority", |status| status["instances"][0]["base_priority"] == 121);
}

#[test]
fn a_daemon_killed_on_the_master_is_master_again_without_an_election() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("1s", ""));
    node.start();
    node.wait_for_role("master");
    node.wait_for("address in the kernel", |_| namespace.has(VIP));
    node.kill();
    assert!(namespace.has(VIP), "a crash removes nothing");

    node.start();
    // An election would take three seconds; the first answer comes after milliseconds.
    let status = node.status();
    assert_eq!(status["instances"][0]["role"], "master", "{status:#}\n{}", node.log());
    assert!(namespace.has(VIP));
    node.wait_for_entry("adoption", |entry| entry["kind"] == "adopted" && entry["kept"] == true);
    let before = node.history().iter().filter(|entry| entry["kind"] == "started").count();
    assert_eq!(before, 2, "the history has both daemons");
}

#[test]
fn the_address_of_a_daemon_that_stays_dead_goes_by_itself() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    node.wait_for_role("master");
    node.wait_for("address in the kernel", |_| namespace.has(VIP));
    node.kill();
    let begun = std::time::Instant::now();
    while namespace.has(VIP) {
        assert!(begun.elapsed() < LIMIT, "the lease does not end");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_second_daemon_of_the_same_run_directory_is_refused() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    let refused = node.start_in_vain();
    assert_eq!(refused.status.code(), Some(1));
    let text = stderr(&refused);
    assert!(text.contains(&format!("process {}", node.pid())), "{text}");
    assert!(node.status()["node"].is_string(), "the first one goes on");
}

#[test]
fn a_second_daemon_in_the_network_namespace_is_refused_whatever_its_run_directory() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    node.wait_for_role("master");
    node.wait_for("address in the kernel", |_| namespace.has(VIP));
    let second = Node::new(&namespace, &config("500ms", ""));
    let refused = second.start_in_vain();
    assert_eq!(refused.status.code(), Some(1));
    let text = stderr(&refused);
    assert!(text.contains("network namespace"), "{text}");
    assert!(text.contains(&format!("process {}", node.pid())), "{text}");
    assert!(namespace.has(VIP), "the first one keeps its address");
}

#[test]
fn a_daemon_whose_run_directory_was_removed_makes_it_again_and_stays_alone() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    node.wait_for_role("master");
    fs::remove_dir_all(node.path("run")).unwrap();
    let refused = node.start_in_vain();
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    let status = node.wait_for_role("master");
    assert_eq!(status["pid"], node.pid());
    node.wait_for_entry("mention", |entry| {
        entry["text"].as_str().is_some_and(|text| text.contains("made again"))
    });
    assert!(node.path("run/history.jsonl").exists());
    assert!(stderr(&node.start_in_vain()).contains("already runs in"));
}

#[test]
fn a_switchover_that_cannot_be_is_refused_with_the_reason() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    node.wait_for_role("master");
    let unknown = node.locum(&["switchover", "wbe"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("there is web"), "{}", stderr(&unknown));

    let dry = node.locum(&["switchover", "web", "--dry-run"]);
    assert_eq!(dry.status.code(), Some(0), "{}", stderr(&dry));
    assert!(stdout(&dry).contains("would be offered"), "{}", stdout(&dry));

    let untaken = node.locum(&["switchover", "web"]);
    assert_eq!(untaken.status.code(), Some(1), "{}", stdout(&untaken));
    assert!(stdout(&untaken).contains("mastership is on offer"), "{}", stdout(&untaken));
    let said = stderr(&untaken);
    assert!(said.contains("web: nobody took it, so this node is master again"), "{said}");
    node.wait_for_entry("return", |entry| entry["cause"] == "no-successor");
    assert!(namespace.has(VIP), "nobody took it: it never left");
}

#[test]
fn a_missing_interface_is_a_fault_of_its_instance_alone() {
    let Some(namespace) = Namespace::new() else { return };
    let other = "\n[[instance]]\nname = \"lost\"\ninterface = \"nowhere0\"\nvrid = 52\n\
                 addresses = [\"10.9.0.101/24\"]\n";
    let mut node = Node::new(&namespace, &config("500ms", other));
    node.start();
    let status = node.wait_for_role("master");
    assert_eq!(status["instances"][1]["role"], "fault");
    assert!(status["problems"][0].as_str().unwrap().contains("nowhere0"), "{status:#}");
    assert_eq!(node.locum(&["status"]).status.code(), Some(1));
    let why = stdout(&node.locum(&["status", "--why"]));
    assert!(why.contains("nowhere0") && why.contains("web: "), "{why}");
}

#[test]
fn hooks_run_in_order_and_stand_in_the_history() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, "");
    let output = node.path("hooks");
    let hook = node.script("hook", &format!("echo \"$@\" >> {}; echo said", output.display()));
    node.write("locum.toml", &config("500ms", &format!("notify = [\"{hook}\"]")));
    node.start();
    node.wait_for_role("master");
    let entry = node.wait_for_entry("hook", |entry| {
        entry["kind"] == "hook" && entry["command"].as_str().unwrap().contains("MASTER")
    });
    assert_eq!(entry["outcome"], "ok", "{entry:#}");
    assert_eq!(entry["output"], "said\n");
    node.locum(&["stop"]);
    assert_eq!(node.ended().code(), Some(0));
    let lines = fs::read_to_string(&output).unwrap();
    assert!(lines.ends_with("INSTANCE web MASTER 150\nINSTANCE web STOP 150\n"), "{lines}");
}

#[test]
fn what_a_service_manager_left_for_the_daemon_reaches_no_hook_and_costs_no_exit_status() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, "");
    let hook = node.script("hook", "env; exit 7");
    node.write("locum.toml", &config("500ms", &format!("notify = [\"{hook}\"]")));
    let start = format!(
        "exec env --ignore-signal=CHLD NOTIFY_SOCKET=/nowhere LISTEN_FDS=1 WATCHDOG_USEC=1 \
         JOURNAL_STREAM=8:1 '{}' \"$@\"",
        env!("CARGO_BIN_EXE_locum")
    );
    node.program = node.script("start", &start).into();
    node.start();
    let entry = node.wait_for_entry("hook", |entry| entry["kind"] == "hook");
    assert_eq!(entry["detail"], "exited with status 7", "{entry:#}");
    let output = entry["output"].as_str().unwrap();
    assert!(output.contains("PATH="), "{output}");
    for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC", "JOURNAL_STREAM"] {
        assert!(!output.contains(name), "{output}");
    }
}

#[test]
fn a_signal_that_means_nothing_here_ends_nothing() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    node.signal("USR1");
    node.signal("USR2");
    node.wait_for("both answers", |_| {
        ["SIGUSR1", "SIGUSR2"].iter().all(|name| node.log().contains(name))
    });
    assert_eq!(node.status()["pid"], node.pid());
}

#[test]
fn a_role_that_lasts_has_one_since() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    let since = node.wait_for_role("master")["instances"][0]["since"].clone();
    for _ in 0..40 {
        // Longer than one look at the engine serves those who ask.
        std::thread::sleep(std::time::Duration::from_millis(21));
        assert_eq!(node.status()["instances"][0]["since"], since);
    }
}

#[test]
fn a_configuration_that_is_a_pipe_is_refused_and_holds_nothing_up() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    node.wait_for_role("master");
    fs::remove_file(node.path("locum.toml")).unwrap();
    nix::unistd::mkfifo(&node.path("locum.toml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let refused = node.locum(&["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("regular file"), "{}", stderr(&refused));
    assert_eq!(node.status()["instances"][0]["role"], "master");
}

#[test]
fn a_hook_that_hangs_is_killed_and_the_newest_event_follows() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, "");
    let hook = node.script("hook", "case $3 in BACKUP) exec sleep 1000;; esac");
    let web = config("500ms", &format!("notify = [\"{hook}\"]"));
    node.write("locum.toml", &format!("[hooks]\ntimeout = \"3s\"\n{web}"));
    node.start();
    node.wait_for_role("master");
    let hung = node.wait_for_entry("time-out", |entry| entry["outcome"] == "timed-out");
    assert!(hung["command"].as_str().unwrap().contains("BACKUP"), "{hung:#}");
    let next = node.wait_for_entry("next hook", |entry| entry["outcome"] == "ok");
    assert!(next["command"].as_str().unwrap().contains("MASTER"), "{next:#}");
}

#[test]
fn a_log_that_nobody_reads_delays_nothing() {
    let Some(namespace) = Namespace::new() else { return };
    // Two role changes of each instance are far more than the pipe holds.
    let many: String = (1..=200)
        .map(|vrid| {
            format!(
                "[[instance]]\nname = \"i{vrid}\"\ninterface = \"v0\"\nvrid = {vrid}\n\
                 advert_interval = \"50ms\"\naddresses = [\"10.9.1.{vrid}/32\"]\n"
            )
        })
        .collect();
    let mut node = Node::new(&namespace, &many);
    let (_unread, pipe) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    node.start_logging_to(pipe.into());
    node.wait_for("200 masters", |status| {
        let instances = status["instances"].as_array();
        instances
            .is_some_and(|all| all.len() == 200 && all.iter().all(|one| one["role"] == "master"))
    });
    let stopped = node.locum(&["stop"]);
    assert_eq!(stopped.status.code(), Some(0), "{}", stderr(&stopped));
    assert_eq!(node.ended().code(), Some(0));
}

#[test]
fn a_failing_check_lowers_the_priority_and_the_status_says_why() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, "");
    let flag = node.path("ill");
    let script = node.script("check", &format!("test ! -e {}", flag.display()));
    let check = format!(
        "track = [\"well\"]\n[check.well]\nscript = [\"{script}\"]\ninterval = \"50ms\"\n\
         rise = 1\nfall = 1\nweight = -60\n"
    );
    node.write("locum.toml", &config("500ms", &check));
    node.start();
    node.wait_for_role("master");
    fs::write(&flag, "").unwrap();
    node.wait_for("lower priority", |s| s["instances"][0]["effective_priority"] == 90);
    let output = node.locum(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("well"), "{}", stdout(&output));
    fs::remove_file(&flag).unwrap();
    node.wait_for("full priority", |s| s["instances"][0]["effective_priority"] == 150);
}

#[test]
fn an_address_that_someone_deletes_comes_back() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("1s", ""));
    node.start();
    node.wait_for_role("master");
    node.wait_for("address in the kernel", |_| namespace.has(VIP));
    namespace.ip(&["address", "del", VIP, "dev", "v0"]);
    node.wait_for("healing", |status| status["instances"][0]["healed"] == 1);
    node.wait_for("address in the kernel", |_| namespace.has(VIP));
}

#[test]
fn a_daemon_whose_program_was_replaced_still_starts_its_proxy() {
    let Some(namespace) = Namespace::new() else { return };
    let service = "[[service]]\nname = \"www\"\ninstance = \"web\"\nlisten = \"10.9.0.100:80\"\n\
                   backend = \"proxy\"\nscheduler = \"rr\"\nservers = [{ address = \"10.9.0.1:8080\" }]\n";
    let mut node = Node::new(&namespace, &config("500ms", service));
    node.program = node.copy_program(env!("CARGO_BIN_EXE_locum").as_ref(), "locum");
    node.start();
    fs::remove_file(&node.program).unwrap();
    let status = node.wait_for("proxy", |status| status["processes"][0]["state"] == "running");
    assert_eq!(status["instances"][0]["role"], "master", "not before: {status:#}");
    node.locum(&["stop"]);
    assert_eq!(node.ended().code(), Some(0));
}

/// What it asks for itself, and all with the program's text: that of a development build is twice
/// that of a release, and grows with every feature, whether it is used or not.
#[test]
fn the_daemon_asks_for_two_megabytes_and_is_resident_with_sixteen() {
    let Some(namespace) = Namespace::new() else { return };
    let mut node = Node::new(&namespace, &config("500ms", ""));
    node.start();
    node.wait_for_role("master");
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let kib = |field: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let (own, all) = (kib("RssAnon:"), kib("VmRSS:"));
    eprintln!("resident: {all} KiB, {own} of them its own");
    assert!(own < 2 * 1024, "{own} KiB");
    assert!(all < 16 * 1024, "{all} KiB");
}

#[test]
fn a_daemon_without_privileges_says_what_it_needs() {
    let Some(namespace) = Namespace::new() else { return };
    let node = Node::new(&namespace, &config("500ms", ""));
    let output = namespace
        .command("setpriv")
        .args(["--bounding-set=-net_admin,-net_raw", "--inh-caps=-all", "--"])
        .arg(env!("CARGO_BIN_EXE_locum"))
        .arg("run")
        .arg("--run-dir")
        .arg(node.path("run"))
        .arg("-c")
        .arg(node.path("locum.toml"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("CAP_NET_ADMIN"), "{}", stderr(&output));
}

#[test]
fn a_configuration_with_errors_never_starts() {
    let Some(namespace) = Namespace::new() else { return };
    let node = Node::new(&namespace, &config("500ms", "vrid = 300"));
    let output = node.start_in_vain();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("locum.toml:"), "{}", stderr(&output));
    assert!(!node.path("run/control.sock").exists());
}

#[test]
fn the_proxy_subcommand_is_reached_before_the_command_line_is_read() {
    let output = Command::new(env!("CARGO_BIN_EXE_locum")).args(["proxy", "--what"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("locum proxy"), "{}", stderr(&output));
}
