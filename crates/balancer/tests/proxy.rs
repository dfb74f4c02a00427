//! The proxy backend with a real proxy process.

mod bench;

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use bench::{
    Bench, Client, PATIENCE, address, edit, failure, finish, get, kill, serve, service,
    start_server, tick_until, wanted,
};
use locum_balancer::{BalancedState, ProcessState};
use locum_plan::{Activity, BackendKind, Protocol, Scheduler, Service, WantedServices};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

#[test]
fn no_proxy_runs_until_a_service_is_wanted_nor_after_it_was() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    serve(&mut balancer, &WantedServices::default()).unwrap();
    assert!(balancer.is_idle());
    assert!(balancer.status().processes.is_empty());
    let web = service("web", &[start_server('a'), start_server('b')]);
    serve(&mut balancer, &wanted(&[&web])).unwrap();
    assert_eq!((get(address(&web)).unwrap(), get(address(&web)).unwrap()), ('a', 'b'));
    let status = balancer.status();
    assert_eq!(status.processes[0].state, ProcessState::Running);
    assert_eq!(status.services[0].backend, BackendKind::Proxy);
    assert_eq!(
        (status.services[0].state, status.services[0].accepted),
        (BalancedState::Serving, 2)
    );
    let [of_service, a, b] = [
        status.services[0].octets.unwrap(),
        status.services[0].servers[0].octets.unwrap(),
        status.services[0].servers[1].octets.unwrap(),
    ];
    assert!(a.inward > 0 && a.outward > 0);
    assert_eq!(
        (a.inward + b.inward, a.outward + b.outward),
        (of_service.inward, of_service.outward)
    );
    finish(balancer);
    assert!(get(address(&web)).is_err());
    assert!(!bench.path("proxy.sock").exists());
}

/// It is root's to start, and root's to end.
#[test]
fn it_serves_as_nobody_where_we_may_become_another_user() {
    if !geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    serve(&mut balancer, &wanted(&[&web])).unwrap();
    let pid = balancer.status().processes[0].pid.unwrap();
    assert_eq!(get(address(&web)).unwrap(), 'a');
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert!(!user.split_whitespace().any(|id| id == "0"), "{user}");
    kill(pid, Signal::SIGKILL);
    let notes = tick_until(&mut balancer, "another one", |balancer, _| {
        balancer.status().processes[0].pid.is_some_and(|other| other != pid)
    });
    assert!(notes.iter().any(|note| note.text.contains("was killed by SIGKILL")), "{notes:?}");
    finish(balancer);
    assert!(!bench.path("proxy.sock").exists());
}

#[test]
fn the_same_level_twice_touches_neither_process_nor_connection() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    serve(&mut balancer, &wanted(&[&web])).unwrap();
    let mut client = Client::connect(address(&web)).unwrap();
    let pid = balancer.status().processes[0].pid;
    serve(&mut balancer, &wanted(&[&web])).unwrap();
    assert_eq!(client.get().unwrap(), 'a');
    assert_eq!(balancer.status().processes[0].pid, pid);
    finish(balancer);
}

#[test]
fn a_role_that_flaps_is_served_at_once_each_time() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    for _ in 0..20 {
        serve(&mut balancer, &wanted(&[&web])).unwrap();
        assert_eq!(get(address(&web)).unwrap(), 'a');
        serve(&mut balancer, &WantedServices::default()).unwrap();
    }
    balancer.tick();
    assert_eq!(balancer.progress().failed, []);
    finish(balancer);
}

#[test]
fn a_daemon_that_crashed_and_came_back_keeps_proxy_and_connections() {
    let bench = Bench::new();
    let web = service("web", &[start_server('a')]);
    let mut crashed = bench.balancer();
    serve(&mut crashed, &wanted(&[&web])).unwrap();
    let pid = crashed.status().processes[0].pid;
    let mut client = Client::connect(address(&web)).unwrap();
    assert_eq!(client.get().unwrap(), 'a');
    drop(crashed);
    assert_eq!(client.get().unwrap(), 'a');
    let mut restarted = bench.balancer();
    serve(&mut restarted, &wanted(&[&web])).unwrap();
    assert_eq!(restarted.status().processes[0].pid, pid);
    assert_eq!(client.get().unwrap(), 'a');
    finish(restarted);
}

#[test]
fn what_a_proxy_logs_is_in_our_log_for_the_daemon_after_the_one_that_started_it_too() {
    let bench = Bench::new();
    // Longer than until the next question.
    let web = Service { drain: PATIENCE, ..service("web", &[start_server('a')]) };
    let mut crashed = bench.balancer();
    serve(&mut crashed, &wanted(&[&web])).unwrap();
    let pid = crashed.status().processes[0].pid.unwrap();
    let mut client = Client::connect(address(&web)).unwrap();
    assert_eq!(client.get().unwrap(), 'a');
    drop(crashed);
    let mut restarted = bench.balancer();
    serve(&mut restarted, &wanted(&[&web])).unwrap();
    kill(pid, Signal::SIGTERM);
    let expected = format!("the proxy (pid {pid}) says: asked to terminate: serving ends");
    tick_until(&mut restarted, "its word", |_, notes| {
        notes.iter().any(|note| &*note.name == "proxy" && note.text == expected)
    });
    drop(client);
    finish(restarted);
}

