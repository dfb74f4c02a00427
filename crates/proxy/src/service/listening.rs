//! The addresses that one service listens on, each with what became of it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use locum_kernel::ports::{self, PortSharing};
use socket2::Socket;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::protocol::{ProxyService, ProxyServiceState, ProxyTransport};
use crate::relay;
use crate::succession::{Estate, SessionLabel, SocketLabel};

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
    Open(OpenListener),
    Failed(String),
}

#[derive(Debug)]
struct OpenListener {
    socket: ClientSocket,
    task: JoinHandle<()>,
    closing: Rc<Closing>,
}

/// How whoever serves a socket learns that clients shall not come through it any more, and what then
/// becomes of those that came.
#[derive(Debug, Default)]
pub struct Closing {
    begun: Notify,
    is_handover: Cell<bool>,
    sessions: RefCell<Vec<(SessionLabel, OwnedFd)>>,
}

impl Closing {
    /// Of a socket with these sessions of another proxy.
    fn of(sessions: Vec<(SessionLabel, OwnedFd)>) -> Rc<Self> {
        Rc::new(Self { sessions: RefCell::new(sessions), ..Self::default() })
    }

    /// Resolves once, when it has begun to close.
    pub async fn begun(&self) {
        self.begun.notified().await;
    }

    /// Sessions shall not end, but go on in another proxy.
    pub fn is_handover(&self) -> bool {
        self.is_handover.get()
    }

    /// Sessions that go on here.
    pub fn take_sessions(&self) -> Vec<(SessionLabel, OwnedFd)> {
        self.sessions.take()
    }

    /// Sessions that go on in another proxy.
    pub fn give_sessions(&self, sessions: Vec<(SessionLabel, OwnedFd)>) {
        self.sessions.replace(sessions);
    }
}

/// A socket through which clients come now. Whoever serves it has another reference until it is closed.
#[derive(Clone, Debug)]
pub enum ClientSocket {
    Stream(Rc<TcpListener>),
    Datagrams(Rc<UdpSocket>),
}

impl ClientSocket {
    fn duplicate(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Stream(socket) => socket.as_fd().try_clone_to_owned(),
            Self::Datagrams(socket) => socket.as_fd().try_clone_to_owned(),
        }
    }
}

/// How one is served that has this address, as the service names it.
pub type ServeSocket<'a> = &'a dyn Fn(ClientSocket, SocketAddr, Rc<Closing>) -> JoinHandle<()>;

impl ServiceListener {
    /// It is as `spec` wants it, and works.
    fn suits(&self, spec: &ProxyService) -> bool {
        let is_here = spec.addresses().any(|address| address == self.address);
        is_here
            && self.transport == spec.transport
            && match &self.state {
                ListenerState::Open(open) => !spec.ready_only && !open.task.is_finished(),
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
        if let ListenerState::Open(OpenListener { task, closing, .. }) = self.state {
            closing.begun.notify_one();
            // The socket goes with the task; of one that panicked there is nothing to say.
            let _ = task.await;
        }
    }

    /// Nobody comes in any more, from the next time on that others run.
    pub fn begin_handover(&self) {
        if let ListenerState::Open(open) = &self.state {
            open.closing.is_handover.set(true);
            open.closing.begun.notify_one();
        }
    }

    /// Closes it, and gives its socket and its sessions to `estate`.
    pub async fn hand_over(self, estate: &mut Estate) {
        let (transport, address, is_open) = (self.transport, self.address, self.is_open());
        let socket = match &self.state {
            ListenerState::Open(open) => open.socket.duplicate().ok(),
            ListenerState::Ready(socket) => {
                socket.as_ref().and_then(|socket| socket.as_fd().try_clone_to_owned().ok())
            }
            ListenerState::Failed(_) => None,
        };
        let label = SocketLabel { transport, address, is_open };
        estate.sockets.extend(socket.map(|socket| (label, socket)));
        let closing = match &self.state {
            ListenerState::Open(open) => Some(open.closing.clone()),
            ListenerState::Ready(_) | ListenerState::Failed(_) => None,
        };
        self.close().await;
        estate.sessions.extend(closing.iter().flat_map(|closing| closing.take_sessions()));
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
    serve: ServeSocket<'_>,
    mut known: Vec<ServiceListener>,
    spec: &ProxyService,
    estate: &mut Estate,
) -> Vec<ServiceListener> {
    let mut all: Vec<ServiceListener> = Vec::new();
    for address in spec.addresses() {
        if all.iter().any(|one| one.address == address) {
            continue;
        }
        let before = known.iter().position(|one| one.address == address);
        let state = match before.map(|at| known.swap_remove(at).state) {
            Some(ListenerState::Open(open)) => ListenerState::Open(open),
            Some(ListenerState::Ready(Some(socket))) => {
                begin(serve, address, spec, Ok(socket), Vec::new())
            }
            Some(ListenerState::Ready(None) | ListenerState::Failed(_)) | None => {
                let inherited = estate.take_socket(spec.transport, address, !spec.ready_only);
                let socket = inherited.map(|socket| Ok(Socket::from(socket)));
                let socket = socket.unwrap_or_else(|| bind(address, spec.transport));
                let sessions = estate.take_sessions(&spec.name, address);
                begin(serve, address, spec, socket, sessions)
            }
        };
        all.push(ServiceListener { address, transport: spec.transport, state });
    }
    all
}

fn begin(
    serve: ServeSocket<'_>,
    address: SocketAddr,
    spec: &ProxyService,
    socket: io::Result<Socket>,
    sessions: Vec<(SessionLabel, OwnedFd)>,
) -> ListenerState {
    let begun = socket.and_then(|socket| match (spec.transport, spec.ready_only) {
        (ProxyTransport::Tcp, true) => Ok(ListenerState::Ready(Some(socket))),
        // It would take in what nobody reads.
        (ProxyTransport::Udp, true) => Ok(ListenerState::Ready(None)),
        (ProxyTransport::Tcp, false) => {
            relay::prepare(&socket);
            socket.listen(BACKLOG)?;
            let listener = Rc::new(TcpListener::from_std(socket.into())?);
            Ok(begin_open(serve, ClientSocket::Stream(listener), address, Closing::of(sessions)))
        }
        (ProxyTransport::Udp, false) => {
            let socket = Rc::new(UdpSocket::from_std(socket.into())?);
            Ok(begin_open(serve, ClientSocket::Datagrams(socket), address, Closing::of(sessions)))
        }
    });
    begun.unwrap_or_else(|error| {
        ListenerState::Failed(format!("cannot listen on {address}: {error}"))
    })
}

fn begin_open(
    serve: ServeSocket<'_>,
    socket: ClientSocket,
    address: SocketAddr,
    closing: Rc<Closing>,
) -> ListenerState {
    let task = serve(socket.clone(), address, closing.clone());
    ListenerState::Open(OpenListener { socket, task, closing })
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
