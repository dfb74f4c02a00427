//! What carrying requests costs: the ways to balance TCP beside each other, asked in turn by one
//! client. The proxy and HAProxy share a director; of rule sets each has one of its own, as all of
//! a host meet every packet.

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use super::TICKS_PER_SECOND;
use super::nginx;
use crate::lab::Lab;
use crate::lab::Shape;
use crate::node::Node;
use crate::peer::Locum;
use crate::peer::Running;
use crate::process::Process;
use crate::require;
use crate::require::Company;
use crate::wait;
use crate::wait::seconds;
use crate::web;

/// Where the proxy and HAProxy listen, and where each rule set does: on a director of its own.
const DIRECTOR: &str = "192.168.1.201";
const RULES: &str = "192.168.1.202";
const HAND: &str = "192.168.1.203";
/// The real server.
const SERVER: &str = "10.0.0.1:80";

/// How many clients at a time, and whether each keeps its connection.
const LOADS: [Load; 6] = [
    Load { connections: 1, keeps: true },
    Load { connections: 64, keeps: true },
    Load { connections: 1000, keeps: true },
    Load { connections: 1, keeps: false },
    Load { connections: 64, keeps: false },
    Load { connections: 1000, keeps: false },
];

#[derive(Clone, Copy)]
struct Load {
    connections: u32,
    keeps: bool,
}

/// How many services a rule set has besides the one that is asked.
const SERVICES: [u16; 2] = [0, 999];

/// Of address translation: beside rules written by hand, and beside HAProxy, kept alive.
const BESIDE_HAND: f64 = 0.97;
const BESIDE_HAPROXY: f64 = 1.5;

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kept = if self.keeps { "kept" } else { "per request" };
        write!(f, "{:5} {kept:12}", self.connections)
    }
}

/// What carries the requests; each at an address and port of its own.
struct Contestant {
    label: &'static str,
    address: &'static str,
    port: u16,
    carrier: Carrier,
}

enum Carrier {
    Ours(Running),
    Peer(Process),
    /// The kernel, in nobody's time; with who has set the rules and keeps them.
    Rules(#[expect(dead_code, reason = "kept as long as its rules are asked")] Option<Running>),
}

impl Contestant {
    fn ticks(&mut self) -> u64 {
        match &mut self.carrier {
            Carrier::Ours(daemon) => daemon.process().ticks(),
            Carrier::Peer(process) => process.ticks(),
            Carrier::Rules(_) => 0,
        }
    }

    /// Waits until a client is answered.
    fn expect(&self, client: &Node) {
        let address = format!("{}:{}", self.address, self.port).parse().expect("an address");
        wait::until(self.label, seconds(20), || web::get_at(client, address).is_ok());
    }
}

/// Sums over the turns of one contestant under one load.
#[derive(Clone, Copy, Default)]
struct Score {
    requests: f64,
    seconds: f64,
    processor: f64,
    failed: u64,
}

impl Score {
    fn per_second(self) -> f64 {
        self.requests / self.seconds
    }

