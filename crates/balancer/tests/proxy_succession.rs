//! Proxies of other programs are replaced while they serve.

mod bench;

use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bench::{
    Bench, Client, address, finish, get, serve, service, start_server, tick_until, wanted,
};
use locum_balancer::{Balancer, BalancerSettings};
use locum_plan::Service;
use locum_proxy::protocol::ProxyRequest;

/// A program of the bench's own: another file with each call, under the same name.
fn install(bench: &Bench, from: &Path) -> BalancerSettings {
    let (program, draft) = (bench.path("locum"), bench.path("draft"));
    // Copied by another process: a descriptor of ours that is open for writing while a neighbouring
    // test forks would make the program "busy".
    assert!(Command::new("cp").args([from, &*draft]).status().unwrap().success());
    std::fs::rename(draft, &program).unwrap();
    BalancerSettings { locum_program: program, ..bench.settings() }
}

fn pid(balancer: &mut Balancer) -> u32 {
    balancer.status().processes[0].pid.unwrap()
}

/// One that has a proxy serve this, and the proxy.
fn serving(settings: BalancerSettings, web: &Service) -> (Balancer, u32) {
    let mut balancer = Balancer::new(settings);
    serve(&mut balancer, &wanted(&[web])).unwrap();
    let pid = pid(&mut balancer);
    (balancer, pid)
}

#[test]
fn a_daemon_of_another_program_replaces_the_proxy_and_no_client_is_refused_or_cut() {
    let bench = Bench::new();
    let real = bench.settings().locum_program;
    let web = service("web", &[start_server('a')]);
    let (balancer, first) = serving(install(&bench, &real), &web);
    let mut staying = Client::connect(address(&web)).unwrap();
    assert_eq!(staying.get().unwrap(), 'a');
    let is_over = Arc::<AtomicBool>::default();
    let (over, listen) = (is_over.clone(), address(&web));
    let visitors = thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            assert_eq!(get(listen).unwrap(), 'a');
        }
    });

    // The same program: nothing happens.
    drop(balancer);
    let (balancer, same) = serving(install_nothing(&bench), &web);
    assert_eq!(same, first);

    drop(balancer);
    let mut balancer = Balancer::new(install(&bench, &real));
    balancer.apply(&wanted(&[&web]));
    let notes = tick_until(&mut balancer, "another proxy", |balancer, _| pid(balancer) != first);
    let text = format!("the proxy (pid {first}) runs another program: another one (pid ");
    assert!(notes.iter().any(|note| note.text.starts_with(&text)), "{notes:?}");
    assert_eq!(staying.get().unwrap(), 'a', "it finishes where it is");
    drop(staying);
    is_over.store(true, Ordering::Relaxed);
    visitors.join().expect("each visitor is served");
    finish(balancer);
}

fn install_nothing(bench: &Bench) -> BalancerSettings {
    BalancerSettings { locum_program: bench.path("locum"), ..bench.settings() }
}

#[test]
fn one_that_cannot_be_replaced_serves_on_and_the_log_says_why() {
    let bench = Bench::new();
    let real = bench.settings().locum_program;
    let web = service("web", &[start_server('a')]);
    let (balancer, first) = serving(install(&bench, &real), &web);
    let mut staying = Client::connect(address(&web)).unwrap();
    drop(balancer);
    let mut balancer = Balancer::new(install(&bench, Path::new("/bin/false")));
    balancer.apply(&wanted(&[&web]));
    let notes = tick_until(&mut balancer, "a word", |_, notes| {
        notes.iter().any(|note| note.text.contains("cannot be replaced"))
    });
    assert!(notes.iter().any(|note| note.text.ends_with("it exited with status 1")), "{notes:?}");
    assert_eq!((staying.get().unwrap(), get(address(&web)).unwrap()), ('a', 'a'));
    serve(&mut balancer, &wanted(&[&web])).unwrap();
    assert_eq!(pid(&mut balancer), first);
    drop(staying);
    finish(balancer);
}

/// As a daemon that died in between left it: with the user of the one that serves.
fn successor(bench: &Bench, before: u32) -> Child {
    let words = std::fs::read_to_string(format!("/proc/{before}/cmdline")).unwrap();
    let user = words.split('\0').skip_while(|word| *word != "--user").take(2);
    Command::new(bench.settings().locum_program)
        .args(["proxy".as_ref(), "--socket".as_ref(), bench.path("proxy.sock.next").as_os_str()])
        .args(["--predecessor".as_ref(), bench.path("proxy.sock").as_os_str()])
        .args(user)
        .spawn()
        .unwrap()
}

#[test]
fn a_daemon_that_died_before_its_new_proxy_had_anything_left_the_old_one_serving() {
    let bench = Bench::new();
    let web = service("web", &[start_server('a')]);
    let (balancer, first) = serving(bench.settings(), &web);
    drop(balancer);
    let mut half_way = successor(&bench, first);
    bench::eventually("it", || bench.path("proxy.sock.next").exists());
    let mut balancer = bench.balancer();
    serve(&mut balancer, &wanted(&[&web])).unwrap();
    assert_eq!((pid(&mut balancer), get(address(&web)).unwrap()), (first, 'a'));
    assert!(!half_way.wait().unwrap().success());
    assert!(!bench.path("proxy.sock.next").exists());
    finish(balancer);
}

#[test]
fn a_daemon_that_died_once_its_new_proxy_served_left_that_one() {
    let bench = Bench::new();
    let web = service("web", &[start_server('a')]);
    let (balancer, first) = serving(bench.settings(), &web);
    drop(balancer);
    let mut staying = Client::connect(address(&web)).unwrap();
    assert_eq!(staying.get().unwrap(), 'a');
    let mut half_way = successor(&bench, first);
    let request = service_request(&web);
    bench::eventually("it", || bench::say(&bench.path("proxy.sock.next"), &request).is_ok());
    let mut balancer = bench.balancer();
    serve(&mut balancer, &wanted(&[&web])).unwrap();
    assert_eq!((pid(&mut balancer), get(address(&web)).unwrap()), (half_way.id(), 'a'));
    assert_eq!(staying.get().unwrap(), 'a');
    drop(staying);
    finish(balancer);
    assert!(half_way.wait().unwrap().success());
}

fn service_request(web: &locum_plan::Service) -> String {
    let servers: Vec<_> = web
        .servers
        .iter()
        .map(|server| serde_json::json!({ "address": server.wanted().address, "weight": 1 }))
        .collect();
    let request = serde_json::json!({
        "request": "serve",
        "orphan": { "milliseconds": 60_000 },
        "services": [{
            "name": &*web.name,
            "listen": address(web),
            "scheduler": "rr",
            "drain_ms": 300,
            "servers": servers,
        }],
    });
    let text = request.to_string();
    assert!(serde_json::from_str::<ProxyRequest>(&text).is_ok());
    text
}
