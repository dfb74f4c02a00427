//! One service: its listeners, its servers and its share of the places. The way of a client through it
//! is `client`, that of a datagram `datagrams`.

mod client;
mod datagrams;
mod fullness;
mod listening;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::protocol::{
    FullStatus, ProxyHeaderVersion, ProxyLimits, ProxyNetwork, ProxyServer, ProxyService,
    ProxyServiceState, ProxyServiceStatus, ProxyTransport,
};
use locum_kernel::sock_diag::SockDiag;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::address;
use crate::maglev::Maglev;
use crate::outbound::{Outbound, Way};
use crate::persistence::PersistenceTable;
use crate::queue::ServerQueue;
use crate::scheduler::{self, ProxyScheduler};
use crate::server::RunningServer;
use crate::service::fullness::Fullness;
use crate::service::listening::{ClientSocket, ServiceListener};
use crate::shares::{Share, Shares, Takes};
use crate::shortage::Shortage;
use crate::sources::SourceCounts;
use crate::succession::{Estate, StayLabel};

/// How often a service that does not serve looks whether its address has gone too: often enough that a backup
/// is idle within a second, and one system call each time.
const STRANDED_POLL: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub struct RunningService {
    pub name: String,
    transport: Cell<ProxyTransport>,
    /// Where it listens, or did; the first one is what it is known by.
    listen: Cell<SocketAddr>,
    also: RefCell<Vec<SocketAddr>>,
    drain: Cell<Duration>,
    scheduler: Cell<Option<ProxyScheduler>>,
    wanted: RefCell<Vec<Rc<RunningServer>>>,
    /// Not wanted any more, with connections under way.
    leaving: RefCell<Vec<Rc<RunningServer>>>,
    listening: RefCell<Vec<ServiceListener>>,
    one_packet: Cell<bool>,
    persistence: Rc<PersistenceTable>,
    /// It has no scheduler of the name that it was given.
    unfit: RefCell<Option<String>>,
    desired: Cell<Desired>,
    /// Somebody looks whether its address is still there.
    watched: Cell<bool>,
    turn: Cell<u64>,
    /// Of the wanted servers, where the scheduler goes by one.
    table: RefCell<Maglev>,
    limits: Cell<ProxyLimits>,
    send_proxy: Cell<Option<ProxyHeaderVersion>>,
    accept_proxy: RefCell<Vec<ProxyNetwork>>,
    share: Rc<Share>,
    sources: Rc<SourceCounts>,
    fullness: Fullness,
    queue: Rc<ServerQueue>,
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
    headless: Cell<u64>,
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
    /// Another proxy has the sockets: let the clients finish, and those find a server that wait for one.
    Succeeded,
}

impl RunningService {
    pub fn new(spec: &ProxyService, shares: &Rc<Shares>, outbound: &Rc<Outbound>) -> Self {
        Self {
            name: spec.name.clone(),
            transport: Cell::new(spec.transport),
            listen: Cell::new(spec.listen),
            also: RefCell::new(spec.also.clone()),
            drain: Cell::new(Duration::from_millis(spec.drain_ms)),
            scheduler: Cell::new(None),
            wanted: RefCell::default(),
            leaving: RefCell::default(),
            listening: RefCell::default(),
            one_packet: Cell::new(false),
            persistence: Rc::default(),
            unfit: RefCell::default(),
            desired: Cell::new(Desired::Leave),
            watched: Cell::new(false),
            turn: Cell::new(0),
            table: RefCell::default(),
            limits: Cell::new(spec.limits),
            send_proxy: Cell::new(None),
            accept_proxy: RefCell::default(),
            share: Rc::new(Share::new(shares)),
            sources: Rc::default(),
            fullness: Fullness::default(),
            queue: Rc::default(),
            shares: shares.clone(),
            outbound: outbound.clone(),
            way: Way::through(&spec.name, None),
            counters: ServiceCounters::default(),
        }
    }

