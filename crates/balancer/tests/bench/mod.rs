//! A bench for the balancer: a run directory, real servers, and services in front of them.

#![allow(dead_code, reason = "each test file uses its part of the bench")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use locum_balancer::{Balancer, BalancerSettings, Note, ServeError};
use locum_plan::{
    Activity, BackendChoice, BackendKind, Name, Server, Service, WantedService, WantedServices,
};

/// Longer than anything takes; what is waited for longer is missing.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Whether Debian's HAProxy is here; it has to be where the lab is required.
pub fn has_haproxy() -> bool {
    let found = Command::new("haproxy").arg("-v").output().is_ok();
    assert!(found || std::env::var_os("LOCUM_REQUIRE_LAB").is_none(), "haproxy is not installed");
    if !found {
        eprintln!("skipped: haproxy is not installed");
    }
    found
}

/// An address nobody else uses: 127.x.y.N with x.y from this process and N from a counter.
pub fn fresh_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from((Ipv4Addr::new(127, 120 | high & 0x07, low, n), 8080))
}

/// Answers every client, whatever it says, with an HTTP response that holds this letter.
pub fn start_server(letter: char) -> SocketAddr {
    let address = fresh_address();
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            thread::spawn(move || {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{letter}");
                while client.read(&mut [0; 4096])? > 0 {
                    client.write_all(answer.as_bytes())?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    address
}

/// A connection on which requests are made.
pub struct Client(TcpStream);

impl Client {
    pub fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// The last character of the answer: the server's letter.
    pub fn get(&mut self) -> std::io::Result<char> {
        self.0.write_all(b"GET /index.html HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let mut answer = [0; 4096];
        let mut length = 0;
        while !answer[..length].windows(4).any(|end| end == b"\r\n\r\n")
            || answer[..length].ends_with(b"\r\n\r\n")
        {
            match self.0.read(&mut answer[length..])? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => length += count,
            }
        }
        Ok(char::from(answer[length - 1]))
    }
}

/// One request on a connection of its own.
pub fn get(address: SocketAddr) -> std::io::Result<char> {
    Client::connect(address)?.get()
}

pub struct Bench {
    pub directory: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn settings(&self) -> BalancerSettings {
        let mut program = std::env::current_exe().unwrap();
        program.pop();
        program.pop();
        BalancerSettings {
            run_dir: self.directory.path().to_owned(),
            locum_program: program.join("examples/locum"),
        }
    }

    pub fn balancer(&self) -> Balancer {
        Balancer::new(self.settings())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Ends what a test left running, through a balancer of its own.
impl Drop for Bench {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let mut balancer = self.balancer();
        balancer.apply(&WantedServices::default());
        let start = Instant::now();
        while !balancer.is_idle() && start.elapsed() < PATIENCE {
            balancer.tick();
            thread::sleep(Duration::from_millis(20));
        }
    }
}

pub fn service(name: &str, servers: &[SocketAddr]) -> Service {
    Service {
        backend: BackendChoice::Only(BackendKind::Proxy),
        drain: Duration::from_millis(300),
        servers: servers.iter().copied().map(Server::new).collect(),
        ..Service::new(Name::from(name), fresh_address().into())
    }
}

/// Where a client of it connects to.
pub fn address(service: &Service) -> SocketAddr {
    service.only_address().expect("one address")
}

pub fn wanted(services: &[&Service]) -> WantedServices {
    let active = |service: &&Service| {
        Arc::new(WantedService {
            service: Arc::new((*service).clone()),
            activity: Activity::Active,
            servers: service.servers.iter().map(Server::wanted).collect(),
            lease: Some(2 * PATIENCE),
        })
    };
    let services = services.iter().map(active).collect();
    WantedServices { services, ..WantedServices::default() }
}

/// A service of a level, to be changed.
pub fn edit(level: &mut WantedServices, at: usize) -> &mut WantedService {
    Arc::make_mut(&mut level.services[at])
}

/// Serves this level, and ticks until it is known of everything whether it is served.
pub fn serve(balancer: &mut Balancer, wanted: &WantedServices) -> Result<(), Vec<ServeError>> {
    balancer.apply(wanted);
    tick_until(balancer, "an answer", |balancer, _| {
        let status = balancer.status();
        balancer.progress().pending.is_empty() && !status.processes.iter().any(|p| p.is_changing)
    });
    let failed = balancer.progress().failed;
    if failed.is_empty() { Ok(()) } else { Err(failed) }
}

/// Why this is not served, if it is not.
pub fn failure(balancer: &Balancer, name: &str) -> Option<String> {
    let failed = balancer.progress().failed.into_iter();
    failed.filter(|(of, _)| **of == *name).map(|(_, error)| error).next()
}

/// What this serves with, if it serves and an operator has to know something of it.
pub fn strain(balancer: &Balancer, name: &str) -> Option<String> {
    let strained = balancer.progress().strained.into_iter();
    strained.filter(|(of, _)| **of == *name).map(|(_, error)| error).next()
}

/// Ticks until `done`, as the daemon would, and returns what the log would have.
pub fn tick_until(
    balancer: &mut Balancer,
    what: &str,
    mut done: impl FnMut(&mut Balancer, &[Note]) -> bool,
) -> Vec<Note> {
    let start = Instant::now();
    let mut notes = Vec::new();
    loop {
        notes.extend(balancer.take_notes());
        if done(balancer, &notes) {
            return notes;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{what} did not come within {PATIENCE:?}: {notes:?} {:?}",
            balancer.status()
        );
        thread::sleep(balancer.next_tick().unwrap_or_default().min(Duration::from_millis(50)));
        // Not before it is due: what never is would be seen by nobody but the daemon.
        if balancer.next_tick() == Some(Duration::ZERO) {
            balancer.tick();
        }
    }
}

/// Tells it to serve nothing and waits until nothing is left.
pub fn finish(mut balancer: Balancer) {
    serve(&mut balancer, &WantedServices::default()).unwrap();
    tick_until(&mut balancer, "the end", |balancer, _| balancer.is_idle());
}

pub fn kill(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

/// Waits for something that is looked at again and again.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Says one line to whoever listens at a socket, and returns the first octets of the answer.
pub fn say(socket: &std::path::Path, line: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{line}")?;
    let mut answer = [0; 4096];
    let count = stream.read(&mut answer)?;
    Ok(answer[..count].to_vec())
}
