//! Full load on a pair whose servers are killed, drained and added all the time, and which hands over
//! every minute: what is lost, and what the processes take at the end.
//!
//! ```text
//!   clients ──► VIP:8001 nftables ┐
//!           ──► VIP:8002 haproxy  ├─ the same three servers, and a fourth that comes and goes
//!           ──► VIP:8003 proxy    ┘
//! ```

use std::collections::BTreeMap;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::nginx;
use crate::lab::Lab;
use crate::lab::Shape;
use crate::node::Node;
use crate::pair::ELECTION;
use crate::peer::Locum;
use crate::peer::Running;
use crate::peer::locum_command;
use crate::process::Process;
use crate::process::Taken;
use crate::process::Whom;
use crate::require;
use crate::require::Company;
use crate::service::VIP;
use crate::service::every_second;
use crate::wait;
use crate::wait::millis;
use crate::wait::seconds;

/// What carries the requests, each at a port of its own.
const BACKENDS: [(&str, u16); 3] = [("nftables", 8001), ("haproxy", 8002), ("proxy", 8003)];

/// From the kill of a server until its check has failed and nobody is sent to it: an interval, the time
/// a check may take, and what a full machine is late.
const UNKNOWN: Duration = millis(1500);

/// Clients of one backend that keep their connection for a while, and that ask once on each.
const KEEPING: usize = 8;
const ONCE: usize = 4;
/// Requests on a kept connection: it ends long before the next change, so that who is drained is empty.
const KEPT_FOR: u32 = 100;
/// An answer that takes longer is lost.
const PATIENCE: Duration = seconds(10);
/// How long what went on when the load ended may take to be over.
const REST: Duration = seconds(4);

const LONG_REST: Duration = seconds(45);
/// Of the requests that were lost.
const SHOWN: usize = 5;

/// A group of processes may take so much more at the end than at the beginning.
const MORE_DESCRIPTORS: u64 = 8;
const MORE_KIB: u64 = 4096;

/// How long, and how often something happens.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    pub lasts: Duration,
    pub change_every: Duration,
    pub handover_every: Duration,
}

/// A request that was not answered.
#[derive(Clone, Debug)]
struct Unanswered {
    began: Instant,
    ended: Instant,
    reason: String,
}

/// What the clients of one backend have met.
#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    /// Asked a second time, because a kept connection had ended before the request came to anybody.
    again: AtomicU64,
    unanswered: Mutex<Vec<Unanswered>>,
}

/// The clients, all of them.
struct Clients {
    is_over: Arc<AtomicBool>,
    rests: Arc<AtomicBool>,
    tallies: Vec<Arc<Tally>>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(client: &Node) -> Self {
        let (is_over, rests) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (mut tallies, mut threads) = (Vec::new(), Vec::new());
        for (_, port) in BACKENDS {
            let tally = Arc::<Tally>::default();
            let address = SocketAddr::new(VIP.parse().expect("an address"), port);
            for number in 0..KEEPING + ONCE {
                let kept_for = if number < KEEPING { KEPT_FOR } else { 1 };
                let (tally, is_over, rests) = (tally.clone(), is_over.clone(), rests.clone());
                threads.push(client.spawn_in_network(move || {
                    let mut client = Asking { address, kept_for, left: 0, stream: None };
                    while !is_over.load(Ordering::Relaxed) {
                        if rests.load(Ordering::Relaxed) {
                            client.stream = None;
                            thread::sleep(millis(20));
                        } else {
                            client.ask(&tally);
                        }
                    }
                }));
            }
            tallies.push(tally);
        }
        Self { is_over, rests, tallies, threads }
    }

    fn rest(&self, rests: bool) {
        self.rests.store(rests, Ordering::Relaxed);
    }

    fn stop(self) -> Vec<Arc<Tally>> {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client failed");
        }
        self.tallies
    }
}

/// One client.
struct Asking {
    address: SocketAddr,
    kept_for: u32,
    /// Requests until its connection ends.
    left: u32,
    stream: Option<TcpStream>,
}

