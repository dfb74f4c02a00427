//! What a standby says of itself before it is needed: with Debian's HAProxy, real files and real
//! listeners.

mod bench;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::{
    Bench, address, failure, finish, fresh_address, get, has_haproxy, serve, service, start_server,
};
use bench::{tick_until, wanted};
use locum_balancer::{BalancedState, Balancer, BalancerSettings, ObstacleKind, verify};
use locum_plan::{
    Activity, BackendChoice, HaproxyFile, Name, Plan, Scheduler, Service, Standby, WantedHaproxy,
    WantedService, WantedServices,
};

/// A standby that cannot serve is shown within this.
const SHOWN: Duration = Duration::from_secs(2);

/// A HAProxy that needs a list beside its file.
struct Edge {
    bench: Bench,
    listen: SocketAddr,
    list: PathBuf,
    file: HaproxyFile,
}

impl Edge {
    fn new() -> Self {
        let bench = Bench::new();
        let (list, config) = (bench.path("list.acl"), bench.path("edge.cfg"));
        let listen = fresh_address();
        let file = HaproxyFile {
            name: Name::from("edge"),
            instance: None,
            config,
            program: "haproxy".into(),
            standby: Standby::Cold,
            answer: None,
        };
        fs::write(&list, "192.0.2.1\n").unwrap();
        let edge = Self { bench, listen, list, file };
        fs::write(&edge.file.config, edge.text()).unwrap();
        edge
    }

    fn text(&self) -> String {
        let (listen, list) = (self.listen, self.list.display());
        let server = start_server('a');
        format!(
            "defaults\n    mode http\n    timeout connect 5s\n    timeout client 1m\n    \
             timeout server 1m\nlisten web\n    bind {listen}\n    \
             http-request deny if {{ src -f {list} }}\n    server a {server}\n"
        )
    }

    fn level(&self, activity: Activity) -> WantedServices {
        level(&self.file, activity)
    }
}

fn level(file: &HaproxyFile, activity: Activity) -> WantedServices {
    let haproxy = vec![WantedHaproxy { file: Arc::new(file.clone()), activity }];
    WantedServices { haproxy, ..WantedServices::default() }
}

fn idle(service: &Service) -> WantedServices {
    let mut level = wanted(&[service]);
    let one: &mut WantedService = bench::edit(&mut level, 0);
    one.activity = Activity::Idle;
    one.servers.clear();
    level
}

/// Waits for it, and says how long that took.
fn time_until(balancer: &mut Balancer, what: &str, done: impl Fn(&Balancer) -> bool) -> Duration {
    let start = Instant::now();
    tick_until(balancer, what, |balancer, _| done(balancer));
    start.elapsed()
}

fn failed(name: &'static str) -> impl Fn(&Balancer) -> bool {
    move |balancer| failure(balancer, name).is_some()
}

fn well(balancer: &Balancer) -> bool {
    let progress = balancer.progress();
    progress.failed.is_empty() && progress.pending.is_empty()
}

/// Nothing that was looked at has run or listened.
fn end(mut balancer: Balancer) {
    assert_eq!(balancer.status().processes, []);
    assert!(balancer.is_idle(), "what is only looked at keeps no daemon from ending");
    finish(balancer);
}

#[test]
fn a_file_that_goes_and_comes_back_is_seen_within_two_seconds() {
    if !has_haproxy() {
        return;
    }
    let edge = Edge::new();
    let mut balancer = edge.bench.balancer();
    balancer.apply(&edge.level(Activity::Idle));
    assert_eq!(balancer.progress().pending, [Name::from("edge")], "nobody has waited for it");
    time_until(&mut balancer, "a verdict", well);
    assert!(TcpListener::bind(edge.listen).is_ok(), "nothing listens");
    fs::remove_file(&edge.list).unwrap();
    let pending = |balancer: &Balancer| {
        assert_eq!(balancer.progress().failed, [], "before anybody could have known");
        balancer.progress().pending == [Name::from("edge")]
    };
    let begun = Instant::now();
    time_until(&mut balancer, "a doubt", pending);
    time_until(&mut balancer, "the missing file", failed("edge"));
    let known = begun.elapsed();
    let text = failure(&balancer, "edge").unwrap();
    assert!(text.starts_with("haproxy refuses "), "{text}");
    assert!(text.contains("list.acl"), "{text}");
    fs::write(&edge.list, "192.0.2.1\n").unwrap();
    let mended = time_until(&mut balancer, "the file's return", well);
    println!("known after {known:?}, mended after {mended:?}");
    assert!(known < SHOWN && mended < SHOWN);
    end(balancer);
}

