//! UDP: datagrams of one client go to one server, and what that answers goes back, as long as there is
//! any. Nothing says that a client has done, so the one that was heard longest ago gives way when
//! there is no place for another. Where every server has as many as it may have, nobody gives way: a new
//! client is refused, for there is no queue in which it could wait.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, sleep};

use super::RunningService;
use super::client::{ATTEMPT_LIMIT, add};
use crate::movement::Movement;
use crate::outbound::{Leg, Way};
use crate::persistence::StayHeld;
use crate::protocol::ProxyTransport;
use crate::server::{InFlight, RunningServer};
use crate::service::listening::Closing;
use crate::shares::ClientPlace;
use crate::shortage::Shortage;
use crate::sources::Visit;
use crate::succession::SessionLabel;

/// No datagram is larger.
const LARGEST: usize = 65_535;

/// Pause of receiving after it failed for want of memory.
const PAUSE: Duration = Duration::from_millis(10);

thread_local! {
    /// Of all sessions: one thread runs them.
    static ANSWER: RefCell<Vec<u8>> = RefCell::new(vec![0; LARGEST]);
}

/// The clients of one address.
#[derive(Debug)]
struct Sessions {
    /// Whoever closes the address has the only other references for longer than a moment.
    socket: Weak<UdpSocket>,
    /// As the service names it, and as the kernel does.
    address: SocketAddr,
    here: SocketAddr,
    all: RefCell<HashMap<SessionKey, Rc<DatagramSession>>>,
    /// Each session once, with when it was heard as of then, and some that have ended.
    order: RefCell<VecDeque<(Instant, Weak<DatagramSession>)>>,
}

/// Those that have ended are swept out of the order once there are more of them than of the others, and
/// more than this: each costs no more than its own entry.
const FEW_ENDED: usize = 64;

/// A client; and the server where each datagram is given to one of its own.
type SessionKey = (SocketAddr, Option<SocketAddr>);

#[derive(Debug)]
struct DatagramSession {
    key: SessionKey,
    upstream: UdpSocket,
    begun: Instant,
    movement: Movement,
    /// Given back at the end, whoever still knows the session.
    has: RefCell<Option<Belongings>>,
    answering: RefCell<Option<AbortHandle>>,
}

#[derive(Debug)]
struct Belongings {
    in_flight: InFlight,
    _place: ClientPlace,
    _visit: Visit,
    _leg: Leg,
    _stay: Option<StayHeld>,
}

/// Why a client has no session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TurnedAway {
    /// It comes round again, or its address has as many as one may have: that has been counted.
    Before,
    /// No server takes it.
    Refused,
}

impl RunningService {
    /// Carries datagrams until the address closes.
    pub(super) async fn carry_datagrams(
        self: Rc<Self>,
        socket: Rc<UdpSocket>,
        address: SocketAddr,
        closing: Rc<Closing>,
    ) {
        let sessions = Sessions::at(&socket, address);
        for (label, upstream) in closing.take_sessions() {
            sessions.inherit(&self, &label, upstream);
        }
        let mut begun = pin!(closing.begun());
        // What is left ends with the address.
        let _ending = SessionsEnd(Rc::clone(&sessions));
        let mut buffer = vec![0; LARGEST];
        loop {
            let received = tokio::select! {
                biased;
                () = &mut begun => break,
                received = socket.recv_from(&mut buffer) => received,
            };
            match received {
                Ok((count, client)) => sessions.forward(&self, client, &buffer[..count]),
                Err(error) => {
                    if let Some(shortage) = Shortage::of(&error) {
                        self.note_shortage(shortage);
                    }
                    tokio::select! {
                        () = &mut begun => break,
                        () = sleep(PAUSE) => {}
                    }
                }
            }
        }
        if closing.is_handover() {
            closing.give_sessions(sessions.hand_over(&self.name));
        }
    }
}

struct SessionsEnd(Rc<Sessions>);

impl Drop for SessionsEnd {
    fn drop(&mut self) {
        let all = self.0.all.take();
        all.into_values().for_each(|session| session.end());
    }
}

impl Sessions {
    /// Of a socket that was asked for this address.
    fn at(socket: &Rc<UdpSocket>, address: SocketAddr) -> Rc<Self> {
        Rc::new(Self {
            socket: Rc::downgrade(socket),
            address,
            here: socket.local_addr().unwrap_or(address),
            all: RefCell::default(),
            order: RefCell::default(),
        })
    }

