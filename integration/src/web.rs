//! The smallest web server and client: who answered, and when nobody did.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Read as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::node::Node;
use crate::wait;

/// A request or an answer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for one that must not fail: only what is never answered takes so long.
const LONG_PATIENCE: Duration = Duration::from_secs(20);
/// How long the server waits before it looks whether it shall end.
const LOOK: Duration = Duration::from_millis(20);
/// A client that begins a request may take so long to end it.
const SLOW_CLIENT: Duration = Duration::from_secs(60);

/// Answers every request on port 80 of a node with the name of that node.
pub struct WebServer {
    stop: Arc<AtomicBool>,
    status: Arc<AtomicU16>,
    thread: Option<JoinHandle<()>>,
}

impl WebServer {
    /// Listens on all IPv4 addresses of `node`.
    pub fn start(node: &Node) -> Self {
        Self::start_at(node, SocketAddr::from(([0, 0, 0, 0], 80)))
    }

    /// Listens on one address of `node` alone, beside what else serves there.
    pub fn start_at(node: &Node, address: SocketAddr) -> Self {
        Self::start_at_all(node, &[address])
    }

    /// The same at several.
    pub fn start_at_all(node: &Node, addresses: &[SocketAddr]) -> Self {
        let listeners = node.in_network(|| -> std::io::Result<Vec<TcpListener>> {
            addresses.iter().map(TcpListener::bind).collect()
        });
        let listeners = listeners.expect("cannot listen");
        for listener in &listeners {
            listener.set_nonblocking(true).expect("cannot set a mode");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let status = Arc::new(AtomicU16::new(200));
        let name = node.name().to_owned();
        let thread = thread::spawn({
            let (stop, status) = (Arc::clone(&stop), Arc::clone(&status));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    wait::readable(&listeners, LOOK);
                    // A client that gives up is its own affair.
                    for (stream, _) in listeners.iter().filter_map(|one| one.accept().ok()) {
                        let (name, status) = (name.clone(), Arc::clone(&status));
                        thread::spawn(move || drop(answer(stream, &name, &status)));
                    }
                }
            }
        });
        Self { stop, status, thread: Some(thread) }
    }

    /// Status code of all answers from now on.
    pub fn set_status(&self, code: u16) {
        self.status.store(code, Ordering::Relaxed);
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, name: &str, status: &AtomicU16) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SLOW_CLIENT))?;
    let mut request: Vec<u8> = Vec::new();
    let mut bytes = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(length) => request.extend(&bytes[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let code = status.load(Ordering::Relaxed);
    let length = name.len();
    write!(
        stream,
        "HTTP/1.1 {code} Lab\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}"
    )
}

/// Body of the answer to one request from `client`, on a connection of its own; the reason if
/// there is none.
pub fn get(client: &Node, address: IpAddr) -> Result<String, String> {
    get_path(client, address, "lab", "/health")
}

/// The same from a port of one's own.
pub fn get_at(client: &Node, address: SocketAddr) -> Result<String, String> {
    page_of(client, address, "/health")
}

/// The same with a path of one's own.
pub fn page_of(client: &Node, address: SocketAddr, path: &str) -> Result<String, String> {
    client.in_network(|| request(address, "lab", path, PATIENCE)).map_err(|error| error.to_string())
}

/// The same with a host and a path of one's own.
pub fn get_path(client: &Node, address: IpAddr, host: &str, path: &str) -> Result<String, String> {
    client
        .in_network(|| request(SocketAddr::from((address, 80)), host, path, PATIENCE))
        .map_err(|error| error.to_string())
}

/// One request on a connection of its own, from the network of the calling thread.
pub(crate) fn request(
    address: SocketAddr,
    host: &str,
    path: &str,
    patience: Duration,
) -> std::io::Result<String> {
    let stream = TcpStream::connect_timeout(&address, patience)?;
    ask(stream, &head(host, path), patience)
}

fn head(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// Sends the rest of a request and reads the answer to its end.
fn ask(mut stream: TcpStream, rest: &str, patience: Duration) -> std::io::Result<String> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(rest.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    if head.starts_with("HTTP/1.1 200") {
        Ok(body.to_owned())
    } else {
        Err(std::io::Error::other(head.lines().next().unwrap_or("no answer").to_owned()))
    }
}

/// A connection on which half a request has been sent.
pub struct HalfAsked(TcpStream);

impl HalfAsked {
    /// Connects from `client` and says the first line only.
    pub fn start(client: &Node, address: IpAddr) -> Self {
        Self::start_at(client, SocketAddr::from((address, 80)))
    }

    /// The same at a port of one's own.
    pub fn start_at(client: &Node, address: SocketAddr) -> Self {
        let stream = client.in_network(|| TcpStream::connect_timeout(&address, LONG_PATIENCE));
        let mut stream = stream.expect("cannot connect");
        stream.write_all(b"GET /health HTTP/1.1\r\n").expect("cannot begin a request");
        Self(stream)
    }

    /// Says the rest: the body of the answer, or the reason if there is none.
    pub fn finish(self) -> Result<String, String> {
        let rest = "Host: lab\r\nConnection: close\r\n\r\n";
        ask(self.0, rest, LONG_PATIENCE).map_err(|error| error.to_string())
    }
}

/// A series of requests, one after the other, each on a connection of its own.
pub struct Requests {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Requests {
    /// Starts to ask from `client` until told to stop.
    pub fn start(client: &Node, address: IpAddr) -> Self {
        let network = client.in_network(|| File::open("/proc/thread-self/ns/net"));
        let network = network.expect("cannot open a namespace");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET)
                    .expect("cannot enter a namespace");
                let (mut answered, mut failed) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let address = SocketAddr::from((address, 80));
                    match request(address, "lab", "/health", LONG_PATIENCE) {
                        Ok(_) => answered += 1,
                        Err(error) => failed.push(error.to_string()),
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                (answered, failed)
            }
        });
        Self { stop, thread }
    }

    /// Ends it: how many were answered, and why the others were not.
    pub fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the requests failed")
    }
}