#[test]
fn a_daemon_that_came_back_as_backup_ends_the_proxy_of_the_one_before() {
    let bench = Bench::new();
    let web = service("web", &[start_server('a')]);
    let mut crashed = bench.balancer();
    serve(&mut crashed, &wanted(&[&web])).unwrap();
    drop(crashed);
    finish(bench.balancer());
    assert!(get(address(&web)).is_err());
}

#[test]
fn a_proxy_that_was_killed_is_started_again() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    serve(&mut balancer, &wanted(&[&web])).unwrap();
    kill(balancer.status().processes[0].pid.unwrap(), Signal::SIGKILL);
    let notes = tick_until(&mut balancer, "a new proxy", |_, _| get(address(&web)).is_ok());
    assert!(notes.iter().any(|note| note.text.contains("SIGKILL")), "{notes:?}");
    assert_eq!(balancer.status().processes[0].restarts, 1);
    finish(balancer);
}

#[test]
fn a_proxy_that_hangs_is_killed_and_replaced() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    serve(&mut balancer, &wanted(&[&web])).unwrap();
    let hung = balancer.status().processes[0].pid.unwrap();
    kill(hung, Signal::SIGSTOP);
    tick_until(&mut balancer, "a failure", |balancer, _| failure(balancer, "web").is_some());
    tick_until(&mut balancer, "a new proxy", |balancer, _| {
        failure(balancer, "web").is_none()
            && balancer.status().processes[0].pid.is_some_and(|pid| pid != hung)
    });
    assert_eq!(get(address(&web)).unwrap(), 'a');
    finish(balancer);
}

#[test]
fn what_cannot_be_served_is_named_and_the_others_are_served() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    let mut dns = service("dns", &[]);
    dns.protocol = Protocol::Sctp;
    let taken = service("taken", &[]);
    let squatter = std::net::TcpListener::bind(address(&taken)).unwrap();
    let mut odd = service("odd", &[]);
    odd.scheduler = Scheduler::named("lblc");
    let mut errors = serve(&mut balancer, &wanted(&[&dns, &taken, &odd, &web])).unwrap_err();
    errors.sort();
    let texts: Vec<_> = errors.iter().map(|(name, error)| format!("{name}: {error}")).collect();
    assert_eq!(texts[0], "dns: the built-in proxy carries TCP and UDP only");
    let odd = "odd: the built-in proxy has no scheduler `lblc`, use one of rr, wrr, lc, wlc, sed, nq, \
               fo, ovf, sh, mh";
    assert_eq!(texts[1], odd);
    assert!(texts[2].starts_with("taken: cannot listen on 127."), "{texts:?}");
    assert_eq!(get(address(&web)).unwrap(), 'a');
    drop(squatter);
    tick_until(&mut balancer, "the address", |balancer, _| failure(balancer, "taken").is_none());
    finish(balancer);
}

#[test]
fn a_running_proxy_learns_a_changed_lease_and_obeys_it() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    let mut level = wanted(&[&web]);
    serve(&mut balancer, &level).unwrap();
    let proxy = balancer.status().processes[0].pid.unwrap();
    edit(&mut level, 0).lease = Some(Duration::from_millis(200));
    serve(&mut balancer, &level).unwrap();
    assert_eq!(balancer.status().processes[0].pid, Some(proxy));
    // The daemon dies; the lease the proxy was started with would outlast the patience.
    drop(balancer);
    expect_end(address(&web));
}

#[test]
fn a_proxy_left_alone_serves_as_long_as_the_longest_of_its_leases() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let (web, shop) = (service("web", &[start_server('a')]), service("shop", &[]));
    let mut level = wanted(&[&shop, &web]);
    edit(&mut level, 0).lease = Some(Duration::from_millis(200));
    edit(&mut level, 1).lease = None;
    serve(&mut balancer, &level).unwrap();
    drop(balancer);
    // Well past the shorter one; the other has no end.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(get(address(&web)).unwrap(), 'a');

    let mut balancer = bench.balancer();
    edit(&mut level, 1).lease = Some(Duration::from_millis(400));
    serve(&mut balancer, &level).unwrap();
    drop(balancer);
    expect_end(address(&web));
}

