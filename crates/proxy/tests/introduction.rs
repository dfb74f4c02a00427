//! The PROXY protocol, towards servers and from whoever stands in front of us.

mod bench;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use bench::{Client, Proxy, eventually, fresh_address, service, start_server};
use locum_proxy::protocol::{ProxyHeaderVersion, ProxyNetwork, ProxyService};

/// Who comes from here says for whom.
const FRONT: Ipv4Addr = Ipv4Addr::new(127, 5, 0, 1);

fn network(address: Ipv4Addr, prefix: u8) -> ProxyNetwork {
    ProxyNetwork { address: IpAddr::V4(address), prefix }
}

/// Says back what each client begins with, so many octets of it, and keeps the connection.
fn start_mirror(length: usize) -> SocketAddr {
    let address = fresh_address();
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        let mut all = Vec::new();
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut seen = vec![0; length];
            client.read_exact(&mut seen).unwrap();
            client.write_all(&seen).unwrap();
            all.push(client);
        }
    });
    address
}

/// Says this and hears as much as there is to come.
fn exchange(mut client: &TcpStream, said: &str, length: usize) -> Vec<u8> {
    client.write_all(said.as_bytes()).unwrap();
    let mut heard = vec![0; length];
    client.read_exact(&mut heard).unwrap();
    heard
}

fn line(client: &TcpStream, asked: SocketAddr) -> String {
    let peer = client.local_addr().unwrap();
    format!("PROXY TCP4 {} {} {} {}\r\n", peer.ip(), asked.ip(), peer.port(), asked.port())
}

#[test]
fn a_server_hears_who_the_client_is_ahead_of_all_that_it_says() {
    let mut proxy = Proxy::start(&[]);
    let said = "GET /index.html";
    for version in [ProxyHeaderVersion::V1, ProxyHeaderVersion::V2] {
        // No header is shorter, and one with what is said behind it is longer.
        let length = 16 + 12 + 4;
        let mut web = service("web", "rr", &[(start_mirror(length), 1)]);
        web.send_proxy = Some(version);
        proxy.serve(std::slice::from_ref(&web));
        let client = Client::connect_unheard(Ipv4Addr::new(127, 6, 7, 8), web.listen).stream;
        let heard = exchange(&client, said, length);
        let header = match version {
            ProxyHeaderVersion::V1 => line(&client, web.listen).into_bytes(),
            ProxyHeaderVersion::V2 => {
                let port = client.local_addr().unwrap().port().to_be_bytes();
                let IpAddr::V4(asked) = web.listen.ip() else { unreachable!("it is IPv4") };
                let start = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x7f\x06\x07\x08";
                [&start[..], &asked.octets(), &port, &web.listen.port().to_be_bytes()].concat()
            }
        };
        let expected = [&header, said.as_bytes()].concat();
        assert_eq!(heard, expected[..length]);
    }
}

/// In front of another one of ours: each hop says for whom it comes, and that goes on.
#[test]
fn what_another_proxy_says_of_a_client_is_what_counts_and_what_is_passed_on() {
    let mut back = service("back", "rr", &[]);
    back.send_proxy = Some(ProxyHeaderVersion::V1);
    back.accept_proxy = vec![network(Ipv4Addr::new(127, 0, 0, 0), 8)];
    back.limits.per_source = Some(1);
    let mut front = service("front", "rr", &[(back.listen, 1)]);
    front.send_proxy = Some(ProxyHeaderVersion::V2);
    let source = |n: u8| Ipv4Addr::new(127, 6, 0, n);
    let mut proxy = Proxy::start(&[]);
    let length = "PROXY TCP4 127.6.0.1 ".len();
    back.servers = vec![bench::server(start_mirror(length), 1)];
    proxy.serve(&[front.clone(), back.clone()]);
    let held: Vec<_> = (1..=2)
        .map(|n| {
            let client = Client::connect_unheard(source(n), front.listen).stream;
            let heard = exchange(&client, "hello", length);
            assert_eq!(heard, line(&client, front.listen).as_bytes()[..length]);
            client
        })
        .collect();
    // One of each address: the front's own is nobody's.
    assert!(Client::connect_unheard(source(1), front.listen).ends_in_reset());
    let status = proxy.service("back");
    assert_eq!((status.accepted, status.crowded, status.headless), (2, 1, 0));
    drop(held);
}

fn introduced_by_front() -> ProxyService {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    web.accept_proxy = vec![network(FRONT, 32)];
    web
}

#[test]
fn half_a_header_costs_its_sender_the_connection_in_time_and_nobody_else_anything() {
    let mut web = introduced_by_front();
    web.limits.connect_ms = 1_000;
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let halves: Vec<_> = (0..50)
        .map(|_| {
            let mut half = Client::connect_unheard(FRONT, web.listen);
            half.stream.write_all(b"PROXY TCP4 192.").unwrap();
            half
        })
        .collect();
    let other = Ipv4Addr::new(127, 6, 0, 1);
    assert_eq!(Client::connect_from(other, web.listen).letter, 'a');
    let mut whole = Client::connect_unheard(FRONT, web.listen).stream;
    whole.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").unwrap();
    assert_eq!(Client::greeted(whole).letter, 'a');
    for half in halves {
        assert!(half.ends_in_reset());
    }
    let status = proxy.service("web");
    assert_eq!((status.headless, status.accepted), (50, 2));
    eventually("the end of them all", || (proxy.service("web").active == 0).then_some(()));
}

#[test]
fn who_must_say_for_whom_it_comes_and_does_not_is_cut() {
    let web = introduced_by_front();
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    for said in
        ["GET / HTTP/1.1\r\n\r\n", "PROXY TCP9 ......\r\n", "\r\n\r\n\0\r\nQUIT\n\u{11}...."]
    {
        let mut client = Client::connect_unheard(FRONT, web.listen);
        client.stream.write_all(said.as_bytes()).unwrap();
        assert!(client.ends_in_reset(), "{said:?}");
    }
    assert_eq!(proxy.service("web").headless, 3);
}

#[test]
fn nobody_else_can_say_that_it_is_another_one() {
    let web = introduced_by_front();
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let mut client = Client::connect_from(Ipv4Addr::new(127, 6, 0, 1), web.listen);
    client.echo("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").unwrap();
}