impl Asking {
    /// One request; as every client of HTTP does, it asks once more when the connection that it had was
    /// closed before anything of the answer had come (RFC 9112 §9.3.1).
    fn ask(&mut self, tally: &Tally) {
        let (began, was_kept) = (Instant::now(), self.stream.is_some());
        let mut result = self.try_ask();
        if was_kept && matches!(result, Err(Miss::Unheard(_))) {
            tally.again.fetch_add(1, Ordering::Relaxed);
            result = self.try_ask();
        }
        let Err(Miss::Unheard(error) | Miss::Broken(error)) = result else {
            tally.answered.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let reason = error.to_string();
        let one = Unanswered { began, ended: Instant::now(), reason };
        tally.unanswered.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        // Of a service that refuses everybody there are enough already.
        thread::sleep(millis(10));
    }

    fn try_ask(&mut self) -> Result<(), Miss> {
        let result = self.exchange();
        if result.is_err() || self.left == 0 {
            self.stream = None;
        }
        result
    }

    fn exchange(&mut self) -> Result<(), Miss> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream =
                    TcpStream::connect_timeout(&self.address, PATIENCE).map_err(Miss::Unheard)?;
                stream.set_read_timeout(Some(PATIENCE)).map_err(Miss::Unheard)?;
                self.left = self.kept_for;
                self.stream.insert(stream)
            }
        };
        self.left -= 1;
        let request = match self.left {
            0 => "GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n",
            _ => "GET / HTTP/1.1\r\nHost: lab\r\n\r\n",
        };
        stream.write_all(request.as_bytes()).map_err(Miss::Unheard)?;
        let (mut text, mut bytes) = (String::new(), [0; 512]);
        loop {
            match stream.read(&mut bytes) {
                Ok(0) => return Err(Miss::of(&text, io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => text += &String::from_utf8_lossy(&bytes[..length]),
                Err(error) => return Err(Miss::of(&text, error)),
            }
            if text.ends_with("it works") {
                break;
            }
        }
        match text.starts_with("HTTP/1.1 200") {
            true => Ok(()),
            false => Err(Miss::Broken(io::Error::other(text))),
        }
    }
}

/// Why there is no answer.
enum Miss {
    /// Nothing of it came.
    Unheard(io::Error),
    Broken(io::Error),
}

impl Miss {
    fn of(text: &str, error: io::Error) -> Self {
        // Who waited in vain was not turned away.
        let is_late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        if text.is_empty() && !is_late { Self::Unheard(error) } else { Self::Broken(error) }
    }
}

/// The machines, and what has been done to them.
struct Soak {
    daemons: Vec<Running>,
    servers: Vec<Option<Process>>,
    lab: Lab,
    /// All that was done, and when.
    events: Vec<(Instant, String)>,
    kills: Vec<Instant>,
    handovers: u32,
    changes: u32,
}

impl Soak {
    fn start() -> Self {
        let lab = Lab::new(Shape { directors: 2, servers: 4, company: Company::Alone });
        for node in lab.directors.iter().chain([&lab.client]) {
            // Thousands of connections a second leave more ports behind than there are by default.
            node.shell(
                "sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1",
            );
        }
        let servers = lab.servers.iter().map(|node| Some(nginx(node, ""))).collect();
        let config = config(3);
        let daemons =
            lab.directors.iter().map(|node| Locum::NATIVE.start_with(node, &config)).collect();
        let (events, kills) = (Vec::new(), Vec::new());
        let soak = Self { daemons, servers, lab, events, kills, handovers: 0, changes: 0 };
        wait::until("the first director serves", ELECTION, || {
            let vip = VIP.parse().expect("an address");
            soak.lab.directors[0].holds(vip)
                && BACKENDS.iter().all(|(_, port)| {
                    let address = SocketAddr::new(vip, *port);
                    crate::web::get_at(&soak.lab.client, address).is_ok()
                })
        });
        soak
    }

