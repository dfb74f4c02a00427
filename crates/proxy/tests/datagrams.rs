//! Datagrams through the proxy, as its clients and servers meet them.

mod bench;

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use bench::{PATIENCE, Proxy, eventually, fresh_address, server, service};
use locum_proxy::protocol::{ProxyPersistence, ProxyService, ProxyServiceState, ProxyTransport};

/// Answers every datagram with its letter and what it got, until it is sent a `!`.
fn start_echo(letter: char) -> SocketAddr {
    let address = fresh_address();
    let socket = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 70_000];
        loop {
            let (count, client) = socket.recv_from(&mut buffer).unwrap();
            if buffer[..count] == *b"!" {
                break;
            }
            let answer = [letter.to_string().as_bytes(), &buffer[..count]].concat();
            let _ = socket.send_to(&answer[..answer.len().min(65_507)], client);
        }
    });
    address
}

/// Its socket closes.
fn stop_echo(address: SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"!", address).unwrap();
    eventually("the server's end", || UdpSocket::bind(address).ok());
}

fn udp(scheduler: &str, servers: &[SocketAddr]) -> ProxyService {
    let weighted: Vec<_> = servers.iter().map(|address| (*address, 1)).collect();
    ProxyService { transport: ProxyTransport::Udp, ..service("dns", scheduler, &weighted) }
}

struct UdpClient(UdpSocket);

impl UdpClient {
    fn new(service: &ProxyService) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(service.listen).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The letter of the server that answered; `None` when nobody did for a moment.
    fn ask_within(&self, text: &str, patience: Duration) -> Option<char> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        self.0.send(text.as_bytes()).ok()?;
        let mut buffer = [0; 70_000];
        let count = self.0.recv(&mut buffer).ok()?;
        assert_eq!(buffer[1..count], *text.as_bytes());
        Some(char::from(buffer[0]))
    }

    fn ask(&self, text: &str) -> char {
        self.ask_within(text, PATIENCE).expect("an answer")
    }

    /// Asks until somebody answers, as clients of UDP do.
    fn insist(&self, text: &str) -> char {
        eventually("an answer", || self.ask_within(text, Duration::from_millis(100)))
    }
}

#[test]
fn the_first_datagram_is_answered_a_client_stays_with_its_server_and_clients_are_spread() {
    let (a, b) = (start_echo('a'), start_echo('b'));
    let mut proxy = Proxy::start(&[]);
    let dns = udp("rr", &[a, b]);
    proxy.serve(std::slice::from_ref(&dns));
    let clients = [UdpClient::new(&dns), UdpClient::new(&dns)];
    let first = clients.each_ref().map(|client| client.ask("x"));
    assert_ne!(first[0], first[1]);
    for _ in 0..10 {
        assert_eq!(clients.each_ref().map(|client| client.ask("more")), first);
    }
    // As large as they come.
    assert_eq!(clients[0].ask(&"y".repeat(60_000)), first[0]);
    let status = proxy.service("dns");
    assert_eq!((status.active, status.accepted, status.refused), (2, 2, 0));
}

#[test]
fn a_server_that_left_gets_nothing_more_and_its_client_another_one() {
    let (a, b) = (start_echo('a'), start_echo('b'));
    let mut proxy = Proxy::start(&[]);
    let mut dns = udp("rr", &[a, b]);
    proxy.serve(std::slice::from_ref(&dns));
    let clients = [UdpClient::new(&dns), UdpClient::new(&dns)];
    clients.iter().for_each(|client| assert_ne!(client.ask("x"), '-'));
    dns.servers.remove(0);
    proxy.serve(std::slice::from_ref(&dns));
    assert_eq!(clients.each_ref().map(|client| client.ask("y")), ['b', 'b']);
}

#[test]
fn a_server_whose_host_says_that_nobody_is_there_is_left_at_once() {
    let (a, b) = (start_echo('a'), start_echo('b'));
    let mut proxy = Proxy::start(&[]);
    let dns = udp("rr", &[a, b]);
    proxy.serve(std::slice::from_ref(&dns));
    let clients = [UdpClient::new(&dns), UdpClient::new(&dns)];
    clients.iter().for_each(|client| assert_ne!(client.ask("x"), '-'));
    stop_echo(a);
    assert_eq!(clients.each_ref().map(|client| client.insist("y")), ['b', 'b']);
    // New ones do not find out for themselves.
    assert_eq!(UdpClient::new(&dns).ask("z"), 'b');
    assert_eq!(UdpClient::new(&dns).ask("z"), 'b');
}

