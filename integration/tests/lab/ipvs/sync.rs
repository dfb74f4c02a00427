//! Connections that go on at the other director, which has heard of them.

use std::io::ErrorKind;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::service::Balanced;
use locum_integration::vm;
use locum_integration::wait;

use super::{route_servers, slowly, table};

const PORT: u16 = 8081;

const DOWNLOAD: &str = r#"
[[service]]
name = "files"
instance = "web"
backend = "ipvs"
listen = "192.168.1.100:8081"
scheduler = "rr"
servers = ["10.0.0.1:8081"]
"#;

const SYNC: &str = r#"
[ipvs]
tcp_timeout = "5m"

[ipvs.sync]
interface = "eth1"
instance = "web"
threshold = [2, 10]
refresh = "1s"
"#;

/// How long a download goes on at the other director before it counts as going on: longer than
/// whatever was on its way.
const LATER: Duration = wait::seconds(3);
/// Without a byte for so long it is cut off. A sender that met nobody for the time of a failover waits
/// up to 26 s before it tries again.
const CUT: Duration = wait::seconds(60);

/// Sends a number after the other, slowly, to the clients that it accepts.
struct SlowServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SlowServer {
    fn start(node: &Node) -> Self {
        let listener = node.in_network(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)));
        let listener = listener.expect("cannot listen");
        listener.set_nonblocking(true).expect("a mode");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut clients: Vec<TcpStream> = Vec::new();
                let mut number: u32 = 0;
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((client, _)) = listener.accept() {
                        clients.push(client);
                    }
                    number += 1;
                    // A client that is gone, or whose way is, has no use for it.
                    clients.retain_mut(|client| client.write_all(&number.to_be_bytes()).is_ok());
                    // As slow as a stream of sound.
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for SlowServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}

/// The client's end of a download.
struct Download {
    stream: TcpStream,
    /// `None` before the first.
    last: Option<u32>,
}

impl Download {
    fn begin(client: &Node) -> std::io::Result<Self> {
        let to = SocketAddr::from((Ipv4Addr::new(192, 168, 1, 100), PORT));
        let stream = client.in_network(|| TcpStream::connect_timeout(&to, wait::seconds(2)))?;
        stream.set_read_timeout(Some(CUT))?;
        Ok(Self { stream, last: None })
    }

    /// Reads for so long; `Err` when nothing comes, or something that does not follow.
    fn go_on(&mut self, time: Duration) -> Result<(), String> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            let mut octets = [0; 4];
            self.stream.read_exact(&mut octets).map_err(|error| match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    format!("cut off at {:?}", self.last)
                }
                _ => format!("{error} at {:?}", self.last),
            })?;
            let number = u32::from_be_bytes(octets);
            if self.last.is_some_and(|last| number != last + 1) {
                return Err(format!("{number} after {:?}", self.last));
            }
            self.last = Some(number);
        }
        Ok(())
    }
}

fn threads(node: &Node) -> String {
    node.run(&["ipvsadm", "-Ln", "--daemon"])
}

fn sysctl(node: &Node, name: &str) -> String {
    let text = node.run(&["cat", &format!("/proc/sys/net/ipv4/vs/{name}")]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What becomes of a download through the first director when its daemon is killed.
fn cross_a_failover(config: &str) -> Result<(), String> {
    let mut balanced = Balanced::new(config);
    route_servers(&balanced.lab);
    let _server = SlowServer::start(&balanced.lab.servers[0]);
    balanced.start(0);
    balanced.start(1);
    let mut download = None;
    wait::until("a download begins", ELECTION, || {
        if balanced.lab.directors[0].holds(balanced.vip()) {
            download = Download::begin(&balanced.lab.client).ok();
        }
        download.is_some()
    });
    let mut download = download.expect("it has begun");
    download.go_on(wait::seconds(2))?;
    if config.contains("[ipvs.sync]") {
        let other = &balanced.lab.directors[1];
        assert!(threads(&balanced.lab.directors[0]).starts_with("master sync daemon"));
        assert!(threads(other).starts_with("backup sync daemon"), "{}", threads(other));
        assert_eq!(sysctl(other, "sync_threshold"), "2 10");
        wait::until("the other director has heard of it", ELECTION, || {
            other.run(&["ipvsadm", "-Lnc"]).contains("ESTABLISHED 192.168.1.200")
        });
    }
    // Neither its table nor its address goes with it at once: the address has a lease.
    balanced.daemon(0).kill();
    let vip = balanced.vip();
    wait::until("the other director is master alone", ELECTION, || {
        balanced.lab.holders(vip) == [1] && table(&balanced.lab.directors[1]).contains("8081")
    });
    let result = download.go_on(LATER).map_err(|error| {
        let other = &balanced.lab.directors[1];
        let words = ["-Lnc", "-Ln --stats", "-Ln --daemon"];
        let seen = words.map(|words| {
            other.run(&[&["ipvsadm"], &words.split(' ').collect::<Vec<_>>()[..]].concat())
        });
        let far = balanced.lab.servers[0].shell("ip neigh; ss -tnoi");
        let near = balanced.lab.client.shell("ip neigh; ss -tnoi");
        format!("{error}\n{}\n{far}\n{near}", seen.join("\n"))
    });
    if config.contains("[ipvs.sync]") {
        assert!(threads(&balanced.lab.directors[1]).starts_with("master sync daemon"));
        let second = &balanced.lab.directors[1];
        assert_eq!(sysctl(second, "expire_nodest_conn"), "1");
    }
    balanced.daemon(1).terminate();
    balanced.daemon(1).wait(ELECTION);
    let second = &balanced.lab.directors[1];
    assert_eq!(threads(second), "", "nothing is left running");
    assert_eq!(sysctl(second, "expire_nodest_conn"), "0", "as it was before");
    result
}

#[test]
fn a_download_crosses_a_failover_where_connections_are_synchronised() {
    const NAME: &str =
        "ipvs::sync::a_download_crosses_a_failover_where_connections_are_synchronised";
    vm::inside(NAME, || {
        let without = format!("{}{DOWNLOAD}", slowly());
        cross_a_failover(&format!("{without}{SYNC}")).expect("the download goes on");
        let error = cross_a_failover(&without);
        assert!(error.is_err(), "without it the second director knows nothing of it");
    });
}
