//! Mail, DNS, datagrams, ping, databases, agents and gRPC: servers that answer well and badly.

mod harness;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use harness::{PATIENCE, closed_port, once};
use locum_plan::{
    Checker, DnsQuestion, DnsRecord, GrpcQuestion, Outcome, PostgresUser, Question, ReportedWeight,
    UdpQuestion, UdpReply, Verdict,
};

const SHORT: Duration = Duration::from_millis(400);

/// What a server says, after it has read something where it waits.
enum Turn {
    Say(&'static [u8]),
    /// Reads this, octet by octet.
    Hear(&'static [u8]),
    /// Reads until it has ended like this.
    Until(&'static [u8]),
    /// Reads whatever comes.
    Wait,
}

use Turn::{Hear, Say, Until, Wait};

/// Serves one connection by these turns, then keeps it open until the other end closes.
fn server(turns: Vec<Turn>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let mut stream: TcpStream = listener.accept().expect("a connection").0;
        for turn in turns {
            match turn {
                // The probe may have seen enough.
                Say(octets) => drop(stream.write_all(octets)),
                Hear(wanted) => {
                    let mut heard = vec![0; wanted.len()];
                    stream.read_exact(&mut heard).expect("as much as is wanted");
                    assert_eq!(heard, wanted);
                }
                Until(end) => {
                    let mut heard = Vec::new();
                    let mut octet = [0];
                    while !heard.ends_with(end) {
                        if stream.read_exact(&mut octet).is_err() {
                            return;
                        }
                        heard.push(octet[0]);
                    }
                }
                Wait => drop(stream.read(&mut [0; 4096])),
            }
        }
        let _until_the_probe_hangs_up = stream.read(&mut [0; 4096]);
    });
    address
}

fn ask(target: SocketAddr, question: Question) -> Outcome {
    once(Checker::ask(target, question), PATIENCE)
}

fn expect(outcome: &Outcome, verdict: Verdict, detail: &str) {
    assert_eq!((outcome.verdict, outcome.detail.as_str()), (verdict, detail));
}

fn smtp() -> Question {
    Question::Smtp { helo: "lb1".into() }
}

#[test]
fn smtp_passes_when_a_server_greets_and_answers() {
    let target = server(vec![
        Say(b"220-mail.example.net\r\n220 ready\r\n"),
        Hear(b"EHLO lb1\r\n"),
        Say(b"250-mail\r\n250 SIZE 1000\r\n"),
        Hear(b"QUIT\r\n"),
        Say(b"221 bye\r\n"),
    ]);
    expect(&ask(target, smtp()), Verdict::Pass, "220 ready");
    let old = server(vec![
        Say(b"220 old\r\n"),
        Hear(b"EHLO lb1\r\n"),
        Say(b"502 what?\r\n"),
        Hear(b"HELO lb1\r\n"),
        Say(b"250 hello\r\n"),
        Wait,
    ]);
    // It says no good-bye, and has answered all the same.
    expect(&ask(old, smtp()), Verdict::Pass, "220 old");
}

#[test]
fn smtp_fails_on_any_other_answer() {
    for (turns, detail) in [
        (vec![Say(b"554 no service\r\n")], "greets with 554 no service"),
        (vec![Say(b"SSH-2.0-x\r\n")], "not an SMTP answer: SSH-2.0-x"),
        (vec![Say(b"220 a\r\n"), Wait, Say(b"421 busy\r\n")], "answers 421 busy to EHLO"),
    ] {
        expect(&ask(server(turns), smtp()), Verdict::Fail, detail);
    }
    let endless = server(vec![Say(&[b'2'; 100_000])]);
    expect(&ask(endless, smtp()), Verdict::Fail, "it sends more than an answer has");
    let silent = once(Checker::ask(server(vec![]), smtp()), SHORT);
    expect(&silent, Verdict::Fail, "no greeting: timed out after 400ms");
}

fn dns(is_tcp: bool) -> Question {
    let record = DnsRecord::Aaaa;
    Question::Dns(Arc::new(DnsQuestion { name: "www.example.net".into(), record, is_tcp }))
}

/// An answer to `query` with this code, so many records, and these bits of the flags.
fn dns_answer(query: &[u8], flags: u8, code: u8, records: u8) -> Vec<u8> {
    let mut answer = query.to_vec();
    (answer[2], answer[3], answer[7]) = (0x80 | flags, code, records);
    answer
}

/// Answers every query with what `answer` makes of it, in as many datagrams.
fn resolver(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = socket.local_addr().expect("an address");
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            for datagram in answer(&query[..length]) {
                socket.send_to(&datagram, from).expect("sent");
            }
        }
    });
    address
}

