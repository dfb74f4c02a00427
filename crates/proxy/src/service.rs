//! One service: its listener, its servers, and the way of a client through it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use crate::protocol::{ProxyServer, ProxyService, ServiceState, ServiceStatus};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use crate::address;
use crate::limits::{Limits, Permit};
use crate::relay;
use crate::scheduler::Scheduler;
use crate::server::{InFlight, Server};

/// Servers tried for one client before it is turned away: one may be down, two are bad luck, and
/// after three the client had better hear of it.
const ATTEMPT_LIMIT: usize = 3;

/// A server that does not answer within one retransmitted SYN (1 s, then 2 s) is passed over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Clients that wait in the kernel to be accepted; it caps this at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// How often a service that does not serve looks whether its address has gone too: often enough that a backup
/// is idle within a second, and one system call each time.
const STRANDED_POLL: Duration = Duration::from_millis(250);

/// Pause of accepting after it failed for want of descriptors or memory, doubled up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Service {
    pub name: String,
    listen: Cell<SocketAddr>,
    drain: Cell<Duration>,
    scheduler: Cell<Option<Scheduler>>,
    wanted: RefCell<Vec<Rc<Server>>>,
    /// Not wanted any more, with connections under way.
    leaving: RefCell<Vec<Rc<Server>>>,
    listener: RefCell<ListenerState>,
    desired: Cell<Desired>,
    /// Somebody looks whether its address is still there.
    watched: Cell<bool>,
    turn: Cell<u64>,
    accepted: Cell<u64>,
    refused: Cell<u64>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    limits: Rc<Limits>,
}

/// What the level asks of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Desired {
    Serve,
    /// Keep the port; take no clients and let those that are there finish.
    StandBy,
    /// Let the clients finish and go.
    Leave,
}

#[derive(Debug)]
enum ListenerState {
    Closed,
    /// Bound, not listening: the port is ours, the kernel refuses clients.
    Ready(Socket),
    Open(JoinHandle<()>),
    Failed(String),
}

impl Service {
    pub fn new(spec: &ProxyService, limits: Rc<Limits>) -> Self {
        Self {
            name: spec.name.clone(),
            listen: Cell::new(spec.listen),
            drain: Cell::new(Duration::from_millis(spec.drain_ms)),
            scheduler: Cell::new(None),
            wanted: RefCell::default(),
            leaving: RefCell::default(),
            listener: RefCell::new(ListenerState::Closed),
            desired: Cell::new(Desired::Leave),
            watched: Cell::new(false),
            turn: Cell::new(0),
            accepted: Cell::new(0),
            refused: Cell::new(0),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            limits,
        }
    }

    /// Closes the listener unless `spec` wants one on its address and in its state; without a
    /// `spec` the service is not wanted. Returns once the address is free for another service.
    pub async fn close_unless(self: &Rc<Self>, spec: Option<&ProxyService>) {
        let listener = self.listener.replace(ListenerState::Closed);
        let keep = spec.is_some_and(|spec| {
            let here = spec.listen == self.listen.get();
            match &listener {
                ListenerState::Open(task) => here && !spec.ready_only && !task.is_finished(),
                ListenerState::Ready(_) => here,
                ListenerState::Closed | ListenerState::Failed(_) => false,
            }
        });
        if keep {
            self.listener.replace(listener);
        } else if let ListenerState::Open(task) = listener {
            task.abort();
            // The listener goes with the task; an aborted task's result says only that.
            let _ = task.await;
        }
        if spec.is_none() {
            self.leave();
            self.watch_address();
        }
    }

