//! Whether clients of a HAProxy that runs are answered: stopped, hung and refused ones have failed, full
//! ones have not.

mod bench;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bench::{
    Bench, Client, PATIENCE, failure, finish, fresh_address, has_haproxy, kill, serve,
    start_server, strain, tick_until,
};
use locum_balancer::{Balancer, Progress};
use locum_plan::{Activity, HaproxyFile, HttpTarget, Name, Standby, WantedHaproxy, WantedServices};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Long enough for two questions and their answers, at every listener.
const TWO_QUESTIONS: Duration = Duration::from_millis(2500);

struct Gate {
    bench: Bench,
    listen: SocketAddr,
    program: PathBuf,
    answer: Option<HttpTarget>,
}

impl Gate {
    /// With the lines of a frontend behind its bind.
    fn new(mode: &str, lines: &str) -> Self {
        let gate = Self {
            bench: Bench::new(),
            listen: fresh_address(),
            program: "haproxy".into(),
            answer: None,
        };
        gate.write("gate.cfg", mode, lines);
        gate
    }

    fn write(&self, name: &str, mode: &str, lines: &str) {
        let text = format!(
            "global\n    nbthread 1\ndefaults\n    mode {mode}\n    timeout connect 5s\n    timeout \
             client 1m\n    timeout server 1m\nfrontend gate\n    bind {}\n{lines}\n",
            self.listen
        );
        fs::write(self.bench.path(name), text).unwrap();
    }

    fn load_lua(&self, text: &str) {
        let (lua, config) = (self.bench.path("gate.lua"), self.bench.path("gate.cfg"));
        fs::write(&lua, text).unwrap();
        let text = fs::read_to_string(&config).unwrap();
        let global = format!("global\n    insecure-fork-wanted\n    lua-load {}\n", lua.display());
        fs::write(&config, text.replacen("global\n", &global, 1)).unwrap();
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
            name: Name::from("gate"),
            instance: None,
            config: self.bench.path("gate.cfg"),
            program: self.program.clone(),
            standby: Standby::Warm,
            answer: self.answer.clone(),
        };
        let haproxy = vec![WantedHaproxy { file: Arc::new(file), activity }];
        WantedServices { haproxy, ..WantedServices::default() }
    }

    fn start(&self) -> Balancer {
        let mut balancer = self.bench.balancer();
        serve(&mut balancer, &self.wanted(Activity::Active)).unwrap();
        balancer
    }
}

fn pid(balancer: &mut Balancer) -> u32 {
    balancer.status().processes[0].pid.unwrap()
}

/// Without the ten seconds that connections may take to finish.
fn end(mut balancer: Balancer) {
    let pid = pid(&mut balancer);
    serve(&mut balancer, &WantedServices::default()).unwrap();
    // It may have ended by itself: with no connection left it does at once.
    let _ = nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    finish(balancer);
}

fn await_failure(balancer: &mut Balancer, words: &str) {
    tick_until(balancer, words, |balancer, _| {
        failure(balancer, "gate").is_some_and(|error| error.contains(words))
    });
}

fn await_health(balancer: &mut Balancer) {
    tick_until(balancer, "health", |balancer, _| balancer.progress() == Progress::default());
}

/// Ticks for so long, and asserts that it is well all the time.
fn stays_well(balancer: &mut Balancer, duration: Duration) {
    let start = Instant::now();
    tick_until(balancer, "the end of that time", |balancer, _| {
        assert_eq!(balancer.progress(), Progress::default());
        start.elapsed() > duration
    });
}

#[test]
fn one_that_is_stopped_has_failed_within_a_second_until_it_goes_on() {
    if !has_haproxy() {
        return;
    }
    let gate = Gate::new("http", "    monitor-uri /alive");
    let mut balancer = gate.start();
    let pid = pid(&mut balancer);
    stays_well(&mut balancer, Duration::from_millis(300));
    kill(pid, Signal::SIGSTOP);
    let stopped = Instant::now();
    await_failure(
        &mut balancer,
        &format!("is stopped and answers nobody: let it go on with kill -CONT {pid}"),
    );
    let known = stopped.elapsed();
    println!("known after {known:?}");
    // What a handover may count on is a second; this machine may have other things to do.
    assert!(known < Duration::from_secs(3), "{known:?}");
    let error = balancer.status().processes[0].error.clone();
    assert_eq!(error, failure(&balancer, "gate"));
    kill(pid, Signal::SIGCONT);
    await_health(&mut balancer);
    finish(balancer);
}

