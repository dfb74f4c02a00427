//! Services by a HAProxy whose configuration is made of them, with Debian's own HAProxy.

mod bench;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bench::{
    Bench, Client, address, edit, failure, finish, fresh_address, get, has_haproxy, kill, serve,
    start_server, tick_until, wanted,
};
use locum_balancer::{BalancedState, Balancer};
use locum_plan::{
    Activity, BackendChoice, BackendKind, HeaderVersion, Introduction, Name, Persistence,
    Scheduler, Server, Service, Standby, WantedServices,
};
use nix::sys::signal::Signal;

/// A service of HAProxy's in front of a server for each of these weights; they answer 'a', 'b', ….
fn service(name: &str, weights: &[u32]) -> Service {
    let servers = ('a'..)
        .zip(weights)
        .map(|(letter, weight)| Server { weight: *weight, ..Server::new(start_server(letter)) });
    Service {
        backend: BackendChoice::Only(BackendKind::Haproxy),
        scheduler: Scheduler::named("wrr"),
        standby: Standby::Warm,
        servers: servers.collect(),
        ..Service::new(Name::from(name), fresh_address().into())
    }
}

/// The answers of so many clients, in order.
fn answers(address: SocketAddr, count: usize) -> String {
    let mut letters: Vec<char> = (0..count).map(|_| get(address).unwrap_or('-')).collect();
    letters.sort_unstable();
    letters.into_iter().collect()
}

/// It may answer before it is known to serve.
fn pid(balancer: &mut Balancer) -> u32 {
    let mut found = None;
    tick_until(balancer, "a process", |balancer, _| {
        found = balancer.status().processes.first().and_then(|process| process.pid);
        found.is_some()
    });
    found.unwrap()
}

/// Waits until four clients are answered so, and no reload has been needed for that.
fn expect(balancer: &mut Balancer, service: &Service, expected: &str) {
    tick_until(balancer, expected, |_, _| answers(address(service), expected.len()) == expected);
}

/// By HAProxy as by the built-in proxy.
#[test]
fn a_server_hears_of_the_client_that_another_proxy_spoke_for() {
    if !has_haproxy() {
        return;
    }
    for kind in [BackendKind::Haproxy, BackendKind::Proxy] {
        let listener = TcpListener::bind(fresh_address()).unwrap();
        let mut server = Server::new(listener.local_addr().unwrap());
        server.introduced = Some(HeaderVersion::V1);
        let accepted = vec!["127.0.0.0/8".parse().unwrap()];
        let mut www = Service {
            backend: BackendChoice::Only(kind),
            servers: vec![server],
            introduction: Introduction { accepted },
            drain: Duration::from_millis(300),
            ..service("www", &[])
        };
        // Of the clients, and not of the one who speaks for them.
        www.limits.per_source = Some(1);
        let bench = Bench::new();
        let mut balancer = bench.balancer();
        serve(&mut balancer, &wanted(&[&www])).unwrap();
        let held = ["192.0.2.7", "192.0.2.8"].map(|client| {
            let line = format!("PROXY TCP4 {client} 192.0.2.10 1000 80\r\n");
            let mut stream = TcpStream::connect(address(&www)).unwrap();
            stream.write_all(line.as_bytes()).unwrap();
            let server = listener.accept().unwrap().0;
            server.set_read_timeout(Some(bench::PATIENCE)).unwrap();
            let mut heard = String::new();
            BufReader::new(&server).read_line(&mut heard).unwrap();
            assert_eq!(heard, line);
            (stream, server)
        });
        drop(held);
        finish(balancer);
    }
}

/// By HAProxy as by the built-in proxy.
#[test]
fn each_server_hears_who_the_client_is_as_it_expects_it() {
    if !has_haproxy() {
        return;
    }
    for kind in [BackendKind::Haproxy, BackendKind::Proxy] {
        let listeners = [(); 3].map(|()| TcpListener::bind(fresh_address()).unwrap());
        let headers = [None, Some(HeaderVersion::V1), Some(HeaderVersion::V2)];
        let servers = listeners.iter().zip(headers).map(|(listener, introduced)| Server {
            introduced,
            ..Server::new(listener.local_addr().unwrap())
        });
        let www = Service {
            backend: BackendChoice::Only(kind),
            servers: servers.collect(),
            ..service("www", &[])
        };
        let bench = Bench::new();
        let mut balancer = bench.balancer();
        serve(&mut balancer, &wanted(&[&www])).unwrap();
        let _clients = [(); 3].map(|()| {
            let mut client = TcpStream::connect(address(&www)).unwrap();
            client.write_all(b"hello, hello, hello").unwrap();
            client
        });
        let heard = listeners.each_ref().map(|listener| {
            let mut first = [0; 5];
            listener.accept().unwrap().0.read_exact(&mut first).unwrap();
            first
        });
        assert_eq!(heard, [*b"hello", *b"PROXY", *b"\r\n\r\n\0"], "{kind:?}");
        finish(balancer);
    }
}

