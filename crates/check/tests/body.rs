//! What the HTTP probe says of the bodies of answers, and of several pages.

mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use harness::{PATIENCE, once};
use locum_plan::{
    BodyDigest, BodyPattern, Checker, HttpMethod, HttpPage, HttpQuestion, HttpVersion, Outcome,
    Question, StatusRange, Verdict,
};

/// Answers every connection with what `answer` makes of its request line.
fn web(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.expect("a connection");
            let line = head(&mut stream);
            // The probe may have seen enough before the end.
            let _may_be_cut = stream.write_all(&answer(&line[0]));
        }
    });
    address
}

fn head(stream: &mut TcpStream) -> Vec<String> {
    let lines = BufReader::new(stream).lines().map(|line| line.expect("text"));
    lines.take_while(|line| !line.is_empty()).collect()
}

fn page(path: &str) -> HttpPage {
    let expect = vec![StatusRange { first: 200, last: 299 }];
    HttpPage { path: path.to_owned(), expect, ..HttpPage::default() }
}

fn pages(target: SocketAddr, pages: Vec<HttpPage>) -> Outcome {
    let question = HttpQuestion { pages, version: HttpVersion::Http11, tls: None };
    once(Checker::ask(target, Question::Http(question.into())), PATIENCE)
}

fn with_length(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn in_chunks(body: &str) -> Vec<u8> {
    let mut text = "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, Chunked\r\n\r\n".to_owned();
    for part in body.as_bytes().chunks(3) {
        let part = std::str::from_utf8(part).expect("text");
        text.push_str(&format!("{:x};part=yes\r\n{part}\r\n", part.len()));
    }
    text.push_str("0\r\nTrailer: 1\r\n\r\n");
    text.into_bytes()
}

fn to_the_end(body: &str) -> Vec<u8> {
    format!("HTTP/1.0 200 OK\r\n\r\n{body}").into_bytes()
}

const BODY: &str = "status: OK, and \"all\" is well";

/// From `printf '%s' "$BODY" | md5sum` and `sha256sum`.
const MD5: [u8; 16] = hex("59a8b412ab746b24886d666a0fb35242");
const SHA256: [u8; 32] = hex("e147e2b583ab2df498b3d64e56a8fe6987f7ee55e15cb4fb42bff785a486ed0c");

const fn hex<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let text = text.as_bytes();
    let mut at = 0;
    while at < N {
        bytes[at] = digit(text[2 * at]) * 16 + digit(text[2 * at + 1]);
        at += 1;
    }
    bytes
}