/// While it is there it has the port, and with it a part of its successor's clients.
#[test]
fn one_that_is_stopped_and_not_wanted_any_more_is_gone_at_once() {
    if !has_haproxy() {
        return;
    }
    let gate = Gate::new("http", "    monitor-uri /alive");
    let mut balancer = gate.start();
    kill(pid(&mut balancer), Signal::SIGSTOP);
    await_failure(&mut balancer, "is stopped");
    let start = Instant::now();
    finish(balancer);
    // One that goes on may take ten seconds.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_warm_standby_that_is_stopped_is_known_before_it_is_needed() {
    if !has_haproxy() {
        return;
    }
    let gate = Gate::new("http", "    monitor-uri /alive");
    let mut balancer = gate.start();
    balancer.apply(&gate.wanted(Activity::Ready));
    let pid = pid(&mut balancer);
    kill(pid, Signal::SIGSTOP);
    await_failure(&mut balancer, "is stopped");
    balancer.apply(&gate.wanted(Activity::Active));
    await_failure(&mut balancer, "is stopped");
    kill(pid, Signal::SIGCONT);
    await_health(&mut balancer);
    finish(balancer);
}

#[test]
fn one_that_is_full_is_strained_and_has_not_failed() {
    if !has_haproxy() {
        return;
    }
    for mode in ["http", "tcp"] {
        let server = start_server('a');
        let lines =
            format!("    maxconn 1\n    default_backend b\nbackend b\n    server s {server}");
        let gate = Gate::new(mode, &lines);
        let mut balancer = gate.start();
        let mut client = Client::connect(gate.listen).unwrap();
        assert_eq!(client.get().unwrap(), 'a');
        // In TCP mode nothing is known while nobody waits.
        let waiting = (mode == "tcp").then(|| Client::connect(gate.listen).unwrap());
        tick_until(&mut balancer, "the strain", |balancer, _| {
            assert_eq!(balancer.progress().failed, []);
            strain(balancer, "gate").is_some_and(|strain| strain.contains("is full"))
        });
        // It stays that.
        let start = Instant::now();
        tick_until(&mut balancer, "some time", |balancer, _| {
            assert_eq!(balancer.progress().failed, []);
            assert_eq!(client.get().unwrap(), 'a');
            start.elapsed() > TWO_QUESTIONS
        });
        drop((client, waiting));
        await_health(&mut balancer);
        end(balancer);
    }
}

#[test]
fn one_that_accepts_and_never_answers_has_failed() {
    if !has_haproxy() {
        return;
    }
    let mut gate = Gate::new("http", "");
    let silent = fresh_address();
    let _silent = TcpListener::bind(silent).unwrap();
    let lines = format!("    default_backend b\nbackend b\n    server s {silent}");
    gate.write("silent.cfg", "tcp", &lines);
    let config = gate.bench.path("silent.cfg");
    gate.script(&format!("exec haproxy -db -f {}", config.display()));
    let mut balancer = gate.start();
    await_failure(&mut balancer, "hangs, clients at");
    end(balancer);
}

/// It sleeps in a call of Lua, with the only thread it has.
#[test]
fn one_that_hangs_accepts_nobody_and_has_failed() {
    if !has_haproxy() {
        return;
    }
    let gate = Gate::new("http", "    http-request lua.hang if { path /hang }");
    gate.load_lua(
        "core.register_action('hang', {'http-req'}, function()\n\
         os.execute('exec sleep 600 >/dev/null 2>&1') end)\n",
    );
    let mut balancer = gate.start();
    let pid = pid(&mut balancer);
    stays_well(&mut balancer, TWO_QUESTIONS);
    let mut client = TcpStream::connect(gate.listen).unwrap();
    client.write_all(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    await_failure(&mut balancer, "hangs, ");
    let error = failure(&balancer, "gate").unwrap();
    assert!(error.contains(&format!("end it (pid {pid}), and it is started again")), "{error}");
    // As it says.
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    kill(pid, Signal::SIGKILL);
    for child in children.split_ascii_whitespace() {
        kill(child.parse().unwrap(), Signal::SIGKILL);
    }
    await_health(&mut balancer);
    finish(balancer);
}

/// Its only thread works for each request, longer in all than anybody is to wait.
#[test]
fn one_that_is_overloaded_is_strained_and_has_not_failed() {
    if !has_haproxy() {
        return;
    }
    let gate = Gate::new("http", "    http-request lua.work if { path /work }");
    // Patterns are searched in one piece: HAProxy does not take the processor away meanwhile.
    gate.load_lua(
        "core.register_action('work', {'http-req'}, function()\n\
         local start = os.clock()\n\
         while os.clock() - start < 0.3 do string.find(string.rep('a', 100), '.-.-.-b') end\n\
         end)\n",
    );
    let mut balancer = gate.start();
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..12)
        .map(|_| {
            let (is_over, listen) = (is_over.clone(), gate.listen);
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let mut client = TcpStream::connect(listen).unwrap();
                    client.set_read_timeout(Some(PATIENCE)).unwrap();
                    client.write_all(b"GET /work HTTP/1.0\r\n\r\n").unwrap();
                    assert!(client.read(&mut [0; 64]).unwrap() > 0);
                }
            })
        })
        .collect();
    tick_until(&mut balancer, "the strain", |balancer, _| {
        assert_eq!(balancer.progress().failed, []);
        strain(balancer, "gate").is_some_and(|strain| strain.contains("is overloaded"))
    });
    let start = Instant::now();
    tick_until(&mut balancer, "some time", |balancer, _| {
        assert_eq!(balancer.progress().failed, []);
        start.elapsed() > TWO_QUESTIONS
    });
    is_over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    await_health(&mut balancer);
    end(balancer);
}