    fn per_processor_second(self) -> f64 {
        self.requests / self.processor.max(f64::EPSILON)
    }
}

/// `turns` of `period` for each contestant under each load, and the throughput of one stream.
pub fn balance(turns: u32, period: Duration) -> bool {
    if !require::lab(&["haproxy", "nginx", "wrk", "iperf3", "nft"]) {
        return false;
    }
    let shape = Shape { directors: 3, servers: 1, company: Company::Alone };
    let lab = Lab::new(shape);
    for node in lab.directors.iter().chain([&lab.client]) {
        // Thousands of connections a second leave more ports behind than there are by default.
        node.shell("sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1");
    }
    let _nginx = nginx(&lab.servers[0], "");
    let mut contestants = [proxy(&lab.directors[0]), haproxy(&lab.directors[0])];
    contestants.iter().for_each(|contestant| contestant.expect(&lab.client));
    println!("requests a second, requests a second of processor time, and both beside HAProxy's");
    let mut met = true;
    for load in LOADS {
        let mut scores = [Score::default(); 2];
        for _ in 0..turns {
            for (contestant, score) in contestants.iter_mut().zip(&mut scores) {
                turn(&lab.client, contestant, load, period, score);
            }
        }
        let [ours, peer] = scores;
        let rate = ours.per_second() / peer.per_second();
        let cost = ours.per_processor_second() / peer.per_processor_second();
        println!(
            "{load} proxy {:7.0} {:7.0}  HAProxy {:7.0} {:7.0}  {rate:.2} {cost:.2}  failed {} {}",
            ours.per_second(),
            ours.per_processor_second(),
            peer.per_second(),
            peer.per_processor_second(),
            ours.failed,
            peer.failed,
        );
        met &= rate >= 1.0 && cost >= 1.2;
    }
    for contestant in &mut contestants {
        let label = contestant.label;
        println!("one stream through {label}: {}", stream(&lab, contestant, period));
    }
    let [_, mut peer] = contestants;
    for services in SERVICES {
        met &= translation(&lab, services, &mut peer, turns, period);
    }
    met
}

/// Requests by address translation, beside rules written by hand and HAProxy; where there are
/// `others` besides the service that is asked.
fn translation(
    lab: &Lab,
    others: u16,
    peer: &mut Contestant,
    turns: u32,
    period: Duration,
) -> bool {
    let mut by_rules = [nftables(&lab.directors[1], others), by_hand(&lab.directors[2], others)];
    by_rules.iter().for_each(|contestant| contestant.expect(&lab.client));
    println!("address translation, {} services: requests a second", others + 1);
    let mut met = true;
    for load in LOADS {
        let mut scores = [Score::default(); 3];
        for _ in 0..turns {
            let [ours, hand] = &mut by_rules;
            for (contestant, score) in [ours, hand, &mut *peer].into_iter().zip(&mut scores) {
                turn(&lab.client, contestant, load, period, score);
            }
        }
        let [ours, hand, haproxy] = scores.map(Score::per_second);
        let failed = scores.map(|score| score.failed);
        println!(
            "{load} nftables {ours:7.0}  by hand {hand:7.0} {:.3}  HAProxy {haproxy:7.0} {:.2}  failed {failed:?}",
            ours / hand,
            ours / haproxy,
        );
        met &= ours / hand >= BESIDE_HAND;
        met &= !load.keeps || ours / haproxy >= BESIDE_HAPROXY;
    }
    lab.directors[2].run(&["nft", "delete", "table", "ip", "hand"]);
    met
}

fn turn(
    client: &Node,
    contestant: &mut Contestant,
    load: Load,
    period: Duration,
    score: &mut Score,
) {
    let before = contestant.ticks();
    let url = format!("http://{}:{}/", contestant.address, contestant.port);
    let (connections, lasts) = (load.connections.to_string(), format!("{}s", period.as_secs()));
    let mut words = vec!["wrk", "-t", "1", "-c", &connections, "-d", &lasts];
    if !load.keeps {
        words.extend(["-H", "Connection: close"]);
    }
    words.push(&url);
    let text = client.run(&words);
    // What still waits to be closed belongs to this turn.
    thread::sleep(Duration::from_millis(200));
    score.processor += (contestant.ticks() - before) as f64 / TICKS_PER_SECOND;
    // "  12345 requests in 5.00s, 2.17MB read"
    let line = text.lines().find(|line| line.contains(" requests in ")).unwrap_or_default();
    let mut numbers = line.split([' ', ',']).filter(|word| !word.is_empty());
    score.requests += numbers.next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    let seconds = numbers.nth(2).and_then(|word| word.trim_end_matches('s').parse().ok());
    score.seconds += seconds.unwrap_or(period.as_secs_f64());
    for line in
        text.lines().filter(|line| line.contains("Socket errors") || line.contains("Non-2xx"))
    {
        let words = line.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok());
        score.failed += words.sum::<u64>();
    }
}

