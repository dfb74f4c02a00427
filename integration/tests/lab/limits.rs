//! What one service of the built-in proxy does to itself costs no other service anything, and what a
//! configuration says of connections under way holds.

use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;

use locum_integration::pair::ELECTION;
use locum_integration::peer::locum_command;
use locum_integration::require;
use locum_integration::service::Balanced;
use locum_integration::service::INSTANCE;
use locum_integration::wait;
use locum_integration::web;
use locum_integration::web::HalfAsked;

/// Nothing in the file says that 192.168.1.201 is the first director.
const LOOP: &str = r#"
[[service]]
name = "round"
serve = "always"
listen = "0.0.0.0:80"
backend = "proxy"
scheduler = "rr"
servers = ["192.168.1.201:80", "10.0.0.1:80"]

[[service]]
name = "other"
listen = "192.168.1.100:81"
backend = "proxy"
servers = ["10.0.0.2:80"]
"#;

/// What `locum status` says, as one line.
fn status(balanced: &Balanced) -> String {
    let output = locum_command(&balanced.lab.directors[0], &["status"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn service_that_reaches_itself_is_named_and_takes_no_other_one_down() {
    if !require::lab(&["nft", "prlimit"]) {
        return;
    }
    let mut balanced = Balanced::new(&format!("{INSTANCE}{LOOP}"));
    balanced.start_under(0, &["prlimit", "--nofile=1200:1200"]);
    let node = &balanced.lab.directors[0];
    wait::until("lb1 is master", ELECTION, || node.holds(balanced.vip()));
    let other = SocketAddr::from((balanced.vip(), 81));
    wait::until("the loop is shown", ELECTION, || {
        let _ = balanced.get();
        status(&balanced).contains(
            "service round is strained: it reaches itself through 192.168.1.201:80: take that server",
        )
    });
    // A client in ten seconds may find out anew that the server leads nowhere.
    let answered = (0..40).filter(|_| balanced.get().is_ok_and(|name| name == "srv1")).count();
    assert!(answered >= 38, "the other server serves: {answered} of 40");
    for _ in 0..20 {
        assert_eq!(web::get_at(&balanced.lab.client, other), Ok("srv2".to_owned()));
    }
    let held = node.shell("ls /proc/$(pgrep -f '[p]roxy --socket')/fd | wc -l");
    let held: usize = held.trim().parse().expect("a number");
    assert!(held < 40, "nothing has piled up: {held} descriptors");
}

const TWO: &str = r#"
[[service]]
name = "www"
listen = "192.168.1.100:80"
backend = "proxy"
scheduler = "rr"
health = { http = "/health", interval = "500ms", timeout = "400ms", rise = 1, fall = 2 }
servers = ["10.0.0.1:80", "10.0.0.2:80"]
"#;

/// Clients that close first leave the proxy, which closes in turn, with a port that is taken for a
/// minute. Then neither it nor the health checks can connect.
#[test]
fn director_without_local_ports_says_so_and_takes_no_server_out() {
    if !require::lab(&["nft"]) {
        return;
    }
    let mut balanced = Balanced::new(&format!("{INSTANCE}{TWO}"));
    balanced.start(0);
    balanced.expect_service_by(0);
    balanced.expect_both_servers();
    let node = &balanced.lab.directors[0];
    let set_ports = |range: &str| {
        node.shell(&format!("echo {range} > /proc/sys/net/ipv4/ip_local_port_range"));
    };
    node.shell("echo 0 > /proc/sys/net/ipv4/tcp_tw_reuse");
    set_ports("40000 40049");
    let address = SocketAddr::from((balanced.vip(), 80));
    balanced.lab.client.in_network(|| {
        for _ in 0..150 {
            let mut client = TcpStream::connect_timeout(&address, wait::seconds(20)).unwrap();
            // The last of them are cut.
            let _ = client.write_all(b"GET /health HTTP/1.1\r\n");
        }
    });
    wait::until("status says what has run out", ELECTION, || {
        status(&balanced)
            .contains("service www is strained: no local ports are left towards a server")
    });
    // Three times as long as a server takes to be down that does not answer.
    wait::throughout("no server is down", wait::seconds(3), || {
        !status(&balanced).contains("is down")
    });
    set_ports("32768 60999");
    balanced.expect_both_servers();
    let history = locum_command(node, &["history"]);
    let history = String::from_utf8_lossy(&history.stdout).into_owned();
    assert!(!history.contains("down"), "{history}");
}

/// One keeps the connections of a failed server, the other one does not.
const FAILED: &str = r#"
[[service]]
name = "quiesced"
listen = "192.168.1.100:80"
backend = "proxy"
failed = "quiesce"
drain = "1s"
health = { http = "/health", interval = "500ms", timeout = "400ms", rise = 1, fall = 2 }
servers = ["10.0.0.1:80", "10.0.0.2:80"]

[[service]]
name = "removed"
listen = "192.168.1.100:81"
backend = "proxy"
drain = "1s"
health = { http = "/health", interval = "500ms", timeout = "400ms", rise = 1, fall = 2 }
servers = ["10.0.0.1:80", "10.0.0.2:80"]
"#;

/// Of the clients of a service.
fn connections(balanced: &Balanced, name: &str) -> Option<u64> {
    let output = locum_command(&balanced.lab.directors[0], &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let services = status["services"].as_array()?;
    services.iter().find(|service| service["name"] == name)?["connections"].as_u64()
}

#[test]
fn connections_of_a_quiesced_server_live_and_those_of_a_removed_one_end() {
    if !require::lab(&["nft"]) {
        return;
    }
    let mut balanced = Balanced::new(&format!("{INSTANCE}{FAILED}"));
    balanced.start(0);
    balanced.expect_service_by(0);
    balanced.expect_both_servers();
    let vip = balanced.vip();
    // Two at each service: one for each server.
    let ask = |port| HalfAsked::start_at(&balanced.lab.client, SocketAddr::from((vip, port)));
    let quiesced = [ask(80), ask(80)];
    let removed = [ask(81), ask(81)];
    balanced.web[0].set_status(503);
    wait::until("the server of both is down", ELECTION, || {
        let said = status(&balanced);
        ["quiesced", "removed"]
            .iter()
            .all(|name| said.contains(&format!("server 10.0.0.1:80 of {name} is down")))
    });
    wait::until("the connection of the removed one is cut", ELECTION, || {
        connections(&balanced, "removed") == Some(1)
    });
    wait::throughout("those of the quiesced one stay", wait::seconds(2), || {
        connections(&balanced, "quiesced") == Some(2)
    });
    let mut ends = quiesced.map(HalfAsked::finish);
    ends.sort();
    let expected = [Ok("srv2".to_owned()), Err("HTTP/1.1 503 Lab".to_owned())];
    assert_eq!(ends, expected, "both are answered, each by the server that it had");
    let ends = removed.map(HalfAsked::finish);
    assert_eq!(ends.iter().filter(|end| **end == Ok("srv2".to_owned())).count(), 1, "{ends:?}");
    let cut = ends.iter().filter(|end| end.as_ref().is_err_and(|why| !why.contains("503")));
    assert_eq!(cut.count(), 1, "{ends:?}");
}