    /// Closes every listener that `spec` does not want as it is; without a `spec` the service is not
    /// wanted. Returns once the addresses are free for another service.
    pub async fn close_unless(self: &Rc<Self>, spec: Option<&ProxyService>) {
        let all = self.listening.take();
        let kept = listening::close_unless(all, spec).await;
        self.listening.replace(kept);
        if spec.is_none() {
            self.leave();
            self.watch_address();
        }
    }

    /// Takes over servers, weights and scheduler, and opens the listeners that are closed.
    pub fn become_wanted(self: &Rc<Self>, spec: &ProxyService, estate: &mut Estate) {
        let desired = if spec.ready_only { Desired::StandBy } else { Desired::Serve };
        self.take_in(spec, desired);
        for StayLabel { network, server, left_ms, .. } in estate.take_stays(&self.name) {
            let left = left_ms.map(Duration::from_millis);
            self.persistence.import(network, server, left, Instant::now());
        }
        let unfit = self.scheduler.get().is_none().then(|| {
            let (name, known) = (&spec.scheduler, scheduler::NAMES);
            format!("the proxy has no scheduler {name}, use {known}")
        });
        if unfit.is_none() {
            self.open(spec, estate);
        }
        self.unfit.replace(unfit);
        self.watch_address();
    }

    fn open(self: &Rc<Self>, spec: &ProxyService, estate: &mut Estate) {
        let serve = |socket, address, closing| match socket {
            ClientSocket::Stream(listener) => {
                spawn_local(Rc::clone(self).accept_loop(listener, address, closing))
            }
            ClientSocket::Datagrams(socket) => {
                spawn_local(Rc::clone(self).carry_datagrams(socket, address, closing))
            }
        };
        let known = self.listening.take();
        self.listening.replace(listening::open(&serve, known, spec, estate));
    }

    /// Gives away the sockets through which clients come, the sessions of datagrams and who stays with
    /// which server. Connections go on until their drain time is over.
    pub async fn hand_over(self: &Rc<Self>, estate: &mut Estate) {
        // At one moment: a datagram that comes later is the other proxy's.
        self.listening.borrow().iter().for_each(ServiceListener::begin_handover);
        for one in self.listening.take() {
            one.hand_over(estate).await;
        }
        let now = Instant::now();
        let stays = self.persistence.export(now).into_iter().map(|(network, server, left)| {
            let left_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            StayLabel { service: self.name.clone(), network, server, left_ms }
        });
        estate.stays.extend(stays);
        if self.is_wanted() {
            self.desired.set(Desired::Succeeded);
            self.wanted.borrow().iter().for_each(|server| server.leave(self.drain.get()));
        }
    }

    /// The proxy that has the sockets was sent this: who is here is served by it.
    pub fn become_succeeded(self: &Rc<Self>, spec: &ProxyService) {
        self.take_in(spec, Desired::Succeeded);
    }

    fn take_in(&self, spec: &ProxyService, desired: Desired) {
        self.transport.set(spec.transport);
        self.listen.set(spec.listen);
        self.also.replace(spec.also.clone());
        self.drain.set(Duration::from_millis(spec.drain_ms));
        self.limits.set(spec.limits);
        self.one_packet.set(spec.one_packet);
        self.send_proxy.set(spec.send_proxy);
        self.accept_proxy.replace(spec.accept_proxy.clone());
        self.persistence.set(spec.persistence);
        self.desired.set(desired);
        self.scheduler.set(ProxyScheduler::from_name(&spec.scheduler));
        self.set_servers(&spec.servers, &spec.failed);
    }

