//! Clients that stay: each asks again and again on the connection or the socket that it has, and
//! connects anew only when that one is gone.

use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::datagram;
use crate::node::Node;
use crate::vm;

/// Between two questions; a guest has one processor for all machines, and an emulated one.
fn pause() -> Duration {
    Duration::from_millis(if vm::is_inside() { 50 } else { 10 })
}
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of one client so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OldClient {
    /// Who answered last.
    pub by: String,
    pub answers: usize,
    /// Connections that ended, or datagrams that nobody answered.
    pub losses: usize,
}

/// Clients of one service that ask until this is dropped.
pub struct OldClients {
    stop: Arc<AtomicBool>,
    all: Vec<Arc<Mutex<OldClient>>>,
    threads: Vec<JoinHandle<()>>,
}

impl OldClients {
    /// So many connections from `node` to port 80.
    pub fn connected(node: &Node, address: IpAddr, count: usize) -> Self {
        Self::start(node, count, move || {
            let mut stream = None;
            move || {
                let answer = ask_page(&mut stream, SocketAddr::from((address, 80)));
                if answer.is_err() {
                    stream = None;
                }
                answer
            }
        })
    }

    /// So many sockets of `node` that send datagrams to port 53.
    pub fn by_datagram(node: &Node, address: IpAddr, count: usize) -> Self {
        Self::start(node, count, move || {
            let mut socket = None;
            move || ask_datagram(&mut socket, address)
        })
    }

    fn start<Ask>(node: &Node, count: usize, make: impl Fn() -> Ask) -> Self
    where
        Ask: FnMut() -> io::Result<String> + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let all: Vec<Arc<Mutex<OldClient>>> = (0..count).map(|_| Arc::default()).collect();
        let threads = all.iter().map(|client| {
            let (client, stop, mut ask) = (Arc::clone(client), Arc::clone(&stop), make());
            node.spawn_in_network(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = ask();
                    let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
                    match answer {
                        Ok(name) => {
                            client.by = name;
                            client.answers += 1;
                        }
                        Err(_) => client.losses += 1,
                    }
                    drop(client);
                    thread::sleep(pause());
                }
            })
        });
        let threads = threads.collect();
        Self { stop, all, threads }
    }

    /// What became of each, always in the same order.
    pub fn look(&self) -> Vec<OldClient> {
        let copy = |client: &Arc<Mutex<OldClient>>| {
            client.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        self.all.iter().map(copy).collect()
    }
}

impl Drop for OldClients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}

fn ask_page(kept: &mut Option<TcpStream>, address: SocketAddr) -> io::Result<String> {
    let stream = match kept {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            kept.insert(stream)
        }
    };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    let mut text = String::new();
    let mut bytes = [0; 256];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
                return Ok(body.to_owned());
            }
        }
        match stream.read(&mut bytes)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => text += &String::from_utf8_lossy(&bytes[..length]),
        }
    }
}

fn ask_datagram(kept: &mut Option<UdpSocket>, address: IpAddr) -> io::Result<String> {
    let socket = match kept {
        Some(socket) => socket,
        None => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((address, datagram::PORT))?;
            socket.set_read_timeout(Some(PATIENCE / 4))?;
            kept.insert(socket)
        }
    };
    socket.send(b"who")?;
    let mut bytes = [0; 64];
    let length = socket.recv(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}