    /// The next of the changes, which come round again: a server is killed and started, one is drained
    /// and ready again, one comes and goes.
    fn change(&mut self) {
        const DONE: [&str; 7] =
            ["killed", "started", "drained", "ready", "added", "drained again", "removed"];
        let place = (self.changes / 7) as usize % 3;
        let step = self.changes as usize % DONE.len();
        self.events.push((Instant::now(), format!("a server was {}", DONE[step])));
        match step {
            0 => {
                let mut server = self.servers[place].take().expect("it runs");
                self.kills.push(Instant::now());
                server.signal(Whom::Family, Signal::SIGKILL);
                server.wait(seconds(10));
            }
            1 => self.servers[place] = Some(nginx(&self.lab.servers[place], "")),
            2 => self.order("drain", (place + 1) % 3),
            3 => self.order("ready", (place + 1) % 3),
            4 => {
                self.reload(4);
                // What was said of it when it went.
                self.order("ready", 3);
            }
            5 => self.order("drain", 3),
            _ => self.reload(3),
        }
        self.changes += 1;
    }

    fn order(&self, what: &str, place: usize) {
        let address = format!("10.0.0.{}", place + 1);
        for director in &self.lab.directors {
            for (name, _) in BACKENDS {
                succeeds(director, &["server", what, name, &address]);
            }
        }
    }

    fn reload(&self, servers: usize) {
        for director in &self.lab.directors {
            Locum::NATIVE.configure(director, &config(servers));
            succeeds(director, &["reload"]);
        }
    }

    fn hand_over(&mut self) {
        let vip = VIP.parse().expect("an address");
        let holders = self.lab.holders(vip);
        let from = holders.first().copied().unwrap_or(0);
        self.events.push((Instant::now(), format!("lb{} handed over", from + 1)));
        succeeds(&self.lab.directors[from], &["switchover", "web"]);
        wait::until("the other one has it", ELECTION, || self.lab.holders(vip) == [1 - from]);
        let what = format!("lb{} had let go", from + 1);
        self.events.push((Instant::now(), what));
        self.handovers += 1;
    }

    /// What each kind of process takes on each director.
    fn taken(&self) -> BTreeMap<String, Taken> {
        let mut all: BTreeMap<String, Taken> = BTreeMap::new();
        for (place, daemon) in self.daemons.iter().enumerate() {
            for (kind, taken) in daemon.taken() {
                all.entry(format!("lb{} {kind}", place + 1)).or_default().add(taken);
            }
        }
        all
    }
}

/// Runs a command of the binary, which must succeed.
fn succeeds(node: &Node, words: &[&str]) {
    let output = locum_command(node, words);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
}

/// With the first so many servers behind each backend.
fn config(servers: usize) -> String {
    let list: Vec<String> = (1..=servers).map(|one| format!("\"10.0.0.{one}:80\"")).collect();
    let list = list.join(", ");
    let services = BACKENDS.iter().map(|(name, port)| {
        // What is started under full load is late.
        let standby = if *name == "nftables" { "" } else { "standby = \"warm\"\n" };
        format!(
            "\n[[service]]\nname = \"{name}\"\ninstance = \"web\"\nbackend = \"{name}\"\n\
             listen = \"{VIP}:{port}\"\nscheduler = \"rr\"\nservers = [{list}]\n\
             {standby}health = {{ http = \"/\", interval = \"500ms\", timeout = \"400ms\", rise = 1, fall = 1 }}\n"
        )
    });
    every_second(&services.collect::<String>())
}

/// Full load for as long as the course lasts: whether nothing was lost and all is level.
pub fn soak(course: Course) -> bool {
    if !require::lab(&["haproxy", "nginx", "nft"]) {
        return false;
    }
    let mut soak = Soak::start();
    let clients = Clients::start(&soak.lab.client);
    // Everything has been done once before it is looked at.
    let first = course.change_every * 7;
    run(&mut soak, course, first.min(course.lasts / 2));
    clients.rest(true);
    thread::sleep(REST);
    let before = soak.taken();
    clients.rest(false);
    let start = Instant::now();
    run(&mut soak, course, course.lasts);
    clients.rest(true);
    let took = start.elapsed();
    let tallies = clients.stop();
    // Connections that a handover has stranded end after the drain time at the latest.
    let rested = Instant::now();
    let mut after = soak.taken();
    while rested.elapsed() < LONG_REST && !is_level(&before, &after) {
        thread::sleep(millis(500));
        after = soak.taken();
    }
    println!(
        "{} changes, {} handovers, {} servers killed in {took:?}",
        soak.changes,
        soak.handovers,
        soak.kills.len()
    );
    let is_whole = show_requests(&tallies, &soak);
    show_level(&before, &after);
    if !is_whole {
        for daemon in &soak.daemons {
            let log = daemon.log();
            let grave =
                log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
            grave.filter(|line| !line.contains(" is down: ")).for_each(|line| println!("{line}"));
        }
    }
    is_level(&before, &after) && is_whole
}

