//! A bench for the proxy's process: it, its controller, and real servers that say who they are.
//!
//! Addresses are 127.x.y.N with x.y from this process and N from a counter, so that tests that run
//! at the same time do not meet.

#![allow(dead_code, reason = "each test file uses its part of the bench")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use locum_proxy::protocol::{
    Orphan, ProxyLimits, ProxyRequest, ProxyServer, ProxyService, ProxyServiceStatus, ProxyStatus,
    ProxyTransport,
};

/// Longer than anything takes; what is waited for longer is missing.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const PORT: u16 = 8080;

/// An address nobody else uses.
pub fn fresh_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 100 | high & 0x0f, low, NEXT.fetch_add(1, Ordering::Relaxed));
    SocketAddr::from((ip, PORT))
}

pub struct Proxy {
    child: Child,
    directory: Rc<tempfile::TempDir>,
    name: String,
    controller: Option<BufReader<UnixStream>>,
}

impl Proxy {
    /// Started directly, with these arguments after the socket's.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_under(&[], arguments)
    }

    /// Started by another program, such as one that makes a namespace.
    pub fn start_under(wrapper: &[&str], arguments: &[&str]) -> Self {
        let directory = Rc::new(tempfile::tempdir().unwrap());
        Self::start_in(directory, "proxy.sock", wrapper, arguments)
    }

    /// One that takes this one's place once it is sent a level.
    pub fn successor(&self) -> Self {
        let predecessor = self.socket();
        let arguments = ["--predecessor", predecessor.to_str().unwrap()];
        Self::start_in(self.directory.clone(), &format!("{}.next", self.name), &[], &arguments)
    }

    fn start_in(
        directory: Rc<tempfile::TempDir>,
        name: &str,
        wrapper: &[&str],
        arguments: &[&str],
    ) -> Self {
        let mut words: Vec<_> = wrapper.iter().map(PathBuf::from).collect();
        words.push(program());
        words.push("--socket".into());
        words.push(directory.path().join(name));
        words.extend(arguments.iter().map(PathBuf::from));
        let child = Command::new(&words[0]).args(&words[1..]).spawn().unwrap();
        let mut proxy = Self { child, directory, name: name.to_owned(), controller: None };
        proxy.connect();
        proxy
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    /// A new controller takes the place of the old one, if any.
    pub fn connect(&mut self) {
        let socket = self.socket();
        let stream = eventually("the control socket", || UnixStream::connect(&socket).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.controller = Some(BufReader::new(stream));
    }

    pub fn hang_up(&mut self) {
        self.controller = None;
    }

    pub fn serve(&mut self, services: &[ProxyService]) -> ProxyStatus {
        self.serve_as(services, Orphan::Unchanged)
    }

    /// A level that also says how long to go on alone.
    pub fn serve_as(&mut self, services: &[ProxyService], orphan: Orphan) -> ProxyStatus {
        let request = ProxyRequest::Serve { services: services.to_vec(), orphan };
        self.ask(&serde_json::to_string(&request).unwrap())
    }

    pub fn status(&mut self) -> ProxyStatus {
        self.ask(&serde_json::to_string(&ProxyRequest::Status).unwrap())
    }

    pub fn service(&mut self, name: &str) -> ProxyServiceStatus {
        let status = self.status();
        status.services.into_iter().find(|service| service.name == name).unwrap()
    }

    pub fn ask(&mut self, line: &str) -> ProxyStatus {
        let reader = self.controller.as_mut().unwrap();
        writeln!(reader.get_mut(), "{line}").unwrap();
        let mut answer = String::new();
        reader.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn wait_for_exit(&mut self) -> ExitStatus {
        eventually("the proxy's end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example of this package, which cargo builds along with its tests.
pub fn program() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/proxy")
}

/// Greets every client with its letter, then echoes until the client has said all; then it says
/// `bye` and closes.
pub fn start_server(letter: char) -> SocketAddr {
    let address = fresh_address();
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 16 * 1024];
                client.write_all(letter.to_string().as_bytes())?;
                loop {
                    match client.read(&mut buffer)? {
                        0 => break,
                        count => client.write_all(&buffer[..count])?,
                    }
                }
                client.write_all(b"bye")
            });
        }
    });
    address
}

/// Takes connections and never says a word, nor closes one.
pub fn start_silent_server() -> SocketAddr {
    let address = fresh_address();
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    address
}

/// A client whose connection reached a server.
pub struct Client {
    pub stream: TcpStream,
    pub letter: char,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::greeted(TcpStream::connect(address).unwrap())
    }

    /// From a source address of its own.
    pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        Self::greeted(Self::connect_unheard(source, address).stream)
    }

    /// The same, without waiting for a server's letter.
    pub fn connect_unheard(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::unheard(socket.into())
    }

    /// No server has greeted it.
    pub fn unheard(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, letter: '-' }
    }

    pub fn greeted(stream: TcpStream) -> Self {
        let mut client = Self::unheard(stream);
        let mut letter = [0];
        client.stream.read_exact(&mut letter).unwrap();
        client.letter = char::from(letter[0]);
        client
    }

    pub fn echo(&mut self, text: &str) -> std::io::Result<()> {
        self.stream.write_all(text.as_bytes())?;
        let mut answer = vec![0; text.len()];
        self.stream.read_exact(&mut answer)?;
        assert_eq!(answer, text.as_bytes());
        Ok(())
    }

    /// Waits for an octet that nobody sends.
    pub fn echo_nothing(&mut self) -> std::io::Result<()> {
        self.stream.read_exact(&mut [0])
    }

    /// Waits for an octet that nobody sends, for at most this long; true when the connection is cut.
    pub fn is_cut_within(&mut self, patience: Duration) -> bool {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        let error = self.echo_nothing().unwrap_err();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        error.kind() != std::io::ErrorKind::WouldBlock
    }

    /// Says no more, and returns all that the server still says.
    pub fn finish(mut self) -> String {
        self.stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).unwrap();
        rest
    }

    /// Waits for the end; true if it was an error, as a cut connection's is.
    pub fn ends_in_reset(mut self) -> bool {
        let mut rest = Vec::new();
        let end = self.stream.read_to_end(&mut rest);
        end.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
    }
}

pub fn server(address: SocketAddr, weight: u32) -> ProxyServer {
    ProxyServer { address, weight, max: None, min: None, send_proxy: None }
}

pub fn service(name: &str, scheduler: &str, servers: &[(SocketAddr, u32)]) -> ProxyService {
    ProxyService {
        name: name.to_owned(),
        listen: fresh_address(),
        also: Vec::new(),
        transport: ProxyTransport::Tcp,
        scheduler: scheduler.to_owned(),
        persistence: None,
        one_packet: false,
        drain_ms: 60_000,
        ready_only: false,
        limits: ProxyLimits::default(),
        send_proxy: None,
        accept_proxy: Vec::new(),
        servers: servers.iter().map(|&(address, weight)| server(address, weight)).collect(),
        failed: Vec::new(),
    }
}

/// Asks until there is an answer, for at most [`PATIENCE`].
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(answer) = ask() {
            return answer;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{what} did not come within {PATIENCE:?}");
}
