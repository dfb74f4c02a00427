//! The way of a client through a service: let in, given a place and a server, relayed, ended.
//!
//! Who comes from another proxy that says for whom ([`crate::introduction`]) has its place before it
//! has said so: what waits for that has an end, in number as well as in time.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::RunningService;
use crate::introduction::{self, ClientEnds};
use crate::movement::Movement;
use crate::outbound::{Leg, Way};
use crate::persistence::StayHeld;
use crate::protocol::ProxyTransport;
use crate::queue::QueueEnd;
use crate::relay::{self, Meter};
use crate::scheduler::Chooser;
use crate::server::{Cut, InFlight, RunningServer};
use crate::service::listening::Closing;
use crate::shares::ClientPlace;
use crate::shortage::Shortage;
use crate::sources::Visit;

/// Servers tried for one client before it is turned away: one may be down, two are bad luck, and
/// after three the client had better hear of it.
pub(super) const ATTEMPT_LIMIT: usize = 3;

/// Pause of accepting after it failed for want of descriptors or memory, doubled up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Beyond this a clock might not count.
const LONGEST_PATIENCE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A client that has been let in.
#[derive(Debug)]
struct Admitted {
    stream: TcpStream,
    /// Of whoever it speaks for.
    peer: SocketAddr,
    /// What that one asked for, where another proxy has said so.
    asked: Option<SocketAddr>,
    way: Rc<Way>,
    _visit: Visit,
}

impl Admitted {
    /// As a server is told of them.
    fn ends(&self) -> io::Result<ClientEnds> {
        let asked = self.asked.map_or_else(|| self.stream.local_addr(), Ok)?;
        Ok(ClientEnds { client: self.peer, asked })
    }
}

/// Who came in, and where.
#[derive(Debug)]
struct Arrival {
    stream: TcpStream,
    peer: SocketAddr,
    here: SocketAddr,
}

/// Who came in and waits to be served.
#[derive(Debug)]
enum Guest {
    /// Has to say for whom it comes.
    Spoken(Arrival),
    Known(Admitted),
}

/// A connection to a server.
#[derive(Debug)]
struct Reached {
    stream: TcpStream,
    in_flight: InFlight,
    _leg: Leg,
    _stay: Option<StayHeld>,
}