    /// Ends them all here, and says how they go on elsewhere.
    fn hand_over(&self, service: &str) -> Vec<(SessionLabel, OwnedFd)> {
        let one = |((client, _), session): (SessionKey, Rc<DatagramSession>)| {
            let server = session.has.borrow().as_ref()?.in_flight.server().address;
            session.end();
            let socket = session.upstream.as_fd().try_clone_to_owned().ok()?;
            let (service, here) = (service.to_owned(), self.address);
            Some((SessionLabel { service, here, client, server }, socket))
        };
        self.all.take().into_iter().filter_map(one).collect()
    }

    /// Goes on with a session of another proxy. One whose server is not wanted here, or for which there is no
    /// place, is over.
    fn inherit(
        self: &Rc<Self>,
        service: &Rc<RunningService>,
        label: &SessionLabel,
        socket: OwnedFd,
    ) -> Option<()> {
        let client = label.client;
        let server =
            service.wanted.borrow().iter().find(|one| one.address == label.server).cloned()?;
        let way = service.way_of(ProxyTransport::Udp, client, self.here)?;
        let visit = service.visit(client.ip())?;
        let place = service.share.take()?;
        let socket = Socket::from(socket);
        let leg = service.outbound.note(&socket, ProxyTransport::Udp, &server, &way).ok()?;
        let upstream = UdpSocket::from_std(socket.into()).ok()?;
        let stay = service.persistence.hold(client.ip(), label.server, Instant::now());
        let key = (client, service.one_packet.get().then_some(label.server));
        let in_flight = InFlight::begin(server);
        let has = Belongings { in_flight, _place: place, _visit: visit, _leg: leg, _stay: stay };
        self.begin(service, key, upstream, has);
        Some(())
    }

