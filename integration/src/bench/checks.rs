//! What asking servers for their health costs: one HTTP check a second of each of many, beside
//! HAProxy that does the same.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use super::TICKS_PER_SECOND;
use crate::lab::Lab;
use crate::lab::Shape;
use crate::node::Node;
use crate::peer::Locum;
use crate::process::Process;
use crate::require;
use crate::require::Company;
use crate::software;
use crate::wait;
use crate::wait::seconds;
use crate::web;

/// A network whose addresses are all the real server's.
const SERVERS: &str = "10.1.0.0/16";
const FIRST: u32 = u32::from_be_bytes([10, 1, 0, 1]);

/// What one check may cost, in µs of processor time, and what the servers of a run may take, up to ten
/// thousand, in MB.
const CHECK_US: f64 = 15.0;
const MOST_MB: f64 = 20.0;

/// How long it may take until each server has been asked.
const PATIENCE: Duration = seconds(60);

struct Found {
    checks: u64,
    processor: f64,
    took: f64,
    /// All its processes, and what of that is no file's.
    whole: f64,
    own: f64,
}

/// So many servers, each asked once a second, over `period`.
pub fn checks(servers: u32, period: Duration) -> bool {
    if !require::lab(&["haproxy", "nginx"]) {
        return false;
    }
    let lab = Lab::new(Shape { directors: 1, servers: 1, company: Company::Alone });
    let (director, server) = (&lab.directors[0], &lab.servers[0]);
    // A check leaves a port behind for a minute.
    director.shell(&format!(
        "ip route add {SERVERS} via 10.0.0.1\n\
         sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1"
    ));
    server.shell(&format!("ip route add local {SERVERS} dev lo"));
    let _nginx = super::nginx(server, "location /count { stub_status; }");
    let counter = |path| web::page_of(director, "10.0.0.1:80".parse().expect("an address"), path);
    wait::until("nginx serves", seconds(20), || counter("/").is_ok());
    println!("{servers} servers, an HTTP/1.1 check of each a second, over {period:?}");
    println!("            µs a check   checks a second   MB in all   no file's");
    let run = |label, start: &dyn Fn(&Node, u32) -> Process| {
        let process = start(director, servers);
        let asked = || counter("/count").ok().and_then(|text| requests(&text)).unwrap_or(0);
        // Each has been asked some times: what a start costs is over.
        let first = asked();
        wait::until(label, PATIENCE, || asked() >= first + 5 * u64::from(servers));
        let (begun, before, ticks) = (Instant::now(), asked(), process.ticks());
        thread::sleep(period);
        let found = Found {
            // Without the question for the number itself.
            checks: asked().saturating_sub(before + 1),
            processor: (process.ticks() - ticks) as f64 / TICKS_PER_SECOND,
            took: begun.elapsed().as_secs_f64(),
            whole: process.whole_kib() as f64 / 1024.0,
            own: process.own_kib() as f64 / 1024.0,
        };
        println!(
            "{label:11} {:10.1}   {:15.0}   {:9.1}   {:9.1}",
            found.cost(),
            found.checks as f64 / found.took,
            found.whole,
            found.own
        );
        software::kill(process);
        found
    };
    let ours = run("Locum", &locum);
    let peer = run("HAProxy", &haproxy);
    println!("            of HAProxy's cost: {:.2}", ours.cost() / peer.cost());
    ours.cost() <= CHECK_US && ours.own <= MOST_MB
}

impl Found {
    fn cost(&self) -> f64 {
        1e6 * self.processor / (self.checks as f64).max(1.0)
    }
}

/// The third number of the line after "server accepts handled requests".
fn requests(text: &str) -> Option<u64> {
    let line = text.lines().skip_while(|line| !line.starts_with("server accepts")).nth(1)?;
    line.split_whitespace().nth(2)?.parse().ok()
}

fn addresses(servers: u32) -> impl Iterator<Item = Ipv4Addr> {
    (FIRST..FIRST + servers).map(Ipv4Addr::from_bits)
}

fn locum(node: &Node, servers: u32) -> Process {
    let list: Vec<String> = addresses(servers).map(|one| format!("\"{one}:80\"")).collect();
    let config = format!(
        "[[service]]\nname = \"www\"\nserve = \"always\"\nbackend = \"proxy\"\n\
         listen = \"192.168.1.201:8001\"\nscheduler = \"rr\"\n\
         health = {{ http = \"/\", interval = \"1s\", timeout = \"900ms\" }}\nservers = [{}]\n",
        list.join(", ")
    );
    Locum::NATIVE.start_with(node, &config).into_process()
}

fn haproxy(node: &Node, servers: u32) -> Process {
    let mut file = "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 900ms\n  \
                    timeout client 1m\n  timeout server 1m\n  timeout check 900ms\n\
                    listen www\n  bind 192.168.1.201:8002\n  option httpchk GET /\n  \
                    http-check send ver HTTP/1.1 hdr Host bench\n  \
                    default-server check inter 1s\n"
        .to_owned();
    for (number, address) in addresses(servers).enumerate() {
        // INVARIANT: a String takes what is written.
        let _ = writeln!(file, "  server s{number} {address}:80");
    }
    node.write("/etc/haproxy/bench.cfg", &file);
    node.spawn(&["haproxy", "-db", "-f", "/etc/haproxy/bench.cfg"])
}
