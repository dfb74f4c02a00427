//! The TCP and HTTP probes against real sockets, well-behaved and hostile.

mod harness;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use harness::{PATIENCE, closed_port, once};
use locum_plan::{Checker, HttpQuestion, Outcome, Question, StatusRange, Verdict};

const SHORT: Duration = Duration::from_millis(500);

/// Serves one connection by `talk`, in a thread of its own.
fn server(talk: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || talk(listener.accept().expect("a connection").0));
    address
}

/// Reads the request and answers with these bytes.
fn answering(response: &'static [u8]) -> SocketAddr {
    server(move |mut stream| {
        read_request(&stream);
        // The probe may have seen enough before the end.
        let _may_be_cut = stream.write_all(response);
    })
}

fn read_request(stream: &TcpStream) -> Vec<String> {
    let lines = BufReader::new(stream).lines().map(|line| line.expect("text"));
    lines.take_while(|line| !line.is_empty()).collect()
}

fn get(target: SocketAddr) -> Checker {
    let expect = vec![StatusRange { first: 200, last: 299 }, StatusRange { first: 401, last: 401 }];
    ask_for(target, HttpQuestion::get("/health?full=1", None, expect))
}

fn ask_for(target: SocketAddr, question: HttpQuestion) -> Checker {
    Checker::ask(target, Question::Http(question.into()))
}

fn ask(target: SocketAddr) -> Outcome {
    once(get(target), PATIENCE)
}

/// Accepts nothing more: the queue of one is full, so that a connect hangs.
fn deaf() -> (SocketAddr, Vec<TcpStream>, socket2::Socket) {
    let (address, socket) = closed_port();
    socket.listen(0).expect("listening");
    let mut fill = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        fill.push(stream);
    }
    (address, fill, socket)
}

/// What has been said in whole leaves no port taken, on neither side; what is cut short ends as ever.
#[test]
fn an_answer_that_was_read_to_its_end_is_followed_by_a_reset() {
    for (response, is_reset) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..], true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", false),
    ] {
        let (sender, end) = channel();
        let target = server(move |mut stream| {
            read_request(&stream);
            stream.write_all(response).expect("somebody listens");
            sender.send(stream.read(&mut [0])).expect("the test waits");
        });
        assert_eq!(ask(target).verdict, Verdict::Pass);
        let end = end.recv_timeout(PATIENCE).expect("an end").map_err(|error| error.kind());
        let expected = if is_reset { Err(ErrorKind::ConnectionReset) } else { Ok(0) };
        assert_eq!(end, expected, "{response:?}");
    }
}

#[test]
fn tcp_passes_when_the_port_accepts_and_fails_when_it_refuses() {
    let open = server(drop);
    let outcome = once(Checker::tcp(open), PATIENCE);
    assert_eq!((outcome.verdict, outcome.detail.as_str()), (Verdict::Pass, "connected"));
    let (target, _held) = closed_port();
    let outcome = once(Checker::tcp(target), PATIENCE);
    assert_eq!((outcome.verdict, outcome.detail.as_str()), (Verdict::Fail, "connection refused"));
}

#[test]
fn tcp_and_http_give_up_on_a_port_that_does_not_answer() {
    let (target, _fill, _socket) = deaf();
    let outcome = once(Checker::tcp(target), SHORT);
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert_eq!(outcome.detail, "no answer to connect: timed out after 500ms");
    assert!(outcome.took >= SHORT && outcome.took < PATIENCE);
    let outcome = once(get(target), SHORT);
    assert_eq!(outcome.detail, "no answer to connect: timed out after 500ms");
}

#[test]
fn http_passes_on_an_expected_status_and_names_any_other() {
    for (response, verdict, detail) in [
        (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], Verdict::Pass, "status 204 No Content"),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", Verdict::Pass, "status 401 Unauthorized"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", Verdict::Pass, "status 200 OK"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Verdict::Pass, "status 200 OK"),
        (b"HTTP/1.1 299 Odd\r\n\r\n", Verdict::Pass, "status 299"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
            Verdict::Fail,
            "status 302 Found, wanted 200-299, 401",
        ),
        (
            b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
            Verdict::Fail,
            "status 503 Service Unavailable, wanted 200-299, 401",
        ),
    ] {
        let outcome = ask(answering(response));
        assert_eq!((outcome.verdict, outcome.detail.as_str()), (verdict, detail));
    }
}

