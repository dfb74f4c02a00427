//! The proxy backend with a real proxy process.

mod bench;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bench::{
    Bench, Client, PATIENCE, edit, finish, get, kill, service, start_server, tick_until, wanted,
};
use locum_balancer::{BackendKind, Event, ProcessState, ServiceState};
use locum_plan::{Activity, Protocol, Scheduler, WantedServices};
use nix::sys::signal::Signal;

#[test]
fn no_proxy_runs_until_a_service_is_wanted_nor_after_it_was() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    balancer.apply(&WantedServices::default()).unwrap();
    assert!(balancer.is_idle());
    assert!(balancer.status().processes.is_empty());
    let web = service("web", &[start_server('a'), start_server('b')]);
    balancer.apply(&wanted(&[&web])).unwrap();
    assert_eq!((get(web.listen).unwrap(), get(web.listen).unwrap()), ('a', 'b'));
    let status = balancer.status();
    assert_eq!(status.processes[0].state, ProcessState::Running);
    assert_eq!(status.services[0].backend, BackendKind::Proxy);
    assert_eq!((status.services[0].state, status.services[0].accepted), (ServiceState::Serving, 2));
    finish(balancer);
    assert!(get(web.listen).is_err());
    assert!(!bench.path("proxy.sock").exists());
}

#[test]
fn the_same_level_twice_touches_neither_process_nor_connection() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    balancer.apply(&wanted(&[&web])).unwrap();
    let mut client = Client::connect(web.listen).unwrap();
    let pid = balancer.status().processes[0].pid;
    balancer.apply(&wanted(&[&web])).unwrap();
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
        balancer.apply(&wanted(&[&web])).unwrap();
        assert_eq!(get(web.listen).unwrap(), 'a');
        balancer.apply(&WantedServices::default()).unwrap();
    }
    let failed = |event: &Event| matches!(event, Event::Failed { .. });
    assert!(!balancer.tick().iter().any(failed));
    finish(balancer);
}

#[test]
fn a_daemon_that_crashed_and_came_back_keeps_proxy_and_connections() {
    let bench = Bench::new();
    let web = service("web", &[start_server('a')]);
    let mut crashed = bench.balancer();
    crashed.apply(&wanted(&[&web])).unwrap();
    let pid = crashed.status().processes[0].pid;
    let mut client = Client::connect(web.listen).unwrap();
    assert_eq!(client.get().unwrap(), 'a');
    drop(crashed);
    assert_eq!(client.get().unwrap(), 'a');
    let mut restarted = bench.balancer();
    restarted.apply(&wanted(&[&web])).unwrap();
    assert_eq!(restarted.status().processes[0].pid, pid);
    assert_eq!(client.get().unwrap(), 'a');
    finish(restarted);
}

#[test]
fn a_daemon_that_came_back_as_backup_ends_the_proxy_of_the_one_before() {
    let bench = Bench::new();
    let web = service("web", &[start_server('a')]);
    let mut crashed = bench.balancer();
    crashed.apply(&wanted(&[&web])).unwrap();
    drop(crashed);
    finish(bench.balancer());
    assert!(get(web.listen).is_err());
}

#[test]
fn a_proxy_that_was_killed_is_started_again() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    balancer.apply(&wanted(&[&web])).unwrap();
    kill(balancer.status().processes[0].pid.unwrap(), Signal::SIGKILL);
    let events = tick_until(&mut balancer, "a new proxy", |_, _| get(web.listen).is_ok());
    let note =
        |event: &Event| matches!(event, Event::Note { text, .. } if text.contains("SIGKILL"));
    assert!(events.iter().any(note), "{events:?}");
    assert_eq!(balancer.status().processes[0].restarts, 1);
    finish(balancer);
}

#[test]
fn a_proxy_that_hangs_is_killed_and_replaced() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    balancer.apply(&wanted(&[&web])).unwrap();
    let hung = balancer.status().processes[0].pid.unwrap();
    kill(hung, Signal::SIGSTOP);
    let events = tick_until(&mut balancer, "a new proxy", |balancer, events| {
        events.iter().any(|event| matches!(event, Event::Recovered { .. }))
            && balancer.status().processes[0].pid.is_some_and(|pid| pid != hung)
    });
    assert!(events.iter().any(|event| matches!(event, Event::Failed { .. })));
    assert_eq!(get(web.listen).unwrap(), 'a');
    finish(balancer);
}

