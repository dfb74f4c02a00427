//! Where checks come from: source address, port and interface.

mod harness;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use harness::{Bench, PATIENCE, once};
use locum_plan::{CheckSource, Checker, Probe, Question, Verdict};

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));

fn tcp(target: SocketAddr, origin: CheckSource) -> Checker {
    Checker::Ask { target, question: Question::Tcp, origin: Some(Arc::new(origin)) }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

#[test]
fn a_check_comes_from_the_address_it_is_given() {
    let (listener, target) = listener();
    let source = Some(SocketAddr::new(SOURCE, 0));
    let outcome = once(tcp(target, CheckSource { source, ..CheckSource::default() }), PATIENCE);
    assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:?}");
    assert_eq!(listener.accept().expect("a connection").1.ip(), SOURCE);
}

/// Run after run: none waits for the connection of the last one to be forgotten.
#[test]
fn a_check_comes_from_the_port_it_is_given_every_time() {
    let (listener, target) = listener();
    // A port that was free a moment ago, on an address that no other test uses.
    let free = TcpListener::bind((SOURCE, 0)).expect("a port");
    let reserved = free.local_addr().expect("an address");
    drop(free);
    let origin = CheckSource { source: Some(reserved), ..CheckSource::default() };
    let bench = Bench::new();
    let interval = Duration::from_millis(20);
    bench.probes.start(1, Probe::new(tcp(target, origin), interval, PATIENCE));
    for _ in 0..5 {
        let (_, outcome) = bench.next();
        assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:?}");
        assert_eq!(listener.accept().expect("a connection").1, reserved);
    }
}

#[test]
fn what_this_host_has_not_is_no_failure_of_the_target() {
    let (_listener, target) = listener();
    let foreign = SocketAddr::from(([203, 0, 113, 1], 0));
    let outcome = once(
        tcp(target, CheckSource { source: Some(foreign), ..CheckSource::default() }),
        PATIENCE,
    );
    assert_eq!(outcome.verdict, Verdict::CannotRun);
    assert_eq!(outcome.detail, "cannot ask from 203.0.113.1: it is no address of this host");
    let interface = Some("locum-none".into());
    let outcome = once(tcp(target, CheckSource { interface, ..CheckSource::default() }), PATIENCE);
    assert_eq!(outcome.verdict, Verdict::CannotRun);
    assert_eq!(outcome.detail, "no interface locum-none to ask from");
}

#[test]
fn a_check_leaves_by_the_interface_it_is_given() {
    let (_listener, target) = listener();
    let interface = Some("lo".into());
    let outcome = once(tcp(target, CheckSource { interface, ..CheckSource::default() }), PATIENCE);
    assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:?}");
}
