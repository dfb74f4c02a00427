//! The files of `etc/examples`, run as they stand, with the servers that they are for: the lab has their
//! addresses.

use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::time::Duration;

use locum_integration::lab::CLIENT;
use locum_integration::lab::Lab;
use locum_integration::lab::Shape;
use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::peer::Locum;
use locum_integration::peer::Running;
use locum_integration::peer::locum_command;
use locum_integration::process::Process;
use locum_integration::process::Whom;
use locum_integration::require;
use locum_integration::service::VIP;
use locum_integration::software;
use locum_integration::software::Software;
use locum_integration::wait;
use locum_integration::wait::seconds;
use locum_integration::web;
use nix::sys::signal::Signal;

/// An answer that takes longer is none.
const PATIENCE: Duration = seconds(2);

const BOTH: [&str; 2] = ["srv1", "srv2"];

fn available() -> bool {
    let mut programs = Software::PROGRAMS.to_vec();
    programs.push("nft");
    require::lab(&programs)
}

/// A file of the examples.
pub(crate) fn text_of(example: &str) -> String {
    let path = require::workspace().join("etc/examples").join(example);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Two directors with a file of the examples, and two servers of one kind.
struct ExampleRun {
    _daemons: Vec<Running>,
    software: Vec<Software>,
    processes: Vec<Option<Process>>,
    lab: Lab,
}

impl ExampleRun {
    fn new(example: &str, prepare: impl Fn(&Node) -> Software) -> Self {
        Self::of(&text_of(example), prepare)
    }

    /// The same with a text of one's own.
    fn of(text: &str, prepare: impl Fn(&Node) -> Software) -> Self {
        let lab = Lab::new(Shape::SERVICE);
        let software: Vec<Software> = lab.servers.iter().map(prepare).collect();
        let started = software.iter().zip(&lab.servers).map(|(one, node)| Some(one.start(node)));
        let processes = started.collect();
        let start = |node| Locum::NATIVE.start_with(node, text);
        let daemons = lab.directors.iter().map(start).collect();
        Self { _daemons: daemons, software, processes, lab }
    }

    fn server(&mut self, place: usize) -> &mut Process {
        self.processes[place].as_mut().expect("it runs")
    }

    fn kill(&mut self, place: usize) {
        software::kill(self.processes[place].take().expect("it runs"));
    }

    fn start(&mut self, place: usize) {
        self.processes[place] = Some(self.software[place].start(&self.lab.servers[place]));
    }

    /// Waits until eight questions in a row are answered, by exactly these servers.
    fn expect(&self, what: &str, ask: impl Fn(&Node) -> Result<String, String>, names: &[&str]) {
        wait::eventually(&format!("{what}: {names:?} answer"), ELECTION, || {
            let answers: Result<Vec<String>, String> =
                (0..8).map(|_| ask(&self.lab.client)).collect();
            let mut found = answers.clone()?;
            found.sort();
            found.dedup();
            if found == names { Ok(()) } else { Err(format!("{answers:?}")) }
        });
    }

    /// The master hands over, and the other director has the address.
    fn switch_over(&self, instance: &str) {
        let vip: IpAddr = VIP.parse().expect("an address");
        let holder = self.lab.holders(vip)[0];
        let output = locum_command(&self.lab.directors[holder], &["switchover", instance]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let other = 1 - holder;
        wait::until("the other director alone has the address", ELECTION, || {
            self.lab.holders(vip) == [other]
        });
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(VIP.parse().expect("an address"), port)
}

/// One datagram to the shared address, of a new socket of the client, and its answer.
fn exchange(client: &Node, from: &str, port: u16, question: &[u8]) -> Result<Vec<u8>, String> {
    let exchange = || -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect(at(port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(question)?;
        let mut octets = vec![0; 4096];
        let length = socket.recv(&mut octets)?;
        octets.truncate(length);
        Ok(octets)
    };
    client.in_network(exchange).map_err(|error| error.to_string())
}

fn connect(client: &Node, port: u16) -> Result<TcpStream, String> {
    let connect = || -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&at(port), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    client.in_network(connect).map_err(|error| error.to_string())
}

#[test]
fn nginx_by_weight_and_by_connections() {
    if !available() {
        return;
    }
    let mut run = ExampleRun::new("nginx.toml", Software::nginx);
    let pages = |client: &Node| web::get_at(client, at(80));
    let downloads = |client: &Node| web::get_at(client, at(8080));
    run.expect("pages", pages, &BOTH);
    run.expect("downloads", downloads, &BOTH);
    let answers = (0..100).map(|_| pages(&run.lab.client).expect("an answer"));
    let first = answers.filter(|name| name == "srv1").count();
    assert!((24..=26).contains(&first), "{first} of 100 at the server of weight 1 of 4");
    run.kill(0);
    run.expect("pages", pages, &["srv2"]);
    run.expect("downloads", downloads, &["srv2"]);
    run.switch_over("web");
    run.expect("pages by the other director", pages, &["srv2"]);
    run.start(0);
    run.expect("pages by the other director", pages, &BOTH);
}

/// The last octet of the address that the answer has.
fn named(answer: &[u8]) -> String {
    let is_answer = answer.len() > 12 && answer[3] & 0x0f == 0 && answer[7] == 1;
    match answer.last() {
        Some(last) if is_answer => format!("srv{last}"),
        _ => format!("{answer:?}"),
    }
}

#[test]
fn resolvers_over_udp_and_tcp() {
    const QUESTION: &[u8] =
        b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01";
    if !available() {
        return;
    }
    let mut run = ExampleRun::new("dns.toml", |node| {
        let number = node.name().trim_start_matches("srv");
        let zone = format!("local-data: \"www.example.com. A 192.0.2.{number}\"\n");
        Software::unbound(node, &zone)
    });
    let over_udp =
        |client: &Node| exchange(client, CLIENT, 53, QUESTION).map(|answer| named(&answer));
    let over_tcp = |client: &Node| {
        let mut stream = connect(client, 53)?;
        let mut ask = || -> std::io::Result<Vec<u8>> {
            let length = u16::try_from(QUESTION.len()).unwrap_or_default();
            stream.write_all(&[&length.to_be_bytes()[..], QUESTION].concat())?;
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut answer = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        };
        ask().map(|answer| named(&answer)).map_err(|error| error.to_string())
    };
    run.expect("over UDP", over_udp, &BOTH);
    run.expect("over TCP", over_tcp, &BOTH);
    // It hears the questions, and does not answer.
    run.server(0).signal(Whom::Family, Signal::SIGSTOP);
    run.expect("over UDP", over_udp, &["srv2"]);
    run.expect("over TCP", over_tcp, &["srv2"]);
    run.switch_over("dns");
    run.expect("over UDP by the other director", over_udp, &["srv2"]);
    run.server(0).signal(Whom::Family, Signal::SIGCONT);
    run.expect("over UDP by the other director", over_udp, &BOTH);
}

#[test]
fn telephones_stay_at_their_server() {
    const QUESTION: &[u8] = b"REGISTER sip:example.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP 192.168.1.200;rport;branch=z9hG4bK-1\r\nMax-Forwards: 70\r\n\
        From: <sip:a@example.com>;tag=1\r\nTo: <sip:a@example.com>\r\nCall-ID: 1@lab\r\n\
        CSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n";
    const OTHER: &str = "192.168.1.210";
    if !available() {
        return;
    }
    let mut run = ExampleRun::new("sip.toml", Software::kamailio);
    run.lab.client.run(&["ip", "addr", "add", &format!("{OTHER}/24"), "dev", "eth0"]);
    let register = |from: &'static str| {
        move |client: &Node| {
            let answer = exchange(client, from, 5060, QUESTION)?;
            let text = String::from_utf8_lossy(&answer).into_owned();
            let name = text.lines().next().and_then(|line| line.strip_prefix("SIP/2.0 200 "));
            name.map(str::to_owned).ok_or(text)
        }
    };
    // Each telephone by eight sockets.
    let mut servers = Vec::new();
    for from in [CLIENT, OTHER] {
        let name = wait::eventually("a telephone is answered", ELECTION, || {
            register(from)(&run.lab.client)
        });
        run.expect(from, register(from), &[&name]);
        servers.push(name);
    }
    servers.sort();
    assert_eq!(servers, BOTH, "in turn");
    let first = register(CLIENT)(&run.lab.client).expect("an answer");
    let place = usize::from(first == "srv2");
    run.kill(place);
    let left = BOTH[1 - place];
    for from in [CLIENT, OTHER] {
        run.expect(from, register(from), &[left]);
    }
}

#[test]
fn databases_for_writes_and_for_reads() {
    if available() {
        expect_databases(&text_of("mysql.toml"));
    }
}

#[test]
fn databases_behind_a_haproxy_that_is_made_for_them() {
    if available() && require::lab(&["haproxy"]) {
        let text = text_of("mysql.toml");
        assert_eq!(text.matches("backend = \"proxy\"").count(), 2);
        expect_databases(&text.replace("backend = \"proxy\"", "backend = \"haproxy\""));
    }
}

/// The databases of `mysql.toml`, whatever serves them.
fn expect_databases(text: &str) {
    let mut run = ExampleRun::of(text, |node| {
        let users = "CREATE USER IF NOT EXISTS 'locum'@'10.0.0.%';\n";
        let version = format!("--version=10.11.0-{}", node.name());
        Software::mariadb(node, users).with(&[&version])
    });
    // By its greeting, which has its version.
    let ask = |port: u16| {
        move |client: &Node| {
            let mut greeting = [0; 64];
            let mut stream = connect(client, port)?;
            let length = stream.read(&mut greeting).map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&greeting[..length]).into_owned();
            let found = BOTH.into_iter().find(|name| text.contains(name));
            found.map(str::to_owned).ok_or(text)
        }
    };
    let (writes, reads) = (ask(3306), ask(3307));
    run.expect("writes", writes, &["srv1"]);
    run.expect("reads", reads, &BOTH);
    let answers = (0..40).map(|_| reads(&run.lab.client).expect("an answer"));
    let first = answers.filter(|name| name == "srv1").count();
    assert!((9..=11).contains(&first), "{first} of 40 at the server of weight 1 of 4");
    run.kill(0);
    run.expect("writes", writes, &["srv2"]);
    run.expect("reads", reads, &["srv2"]);
    run.start(0);
    run.expect("writes", writes, &["srv1"]);
    run.expect("reads", reads, &BOTH);
}
