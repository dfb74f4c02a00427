//! What one service may use, and what becomes of clients beyond it.

mod bench;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bench::{Client, PATIENCE, Proxy, eventually, service, start_server, start_silent_server};
use locum_proxy::protocol::{ProxyLimits, ProxyService};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A request of another service takes no longer than this, whatever the first one suffers.
const BOUND: Duration = Duration::from_millis(50);

fn connect_idle(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

/// A hundred requests in a row within the bound, each on a connection of its own. What takes places
/// lasts; what takes a busy machine's time does not, so there are three tries.
fn expect_quick_requests(address: SocketAddr) {
    let ask = |_| {
        let start = Instant::now();
        Client::connect(address).echo("hello").unwrap();
        start.elapsed()
    };
    let slowest: Vec<_> = (0..3).map(|_| (0..100).map(ask).max().unwrap()).collect();
    assert!(slowest.iter().any(|slowest| *slowest <= BOUND), "{slowest:?}");
}

/// The clients and the servers of a test are this process's: it may open as many as it is allowed.
fn raise_descriptors() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap()
}

fn with(service: &ProxyService, limits: ProxyLimits) -> ProxyService {
    ProxyService { limits, ..service.clone() }
}

#[test]
fn idle_clients_of_one_service_leave_the_others_their_places() {
    raise_descriptors();
    let wrapper = ["sh", "-c", "ulimit -n 1200; exec \"$0\" \"$@\""];
    let mut public = service("public", "rr", &[(start_silent_server(), 1)]);
    public.limits.half_closed_ms = 500;
    let internal = service("internal", "rr", &[(start_server('i'), 1)]);
    let mut proxy = Proxy::start_under(&wrapper, &[]);
    let limit = proxy.serve(&[public.clone(), internal.clone()]).limit;
    assert_eq!(limit, 534, "1200 less 128 and 2 for each service, two for each client");
    let idle = connect_idle(public.listen, 700);
    let full = eventually("the limit", || proxy.service("public").full);
    // Half of all, and of the other half its part.
    eventually("all that it can have", || (proxy.service("public").active == 401).then_some(()));
    expect_quick_requests(internal.listen);
    let status = proxy.service("public");
    let now = status.full.unwrap();
    assert_eq!((status.limit, status.active), (401, 401));
    assert!(now.for_ms >= full.for_ms, "it says since when");
    assert_eq!(now.waiting, 700 - 401);
    let busiest = now.busiest.unwrap();
    // Of those that wait one is accepted.
    assert_eq!((busiest.address, busiest.active), (IpAddr::V4(Ipv4Addr::LOCALHOST), 402));
    assert_eq!(proxy.service("internal").full, None);
    drop(idle);
    eventually("room", || proxy.service("public").full.is_none().then_some(()));
}

