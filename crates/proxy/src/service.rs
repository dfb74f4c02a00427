//! One service: its listener, its servers and its share of the places. The way of a client through it
//! is `client`.

mod client;
mod fullness;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::protocol::{
    FullStatus, ProxyLimits, ProxyServer, ProxyService, ServiceState, ServiceStatus,
};
use locum_kernel::ports::{self, PortSharing};
use locum_kernel::sock_diag::SockDiag;
use socket2::Socket;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

use crate::address;
use crate::outbound::{Outbound, Way};
use crate::relay;
use crate::scheduler::Scheduler;
use crate::server::Server;
use crate::service::fullness::Fullness;
use crate::shares::{Share, Shares, Takes};
use crate::shortage::Shortage;
use crate::sources::SourceCounts;

/// Clients that wait in the kernel to be accepted; it caps this at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// How often a service that does not serve looks whether its address has gone too: often enough that a backup
/// is idle within a second, and one system call each time.
const STRANDED_POLL: Duration = Duration::from_millis(250);

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
    limits: Cell<ProxyLimits>,
    share: Rc<Share>,
    sources: Rc<SourceCounts>,
    fullness: Fullness,
    shares: Rc<Shares>,
    outbound: Rc<Outbound>,
    /// Of a client that comes from elsewhere.
    way: Rc<Way>,
    counters: ServiceCounters,
}

#[derive(Debug, Default)]
struct ServiceCounters {
    accepted: Cell<u64>,
    refused: Cell<u64>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    crowded: Cell<u64>,
    loops: Cell<u64>,
    loop_through: Cell<Option<SocketAddr>>,
    shortages: Cell<u64>,
    shortage: Cell<Option<Shortage>>,
    timed_out: Cell<u64>,
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
    pub fn new(spec: &ProxyService, shares: &Rc<Shares>, outbound: &Rc<Outbound>) -> Self {
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
            limits: Cell::new(spec.limits),
            share: Rc::new(Share::new(shares)),
            sources: Rc::default(),
            fullness: Fullness::default(),
            shares: shares.clone(),
            outbound: outbound.clone(),
            way: Way::through(&spec.name, None),
            counters: ServiceCounters::default(),
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
        self.limits.set(spec.limits);
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
            relay::prepare(&socket);
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
        let (drain, limits) = (self.drain.get(), self.limits.get());
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
            server.limit(&limits);
            // Weight 0 takes no clients and keeps those it has: a server is taken out by leaving it out.
            match self.desired.get() {
                Desired::Serve => server.stay(),
                Desired::StandBy | Desired::Leave => server.leave(drain),
            }
            wanted.push(server);
        }
        known.retain(|server| server.active.get() > 0);
        known.iter().for_each(|server| {
            server.limit(&limits);
            server.leave(drain);
        });
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

    /// Its share of the places, with what it asks of the next division.
    pub fn share(&self) -> &Share {
        let takes = match self.desired.get() {
            Desired::Serve => Takes::Clients,
            Desired::StandBy | Desired::Leave => Takes::Nobody,
        };
        self.share.claim(takes, self.limits.get().connections);
        &self.share
    }

    /// The last request that named it wants it, serving or standing by.
    pub fn is_wanted(&self) -> bool {
        self.desired.get() != Desired::Leave
    }

    fn has_connections(&self) -> bool {
        self.share.active() > 0
    }

    /// A client more could not be served now.
    fn is_full(&self) -> bool {
        !self.share.has_room() || !self.has_server_with_room()
    }

    /// Where no server takes clients at all it is not for want of room.
    fn has_server_with_room(&self) -> bool {
        let wanted = self.wanted.borrow();
        let mut taking = wanted.iter().filter(|server| !server.is_out()).peekable();
        taking.peek().is_none() || taking.any(|server| server.has_room())
    }

    fn full_status(&self) -> Option<FullStatus> {
        let takes_clients = self.desired.get() == Desired::Serve;
        let since = self.fullness.review(takes_clients && self.is_full())?;
        let for_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let waiting = waiting(self.listen.get()).unwrap_or(0) + self.fullness.held();
        Some(FullStatus { for_ms, waiting, busiest: self.sources.busiest() })
    }

    pub fn status(&self) -> ServiceStatus {
        let wanted = self.wanted.borrow();
        let leaving = self.leaving.borrow();
        let counters = &self.counters;
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
            active: self.share.active(),
            accepted: counters.accepted.get(),
            refused: counters.refused.get(),
            bytes_in: counters.bytes_in.get(),
            bytes_out: counters.bytes_out.get(),
            limit: self.share.limit(),
            full: self.full_status(),
            crowded: counters.crowded.get(),
            loops: counters.loops.get(),
            loop_through: counters.loop_through.get(),
            shortages: counters.shortages.get(),
            shortage: counters.shortage.get().map(|shortage| shortage.sentence().to_owned()),
            timed_out: counters.timed_out.get(),
            servers: all().map(|server| server.status()).collect(),
        }
    }
}

/// A socket on an address that this node may not have yet.
fn bind(listen: SocketAddr) -> io::Result<Socket> {
    let socket = ports::bind(listen, PortSharing::Alone)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// How many clients wait in the kernel to be accepted at a listener; `None` when the kernel cannot
/// tell, as without its tcp_diag.
fn waiting(listen: SocketAddr) -> Option<u64> {
    let listeners = SockDiag::open().ok()?.listeners(listen.port()).ok()?;
    let found = listeners.iter().find(|one| one.local == listen)?;
    Some(u64::from(found.waiting))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn clients_that_nobody_accepts_are_counted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let listen = listener.local_addr().unwrap();
            if waiting(listen).is_none() {
                eprintln!("skipped: this kernel has no sock_diag for TCP");
                return;
            }
            assert_eq!(waiting(listen), Some(0));
            let held: Vec<_> = (0..3).map(|_| TcpStream::connect(listen).unwrap()).collect();
            assert_eq!(waiting(listen), Some(3));
            drop((listener, held));
            assert_eq!(waiting(listen), None, "nobody listens");
        }
    }
}