    /// The service is not wanted any more: every server leaves.
    fn leave(&self) {
        self.desired.set(Desired::Leave);
        let drain = self.drain.get();
        let mut leaving = self.leaving.borrow_mut();
        leaving.extend(self.wanted.borrow_mut().drain(..));
        leaving.retain(|server| server.active.get() > 0);
        leaving.iter().for_each(|server| server.leave(drain));
        self.queue.wake();
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
            if self.addresses().iter().all(|listen| address::is_gone(listen.ip())) {
                let (wanted, leaving) = (self.wanted.borrow(), self.leaving.borrow());
                wanted.iter().chain(leaving.iter()).for_each(|server| server.abandon());
                break;
            }
            sleep(STRANDED_POLL).await;
        }
        self.watched.set(false);
    }

    /// Where it listens, or did.
    fn addresses(&self) -> Vec<SocketAddr> {
        [self.listen.get()].into_iter().chain(self.also.borrow().iter().copied()).collect()
    }

    /// It takes no clients, and those that it had are not through.
    fn is_finishing(&self) -> bool {
        let takes_clients = match self.desired.get() {
            // The address is served on; whoever has our place says when it is not.
            Desired::Serve | Desired::Succeeded => true,
            Desired::StandBy | Desired::Leave => false,
        };
        !takes_clients && self.has_connections()
    }

    /// Edits the servers in place; the connections of those that stay are not touched, and those of
    /// servers that failed are cut.
    fn set_servers(&self, specs: &[ProxyServer], failed: &[SocketAddr]) {
        let (drain, limits) = (self.drain.get(), self.limits.get());
        let mut known: Vec<_> = self.wanted.borrow_mut().drain(..).collect();
        known.append(&mut self.leaving.borrow_mut());
        let mut wanted = Vec::with_capacity(specs.len());
        let mut reweighted = false;
        for spec in specs {
            let found = known.iter().position(|server| server.address == spec.address);
            let server = match found {
                Some(index) => known.swap_remove(index),
                None => Rc::new(RunningServer::new(spec.address, spec.weight, &self.queue)),
            };
            reweighted |= found.is_none() || server.weight.get() != spec.weight;
            server.weight.set(spec.weight);
            server.limit(&limits);
            server.bound(spec.max, spec.min);
            server.introduced.set(spec.send_proxy.or(self.send_proxy.get()));
            // Weight 0 takes no clients and keeps those it has: a server is taken out by leaving it out.
            match self.desired.get() {
                Desired::Serve => server.stay(),
                Desired::StandBy | Desired::Leave | Desired::Succeeded => server.leave(drain),
            }
            wanted.push(server);
        }
        known.retain(|server| server.active.get() > 0);
        known.iter().for_each(|server| {
            server.limit(&limits);
            server.leave(drain);
            if failed.contains(&server.address) {
                server.abandon();
            }
        });
        if reweighted || !known.is_empty() {
            // Debts from other proportions would skew the first rounds of the new ones.
            wanted.iter().for_each(|server| server.credit.set(0));
        }
        if self.scheduler.get() == Some(ProxyScheduler::MaglevHash) {
            let weights = wanted.iter().map(|server| (server.address, server.weight.get()));
            self.table.replace(Maglev::of(&weights.collect::<Vec<_>>()));
        }
        *self.wanted.borrow_mut() = wanted;
        *self.leaving.borrow_mut() = known;
        self.queue.wake();
    }

    /// Nothing is left of a service that is not wanted: no listener, no connection.
    pub fn is_over(&self) -> bool {
        !self.is_wanted() && self.listening.borrow().is_empty() && !self.has_connections()
    }

    /// Its share of the places, with what it asks of the next division.
    pub fn share(&self) -> &Share {
        let takes = match self.desired.get() {
            Desired::Serve => Takes::Clients,
            Desired::StandBy | Desired::Leave | Desired::Succeeded => Takes::Nobody,
        };
        let listeners = self.listening.borrow().len();
        self.share.claim(takes, listeners, self.limits.get().connections);
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
        !self.share.has_room() || !self.has_server_with_room(&[])
    }

    /// Beside those `tried`. Where no server takes clients at all it is not for want of room.
    fn has_server_with_room(&self, tried: &[SocketAddr]) -> bool {
        let wanted = self.wanted.borrow();
        let mut taking = wanted
            .iter()
            .filter(|server| !server.is_out() && !tried.contains(&server.address))
            .peekable();
        taking.peek().is_none() || taking.any(|server| server.has_room())
    }

    fn full_status(&self) -> Option<FullStatus> {
        let takes_clients = self.desired.get() == Desired::Serve;
        let since = self.fullness.review(takes_clients && self.is_full())?;
        let for_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let waiting = match self.transport.get() {
            ProxyTransport::Tcp => waiting(&self.addresses()).unwrap_or(0),
            // The kernel counts no clients among datagrams.
            ProxyTransport::Udp => 0,
        };
        let waiting = waiting + self.fullness.held();
        Some(FullStatus { for_ms, waiting, busiest: self.sources.busiest() })
    }

    pub fn status(&self) -> ProxyServiceStatus {
        let wanted = self.wanted.borrow();
        let leaving = self.leaving.borrow();
        let counters = &self.counters;
        let all = || wanted.iter().chain(leaving.iter().filter(|s| s.active.get() > 0));
        ProxyServiceStatus {
            name: self.name.clone(),
            listen: self.listen.get(),
            state: match &*self.unfit.borrow() {
                Some(error) => ProxyServiceState::Failed { error: error.clone() },
                None => listening::summary(&self.listening.borrow()),
            },
            active: self.share.active(),
            accepted: counters.accepted.get(),
            refused: counters.refused.get(),
            bytes_in: counters.bytes_in.get(),
            bytes_out: counters.bytes_out.get(),
            limit: self.share.limit(),
            full: self.full_status(),
            crowded: counters.crowded.get(),
            headless: counters.headless.get(),
            loops: counters.loops.get(),
            loop_through: counters.loop_through.get(),
            shortages: counters.shortages.get(),
            shortage: counters.shortage.get().map(|shortage| shortage.sentence().to_owned()),
            timed_out: counters.timed_out.get(),
            queue: self.queue.status(),
            servers: all().map(|server| server.status()).collect(),
        }
    }
}