#[test]
fn one_whose_monitor_says_no_has_failed_until_it_says_yes() {
    if !has_haproxy() {
        return;
    }
    let gate = Gate::new(
        "http",
        "    monitor-uri /alive\n    monitor fail if { nbsrv(b) lt 1 }\n    default_backend b\nbackend b\n    server s 127.0.0.1:9 disabled",
    );
    let mut balancer = gate.start();
    await_failure(&mut balancer, "answers with status 503");
    gate.write("gate.cfg", "http", "    monitor-uri /alive");
    balancer.apply(&gate.wanted(Activity::Active));
    await_health(&mut balancer);
    finish(balancer);
}

#[test]
fn the_page_that_an_operator_names_is_what_is_asked_for() {
    if !has_haproxy() {
        return;
    }
    let server = start_server('a');
    let lines = |server: &str| {
        format!(
            "    default_backend b\nbackend b\n    http-request deny deny_status 404 unless {{ path \
             /ready }} {{ req.hdr(host) shop.example }}\n    server s {server}"
        )
    };
    let mut gate = Gate::new("http", &lines(&server.to_string()));
    gate.answer = Some(HttpTarget {
        address: gate.listen,
        host: Some("shop.example".to_owned()),
        path: "/ready".to_owned(),
    });
    let mut balancer = gate.start();
    stays_well(&mut balancer, TWO_QUESTIONS);
    gate.answer.as_mut().unwrap().path = "/other".to_owned();
    balancer.apply(&gate.wanted(Activity::Active));
    await_failure(&mut balancer, "answers with status 404");
    finish(balancer);
}

/// An empty connection each second would be a fault in the log of many a server.
#[test]
fn a_server_of_tcp_mode_hears_nothing_of_it() {
    if !has_haproxy() {
        return;
    }
    let address = fresh_address();
    let server = TcpListener::bind(address).unwrap();
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = heard.clone();
    std::thread::spawn(move || {
        for mut client in server.incoming().flatten() {
            counter.fetch_add(1, Ordering::Relaxed);
            let _ = client.write_all(b"welcome");
        }
    });
    let lines = format!("    default_backend b\nbackend b\n    server s {address}");
    let gate = Gate::new("tcp", &lines);
    let mut balancer = gate.start();
    stays_well(&mut balancer, TWO_QUESTIONS);
    assert_eq!(heard.load(Ordering::Relaxed), 0);
    let mut client = TcpStream::connect(gate.listen).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.read_exact(&mut [0; 7]).unwrap();
    assert_eq!(heard.load(Ordering::Relaxed), 1);
    end(balancer);
}

/// Every way of listening that can be asked, each for some questions.
#[test]
fn one_that_answers_is_well_however_it_listens() {
    if !has_haproxy() {
        return;
    }
    let [tls, proxied, h2, alive, internal] = std::array::from_fn(|_| fresh_address());
    let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/first.pem");
    let gate = Gate::new(
        "http",
        &format!(
            "    bind {tls} ssl crt \"{pem}\"\n    bind {proxied} accept-proxy\n    bind {h2} proto h2\n    \
             bind 192.0.2.77:80 transparent\nfrontend other\n    monitor-uri /alive\n    bind {alive} \
             accept-proxy\npeers p\n    bind {internal}\n    server {} ",
            "localhost"
        ),
    );
    if !nix::unistd::geteuid().is_root() {
        let config = gate.bench.path("gate.cfg");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("    bind 192.0.2.77:80 transparent\n", "")).unwrap();
    }
    let mut balancer = gate.start();
    stays_well(&mut balancer, TWO_QUESTIONS);
    finish(balancer);
}