/// By HAProxy as by the built-in proxy.
#[test]
fn clients_wait_for_a_full_server_in_turn_for_so_long_and_so_many() {
    if !has_haproxy() {
        return;
    }
    for kind in [BackendKind::Haproxy, BackendKind::Proxy] {
        let mut www = Service { backend: BackendChoice::Only(kind), ..service("www", &[1]) };
        www.servers[0].bounds.max = Some(1);
        www.limits.waiting = Some(2);
        www.limits.queue = Duration::from_secs(3);
        let bench = Bench::new();
        let mut balancer = bench.balancer();
        serve(&mut balancer, &wanted(&[&www])).unwrap();
        let mut served = Client::connect(address(&www)).unwrap();
        assert_eq!(served.get().unwrap(), 'a');
        let mut waiting = Vec::new();
        for count in 1..=2 {
            waiting.push(Client::connect(address(&www)).unwrap());
            tick_until(&mut balancer, "one that waits", |balancer, _| {
                balancer.status().services[0].waiting == Some(count)
            });
        }
        assert!(Client::connect(address(&www)).and_then(|mut third| third.get()).is_err());
        drop(served);
        let mut second = waiting.remove(0);
        assert_eq!(second.get().unwrap(), 'a', "the first one first, {kind:?}");
        // The other one is turned away in time.
        assert!(waiting.remove(0).get().is_err(), "{kind:?}");
        tick_until(&mut balancer, "nobody", |balancer, _| {
            balancer.status().services[0].waiting == Some(0)
        });
        assert_eq!(second.get().unwrap(), 'a');
        drop(second);
        finish(balancer);
    }
}

#[test]
fn clients_are_shared_by_weight_and_weights_change_without_a_reload() {
    if !has_haproxy() {
        return;
    }
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let www = service("www", &[1, 3]);
    let mut level = wanted(&[&www]);
    serve(&mut balancer, &level).unwrap();
    assert_eq!(answers(address(&www), 40), format!("{}{}", "a".repeat(10), "b".repeat(30)));
    let before = pid(&mut balancer);
    edit(&mut level, 0).servers[0].weight = 3;
    balancer.apply(&level);
    expect(&mut balancer, &www, "aabb");
    // Drained: who is there stays, who is new goes elsewhere.
    let mut clients: Vec<Client> =
        (0..2).map(|_| Client::connect(address(&www)).unwrap()).collect();
    let mut letters: Vec<char> = clients.iter_mut().map(|one| one.get().unwrap()).collect();
    edit(&mut level, 0).servers[0].weight = 0;
    balancer.apply(&level);
    expect(&mut balancer, &www, "bbbb");
    let again: Vec<char> = clients.iter_mut().map(|one| one.get().unwrap()).collect();
    assert_eq!(again, letters);
    // Failed: who is there is cut.
    edit(&mut level, 0).servers.remove(0);
    balancer.apply(&level);
    tick_until(&mut balancer, "the cut", |_, _| {
        clients.iter_mut().filter_map(|one| one.get().ok()).collect::<String>() == "b"
    });
    edit(&mut level, 0).servers = www.servers.iter().map(Server::wanted).collect();
    balancer.apply(&level);
    expect(&mut balancer, &www, "abbb");
    letters.sort_unstable();
    assert_eq!(letters, ['a', 'b']);
    drop(clients);
    assert_eq!(pid(&mut balancer), before, "no reload");
    tick_until(&mut balancer, "its numbers", |balancer, _| {
        let status = balancer.status();
        let www = &status.services[0];
        assert_eq!((www.backend, www.state), (BackendKind::Haproxy, BalancedState::Serving));
        www.accepted >= 44 && www.servers.len() == 2 && www.active == 0
    });
    finish(balancer);
}

/// What is out when HAProxy starts, or starts again, gets no client for a moment either.
#[test]
fn a_start_knows_which_servers_are_out() {
    if !has_haproxy() {
        return;
    }
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let www = service("www", &[1, 1]);
    let mut level = wanted(&[&www]);
    edit(&mut level, 0).servers.remove(0);
    balancer.apply(&level);
    tick_until(&mut balancer, "a listener", |_, _| get(address(&www)).is_ok());
    assert_eq!(answers(address(&www), 8), "bbbbbbbb");
    kill(pid(&mut balancer), Signal::SIGKILL);
    tick_until(&mut balancer, "another process", |_, _| get(address(&www)).is_ok());
    assert_eq!(answers(address(&www), 8), "bbbbbbbb");
    finish(balancer);
}

/// Clients that come one after the other while servers are added to the configuration: the process is
/// replaced, and nobody notices.
#[test]
fn a_reload_fails_no_request() {
    if !has_haproxy() {
        return;
    }
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let mut www = service("www", &[1, 1]);
    serve(&mut balancer, &wanted(&[&www])).unwrap();
    let mut processes = vec![pid(&mut balancer)];
    let (to, stop) = (address(&www), Arc::new(AtomicBool::new(false)));
    let clients = [(); 4].map(|()| {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                get(to).map_err(|error| format!("after {count}: {error}"))?;
                count += 1;
            }
            Ok::<u32, String>(count)
        })
    });
    for letter in ['c', 'd', 'e', 'f', 'g', 'h'] {
        www.servers.push(Server::new(start_server(letter)));
        serve(&mut balancer, &wanted(&[&www])).unwrap();
        tick_until(&mut balancer, "a client of the new server", |_, _| {
            answers(to, www.servers.len()).contains(letter)
        });
        processes.push(pid(&mut balancer));
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.join().unwrap().unwrap() > 20);
    }
    processes.dedup();
    assert_eq!(processes.len(), 7, "each was a reload");
    finish(balancer);
}

