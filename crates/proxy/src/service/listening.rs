//! The addresses that one service listens on, each with what became of it.

use std::io;
use std::net::SocketAddr;

use locum_kernel::ports::{self, PortSharing};
use socket2::Socket;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use crate::protocol::{ProxyService, ProxyServiceState, ProxyTransport};
use crate::relay;

/// Clients that wait in the kernel to be accepted; it caps this at net.core.somaxconn.
const BACKLOG: i32 = 4096;

#[derive(Debug)]
pub struct ServiceListener {
    address: SocketAddr,
    transport: ProxyTransport,
    state: ListenerState,
}

#[derive(Debug)]
enum ListenerState {
    /// Bound, not listening: the port is ours, the kernel refuses clients. For datagrams there is no
    /// such thing, and nothing is bound.
    Ready(Option<Socket>),
    Open(JoinHandle<()>),
    Failed(String),
}

/// A socket through which clients come now.
pub enum ClientSocket {
    /// With the address that it was asked for.
    Stream(TcpListener, SocketAddr),
    Datagrams(UdpSocket),
}

impl ServiceListener {
    /// It is as `spec` wants it, and works.
    fn suits(&self, spec: &ProxyService) -> bool {
        let is_here = spec.addresses().any(|address| address == self.address);
        is_here
            && self.transport == spec.transport
            && match &self.state {
                ListenerState::Open(task) => !spec.ready_only && !task.is_finished(),
                ListenerState::Ready(socket) => {
                    spec.transport == ProxyTransport::Tcp && socket.is_some() || spec.ready_only
                }
                ListenerState::Failed(_) => false,
            }
    }

    fn is_open(&self) -> bool {
        matches!(self.state, ListenerState::Open(_))
    }

    /// Returns once the address is free for another service.
    async fn close(self) {
        if let ListenerState::Open(task) = self.state {
            task.abort();
            // The listener goes with the task; an aborted task's result says only that.
            let _ = task.await;
        }
    }
}

/// Closes all but what `spec` wants as it is; without a `spec` all of it.
pub async fn close_unless(
    all: Vec<ServiceListener>,
    spec: Option<&ProxyService>,
) -> Vec<ServiceListener> {
    let mut kept = Vec::new();
    for one in all {
        match spec {
            Some(spec) if one.suits(spec) => kept.push(one),
            Some(_) | None => one.close().await,
        }
    }
    kept
}

/// Opens what `spec` wants and is not in `known`, which are those that it wants as they are; `serve`
/// begins to serve one.
pub fn open(
    serve: &dyn Fn(ClientSocket) -> JoinHandle<()>,
    mut known: Vec<ServiceListener>,
    spec: &ProxyService,
) -> Vec<ServiceListener> {
    let mut all: Vec<ServiceListener> = Vec::new();
    for address in spec.addresses() {
        if all.iter().any(|one| one.address == address) {
            continue;
        }
        let before = known.iter().position(|one| one.address == address);
        let state = match before.map(|at| known.swap_remove(at).state) {
            Some(ListenerState::Open(task)) => ListenerState::Open(task),
            Some(ListenerState::Ready(Some(socket))) => begin(serve, address, spec, Ok(socket)),
            Some(ListenerState::Ready(None) | ListenerState::Failed(_)) | None => {
                begin(serve, address, spec, bind(address, spec.transport))
            }
        };
        all.push(ServiceListener { address, transport: spec.transport, state });
    }
    all
}

fn begin(
    serve: &dyn Fn(ClientSocket) -> JoinHandle<()>,
    address: SocketAddr,
    spec: &ProxyService,
    socket: io::Result<Socket>,
) -> ListenerState {
    let begun = socket.and_then(|socket| match (spec.transport, spec.ready_only) {
        (ProxyTransport::Tcp, true) => Ok(ListenerState::Ready(Some(socket))),
        // It would take in what nobody reads.
        (ProxyTransport::Udp, true) => Ok(ListenerState::Ready(None)),
        (ProxyTransport::Tcp, false) => {
            relay::prepare(&socket);
            socket.listen(BACKLOG)?;
            let listener = TcpListener::from_std(socket.into())?;
            Ok(ListenerState::Open(serve(ClientSocket::Stream(listener, address))))
        }
        (ProxyTransport::Udp, false) => {
            let socket = UdpSocket::from_std(socket.into())?;
            Ok(ListenerState::Open(serve(ClientSocket::Datagrams(socket))))
        }
    });
    begun.unwrap_or_else(|error| {
        ListenerState::Failed(format!("cannot listen on {address}: {error}"))
    })
}

/// A socket on an address that this node may not have yet.
fn bind(address: SocketAddr, transport: ProxyTransport) -> io::Result<Socket> {
    let socket = match transport {
        ProxyTransport::Tcp => ports::bind(address, PortSharing::Alone)?,
        ProxyTransport::Udp => ports::bind_datagrams(address)?,
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What is said of a service that listens like this.
pub fn summary(all: &[ServiceListener]) -> ProxyServiceState {
    let failed = all.iter().find_map(|one| match &one.state {
        ListenerState::Failed(error) => Some(error.clone()),
        ListenerState::Ready(_) | ListenerState::Open(_) => None,
    });
    match failed {
        Some(error) => ProxyServiceState::Failed { error },
        None if all.is_empty() => ProxyServiceState::Leaving,
        None if all.iter().all(ServiceListener::is_open) => ProxyServiceState::Listening,
        None => ProxyServiceState::Ready,
    }
}