    fn forward(self: &Rc<Self>, service: &Rc<RunningService>, client: SocketAddr, datagram: &[u8]) {
        let counters = &service.counters;
        // What the first one met may be an answer to an earlier datagram.
        for _ in 0..ATTEMPT_LIMIT {
            let known = if service.one_packet.get() { None } else { self.live((client, None)) };
            let session = match known.map_or_else(|| self.open(service, client), Ok) {
                Ok(session) => session,
                Err(TurnedAway::Before) => return,
                Err(TurnedAway::Refused) => break,
            };
            session.movement.note();
            // Asked of the kernel: the runtime learns only later that a new socket can be written to.
            match SockRef::from(&session.upstream).send(datagram) {
                Ok(count) => {
                    session.note_silence();
                    session.count(count, |server| &server.bytes_in);
                    return add(&counters.bytes_in, count as u64);
                }
                // The network may lose a datagram too.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => match Shortage::of(&error) {
                    Some(shortage) => return service.note_shortage(shortage),
                    None => self.fail(&session),
                },
            }
        }
        add(&counters.refused, 1);
    }

    /// Its server's host says that nobody is there, or cannot be reached.
    fn fail(&self, session: &DatagramSession) {
        if let Some(has) = &*session.has.borrow() {
            has.in_flight.server().note_failure();
        }
        self.remove(&session.key);
    }

    /// The session of a client whose server still is one.
    fn live(&self, key: SessionKey) -> Option<Rc<DatagramSession>> {
        let session = self.all.borrow().get(&key).cloned()?;
        if session.is_live() {
            return Some(session);
        }
        self.remove(&key);
        None
    }

    fn remove(&self, key: &SessionKey) {
        let session = self.all.borrow_mut().remove(key);
        if let Some(session) = session {
            session.end();
        }
    }

    fn open(
        self: &Rc<Self>,
        service: &Rc<RunningService>,
        client: SocketAddr,
    ) -> Result<Rc<DatagramSession>, TurnedAway> {
        let way = service.way_of(ProxyTransport::Udp, client, self.here);
        let way = way.ok_or(TurnedAway::Before)?;
        let mut tried = Vec::new();
        while tried.len() < ATTEMPT_LIMIT {
            let server = service.choose(client.ip(), &tried).ok_or(TurnedAway::Refused)?;
            let key = (client, service.one_packet.get().then_some(server.address));
            if let Some(session) = self.live(key) {
                return Ok(session);
            }
            tried.push(server.address);
            let visit = service.visit(client.ip()).ok_or(TurnedAway::Before)?;
            let place = self.place(service).ok_or(TurnedAway::Refused)?;
            let in_flight = InFlight::begin(server);
            match self.connect(service, &in_flight, &way) {
                Ok((upstream, leg)) => {
                    add(&service.counters.accepted, 1);
                    in_flight.server().note_connected();
                    let server = in_flight.server().address;
                    let stay = service.persistence.hold(client.ip(), server, Instant::now());
                    let has = Belongings {
                        in_flight,
                        _place: place,
                        _visit: visit,
                        _leg: leg,
                        _stay: stay,
                    };
                    return Ok(self.begin(service, key, upstream, has));
                }
                Err(error) => match Shortage::of(&error) {
                    Some(shortage) => {
                        service.note_shortage(shortage);
                        if !shortage.is_of_one_server() {
                            break;
                        }
                    }
                    None => in_flight.server().note_failure(),
                },
            }
        }
        Err(TurnedAway::Refused)
    }

    /// A place for one more, if need be that of the client heard longest ago.
    fn place(&self, service: &RunningService) -> Option<ClientPlace> {
        loop {
            if let Some(place) = service.share.take() {
                return Some(place);
            }
            service.fullness.review(true);
            let (noted, session) = self.order.borrow_mut().pop_front()?;
            let Some(session) = session.upgrade().filter(|session| session.is_open()) else {
                continue;
            };
            if session.movement.last() > noted {
                self.enqueue(&session);
            } else {
                self.remove(&session.key);
            }
        }
    }

    fn enqueue(&self, session: &Rc<DatagramSession>) {
        let mut order = self.order.borrow_mut();
        if order.len() > 2 * self.all.borrow().len() + FEW_ENDED {
            order.retain(|(_, one)| one.upgrade().is_some_and(|one| one.is_open()));
        }
        order.push_back((session.movement.last(), Rc::downgrade(session)));
    }

    fn connect(
        &self,
        service: &RunningService,
        in_flight: &InFlight,
        way: &Rc<Way>,
    ) -> io::Result<(UdpSocket, Leg)> {
        let server = in_flight.server();
        let kind = Type::DGRAM.nonblocking();
        let domain = Domain::for_address(server.address);
        let socket = Socket::new(domain, kind, Some(Protocol::UDP))?;
        let any: IpAddr = match server.address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        socket.bind(&SocketAddr::from((any, 0)).into())?;
        socket.connect(&server.address.into())?;
        let leg = service.outbound.note(&socket, ProxyTransport::Udp, server, way)?;
        Ok((UdpSocket::from_std(socket.into())?, leg))
    }

    fn begin(
        self: &Rc<Self>,
        service: &Rc<RunningService>,
        key: SessionKey,
        upstream: UdpSocket,
        has: Belongings,
    ) -> Rc<DatagramSession> {
        let session = Rc::new(DatagramSession {
            key,
            upstream,
            begun: Instant::now(),
            movement: Movement::begin(),
            has: RefCell::new(Some(has)),
            answering: RefCell::default(),
        });
        let task = spawn_local(self.clone().answer(service.clone(), session.clone()));
        session.answering.replace(Some(task.abort_handle()));
        self.enqueue(&session);
        self.all.borrow_mut().insert(key, session.clone());
        session
    }

    /// Passes on what the server says until nothing moves any more.
    async fn answer(self: Rc<Self>, service: Rc<RunningService>, session: Rc<DatagramSession>) {
        let server = session.has.borrow().as_ref().map(|has| has.in_flight.server().clone());
        let Some(server) = server else { return };
        let mut ended = pin!(server.ended(&session.movement));
        loop {
            tokio::select! {
                ready = session.upstream.readable() => if ready.is_err() { break },
                _ = &mut ended => break,
            }
            match self.pass_on(&service, &session) {
                Ok(true) => server.note_answer(),
                Ok(false) => {}
                Err(_) => return self.fail(&session),
            }
        }
        session.note_silence();
        self.remove(&session.key);
    }

    /// Whether there was an answer.
    fn pass_on(&self, service: &RunningService, session: &DatagramSession) -> io::Result<bool> {
        ANSWER.with_borrow_mut(|buffer| {
            let count = match session.upstream.try_recv(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                received => received?,
            };
            session.movement.note();
            add(&service.counters.bytes_out, count as u64);
            session.count(count, |server| &server.bytes_out);
            let client = session.key.0.into();
            // A client that cannot be sent to now loses it, as it would to a full queue anywhere.
            let socket = self.socket.upgrade();
            let _ = socket.map(|it| SockRef::from(&*it).send_to(&buffer[..count], &client));
            Ok(true)
        })
    }
}

