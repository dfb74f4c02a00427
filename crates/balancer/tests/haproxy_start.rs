//! When a HAProxy counts as serving, what a warm standby does, and whose processes are adopted.

mod bench;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Instant;

use bench::{
    Bench, Client, address, failure, finish, fresh_address, get, has_haproxy, kill, serve, service,
    start_server, strain, tick_until, wanted,
};
use locum_balancer::Balancer;
use locum_plan::{Activity, HaproxyFile, Name, Standby, WantedHaproxy, WantedServices};
use nix::sys::signal::Signal;

/// One HAProxy in front of one server that answers with 'a'.
struct Edge {
    bench: Bench,
    name: &'static str,
    listen: SocketAddr,
    program: PathBuf,
}

impl Edge {
    fn new() -> Self {
        let edge = Self {
            bench: Bench::new(),
            name: "edge",
            listen: fresh_address(),
            program: "haproxy".into(),
        };
        edge.bind(&edge.listen.to_string());
        edge
    }

    fn config(&self) -> PathBuf {
        self.bench.path("edge.cfg")
    }

    fn bind(&self, bind: &str) {
        let server = start_server('a');
        let text = format!(
            "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1m\n    \
             timeout server 1m\nlisten web\n    bind {bind}\n    server a {server}\n"
        );
        fs::write(self.config(), text).unwrap();
    }

    /// A program in place of HAProxy. Copied by another process: a descriptor of ours that is open
    /// for writing while a neighbouring test forks would make it "busy".
    fn script(&mut self, text: &str) {
        let (draft, program) = (self.bench.path("draft"), self.bench.path("program"));
        fs::write(&draft, format!("#!/bin/sh\n{text}\n")).unwrap();
        assert!(Command::new("cp").args([&draft, &program]).status().unwrap().success());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        self.program = program;
    }

    fn wanted(&self, activity: Activity) -> WantedServices {
        let file = HaproxyFile {
            name: Name::from(self.name),
            instance: None,
            config: self.config(),
            program: self.program.clone(),
            standby: Standby::Warm,
            answer: None,
        };
        let haproxy = vec![WantedHaproxy { file: Arc::new(file), activity }];
        WantedServices { haproxy, ..WantedServices::default() }
    }

    fn start(&self) -> Balancer {
        let mut balancer = self.bench.balancer();
        serve(&mut balancer, &self.wanted(Activity::Active)).unwrap();
        balancer
    }

    /// Somebody else's process with the mark of this HAProxy in its environment.
    fn marked(&self, command: &mut Command) -> Child {
        let name = self.bench.path(self.name);
        command.env("LOCUM_HAPROXY", name).env("LOCUM_HAPROXY_DIGEST", "00").spawn().unwrap()
    }
}

fn pid(balancer: &mut Balancer) -> u32 {
    balancer.status().processes[0].pid.unwrap()
}

#[test]
fn one_that_starts_is_pending_until_it_answers_and_not_longer() {
    if !has_haproxy() {
        return;
    }
    for _ in 0..10 {
        let edge = Edge::new();
        let mut balancer = edge.bench.balancer();
        let start = Instant::now();
        balancer.apply(&edge.wanted(Activity::Active));
        let applied = start.elapsed();
        assert_eq!(balancer.progress().pending, [Name::from("edge")]);
        tick_until(&mut balancer, "an answer", |balancer, _| {
            balancer.progress().pending.is_empty()
        });
        let ready = start.elapsed();
        assert_eq!(balancer.progress().failed, []);
        assert_eq!(get(edge.listen).unwrap(), 'a', "it was said to answer");
        println!("applied after {applied:?}, answering after {ready:?}");
        finish(balancer);
    }
}

#[test]
fn one_that_does_not_come_up_keeps_no_other_waiting() {
    let mut edge = Edge::new();
    edge.script("exec sleep 600");
    let web = service("web", &[start_server('b')]);
    let mut level = wanted(&[&web]);
    level.haproxy = edge.wanted(Activity::Active).haproxy;
    let mut balancer = edge.bench.balancer();
    balancer.apply(&level);
    assert_eq!(balancer.progress().pending, [Name::from("edge")]);
    assert_eq!(balancer.progress().failed, []);
    assert_eq!(get(address(&web)).unwrap(), 'b');
    finish(balancer);
}

/// As on a host that is so busy that it is still binding after seconds.
#[test]
fn a_slow_successor_replaces_nothing_before_it_serves() {
    if !has_haproxy() {
        return;
    }
    let mut edge = Edge::new();
    edge.script("case \"$*\" in *' -sf '*) sleep 4 ;; esac\nexec haproxy \"$@\"");
    let mut balancer = edge.start();
    let before = pid(&mut balancer);
    let taken = fresh_address();
    let _squatter = std::net::TcpListener::bind(taken).unwrap();
    edge.bind(&format!("{}\n    bind {taken}", edge.listen));
    balancer.apply(&edge.wanted(Activity::Active));
    tick_until(&mut balancer, "the refusal", |balancer, _| {
        assert_eq!(balancer.progress().failed, []);
        assert_eq!(pid(balancer), before);
        strain(balancer, "edge").is_some_and(|error| error.contains("cannot bind socket"))
    });
    assert_eq!(get(edge.listen).unwrap(), 'a');
    finish(balancer);
}

