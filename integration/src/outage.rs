//! What takes the service of a director away while its daemon lives, and when clients are answered
//! again.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::capture::Capture;
use crate::capture::Kind;
use crate::node::Node;
use crate::service::HAPROXY_FILE;
use crate::wait;
use crate::web;

/// Where the same, with TLS, finds its certificate.
pub const CERTIFICATE: &str = "/etc/haproxy/site.pem";

/// The file with a listener for TLS beside the plain one.
pub fn with_certificate() -> String {
    let plain = "    bind *:80\n";
    HAPROXY_FILE.replace(plain, &format!("{plain}    bind *:443 ssl crt {CERTIFICATE}\n"))
}

/// Writes a certificate for this name with its key, which nobody vouches for.
pub fn issue_certificate(node: &Node, name: &str) {
    node.shell(&format!(
        "mkdir -p /run/lab
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 \
         -subj /CN={name} -keyout /run/lab/key.pem -out /run/lab/chain.pem 2>/dev/null
         cat /run/lab/chain.pem /run/lab/key.pem > {CERTIFICATE}"
    ));
}

/// Takes port 80 of every address as soon as it is free, and answers nobody.
///
/// # Panics
/// When it does not become free.
pub fn take_port(node: &Node) -> TcpListener {
    let any = SocketAddr::from(([0, 0, 0, 0], 80));
    wait::eventually("the port is free for a stranger", wait::seconds(20), || {
        node.in_network(|| TcpListener::bind(any)).map_err(|error| error.to_string())
    })
}

/// Sends a signal to every HAProxy of a node.
pub fn signal_haproxy(node: &Node, signal: &str) {
    node.shell(&format!("kill -{signal} $(pgrep -x haproxy)"));
}

/// The web servers cannot be reached from this node any more.
pub fn lose_servers(node: &Node) {
    node.shell(
        "ip route add unreachable 10.0.0.1/32
         ip route add unreachable 10.0.0.2/32",
    );
}

/// Ends [`lose_servers`].
pub fn find_servers(node: &Node) {
    node.shell(
        "ip route del unreachable 10.0.0.1/32
         ip route del unreachable 10.0.0.2/32",
    );
}

/// When the director called `from` first said on the wire, after `since`, that it is no longer what
/// it was: an advert of another priority than `usual`.
pub fn known(capture: &Capture, from: &str, usual: u8, since: Instant) -> Option<Instant> {
    let adverts = capture.adverts(from).into_iter();
    let mut other = adverts.filter(|(at, advert)| *at > since && advert.priority != usual);
    other.next().map(|(at, _)| at)
}

/// Who was master, each change once, by the adverts that do not let go.
pub fn masters(capture: &Capture) -> Vec<String> {
    let frames = capture.frames().into_iter();
    let mut masters: Vec<String> = frames
        .filter(|frame| match &frame.kind {
            Kind::Advert(advert) => advert.priority > 0,
            Kind::GratuitousArp { .. } | Kind::UnsolicitedNeighbour { .. } => false,
        })
        .map(|frame| frame.from)
        .collect();
    masters.dedup();
    masters
}

/// Time between two connections of [`Knocks`].
const SPACING: Duration = Duration::from_millis(20);
/// A connection that takes longer is given up; others have been opened meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// New connections with a request each, whatever becomes of those before.
pub struct Knocks {
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<Vec<Knock>>>,
    thread: Option<JoinHandle<()>>,
}

/// One that was answered.
#[derive(Clone, Copy)]
struct Knock {
    begun: Instant,
    ended: Instant,
}

impl Knocks {
    /// Starts to ask `address` from `client`.
    pub fn start(client: &Node, address: IpAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(Mutex::new(Vec::new()));
        let thread = client.spawn_in_network({
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            move || knock(SocketAddr::from((address, 80)), &stop, &answered)
        });
        Self { stop, answered, thread: Some(thread) }
    }

    /// When the first of those was answered that began after `since`.
    pub fn answered_since(&self, since: Instant) -> Option<Instant> {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let later = answered.iter().filter(|knock| knock.begun > since);
        later.map(|knock| knock.ended).min()
    }

    /// From one answer to the next one, whichever connections they belong to.
    pub fn longest_silence(&self) -> Duration {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ends: Vec<Instant> = answered.iter().map(|knock| knock.ended).collect();
        ends.sort();
        ends.windows(2).map(|pair| pair[1].duration_since(pair[0])).max().unwrap_or_default()
    }
}

impl Drop for Knocks {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}

fn knock(address: SocketAddr, stop: &AtomicBool, answered: &Mutex<Vec<Knock>>) {
    // A thread is in the network of the one that starts it.
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            scope.spawn(|| {
                let begun = Instant::now();
                if web::request(address, "lab", "/health", PATIENCE).is_ok() {
                    let knock = Knock { begun, ended: Instant::now() };
                    answered.lock().unwrap_or_else(PoisonError::into_inner).push(knock);
                }
            });
            thread::sleep(SPACING);
        }
    });
}