impl DatagramSession {
    /// Its server is still wanted.
    fn is_live(&self) -> bool {
        self.has.borrow().as_ref().is_some_and(|has| !has.in_flight.server().is_leaving())
    }

    /// Adds octets to a counter of its server.
    fn count(&self, octets: usize, counter: impl Fn(&RunningServer) -> &Cell<u64>) {
        if let Some(has) = &*self.has.borrow() {
            add(counter(has.in_flight.server()), octets as u64);
        }
    }

    /// It has not ended.
    fn is_open(&self) -> bool {
        self.has.borrow().is_some()
    }

    /// Nobody has refused what it sent.
    fn note_silence(&self) {
        if let Some(has) = &*self.has.borrow() {
            has.in_flight.server().note_silence(self.begun, Instant::now());
        }
    }

    fn end(&self) {
        self.has.take();
        if let Some(task) = self.answering.take() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;
    use crate::outbound::Outbound;
    use crate::protocol::{ProxyLimits, ProxyServer, ProxyService};
    use crate::shares::Shares;
    use crate::succession::Estate;

    /// A service with this one server, and its clients at a socket of the test.
    async fn served(server: &UdpSocket) -> (Rc<RunningService>, Rc<UdpSocket>, Rc<Sessions>) {
        let socket = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let server = ProxyServer {
            address: server.local_addr().unwrap(),
            weight: 1,
            max: None,
            min: None,
            send_proxy: None,
        };
        let spec = ProxyService {
            name: "dns".to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            also: Vec::new(),
            transport: ProxyTransport::Udp,
            scheduler: "rr".to_owned(),
            persistence: None,
            one_packet: false,
            drain_ms: 0,
            ready_only: false,
            limits: ProxyLimits::default(),
            send_proxy: None,
            accept_proxy: Vec::new(),
            servers: vec![server],
            failed: Vec::new(),
        };
        let shares = Rc::new(Shares::of_process());
        let service = Rc::new(RunningService::new(&spec, &shares, &Rc::<Outbound>::default()));
        service.become_wanted(&spec, &mut Estate::default());
        shares.divide(&[service.share()]);
        let sessions = Sessions::at(&socket, socket.local_addr().unwrap());
        (service, socket, sessions)
    }

    fn server_of(service: &RunningService) -> Rc<RunningServer> {
        service.wanted.borrow()[0].clone()
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn clients_that_come_and_go_leave_nothing_behind() {
        run(async {
            let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let (service, _socket, sessions) = served(&server).await;
            let client = |n: u16| SocketAddr::from(([127, 0, 0, 1], 1 + n % 2));
            for n in 0..1000 {
                sessions.forward(&service, client(n), b"x");
                sessions.remove(&(client(n), None));
                tokio::task::yield_now().await;
            }
            sessions.forward(&service, client(0), b"x");
            assert_eq!(sessions.all.borrow().len(), 1);
            let kept = sessions.order.borrow().len();
            assert!(kept <= FEW_ENDED + 2, "{kept}");
        });
    }

    #[test]
    fn a_suspect_is_one_until_it_answers() {
        run(async {
            let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let (service, _socket, sessions) = served(&server).await;
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            server_of(&service).note_failure();
            sessions.forward(&service, client.local_addr().unwrap(), b"x");
            assert!(server_of(&service).is_suspect(), "a datagram that is sent says nothing");
            let mut buffer = [0; 8];
            let (_, proxy) = server.recv_from(&mut buffer).await.unwrap();
            server.send_to(b"y", proxy).await.unwrap();
            assert_eq!(client.recv(&mut buffer).await.unwrap(), 1);
            assert!(!server_of(&service).is_suspect());
        });
    }
}