#[test]
fn http_asks_for_the_path_with_the_host_it_is_given() {
    for host in [None, Some("www.example.net")] {
        let (sender, requests): (_, Receiver<Vec<String>>) = channel();
        let target = server(move |mut stream| {
            sender.send(read_request(&stream)).expect("somebody listens");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("written");
            // An orderly end, not a reset.
            assert_eq!(stream.read(&mut [0]).expect("no reset"), 0);
        });
        let expect = vec![StatusRange { first: 200, last: 200 }];
        let question = HttpQuestion::get("/health?full=1", host.map(Into::into), expect);
        let outcome = once(ask_for(target, question), PATIENCE);
        assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:?}");
        let request = requests.recv_timeout(PATIENCE).expect("a request");
        assert_eq!(request[0], "GET /health?full=1 HTTP/1.1");
        let wanted = host.map_or_else(|| target.to_string(), str::to_owned);
        assert!(request.contains(&format!("Host: {wanted}")), "{request:?}");
        assert!(request.contains(&"Connection: close".to_owned()), "{request:?}");
    }
}

#[test]
fn http_cannot_ask_for_what_is_no_path_or_no_host() {
    let (target, _held) = closed_port();
    for (path, host) in [("health", None), ("/a b", None), ("/", Some("a\nb"))] {
        let question = HttpQuestion::get(path, host.map(str::to_owned), Vec::new());
        let outcome = once(ask_for(target, question), PATIENCE);
        assert_eq!(outcome.verdict, Verdict::CannotRun, "{outcome:?}");
    }
}

#[test]
fn http_fails_on_a_refused_connection_and_on_a_server_that_hangs_up() {
    let (target, _held) = closed_port();
    let outcome = ask(target);
    assert_eq!((outcome.verdict, outcome.detail.as_str()), (Verdict::Fail, "connection refused"));
    for response in [&b""[..], b"HTTP/1.1 200"] {
        let outcome = ask(answering(response));
        assert_eq!(outcome.verdict, Verdict::Fail);
        assert_eq!(outcome.detail, "the server closed the connection without a response");
    }
}

#[test]
fn http_fails_on_garbage() {
    for response in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], &[0xff; 200], b"HTTP/9.9 200 OK\r\n\r\n"] {
        let outcome = ask(answering(response));
        assert_eq!(outcome.verdict, Verdict::Fail);
        assert!(outcome.detail.starts_with("not an HTTP response: "), "{outcome:?}");
    }
}

#[test]
fn http_fails_on_a_header_that_never_ends_without_reading_it_all() {
    let (sender, sent) = channel();
    let target = server(move |mut stream| {
        read_request(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").expect("written");
        let mut total = 0_usize;
        while let Ok(length) = stream.write(&[b'y'; 4096]) {
            total += length;
        }
        sender.send(total).expect("somebody listens");
    });
    let outcome = ask(target);
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert!(outcome.detail.starts_with("not an HTTP response: "), "{outcome:?}");
    // The rest filled the buffers of the sockets.
    assert!(sent.recv_timeout(PATIENCE).expect("the connection ended") < 32 << 20);
}

#[test]
fn http_fails_on_too_many_header_fields() {
    let target = server(|mut stream| {
        read_request(&stream);
        let fields = "a: b\r\n".repeat(1000);
        let _may_be_cut = write!(stream, "HTTP/1.1 200 OK\r\n{fields}\r\n");
    });
    let outcome = ask(target);
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert!(outcome.detail.starts_with("not an HTTP response: "), "{outcome:?}");
}

#[test]
fn http_gives_up_on_a_server_that_trickles_its_header() {
    let target = server(|mut stream| {
        read_request(&stream);
        let mut bytes = b"HTTP/1.1 200 OK\r\nx: ".iter().chain(std::iter::repeat(&b'y'));
        // Slow enough that no single read takes long, and never ending.
        while let Some(byte) = bytes.next()
            && stream.write_all(&[*byte]).is_ok()
        {
            thread::sleep(Duration::from_millis(10));
        }
    });
    let outcome = once(get(target), SHORT);
    assert_eq!(outcome.detail, "no response: timed out after 500ms");
    assert!(outcome.took < PATIENCE, "{outcome:?}");
}

#[test]
fn http_does_not_wait_for_a_body_that_never_comes_or_never_ends() {
    let silent = server(|mut stream| {
        read_request(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").expect("written");
        let _until_the_probe_hangs_up = stream.read(&mut [0]);
    });
    let endless = server(|mut stream| {
        read_request(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("written");
        while stream.write(&[b'z'; 65536]).is_ok() {}
    });
    for target in [silent, endless] {
        // One that waits gives up after its patience, and fails.
        let outcome = ask(target);
        assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:?}");
    }
}