    /// Takes over servers, weights and scheduler, and opens the listener where it is closed.
    pub fn become_wanted(self: &Rc<Self>, spec: &ProxyService) {
        self.listen.set(spec.listen);
        self.drain.set(Duration::from_millis(spec.drain_ms));
        self.desired.set(if spec.ready_only { Desired::StandBy } else { Desired::Serve });
        self.set_servers(&spec.servers);
        self.scheduler.set(Scheduler::from_name(&spec.scheduler));
        let listener = self.listener.replace(ListenerState::Closed);
        let opened = match (self.scheduler.get(), listener) {
            (None, listener) => {
                if let ListenerState::Open(task) = listener {
                    task.abort();
                }
                ListenerState::Failed(format!(
                    "the proxy has no scheduler {}, use rr, wrr, lc, wlc or sh",
                    spec.scheduler
                ))
            }
            (Some(_), ListenerState::Open(task)) => ListenerState::Open(task),
            (Some(_), ListenerState::Ready(socket)) => self.open(Ok(socket), spec.ready_only),
            (Some(_), ListenerState::Closed | ListenerState::Failed(_)) => {
                self.open(bind(spec.listen), spec.ready_only)
            }
        };
        self.listener.replace(opened);
        self.watch_address();
    }

    fn open(self: &Rc<Self>, socket: io::Result<Socket>, ready_only: bool) -> ListenerState {
        let opened = socket.and_then(|socket| {
            if ready_only {
                return Ok(ListenerState::Ready(socket));
            }
            socket.listen(BACKLOG)?;
            let listener = TcpListener::from_std(socket.into())?;
            Ok(ListenerState::Open(spawn_local(Rc::clone(self).accept_loop(listener))))
        });
        opened.unwrap_or_else(|error| {
            ListenerState::Failed(format!("cannot listen on {}: {error}", self.listen.get()))
        })
    }

    /// The service is not wanted any more: every server leaves.
    fn leave(&self) {
        self.desired.set(Desired::Leave);
        let drain = self.drain.get();
        let mut leaving = self.leaving.borrow_mut();
        leaving.extend(self.wanted.borrow_mut().drain(..));
        leaving.retain(|server| server.active.get() > 0);
        leaving.iter().for_each(|server| server.leave(drain));
    }

    /// Sees to it that connections left over from a lost role end once they are stranded.
    fn watch_address(self: &Rc<Self>) {
        if self.is_finishing() && !self.watched.replace(true) {
            spawn_local(Rc::clone(self).abandon_stranded());
        }
    }

    /// Once the address of a service that does not serve is gone from this node, the connections to
    /// it are stranded: whoever has the address now gets the clients' packets, and the kernel sends
    /// none of ours from an address it does not have. They end at once instead of holding up this
    /// process for their whole drain time; until then they go on.
    async fn abandon_stranded(self: Rc<Self>) {
        while self.is_finishing() {
            if address::is_gone(self.listen.get().ip()) {
                let (wanted, leaving) = (self.wanted.borrow(), self.leaving.borrow());
                wanted.iter().chain(leaving.iter()).for_each(|server| server.abandon());
                break;
            }
            sleep(STRANDED_POLL).await;
        }
        self.watched.set(false);
    }

    /// It takes no clients, and those that it had are not through.
    fn is_finishing(&self) -> bool {
        let takes_clients = match self.desired.get() {
            Desired::Serve => true,
            Desired::StandBy | Desired::Leave => false,
        };
        !takes_clients && self.has_connections()
    }

    /// Edits the servers in place; the connections of those that stay are not touched.
    fn set_servers(&self, specs: &[ProxyServer]) {
        let drain = self.drain.get();
        let mut known: Vec<_> = self.wanted.borrow_mut().drain(..).collect();
        known.append(&mut self.leaving.borrow_mut());
        let mut wanted = Vec::with_capacity(specs.len());
        let mut reweighted = false;
        for spec in specs {
            let found = known.iter().position(|server| server.address == spec.address);
            let server = match found {
                Some(index) => known.swap_remove(index),
                None => Rc::new(Server::new(spec.address, spec.weight)),
            };
            reweighted |= found.is_none() || server.weight.get() != spec.weight;
            server.weight.set(spec.weight);
            if spec.weight == 0 || self.desired.get() == Desired::StandBy {
                server.leave(drain)
            } else {
                server.stay()
            }
            wanted.push(server);
        }
        known.retain(|server| server.active.get() > 0);
        known.iter().for_each(|server| server.leave(drain));
        if reweighted || !known.is_empty() {
            // Debts from other proportions would skew the first rounds of the new ones.
            wanted.iter().for_each(|server| server.credit.set(0));
        }
        *self.wanted.borrow_mut() = wanted;
        *self.leaving.borrow_mut() = known;
    }

