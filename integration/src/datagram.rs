//! The smallest service over UDP and its client: who answered, and that nobody did.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::node::Node;
use crate::wait;

/// As that of a name service.
pub const PORT: u16 = 53;

/// An answer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the server waits before it looks at its other socket.
const LOOK: Duration = Duration::from_millis(20);

/// Answers every datagram to [`PORT`] of a node with the name of that node, and accepts the
/// connections of a TCP check there.
pub struct DatagramServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DatagramServer {
    /// Listens on all IPv4 addresses of `node`. It answers from the address that the kernel chooses:
    /// the one that was asked, where the node has no other of that network.
    pub fn start(node: &Node) -> Self {
        Self::start_at(node, Ipv4Addr::UNSPECIFIED.into())
    }

    /// Answers what is sent to this address of `node`, and accepts at all of them.
    pub fn start_at(node: &Node, address: IpAddr) -> Self {
        let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT));
        let listener = node.in_network(listen).expect("cannot listen");
        Self::answer(node, &[SocketAddr::from((address, PORT))], Some(listener))
    }

    /// Answers what is sent to these addresses of `node`, and accepts nothing.
    pub fn start_at_all(node: &Node, addresses: &[SocketAddr]) -> Self {
        Self::answer(node, addresses, None)
    }

    fn answer(node: &Node, addresses: &[SocketAddr], listener: Option<TcpListener>) -> Self {
        let bind = || -> std::io::Result<Vec<UdpSocket>> {
            addresses.iter().map(UdpSocket::bind).collect()
        };
        let sockets = node.in_network(bind).expect("cannot bind");
        for socket in &sockets {
            socket.set_nonblocking(true).expect("cannot set a mode");
        }
        if let Some(listener) = &listener {
            listener.set_nonblocking(true).expect("cannot set a mode");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let name = node.name().to_owned();
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut bytes = [0; 64];
                while !stop.load(Ordering::Relaxed) {
                    while listener.as_ref().is_some_and(|one| one.accept().is_ok()) {}
                    wait::readable(&sockets, LOOK);
                    for socket in &sockets {
                        if let Ok((_, client)) = socket.recv_from(&mut bytes) {
                            // A client that is gone has no use for it.
                            let _ = socket.send_to(name.as_bytes(), client);
                        }
                    }
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for DatagramServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}

/// Who answered one datagram from `client`, of a socket of its own; the reason if nobody did. What
/// comes from another address than the one that was asked is no answer.
pub fn ask(client: &Node, address: IpAddr) -> Result<String, String> {
    ask_at(client, SocketAddr::from((address, PORT)))
}

/// The same at a port of one's own.
pub fn ask_at(client: &Node, address: SocketAddr) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let any = match address {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"who")?;
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    };
    client.in_network(ask).map_err(|error| error.to_string())
}
