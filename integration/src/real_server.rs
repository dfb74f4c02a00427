//! A real server that knows what clients have sent to it: pages over TCP on connections that may be
//! kept, datagrams, and its health at a port of its own, so that no check is taken for a client.

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::datagram;
use crate::node::Node;
use crate::wait;

/// Where its health is asked for.
pub const HEALTH: u16 = 8000;

/// How long a thread waits before it looks whether it shall end.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Shared {
    ends: AtomicBool,
    is_ill: AtomicBool,
    /// When it was first asked how it is while it was ill.
    known_at: Mutex<Option<Instant>>,
    seen: AtomicUsize,
}

/// Serves on a node until it is dropped.
pub struct RealServer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl RealServer {
    /// Answers pages at port 80 and datagrams at port 53 with the name of the node.
    pub fn start(node: &Node) -> Self {
        let any = Ipv4Addr::UNSPECIFIED;
        let bind = || -> std::io::Result<_> {
            let pages = TcpListener::bind((any, 80))?;
            let health = TcpListener::bind((any, HEALTH))?;
            Ok((pages, health, UdpSocket::bind((any, datagram::PORT))?))
        };
        let (pages, health, datagrams) = node.in_network(bind).expect("cannot listen");
        let shared = Arc::new(Shared::default());
        let name: Arc<str> = node.name().into();
        let threads = vec![
            accept(pages, &shared, {
                let name = Arc::clone(&name);
                move |stream, shared| drop(serve(stream, &name, shared))
            }),
            accept(health, &shared, |stream, shared| drop(say_how_it_is(stream, shared))),
            thread::spawn({
                let shared = Arc::clone(&shared);
                move || answer_datagrams(&datagrams, &name, &shared)
            }),
        ];
        Self { shared, threads }
    }

    /// Its checks fail from now on. It serves as before whoever is sent to it all the same.
    pub fn fail(&self) {
        self.shared.is_ill.store(true, Ordering::Relaxed);
    }

    /// Its checks succeed again.
    pub fn recover(&self) {
        self.shared.is_ill.store(false, Ordering::Relaxed);
        *self.shared.known_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// When the first check failed since [`RealServer::fail`].
    pub fn known_at(&self) -> Option<Instant> {
        *self.shared.known_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections, requests and datagrams that clients have sent to it.
    pub fn seen(&self) -> usize {
        self.shared.seen.load(Ordering::Relaxed)
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}

/// Gives each connection to a thread of its own.
fn accept(
    listener: TcpListener,
    shared: &Arc<Shared>,
    serve: impl Fn(TcpStream, &Shared) + Clone + Send + 'static,
) -> JoinHandle<()> {
    listener.set_nonblocking(true).expect("cannot set a mode");
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        while !shared.ends.load(Ordering::Relaxed) {
            wait::readable(&[&listener], LOOK);
            if let Ok((stream, _)) = listener.accept() {
                let (serve, shared) = (serve.clone(), Arc::clone(&shared));
                thread::spawn(move || serve(stream, &shared));
            }
        }
    })
}

/// A request to its end; `None` when the client has left.
fn read_request(stream: &mut TcpStream, ends: &AtomicBool) -> std::io::Result<Option<Vec<u8>>> {
    let mut request: Vec<u8> = Vec::new();
    let mut bytes = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(None),
            Ok(length) => request.extend(&bytes[..length]),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock | ErrorKind::TimedOut if !ends.load(Ordering::Relaxed) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(Some(request))
}

fn serve(mut stream: TcpStream, name: &str, shared: &Shared) -> std::io::Result<()> {
    shared.seen.fetch_add(1, Ordering::Relaxed);
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LOOK))?;
    while let Some(request) = read_request(&mut stream, &shared.ends)? {
        shared.seen.fetch_add(1, Ordering::Relaxed);
        let length = name.len();
        let page = format!("HTTP/1.1 200 Lab\r\nContent-Length: {length}\r\n\r\n{name}");
        stream.write_all(page.as_bytes())?;
        if request.ends_with(b"Connection: close\r\n\r\n") {
            break;
        }
    }
    Ok(())
}

fn say_how_it_is(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LOOK))?;
    if read_request(&mut stream, &shared.ends)?.is_none() {
        return Ok(());
    }
    let is_ill = shared.is_ill.load(Ordering::Relaxed);
    let code = if is_ill { 503 } else { 200 };
    let said = format!("HTTP/1.1 {code} Lab\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(said.as_bytes())?;
    if is_ill {
        let mut known_at = shared.known_at.lock().unwrap_or_else(PoisonError::into_inner);
        known_at.get_or_insert_with(Instant::now);
    }
    Ok(())
}

fn answer_datagrams(socket: &UdpSocket, name: &str, shared: &Shared) {
    socket.set_read_timeout(Some(LOOK)).expect("cannot set a timeout");
    let mut bytes = [0; 64];
    while !shared.ends.load(Ordering::Relaxed) {
        if let Ok((_, client)) = socket.recv_from(&mut bytes) {
            shared.seen.fetch_add(1, Ordering::Relaxed);
            // A client that is gone has no use for it.
            let _ = socket.send_to(name.as_bytes(), client);
        }
    }
}