#[test]
fn what_is_missing_from_the_start_is_awaited_where_it_should_be() {
    if !has_haproxy() {
        return;
    }
    let mut edge = Edge::new();
    edge.list = edge.bench.path("not/yet/list.acl");
    let text = edge.text();
    fs::remove_file(&edge.file.config).unwrap();
    let mut balancer = edge.bench.balancer();
    balancer.apply(&edge.level(Activity::Idle));
    time_until(&mut balancer, "a missing file", failed("edge"));
    assert!(failure(&balancer, "edge").unwrap().starts_with("cannot read "));
    fs::write(&edge.file.config, text).unwrap();
    let refused = |balancer: &Balancer| {
        failure(balancer, "edge").is_some_and(|text| text.contains("list.acl"))
    };
    assert!(time_until(&mut balancer, "haproxy's opinion", refused) < SHOWN);
    fs::create_dir_all(edge.list.parent().unwrap()).unwrap();
    fs::write(&edge.list, "192.0.2.1\n").unwrap();
    assert!(time_until(&mut balancer, "the list", well) < SHOWN);
    end(balancer);
}

#[test]
fn a_file_that_is_being_written_is_not_judged() {
    if !has_haproxy() {
        return;
    }
    let edge = Edge::new();
    let mut balancer = edge.bench.balancer();
    balancer.apply(&edge.level(Activity::Idle));
    time_until(&mut balancer, "a verdict", well);
    let text = edge.text();
    let (half, rest) = text.split_at(text.len() / 2);
    for _ in 0..3 {
        fs::write(&edge.file.config, half).unwrap();
        let begun = Instant::now();
        time_until(&mut balancer, "a moment", |balancer| {
            assert_eq!(balancer.progress().failed, []);
            begun.elapsed() > Duration::from_millis(100)
        });
        fs::write(&edge.file.config, format!("{half}{rest}")).unwrap();
        let begun = Instant::now();
        time_until(&mut balancer, "the next look", |balancer| {
            assert_eq!(balancer.progress().failed, []);
            begun.elapsed() > Duration::from_millis(1200)
        });
    }
    end(balancer);
}

#[test]
fn a_stranger_on_the_port_is_named_until_it_leaves() {
    if !has_haproxy() {
        return;
    }
    let edge = Edge::new();
    let stranger = TcpListener::bind(edge.listen).unwrap();
    let mut balancer = edge.bench.balancer();
    balancer.apply(&edge.level(Activity::Idle));
    time_until(&mut balancer, "the stranger", failed("edge"));
    let text = failure(&balancer, "edge").unwrap();
    let expected = format!("(pid {}) listens on {}", std::process::id(), edge.listen);
    assert!(text.contains(&expected), "{text}");
    drop(stranger);
    assert!(time_until(&mut balancer, "a free port", well) < SHOWN);
    let stranger = TcpListener::bind(edge.listen).unwrap();
    assert!(time_until(&mut balancer, "the stranger again", failed("edge")) < SHOWN);
    drop(stranger);
    end(balancer);
}