#[test]
fn ten_thousand_idle_clients_of_one_service_cost_another_one_nothing() {
    // Two for each client, and enough for the tests beside this one.
    let count = (raise_descriptors().saturating_sub(4_000) / 2).min(10_000);
    let public = service("public", "rr", &[(start_silent_server(), 1)]);
    let internal = service("internal", "rr", &[(start_server('i'), 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(&[public.clone(), internal.clone()]);
    let idle = connect_idle(public.listen, count);
    let expected = proxy.service("public").limit.min(count as u64);
    eventually("the clients", || (proxy.service("public").active >= expected).then_some(()));
    expect_quick_requests(internal.listen);
    drop(idle);
}

#[test]
fn clients_beyond_the_limit_of_their_service_wait_and_are_served_in_turn() {
    let web = service("web", "rr", &[(start_server('a'), 1)]);
    let limits = ProxyLimits { connections: Some(2), ..ProxyLimits::default() };
    let mut proxy = Proxy::start(&[]);
    proxy.serve(&[with(&web, limits)]);
    let mut held: Vec<_> = (0..2).map(|_| Client::connect(web.listen)).collect();
    let waiting = connect_idle(web.listen, 3);
    eventually("those that wait", || {
        proxy.service("web").full.is_some_and(|full| full.waiting == 3).then_some(())
    });
    assert_eq!((proxy.service("web").limit, proxy.service("web").active), (2, 2));
    for next in waiting {
        assert_eq!(held.remove(0).finish(), "bye");
        held.push(Client::greeted(next));
    }
    // A limit that is raised lets in who waits for it.
    let waiting = TcpStream::connect(web.listen).unwrap();
    eventually("one that waits", || {
        proxy.service("web").full.is_some_and(|full| full.waiting == 1).then_some(())
    });
    proxy.serve(std::slice::from_ref(&web));
    assert_eq!(Client::greeted(waiting).letter, 'a');
}

#[test]
fn a_server_with_all_its_connections_gets_no_more_and_clients_wait_when_all_have_them() {
    let servers = [(start_server('a'), 9), (start_server('b'), 1)];
    let mut web = service("web", "wrr", &servers);
    web.limits.per_server = Some(2);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let mut held: Vec<_> = (0..4).map(|_| Client::connect(web.listen)).collect();
    let of_a = held.iter().filter(|client| client.letter == 'a').count();
    assert_eq!(of_a, 2, "whatever its weight");
    let waiting = TcpStream::connect(web.listen).unwrap();
    eventually("one that waits", || {
        proxy.service("web").full.is_some_and(|full| full.waiting == 1).then_some(())
    });
    assert_eq!(proxy.service("web").refused, 0);
    let b = held.iter().position(|client| client.letter == 'b').unwrap();
    assert_eq!(held.remove(b).finish(), "bye");
    assert_eq!(Client::greeted(waiting).letter, 'b');
}

#[test]
fn more_connections_than_an_address_may_have_are_turned_away_and_others_are_served() {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    web.limits.per_source = Some(2);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let greedy = Ipv4Addr::new(127, 1, 3, 1);
    let mut held: Vec<_> = (0..2).map(|_| Client::connect_from(greedy, web.listen)).collect();
    let third = Client::connect_unheard(greedy, web.listen);
    assert!(third.ends_in_reset());
    assert_eq!(Client::connect_from(Ipv4Addr::new(127, 1, 3, 2), web.listen).letter, 'a');
    let status = proxy.service("web");
    assert_eq!((status.crowded, status.refused), (1, 0));
    assert_eq!(held.remove(0).finish(), "bye");
    eventually("the end of one", || (proxy.service("web").active == 1).then_some(()));
    assert_eq!(Client::connect_from(greedy, web.listen).letter, 'a');
}

#[test]
fn a_connection_on_which_nothing_moves_ends_and_one_that_speaks_goes_on() {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    web.limits.idle_ms = 1_000;
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let idle = Client::connect(web.listen);
    let mut busy = Client::connect(web.listen);
    let speaker = std::thread::spawn(move || {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            busy.echo("still here").unwrap();
            assert!(!busy.is_cut_within(Duration::from_millis(200)));
        }
        busy
    });
    assert!(idle.ends_in_reset(), "a cut connection does not look like a regular end");
    let mut busy = speaker.join().unwrap();
    busy.echo("still here").unwrap();
    assert_eq!(proxy.service("web").timed_out, 1);
    // A time-out that is shortened holds for those that are there.
    let patient = with(&web, ProxyLimits::default());
    proxy.serve(&[patient]);
    busy.echo("still here").unwrap();
    assert!(!busy.is_cut_within(Duration::from_millis(1_500)));
    proxy.serve(std::slice::from_ref(&web));
    assert!(busy.is_cut_within(PATIENCE));
    assert_eq!(proxy.service("web").timed_out, 2);
}

#[test]
fn a_connection_of_which_one_side_has_said_all_ends_sooner() {
    let mut web = service("web", "rr", &[(start_silent_server(), 1)]);
    web.limits.half_closed_ms = 300;
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let open = TcpStream::connect(web.listen).unwrap();
    let half = TcpStream::connect(web.listen).unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    eventually("the end of it", || (proxy.service("web").timed_out == 1).then_some(()));
    assert_eq!(proxy.service("web").active, 1, "the other one has not said all");
    drop(open);
}

#[test]
fn a_server_that_does_not_accept_is_passed_over_after_the_connect_time_out() {
    // Whoever connects to a listener whose queue is full hears nothing.
    let mute = bench::fresh_address();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&mute.into()).unwrap();
    socket.listen(0).unwrap();
    let _fills_it = TcpStream::connect(mute).unwrap();
    let mut web = service("web", "rr", &[(mute, 1), (start_server('b'), 1)]);
    web.limits.connect_ms = 300;
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let start = Instant::now();
    let letters: String = (0..2).map(|_| Client::connect(web.listen).letter).collect();
    assert_eq!(letters, "bb");
    // One began at the mute one, and the other one is spared that; the default would be three seconds.
    assert!((300..3_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(proxy.service("web").servers[0].failures, 1);
}

#[test]
fn a_server_with_as_many_as_it_may_have_gets_none_until_it_has_less_than_its_least() {
    let (a, b) = (start_server('a'), start_server('b'));
    let mut web = service("web", "fo", &[(a, 9), (b, 1)]);
    web.servers[0].max = Some(3);
    web.servers[0].min = Some(2);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(web.listen)).collect();
    assert_eq!(clients.iter().map(|client| client.letter).collect::<String>(), "aaabb");
    let mut leave = |left: u64| {
        clients.remove(0).finish();
        let active = || (proxy.service("web").servers[0].active == left).then_some(());
        eventually("its end", active);
        Client::connect(web.listen)
    };
    assert_eq!(leave(2).letter, 'b', "it still has its least");
    assert_eq!(leave(1).letter, 'a');
}

#[test]
fn a_server_of_weight_0_keeps_its_connections_and_one_that_is_left_out_loses_them() {
    let (a, b) = (start_server('a'), start_server('b'));
    let mut web = service("web", "rr", &[(a, 1), (b, 1)]);
    web.drain_ms = 300;
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let mut held: Vec<_> = (0..2).map(|_| Client::connect(web.listen)).collect();
    web.servers.iter_mut().for_each(|server| server.weight = 0);
    let status = proxy.serve(std::slice::from_ref(&web));
    assert!(status.services[0].servers.iter().all(|server| !server.leaving));
    for client in &mut held {
        assert!(
            !client.is_cut_within(Duration::from_millis(700)),
            "much longer than the drain time"
        );
        client.echo("still here").unwrap();
    }
    assert!(TcpStream::connect(web.listen).map(Client::unheard).unwrap().ends_in_reset());
    web.servers = vec![bench::server(b, 0)];
    proxy.serve(std::slice::from_ref(&web));
    assert!(held.remove(0).is_cut_within(PATIENCE), "it was at a, which is left out");
    held[0].echo("still here").unwrap();
}
