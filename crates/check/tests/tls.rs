//! The HTTPS probe against servers with good and bad certificates, and HTTP/2.

mod harness;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use harness::{Bench, PATIENCE, once};
use locum_plan::{
    Checker, HttpPage, HttpQuestion, HttpVersion, Outcome, Probe, Question, StatusRange, Tls,
    Trust, Verdict,
};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// An authority, and files of it.
struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).expect("written");
        Self { certificate, issuer: Issuer::new(params, key), directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for this name and its key.
    fn sign(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        change(&mut params);
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    /// Of a server with this certificate that answers 200 to anything; `asks` for ours.
    fn serve(&self, signed: &(Certificate, KeyPair), asks: bool) -> SocketAddr {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match asks {
            false => builder.with_no_client_auth(),
            true => {
                let mut roots = RootCertStore::empty();
                roots.add(self.certificate.der().clone()).expect("a root");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let key = PrivateKeyDer::try_from(signed.1.serialize_der()).expect("a key");
        let chain = vec![signed.0.der().clone()];
        let config = Arc::new(builder.with_single_cert(chain, key).expect("a configuration"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
                let mut stream = StreamOwned::new(session, stream.expect("a connection"));
                // Of a probe that does not trust us nothing comes.
                if stream.read(&mut [0; 4096]).is_ok() {
                    let name = stream.conn.server_name().unwrap_or("nobody").to_owned();
                    let answer = format!("HTTP/1.1 200 OK\r\n\r\nfor {name}");
                    let _may_be_cut = stream.write_all(answer.as_bytes());
                    stream.conn.send_close_notify();
                    let _may_be_gone = stream.flush();
                }
            }
        });
        address
    }
}

fn settings(trust: Trust) -> Tls {
    Tls { name: None, sends_name: true, trust, identity: None }
}

fn ask(target: SocketAddr, tls: Tls, text: Option<&str>) -> Outcome {
    let page = HttpPage {
        path: "/".into(),
        expect: vec![StatusRange { first: 200, last: 200 }],
        host: Some("www.example.net:8443".into()),
        text: text.map(str::to_owned),
        ..HttpPage::default()
    };
    let question = HttpQuestion { pages: vec![page], version: HttpVersion::Http11, tls: Some(tls) };
    once(Checker::ask(target, Question::Http(question.into())), PATIENCE)
}

#[test]
fn a_server_is_asked_by_the_name_of_its_host_and_trusted_by_its_authority() {
    let authority = Authority::new();
    let target = authority.serve(&authority.sign("www.example.net", |_| {}), false);
    let trusted = settings(Trust::File(authority.file()));
    let outcome = ask(target, trusted.clone(), Some("for www.example.net"));
    assert_eq!((outcome.verdict, outcome.detail.as_str()), (Verdict::Pass, "status 200 OK"));
    let other = Tls { name: Some("api.example.net".into()), ..trusted };
    let outcome = ask(target, other, None);
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert_eq!(outcome.detail, "its certificate is not for api.example.net");
}

#[test]
fn a_bad_certificate_is_refused_with_its_fault_unless_anybody_is_trusted() {
    let authority = Authority::new();
    let expired = authority.sign("www.example.net", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let early = authority.sign("www.example.net", |params| {
        params.not_before = date_time_ymd(2098, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
    });
    let foreign = Authority::new().sign("www.example.net", |_| {});
    for (signed, detail) in [
        (expired, "its certificate has expired"),
        (early, "its certificate is not valid yet: is the clock of this host right?"),
        (
            foreign,
            "its certificate is signed by nobody who is trusted here: name the authority with `ca`",
        ),
    ] {
        let target = authority.serve(&signed, false);
        let outcome = ask(target, settings(Trust::File(authority.file())), None);
        assert_eq!((outcome.verdict, outcome.detail.as_str()), (Verdict::Fail, detail));
        let unnamed = Tls { sends_name: false, ..settings(Trust::Anybody) };
        let outcome = ask(target, unnamed, Some("for nobody"));
        assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:?}");
    }
}

#[test]
fn a_server_that_wants_our_certificate_gets_it() {
    let authority = Authority::new();
    let target = authority.serve(&authority.sign("www.example.net", |_| {}), true);
    let trusted = settings(Trust::File(authority.file()));
    let outcome = ask(target, trusted.clone(), None);
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert_eq!(outcome.detail, "TLS: received fatal alert: CertificateRequired");
    let (certificate, key) = authority.sign("director", |_| {});
    let file = |name: &str| authority.directory.path().join(name);
    std::fs::write(file("own.pem"), certificate.pem()).expect("written");
    std::fs::write(file("own.key"), key.serialize_pem()).expect("written");
    let identity = Some((file("own.pem"), file("own.key")));
    let outcome = ask(target, Tls { identity, ..trusted.clone() }, None);
    assert_eq!((outcome.verdict, outcome.detail.as_str()), (Verdict::Pass, "status 200 OK"));
    let missing = Some((file("own.pem"), file("none.key")));
    let outcome = ask(target, Tls { identity: missing, ..trusted }, None);
    assert_eq!(outcome.verdict, Verdict::CannotRun, "{outcome:?}");
    assert!(outcome.detail.contains("none.key: no key in PEM"), "{outcome:?}");
}

#[test]
fn what_does_not_speak_tls_is_said_not_to() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let target = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let answers: [&[u8]; 2] = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""];
        for (answer, stream) in answers.iter().cycle().zip(listener.incoming()) {
            let mut stream: TcpStream = stream.expect("a connection");
            let _hello = stream.read(&mut [0; 4096]);
            let _may_be_cut = stream.write_all(answer);
        }
    });
    let outcome = ask(target, settings(Trust::Anybody), None);
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert!(outcome.detail.starts_with("not a TLS answer: "), "{outcome:?}");
    let outcome = ask(target, settings(Trust::Anybody), None);
    assert_eq!(outcome.detail, "the server closed the connection in the TLS handshake");
}

