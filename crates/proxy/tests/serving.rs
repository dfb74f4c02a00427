//! Clients through a real proxy process to real servers.

mod bench;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;

use bench::{Client, Proxy, eventually, fresh_address, service, start_server};
use locum_proxy::protocol::{ProxyPersistence, ProxyServiceState};

#[test]
fn round_robin_takes_turns() {
    let servers = [(start_server('a'), 1), (start_server('b'), 1), (start_server('c'), 0)];
    let web = service("web", "rr", &servers);
    let mut proxy = Proxy::start(&[]);
    assert_eq!(
        proxy.serve(std::slice::from_ref(&web)).services[0].state,
        ProxyServiceState::Listening
    );
    let letters: String = (0..6).map(|_| Client::connect(web.listen).letter).collect();
    assert_eq!(letters, "ababab");
}

#[test]
fn weighted_round_robin_follows_the_weights() {
    let servers = [(start_server('a'), 3), (start_server('b'), 1)];
    let web = service("web", "wrr", &servers);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let letters: Vec<_> = (0..8).map(|_| Client::connect(web.listen).letter).collect();
    assert_eq!(letters.iter().filter(|letter| **letter == 'a').count(), 6, "{letters:?}");
}

#[test]
fn least_connections_counts_open_ones() {
    for scheduler in ["lc", "wlc"] {
        let servers = [(start_server('a'), 1), (start_server('b'), 1)];
        let web = service("web", scheduler, &servers);
        let mut proxy = Proxy::start(&[]);
        proxy.serve(std::slice::from_ref(&web));
        let held: Vec<_> = (0..4).map(|_| Client::connect(web.listen)).collect();
        let (at_a, _at_b): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|client| client.letter == 'a');
        assert_eq!(at_a.len(), 2, "{scheduler}");
        // Whoever was at a leaves; the next two go there.
        for client in at_a {
            assert_eq!(client.finish(), "bye");
        }
        eventually("two free places", || (proxy.service("web").active == 2).then_some(()));
        let next: Vec<_> = (0..2).map(|_| Client::connect(web.listen)).collect();
        assert!(next.iter().all(|client| client.letter == 'a'), "{scheduler}");
    }
}

#[test]
fn source_hash_keeps_a_client_at_its_server() {
    let servers = [(start_server('a'), 1), (start_server('b'), 1), (start_server('c'), 1)];
    let mut web = service("web", "sh", &servers);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let from = |n: u8| Client::connect_from(Ipv4Addr::new(127, 1, 2, n), web.listen).letter;
    let before: Vec<_> = (1..=40).map(from).collect();
    assert_eq!(before, (1..=40).map(from).collect::<Vec<_>>());
    assert!(['a', 'b', 'c'].iter().all(|letter| before.contains(letter)), "{before:?}");
    web.servers.pop();
    proxy.serve(std::slice::from_ref(&web));
    for (after, before) in (1..=40).map(from).zip(before) {
        assert!(after == before || before == 'c', "only clients of c move");
        assert_ne!(after, 'c');
    }
}