/// One that HAProxy cannot have keeps no other from being served.
#[test]
fn a_service_that_haproxy_refuses_is_left_out_and_says_so() {
    if !has_haproxy() {
        return;
    }
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let (www, shop) = (service("www", &[1]), service("sh op'\"$#\\ä", &[1]));
    let stranger = TcpListener::bind(address(&shop)).unwrap();
    let level = wanted(&[&www, &shop]);
    let refused = serve(&mut balancer, &level).unwrap_err();
    tick_until(&mut balancer, "www", |_, _| get(address(&www)).is_ok());
    assert_eq!(refused.len(), 1, "{refused:?}");
    tick_until(&mut balancer, "the reason", |balancer, _| {
        let progress = balancer.progress();
        progress.pending.is_empty() && progress.failed.len() == 1
    });
    let why = failure(&balancer, &shop.name).unwrap();
    assert!(why.contains("Address already in use"), "{why}");
    assert_eq!(failure(&balancer, "www"), None);
    drop(stranger);
    // Another service of that name is tried at once.
    let mut other = shop.clone();
    other.drain = Duration::from_secs(1);
    serve(&mut balancer, &wanted(&[&www, &other])).unwrap();
    assert_eq!(get(address(&shop)).unwrap(), 'a');
    finish(balancer);
}

#[test]
fn a_client_stays_with_its_server_and_leaves_one_that_is_drained() {
    if !has_haproxy() {
        return;
    }
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let mut www = service("www", &[1, 1]);
    www.persistence = Some(Persistence { timeout: 60, granularity: 24, engine: None });
    let mut level = wanted(&[&www]);
    serve(&mut balancer, &level).unwrap();
    let first = get(address(&www)).unwrap();
    assert_eq!(answers(address(&www), 8), first.to_string().repeat(8));
    let of_first = usize::from(first == 'b');
    edit(&mut level, 0).servers[of_first].weight = 0;
    balancer.apply(&level);
    let other = if first == 'a' { "bbbb" } else { "aaaa" };
    expect(&mut balancer, &www, other);
    finish(balancer);
}

/// The daemon is killed, and the next one goes on with what runs.
#[test]
fn a_process_of_an_earlier_daemon_is_taken_over_with_its_servers() {
    if !has_haproxy() {
        return;
    }
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let www = service("www", &[1, 1]);
    let mut level = wanted(&[&www]);
    serve(&mut balancer, &level).unwrap();
    let before = pid(&mut balancer);
    std::mem::forget(balancer);
    let mut balancer = bench.balancer();
    edit(&mut level, 0).servers[0].weight = 0;
    serve(&mut balancer, &level).unwrap();
    assert_eq!(pid(&mut balancer), before);
    expect(&mut balancer, &www, "bbbb");
    assert_eq!(pid(&mut balancer), before);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let directory = bench.path("haproxy");
    assert_eq!(mode(directory.clone()), 0o700);
    let config = directory.join("+every-node.cfg");
    assert_eq!(mode(config.clone()), 0o600);
    finish(balancer);
    assert!(!config.exists(), "what is not served leaves no file");
}

/// It has its ports before it has its addresses.
#[test]
fn a_warm_standby_runs_at_an_address_that_is_elsewhere() {
    if !has_haproxy() {
        return;
    }
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let mut www = service("www", &[1]);
    let nowhere: SocketAddr = "192.0.2.77:8099".parse().unwrap();
    www.listen = vec![nowhere.into()];
    let mut level = wanted(&[&www]);
    edit(&mut level, 0).activity = Activity::Ready;
    serve(&mut balancer, &level).unwrap();
    let standby = pid(&mut balancer);
    assert_eq!(balancer.status().services[0].state, BalancedState::Ready);
    edit(&mut level, 0).activity = Activity::Active;
    serve(&mut balancer, &level).unwrap();
    assert_eq!(pid(&mut balancer), standby, "the same process serves");
    finish(balancer);
}

/// Looked at where it does not run.
#[test]
fn a_cold_standby_is_checked_by_haproxy_itself() {
    if !has_haproxy() {
        return;
    }
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let mut www = service("www", &[1]);
    www.standby = Standby::Cold;
    let mut level = wanted(&[&www]);
    edit(&mut level, 0).activity = Activity::Idle;
    serve(&mut balancer, &level).unwrap();
    assert!(balancer.status().processes.is_empty());
    let _stranger = TcpListener::bind(address(&www)).unwrap();
    tick_until(&mut balancer, "the stranger", |balancer, _| {
        failure(balancer, "www").is_some_and(|why| why.contains("listens on"))
    });
    balancer.apply(&WantedServices::default());
    finish(balancer);
}