#[test]
fn with_weight_0_clients_keep_their_server_and_new_ones_do_not_get_it() {
    let (a, b) = (start_echo('a'), start_echo('b'));
    let mut proxy = Proxy::start(&[]);
    let mut dns = udp("rr", &[a, b]);
    proxy.serve(std::slice::from_ref(&dns));
    let clients = [UdpClient::new(&dns), UdpClient::new(&dns)];
    let before = clients.each_ref().map(|client| client.ask("x"));
    dns.servers[0] = server(a, 0);
    proxy.serve(std::slice::from_ref(&dns));
    assert_eq!(clients.each_ref().map(|client| client.ask("y")), before);
    assert_eq!([UdpClient::new(&dns).ask("z"), UdpClient::new(&dns).ask("z")], ['b', 'b']);
}

#[test]
fn who_was_heard_longest_ago_gives_way() {
    let a = start_echo('a');
    let mut proxy = Proxy::start(&[]);
    let mut dns = udp("rr", &[a]);
    dns.limits.connections = Some(2);
    proxy.serve(std::slice::from_ref(&dns));
    let clients = [UdpClient::new(&dns), UdpClient::new(&dns), UdpClient::new(&dns)];
    for round in 0..3 {
        for client in &clients {
            assert_eq!(client.ask("x"), 'a', "round {round}");
        }
    }
    let status = proxy.service("dns");
    assert_eq!((status.active, status.refused), (2, 0));
    assert_eq!(status.accepted, 9, "each was the one that had waited longest");
}

#[test]
fn the_clients_of_one_address_stay_together_for_as_long_as_one_of_them_is_there() {
    let (a, b) = (start_echo('a'), start_echo('b'));
    let mut proxy = Proxy::start(&[]);
    let mut dns = udp("rr", &[a, b]);
    // Over at the very moment from which it counts.
    dns.persistence = Some(ProxyPersistence { timeout_ms: 0, prefix: 32 });
    proxy.serve(std::slice::from_ref(&dns));
    let first = UdpClient::new(&dns).ask("x");
    for _ in 0..4 {
        assert_eq!(UdpClient::new(&dns).ask("x"), first);
    }
}

#[test]
fn where_every_server_has_all_it_may_have_a_new_client_is_refused_and_nobody_gives_way() {
    let mut proxy = Proxy::start(&[]);
    let mut dns = udp("rr", &[start_echo('a')]);
    dns.limits.per_server = Some(1);
    proxy.serve(std::slice::from_ref(&dns));
    let first = UdpClient::new(&dns);
    assert_eq!(first.ask("x"), 'a');
    UdpClient::new(&dns).0.send(b"y").unwrap();
    let refused = || Some(proxy.service("dns")).filter(|status| status.refused == 1);
    eventually("the count", refused);
    assert_eq!(first.ask("z"), 'a');
    assert_eq!(proxy.service("dns").accepted, 1, "the first one still has its session");
}

#[test]
fn each_datagram_goes_to_a_server_of_its_own_where_that_is_asked() {
    let (a, b) = (start_echo('a'), start_echo('b'));
    let mut proxy = Proxy::start(&[]);
    let dns = ProxyService { one_packet: true, ..udp("rr", &[a, b]) };
    proxy.serve(std::slice::from_ref(&dns));
    let client = UdpClient::new(&dns);
    let answers: String = (0..6).map(|_| client.ask("x")).collect();
    assert!(["ababab", "bababa"].contains(&&*answers), "{answers}");
    assert_eq!(proxy.service("dns").active, 2, "one for each server");
}

