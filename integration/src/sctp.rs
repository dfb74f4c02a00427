//! The smallest service over SCTP and its client: who answered, and that nobody did.

use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;

use crate::node::Node;
use crate::wait;

/// An answer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the server waits before it looks whether it shall end.
const LOOK: Duration = Duration::from_millis(20);

/// Says the name of its node to everybody who connects, until it is dropped.
pub struct SctpServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SctpServer {
    /// Listens on these addresses of `node`, on each for itself: an association names all addresses
    /// that its socket has, and one behind a translation must have one.
    pub fn start(node: &Node, addresses: &[SocketAddr]) -> Self {
        let listen = || addresses.iter().map(|address| listen(*address)).collect();
        let listeners: std::io::Result<Vec<Socket>> = node.in_network(listen);
        let listeners = listeners.expect("cannot listen");
        let stop = Arc::new(AtomicBool::new(false));
        let name = node.name().to_owned();
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    wait::readable(&listeners, LOOK);
                    for (mut client, _) in listeners.iter().filter_map(|one| one.accept().ok()) {
                        // A client that is gone has no use for it.
                        let _ = client.write_all(name.as_bytes());
                    }
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for SctpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = open(address)?;
    socket.bind(&address.into())?;
    socket.listen(8)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn open(address: SocketAddr) -> std::io::Result<Socket> {
    Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::SCTP))
}

/// Who answered one association from this address of `client`; the reason if nobody did.
pub fn ask(client: &Node, from: SocketAddr, to: SocketAddr) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut socket = open(to)?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut bytes = [0; 64];
        let length = socket.read(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    };
    client.in_network(ask).map_err(|error| error.to_string())
}