    /// Nothing is left of a service that is not wanted: no listener, no connection.
    pub fn is_over(&self) -> bool {
        matches!(*self.listener.borrow(), ListenerState::Closed) && !self.has_connections()
    }

    /// The last request that named it wants it, serving or standing by.
    pub fn is_wanted(&self) -> bool {
        self.desired.get() != Desired::Leave
    }

    fn has_connections(&self) -> bool {
        let busy = |servers: &[Rc<Server>]| servers.iter().any(|server| server.active.get() > 0);
        busy(&self.wanted.borrow()) || busy(&self.leaving.borrow())
    }

    pub fn status(&self) -> ServiceStatus {
        let wanted = self.wanted.borrow();
        let leaving = self.leaving.borrow();
        let all = || wanted.iter().chain(leaving.iter().filter(|s| s.active.get() > 0));
        ServiceStatus {
            name: self.name.clone(),
            listen: self.listen.get(),
            state: match &*self.listener.borrow() {
                ListenerState::Closed => ServiceState::Leaving,
                ListenerState::Ready(_) => ServiceState::Ready,
                ListenerState::Open(_) => ServiceState::Listening,
                ListenerState::Failed(error) => ServiceState::Failed { error: error.clone() },
            },
            active: all().map(|server| server.active.get()).sum(),
            accepted: self.accepted.get(),
            refused: self.refused.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            servers: all().map(|server| server.status()).collect(),
        }
    }

    /// Lets clients in until the task is aborted.
    async fn accept_loop(self: Rc<Self>, listener: TcpListener) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            match listener.accept().await {
                Ok((client, peer)) => {
                    pause = SHORTEST_PAUSE;
                    // At the limit one client waits here and the others in the kernel's queue. An
                    // idle listener must not hold a place that another's client could have.
                    let permit = Permit::take(&self.limits).await;
                    add(&self.accepted, 1);
                    spawn_local(Rc::clone(&self).handle_client(client, peer.ip(), permit));
                }
                // The client gave up while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.limits.note_accept_pause();
                    tracing::warn!(service = self.name, %error, ?pause, "accepting pauses");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The whole life of one client connection.
    async fn handle_client(self: Rc<Self>, client: TcpStream, peer: IpAddr, _permit: Permit) {
        relay::prepare(&client);
        let Some((server, in_flight)) = self.connect(peer).await else {
            add(&self.refused, 1);
            return relay::reset(client);
        };
        relay::prepare(&server);
        let whole = tokio::select! {
            result = relay::relay(&client, &server, &self.bytes_in, &self.bytes_out) => result.is_ok(),
            () = in_flight.server().closed() => false,
        };
        if !whole {
            relay::reset(client);
            relay::reset(server);
        }
    }

    /// Connects to the scheduler's choice, or to its next ones when that fails.
    async fn connect(&self, peer: IpAddr) -> Option<(TcpStream, InFlight)> {
        let mut tried = Vec::new();
        while tried.len() < ATTEMPT_LIMIT {
            let in_flight = InFlight::begin(self.choose(peer, &tried)?);
            let server = in_flight.server();
            tried.push(server.address);
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(server.address)).await {
                Ok(Ok(stream)) => {
                    add(&server.connected, 1);
                    return Some((stream, in_flight));
                }
                Ok(Err(error)) => {
                    tracing::debug!(service = self.name, server = %server.address, %error, "connect");
                }
                Err(_) => {
                    tracing::debug!(service = self.name, server = %server.address, "connect timed out");
                }
            }
            add(&server.failures, 1);
        }
        None
    }

    fn choose(&self, peer: IpAddr, tried: &[SocketAddr]) -> Option<Rc<Server>> {
        self.turn.set(self.turn.get() + 1);
        self.scheduler.get()?.choose(&self.wanted.borrow(), peer, tried, self.turn.get())
    }
}

/// A socket on an address that this node may not have yet: IP_FREEBIND asks for nothing but that,
/// where the ip_nonlocal_bind sysctl would ask it for every program of the host.
fn bind(listen: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of an earlier listener may still be there.
    socket.set_reuse_address(true)?;
    match listen {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.bind(&listen.into())?;
    Ok(socket)
}

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}