#[test]
fn a_client_of_many_servers_counts_once_for_each_and_not_for_each_datagram() {
    let (a, b) = (start_echo('a'), start_echo('b'));
    let mut proxy = Proxy::start(&[]);
    let mut dns = ProxyService { one_packet: true, ..udp("rr", &[a, b]) };
    dns.limits.per_source = Some(2);
    proxy.serve(std::slice::from_ref(&dns));
    let client = UdpClient::new(&dns);
    (0..6).for_each(|_| assert_ne!(client.ask("x"), '-'));
    let status = proxy.service("dns");
    assert_eq!((status.accepted, status.crowded, status.refused), (2, 0, 0));
}

#[test]
fn who_has_as_many_as_one_may_have_is_counted_as_that_and_not_as_refused() {
    let a = start_echo('a');
    let mut proxy = Proxy::start(&[]);
    let mut dns = udp("rr", &[a]);
    dns.limits.per_source = Some(1);
    proxy.serve(std::slice::from_ref(&dns));
    assert_eq!(UdpClient::new(&dns).ask("x"), 'a');
    UdpClient::new(&dns).0.send(b"y").unwrap();
    let crowded = || Some(proxy.service("dns")).filter(|status| status.crowded > 0);
    let status = eventually("the count", crowded);
    assert_eq!((status.crowded, status.refused), (1, 0));
}

#[test]
fn who_waits_at_the_same_address_for_tcp_does_not_wait_for_udp() {
    let mut proxy = Proxy::start(&[]);
    let mut dns = udp("rr", &[start_echo('a')]);
    let mut web = service("web", "rr", &[(bench::start_server('b'), 1)]);
    web.listen = dns.listen;
    dns.limits.connections = Some(1);
    web.limits.connections = Some(1);
    proxy.serve(&[dns.clone(), web.clone()]);
    let _held = bench::Client::connect(web.listen);
    let _waiting = [TcpStream::connect(web.listen), TcpStream::connect(web.listen)];
    eventually("those that wait", || {
        proxy.service("web").full.is_some_and(|full| full.waiting == 2).then_some(())
    });
    assert_eq!(UdpClient::new(&dns).ask("x"), 'a');
    assert_eq!(proxy.service("dns").full.expect("it has its one client").waiting, 0);
}

#[test]
fn a_service_that_is_not_wanted_or_stands_by_has_no_port_and_its_clients_go_with_it() {
    let a = start_echo('a');
    let mut proxy = Proxy::start(&[]);
    let mut dns = udp("rr", &[a]);
    proxy.serve(std::slice::from_ref(&dns));
    let client = UdpClient::new(&dns);
    assert_eq!(client.ask("x"), 'a');
    dns.ready_only = true;
    let status = proxy.serve(std::slice::from_ref(&dns));
    assert_eq!(status.services[0].state, ProxyServiceState::Ready);
    let own = UdpSocket::bind(dns.listen).expect("nobody has it");
    assert_eq!(proxy.service("dns").active, 0);
    drop(own);
    dns.ready_only = false;
    proxy.serve(std::slice::from_ref(&dns));
    assert_eq!(client.insist("y"), 'a');
}

#[test]
fn a_datagram_that_comes_round_is_not_carried_on_for_ever() {
    let mut proxy = Proxy::start(&[]);
    let mut dns = udp("rr", &[]);
    dns.servers.push(server(dns.listen, 1));
    proxy.serve(std::slice::from_ref(&dns));
    let client = UdpClient::new(&dns);
    client.0.send(b"x").unwrap();
    let looped = || Some(proxy.service("dns")).filter(|status| status.loops > 0);
    let status = eventually("the loop", looped);
    assert_eq!(status.loop_through, Some(dns.listen));
    assert_eq!(status.refused, 0, "no server was asked for it");
}

#[test]
fn octets_are_counted_of_each_server() {
    let (a, b) = (start_echo('a'), start_echo('b'));
    let mut proxy = Proxy::start(&[]);
    let dns = udp("rr", &[a, b]);
    proxy.serve(std::slice::from_ref(&dns));
    for text in ["four", "and more"] {
        UdpClient::new(&dns).ask(text);
    }
    let status = proxy.service("dns");
    let of = |at: usize| (status.servers[at].bytes_in, status.servers[at].bytes_out);
    // Each answer has a letter more.
    assert_eq!((of(0), of(1)), ((4, 5), (8, 9)));
    assert_eq!((status.bytes_in, status.bytes_out), (12, 14));
}
