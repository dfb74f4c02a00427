//! What the proxy's process has given up once it serves.

mod bench;

use std::fs;
use std::net::UdpSocket;
use std::process::Command;

use bench::{Client, PATIENCE, Proxy, fresh_address, service, start_server};
use locum_proxy::protocol::{ProxyServiceState, ProxyStatus, ProxyTransport};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// CAP_NET_BIND_SERVICE.
const BIND_LOW_PORTS: u64 = 1 << 10;

/// A line of `/proc/PID/status`.
fn field(status: &ProxyStatus, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/status", status.pid)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().to_owned()
}

fn capabilities(status: &ProxyStatus, name: &str) -> u64 {
    u64::from_str_radix(&field(status, name), 16).unwrap()
}

fn assert_confined(status: &ProxyStatus) {
    if std::env::var_os("LOCUM_REQUIRE_LAB").is_some() {
        assert_eq!(status.unconfined, <[&str; 0]>::default());
    }
    assert_eq!(field(status, "NoNewPrivs:"), "1");
    assert_eq!(field(status, "Seccomp:"), "2");
    for set in ["CapEff:", "CapPrm:"] {
        assert_eq!(capabilities(status, set) & !BIND_LOW_PORTS, 0, "{set}");
    }
    assert_eq!(capabilities(status, "CapInh:") | capabilities(status, "CapAmb:"), 0);
}

#[test]
fn whoever_starts_it_keeps_at_most_low_ports() {
    let mut proxy = Proxy::start(&[]);
    let web = service("web", "rr", &[(start_server('a'), 1)]);
    let status = proxy.serve(std::slice::from_ref(&web));
    assert_confined(&status);
    assert_eq!(Client::connect(web.listen).letter, 'a');
    // In its own directory it may still tidy up.
    proxy.serve(&[]);
    assert!(proxy.wait_for_exit().success());
    assert!(!proxy.socket().exists());
}

#[test]
fn as_another_user_it_serves_ports_below_1024_that_come_later_and_ends_at_a_signal() {
    if !geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let mut proxy = Proxy::start(&["--user", "65534:65534"]);
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    web.listen.set_port(80);
    let status = proxy.serve(std::slice::from_ref(&web));
    assert_confined(&status);
    for ids in ["Uid:", "Gid:"] {
        assert_eq!(field(&status, ids).split_whitespace().collect::<Vec<_>>(), ["65534"; 4]);
    }
    assert_eq!(field(&status, "Groups:"), "");
    let held = Client::connect(web.listen);
    let echo = UdpSocket::bind(fresh_address()).unwrap();
    let mut dns = service("dns", "rr", &[(echo.local_addr().unwrap(), 1)]);
    dns.transport = ProxyTransport::Udp;
    dns.listen.set_port(53);
    let status = proxy.serve(&[web.clone(), dns.clone()]);
    let states: Vec<_> = status.services.iter().map(|service| &service.state).collect();
    assert_eq!(states, [&ProxyServiceState::Listening; 2]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"x", dns.listen).unwrap();
    echo.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(echo.recv_from(&mut [0; 8]).unwrap().0, 1);
    // A new controller, and a signal from the user who started it.
    proxy.connect();
    assert_eq!(Client::connect(web.listen).letter, 'a');
    kill(Pid::from_raw(status.pid.cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(held.finish(), "bye");
    assert!(proxy.wait_for_exit().success());
}

#[test]
fn an_account_that_it_may_not_become_leaves_the_other_layers_and_is_said() {
    // A user namespace in which there is no other user than root.
    let namespace = ["unshare", "--user", "--map-root-user"];
    let possible = Command::new(namespace[0]).args(&namespace[1..]).arg("true").status();
    if !possible.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("LOCUM_REQUIRE_LAB").is_none(), "cannot make a namespace");
        eprintln!("skipped: cannot make a user namespace");
        return;
    }
    let mut proxy = Proxy::start_under(&namespace, &["--user", "65534:65534"]);
    let web = service("web", "rr", &[(start_server('a'), 1)]);
    let status = proxy.serve(std::slice::from_ref(&web));
    assert!(status.unconfined.iter().any(|lack| lack.contains("cannot become user 65534")));
    assert_eq!(field(&status, "Seccomp:"), "2");
    assert_eq!(capabilities(&status, "CapEff:") & !BIND_LOW_PORTS, 0);
    assert_eq!(Client::connect(web.listen).letter, 'a');
}