/// As in a file that was copied from the other node.
#[test]
fn an_address_that_this_node_will_not_have_is_named_with_its_line() {
    if !has_haproxy() {
        return;
    }
    let edge = Edge::new();
    let file = |options: &str| {
        let text = edge.text();
        fs::write(
            &edge.file.config,
            format!("{text}listen stats\n    bind 192.0.2.1:8404{options}\n"),
        )
        .unwrap();
    };
    file("");
    let line = fs::read_to_string(&edge.file.config).unwrap().lines().count();
    let mut balancer = edge.bench.balancer();
    let level = edge.level(Activity::Idle);
    balancer.apply(&level);
    time_until(&mut balancer, "the foreign address", failed("edge"));
    let expected = format!(
        "line {line} of {} binds 192.0.2.1:8404, and 192.0.2.1 is neither an address of this node",
        edge.file.config.display()
    );
    let text = failure(&balancer, "edge").unwrap();
    assert!(text.starts_with(&expected), "{text}");
    file(" transparent");
    time_until(&mut balancer, "one that need not be here", well);
    file("");
    time_until(&mut balancer, "the foreign address again", failed("edge"));
    // It comes with the role.
    let virtual_addresses = Arc::from(["192.0.2.1".parse().unwrap()]);
    balancer.apply(&WantedServices { virtual_addresses, ..level });
    time_until(&mut balancer, "an address of an instance", well);
    end(balancer);
}

#[test]
fn a_listener_of_ours_is_no_stranger() {
    if !has_haproxy() {
        return;
    }
    let edge = Edge::new();
    let mut level = edge.level(Activity::Active);
    let other = HaproxyFile { name: Name::from("other"), ..edge.file.clone() };
    level.haproxy.extend(self::level(&other, Activity::Idle).haproxy);
    let www = service("www", &[start_server('b')]);
    let mut twin = www.clone();
    twin.name = Name::from("twin");
    level.services = wanted(&[&www]).services;
    level.services.extend(idle(&twin).services);
    let mut balancer = edge.bench.balancer();
    serve(&mut balancer, &level).unwrap();
    assert_eq!(get(edge.listen).unwrap(), 'a');
    assert_eq!(get(address(&www)).unwrap(), 'b');
    let begun = Instant::now();
    time_until(&mut balancer, "two looks", |balancer| {
        assert!(well(balancer), "{:?}", balancer.progress());
        begun.elapsed() > SHOWN
    });
    // Another process that does not know them: the one that `check --host` is.
    let plan = Plan { haproxy: vec![other], services: vec![twin], ..Plan::default() };
    assert_eq!(verify(&plan, &edge.bench.settings().locum_program), []);
    finish(balancer);
}

#[test]
fn one_that_runs_and_would_not_start_again_is_strained() {
    if !has_haproxy() {
        return;
    }
    let edge = Edge::new();
    let mut balancer = edge.bench.balancer();
    serve(&mut balancer, &edge.level(Activity::Active)).unwrap();
    // The same level again, as after a reload, makes it look at the files at once.
    balancer.apply(&edge.level(Activity::Active));
    let begun = Instant::now();
    time_until(&mut balancer, "a check", |_| begun.elapsed() > Duration::from_secs(1));
    fs::remove_file(&edge.list).unwrap();
    let strained = |balancer: &Balancer| !balancer.progress().strained.is_empty();
    assert!(time_until(&mut balancer, "the missing file", strained) < SHOWN);
    let progress = balancer.progress();
    assert_eq!(progress.failed, []);
    let text = &progress.strained[0].1;
    assert!(text.starts_with("it runs, and would not start again: haproxy refuses "), "{text}");
    assert_eq!(get(edge.listen).unwrap(), 'a');
    fs::write(&edge.list, "192.0.2.1\n").unwrap();
    let mended = |balancer: &Balancer| balancer.progress().strained.is_empty();
    assert!(time_until(&mut balancer, "the file's return", mended) < SHOWN);
    finish(balancer);
}