impl RunningService {
    /// Lets clients in until the listener closes. Whoever was let in is served.
    pub(super) async fn accept_loop(
        self: Rc<Self>,
        listener: Rc<TcpListener>,
        here: SocketAddr,
        closing: Rc<Closing>,
    ) {
        let mut closing = pin!(closing.begun());
        let mut pause = SHORTEST_PAUSE;
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut closing => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = SHORTEST_PAUSE;
                    let arrival = Arrival { stream, peer, here };
                    let guest = if self.is_spoken_for(peer.ip()) {
                        Guest::Spoken(arrival)
                    } else {
                        let Some(client) = self.admit(arrival, None) else { continue };
                        Guest::Known(client)
                    };
                    // Where there is no place one client waits here and the others in the kernel's queue.
                    // An idle listener must not hold a place that another's client could have.
                    let place = tokio::select! {
                        biased;
                        place = self.place() => place,
                        () = &mut closing => {
                            spawn_local(self.clone().receive_late(guest));
                            return;
                        }
                    };
                    spawn_local(Rc::clone(&self).receive(guest, place));
                }
                // The client gave up while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.shares.note_accept_pause();
                    if let Some(shortage) = Shortage::of(&error) {
                        self.note_shortage(shortage);
                    }
                    tracing::warn!(service = self.name, %error, ?pause, "accepting pauses");
                    tokio::select! {
                        () = &mut closing => return,
                        () = sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Whoever comes from there says for whom.
    fn is_spoken_for(&self, address: IpAddr) -> bool {
        self.accept_proxy.borrow().iter().any(|network| network.contains(address))
    }

    async fn receive(self: Rc<Self>, guest: Guest, place: ClientPlace) {
        match guest {
            Guest::Spoken(arrival) => self.introduce(arrival, place).await,
            Guest::Known(client) => self.serve(client, place).await,
        }
    }

    /// The same of one that waited when its listener closed.
    async fn receive_late(self: Rc<Self>, guest: Guest) {
        let here = self.shares.hold();
        let place = self.place().await;
        drop(here);
        self.receive(guest, place).await;
    }

    /// Lets a client in once it has said for whom it comes.
    async fn introduce(self: Rc<Self>, mut arrival: Arrival, place: ClientPlace) {
        let patience = Duration::from_millis(self.limits.get().connect_ms);
        let header = timeout(patience, introduction::take_header(&mut arrival.stream)).await;
        let Ok(Ok(ends)) = header else {
            add(&self.counters.headless, 1);
            return relay::reset(arrival.stream);
        };
        let Some(client) = self.admit(arrival, ends) else { return };
        self.serve(client, place).await;
    }

    /// Turns away who comes round again, and who has as many connections as one may have. `ends` are
    /// those of whoever it speaks for.
    fn admit(&self, arrival: Arrival, ends: Option<ClientEnds>) -> Option<Admitted> {
        let Arrival { stream, peer, here } = arrival;
        // Where it listens on one address the kernel need not be asked which it was.
        let here = if here.ip().is_unspecified() { stream.local_addr().ok()? } else { here };
        let (client, asked) = (ends.map_or(peer, |ends| ends.client), ends.map(|ends| ends.asked));
        let way = self.way_of(ProxyTransport::Tcp, peer, here);
        // Not of who comes round again: that one is no visitor.
        let admitted = way.and_then(|way| Some((way, self.visit(client.ip())?)));
        let Some((way, visit)) = admitted else {
            relay::reset(stream);
            return None;
        };
        Some(Admitted { stream, peer: client, asked, way, _visit: visit })
    }

    /// The way of a client that comes from there; `None` when it comes round again.
    pub(super) fn way_of(
        &self,
        kind: ProxyTransport,
        peer: SocketAddr,
        here: SocketAddr,
    ) -> Option<Rc<Way>> {
        match self.outbound.find(kind, peer, here) {
            None => Some(self.way.clone()),
            Some((before, server)) if before.has_passed(&self.name) => {
                server.note_loop();
                add(&self.counters.loops, 1);
                self.counters.loop_through.set(Some(server.address));
                None
            }
            Some((before, _)) => Some(Way::through(&self.name, Some(before))),
        }
    }

    /// One connection more of this address; `None` when it has as many as one may have.
    pub(super) fn visit(&self, address: IpAddr) -> Option<Visit> {
        let visit = self.sources.enter(address, self.limits.get().per_source);
        if visit.is_none() {
            add(&self.counters.crowded, 1);
        }
        visit
    }

    /// Waits until there is a place, whatever the servers have.
    async fn place(&self) -> ClientPlace {
        let mut held = None;
        loop {
            // Before looking, so that a place that is given back meanwhile is not missed.
            let freed = self.share.freed();
            if let Some(place) = self.share.take() {
                self.fullness.review(self.is_full());
                return place;
            }
            held.get_or_insert_with(|| self.fullness.hold());
            freed.await;
        }
    }

    /// The scheduler's choice beside those `tried`, `None` when no server takes clients; who finds every
    /// server full, or others that wait, waits behind them.
    async fn assign(
        &self,
        client: &Admitted,
        tried: &[SocketAddr],
        until: Instant,
    ) -> Result<Option<InFlight>, QueueEnd> {
        let choose = || self.choose(client.peer.ip(), tried).map(InFlight::begin);
        if self.queue.is_empty() && self.has_server_with_room(tried) {
            let chosen = choose();
            self.fullness.review(self.is_full());
            return Ok(chosen);
        }
        let place = self.queue.enter(self.limits.get().queue).ok_or(QueueEnd::Full)?;
        let _held = self.fullness.hold();
        // Whatever else there was to wake it for.
        self.queue.wake();
        let mut left = pin!(left(&client.stream));
        let mut late = pin!(sleep_until(until));
        loop {
            if place.is_first() && self.has_server_with_room(tried) {
                return Ok(choose());
            }
            tokio::select! {
                () = place.woken() => {}
                () = &mut left => return Err(QueueEnd::Left),
                () = &mut late => return Err(QueueEnd::TimedOut),
            }
        }
    }

    /// The rest of the life of one client connection.
    /// The place is given back last: whoever waits for one finds room at the server too.
    async fn serve(self: Rc<Self>, mut client: Admitted, _place: ClientPlace) {
        add(&self.counters.accepted, 1);
        let mut reached = match self.reach(&client).await {
            Ok(Some(reached)) => reached,
            Ok(None) => {
                add(&self.counters.refused, 1);
                return relay::reset(client.stream);
            }
            Err(end) => {
                self.queue.note(end);
                match end {
                    QueueEnd::Full | QueueEnd::TimedOut => add(&self.counters.refused, 1),
                    QueueEnd::Left => {}
                }
                return relay::reset(client.stream);
            }
        };
        let movement = Movement::begin();
        let counters = &self.counters;
        let server = reached.in_flight.server().clone();
        let meter = Meter {
            bytes_in: [&counters.bytes_in, &server.bytes_in],
            bytes_out: [&counters.bytes_out, &server.bytes_out],
            movement: &movement,
        };
        let whole = tokio::select! {
            result = carry(&mut client, &mut reached, meter) => result.is_ok(),
            end = server.ended(&movement) => {
                match end {
                    Cut::Idle => add(&counters.timed_out, 1),
                    Cut::Left => {}
                }
                false
            }
        };
        if !whole {
            relay::reset(client.stream);
            relay::reset(reached.stream);
        }
    }

    /// Connects to the scheduler's choice, or to its next ones when that fails; `None` when it has no more.
    async fn reach(&self, client: &Admitted) -> Result<Option<Reached>, QueueEnd> {
        let mut tried = Vec::new();
        let patience = Duration::from_millis(self.limits.get().queue_ms).min(LONGEST_PATIENCE);
        let until = Instant::now() + patience;
        while tried.len() < ATTEMPT_LIMIT {
            let Some(in_flight) = self.assign(client, &tried, until).await? else { break };
            let server = in_flight.server();
            tried.push(server.address);
            let patience = Duration::from_millis(self.limits.get().connect_ms);
            match timeout(patience, self.outbound.connect(server, &client.way)).await {
                Ok(Ok((stream, leg))) => {
                    server.note_connected();
                    server.note_answer();
                    let address = server.address;
                    let stay = self.persistence.hold(client.peer.ip(), address, Instant::now());
                    return Ok(Some(Reached { stream, in_flight, _leg: leg, _stay: stay }));
                }
                Ok(Err(error)) => {
                    tracing::debug!(service = self.name, server = %server.address, %error, "connect");
                    match Shortage::of(&error) {
                        Some(shortage) => {
                            self.note_shortage(shortage);
                            if !shortage.is_of_one_server() {
                                return Ok(None);
                            }
                        }
                        // Cut by ourselves: that is counted where it came in.
                        None if server.leads_back() => {}
                        None => server.note_failure(),
                    }
                }
                Err(_) => {
                    tracing::debug!(service = self.name, server = %server.address, "connect timed out");
                    server.note_failure();
                }
            }
        }
        Ok(None)
    }

    pub(super) fn choose(&self, client: IpAddr, tried: &[SocketAddr]) -> Option<Rc<RunningServer>> {
        let wanted = self.wanted.borrow();
        if tried.is_empty()
            && let Some(kept) = self.persistence.find(client, Instant::now())
            && let Some(server) = wanted.iter().find(|server| server.address == kept)
            && !server.is_out()
            && server.has_room()
            && !server.is_suspect()
        {
            return Some(server.clone());
        }
        self.turn.set(self.turn.get() + 1);
        let table = &self.table.borrow();
        let chooser = Chooser { client, tried, turn: self.turn.get(), table };
        self.scheduler.get()?.choose(&wanted, chooser)
    }

    /// Whatever was asked of a server, it is not at fault.
    pub(super) fn note_shortage(&self, shortage: Shortage) {
        add(&self.counters.shortages, 1);
        self.counters.shortage.set(Some(shortage));
    }
}

/// All that is said, behind what the server is told of the client.
async fn carry(client: &mut Admitted, reached: &mut Reached, meter: Meter<'_>) -> io::Result<()> {
    let server = &mut reached.stream;
    if let Some(version) = reached.in_flight.server().introduced.get() {
        server.write_all(&introduction::header(version, client.ends()?)).await?;
    }
    relay::relay(&mut client.stream, server, meter).await
}

/// Resolves when a client has gone that waits. One that has said something and will say no more may want
/// its answer all the same; only a reset says that it does not.
async fn left(stream: &TcpStream) {
    if let Ok(1..) = stream.peek(&mut [0]).await {
        let _ = stream.ready(Interest::ERROR).await;
    }
}

pub(super) fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}
