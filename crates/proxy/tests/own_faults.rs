//! What is no server's fault: a service that reaches itself, and what this host has run out of.

mod bench;

use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;

use bench::{Client, Proxy, eventually, fresh_address, service, start_server};
use locum_proxy::protocol::{ProxyServerStatus, ProxyTransport};

/// Names the run of a test inside namespaces of its own.
const INSIDE: &str = "LOCUM_TEST_INSIDE";

#[test]
fn a_service_that_reaches_itself_is_cut_and_takes_nothing_of_another() {
    let mut web = service("web", "rr", &[]);
    web.servers = vec![bench::server(web.listen, 1)];
    let other = service("other", "rr", &[(start_server('o'), 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(&[web.clone(), other.clone()]);
    for _ in 0..20 {
        let client = TcpStream::connect(web.listen).map(Client::unheard).unwrap();
        assert!(client.ends_in_reset(), "nobody is there to serve it");
    }
    assert_eq!(Client::connect(other.listen).letter, 'o');
    eventually("the end of them all", || (proxy.service("web").active == 0).then_some(()));
    let status = proxy.service("web");
    // Found out once: then the server is passed over for a while.
    assert_eq!((status.loops, status.loop_through), (1, Some(web.listen)));
    assert_eq!(status.servers[0].failures, 0);
    // Beside a server that is one, clients are served.
    web.servers.push(bench::server(start_server('a'), 1));
    proxy.serve(&[web.clone(), other]);
    for _ in 0..4 {
        assert_eq!(Client::connect(web.listen).letter, 'a');
    }
}

#[test]
fn a_loop_over_two_services_is_found_and_a_chain_is_none() {
    let mut front = service("front", "rr", &[]);
    let mut back = service("back", "rr", &[(start_server('b'), 1)]);
    front.servers = vec![bench::server(back.listen, 1)];
    let mut proxy = Proxy::start(&[]);
    proxy.serve(&[front.clone(), back.clone()]);
    let mut client = Client::connect(front.listen);
    assert_eq!(client.letter, 'b');
    client.echo("through both").unwrap();
    assert_eq!((proxy.service("front").loops, proxy.service("back").loops), (0, 0));
    assert_eq!(client.finish(), "bye");
    back.servers = vec![bench::server(front.listen, 1)];
    proxy.serve(&[front.clone(), back]);
    assert!(TcpStream::connect(front.listen).map(Client::unheard).unwrap().ends_in_reset());
    assert_eq!((proxy.service("front").loops, proxy.service("back").loops), (1, 0));
}

#[test]
fn a_loop_is_none_of_its_own_addresss_connections() {
    let mut web = service("web", "rr", &[]);
    web.servers = vec![bench::server(web.listen, 1)];
    web.limits.per_source = Some(1);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    assert!(TcpStream::connect(web.listen).map(Client::unheard).unwrap().ends_in_reset());
    let status = proxy.service("web");
    assert_eq!((status.loops, status.crowded), (1, 0));
}

/// The limit with which so many more descriptors can be had.
fn descriptors_left(pid: u32, count: usize) -> usize {
    let is_free = |number: &usize| !Path::new(&format!("/proc/{pid}/fd/{number}")).is_symlink();
    (0..).filter(is_free).nth(count).unwrap()
}

fn limit_descriptors(pid: u32, count: usize) {
    let limit = format!("--nofile={count}:");
    let status =
        Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status().unwrap();
    assert!(status.success());
}

#[test]
fn descriptors_that_run_out_are_no_servers_failure_and_no_other_server_is_tried() {
    let web = service("web", "rr", &[(start_server('a'), 1), (start_server('b'), 1)]);
    let mut proxy = Proxy::start(&[]);
    let pid = proxy.serve(std::slice::from_ref(&web)).pid;
    let _held = Client::connect(web.listen);
    // One more is what accepting takes: nothing is left to connect with.
    limit_descriptors(pid, descriptors_left(pid, 1));
    assert!(TcpStream::connect(web.listen).map(Client::unheard).unwrap().ends_in_reset());
    let status = proxy.service("web");
    // The listener looks for another client at once, and runs out of them as well.
    assert!(status.shortages >= 1 && status.shortage.unwrap().contains("descriptors"));
    let counted = |server: &ProxyServerStatus| (server.connected, server.failures);
    let counted: Vec<_> = status.servers.iter().map(counted).collect();
    assert_eq!((status.refused, counted), (1, vec![(1, 0), (0, 0)]));
    limit_descriptors(pid, 1024);
    assert_eq!(Client::connect(web.listen).letter, 'a', "the one that was passed over is next");
}

#[test]
fn descriptors_that_run_out_are_asked_for_once_for_a_datagram() {
    let servers = [(fresh_address(), 1), (fresh_address(), 1)];
    let mut dns = service("dns", "rr", &servers);
    dns.transport = ProxyTransport::Udp;
    let mut proxy = Proxy::start(&[]);
    let pid = proxy.serve(std::slice::from_ref(&dns)).pid;
    limit_descriptors(pid, descriptors_left(pid, 0));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"x", dns.listen).unwrap();
    let status =
        eventually("the count", || Some(proxy.service("dns")).filter(|status| status.refused == 1));
    assert_eq!(status.shortages, 1, "what the host lacks it lacks for every server");
    assert!(status.servers.iter().all(|server| server.failures == 0));
}

/// Runs the test of this name inside a network namespace of its own; `false` where that is this run.
fn is_outside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let unshare = ["--user", "--map-root-user", "--net"];
    let possible = Command::new("unshare").args(unshare).arg("true").status();
    if !possible.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("LOCUM_REQUIRE_LAB").is_none(), "cannot make a namespace");
        eprintln!("skipped: cannot make a network namespace");
        return true;
    }
    let script = "ip link set lo up && echo 0 > /proc/sys/net/ipv4/tcp_tw_reuse \
                  && echo 40000 40019 > /proc/sys/net/ipv4/ip_local_port_range && exec \"$0\" \"$@\"";
    let inside = Command::new("unshare")
        .args(unshare)
        .args(["sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(inside.success());
    true
}

#[test]
fn local_ports_that_run_out_towards_one_server_are_not_its_failure_and_another_one_serves() {
    if is_outside(
        "local_ports_that_run_out_towards_one_server_are_not_its_failure_and_another_one_serves",
    ) {
        return;
    }
    let (a, b) = (start_server('a'), start_server('b'));
    let mut web = service("web", "rr", &[(a, 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    // Ports of clients are chosen here: the few that the kernel gives are for the proxy.
    let connect = |n: u16| {
        let source = std::net::SocketAddr::from(([127, 9, 9, 9], 20_000 + n));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&source.into()).unwrap();
        socket.connect(&web.listen.into()).unwrap();
        Client::unheard(socket.into())
    };
    let held: Vec<_> = (0..20).map(|n| Client::greeted(connect(n).stream)).collect();
    assert_eq!(held.len(), 20);
    assert!(connect(20).ends_in_reset());
    let status = proxy.service("web");
    assert_eq!((status.shortages, status.servers[0].failures), (1, 0));
    assert!(status.shortage.unwrap().contains("local ports"));
    web.servers.push(bench::server(b, 1));
    proxy.serve(std::slice::from_ref(&web));
    for n in 21..25 {
        assert_eq!(Client::greeted(connect(n).stream).letter, 'b');
    }
}

#[test]
fn a_server_that_refuses_is_still_a_failure() {
    let web = service("web", "rr", &[(fresh_address(), 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    assert!(TcpStream::connect(web.listen).map(Client::unheard).unwrap().ends_in_reset());
    let status =
        eventually("the count", || Some(proxy.service("web")).filter(|status| status.refused == 1));
    assert_eq!((status.shortages, status.servers[0].failures), (0, 1));
}