#[test]
fn a_check_that_hangs_keeps_nobody_waiting() {
    let edge = Edge::new();
    let (draft, program) = (edge.bench.path("draft"), edge.bench.path("program"));
    fs::write(&draft, "#!/bin/sh\nexec sleep 600\n").unwrap();
    // Copied by another process: a descriptor of ours that is open for writing while a neighbouring
    // test forks would make it "busy".
    assert!(Command::new("cp").args([&draft, &program]).status().unwrap().success());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let hung = HaproxyFile { program, ..edge.file.clone() };
    let mut level = level(&hung, Activity::Idle);
    let www = service("www", &[start_server('b')]);
    level.services = wanted(&[&www]).services;
    let mut balancer = edge.bench.balancer();
    balancer.apply(&level);
    assert_eq!(get(address(&www)).unwrap(), 'b');
    let begun = Instant::now();
    tick_until(&mut balancer, "a while", |balancer, _| {
        assert_eq!(balancer.progress().failed, []);
        begun.elapsed() > Duration::from_secs(1)
    });
    assert_eq!(balancer.progress().pending, [Name::from("edge")]);
    finish(balancer);
}

#[test]
fn a_service_of_the_proxy_needs_its_port_and_program() {
    let bench = Bench::new();
    let www = service("www", &[fresh_address()]);
    let mut balancer = bench.balancer();
    balancer.apply(&idle(&www));
    assert!(well(&balancer), "{:?}", balancer.progress());
    let stranger = TcpListener::bind(address(&www)).unwrap();
    assert!(time_until(&mut balancer, "the stranger", failed("www")) < SHOWN);
    assert!(failure(&balancer, "www").unwrap().contains("stop it, or use another port"));
    drop(stranger);
    assert!(time_until(&mut balancer, "a free port", well) < SHOWN);
    end(balancer);
    let locum_program = bench.path("no-such-locum");
    let settings = BalancerSettings { locum_program: locum_program.clone(), ..bench.settings() };
    let mut balancer = Balancer::new(settings);
    balancer.apply(&idle(&www));
    let text = failure(&balancer, "www").unwrap();
    let expected = format!("the built-in proxy cannot: cannot run {}: ", locum_program.display());
    assert!(text.starts_with(&expected), "{text}");
    let plan = Plan { services: vec![www], ..Plan::default() };
    let obstacles = verify(&plan, &locum_program);
    assert_eq!(obstacles.len(), 1, "{obstacles:?}");
    assert_eq!((obstacles[0].kind, &obstacles[0].text), (ObstacleKind::Host, &text));
    end(balancer);
}

/// On a kernel without IPVS.
#[test]
fn an_automatic_choice_takes_what_can_serve_here_and_says_why() {
    if std::path::Path::new("/proc/net/ip_vs").exists() {
        return eprintln!("not run: this kernel has IPVS");
    }
    let bench = Bench::new();
    let mut www = service("www", &[start_server('a')]);
    www.backend = BackendChoice::Auto;
    let mut balancer = bench.balancer();
    balancer.apply(&idle(&www));
    assert!(well(&balancer), "{:?}", balancer.progress());
    balancer.apply(&wanted(&[&www]));
    assert_eq!(get(address(&www)).unwrap(), 'a');
    let notes: Vec<_> = balancer.take_notes().into_iter().map(|note| note.text).collect();
    let said = "www is served by the built-in proxy: IPVS cannot: the kernel has no ipvs";
    assert!(notes.iter().any(|note| note.starts_with(said)), "{notes:?}");
    let written = fs::read_to_string(bench.path("balancer-backends.json")).unwrap();
    assert!(written.contains(said), "{written}");
    finish(balancer);
    // What the proxy does not have is served by nobody, on a standby and on a master.
    let mut dns = service("dns", &[fresh_address()]);
    (dns.backend, dns.scheduler) = (BackendChoice::Auto, Scheduler::named("lblc"));
    let mut balancer = bench.balancer();
    for level in [idle(&dns), wanted(&[&dns])] {
        balancer.apply(&level);
        let text = failure(&balancer, "dns").unwrap();
        assert!(text.starts_with("IPVS cannot: "), "{text}");
        assert!(text.contains("; the built-in proxy has no scheduler `lblc`"), "{text}");
    }
    let status = balancer.status();
    assert_eq!(status.services[0].state, BalancedState::Failed);
    assert!(!balancer.is_idle(), "it is tried again");
    finish(balancer);
}
