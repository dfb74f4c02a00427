//! Clients that wait until a server has room.

mod bench;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bench::{Client, Proxy, eventually, fresh_address, server, service, start_server};
use locum_proxy::protocol::{ProxyService, QueueStatus};
use socket2::SockRef;

/// One server, with one place.
fn narrow() -> ProxyService {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    web.limits.per_server = Some(1);
    web
}

fn queue(proxy: &mut Proxy) -> QueueStatus {
    proxy.service("web").queue
}

/// One more that waits.
fn wait_in(proxy: &mut Proxy, web: &ProxyService) -> TcpStream {
    let before = queue(proxy).waiting;
    let stream = TcpStream::connect(web.listen).unwrap();
    eventually("it waits", || (queue(proxy).waiting == before + 1).then_some(()));
    stream
}

fn is_reset(stream: TcpStream) -> bool {
    Client::unheard(stream).ends_in_reset()
}

#[test]
fn those_that_wait_are_served_in_the_order_in_which_they_came() {
    let web = narrow();
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let mut served = Client::connect(web.listen);
    let waiting = [(); 5].map(|()| wait_in(&mut proxy, &web));
    let status = proxy.service("web");
    assert_eq!((status.active, status.servers[0].active), (6, 1));
    assert!(status.full.is_some_and(|full| full.waiting == 5));
    for next in waiting {
        let waiting = queue(&mut proxy).waiting;
        assert_eq!(served.finish(), "bye");
        served = Client::greeted(next);
        assert_eq!(queue(&mut proxy).waiting, waiting - 1);
    }
    assert_eq!(queue(&mut proxy), QueueStatus::default());
    assert_eq!(proxy.service("web").refused, 0);
}

#[test]
fn who_comes_when_as_many_wait_as_may_is_turned_away() {
    let mut web = narrow();
    web.limits.queue = Some(2);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let served = Client::connect(web.listen);
    let waiting = [(); 2].map(|()| wait_in(&mut proxy, &web));
    assert!(is_reset(TcpStream::connect(web.listen).unwrap()));
    let status = proxy.service("web");
    assert_eq!((status.queue.turned_away, status.refused), (1, 1));
    assert_eq!(served.finish(), "bye");
    for next in waiting {
        assert_eq!(Client::greeted(next).finish(), "bye");
    }
}

#[test]
fn who_has_waited_for_too_long_is_turned_away_and_says_how_long() {
    let mut web = narrow();
    web.limits.queue_ms = 400;
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let served = Client::connect(web.listen);
    let waiting = wait_in(&mut proxy, &web);
    eventually("its time", || (queue(&mut proxy).longest_ms >= 100).then_some(()));
    assert!(is_reset(waiting));
    let status = proxy.service("web");
    assert_eq!((status.queue.waiting, status.queue.timed_out, status.refused), (0, 1, 1));
    assert_eq!(served.finish(), "bye");
    assert_eq!(Client::connect(web.listen).letter, 'a');
}

#[test]
fn who_leaves_is_noticed_and_who_has_asked_and_says_no_more_has_its_answer() {
    let web = narrow();
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let served = Client::connect(web.listen);
    let closes = wait_in(&mut proxy, &web);
    let mut resets = wait_in(&mut proxy, &web);
    let mut asks = wait_in(&mut proxy, &web);
    asks.write_all(b"a question").unwrap();
    asks.shutdown(Shutdown::Write).unwrap();
    drop(closes);
    eventually("one left", || (queue(&mut proxy).left == 1).then_some(()));
    resets.write_all(b"never mind").unwrap();
    SockRef::from(&resets).set_linger(Some(Duration::ZERO)).unwrap();
    drop(resets);
    eventually("two left", || (queue(&mut proxy).left == 2).then_some(()));
    assert_eq!((queue(&mut proxy).waiting, proxy.service("web").refused), (1, 0));
    assert_eq!(served.finish(), "bye");
    let mut answer = String::new();
    Client::unheard(asks).stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "aa questionbye");
    assert_eq!(proxy.service("web").servers[0].connected, 2, "nobody who left came to a server");
}

#[test]
fn a_server_that_is_added_or_gets_more_places_has_those_that_wait_at_once() {
    let mut web = narrow();
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let _served = Client::connect(web.listen);
    let [first, second, third] = [(); 3].map(|()| wait_in(&mut proxy, &web));
    web.servers.push(server(start_server('b'), 1));
    proxy.serve(std::slice::from_ref(&web));
    let first = Client::greeted(first);
    assert_eq!((first.letter, queue(&mut proxy).waiting), ('b', 2));
    web.limits.per_server = None;
    web.servers[1].max = Some(1);
    proxy.serve(std::slice::from_ref(&web));
    assert_eq!([second, third].map(|one| Client::greeted(one).letter), ['a', 'a']);
}

#[test]
fn when_a_server_fails_those_that_wait_go_to_another_one_and_away_when_there_is_none() {
    let (a, b) = (start_server('a'), start_server('b'));
    let mut web = service("web", "rr", &[(a, 1), (b, 1)]);
    web.limits.per_server = Some(1);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let mut held = [(); 2].map(|()| Client::connect(web.listen));
    held.sort_by_key(|client| client.letter);
    let [at_a, at_b] = held;
    let [first, second] = [(); 2].map(|()| wait_in(&mut proxy, &web));
    web.servers.remove(0);
    web.failed = vec![a];
    proxy.serve(std::slice::from_ref(&web));
    assert!(at_a.ends_in_reset());
    assert_eq!(queue(&mut proxy).waiting, 2, "the other one is as full as it was");
    assert_eq!(at_b.finish(), "bye");
    let first = Client::greeted(first);
    assert_eq!(first.letter, 'b');
    web.servers.clear();
    web.failed = vec![a, b];
    proxy.serve(std::slice::from_ref(&web));
    assert!(first.ends_in_reset() && is_reset(second), "nobody waits for nothing");
}

#[test]
fn who_meets_a_server_that_refuses_waits_for_the_others() {
    let mut web = narrow();
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let served = Client::connect(web.listen);
    let waiting = wait_in(&mut proxy, &web);
    // Nobody is there.
    web.servers.push(server(fresh_address(), 1));
    proxy.serve(std::slice::from_ref(&web));
    eventually("an attempt", || (proxy.service("web").servers[1].failures == 1).then_some(()));
    eventually("it waits again", || (queue(&mut proxy).waiting == 1).then_some(()));
    assert_eq!(served.finish(), "bye");
    assert_eq!(Client::greeted(waiting).letter, 'a');
}

#[test]
fn those_that_wait_are_served_by_the_proxy_they_came_to_when_another_takes_its_place() {
    let web = narrow();
    let mut old = Proxy::start(&[]);
    old.serve(std::slice::from_ref(&web));
    let served = Client::connect(web.listen);
    let waiting = wait_in(&mut old, &web);
    let mut new = old.successor();
    assert_eq!(new.serve(std::slice::from_ref(&web)).services[0].queue.waiting, 1);
    assert_eq!(Client::connect(web.listen).letter, 'a', "its limits are its own");
    assert_eq!(served.finish(), "bye");
    assert_eq!(Client::greeted(waiting).finish(), "bye");
    assert!(old.wait_for_exit().success());
}
