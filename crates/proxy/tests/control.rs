//! What the controller tells the process: levels, draining, adoption, being left alone.

mod bench;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};

use bench::{Client, PATIENCE, Proxy, eventually, service, start_server};
use locum_proxy::protocol::{
    Orphan, ProxyRequest, ProxyService, ProxyServiceState, ProxyStatus, VERSION,
};

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn a_service_that_lost_its_role_closes_at_once_and_finishes_its_connections() {
    let web = service("web", "rr", &[(start_server('a'), 1)]);
    let other = service("other", "rr", &[(start_server('b'), 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(&[web.clone(), other.clone()]);
    let mut client = Client::connect(web.listen);
    let status = proxy.serve(std::slice::from_ref(&other));
    assert_eq!(status.services[0].state, ProxyServiceState::Leaving);
    assert!(is_refused(web.listen));
    client.echo("going on").unwrap();
    assert_eq!(Client::connect(other.listen).letter, 'b');
    assert_eq!(client.finish(), "bye");
    eventually("the end of web", || (proxy.status().services.len() == 1).then_some(()));
}

#[test]
fn a_service_that_is_not_wanted_finishes_while_one_of_its_addresses_is_here() {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    let other = service("other", "rr", &[(start_server('b'), 1)]);
    // A documentation address: this node does not have it.
    let here = std::mem::replace(&mut web.listen, "192.0.2.77:8080".parse().unwrap());
    web.also = vec![here];
    let mut proxy = Proxy::start(&[]);
    proxy.serve(&[web, other.clone()]);
    let mut client = Client::connect(here);
    let status = proxy.serve(std::slice::from_ref(&other));
    assert_eq!(status.services[0].state, ProxyServiceState::Leaving);
    // Whether an address has gone is looked at once, and four times a second.
    assert!(!client.is_cut_within(std::time::Duration::from_millis(600)));
    client.echo("going on").unwrap();
}

#[test]
fn connections_are_cut_when_the_drain_time_is_over() {
    let mut web = service("web", "rr", &[(start_server('a'), 1), (start_server('b'), 1)]);
    // Long enough for two levels on a busy machine.
    web.drain_ms = 1500;
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let leaving = Client::connect(web.listen);
    let mut staying = Client::connect(web.listen);
    web.servers.remove(0);
    proxy.serve(std::slice::from_ref(&web));
    // The same level again does not lengthen the time.
    let status = proxy.serve(std::slice::from_ref(&web));
    assert!(status.services[0].servers.iter().any(|server| server.leaving));
    assert!(leaving.ends_in_reset(), "a cut connection does not look like a regular end");
    staying.echo("untouched").unwrap();
}

/// As a reload that takes one out does, and a check that fails another one.
#[test]
fn connections_of_a_server_that_failed_are_cut_at_once() {
    let [a, b, c] = ['a', 'b', 'c'].map(start_server);
    let mut web = service("web", "rr", &[(a, 1), (b, 1), (c, 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let mut clients = [(); 3].map(|()| Client::connect(web.listen));
    web.servers.truncate(1);
    web.failed = vec![b];
    proxy.serve(std::slice::from_ref(&web));
    let [staying, failed, leaving] = &mut clients;
    staying.echo("untouched").unwrap();
    leaving.echo("finishing").unwrap();
    assert!(failed.is_cut_within(PATIENCE));
    // One that was finishing fails.
    web.failed = vec![b, c];
    proxy.serve(std::slice::from_ref(&web));
    assert!(leaving.is_cut_within(PATIENCE));
    staying.echo("untouched").unwrap();
}

#[test]
fn a_server_that_comes_back_in_time_keeps_its_connections() {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    // Long enough for two levels on a busy machine.
    web.drain_ms = 1500;
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let mut client = Client::connect(web.listen);
    let without = ProxyService { servers: Vec::new(), ..web.clone() };
    assert!(proxy.serve(&[without]).services[0].servers[0].leaving);
    assert!(!proxy.serve(std::slice::from_ref(&web)).services[0].servers[0].leaving);
    // As long as the drain time would have been; a cut would show as an error of the read.
    client.stream.set_read_timeout(Some(std::time::Duration::from_millis(1700))).unwrap();
    let error = client.echo_nothing().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client.echo("still here").unwrap();
}

#[test]
fn with_nothing_to_serve_it_exits_once_drained() {
    let web = service("web", "rr", &[(start_server('a'), 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let client = Client::connect(web.listen);
    assert_eq!(proxy.serve(&[]).active, 1);
    assert_eq!(client.finish(), "bye");
    assert!(proxy.wait_for_exit().success());
    assert!(!proxy.socket().exists());
}

#[test]
fn a_second_controller_takes_over_without_losing_a_connection() {
    let web = service("web", "rr", &[(start_server('a'), 1)]);
    let mut proxy = Proxy::start(&["--orphan-timeout", "60000"]);
    proxy.serve(std::slice::from_ref(&web));
    let mut client = Client::connect(web.listen);
    proxy.hang_up();
    client.echo("nobody controls").unwrap();
    proxy.connect();
    assert_eq!(proxy.status().services[0].active, 1);
    proxy.serve(std::slice::from_ref(&web));
    client.echo("somebody does").unwrap();
}

#[test]
fn left_alone_for_longer_than_the_lease_it_stops_serving_and_exits() {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    web.drain_ms = 100;
    // It is alone at first, too.
    let mut proxy = Proxy::start(&["--orphan-timeout", "1500"]);
    proxy.serve(std::slice::from_ref(&web));
    let client = Client::connect(web.listen);
    proxy.hang_up();
    assert!(client.ends_in_reset());
    assert!(proxy.wait_for_exit().success());
    assert!(is_refused(web.listen));
}

#[test]
fn a_lease_that_a_reload_changed_counts_from_the_level_on() {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    web.drain_ms = 100;
    let mut proxy = Proxy::start(&["--orphan-timeout", "3600000"]);
    proxy.serve_as(std::slice::from_ref(&web), Orphan::Milliseconds(200));
    // One that says nothing of it leaves it as it is.
    proxy.serve(std::slice::from_ref(&web));
    let client = Client::connect(web.listen);
    proxy.hang_up();
    assert!(client.ends_in_reset());
    assert!(proxy.wait_for_exit().success());
}

#[test]
fn a_lease_that_a_reload_took_away_lets_it_serve_on_alone() {
    let web = service("web", "rr", &[(start_server('a'), 1)]);
    // It is alone at first, too.
    let mut proxy = Proxy::start(&["--orphan-timeout", "1500"]);
    proxy.serve_as(std::slice::from_ref(&web), Orphan::ForEver);
    let mut client = Client::connect(web.listen);
    proxy.hang_up();
    // Longer than the lease was; an end would show as something else than a time-out.
    client.stream.set_read_timeout(Some(std::time::Duration::from_millis(2000))).unwrap();
    assert_eq!(client.echo_nothing().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(Client::connect(web.listen).letter, 'a');
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client.echo("still here").unwrap();
}

#[test]
fn a_service_that_cannot_listen_does_not_stop_the_others() {
    let good = service("good", "rr", &[(start_server('a'), 1)]);
    let taken = service("taken", "rr", &[]);
    let odd = service("odd", "lblc", &[]);
    let squatter = TcpListener::bind(taken.listen).unwrap();
    let mut proxy = Proxy::start(&[]);
    let level = [taken.clone(), odd.clone(), good.clone()];
    let status = proxy.serve(&level);
    let error = |index: usize| match &status.services[index].state {
        ProxyServiceState::Failed { error } => error.clone(),
        other => format!("{other:?}"),
    };
    assert!(error(0).contains(&format!("cannot listen on {}", taken.listen)), "{}", error(0));
    assert!(error(1).contains("no scheduler lblc"), "{}", error(1));
    assert_eq!(Client::connect(good.listen).letter, 'a');
    drop(squatter);
    assert_eq!(proxy.serve(&level).services[0].state, ProxyServiceState::Listening);
}

#[test]
fn an_address_moves_between_services_in_one_level() {
    let mut old = service("old", "rr", &[(start_server('a'), 1)]);
    let mut new = service("new", "rr", &[(start_server('b'), 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(&[new.clone(), old.clone()]);
    std::mem::swap(&mut old.listen, &mut new.listen);
    let status = proxy.serve(&[new.clone(), old.clone()]);
    assert!(status.services.iter().all(|service| service.state == ProxyServiceState::Listening));
    assert_eq!(Client::connect(new.listen).letter, 'b');
    assert_eq!(Client::connect(old.listen).letter, 'a');
}

#[test]
fn a_warm_standby_refuses_until_it_shall_serve() {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    web.ready_only = true;
    let mut proxy = Proxy::start(&[]);
    assert_eq!(proxy.serve(std::slice::from_ref(&web)).services[0].state, ProxyServiceState::Ready);
    assert!(is_refused(web.listen));
    web.ready_only = false;
    assert_eq!(
        proxy.serve(std::slice::from_ref(&web)).services[0].state,
        ProxyServiceState::Listening
    );
    assert_eq!(Client::connect(web.listen).letter, 'a');
    web.ready_only = true;
    assert_eq!(proxy.serve(std::slice::from_ref(&web)).services[0].state, ProxyServiceState::Ready);
    assert!(is_refused(web.listen));
}

#[test]
fn a_warm_standby_lets_connections_finish_and_cuts_what_is_left_after_the_drain_time() {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    web.drain_ms = 2000;
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let (mut polite, stubborn) = (Client::connect(web.listen), Client::connect(web.listen));
    web.ready_only = true;
    let status = proxy.serve(std::slice::from_ref(&web));
    assert_eq!((status.services[0].active, status.services[0].servers[0].leaving), (2, true));
    polite.echo("going on").unwrap();
    assert_eq!(polite.finish(), "bye");
    // The same level again does not lengthen the time.
    proxy.serve(std::slice::from_ref(&web));
    assert!(stubborn.ends_in_reset(), "a cut connection does not look like a regular end");
    let service = proxy.service("web");
    assert_eq!((service.state, service.active), (ProxyServiceState::Ready, 0), "it stays up");
    web.ready_only = false;
    proxy.serve(std::slice::from_ref(&web));
    assert_eq!(Client::connect(web.listen).letter, 'a');
}

#[test]
fn a_role_that_comes_back_in_time_keeps_the_connections_of_a_warm_standby() {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    web.drain_ms = 1000;
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let mut client = Client::connect(web.listen);
    for ready_only in [true, false] {
        web.ready_only = ready_only;
        proxy.serve(std::slice::from_ref(&web));
    }
    // Longer than the drain time; a cut would show as an error of the read.
    client.stream.set_read_timeout(Some(std::time::Duration::from_millis(1200))).unwrap();
    assert_eq!(client.echo_nothing().unwrap_err().kind(), ErrorKind::WouldBlock);
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client.echo("still here").unwrap();
}

#[test]
fn a_request_that_cannot_be_read_changes_nothing_and_is_answered() {
    let web = service("web", "rr", &[(start_server('a'), 1)]);
    let mut proxy = Proxy::start(&[]);
    proxy.serve(std::slice::from_ref(&web));
    let status = proxy.ask("{\"request\":\"serve\",\"services\":[{}]}");
    assert!(status.error.unwrap().contains("cannot read the request"));
    assert_eq!(Client::connect(web.listen).letter, 'a');
    assert_eq!(proxy.status().error, None);
}

#[test]
fn a_second_proxy_on_the_same_socket_is_refused() {
    let mut first = Proxy::start(&[]);
    let status = std::process::Command::new(bench::program())
        .args(["--socket".as_ref(), first.socket().as_os_str()])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    first.status();
}

#[test]
fn it_listens_on_an_address_that_the_node_does_not_have() {
    let wrapper = ["unshare", "--user", "--map-root-user", "--net"];
    let possible = std::process::Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").status();
    if !possible.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("LOCUM_REQUIRE_LAB").is_none(), "cannot make a namespace");
        eprintln!("skipped: cannot make a network namespace");
        return;
    }
    let mut v4 = service("v4", "rr", &[]);
    v4.listen = "192.0.2.10:80".parse().unwrap();
    let mut v6 = service("v6", "rr", &[]);
    v6.listen = "[2001:db8::10]:80".parse().unwrap();
    let mut proxy = Proxy::start_under(&wrapper, &[]);
    for service in proxy.serve(&[v4, v6]).services {
        assert_eq!(service.state, ProxyServiceState::Listening, "{}", service.name);
    }
}

#[test]
fn an_update_changes_what_it_names_and_nothing_else() {
    let mut web = service("web", "rr", &[(start_server('a'), 1)]);
    let shop = service("shop", "rr", &[(start_server('b'), 1)]);
    let update = |set: &[&ProxyService], remove: &[&str]| {
        let set = set.iter().map(|spec| (*spec).clone()).collect();
        let remove = remove.iter().map(ToString::to_string).collect();
        let request = ProxyRequest::Update { set, remove, orphan: Orphan::Unchanged };
        serde_json::to_string(&request).unwrap()
    };
    let names = |status: &ProxyStatus| -> Vec<String> {
        status.services.iter().map(|service| service.name.clone()).collect()
    };
    let mut proxy = Proxy::start(&[]);
    assert_eq!(proxy.serve(&[web.clone(), shop.clone()]).version, VERSION);
    let mut client = Client::connect(shop.listen);
    web.servers = service("web", "rr", &[(start_server('c'), 1)]).servers;
    let status = proxy.ask(&update(&[&web], &[]));
    assert_eq!((names(&status), status.error), (vec!["web".to_owned()], None));
    assert_eq!(Client::connect(web.listen).letter, 'c');
    client.echo("untouched").unwrap();
    assert_eq!(Client::connect(shop.listen).letter, 'b', "what an update leaves out is served on");
    // An address moves from one service to another.
    let successor = ProxyService { name: "successor".to_owned(), ..web.clone() };
    let status = proxy.ask(&update(&[&successor], &["web"]));
    let state = status.services.iter().find(|one| one.name == "successor").map(|one| &one.state);
    assert_eq!(state, Some(&ProxyServiceState::Listening));
    // The last client of "web" has gone, and the proxy may not have seen it yet.
    let has_two = || (proxy.status().services.len() == 2).then_some(());
    eventually("the successor, with shop still there", has_two);
    // Nothing is left to serve: the process ends once the last client has gone.
    proxy.ask(&update(&[], &["successor", "shop"]));
    client.echo("going on").unwrap();
    assert_eq!(client.finish(), "bye");
    assert!(proxy.wait_for_exit().success());
}