#[test]
fn dns_passes_with_a_record_and_names_every_error() {
    for (code, records, verdict, detail) in [
        (0, 2, Verdict::Pass, "2 records"),
        (0, 0, Verdict::Fail, "an answer without a record"),
        (2, 0, Verdict::Fail, "answers SERVFAIL: it cannot find out"),
        (3, 0, Verdict::Fail, "answers NXDOMAIN: there is no such name"),
        (5, 0, Verdict::Fail, "answers REFUSED: it does not answer us"),
        (9, 0, Verdict::Fail, "answers with the error 9"),
    ] {
        let target = resolver(move |query| {
            // RFC 1035 §4.1.2: www.example.net, type 28, class IN.
            assert_eq!(query[12..], *b"\x03www\x07example\x03net\0\0\x1c\0\x01");
            vec![dns_answer(query, 0, code, records)]
        });
        expect(&ask(target, dns(false)), verdict, detail);
    }
}

#[test]
fn dns_reads_past_what_is_no_answer_to_it() {
    let target = resolver(|query| {
        let mut other = dns_answer(query, 0, 3, 0);
        other[0] ^= 1;
        let mut elsewhere = dns_answer(query, 0, 3, 0);
        elsewhere[14] = b'x';
        vec![other, elsewhere, query.to_vec(), vec![], dns_answer(query, 0, 0, 1)]
    });
    expect(&ask(target, dns(false)), Verdict::Pass, "1 record");
    let target = resolver(|_| vec![vec![0; 30]; 100]);
    let outcome = ask(target, dns(false));
    expect(&outcome, Verdict::Fail, "what it sends is no answer to the question");
}

#[test]
fn dns_asks_again_over_tcp_what_does_not_fit() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let target = listener.local_addr().expect("an address");
    let socket = UdpSocket::bind(target).expect("the same port");
    thread::spawn(move || {
        let mut query = [0; 512];
        let (length, from) = socket.recv_from(&mut query).expect("a query");
        socket.send_to(&dns_answer(&query[..length], 0x02, 0, 0), from).expect("sent");
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut length = [0; 2];
        stream.read_exact(&mut length).expect("a length");
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).expect("a query");
        stream.write_all(&length).expect("written");
        stream.write_all(&dns_answer(&query, 0, 0, 3)).expect("written");
        let _until_the_probe_hangs_up = stream.read(&mut [0]);
    });
    expect(&ask(target, dns(false)), Verdict::Pass, "3 records");
}

#[test]
fn a_port_that_nobody_has_refuses_datagrams() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let target = socket.local_addr().expect("an address");
    drop(socket);
    expect(&ask(target, dns(false)), Verdict::Fail, "connection refused");
    let udp = UdpQuestion { payload: b"hello".to_vec(), reply: None };
    expect(&ask(target, Question::Udp(Arc::new(udp))), Verdict::Fail, "connection refused");
}

#[test]
fn udp_compares_the_answer_where_one_is_wanted() {
    let target = resolver(|query| match query {
        b"ping" => vec![vec![0x17, 0x2f, 0x33]],
        _ => vec![],
    });
    let reply = |pattern: &[(u8, u8)], shortest, longest| {
        Some(UdpReply { pattern: pattern.to_vec(), shortest, longest })
    };
    for (payload, reply, verdict, detail) in [
        (&b"ping"[..], reply(&[(0x10, 0xf0), (0x2f, 0xff)], 0, None), Verdict::Pass, "answered"),
        (b"ping", reply(&[], 3, Some(3)), Verdict::Pass, "answered"),
        (
            b"ping",
            reply(&[(0x11, 0xff)], 0, None),
            Verdict::Fail,
            "another answer than the wanted one",
        ),
        (
            b"ping",
            reply(&[(0x17, 0xff), (0, 0), (0, 0), (0, 0)], 0, None),
            Verdict::Fail,
            "another answer than the wanted one",
        ),
        (b"ping", reply(&[], 4, None), Verdict::Fail, "an answer of 3 octets"),
        (b"ping", reply(&[], 0, Some(2)), Verdict::Fail, "an answer of 3 octets"),
        (b"none", None, Verdict::Pass, "not refused"),
    ] {
        let question = UdpQuestion { payload: payload.to_vec(), reply };
        expect(&ask(target, Question::Udp(Arc::new(question))), verdict, detail);
    }
    let question = UdpQuestion { payload: b"none".to_vec(), reply: reply(&[], 0, None) };
    let outcome = once(Checker::ask(target, Question::Udp(Arc::new(question))), SHORT);
    expect(&outcome, Verdict::Fail, "no answer: timed out after 400ms");
}