/// Waits until nobody serves there.
fn expect_end(listen: SocketAddr) {
    let start = Instant::now();
    while get(listen).is_ok() {
        assert!(start.elapsed() < PATIENCE, "it serves on alone");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_program_that_is_not_there_is_named_and_tried_again() {
    let bench = Bench::new();
    let mut settings = bench.settings();
    let real = std::mem::replace(&mut settings.locum_program, bench.path("locum"));
    let mut balancer = locum_balancer::Balancer::new(settings);
    let web = service("web", &[start_server('a')]);
    let errors = serve(&mut balancer, &wanted(&[&web])).unwrap_err();
    assert!(errors[0].1.contains("cannot start the proxy"), "{errors:?}");
    std::os::unix::fs::symlink(real, bench.path("locum")).unwrap();
    tick_until(&mut balancer, "the proxy", |_, _| get(address(&web)).is_ok());
    finish(balancer);
}

#[test]
fn a_standby_takes_the_port_and_serves_nobody() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    let mut level = wanted(&[&web]);
    edit(&mut level, 0).activity = Activity::Ready;
    serve(&mut balancer, &level).unwrap();
    assert_eq!(balancer.status().services[0].state, BalancedState::Ready);
    assert!(get(address(&web)).is_err());
    serve(&mut balancer, &wanted(&[&web])).unwrap();
    assert_eq!(get(address(&web)).unwrap(), 'a');
    finish(balancer);
}

#[test]
fn servers_in_force_count_and_not_the_configured_ones() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a'), start_server('b')]);
    let mut level = wanted(&[&web]);
    edit(&mut level, 0).servers.remove(0);
    serve(&mut balancer, &level).unwrap();
    assert_eq!((get(address(&web)).unwrap(), get(address(&web)).unwrap()), ('b', 'b'));
    finish(balancer);
}

#[test]
fn a_service_at_its_limit_is_strained_and_not_failed_and_the_log_says_so_once() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let mut web = service("web", &[start_server('a')]);
    web.limits.connections = Some(1);
    let other = service("other", &[start_server('o')]);
    serve(&mut balancer, &wanted(&[&web, &other])).unwrap();
    assert_eq!(balancer.progress().strained, []);
    let mut held = Client::connect(address(&web)).unwrap();
    assert_eq!(held.get().unwrap(), 'a');
    let waiting = TcpStream::connect(address(&web)).unwrap();
    let mut text = None;
    let notes = tick_until(&mut balancer, "a client that waits", |balancer, notes| {
        text = balancer.status().services[0].strained.clone();
        text.as_ref().is_some_and(|text| text.contains("1 waiting")) && !notes.is_empty()
    });
    let text = text.unwrap();
    assert!(text.starts_with("it has its max_connections of 1: raise it"), "{text}");
    assert!(text.contains("2 from 127."), "{text}");
    assert_eq!((notes.len(), &*notes[0].name), (1, "web"));
    assert!(
        notes[0]
            .text
            .starts_with("service web, which is strained: it has its max_connections of 1")
    );
    let progress = balancer.progress();
    assert_eq!((progress.pending, progress.failed), (Vec::new(), Vec::new()));
    // Without figures: what is the same is not told again and again.
    let expected = "it has its max_connections of 1: raise it, or add a director";
    assert_eq!(progress.strained, [("web".into(), expected.to_owned())]);
    assert_eq!(get(address(&other)).unwrap(), 'o');
    drop((held, waiting));
    let notes =
        tick_until(&mut balancer, "room", |balancer, _| balancer.progress().strained.is_empty());
    assert_eq!(notes, []);
    finish(balancer);
}

#[test]
fn a_proxy_that_never_answers_is_killed_and_reaped() {
    let bench = Bench::new();
    let mut settings = bench.settings();
    settings.locum_program = bench.path("sleeper");
    // Copied by another process: a descriptor of ours that is open for writing while a neighbouring
    // test forks would make the program "busy".
    let draft = bench.path("draft");
    std::fs::write(&draft, "#!/bin/sh\nexec sleep 600\n").unwrap();
    let copied = Command::new("cp").args([&draft, &settings.locum_program]).status().unwrap();
    assert!(copied.success());
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&settings.locum_program, mode).unwrap();
    let mut balancer = locum_balancer::Balancer::new(settings);
    let web = service("web", &[start_server('a')]);
    let errors = serve(&mut balancer, &wanted(&[&web])).unwrap_err();
    assert!(errors[0].1.contains("it does not answer"), "{errors:?}");
    finish(balancer);
    assert_eq!(sleepers(), Vec::<String>::new(), "neither alive nor a zombie");
}

/// What /proc says of children of this process that run `sleep`, or did.
fn sleepers() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|one| std::fs::read_to_string(one.path().join("stat")).ok());
    let parent = std::process::id().to_string();
    let is_ours = |stat: &String| {
        let Some((head, rest)) = stat.rsplit_once(") ") else { return false };
        head.ends_with("(sleep") && rest.split(' ').nth(1) == Some(parent.as_str())
    };
    stats.filter(is_ours).collect()
}
