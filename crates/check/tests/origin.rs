//! Where checks come from: source address, port and interface.

mod harness;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use harness::{Bench, PATIENCE, once};
use locum_plan::{
    CheckSource, Checker, HeaderVersion, HttpQuestion, Probe, Question, StatusRange, Verdict,
};

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

/// A server that expects to be told who comes refuses whoever does not say so.
#[test]
fn a_check_introduces_itself_where_that_is_expected() {
    let (listener, target) = listener();
    for (version, expected) in [
        (HeaderVersion::V1, &b"PROXY UNKNOWN\r\n"[..]),
        (HeaderVersion::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ] {
        let origin = CheckSource { header: Some(version), ..CheckSource::default() };
        assert_eq!(once(tcp(target, origin), PATIENCE).verdict, Verdict::Pass);
        let mut heard = vec![0; expected.len()];
        listener.accept().expect("a connection").0.read_exact(&mut heard).expect("a header");
        assert_eq!(heard, expected);
    }
}

#[test]
fn nginx_that_expects_a_header_is_up_for_a_check_that_sends_one() {
    if Command::new("nginx").arg("-v").output().is_err() {
        assert!(std::env::var_os("LOCUM_REQUIRE_LAB").is_none(), "nginx is not installed");
        eprintln!("skipped: nginx is not installed");
        return;
    }
    let (free, target) = listener();
    drop(free);
    let directory = tempfile::tempdir().expect("a directory");
    let (config, path) = (directory.path().join("nginx.conf"), directory.path().display());
    let text = format!(
        "daemon off; master_process off; pid {path}/pid; error_log {path}/error; events {{}}\n\
         http {{ access_log off; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
         fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
         server {{ listen {target} proxy_protocol; return 204; }} }}\n"
    );
    std::fs::write(&config, text).expect("a file");
    let mut nginx = Command::new("nginx").arg("-c").arg(&config).spawn().expect("nginx");
    harness::wait_until("nginx", || TcpStream::connect(target).is_ok());
    let question = HttpQuestion::get("/", None, vec![StatusRange { first: 204, last: 204 }]);
    let ask = |header| {
        let origin = CheckSource { header, ..CheckSource::default() };
        let question = Question::Http(Arc::new(question.clone()));
        let kind = Checker::Ask { target, question, origin: Some(Arc::new(origin)) };
        once(kind, PATIENCE)
    };
    let outcomes = [None, Some(HeaderVersion::V1), Some(HeaderVersion::V2)].map(ask);
    nginx.kill().expect("it runs");
    nginx.wait().expect("its end");
    let verdicts = outcomes.each_ref().map(|outcome| outcome.verdict);
    assert_eq!(verdicts, [Verdict::Fail, Verdict::Pass, Verdict::Pass], "{outcomes:?}");
}