#[test]
fn a_warm_standby_goes_through_role_changes_without_a_restart() {
    if !has_haproxy() {
        return;
    }
    let edge = Edge::new();
    let mut balancer = edge.bench.balancer();
    serve(&mut balancer, &edge.wanted(Activity::Ready)).unwrap();
    let before = pid(&mut balancer);
    let mut client = Client::connect(edge.listen).unwrap();
    for activity in [Activity::Active, Activity::Ready, Activity::Active] {
        balancer.apply(&edge.wanted(activity));
        assert_eq!(balancer.progress().pending, [], "it answers already");
        assert_eq!(pid(&mut balancer), before);
        assert_eq!(client.get().unwrap(), 'a');
    }
    drop(client);
    finish(balancer);
}

#[test]
fn a_standby_that_lacks_its_address_says_what_to_do() {
    if !has_haproxy() {
        return;
    }
    // A documentation address, which no host has.
    let edge = Edge::new();
    edge.bind("192.0.2.77:8080");
    let mut balancer = edge.bench.balancer();
    serve(&mut balancer, &edge.wanted(Activity::Ready)).unwrap_err();
    let error = failure(&balancer, "edge").unwrap();
    assert!(error.contains("add \"transparent\" to its bind lines"), "{error}");
    assert!(error.contains("net.ipv4.ip_nonlocal_bind=1"), "{error}");
    assert!(error.contains("192.0.2.77:8080"), "{error}");
    // What the message says helps, where we may.
    if nix::unistd::geteuid().is_root() {
        edge.bind("192.0.2.77:8080 transparent");
        serve(&mut balancer, &edge.wanted(Activity::Ready)).unwrap();
    }
    finish(balancer);
}

#[test]
fn a_standby_that_lacked_its_address_is_started_when_the_node_becomes_master() {
    if !has_haproxy() {
        return;
    }
    let mut edge = Edge::new();
    let here = edge.bench.path("here");
    edge.script(&format!(
        "[ -e {} ] && exec haproxy \"$@\"\n\
         echo '[ALERT] (1) : Starting proxy web: cannot bind socket (Cannot assign requested address)' >&2\n\
         exit 1",
        here.display()
    ));
    let mut balancer = edge.bench.balancer();
    serve(&mut balancer, &edge.wanted(Activity::Ready)).unwrap_err();
    // Until the next attempt is a long way off.
    tick_until(&mut balancer, "a few attempts", |balancer, _| {
        balancer.status().processes[0].restarts == 0 && failure(balancer, "edge").is_some()
    });
    fs::write(here, "").unwrap();
    balancer.apply(&edge.wanted(Activity::Active));
    assert_eq!(balancer.progress().pending, [Name::from("edge")], "what failed is forgotten");
    serve(&mut balancer, &edge.wanted(Activity::Active)).unwrap();
    assert_eq!(get(edge.listen).unwrap(), 'a');
    finish(balancer);
}

#[test]
fn a_name_with_a_slash_is_adopted_like_any_other() {
    if !has_haproxy() {
        return;
    }
    let mut edge = Edge::new();
    edge.name = "front/../edge 1";
    let mut crashed = edge.start();
    let before = pid(&mut crashed);
    drop(crashed);
    fs::remove_file(edge.bench.path("balancer-haproxy.json")).unwrap();
    let mut restarted = edge.start();
    assert_eq!(pid(&mut restarted), before);
    finish(restarted);
}

#[test]
fn a_process_that_only_carries_the_mark_is_neither_adopted_nor_signalled() {
    if !has_haproxy() {
        return;
    }
    let edge = Edge::new();
    // Such as a health check that our HAProxy ran, or a shell of somebody who copied the variables.
    let mut sleeper = edge.marked(Command::new("sleep").arg("600"));
    finish(edge.bench.balancer());
    // Even one that looks like ours, as long as the state file does not know of its start.
    let mut crashed = edge.start();
    let ours = pid(&mut crashed);
    drop(crashed);
    let mut twin = edge.marked(Command::new("haproxy").arg("-db").arg("-f").arg(edge.config()));
    let mut restarted = edge.start();
    assert_eq!(pid(&mut restarted), ours);
    finish(restarted);
    for stranger in [&mut sleeper, &mut twin] {
        assert_eq!(stranger.try_wait().unwrap(), None);
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}

#[test]
fn a_crash_in_the_middle_of_a_start_leaves_one_that_the_next_daemon_knows() {
    if !has_haproxy() {
        return;
    }
    let edge = Edge::new();
    let mut crashed = edge.bench.balancer();
    crashed.apply(&edge.wanted(Activity::Active));
    // The state file as it was when the process was started: with the key, without the process.
    let path = edge.bench.path("balancer-haproxy.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(state["edge"]["key"].is_string(), "{state}");
    state["edge"]["running"] = serde_json::Value::Null;
    tick_until(&mut crashed, "service", |balancer, _| balancer.progress().pending.is_empty());
    let before = pid(&mut crashed);
    drop(crashed);
    fs::write(&path, state.to_string()).unwrap();
    let mut restarted = edge.start();
    assert_eq!(pid(&mut restarted), before);
    kill(before, Signal::SIGTERM);
    finish(restarted);
    assert!(!is_running(before));
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z")))
}