#[test]
fn ping_passes_when_this_host_answers_in_either_family() {
    for target in ["127.0.0.9:0", "[::1]:0"] {
        let outcome = ask(target.parse().expect("an address"), Question::Ping);
        expect(&outcome, Verdict::Pass, "echoed");
    }
}

/// A greeting of protocol 10 with its version.
const MYSQL_GREETING: &[u8] = b"\x11\0\0\0\x0a5.5.5-10.11.6-M\0";

#[test]
fn mysql_passes_with_a_greeting_and_a_login() {
    let mysql = |user: Option<&str>| Question::Mysql { user: user.map(Into::into) };
    for (said, verdict, detail) in [
        (&b"\x0f\0\0\x02\xff\x15\x04#28000Denied"[..], Verdict::Pass, "MySQL 10.11.6-M"),
        (b"\x0c\0\0\x02\xff\x57\x0c#08004TLS", Verdict::Pass, "MySQL 10.11.6-M"),
        (b"\x01\0\0\x02\0", Verdict::Pass, "MySQL 10.11.6-M"),
        (b"\x0d\0\0\x02\xff\x10\x04Too many..", Verdict::Fail, "MySQL error 1040: Too many.."),
    ] {
        // Nobody logs in: a host that leaves before that would be blocked in the end.
        let greeted =
            server(vec![Say(MYSQL_GREETING), Until(b"\0mysql_native_password\0"), Say(said)]);
        expect(&ask(greeted, mysql(None)), verdict, detail);
    }
    let let_in = server(vec![
        Say(MYSQL_GREETING),
        Wait,
        // Another method, an empty answer to it, and OK.
        Say(b"\x01\0\0\x02\xfe"),
        Hear(b"\0\0\0\x03"),
        Say(b"\x01\0\0\x04\0"),
    ]);
    expect(&ask(let_in, mysql(Some("locum"))), Verdict::Pass, "MySQL 10.11.6-M");
    for (turns, detail) in [
        (vec![Say(b"\x0d\0\0\0\xff\x10\x04Too many..")], "MySQL error 1040: Too many.."),
        (
            vec![Say(MYSQL_GREETING), Wait, Say(b"\x0f\0\0\x02\xff\x15\x04#28000Denied")],
            "MySQL error 1045: Denied",
        ),
        (
            vec![Say(b"SSH-2.0-OpenSSH\r\n"), Say(&[b'x'; 70_000])],
            "it sends more than an answer has",
        ),
        (vec![Say(b"\x02\0\0\0hi")], "not a greeting of MySQL"),
    ] {
        expect(&ask(server(turns), mysql(Some("locum"))), Verdict::Fail, detail);
    }
}

#[test]
fn postgres_passes_when_it_takes_connections() {
    let plain = Question::Postgres { user: None };
    let target = server(vec![Hear(&[0, 0, 0, 8, 4, 210, 22, 47]), Say(b"N")]);
    expect(&ask(target, plain.clone()), Verdict::Pass, "PostgreSQL takes connections");
    let user = PostgresUser { user: "locum".into(), database: "app".into() };
    let with_user = Question::Postgres { user: Some(Arc::new(user)) };
    let target = server(vec![Wait, Say(b"R\0\0\0\x08\0\0\0\x05")]);
    expect(&ask(target, with_user.clone()), Verdict::Pass, "PostgreSQL takes connections");
    let target = server(vec![Wait, Say(b"E\0\0\0\x26SFATAL\0C57P03\0Mthe database is up\0\0")]);
    expect(&ask(target, with_user.clone()), Verdict::Fail, "PostgreSQL: the database is up");
    // Let in without a password, which says nothing of the user and the database yet.
    const LET_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    const READY: &[u8] = b"S\0\0\0\x11TimeZone\0UTC\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I";
    let target = server(vec![Wait, Say(LET_IN), Say(READY)]);
    expect(&ask(target, with_user.clone()), Verdict::Pass, "PostgreSQL takes connections");
    let target = server(vec![Wait, Say(LET_IN), Say(b"E\0\0\0\x0eMno such\0\0")]);
    expect(&ask(target, with_user.clone()), Verdict::Fail, "PostgreSQL: no such");
    let target = server(vec![Wait, Say(LET_IN)]);
    let outcome = once(Checker::ask(target, with_user), SHORT);
    expect(&outcome, Verdict::Fail, "let in, and then nothing: timed out after 400ms");
    let target = server(vec![Wait, Say(b"HTTP/1.1 400\r\n")]);
    expect(&ask(target, plain), Verdict::Fail, "not an answer of PostgreSQL");
}