fn digits(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

const fn digit(character: u8) -> u8 {
    if character.is_ascii_digit() { character - b'0' } else { character - b'a' + 10 }
}

fn pattern(regex: &str) -> BodyPattern {
    BodyPattern { regex: regex.to_owned(), is_unwanted: false, first: 0, last: None }
}

#[test]
fn a_body_is_read_in_every_framing_and_compared() {
    let ok = Some("status 200 OK");
    let differs = |kind, found: &[u8], wanted: &[u8]| {
        let [found, wanted] = [found, wanted].map(digits);
        format!("status 200 OK, and its body has {kind} {found}, wanted {wanted}")
    };
    let md5_differs = differs("MD5", &MD5, &[7; 16]);
    let sha256_differs = differs("SHA-256", &SHA256, &[0; 32]);
    for framed in [with_length, in_chunks, to_the_end] {
        let target = web(move |_| framed(BODY));
        for (wanted, detail) in [
            (HttpPage { text: Some("all\" is".into()), ..page("/") }, ok),
            (
                HttpPage { text: Some("well.".into()), ..page("/") },
                Some("status 200 OK, without \"well.\" in its body"),
            ),
            (HttpPage { pattern: Some(pattern("(?i)ok.*WELL$")), ..page("/") }, ok),
            (
                HttpPage { pattern: Some(pattern("^OK")), ..page("/") },
                Some("status 200 OK, and its body does not match \"^OK\""),
            ),
            (
                HttpPage {
                    pattern: Some(BodyPattern { is_unwanted: true, ..pattern("[Ww]ell") }),
                    ..page("/")
                },
                Some("status 200 OK, and its body matches \"[Ww]ell\""),
            ),
            (
                HttpPage { pattern: Some(BodyPattern { first: 8, ..pattern("OK") }), ..page("/") },
                ok,
            ),
            (
                HttpPage {
                    pattern: Some(BodyPattern { last: Some(7), ..pattern("OK") }),
                    ..page("/")
                },
                Some("status 200 OK, and its body does not match \"OK\""),
            ),
            (HttpPage { digest: Some(BodyDigest::Md5(MD5)), ..page("/") }, ok),
            (HttpPage { digest: Some(BodyDigest::Sha256(SHA256)), ..page("/") }, ok),
            (HttpPage { digest: Some(BodyDigest::Md5([7; 16])), ..page("/") }, Some(&*md5_differs)),
            (
                HttpPage { digest: Some(BodyDigest::Sha256([0; 32])), ..page("/") },
                Some(&*sha256_differs),
            ),
        ] {
            let outcome = pages(target, vec![wanted.clone()]);
            assert_eq!(Some(&*outcome.detail), detail, "{wanted:?}");
            let passes = detail == ok;
            assert_eq!(outcome.verdict == Verdict::Pass, passes, "{outcome:?}");
        }
    }
}

#[test]
fn the_first_page_that_is_wrong_is_named() {
    let target = web(|line| match line.starts_with("GET /bad ") {
        true => b"HTTP/1.1 500 Oops\r\n\r\n".to_vec(),
        false => with_length(BODY),
    });
    let outcome = pages(target, vec![page("/one"), page("/two")]);
    assert_eq!((outcome.verdict, outcome.detail.as_str()), (Verdict::Pass, "status 200 OK"));
    let outcome = pages(target, vec![page("/one"), page("/bad"), page("/two")]);
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert_eq!(outcome.detail, "/bad: status 500 Internal Server Error, wanted 200-299");
}

#[test]
fn head_and_post_and_the_older_version_are_written_as_they_are_meant() {
    let (sender, requests) = channel();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let target = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.expect("a connection");
            let mut text = vec![0; 4096];
            let length = stream.read(&mut text).expect("a request");
            text.truncate(length);
            sender.send(String::from_utf8(text).expect("text")).expect("somebody listens");
            // A length without a body: the answer to HEAD.
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").expect("written");
            let _until_the_probe_hangs_up = stream.read(&mut [0]);
        }
    });
    let head = HttpPage { method: HttpMethod::Head, ..page("/h") };
    let outcome = pages(target, vec![head]);
    assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:?}");
    let request = requests.recv_timeout(PATIENCE).expect("a request");
    assert!(request.starts_with("HEAD /h HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
    let post =
        HttpPage { method: HttpMethod::Post, payload: Some("{\"ping\":1}".into()), ..page("/p") };
    let question = HttpQuestion { pages: vec![post], version: HttpVersion::Http10, tls: None };
    let outcome = once(Checker::ask(target, Question::Http(question.into())), PATIENCE);
    assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:?}");
    let request = requests.recv_timeout(PATIENCE).expect("a request");
    assert!(request.starts_with("POST /p HTTP/1.0\r\n"), "{request}");
    assert!(request.ends_with("\r\nContent-Length: 10\r\n\r\n{\"ping\":1}"), "{request}");
}

#[test]
fn a_body_that_is_wrong_is_said_to_be() {
    let looks = HttpPage { text: Some("OK".into()), ..page("/") };
    for (answer, detail) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nOK"[..], "its body ended early"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nO", "its body ended early"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nOK\r\n",
            "not an HTTP response: a chunk without a size",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            "not an HTTP response: a chunk without a size",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOKOKOK\r\n0\r\n\r\n",
            "not an HTTP response: a chunk that does not end",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nOK",
            "not an HTTP response: two lengths",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nOK",
            "not an HTTP response: a length that is no number",
        ),
    ] {
        let target = web(move |_| answer.to_vec());
        let outcome = pages(target, vec![looks.clone()]);
        assert_eq!((outcome.verdict, outcome.detail.as_str()), (Verdict::Fail, detail));
    }
}

/// A gigabyte is searched as far as a MiB, and digested as far as 16: neither is kept or waited for.
#[test]
fn a_body_without_end_is_not_read_to_its_end() {
    for (wanted, detail) in [
        (
            HttpPage { text: Some("never".into()), ..page("/") },
            "status 200 OK, without \"never\" in its body",
        ),
        (
            HttpPage { digest: Some(BodyDigest::Md5(MD5)), ..page("/") },
            "its body is longer than 16 MiB",
        ),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let target = listener.local_addr().expect("an address");
        let (sender, sent) = channel();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            head(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("written");
            let mut total = 0_u64;
            while let Ok(length) = stream.write(&[b'z'; 65536]) {
                total += length as u64;
            }
            sender.send(total).expect("somebody listens");
        });
        let outcome = pages(target, vec![wanted]);
        assert_eq!((outcome.verdict, outcome.detail.as_str()), (Verdict::Fail, detail));
        assert!(sent.recv_timeout(PATIENCE).expect("the connection ended") < 64 << 20);
    }
}

#[test]
fn a_body_that_trickles_takes_no_longer_than_the_time_out() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let target = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("written");
        while stream.write_all(b"z").is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
    });
    let wanted = HttpPage { text: Some("never".into()), ..page("/") };
    let question = HttpQuestion { pages: vec![wanted], version: HttpVersion::Http11, tls: None };
    let timeout = Duration::from_millis(500);
    let outcome = once(Checker::ask(target, Question::Http(question.into())), timeout);
    assert_eq!(outcome.detail, "its body did not end: timed out after 500ms");
    assert!(outcome.took < PATIENCE);
}