/// What iperf3 gets through in bits a second, by a way of its own.
fn stream(lab: &Lab, contestant: &mut Contestant, period: Duration) -> String {
    let server = lab.servers[0].spawn(&["iperf3", "-s", "-p", "5201"]);
    let port = (contestant.port + 1000).to_string();
    let lasts = period.as_secs().to_string();
    let before = contestant.ticks();
    let mut text = String::new();
    wait::until("iperf3 serves", seconds(10), || {
        let words = ["iperf3", "-c", DIRECTOR, "-p", &port, "-t", &lasts, "--json"];
        text = String::from_utf8_lossy(&lab.client.output(&words).stdout).into_owned();
        text.contains("sum_received")
    });
    let processor = (contestant.ticks() - before) as f64 / TICKS_PER_SECOND;
    drop(server);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0);
    let octets = report["end"]["sum_received"]["bytes"].as_f64().unwrap_or(0.0);
    format!(
        "{:.1} Gbit/s, {:.2} s of processor time per GB",
        bits / 1e9,
        processor / (octets / 1e9)
    )
}

fn proxy(node: &Node) -> Contestant {
    let config = format!(
        "[[service]]\nname = \"www\"\nserve = \"always\"\nbackend = \"proxy\"\n\
         listen = \"{DIRECTOR}:8001\"\nscheduler = \"rr\"\nservers = [\"{SERVER}\"]\n\
         [[service]]\nname = \"stream\"\nserve = \"always\"\nbackend = \"proxy\"\n\
         listen = \"{DIRECTOR}:9001\"\nscheduler = \"rr\"\nservers = [\"10.0.0.1:5201\"]\n"
    );
    let carrier = Carrier::Ours(Locum::NATIVE.start_with(node, &config));
    Contestant { label: "proxy", address: DIRECTOR, port: 8001, carrier }
}

fn haproxy(node: &Node) -> Contestant {
    let file = format!(
        "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
         timeout client 1m\n  timeout server 1m\nlisten www\n  bind {DIRECTOR}:8002\n  server a {SERVER}\n\
         listen stream\n  bind {DIRECTOR}:9002\n  option splice-auto\n  server a 10.0.0.1:5201\n"
    );
    node.write("/etc/haproxy/bench.cfg", &file);
    let carrier = Carrier::Peer(node.spawn(&["haproxy", "-db", "-f", "/etc/haproxy/bench.cfg"]));
    Contestant { label: "HAProxy", address: DIRECTOR, port: 8002, carrier }
}

/// From this port on are the services that nobody asks.
const OTHERS: u16 = 10_000;

fn nftables(node: &Node, others: u16) -> Contestant {
    let mut config = String::new();
    for port in [8003].into_iter().chain(OTHERS..OTHERS + others) {
        // INVARIANT: a String takes what is written.
        let _ = write!(
            config,
            "[[service]]\nname = \"www{port}\"\nserve = \"always\"\nbackend = \"nftables\"\n\
             listen = \"{RULES}:{port}\"\nscheduler = \"rr\"\nservers = [\"{SERVER}\"]\n"
        );
    }
    let carrier = Carrier::Rules(Some(Locum::NATIVE.start_with(node, &config)));
    Contestant { label: "nftables", address: RULES, port: 8003, carrier }
}

/// As somebody who knows nftables would write it.
fn by_hand(node: &Node, others: u16) -> Contestant {
    let ports = [8003].into_iter().chain(OTHERS..OTHERS + others);
    let map: Vec<String> = ports.map(|port| format!("{port} : 10.0.0.1 . 80")).collect();
    let map = map.join(", ");
    let rules = format!(
        "table ip hand {{\n\
         chain pre {{ type nat hook prerouting priority dstnat;\n\
         ip daddr {HAND} dnat ip to tcp dport map {{ {map} }}\n}}\n\
         chain post {{ type nat hook postrouting priority srcnat;\n\
         ip daddr 10.0.0.1 ct status dnat masquerade\n}}\n}}\n"
    );
    node.write("/run/lab/hand.nft", &rules);
    node.run(&["nft", "-f", "/run/lab/hand.nft"]);
    Contestant { label: "by hand", address: HAND, port: 8003, carrier: Carrier::Rules(None) }
}
