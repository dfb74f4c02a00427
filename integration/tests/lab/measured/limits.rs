//! How long a client of one service waits while another service is full.

use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use locum_integration::pair::ELECTION;
use locum_integration::peer::locum_command;
use locum_integration::require;
use locum_integration::service::Balanced;
use locum_integration::service::INSTANCE;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::web;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;

const SERVICES: &str = r#"
[[service]]
name = "public"
listen = "192.168.1.100:80"
backend = "proxy"
servers = ["10.0.0.1:80"]

[[service]]
name = "internal"
listen = "192.168.1.100:81"
backend = "proxy"
health = { http = "/health", interval = "500ms", timeout = "400ms", rise = 1, fall = 2 }
servers = ["10.0.0.2:80"]
"#;

/// Of any request of the other service.
const BOUND: Duration = millis(50);

#[test]
fn idle_clients_of_one_service_cost_the_clients_of_another_one_nothing() {
    if !require::lab(&["nft", "prlimit"]) {
        return;
    }
    // The clients and the servers are threads of this process.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits can be asked for");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("a limit can be raised to the hard one");
    let mut balanced = Balanced::alone(&format!("{INSTANCE}{SERVICES}"));
    balanced.start_under(0, &["prlimit", "--nofile=1200:1200"]);
    balanced.expect_service_by(0);
    let public = SocketAddr::from((balanced.vip(), 80));
    let internal = SocketAddr::from((balanced.vip(), 81));
    let idle: Vec<TcpStream> = balanced.lab.client.in_network(|| {
        let connect = |_| TcpStream::connect_timeout(&public, wait::seconds(20));
        (0..700).map(connect).collect::<Result<_, _>>().expect("the kernel takes them")
    });
    let node = &balanced.lab.directors[0];
    let status = || {
        let output = locum_command(node, &["status"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    wait::until("status says who is full and of whom", ELECTION, || {
        let (code, said) = status();
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        code == Some(1)
            && said
                .contains("service public is strained: it has all the connections that its share")
            && said.contains("401 of 401 connections")
            && said.contains("299 waiting, 402 from 192.168.1.200")
    });
    let history = || {
        let output = locum_command(node, &["history", "--json"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wait::until("the history says so too", ELECTION, || {
        let said = history();
        let mut lines = said.lines().filter(|line| line.contains("\"kind\":\"strained\""));
        lines.any(|line| line.contains("\"object\":\"service public\",\"strained\":true"))
    });
    let ask = |_| {
        let start = Instant::now();
        web::get_at(&balanced.lab.client, internal).expect("the other service answers");
        start.elapsed()
    };
    let slowest = (0..100).map(ask).max().expect("some requests");
    println!("slowest of 100 requests beside 700 idle clients: {slowest:?}");
    assert!(slowest <= BOUND, "{slowest:?}");
    let (code, said) = status();
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains("internal is"), "{said}");
    drop(idle);
    wait::until("all is well again", ELECTION, || status().0 == Some(0));
    let log = balanced.daemon(0).log();
    let lines = log.lines().filter(|line| line.contains("service public is strained")).count();
    assert_eq!(lines, 1, "once a minute: {log}");
}
