//! Services by address translation, with real servers: the same clients as of the other backends.

use locum_integration::datagram;
use locum_integration::datagram::DatagramServer;
use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::require;
use locum_integration::service::Balanced;
use locum_integration::service::carriers;
use locum_integration::service::every_second;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::wait::seconds;
use locum_integration::web::HalfAsked;
use locum_integration::web::Requests;

use crate::backends;

const BACKEND: &str = "nftables";

const NAMES: &str = r#"
[[service]]
name = "dns"
instance = "web"
protocol = "udp"
listen = "192.168.1.100:53"
backend = "nftables"
scheduler = "rr"
health = { tcp = true, port = 53, interval = "500ms", timeout = "400ms", rise = 1, fall = 2 }
servers = ["10.0.0.1:53", "10.0.0.2:53"]
"#;

fn available() -> bool {
    require::lab(&["nft"])
}

/// Tables of ours that balance.
fn tables(node: &Node) -> String {
    let all = node.run(&["nft", "list", "tables"]);
    all.lines().filter(|line| line.contains("locum_balance")).collect()
}

#[test]
fn clients_follow_the_master() {
    if !available() {
        return;
    }
    let mut balanced = backends::settled(BACKEND);
    assert!(carriers(&balanced.lab.directors[0]).is_empty(), "no process carries them");
    let shown = backends::status(&balanced.lab.directors[0]);
    assert!(shown.contains("nftables"), "{shown}");
    wait::until("the backup has no table", ELECTION, || {
        tables(&balanced.lab.directors[1]).is_empty()
    });
    balanced.daemon(0).terminate();
    balanced.expect_service_by(1);
    balanced.expect_both_servers();
    wait::until("a clean stop removes the table", ELECTION, || {
        tables(&balanced.lab.directors[0]).is_empty()
    });
    balanced.start(0);
    balanced.expect_service_by(0);
    balanced.lab.unplug(0);
    balanced.expect_service_by(1);
    balanced.expect_both_servers();
}

/// `kill -9` of the daemon, and a start half a second later.
#[test]
fn rules_and_connections_go_on_while_the_daemon_is_started_again() {
    if !available() {
        return;
    }
    let mut balanced = backends::settled(BACKEND);
    let list = |balanced: &Balanced| {
        balanced.lab.directors[0].run(&["nft", "-a", "list", "table", "ip", "locum_balance"])
    };
    let handles = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.contains("comment"));
        lines.filter_map(|line| Some(line.rsplit_once("# ")?.1.to_owned())).collect()
    };
    let before = handles(&list(&balanced));
    assert!(!before.is_empty());
    let requests = Requests::start(&balanced.lab.client, balanced.vip());
    let held = HalfAsked::start(&balanced.lab.client, balanced.vip());
    balanced.daemon(0).kill_main();
    std::thread::sleep(millis(500));
    balanced.start_again(0);
    wait::until("the daemon answers", ELECTION, || {
        backends::status(&balanced.lab.directors[0]).contains("nftables")
    });
    // Longer than a look takes to come.
    std::thread::sleep(seconds(3));
    assert!(held.finish().is_ok(), "the connection that was there");
    let (answered, failed) = requests.stop();
    assert!(failed.is_empty(), "{failed:?}, {answered} answered");
    assert_eq!(handles(&list(&balanced)), before, "the same rules");
}

#[test]
fn what_somebody_flushed_is_put_back_and_said() {
    if !available() {
        return;
    }
    let balanced = backends::settled(BACKEND);
    balanced.lab.directors[0].run(&["nft", "flush", "ruleset"]);
    wait::until("the table is there again", ELECTION, || {
        !tables(&balanced.lab.directors[0]).is_empty()
    });
    balanced.expect_both_servers();
}

/// A resolver that goes on with one socket gets another server when its own is gone.
#[test]
fn a_client_of_datagrams_goes_on_with_another_server() {
    if !available() {
        return;
    }
    let mut balanced =
        Balanced::new(&every_second(&format!("{}{NAMES}", backends::weighted(BACKEND))));
    let mut servers: Vec<Option<DatagramServer>> =
        balanced.lab.servers.iter().map(|node| Some(DatagramServer::start(node))).collect();
    balanced.start(0);
    balanced.expect_service_by(0);
    let client = &balanced.lab.client;
    wait::until("both servers answer", ELECTION, || {
        let names: Vec<_> =
            (0..4).filter_map(|_| datagram::ask(client, balanced.vip()).ok()).collect();
        ["srv1", "srv2"].iter().all(|name| names.iter().any(|one| one == name))
    });
    let socket = client.in_network(|| std::net::UdpSocket::bind("0.0.0.0:0"));
    let socket = socket.expect("a socket");
    socket.set_read_timeout(Some(millis(300))).expect("a time limit");
    socket.connect((balanced.vip(), datagram::PORT)).expect("a destination");
    let ask = || -> Option<String> {
        let mut bytes = [0; 64];
        socket.send(b"who").ok()?;
        let length = socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    };
    let first = ask().expect("an answer");
    assert_eq!(ask().as_deref(), Some(first.as_str()), "it stays with its server");
    let gone = usize::from(first == "srv2");
    servers[gone] = None;
    let other = ["srv2", "srv1"][gone];
    wait::until("the other one answers the same socket", ELECTION, || {
        ask().as_deref() == Some(other)
    });
}