fn run(soak: &mut Soak, course: Course, lasts: Duration) {
    let start = Instant::now();
    let mut change_at = start + course.change_every;
    let mut handover_at = start + course.handover_every.min(lasts / 2);
    while start.elapsed() < lasts {
        if Instant::now() >= change_at {
            soak.change();
            change_at = Instant::now() + course.change_every;
        }
        if Instant::now() >= handover_at {
            soak.hand_over();
            handover_at += course.handover_every;
        }
        thread::sleep(millis(20));
    }
}

fn show_requests(tallies: &[Arc<Tally>], soak: &Soak) -> bool {
    let kills = &soak.kills;
    println!("backend     requests  asked again  in flight at a kill  before its check    lost");
    let mut is_whole = true;
    for ((name, _), tally) in BACKENDS.iter().zip(tallies) {
        let unanswered = tally.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut in_flight, mut unchecked, mut lost) = (0, 0, Vec::new());
        for one in unanswered.iter() {
            let is_cut = |kill: &&Instant| one.began <= **kill && **kill <= one.ended;
            let is_unknown =
                |kill: &&Instant| one.began >= **kill && one.began.duration_since(**kill) < UNKNOWN;
            if kills.iter().any(|kill| is_cut(&kill)) {
                in_flight += 1;
            } else if kills.iter().any(|kill| is_unknown(&kill)) {
                unchecked += 1;
            } else {
                lost.push(one);
            }
        }
        println!(
            "{name:10} {:9} {:12} {in_flight:20} {unchecked:17} {:7}",
            tally.answered.load(Ordering::Relaxed),
            tally.again.load(Ordering::Relaxed),
            lost.len(),
        );
        for one in lost.iter().take(SHOWN) {
            let event = soak.events.iter().rfind(|(at, _)| *at <= one.began);
            let (at, what) = event.cloned().unwrap_or((one.began, "it began".to_owned()));
            let (after, lasted) = (one.began.duration_since(at), one.ended - one.began);
            println!(
                "           {}: began {after:.1?} after {what}, in vain for {lasted:.1?}",
                one.reason
            );
        }
        is_whole &= lost.is_empty();
    }
    is_whole
}

fn show_level(before: &BTreeMap<String, Taken>, after: &BTreeMap<String, Taken>) {
    println!("process                      resident MB       descriptors     processes");
    for name in before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))) {
        let old = before.get(name).copied().unwrap_or_default();
        let new = after.get(name).copied().unwrap_or_default();
        println!(
            "{name:24} {:7.1} to {:5.1} {:8} to {:5} {:7} to {:3}",
            old.resident_kib as f64 / 1024.0,
            new.resident_kib as f64 / 1024.0,
            old.descriptors,
            new.descriptors,
            old.processes,
            new.processes,
        );
    }
}

fn is_level(before: &BTreeMap<String, Taken>, after: &BTreeMap<String, Taken>) -> bool {
    after.iter().all(|(name, new)| {
        // What a director starts when it becomes master is measured against the other one's.
        let kind = |name: &str| name.split_once(' ').map_or("", |(_, kind)| kind).to_owned();
        let same = before.iter().filter(|(other, _)| kind(other) == kind(name));
        let old = before.get(name).or_else(|| same.map(|(_, taken)| taken).next());
        let old = old.copied().unwrap_or_default();
        new.descriptors <= old.descriptors + MORE_DESCRIPTORS
            && new.resident_kib <= old.resident_kib + MORE_KIB + old.resident_kib / 4
    })
}