#[test]
fn a_server_that_refuses_is_passed_over_and_counted() {
    let dead = fresh_address();
    let web = service("web", "rr", &[(dead, 1), (start_server('b'), 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    for _ in 0..4 {
        assert_eq!(Client::connect(web.listen).letter, 'b');
    }
    let status = proxy.service("web");
    assert!(status.servers[0].failures > 0, "{status:?}");
    assert_eq!((status.servers[1].connected, status.refused), (4, 0));
}

#[test]
fn a_client_that_no_server_takes_is_turned_away_at_once() {
    let web = service("web", "wlc", &[(fresh_address(), 1), (fresh_address(), 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let mut client = TcpStream::connect(web.listen).unwrap();
    assert!(client.read_to_end(&mut Vec::new()).is_err());
    assert_eq!(proxy.service("web").refused, 1);
}

#[test]
fn an_end_of_file_is_passed_on_and_the_answer_still_comes() {
    let web = service("web", "rr", &[(start_server('a'), 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let mut client = Client::connect(web.listen);
    client.stream.write_all(b"last words ").unwrap();
    assert_eq!(client.finish(), "last words bye");
    eventually("the end of the connection", || (proxy.service("web").active == 0).then_some(()));
    let status = proxy.service("web");
    assert_eq!((status.bytes_in, status.bytes_out), (11, 15));
    let server = &status.servers[0];
    assert_eq!((server.bytes_in, server.bytes_out), (11, 15));
}

#[test]
fn a_slow_receiver_gets_every_octet() {
    const SIZE: usize = 16 << 20;
    let address = fresh_address();
    let listener = TcpListener::bind(address).unwrap();
    let web = service("web", "rr", &[(address, 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let data: Vec<u8> = (0..SIZE).map(|i| (i / 3 % 251) as u8).collect();
    let sent = data.clone();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap()
    });
    let mut client = TcpStream::connect(web.listen).unwrap();
    // Nothing is read until the proxy cannot go on; then it must go on without a loss.
    eventually("a full pipe", || {
        let moved = proxy.service("web").bytes_out;
        (moved > 0 && moved == proxy.service("web").bytes_out).then_some(())
    });
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert!(received == data);
    drop(client);
    assert_eq!(server.join().unwrap(), 0);
}

#[test]
fn clients_beyond_the_limit_wait_until_one_leaves() {
    // 136 descriptors less 128 and 2 kept back for each address are enough for three clients.
    let wrapper = ["sh", "-c", "ulimit -n 136; exec \"$0\" \"$@\""];
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    let mut proxy = Proxy::start_under(&wrapper, &[]);
    web.also = vec![fresh_address(), fresh_address()];
    assert_eq!(proxy.serve(std::slice::from_ref(&web)).limit, 1);
    web.also.clear();
    assert_eq!(proxy.serve(std::slice::from_ref(&web)).limit, 3);
    let mut held: Vec<_> = (0..3).map(|_| Client::connect(web.listen)).collect();
    let waiting = TcpStream::connect(web.listen).unwrap();
    assert_eq!(proxy.service("web").active, 3);
    held.pop();
    let mut letter = [0];
    (&waiting).read_exact(&mut letter).unwrap();
    assert_eq!(&letter, b"a");
}

#[test]
fn weights_change_without_touching_connections() {
    let (a, b) = (start_server('a'), start_server('b'));
    let mut web = service("web", "wrr", &[(a, 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let mut client = Client::connect(web.listen);
    web.servers = vec![bench::server(a, 0), bench::server(b, 5)];
    proxy.serve(std::slice::from_ref(&web));
    client.echo("still at a").unwrap();
    assert_eq!(Client::connect(web.listen).letter, 'b');
    web.servers[0].weight = 9;
    web.servers[1].weight = 0;
    proxy.serve(std::slice::from_ref(&web));
    assert_eq!(Client::connect(web.listen).letter, 'a');
    client.echo("still at a").unwrap();
}

#[test]
fn a_service_listens_on_all_its_addresses_and_on_those_that_stay_goes_on() {
    let mut proxy = Proxy::start(&[]);
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    let (first, second, third) = (web.listen, bench::fresh_address(), bench::fresh_address());
    web.also = vec![second];
    proxy.serve(std::slice::from_ref(&web));
    let mut clients = [first, second].map(Client::connect);
    web.also = vec![third, third];
    proxy.serve(std::slice::from_ref(&web));
    assert_eq!(Client::connect(third).letter, 'a');
    assert!(TcpStream::connect(second).is_err());
    for client in &mut clients {
        client.echo("it goes on").unwrap();
    }
    let taken = TcpListener::bind(second).unwrap();
    web.also = vec![second, third];
    let status = proxy.serve(std::slice::from_ref(&web));
    let ProxyServiceState::Failed { error } = &status.services[0].state else {
        panic!("{status:?}")
    };
    assert!(error.contains(&format!("cannot listen on {second}")), "{error}");
    assert_eq!(Client::connect(first).letter, 'a', "what can be served is");
    drop(taken);
}

#[test]
fn a_client_stays_with_its_server_as_long_as_it_is_one() {
    let (a, b) = (start_server('a'), start_server('b'));
    let mut proxy = Proxy::start(&[]);
    let mut web = service("web", "rr", &[(a, 1), (b, 1)]);
    web.persistence = Some(ProxyPersistence { timeout_ms: 60_000, prefix: 24 });
    proxy.serve(std::slice::from_ref(&web));
    let from = |last: [u8; 4]| Client::connect_from(last.into(), web.listen).letter;
    let first = from([127, 3, 1, 1]);
    // The first and the second of a network are one client.
    assert_eq!([1, 2, 3, 1].map(|last| from([127, 3, 1, last])), [first; 4]);
    assert_ne!(from([127, 3, 2, 1]), first, "the next client is another one");
    web.servers.remove(usize::from(first == 'b'));
    proxy.serve(std::slice::from_ref(&web));
    assert_ne!(from([127, 3, 1, 1]), first);
}

#[test]
fn a_client_stays_for_as_long_as_it_has_a_connection_however_long_that_lasts() {
    let mut proxy = Proxy::start(&[]);
    let mut web = service("web", "rr", &[(start_server('a'), 1), (start_server('b'), 1)]);
    // Over at the very moment from which it counts.
    web.persistence = Some(ProxyPersistence { timeout_ms: 0, prefix: 32 });
    proxy.serve(std::slice::from_ref(&web));
    let held = Client::connect(web.listen);
    for _ in 0..4 {
        assert_eq!(Client::connect(web.listen).letter, held.letter);
    }
}

#[test]
fn the_end_of_an_older_connection_does_not_move_a_client_back() {
    let mut proxy = Proxy::start(&[]);
    let mut web = service("web", "fo", &[(start_server('a'), 2), (start_server('b'), 1)]);
    web.persistence = Some(ProxyPersistence { timeout_ms: 60_000, prefix: 32 });
    proxy.serve(std::slice::from_ref(&web));
    let old = Client::connect(web.listen);
    web.servers[0].weight = 0;
    proxy.serve(std::slice::from_ref(&web));
    let new = Client::connect(web.listen);
    assert_eq!((old.letter, new.letter), ('a', 'b'));
    assert_eq!(old.finish(), "bye");
    eventually("its end", || (proxy.service("web").active == 1).then_some(()));
    web.servers[0].weight = 2;
    proxy.serve(std::slice::from_ref(&web));
    assert_eq!(Client::connect(web.listen).letter, 'b');
}