#[test]
fn redis_passes_when_it_answers_ping() {
    let redis = |password: Option<&str>| Question::Redis { password: password.map(Into::into) };
    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
    let target = server(vec![Hear(PING), Say(b"+PONG\r\n")]);
    expect(&ask(target, redis(None)), Verdict::Pass, "PONG");
    let target = server(vec![
        Hear(b"*2\r\n$4\r\nAUTH\r\n$6\r\ngeheim\r\n"),
        Say(b"+OK\r\n"),
        Hear(PING),
        Say(b"+PONG\r\n"),
    ]);
    expect(&ask(target, redis(Some("geheim"))), Verdict::Pass, "PONG");
    let target = server(vec![Hear(PING), Say(b"-LOADING Redis is loading\r\n")]);
    expect(&ask(target, redis(None)), Verdict::Fail, "Redis: LOADING Redis is loading");
    let target = server(vec![Wait, Say(b"-WRONGPASS invalid\r\n")]);
    expect(&ask(target, redis(Some("x"))), Verdict::Fail, "Redis: WRONGPASS invalid");
}

#[test]
fn an_agent_says_whether_it_is_up_and_how_much_it_takes() {
    let outcome = ask(server(vec![Say(b"up 50%\n")]), Question::Agent);
    expect(&outcome, Verdict::Pass, "says up 50%");
    assert_eq!(outcome.weight, Some(ReportedWeight::Percent(50)));
    let outcome = ask(server(vec![Say(b"drain\n")]), Question::Agent);
    assert_eq!(outcome.weight, Some(ReportedWeight::Absolute(0)));
    let outcome = ask(server(vec![Say(b"down # disk\n")]), Question::Agent);
    expect(&outcome, Verdict::Fail, "says down # disk");
    let (target, _held) = closed_port();
    expect(&ask(target, Question::Agent), Verdict::Fail, "connection refused");
}

fn grpc() -> Question {
    let question = GrpcQuestion { service: "app".into(), host: None, tls: None };
    Question::Grpc(Arc::new(question))
}

/// Its frames by hand. RFC 9113 §4.1: length, type, flags, stream.
#[test]
fn grpc_passes_when_the_service_is_serving() {
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    // The message of the request, with its prefix.
    const REQUEST: &[u8] = b"\0\0\0\0\x05\x0a\x03app";
    const STATUS_200: &[u8] = b"\0\0\x01\x01\x04\0\0\0\x01\x88";
    let serving = |message: &'static [u8], trailers: &'static [u8]| {
        server(vec![Say(SETTINGS), Until(REQUEST), Say(STATUS_200), Say(message), Say(trailers)])
    };
    const OK: &[u8] = b"\0\0\x0f\x01\x05\0\0\0\x01\0\x0bgrpc-status\x010";
    const NOT_FOUND: &[u8] = b"\0\0\x0f\x01\x05\0\0\0\x01\0\x0bgrpc-status\x015";
    const UP: &[u8] = b"\0\0\x07\0\0\0\0\0\x01\0\0\0\0\x02\x08\x01";
    const DOWN: &[u8] = b"\0\0\x07\0\0\0\0\0\x01\0\0\0\0\x02\x08\x02";
    expect(&ask(serving(UP, OK), grpc()), Verdict::Pass, "SERVING");
    expect(&ask(serving(DOWN, OK), grpc()), Verdict::Fail, "NOT_SERVING");
    let outcome = ask(serving(b"", NOT_FOUND), grpc());
    expect(&outcome, Verdict::Fail, "does not know the service \"app\"");
    let outcome = ask(serving(UP, b"\0\0\0\0\x01\0\0\0\x01"), grpc());
    expect(&outcome, Verdict::Fail, "not a gRPC answer: it has no grpc-status");
}

#[test]
fn grpc_fails_on_what_does_not_speak_it() {
    let outcome =
        ask(server(vec![Wait, Say(b"HTTP/1.1 400 Bad\r\n\r\n"), Until(b"never")]), grpc());
    assert!(outcome.detail.starts_with("not an HTTP/2 response: "), "{outcome:?}");
    // Never a word after what a client says first.
    let outcome = once(Checker::ask(server(vec![Wait, Until(b"never")]), grpc()), SHORT);
    expect(&outcome, Verdict::Fail, "no response: timed out after 400ms");
}