#[test]
fn what_cannot_be_served_is_named_and_the_others_are_served() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    let mut dns = service("dns", &[]);
    dns.protocol = Protocol::Udp;
    let taken = service("taken", &[]);
    let squatter = std::net::TcpListener::bind(taken.listen).unwrap();
    let mut odd = service("odd", &[]);
    odd.scheduler = Scheduler("sed".to_owned());
    let mut errors = balancer.apply(&wanted(&[&dns, &taken, &odd, &web])).unwrap_err();
    errors.sort();
    let texts: Vec<_> = errors.iter().map(|(name, error)| format!("{name}: {error}")).collect();
    assert_eq!(texts[0], "dns: the proxy serves tcp only, udp needs backend = \"ipvs\"");
    assert_eq!(texts[1], "odd: the proxy has no scheduler sed, use rr, wrr, lc, wlc or sh");
    assert!(texts[2].starts_with("taken: cannot listen on 127."), "{texts:?}");
    assert_eq!(get(web.listen).unwrap(), 'a');
    drop(squatter);
    tick_until(&mut balancer, "the address", |_, events| {
        events.contains(&Event::Recovered { name: taken.name.clone() })
    });
    finish(balancer);
}

#[test]
fn a_running_proxy_learns_a_changed_lease_and_obeys_it() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    let mut level = wanted(&[&web]);
    balancer.apply(&level).unwrap();
    let proxy = balancer.status().processes[0].pid.unwrap();
    edit(&mut level, 0).lease = Some(Duration::from_millis(200));
    balancer.apply(&level).unwrap();
    assert_eq!(balancer.status().processes[0].pid, Some(proxy));
    // The daemon dies; the lease the proxy was started with would outlast the patience.
    drop(balancer);
    expect_end(web.listen);
}

#[test]
fn a_proxy_left_alone_serves_as_long_as_the_longest_of_its_leases() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let (web, shop) = (service("web", &[start_server('a')]), service("shop", &[]));
    let mut level = wanted(&[&shop, &web]);
    edit(&mut level, 0).lease = Some(Duration::from_millis(200));
    edit(&mut level, 1).lease = None;
    balancer.apply(&level).unwrap();
    drop(balancer);
    // Well past the shorter one; the other has no end.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(get(web.listen).unwrap(), 'a');

    let mut balancer = bench.balancer();
    edit(&mut level, 1).lease = Some(Duration::from_millis(400));
    balancer.apply(&level).unwrap();
    drop(balancer);
    expect_end(web.listen);
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
    let errors = balancer.apply(&wanted(&[&web])).unwrap_err();
    assert!(errors[0].1.contains("cannot start the proxy"), "{errors:?}");
    std::os::unix::fs::symlink(real, bench.path("locum")).unwrap();
    tick_until(&mut balancer, "the proxy", |_, _| get(web.listen).is_ok());
    finish(balancer);
}

#[test]
fn a_standby_takes_the_port_and_serves_nobody() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a')]);
    let mut level = wanted(&[&web]);
    edit(&mut level, 0).activity = Activity::Ready;
    balancer.apply(&level).unwrap();
    assert_eq!(balancer.status().services[0].state, ServiceState::Ready);
    assert!(get(web.listen).is_err());
    balancer.apply(&wanted(&[&web])).unwrap();
    assert_eq!(get(web.listen).unwrap(), 'a');
    finish(balancer);
}

#[test]
fn servers_in_force_count_and_not_the_configured_ones() {
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let web = service("web", &[start_server('a'), start_server('b')]);
    let mut level = wanted(&[&web]);
    edit(&mut level, 0).servers.remove(0);
    balancer.apply(&level).unwrap();
    assert_eq!((get(web.listen).unwrap(), get(web.listen).unwrap()), ('b', 'b'));
    finish(balancer);
}