/// How many clients wait in the kernel to be accepted at these addresses; `None` when the kernel
/// cannot tell, as without its tcp_diag.
fn waiting(addresses: &[SocketAddr]) -> Option<u64> {
    let addresses: BTreeSet<_> = addresses.iter().collect();
    let ports: BTreeSet<_> = addresses.iter().map(|address| address.port()).collect();
    let mut kernel = SockDiag::open().ok()?;
    let mut all = 0;
    for port in ports {
        let listeners = kernel.listeners(port).ok()?;
        let ours = listeners.iter().filter(|one| addresses.contains(&one.local));
        all += ours.map(|one| u64::from(one.waiting)).sum::<u64>();
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn clients_that_nobody_accepts_are_counted_at_every_address_once() {
        let any_port = ["127.0.0.1:0", "[::1]:0"].map(TcpListener::bind);
        let mut listeners: Vec<_> = any_port.into_iter().filter_map(Result::ok).collect();
        let first = listeners[0].local_addr().unwrap();
        // At the port of another one.
        let same_port = TcpListener::bind(("127.0.0.2", first.port())).unwrap();
        let other = same_port.local_addr().unwrap();
        listeners.push(same_port);
        let of = |listener: &TcpListener| listener.local_addr().unwrap();
        let all: Vec<_> = listeners.iter().map(of).chain([first]).collect();
        if waiting(&all).is_none() {
            eprintln!("skipped: this kernel has no sock_diag for TCP");
            return;
        }
        assert_eq!(waiting(&all), Some(0));
        let connect =
            |listener| [TcpStream::connect(of(listener)), TcpStream::connect(of(listener))];
        let held: Vec<_> = listeners.iter().flat_map(connect).map(Result::unwrap).collect();
        assert_eq!(waiting(&all), Some(held.len() as u64));
        assert_eq!(waiting(&[other]), Some(2));
        drop((listeners, held));
        assert_eq!(waiting(&all), Some(0), "nobody listens");
    }
}