#[test]
fn a_server_that_does_not_shake_hands_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let target = listener.local_addr().expect("an address");
    let page = HttpPage { path: "/".into(), ..HttpPage::default() };
    let tls = Some(settings(Trust::Anybody));
    let question = HttpQuestion { pages: vec![page], version: HttpVersion::Http11, tls };
    let timeout = Duration::from_millis(500);
    let outcome = once(Checker::ask(target, Question::Http(question.into())), timeout);
    assert_eq!(outcome.detail, "no TLS handshake: timed out after 500ms");
    drop(listener);
}

/// With prior knowledge, against one that answers HTTP/1.1, hangs up, or sends frames without end.
#[test]
fn http2_fails_on_what_is_no_http2_within_its_time() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let target = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream: TcpStream = stream.expect("a connection");
            let _preface = stream.read(&mut [0; 4096]);
            match number {
                // One that closes with unread bytes takes back what it has answered.
                0 => {
                    drop(stream.write_all(b"HTTP/1.1 505 No\r\n\r\n"));
                    drop(stream.shutdown(Shutdown::Write));
                    drop(stream.read_to_end(&mut Vec::new()));
                }
                1 => {}
                // Empty SETTINGS frames, as fast as they are taken.
                _ => while stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0].repeat(1000)).is_ok() {},
            }
        }
    });
    let page = HttpPage { path: "/".into(), ..HttpPage::default() };
    let question = HttpQuestion { pages: vec![page], version: HttpVersion::Http2, tls: None };
    let kind = Checker::ask(target, Question::Http(question.into()));
    let outcome = once(kind.clone(), PATIENCE);
    assert!(outcome.detail.starts_with("not an HTTP/2 response: "), "{outcome:?}");
    let outcome = once(kind.clone(), PATIENCE);
    assert_eq!(outcome.detail, "the server closed the connection without a response");
    let outcome = once(kind, Duration::from_millis(500));
    assert_eq!(outcome.verdict, Verdict::Fail, "{outcome:?}");
    assert!(outcome.took < PATIENCE, "{outcome:?}");
}

/// It takes no request, and never closes.
#[test]
fn a_connection_ends_with_its_run_though_http2_has_a_request_for_it() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let target = listener.local_addr().expect("an address");
    let (sender, ended) = channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        // RFC 9113 §6.5: SETTINGS_MAX_CONCURRENT_STREAMS is 0.
        stream.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0]).expect("written");
        let mut octets = [0; 4096];
        while stream.read(&mut octets).is_ok_and(|length| length > 0) {}
        sender.send(()).expect("somebody waits");
    });
    let page = HttpPage { path: "/".into(), ..HttpPage::default() };
    let question = HttpQuestion { pages: vec![page], version: HttpVersion::Http2, tls: None };
    let kind = Checker::ask(target, Question::Http(question.into()));
    let bench = Bench::new();
    bench.probes.start(1, Probe::new(kind, PATIENCE, Duration::from_millis(500)));
    assert_eq!(bench.next().1.detail, "no response: timed out after 500ms");
    ended.recv_timeout(PATIENCE / 2).expect("the connection is closed");
}
